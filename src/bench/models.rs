//! Prompts read and answers written by a whole engine, as a user would meet them.

mod test;

pub use test::{Kind, Test};

use super::ops::{OpRow, sum_up};
use super::{Adapter, Progress, Spread, told};
use crate::cost::Limit;
use crate::engine::{EngineOptions, Memory, Metered, Offer, Stepper};
use crate::error::Error;
use crate::gpu::{Gpu, Timer};
use crate::plan::TunerStats;
use crate::request::{Event, Request, RequestId, SamplingParams};
use raglan_models::Checkpoint;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Steps of an answer that are counted and timed op by op, in its middle.
const METERED_STEPS: usize = 4;

/// Dispatches of a timed test at most.
const TIMED_DISPATCHES: u32 = 1 << 16;

/// What is run, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Every test, in order.
    pub tests: Vec<Test>,
    /// Times that each is measured, after a run that is not.
    pub repetitions: usize,
    /// Whether contexts are really read, rather than made of random keys and values.
    pub real_prefill: bool,
    /// Whether each dispatch is timed too.
    pub timed: bool,
    /// When no more is begun.
    pub deadline: Option<Instant>,
    /// How the engine is started. Its context and its sequences are raised to what the tests need, where they are not set.
    pub engine: EngineOptions,
}

/// One test of one model.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Row {
    /// The model's name.
    pub model: String,
    /// Bytes of its weights: in its files, or on the adapter where they are quantised on the way there.
    pub weight_bytes: u64,
    /// Its parameters.
    pub parameters: u64,
    /// `tg128 @ d4096`: as llama-bench names it.
    pub test: String,
    /// `prefill` or `decode`.
    pub kind: &'static str,
    /// Tokens of the prompt, or of each answer.
    pub tokens: usize,
    /// Tokens of each sequence before the test.
    pub depths: Vec<usize>,
    /// Sequences at once.
    pub batch: usize,
    /// The longest of the depths.
    pub depth: usize,
    /// `f16` or `f32`.
    pub kv_type: String,
    /// Seconds of each repetition.
    pub samples_s: Vec<f64>,
    /// Of all sequences, median.
    pub tokens_per_s: Option<f64>,
    /// Their standard deviation.
    pub tokens_per_s_deviation: Option<f64>,
    /// From one token of a sequence to its next, or a token of the prompt: median.
    pub ms_per_token: Option<f64>,
    /// The least.
    pub ms_per_token_min: Option<f64>,
    /// The largest.
    pub ms_per_token_max: Option<f64>,
    /// Bytes that had to be moved, 10⁹ a second.
    pub gb_per_s: Option<f64>,
    /// Operations that had to be done, 10¹² a second.
    pub tflop_per_s: Option<f64>,
    /// The first over the adapter's read rate.
    pub share_of_read: Option<f64>,
    /// The second over the adapter's fastest rate of products.
    pub share_of_products: Option<f64>,
    /// A token's least time at the adapter's rates.
    pub limit_ms_per_token: Option<f64>,
    /// The time over the least.
    pub time_over_limit: Option<f64>,
    /// What a token's dispatches wait for each other, at the adapter's drain; beside the limit.
    pub drain_ms_per_token: Option<f64>,
    /// Dispatches of a step.
    pub dispatches_per_step: Option<f64>,
    /// How schedules were chosen until then, and how often that was asked.
    pub tuner: Option<TunerStats>,
    /// Where contexts were really read: tokens of them a second.
    pub read_tokens_per_s: Option<f64>,
    /// The longest step of that reading: what a watchdog sees.
    pub read_longest_step_ms: Option<f64>,
    /// What the engine held that ran it; `None` without numbers.
    #[serde(skip)]
    pub held: Option<Held>,
    /// Why there are no numbers.
    pub error: Option<String>,
}

/// What an engine that ran a test held on the adapter.
#[derive(Debug, Clone)]
pub struct Held {
    /// As it was arranged, with the cache that was allocated.
    pub memory: Memory,
    /// Storage buffers but weights, keys and values, as counted when they were there; and mapped memory, as arranged.
    pub other_bytes: u64,
}

/// The ops of one test.
#[derive(Debug, Clone, serde::Serialize)]
pub struct TestOps {
    /// The model's name.
    pub model: String,
    /// The test's name.
    pub test: String,
    /// One a kind of dispatch.
    pub ops: Vec<OpRow>,
}

