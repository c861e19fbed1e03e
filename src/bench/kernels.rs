//! Every kernel that a model's steps run, over shapes, formats, rows and depths: a few layers of a synthetic checkpoint, each
//! dispatch timed. So each kernel meets the schedule, the fusion and the neighbours that a run gives it, and weights and
//! caches of several layers in turn, which no cache holds.

use super::models::{Kind, Test};
use super::ops::{OpRow, sum_up};
use super::{Adapter, Progress, told};
use crate::engine::{EngineOptions, Stepper};
use crate::error::Error;
use crate::gpu::Gpu;
use crate::request::{Request, SamplingParams};
use raglan_models::{Checkpoint, Synthetic};
use std::time::{Duration, Instant};

/// Rows up to which a step is a token of as many sequences; more are a part of one prompt.
const MOST_SEQUENCES: usize = 64;

/// What is run, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Models and formats.
    pub models: Vec<Synthetic>,
    /// Rows of the products: tokens of a step.
    pub rows: Vec<usize>,
    /// Tokens of each sequence before.
    pub depths: Vec<usize>,
    /// Only kernels whose op, kernel or shape contains it.
    pub filter: String,
    /// Times that each step is timed, after one that is not.
    pub repetitions: usize,
    /// When no more is begun.
    pub deadline: Option<Instant>,
    /// How the engine is started.
    pub engine: EngineOptions,
}

/// A kernel of one model's step.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Row {
    /// The model's name, with the format.
    pub model: String,
    /// Its layers that were run.
    pub layers: usize,
    /// Tokens of the step.
    pub rows: usize,
    /// Tokens of each sequence before.
    pub depth: usize,
    /// What was met; `None` where the step did not run.
    #[serde(flatten)]
    pub op: Option<OpRow>,
    /// Why it did not.
    pub error: Option<String>,
}

/// Runs all combinations; one that fails has a row that says why.
pub fn run(gpu: &Gpu, adapter: &Adapter, options: &Options, progress: Progress<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    let total = options.models.len() * options.rows.len() * options.depths.len();
    let mut done = 0;
    for model in &options.models {
        let layers = layers_for(gpu, model);
        let checkpoint = Checkpoint::synthetic(model.clone().with_layers(layers));
        let mut opened: Option<Result<Stepper, String>> = None;
        for &tokens in &options.rows {
            for &depth in &options.depths {
                let row = Row { model: model.full_name(), layers, rows: tokens, depth, ..Row::default() };
                let failed = |message: String| Row { error: Some(message), ..row.clone() };
                progress(&format!("{}, {tokens} rows at depth {depth}", model.full_name()), done, total);
                done += 1;
                if options.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    rows.push(failed("not begun: the time for this run is over (--max-seconds)".to_owned()));
                    continue;
                }
                let stepper =
                    opened.get_or_insert_with(|| open(gpu, &checkpoint, options).map_err(|error| told(&error)));
                let timed = match stepper {
                    Ok(stepper) => time(stepper, tokens, depth, adapter, options).map_err(|error| told(&error)),
                    Err(message) => Err(message.clone()),
                };
                // After a loss, or a step that failed, nothing runs any more; what is left would only say so.
                if let (Err(message), Some(Ok(stepper))) = (&timed, &opened)
                    && !(stepper.is_idle() && gpu.loss(Duration::ZERO).is_none())
                {
                    opened = Some(Err(message.clone()));
                }
                match timed {
                    Ok(ops) => rows.extend(ops.into_iter().map(|op| Row { op: Some(op), ..row.clone() })),
                    Err(message) => rows.push(failed(message)),
                }
            }
        }
    }
    rows
}

/// As many layers as hold more than any cache: 256 MiB on a GPU, on software fewer since it has no time to spare.
fn layers_for(gpu: &Gpu, model: &Synthetic) -> usize {
    let bytes = |layers: usize| Checkpoint::synthetic(model.clone().with_layers(layers)).weight_bytes();
    let layer = bytes(2).saturating_sub(bytes(1)).max(1);
    let wanted: u64 = if gpu.is_software() { 16 << 20 } else { 256 << 20 };
    (wanted.div_ceil(layer) as usize).clamp(2, model.spec.layers.len())
}

/// The test that runs so many rows.
fn test(tokens: usize, depth: usize) -> Test {
    match tokens {
        0..=MOST_SEQUENCES => Test { kind: Kind::Decode, tokens: 1, depths: vec![depth; tokens] },
        _ => Test { kind: Kind::Prefill, tokens, depths: vec![depth] },
    }
}

fn open(gpu: &Gpu, checkpoint: &Checkpoint, options: &Options) -> Result<Stepper, Error> {
    let tests = || options.rows.iter().flat_map(|&rows| options.depths.iter().map(move |&depth| test(rows, depth)));
    let most = options.rows.iter().copied().max().unwrap_or(1);
    let engine = EngineOptions {
        max_context: Some(tests().map(|test| test.slots()).max().unwrap_or(0)),
        max_sequences: options.rows.iter().copied().filter(|&rows| rows <= MOST_SEQUENCES).max().unwrap_or(1),
        max_batch_tokens: most,
        prefix_cache: false,
        pipeline: 1,
        // All rows of a step together, however long it takes.
        max_step_ms: Some(1e6),
        max_delay_ms: Some(1e6),
        ..options.engine.clone()
    };
    let mut stepper = Stepper::new(gpu, checkpoint, &engine, &mut |_, _| ())?;
    stepper.fill_cache()?;
    Ok(stepper)
}

/// Runs a step of so many rows, some times; its dispatches by what they do.
fn time(
    stepper: &mut Stepper,
    tokens: usize,
    depth: usize,
    adapter: &Adapter,
    options: &Options,
) -> Result<Vec<OpRow>, Error> {
    let test = test(tokens, depth);
    if test.slots() > stepper.capacity() {
        let message = format!("it needs room for {} tokens; there is room for {}", test.slots(), stepper.capacity());
        return Err(Error::Request { message });
    }
    let Some(timer) = stepper.gpu().timer(1 << 14)? else {
        return Err(Error::Request { message: "this adapter has no clock to time dispatches by".to_owned() });
    };
    // The first run compiles.
    once(stepper, &test)?;
    stepper.start_meter(Some(timer));
    let result = (0..options.repetitions.max(1)).try_for_each(|_| once(stepper, &test));
    result.inspect_err(|_| stepper.abandon_meter())?;
    let metered = stepper.stop_meter();
    if metered.steps != options.repetitions.max(1) {
        let message = format!("its {tokens} rows were not run as one step but as {} in all", metered.steps);
        return Err(Error::Failed { message });
    }
    let mut ops = sum_up(&metered.timed, metered.steps, adapter.rates.rates());
    ops.retain(|op| [op.op, &op.kernel, &op.shape].iter().any(|text| text.contains(&options.filter)));
    Ok(ops)
}

fn once(stepper: &mut Stepper, test: &Test) -> Result<(), Error> {
    for (index, &depth) in test.depths.iter().enumerate() {
        let prompt = if test.kind == Kind::Prefill { test.tokens } else { 1 };
        let tokens =
            (0..depth + prompt).map(|token| ((token + 7 * index) % stepper.spec().vocab_size) as u32).collect();
        let sampling = SamplingParams { max_tokens: 1, ..SamplingParams::default() };
        stepper.submit_at(Request::new(tokens, sampling), depth)?;
    }
    while !stepper.is_idle() {
        stepper.step()?;
    }
    Ok(())
}
