//! Tensors larger than a binding are split by rows, and the answers are the same.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use raglan::gpu::{Gpu, GpuOptions};
use raglan::models::Checkpoint;
use raglan::{EngineOptions, Event, Request, SamplingParams, Stepper};

/// The tiny model's greedy tokens on an adapter with bindings of at most `max_binding_bytes`, and how many pieces its
/// embedding is in.
fn answer(max_binding_bytes: Option<u64>) -> Option<(Vec<u32>, usize)> {
    let gpu = match Gpu::open(&GpuOptions { max_binding_bytes, ..GpuOptions::default() }) {
        Ok(gpu) => gpu,
        Err(raglan::Error::NoAdapter) if std::env::var_os("RAGLAN_REQUIRE_ADAPTER").is_none() => {
            println!("skipped: no adapter");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let checkpoint = Checkpoint::tiny().unwrap();
    let mut engine = Stepper::new(&gpu, &checkpoint, &EngineOptions::default(), &mut |_, _| ()).unwrap();
    let sampling = SamplingParams { max_tokens: 20, ..SamplingParams::default() };
    engine.submit(Request::new(vec![517, 769, 260, 770], sampling)).unwrap();
    let mut tokens = Vec::new();
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            if let Event::Token { token, .. } = event {
                tokens.push(token);
            }
        }
    }
    Some((tokens, engine.embedding_pieces()))
}

#[test]
fn a_split_model_answers_as_a_whole_one() {
    let Some((whole, pieces)) = answer(None) else { return };
    assert_eq!(pieces, 1);
    // The embedding is [2048, 128] in f16: 512 KiB. An arena of 256 slots takes 64 KiB.
    let (split, pieces) = answer(Some(100 << 10)).unwrap();
    assert_eq!(pieces, 6, "512 KiB at 384 rows of 256 bytes a piece");
    assert_eq!(split, whole);
}