/// Runs every test on one model; a test that fails has a row that says why. `each` hears of every row.
pub fn run(
    gpu: &Gpu,
    checkpoint: &Checkpoint,
    adapter: &Adapter,
    options: &Options,
    progress: Progress<'_>,
    each: &mut dyn FnMut(&Row),
) -> (Vec<Row>, Vec<TestOps>) {
    let model = checkpoint.path().display().to_string();
    let quantised = || Memory::of(&Offer::of(gpu, &options.engine), checkpoint, &options.engine).ok();
    // Where the memory cannot be told, the engine is refused too, with the reason.
    let on_adapter = options.engine.quantize.and_then(|_| quantised()).map(|memory| memory.weight_bytes);
    let weight_bytes = on_adapter.unwrap_or_else(|| checkpoint.weight_bytes());
    let parameters = checkpoint.parameters();
    let named = |test: &Test| Row { model: model.clone(), weight_bytes, parameters, ..Row::of(test) };
    let (mut rows, mut ops) = (Vec::new(), Vec::new());
    let mut opened: Option<Result<Bench<'_>, String>> = None;
    for (index, test) in options.tests.iter().enumerate() {
        let mut row = named(test);
        if options.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            row.error = Some("not begun: the time for this run is over (--max-seconds)".to_owned());
        } else {
            let mut say = |what: &str| progress(&format!("{model} {what}"), index, options.tests.len());
            if opened.is_none() {
                opened = Some(Bench::open(gpu, checkpoint, adapter, options, &mut say).map_err(|error| told(&error)));
            }
            let result = match opened.as_mut().expect("it was opened, or tried") {
                Ok(bench) => {
                    let tested = bench.test(test, &mut row, &mut say).map_err(|error| told(&error));
                    row.tuner = Some(bench.stepper.tuner_stats());
                    tested
                }
                Err(message) => Err(message.clone()),
            };
            match result {
                Ok(Some(timed)) => ops.push(TestOps { model: model.clone(), test: test.name(), ops: timed }),
                Ok(None) => {}
                Err(message) => row.error = Some(message),
            }
            // After a loss, or a step that failed, nothing runs any more; what is left would only say so.
            if let Some(Ok(bench)) = &opened {
                let broken = if bench.stepper.is_idle() { None } else { row.error.clone() };
                if let Some(why) = gpu.loss(Duration::ZERO).map(|loss| told(&loss)).or(broken) {
                    opened = Some(Err(why));
                }
            }
        }
        each(&row);
        rows.push(row);
    }
    (rows, ops)
}

impl Row {
    fn of(test: &Test) -> Row {
        Row {
            test: test.name(),
            kind: test.kind.name(),
            tokens: test.tokens,
            depths: test.depths.clone(),
            batch: test.depths.len(),
            depth: test.depths.iter().copied().max().unwrap_or(0),
            ..Row::default()
        }
    }

    fn fill(&mut self, seconds: &[f64], limit: &Limit, steps: f64, adapter: &Adapter) {
        let rates = adapter.rates.rates();
        let (tokens, all) = (self.tokens as f64, (self.tokens * self.batch) as f64);
        let spread = Spread::of(seconds);
        let rate = Spread::of(&seconds.iter().map(|seconds| all / seconds).collect::<Vec<_>>());
        let (bytes_per_s, flops_per_s) = (limit.bytes / spread.median, limit.flops / spread.median);
        let ms = |seconds: f64| Some(1e3 * seconds / tokens);
        self.samples_s = seconds.to_vec();
        (self.tokens_per_s, self.tokens_per_s_deviation) = (Some(rate.median), Some(rate.deviation));
        (self.ms_per_token, self.ms_per_token_min, self.ms_per_token_max) =
            (ms(spread.median), ms(spread.min), ms(spread.max));
        (self.gb_per_s, self.tflop_per_s) = (Some(bytes_per_s / 1e9), Some(flops_per_s / 1e12));
        self.share_of_read = Some(bytes_per_s / rates.read_bytes_per_s);
        self.share_of_products = Some(flops_per_s / rates.product_flops_per_s());
        self.limit_ms_per_token = ms(limit.us / 1e6);
        self.time_over_limit = Some(1e6 * spread.median / limit.us);
        self.drain_ms_per_token = ms(rates.drain_us * limit.dispatches as f64 / 1e6);
        self.dispatches_per_step = Some(limit.dispatches as f64 / steps.max(1.0));
    }
}

