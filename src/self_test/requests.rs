//! What a request asks for is what it gets: sampling, penalties, ends, cancellation; and steps that create nothing.

use super::golden::Golden;
use super::reference::Reference;
use super::runs::{Answer, answer, answers, engine, greedy, options, same};
use super::{Adapters, SelfTest, test};
use crate::engine::{EngineOptions, Stepper};
use crate::request::{Event, FinishReason, Request, SamplingParams};
use raglan_models::Checkpoint;
use raglan_shaders::adjust_logits::{self, LogitAdjustment};

pub(super) fn tests() -> Vec<SelfTest> {
    vec![
        test("request/sampled_batched_is_alone", sampled),
        test("request/penalties", penalties),
        test("request/ends", ends),
        test("request/cancelled", cancelled),
        test("engine/creates_nothing_in_a_step", creates_nothing),
        test("engine/losses", losses),
    ]
}

fn text<T: ToString>(error: T) -> String {
    error.to_string()
}

/// The same seed draws the same tokens, alone, in a batch, and with two steps in flight; another seed draws others.
fn sampled(adapters: &Adapters) -> Result<String, String> {
    let golden = Golden::open("llama")?;
    let request = |seed: u64, temperature, top_k, top_p, min_p, repetition_penalty| {
        let sampling = SamplingParams {
            max_tokens: 24,
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            seed,
            ..SamplingParams::default()
        };
        Request { prompt: golden.prompt[seed as usize..].to_vec(), sampling, priority: 0 }
    };
    let requests = [
        request(1, 0.8, 0, 1.0, 0.0, 1.0),
        request(2, 1.5, 0, 0.95, 0.0, 1.0),
        request(3, 1.0, 20, 0.9, 0.0, 1.3),
        // Hotter than the candidates reach: whole rows are read.
        request(4, 8.0, 200, 1.0, 0.0, 1.0),
        request(5, 1.0, 0, 1.0, 0.05, 1.0),
        greedy(&golden.prompt, 24),
    ];
    let mut want = Vec::new();
    for pipeline in [1, 2] {
        let options = EngineOptions { pipeline, ..options() };
        let mut engine = engine(&adapters.plain, &golden.checkpoint, &options)?;
        let met = requests.iter().map(|request| answer(&mut engine, request)).collect::<Result<Vec<_>, String>>()?;
        if pipeline == 1 {
            want = met.clone();
        }
        same(&format!("alone, pipeline {pipeline}"), &met, &want)?;
        same(&format!("together, pipeline {pipeline}"), &answers(&mut engine, &requests)?, &want)?;
        let mut other = requests[0].clone();
        other.sampling.seed = 77;
        if answer(&mut engine, &other)? == want[0] {
            return Err("another seed draws the same 24 tokens".into());
        }
    }
    Ok(format!("{} requests, 24 tokens each", requests.len()))
}

