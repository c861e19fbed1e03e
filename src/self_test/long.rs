//! Long contexts: what an engine holds, and attention and positions past 2^17 and 2^20 tokens.

mod attention;

use super::golden::Golden;
use super::runs::{dtypes, engine, options};
use super::{Adapters, SelfTest, test};
use crate::bench::depth::Fit;
use crate::cost::AdapterClass;
use crate::engine::EngineOptions;
use crate::gpu::{Gpu, GpuOptions};
use crate::request::{Event, Request, SamplingParams};
use raglan_models::{Checkpoint, Synthetic};
use std::time::Instant;

pub(super) fn tests() -> Vec<SelfTest> {
    vec![
        test("long/an_engine_allocates_what_was_computed", allocates),
        test("long/attention_past_a_million_tokens", attention::check),
        test("long/a_sequence_past_a_million_tokens", sequence),
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

/// Decoding behind 1K to 128K tokens and past 2^20: logits are numbers, every step reads each key once, and so the bytes of a token
/// grow in a straight line; its time is told.
fn sequence(adapters: &Adapters) -> Result<String, String> {
    const DEEPEST: usize = (1 << 20) + 100;
    let mut synthetic = Synthetic::parse("synthetic:tiny:f16").map_err(text)?;
    // One narrow head of keys, so that a layer's fit the smallest binding.
    (synthetic.spec.num_key_value_heads, synthetic.spec.head_dim, synthetic.spec.rope.rotary_dim) = (1, 16, 16);
    let checkpoint = Checkpoint::synthetic(synthetic);
    let max_context = Some(DEEPEST + 64);
    let options =
        EngineOptions { max_context, max_sequences: 1, max_batch_tokens: 16, prefix_cache: false, ..options() };
    let mut engine = engine(&adapters.plain, &checkpoint, &options)?;
    engine.compile(|_, _| ()).map_err(text)?;
    engine.fill_cache().map_err(text)?;
    let (mut points, mut reads) = (Vec::new(), Vec::new());
    for depth in [1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 17, DEEPEST] {
        let prompt = vec![7; depth + 1];
        let sampling = SamplingParams { max_tokens: 2, ..SamplingParams::default() };
        engine.take_logits();
        engine.start_meter(None);
        let id = engine.submit_at(Request::new(prompt, sampling), depth).map_err(text)?;
        let (start, mut tokens) = (Instant::now(), 0);
        while !engine.is_idle() {
            for event in engine.step().map_err(text)? {
                if let Event::Failed { message, .. } = event {
                    return Err(format!("depth {depth}: {message}"));
                }
                tokens += usize::from(matches!(event, Event::Token { .. }));
            }
        }
        let ms = 500.0 * start.elapsed().as_secs_f64();
        let metered = engine.stop_meter();
        let rows = engine.take_logits().remove(&id).unwrap_or_default();
        let is_number = rows.iter().flatten().all(|logit| logit.is_finite());
        if tokens != 2 || rows.len() != 2 || !is_number {
            return Err(format!(
                "depth {depth}: {tokens} tokens, {} rows of logits, all numbers: {is_number}",
                rows.len()
            ));
        }
        let read: u64 = metered.works.iter().filter(|work| work.label == "attention").map(|work| work.read_bytes).sum();
        reads.push((depth as f64, read as f64 / 2.0));
        points.push((depth as f64, ms));
    }
    // Of two tokens, each behind one more than the last, in every layer and for keys and values alike.
    let line = Fit::of(&reads).ok_or("no line through the bytes")?;
    if line.worst_residual > 0.02 {
        return Err(format!("bytes that attention reads a token: {reads:?}, {line:?}"));
    }
    let time = Fit::of(&points).ok_or("no line through the times")?;
    let (deepest, ms) = points[points.len() - 1];
    Ok(format!(
        "to {deepest} tokens in {ms:.1} ms each; {:.2} ms + {:.1} µs a 1K tokens, worst residual {:.0} %",
        time.ms,
        time.us_per_1k,
        100.0 * time.worst_residual
    ))
}
