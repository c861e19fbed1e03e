//! The default model, SmolLM2-135M-Instruct from its Q4_1 GGUF, against transformers on the same weights in f16.
//! Ignored unless asked for, since the model must be fetched first: `tools/fetch-model`, then
//! `cargo test --test default_model -- --ignored`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use raglan::gpu::{Gpu, GpuOptions};
use raglan::models::hub::Cache;
use raglan::models::{Checkpoint, Tokenizer};
use raglan::{EngineOptions, Event, Request, SamplingParams, Stepper};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Rounding these weights to f16, as the reference did, moves a logit by up to 0.057; a top-2 margin over this is out of
/// reach of that.
const MARGIN: f32 = 0.15;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn checkpoint() -> Checkpoint {
    let path = Cache::from_env().default_model().expect("the default model is in the cache: run tools/fetch-model");
    Checkpoint::open(&path).unwrap()
}

fn engine(checkpoint: &Checkpoint) -> Stepper {
    let gpu = Gpu::open(&GpuOptions::default()).unwrap();
    let options = EngineOptions { max_context: Some(2048), ..EngineOptions::default() };
    Stepper::new(&gpu, checkpoint, &options, &mut |_, _| ()).unwrap()
}

fn ids(item: &Value, key: &str) -> Vec<u32> {
    item[key].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn numbers(item: &Value, key: &str) -> Vec<f32> {
    item[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

/// Each golden token is the largest logit after those before it, or one that is within the margin of it; the logits and
/// losses of the prompts are the reference's to within what the reference's own rounding of the weights explains.
#[test]
#[ignore = "needs the default model: tools/fetch-model"]
fn greedy_tokens_logits_and_losses_are_those_of_the_reference() {
    let text = std::fs::read(root().join("tests/golden/smollm2_135m_instruct/golden.json")).unwrap();
    let golden: Value = serde_json::from_slice(&text).unwrap();
    let checkpoint = checkpoint();
    let mut engine = engine(&checkpoint);
    let (mut equal, mut near, mut worst_logit, mut worst_loss) = (0, 0, 0.0f32, 0.0f32);
    for item in golden["items"].as_array().unwrap() {
        let (prompt, greedy) = (ids(item, "prompt_ids"), ids(item, "greedy_ids"));
        let tokens: Vec<u32> = prompt.iter().chain(&greedy).copied().collect();
        let top: Vec<_> = ids(item, "last_top20_ids").into_iter().zip(numbers(item, "last_top20_logits")).collect();
        engine
            .logits(&tokens, usize::MAX, |place, logits| {
                if place + 1 == prompt.len() {
                    for &(id, wanted) in &top {
                        worst_logit = worst_logit.max((logits[id as usize] - wanted).abs());
                    }
                }
                if place + 1 < prompt.len() || place + 1 == tokens.len() {
                    return;
                }
                let wanted = tokens[place + 1] as usize;
                let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                assert!(
                    largest - logits[wanted] <= MARGIN,
                    "{:?}: token {place}: {} below",
                    item["prompt"],
                    largest - logits[wanted]
                );
                if logits[wanted] == largest { equal += 1 } else { near += 1 }
            })
            .unwrap();
        for (met, wanted) in engine.losses(&prompt).unwrap().iter().zip(numbers(item, "prompt_nll")) {
            worst_loss = worst_loss.max((met - wanted).abs());
        }
    }
    println!(
        "{equal} tokens equal, {near} within {MARGIN}; largest logit error {worst_logit:.4}, loss error {worst_loss:.4}"
    );
    assert!(equal > 100, "most tokens are equal");
    // A loss is a difference of logits.
    assert!(worst_logit <= MARGIN / 2.0 && worst_loss <= MARGIN);
}

/// What the engine writes is the golden answer, up to the first token where the two largest logits are within the margin.
#[test]
#[ignore = "needs the default model: tools/fetch-model"]
fn the_engine_writes_the_golden_answers() {
    let text = std::fs::read(root().join("tests/golden/smollm2_135m_instruct/golden.json")).unwrap();
    let golden: Value = serde_json::from_slice(&text).unwrap();
    let checkpoint = checkpoint();
    let mut engine = engine(&checkpoint);
    for item in golden["items"].as_array().unwrap() {
        let (prompt, greedy) = (ids(item, "prompt_ids"), ids(item, "greedy_ids"));
        let sampling = SamplingParams { max_tokens: greedy.len(), ..SamplingParams::default() };
        engine.submit(Request::new(prompt.clone(), sampling)).unwrap();
        let mut met = Vec::new();
        while !engine.is_idle() {
            met.extend(engine.step().unwrap().into_iter().filter_map(|event| match event {
                Event::Token { token, .. } => Some(token),
                _ => None,
            }));
        }
        let Some(first) = met.iter().zip(&greedy).position(|(a, b)| a != b) else { continue };
        let tokens: Vec<u32> = prompt.iter().chain(&greedy[..first]).copied().collect();
        let mut gap = f32::INFINITY;
        let last = |place: usize, logits: Vec<f32>| {
            if place + 1 == tokens.len() {
                gap = logits[met[first] as usize] - logits[greedy[first] as usize];
            }
        };
        engine.logits(&tokens, usize::MAX, last).unwrap();
        assert!(
            gap <= MARGIN,
            "{:?}: token {first} is {}, wanted {}, {gap} apart",
            item["prompt"],
            met[first],
            greedy[first]
        );
    }
}

/// wikitext-2 is not ours to commit; it is read from where `RAGLAN_WIKITEXT` says, or beside the project.
fn wikitext() -> Option<PathBuf> {
    let beside = root().join("../shared/data/text/wikitext2_test.raw");
    std::env::var_os("RAGLAN_WIKITEXT").map(PathBuf::from).or(Some(beside)).filter(|path| path.exists())
}

#[test]
#[ignore = "needs the default model: tools/fetch-model"]
fn perplexity_of_two_windows_of_wikitext_is_that_of_the_reference() {
    let Some(path) = wikitext() else {
        println!("skipped: no wikitext-2; set RAGLAN_WIKITEXT to wiki.test.raw");
        return;
    };
    let checkpoint = checkpoint();
    let tokenizer = Tokenizer::open(&checkpoint).unwrap().expect("the default model has a tokenizer");
    let text = std::fs::read_to_string(path).unwrap().replace("\r\n", "\n").replace('\r', "\n");
    let start = text.char_indices().map(|(at, _)| at).take_while(|&at| at < 20_000).last().unwrap_or_default();
    let tokens = tokenizer.encode(&text[..start], false).unwrap();
    let mut engine = engine(&checkpoint);
    let losses: Vec<f32> =
        tokens.chunks_exact(1024).take(2).flat_map(|window| engine.losses(window).unwrap()).collect();
    assert_eq!(losses.len(), 2 * 1023);
    let nll = losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / losses.len() as f64;
    let (met, wanted) = (nll.exp(), 20.210);
    println!("perplexity {met:.4}, the reference's {wanted}");
    assert!((met / wanted - 1.0).abs() < 0.005, "{met}");
}