/// Penalised greedy tokens against the reference decoder with the penalties' twin.
fn penalties(adapters: &Adapters) -> Result<String, String> {
    let golden = Golden::open("llama")?;
    let reference = Reference::new(&golden.checkpoint).map_err(text)?;
    let prompt = &golden.prompt[..12];
    let sampling = SamplingParams {
        max_tokens: 12,
        repetition_penalty: 1.7,
        presence_penalty: 0.6,
        frequency_penalty: 0.9,
        ..SamplingParams::default()
    };
    let vocab = golden.checkpoint.spec().vocab_size;
    let mut tokens = prompt.to_vec();
    let mut bent = 0;
    for _ in 0..sampling.max_tokens {
        let logits = reference.forward(&tokens, None);
        let mut row = logits[logits.len() - vocab..].to_vec();
        let largest = |row: &[f64]| (0..vocab).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0);
        let plain = largest(&row);
        for (token, logit) in row.iter_mut().enumerate() {
            let count = |tokens: &[u32]| tokens.iter().filter(|&&other| other as usize == token).count();
            let generated = count(&tokens[prompt.len()..]) as f32;
            let subtract =
                if generated > 0.0 { sampling.presence_penalty + sampling.frequency_penalty * generated } else { 0.0 };
            if count(&tokens) > 0 {
                let adjustment =
                    LogitAdjustment { row: 0, token: 0, repetition: sampling.repetition_penalty, subtract };
                *logit = adjust_logits::twin(&adjustment, *logit);
            }
        }
        bent += usize::from(largest(&row) != plain);
        tokens.push(largest(&row) as u32);
    }
    if bent == 0 {
        return Err("the penalties change nothing: the test shows nothing".into());
    }
    let request = Request { prompt: prompt.to_vec(), sampling, priority: 0 };
    for pipeline in [1, 2] {
        let mut engine = engine(&adapters.plain, &golden.checkpoint, &EngineOptions { pipeline, ..options() })?;
        same(&format!("pipeline {pipeline}"), &answer(&mut engine, &request)?.tokens[..], &tokens[prompt.len()..])?;
    }
    Ok(format!("12 tokens, {bent} of them others than without"))
}

/// A token that ends the answer is not part of it; `max_tokens` and a full cache end it too.
fn ends(adapters: &Adapters) -> Result<String, String> {
    let golden = Golden::open("llama")?;
    let all = golden.greedy();
    // The first token that did not come before.
    let at = (5..all.len()).find(|&at| !all[..at].contains(&all[at])).ok_or("every token repeats")?;
    for pipeline in [1, 2] {
        let options = EngineOptions { pipeline, ..options() };
        let mut engine = engine(&adapters.plain, &golden.checkpoint, &options)?;
        let mut request = greedy(&golden.prompt, 24);
        request.sampling.eos_token_ids = vec![319, all[at]];
        let stopped = Answer { tokens: all[..at].to_vec(), reason: Some(FinishReason::Stop) };
        same(&format!("a stop, pipeline {pipeline}"), &answer(&mut engine, &request)?, &stopped)?;
        for max_tokens in [1, 2, 24] {
            let cut = Answer { tokens: all[..max_tokens].to_vec(), reason: Some(FinishReason::Length) };
            let met = answer(&mut engine, &greedy(&golden.prompt, max_tokens))?;
            same(&format!("{max_tokens} tokens, pipeline {pipeline}"), &met, &cut)?;
        }
        let options = EngineOptions { max_context: Some(64), ..options };
        let mut engine = self::engine(&adapters.plain, &golden.checkpoint, &options)?;
        let met = answer(&mut engine, &greedy(&golden.prompt, 24))?;
        // 64 slots hold 64 tokens, and one more is sampled from them.
        same(&format!("a full cache, pipeline {pipeline}"), &met.reason, &Some(FinishReason::Length))?;
        same(&format!("a full cache, pipeline {pipeline}"), &met.tokens[..], &all[..met.tokens.len()])?;
        if !(16..=17).contains(&met.tokens.len()) {
            return Err(format!("a cache of 64 slots gives {} tokens after a prompt of 48", met.tokens.len()));
        }
    }
    Ok(format!("after {at} tokens by a stop, after 1, 2, 24 by their number, by a full cache"))
}

