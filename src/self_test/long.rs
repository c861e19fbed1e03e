//! Long contexts: what an engine holds, and attention and positions past 2^17 and 2^20 tokens.

mod attention;

use super::golden::Golden;
use super::runs::{dtypes, engine, options};
use super::{Adapters, SelfTest, test};
use crate::cost::AdapterClass;
use crate::engine::EngineOptions;
use crate::gpu::{Gpu, GpuOptions};
use raglan_models::{Checkpoint, Synthetic};

pub(super) fn tests() -> Vec<SelfTest> {
    vec![
        test("long/an_engine_allocates_what_was_computed", allocates),
        test("long/attention_past_a_million_tokens", attention::check),
    ]
}

fn text<T: ToString>(error: T) -> String {
    error.to_string()
}

/// What engines of several shapes hold on an adapter of their own is what was computed before: within 2 % with the cache, and
/// without.
fn allocates(adapters: &Adapters) -> Result<String, String> {
    let synthetic = |name: &str| Synthetic::parse(name).map(Checkpoint::synthetic).map_err(text);
    let mut models =
        vec![synthetic("synthetic:tiny:q4")?, synthetic("synthetic:tiny:f16")?, synthetic("synthetic:tiny:q6_k")?];
    for name in ["llama_odd", "qwen2", "qwen3", "mistral_swa"] {
        models.push(Golden::open(name)?.checkpoint);
    }
    let (mut worst, mut engines) = (0.0f64, 0);
    for checkpoint in &models {
        for (place, dtype) in dtypes(&adapters.plain).into_iter().enumerate() {
            let class = (place == 0).then_some(AdapterClass::Hardware);
            let adapter = Some(adapters.plain.summary().index.to_string());
            let gpu = Gpu::open(&GpuOptions { adapter, ..GpuOptions::default() }).map_err(text)?;
            let max_context = Some([500, 3000][place % 2]);
            let options =
                EngineOptions { dtype, class, max_context, max_sequences: 5, max_batch_tokens: 96, ..options() };
            let engine = engine(&gpu, checkpoint, &options)?;
            let (memory, held) = (engine.memory(), gpu.held_bytes());
            let apart = |met: u64, wanted: u64| (met as f64 / wanted as f64 - 1.0).abs();
            let whole = apart(held, memory.weight_bytes + memory.step_bytes + memory.kv_bytes);
            let beside = apart(held - engine.kv_bytes(), memory.weight_bytes + memory.step_bytes);
            worst = worst.max(whole).max(beside);
            if worst > 0.02 {
                let path = checkpoint.path().display();
                return Err(format!(
                    "{path}, {dtype:?}: {held} bytes, {} of them cache, where {memory:?}",
                    engine.kv_bytes()
                ));
            }
            engines += 1;
        }
    }
    Ok(format!("{engines} engines, at most {:.3} % apart", 100.0 * worst))
}