/// A prompt, how much of it counts as read, and the tokens of its answer.
type Asked = (Vec<u32>, usize, usize);

/// An engine that runs tests.
struct Bench<'a> {
    stepper: Stepper,
    /// Bytes of storage buffers on the adapter before the engine's.
    held_before: u64,
    adapter: &'a Adapter,
    options: &'a Options,
    /// Differs from prompt to prompt.
    seed: u64,
    /// Of the contexts of the current test that were really read.
    read: Reading,
    /// Of the last requests.
    longest_step_s: f64,
}

/// Contexts that were really read.
#[derive(Debug, Clone, Copy, Default)]
struct Reading {
    tokens: usize,
    seconds: f64,
    longest_step_s: f64,
}

impl<'a> Bench<'a> {
    fn open(
        gpu: &Gpu,
        checkpoint: &Checkpoint,
        adapter: &'a Adapter,
        options: &'a Options,
        say: &mut dyn FnMut(&str),
    ) -> Result<Bench<'a>, Error> {
        let needed = options.tests.iter().map(Test::slots).max().unwrap_or(0);
        let sequences = options.tests.iter().map(|test| test.depths.len()).max().unwrap_or(1);
        let engine = EngineOptions {
            max_context: options.engine.max_context.or(Some(needed)),
            max_sequences: sequences,
            max_batch_tokens: options.engine.max_batch_tokens.max(sequences),
            prefix_cache: options.real_prefill,
            // Nothing may leave the cache: what would is an error.
            swap_memory: 0,
            ..options.engine.clone()
        };
        let held_before = gpu.held_bytes();
        let mut stepper = Stepper::new(gpu, checkpoint, &engine, &mut |_, _| say("weights"))?;
        say("kernels");
        stepper.compile(|_, _| ())?;
        stepper.fill_cache()?;
        Ok(Bench { stepper, held_before, adapter, options, seed: 0, read: Reading::default(), longest_step_s: 0.0 })
    }

    /// Runs one test and fills its row; the times of its ops, where they are wanted.
    fn test(&mut self, test: &Test, row: &mut Row, say: &mut dyn FnMut(&str)) -> Result<Option<Vec<OpRow>>, Error> {
        say(&test.name());
        row.kv_type = self.stepper.kv_type();
        self.read = Reading::default();
        // An answer's middle stands for all of it: the limit grows in a straight line.
        let part = test.middle(METERED_STEPS);
        let factor = test.tokens as f64 / part.tokens as f64;
        let (_, Metered { steps, works, .. }) = self.metered(&part, None)?;
        let limit = self.adapter.rates.rates().limit(&works).times(factor);

        let mut seconds = Vec::new();
        while seconds.len() < self.options.repetitions.max(1) {
            if !seconds.is_empty() && self.options.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break;
            }
            seconds.push(self.run(test)?);
            say(&test.name());
        }
        row.fill(&seconds, &limit, steps as f64 * factor, self.adapter);
        row.held = Some(self.held());
        if self.read.tokens > 0 {
            row.read_tokens_per_s = Some(self.read.tokens as f64 / self.read.seconds);
            row.read_longest_step_ms = Some(1e3 * self.read.longest_step_s);
        }
        if !self.options.timed {
            return Ok(None);
        }
        let Some(timer) = self.stepper.gpu().timer(TIMED_DISPATCHES)? else { return Ok(None) };
        let (_, Metered { steps, timed: times, .. }) = self.metered(&part, Some(timer))?;
        Ok(Some(sum_up(&times, steps, self.adapter.rates.rates())))
    }

    /// What the engine holds, as counted.
    fn held(&self) -> Held {
        let memory = self.stepper.memory().clone();
        let held = self.stepper.gpu().held_bytes().saturating_sub(self.held_before);
        let other_bytes = held.saturating_sub(memory.weight_bytes + self.stepper.kv_bytes()) + memory.mapped_bytes;
        Held { memory, other_bytes }
    }

    /// Seconds from the first step to the last token.
    fn run(&mut self, test: &Test) -> Result<f64, Error> {
        let requests = self.prepared(test)?;
        let seconds = self.answer(requests);
        self.stepper.forget_prefixes();
        seconds
    }

    /// The same, and what its steps did; steps that read contexts do not count.
    fn metered(&mut self, test: &Test, timer: Option<Timer>) -> Result<(f64, Metered), Error> {
        let requests = self.prepared(test)?;
        self.stepper.start_meter(timer);
        let seconds = self.answer(requests).inspect_err(|_| self.stepper.abandon_meter());
        let seconds = seconds.map(|seconds| (seconds, self.stepper.stop_meter()));
        self.stepper.forget_prefixes();
        seconds
    }

    /// The requests of a test, once its contexts were read where they are to be.
    fn prepared(&mut self, test: &Test) -> Result<Vec<Asked>, Error> {
        let (slots, capacity) = (test.slots(), self.stepper.capacity());
        if test.longest() > self.stepper.longest() || slots > capacity {
            let message = format!(
                "{} needs room for {slots} tokens of keys and values; there is room for {capacity}, and for {} of one sequence",
                test.name(),
                self.stepper.longest()
            );
            return Err(Error::Request { message });
        }
        let prompts: Vec<Vec<u32>> =
            test.depths.iter().map(|depth| self.random_tokens(depth + test.prompt())).collect();
        if self.options.real_prefill {
            let read = test.depths.iter().zip(&prompts).filter(|(depth, _)| **depth > 0);
            let read: Vec<_> = read.map(|(&depth, prompt)| (prompt[..depth].to_vec(), 0, 1)).collect();
            let tokens: usize = read.iter().map(|(prompt, ..)| prompt.len()).sum();
            let seconds = self.answer(read)?;
            self.read.tokens += tokens;
            self.read.seconds += seconds;
            self.read.longest_step_s = self.read.longest_step_s.max(self.longest_step_s);
        }
        let assumed = |depth: usize| if self.options.real_prefill { 0 } else { depth };
        let requests = prompts.into_iter().zip(&test.depths);
        Ok(requests.map(|(prompt, &depth)| (prompt, assumed(depth), test.answer())).collect())
    }

    /// Runs requests all at once; seconds.
    fn answer(&mut self, requests: Vec<Asked>) -> Result<f64, Error> {
        let preempted = self.stepper.stats().preemptions;
        let mut waiting: HashSet<RequestId> = HashSet::new();
        for (prompt, computed, max_tokens) in requests {
            let sampling = SamplingParams { max_tokens, ..SamplingParams::default() };
            waiting.insert(self.stepper.submit_at(Request::new(prompt, sampling), computed)?);
        }
        let (count, mut started, mut failed) = (waiting.len(), 0, None);
        let mut any_ended = false;
        let start = Instant::now();
        let mut last = start;
        self.longest_step_s = 0.0;
        while !waiting.is_empty() {
            let events = self.stepper.step()?;
            let now = Instant::now();
            let is_late = self.options.deadline.is_some_and(|deadline| now >= deadline);
            if is_late && self.options.real_prefill && failed.is_none() {
                failed = Some("the time for this run was over before all was read (--max-seconds)".to_owned());
                waiting.iter().for_each(|&request| self.stepper.cancel(request));
            }
            self.longest_step_s = self.longest_step_s.max((now - last).as_secs_f64());
            last = now;
            for event in events {
                if let Event::Failed { message, .. } = &event {
                    failed.get_or_insert_with(|| message.clone());
                }
                started += usize::from(matches!(event, Event::Started { .. }) && !any_ended);
                if event.is_last() {
                    any_ended = true;
                    waiting.remove(&event.request());
                }
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        while !self.stepper.is_idle() {
            self.stepper.step()?;
        }
        if let Some(message) = failed {
            return Err(Error::Failed { message });
        }
        let gave_way = self.stepper.stats().preemptions - preempted;
        if gave_way > 0 || started < count {
            let message = format!("{started} of {count} sequences found room at once, and {gave_way} gave way later");
            return Err(Error::Failed { message });
        }
        Ok(seconds)
    }

    fn random_tokens(&mut self, count: usize) -> Vec<u32> {
        let vocab = self.stepper.spec().vocab_size as u64;
        self.seed += 1;
        let mut state = self.seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % vocab) as u32
        };
        (0..count).map(|_| next()).collect()
    }
}