/// Cancelled at any time, a request ends once, its slots are free again, and its neighbours' answers stand.
fn cancelled(adapters: &Adapters) -> Result<String, String> {
    let golden = Golden::open("llama")?;
    let mut cases = 0;
    for pipeline in [1, 2] {
        let options = EngineOptions { pipeline, max_batch_tokens: 32, ..options() };
        let mut engine = engine(&adapters.plain, &golden.checkpoint, &options)?;
        let free = engine.free_slots();
        for after in [0, 1, 2, 3, 9] {
            let kept = engine.submit(greedy(&golden.prompt, 24)).map_err(text)?;
            let gone = engine.submit(greedy(&golden.prompt[3..], 24)).map_err(text)?;
            let mut events = Vec::new();
            for _ in 0..after {
                events.extend(engine.step().map_err(text)?);
            }
            engine.cancel(gone);
            let before = events.len();
            while !engine.is_idle() {
                events.extend(engine.step().map_err(text)?);
            }
            let of = |id| move |event: &&Event| event.request() == id && !matches!(event, Event::Started { .. });
            let end = Event::Finished { request: gone, reason: FinishReason::Cancelled };
            let last: Vec<_> = events[before..].iter().filter(of(gone)).cloned().collect();
            same(&format!("events after a cancellation, pipeline {pipeline}"), &last, &vec![end])?;
            let tokens: Vec<u32> = events
                .iter()
                .filter(of(kept))
                .filter_map(|event| if let Event::Token { token, .. } = event { Some(*token) } else { None })
                .collect();
            same(&format!("the other request, pipeline {pipeline}"), &tokens[..], golden.greedy())?;
            engine.forget_prefixes();
            same("free slots", &engine.free_slots(), &free)?;
            cases += 1;
        }
    }
    Ok(format!("{cases} cancellations"))
}

/// After one answer, steps create no buffer (wgpu's own staging among them), no bind group and no pipeline.
fn creates_nothing(adapters: &Adapters) -> Result<String, String> {
    let checkpoint = Checkpoint::tiny().map_err(text)?;
    for pipeline in [1, 2] {
        let options = EngineOptions { pipeline, max_context: Some(256), ..options() };
        let mut engine = engine(&adapters.plain, &checkpoint, &options)?;
        engine.compile(|_, _| ()).map_err(text)?;
        let prompts: [&[u32]; 3] = [&[517, 769, 260, 770], &[517; 40], &[376]];
        let mut requests: Vec<_> = prompts.iter().map(|prompt| greedy(prompt, 30)).collect();
        requests[1].sampling.temperature = 0.7;
        requests[2].sampling.repetition_penalty = 1.2;
        answers(&mut engine, &requests)?;
        for request in &requests {
            engine.submit(request.clone()).map_err(text)?;
        }
        let before = adapters.plain.created();
        for _ in 0..20 {
            engine.step().map_err(text)?;
        }
        same(&format!("created, pipeline {pipeline}"), &adapters.plain.created(), &before)?;
        drain(&mut engine)?;
        same(&format!("created to the end, pipeline {pipeline}"), &adapters.plain.created(), &before)?;
    }
    Ok("20 steps of three requests, then to their end".into())
}

fn drain(engine: &mut Stepper) -> Result<(), String> {
    while !engine.is_idle() {
        engine.step().map_err(text)?;
    }
    Ok(())
}

/// The loss of every token against the reference.
fn losses(adapters: &Adapters) -> Result<String, String> {
    let golden = Golden::open("qwen2")?;
    let reference = Reference::new(&golden.checkpoint).map_err(text)?;
    let vocab = golden.checkpoint.spec().vocab_size;
    let mut engine = engine(&adapters.plain, &golden.checkpoint, &options())?;
    let met = engine.losses(&golden.generated).map_err(text)?;
    let exact = reference.forward(&golden.generated, None);
    same("losses", &met.len(), &(golden.generated.len() - 1))?;
    // A loss moves by no more than twice what its row's logits do.
    let allowed = golden.allowed(&reference);
    let mut worst = 0.0f64;
    for (row, &loss) in met.iter().enumerate() {
        let want =
            raglan_shaders::cross_entropy::twin(&exact[row * vocab..][..vocab], golden.generated[row + 1] as usize);
        worst = worst.max((f64::from(loss) - want).abs() / (2.0 * allowed.f32_row(row)));
    }
    if worst.is_nan() || worst > 1.0 {
        return Err(format!("losses are off by {worst:.2} times what rounding explains"));
    }
    Ok(format!("{} losses, {worst:.2} of what rounding explains", met.len()))
}
