//! Where a sequence lies, what runs beside it and in which steps it is computed must not change its answer.
//!
//! In f32, where the tokens of these models are far from ties: answers are compared token by token. In f16 logits are,
//! with what rounding explains.

use super::data::Random;
use super::golden::Golden;
use super::reference::Reference;
use super::runs::{Answer, answer, answers, dtypes, engine, greedy, logits, options, same};
use super::{Adapters, SelfTest, test};
use crate::engine::{EngineOptions, Stepper};
use crate::request::{Event, FinishReason, Request};
use crate::segments::QUANTUM;

pub(super) fn tests() -> Vec<SelfTest> {
    // Without and with a sliding window.
    let of_each = |name: &'static str, run: fn(&Adapters, &Golden) -> Result<String, String>| {
        ["llama", "mistral_swa"].map(|golden| {
            test(format!("ragged/{name}/{golden}"), move |adapters| run(adapters, &Golden::open(golden)?))
        })
    };
    let mut tests = Vec::new();
    tests.extend(of_each("batched_is_alone", batched_is_alone));
    tests.extend(of_each("segments_are_one", segments_are_one));
    tests.extend(of_each("chunks_are_one", chunks_are_one));
    tests.extend(of_each("preempted_is_not", preempted_is_not));
    tests
}

/// Requests of unequal lengths that end one after the other.
fn unequal(golden: &Golden) -> Vec<Request> {
    let prompt = &golden.prompt;
    let prompts = [&prompt[..], &prompt[..17], &prompt[30..], &prompt[5..6]];
    prompts.iter().zip([24, 40, 7, 30]).map(|(prompt, max_tokens)| greedy(prompt, max_tokens)).collect()
}

fn alone(engine: &mut Stepper, requests: &[Request]) -> Result<Vec<Answer>, String> {
    requests.iter().map(|request| answer(engine, request)).collect()
}

/// Four sequences of unequal lengths in one batch, with one step in flight and with two.
fn batched_is_alone(adapters: &Adapters, golden: &Golden) -> Result<String, String> {
    let requests = unequal(golden);
    let mut want = Vec::new();
    for pipeline in [1, 2] {
        let options = EngineOptions { pipeline, ..options() };
        let mut engine = engine(&adapters.plain, &golden.checkpoint, &options)?;
        if pipeline == 1 {
            want = alone(&mut engine, &requests)?;
            same("alone, the first", &want[0].tokens[..], golden.greedy())?;
        }
        same(&format!("together, pipeline {pipeline}"), &answers(&mut engine, &requests)?, &want)?;
        // And where some start while others run.
        same(&format!("staggered, pipeline {pipeline}"), &staggered(&mut engine, &requests)?, &want)?;
    }
    Ok(format!("{} sequences, {} tokens", requests.len(), want.iter().map(|answer| answer.tokens.len()).sum::<usize>()))
}

/// As [`answers`], but each request comes some steps after the last.
fn staggered(engine: &mut Stepper, requests: &[Request]) -> Result<Vec<Answer>, String> {
    let mut ids = Vec::new();
    let mut answers = vec![Answer::default(); requests.len()];
    let mut step = 0;
    while !engine.is_idle() || ids.len() < requests.len() {
        if step % 3 == 0 && ids.len() < requests.len() {
            ids.push(engine.submit(requests[ids.len()].clone()).map_err(|error| error.to_string())?);
        }
        for event in engine.step().map_err(|error| error.to_string())? {
            let place = ids.iter().position(|id| *id == event.request()).ok_or("an event of no request")?;
            match event {
                Event::Started { .. } => {}
                Event::Token { token, .. } => answers[place].tokens.push(token),
                Event::Finished { reason, .. } => answers[place].reason = Some(reason),
                Event::Failed { message, .. } => return Err(message),
            }
        }
        step += 1;
    }
    engine.forget_prefixes();
    Ok(answers)
}

