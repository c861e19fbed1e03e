//! Greedy decoding and logits of checkpoints against transformers.

use super::{Adapters, SelfTest, test};
use crate::engine::{Engine, EngineOptions};
use crate::gpu::Gpu;
use crate::request::{Event, Request, SamplingParams};
use raglan_models::Checkpoint;
use std::path::Path;

pub(super) fn tests() -> Vec<SelfTest> {
    let names = ["llama", "llama_tied_bias", "llama3_rope", "mistral_swa", "qwen2", "qwen3", "smollm3"];
    names
        .into_iter()
        .map(|name| {
            test(format!("golden/{name}"), move |adapters: &Adapters| {
                let path = Path::new("tests/golden").join(name);
                let checkpoint = Checkpoint::open(&path).map_err(|e| e.to_string())?;
                let golden: serde_json::Value =
                    serde_json::from_slice(&std::fs::read(path.join("golden.json")).unwrap()).unwrap();
                let ids = |key: &str| -> Vec<u32> { golden[key].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect() };
                let prompt = ids("prompt");
                let generated = ids("generated");
                for pipeline in [1, 2] {
                    let met = greedy(&adapters.plain, &checkpoint, &prompt, 24, pipeline)?;
                    if met != generated[48..] {
                        return Err(format!("pipeline {pipeline}: met {met:?}, wanted {:?}", &generated[48..]));
                    }
                }
                Ok(String::new())
            })
        })
        .collect()
}

fn greedy(gpu: &Gpu, checkpoint: &Checkpoint, prompt: &[u32], max_tokens: usize, pipeline: usize) -> Result<Vec<u32>, String> {
    let options = EngineOptions { pipeline, ..EngineOptions::default() };
    let mut engine = Engine::new(gpu, checkpoint, &options, &mut |_, _| ()).map_err(|e| e.to_string())?;
    let sampling = SamplingParams { max_tokens, ..SamplingParams::default() };
    engine.submit(Request { prompt: prompt.to_vec(), sampling }).map_err(|e| e.to_string())?;
    let mut tokens = Vec::new();
    while !engine.is_idle() {
        for event in engine.step().map_err(|e| e.to_string())? {
            if let Event::Token { token, .. } = event {
                tokens.push(token);
            }
        }
    }
    Ok(tokens)
}
