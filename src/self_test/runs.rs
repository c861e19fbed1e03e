//! Engines for tests, and what requests to them are answered.

use crate::engine::{EngineOptions, Stepper};
use crate::gpu::Gpu;
use crate::ops::Dtype;
use crate::request::{Event, FinishReason, Request, SamplingParams};
use raglan_models::Checkpoint;

/// What became of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) tokens: Vec<u32>,
    /// `None` while it runs.
    pub(super) reason: Option<FinishReason>,
}

/// The types to try: f32, and f16 where the adapter has it.
pub(super) fn dtypes(gpu: &Gpu) -> Vec<Dtype> {
    if gpu.limits().shader_f16 { vec![Dtype::F32, Dtype::F16] } else { vec![Dtype::F32] }
}

/// One step in flight, f32.
pub(super) fn options() -> EngineOptions {
    EngineOptions { pipeline: 1, dtype: Dtype::F32, ..EngineOptions::default() }
}

pub(super) fn engine(gpu: &Gpu, checkpoint: &Checkpoint, options: &EngineOptions) -> Result<Stepper, String> {
    Stepper::new(gpu, checkpoint, options, &mut |_, _| ()).map_err(|error| error.to_string())
}

/// A request for so many of the likeliest tokens.
pub(super) fn greedy(prompt: &[u32], max_tokens: usize) -> Request {
    Request::new(prompt.to_vec(), SamplingParams { max_tokens, ..SamplingParams::default() })
}

/// Submits all requests at once and runs until the last has ended; afterwards every slot must be free again.
pub(super) fn answers(engine: &mut Stepper, requests: &[Request]) -> Result<Vec<Answer>, String> {
    let free = engine.free_slots();
    let mut ids = Vec::new();
    for request in requests {
        ids.push(engine.submit(request.clone()).map_err(|error| error.to_string())?);
    }
    let mut answers = vec![Answer::default(); requests.len()];
    while !engine.is_idle() {
        for event in engine.step().map_err(|error| error.to_string())? {
            let place = ids.iter().position(|id| *id == event.request()).ok_or("an event of no request")?;
            match event {
                _ if answers[place].reason.is_some() => return Err(format!("an event after the end: {event:?}")),
                Event::Started { .. } => {}
                Event::Token { token, .. } => answers[place].tokens.push(token),
                Event::Finished { reason, .. } => answers[place].reason = Some(reason),
                Event::Failed { message, .. } => return Err(message),
            }
        }
    }
    engine.forget_prefixes();
    same("free slots after all requests", &engine.free_slots(), &free)?;
    if let Some(place) = answers.iter().position(|answer| answer.reason.is_none()) {
        return Err(format!("request {place} never ended"));
    }
    Ok(answers)
}

/// The answer to a request that is alone.
pub(super) fn answer(engine: &mut Stepper, request: &Request) -> Result<Answer, String> {
    Ok(answers(engine, std::slice::from_ref(request))?.remove(0))
}

pub(super) fn same<T: PartialEq + std::fmt::Debug + ?Sized>(what: &str, met: &T, want: &T) -> Result<(), String> {
    if met == want { Ok(()) } else { Err(format!("{what}: met {met:?}, wanted {want:?}")) }
}

/// Logits of all `tokens`, computed in chunks: `[tokens, vocab_size]`.
pub(super) fn logits(engine: &mut Stepper, tokens: &[u32], chunk: usize) -> Result<Vec<f32>, String> {
    let vocab = engine.spec().vocab_size;
    let mut all = vec![f32::NAN; tokens.len() * vocab];
    let each = |row: usize, logits: Vec<f32>| all[row * vocab..][..vocab].copy_from_slice(&logits);
    engine.logits(tokens, chunk, each).map_err(|error| error.to_string())?;
    Ok(all)
}