/// A sequence in two and in five segments, the slots between held: the same tokens, and logits within what rounding
/// explains in both types. And a longer one in eight.
fn segments_are_one(adapters: &Adapters, golden: &Golden) -> Result<String, String> {
    let reference = Reference::new(&golden.checkpoint).map_err(|error| error.to_string())?;
    let allowed = golden.allowed(&reference);
    let mut worst = 0.0f64;
    for dtype in dtypes(&adapters.plain) {
        // The sequence fills every slot that is free.
        for (segments, slots) in [(2, 48), (5, 16)] {
            let mut engine = scattered(adapters, golden, segments, slots, &EngineOptions { dtype, ..options() })?;
            let what = format!("{dtype:?}, {segments} segments");
            let met = answer(&mut engine, &greedy(&golden.prompt, golden.greedy().len()))?;
            same(&what, &met.tokens[..], golden.greedy())?;
            for chunk in [64, 7, 1] {
                let met = logits(&mut engine, &golden.generated, chunk)?;
                worst = worst.max(golden.check(&format!("{what}, chunks of {chunk}"), &met, &allowed, dtype)?.1);
            }
        }
    }
    let mut random = Random::new(2);
    let vocab = golden.checkpoint.spec().vocab_size;
    let long: Vec<u32> = (0..100).map(|_| random.index(vocab) as u32).collect();
    let want = answer(&mut engine(&adapters.plain, &golden.checkpoint, &options())?, &greedy(&long, 28))?;
    for pipeline in [1, 2] {
        for max_batch_tokens in [512, 13] {
            let options = EngineOptions { pipeline, max_batch_tokens, ..options() };
            let mut engine = scattered(adapters, golden, 8, 16, &options)?;
            let what = format!("8 segments, pipeline {pipeline}, {max_batch_tokens} tokens a step");
            same(&what, &answer(&mut engine, &greedy(&long, 28))?, &want)?;
        }
    }
    Ok(format!("logits {worst:.2} of what rounding explains"))
}

/// An engine whose free slots are so many runs of `slots`, with one quantum held between each.
fn scattered(
    adapters: &Adapters,
    golden: &Golden,
    runs: usize,
    slots: usize,
    options: &EngineOptions,
) -> Result<Stepper, String> {
    let max_context = Some(runs * (slots + QUANTUM) - QUANTUM);
    let mut engine = engine(&adapters.plain, &golden.checkpoint, &EngineOptions { max_context, ..options.clone() })?;
    (1..runs).for_each(|run| engine.hold_slots(run * (slots + QUANTUM) - QUANTUM, QUANTUM));
    same("free slots", &engine.free_slots(), &(runs * slots))?;
    Ok(engine)
}

/// A prompt in chunks of some tokens, and at once.
fn chunks_are_one(adapters: &Adapters, golden: &Golden) -> Result<String, String> {
    let request = greedy(&golden.prompt, golden.greedy().len());
    for max_batch_tokens in [1, 7, 16, 512] {
        for pipeline in [1, 2] {
            let options = EngineOptions { max_batch_tokens, pipeline, ..options() };
            let mut engine = engine(&adapters.plain, &golden.checkpoint, &options)?;
            let met = answer(&mut engine, &request)?;
            same(&format!("chunks of {max_batch_tokens}, pipeline {pipeline}"), &met.tokens[..], golden.greedy())?;
        }
    }
    Ok(format!("{} tokens after chunks of 1, 7, 16 and 512", golden.greedy().len()))
}

/// Slots for two of four requests: the newest give way and come back.
fn preempted_is_not(adapters: &Adapters, golden: &Golden) -> Result<String, String> {
    let mut random = Random::new(1);
    let cut = |random: &mut Random| &golden.prompt[random.index(8)..];
    let requests: Vec<_> = (0..4).map(|_| greedy(cut(&mut random), 24)).collect();
    let mut roomy = engine(&adapters.plain, &golden.checkpoint, &options())?;
    let want = alone(&mut roomy, &requests)?;
    for pipeline in [1, 2] {
        for max_context in [80, 112, 160] {
            let options = EngineOptions { pipeline, max_context: Some(max_context), ..options() };
            let mut engine = engine(&adapters.plain, &golden.checkpoint, &options)?;
            same(&format!("{max_context} slots, pipeline {pipeline}"), &answers(&mut engine, &requests)?, &want)?;
        }
    }
    same("reasons", &want.iter().all(|answer| answer.reason == Some(FinishReason::Length)), &true)?;
    Ok(format!("{} requests in 80, 112 and 160 slots", requests.len()))
}
