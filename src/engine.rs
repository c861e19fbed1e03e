//! The whole runtime in one function: schedule → forward → sample → commit.

use crate::batch::{Batch, StepLimits};
use crate::cost::AdapterClass;
use crate::decoder::{Decoder, attention_shape, kv_shape, largest_array_bytes, logits_row_bytes};
use crate::error::Error;
use crate::gpu::{Gpu, StepRing, Submission};
use crate::kv_cache::{KvCache, KvShape};
use crate::ops::{Dtype, Kernels, Ops, Types};
use crate::plan::{AttentionShape, Planner};
use crate::request::{Event, Request, RequestId, SamplingParams};
use crate::sampler::{Candidates, Outputs, Sampler, choose};
use crate::scheduler::{Scheduled, Scheduler};
use crate::segments::{MAX_SEGMENTS, QUANTUM, Segments};
use crate::sequence::Sequence;
use crate::weights::Weights;
use raglan_models::{Checkpoint, ModelSpec};
use rustc_hash::FxHashSet;

/// What an engine is started with.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Slots of the KV cache; `None` takes the model's positions, or as many as there is room for.
    pub max_context: Option<usize>,
    /// Tokens of one step at most.
    pub max_batch_tokens: usize,
    /// Sequences of one step at most.
    pub max_sequences: usize,
    /// Steps in flight: 1 collects each before the next is submitted, 2 after.
    pub pipeline: usize,
    /// The type of matrix products' inputs, of keys and of values.
    pub dtype: Dtype,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            max_context: None,
            max_batch_tokens: 512,
            max_sequences: 64,
            pipeline: 2,
            dtype: Dtype::default(),
        }
    }
}

/// One model on one adapter, and the requests that it answers.
pub struct Engine {
    gpu: Gpu,
    kernels: Kernels,
    decoder: Decoder,
    kv_cache: KvCache,
    sampler: Sampler,
    scheduler: Scheduler,
    segments: Segments,
    ring: StepRing,
    limits: StepLimits,
    pipeline: usize,
    /// Steps submitted.
    steps: usize,
    next_request: u64,
    in_flight: Option<InFlight>,
}

/// A submitted step.
struct InFlight {
    scheduled: Scheduled,
    submission: Submission,
    outputs: Outputs,
    parity: usize,
}

impl Engine {
    /// Uploads a model and allocates all that its steps will need. `progress` hears the bytes uploaded and those in all.
    ///
    /// # Errors
    /// If the adapter has no room, or a kernel cannot be compiled.
    pub fn new(
        gpu: &Gpu,
        checkpoint: &Checkpoint,
        options: &EngineOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Engine, Error> {
        let spec = checkpoint.spec();
        let types = Types::of(gpu, options.dtype);
        let attention = attention_shape(spec, &types)?;
        let kv_shape = kv_shape(spec, &attention);
        let limits = step_limits(gpu, spec, &attention, options)?;
        let class = if gpu.is_software() { AdapterClass::Software } else { AdapterClass::Hardware };
        let kernels = Kernels::new(gpu, types, Planner::new(attention, class, &limits))?;
        let weights = Weights::upload(gpu, checkpoint, progress)?;
        let slots = slots(gpu, spec, &kv_shape, checkpoint.weight_bytes(), options);
        let decoder = Decoder::new(gpu, spec, weights, &kernels, &limits, slots)?;
        let sampler = Sampler::new(gpu, spec.vocab_size, &limits)?;
        let kv_cache = KvCache::allocate(gpu, &kv_shape, slots, QUANTUM)?;
        let segments = Segments::new(kv_cache.slots);
        let capacity = kernels.planner.capacity();
        let input_bytes = 32 * capacity.items
            + 20 * capacity.merges
            + 16 * limits.max_adjustments
            + 16 * limits.max_batch_tokens
            + 32 * limits.max_sequences;
        // The rare read of a whole row of logits must not be the first to make its buffer.
        gpu.read(&decoder.logits(0).buffer, 0, 4)?;
        let ring = gpu.step_ring(options.pipeline + 1, input_bytes as u64, Sampler::output_bytes(&limits))?;
        Ok(Engine {
            gpu: gpu.clone(),
            kernels,
            decoder,
            kv_cache,
            sampler,
            scheduler: Scheduler::new(limits),
            segments,
            ring,
            limits,
            pipeline: options.pipeline,
            steps: 0,
            next_request: 0,
            in_flight: None,
        })
    }

    /// Compiles every kernel that steps ask for, so that no client waits for a compiler later; what only
    /// [`Engine::losses`] needs is compiled there. `progress` hears how many are done and of how many.
    ///
    /// # Errors
    /// The first refusal by naga or the driver.
    pub fn compile(&self, progress: impl Fn(usize, usize) + Sync) -> Result<(), Error> {
        let mut variants = Vec::new();
        let most = self.limits.max_batch_tokens;
        let sizes = (0..).map(|power| 1 << power).take_while(|&size| size < most).chain([most]);
        for size in sizes {
            let batch = Batch::rehearsal(size, self.limits.max_sequences);
            let plan = self.kernels.planner.plan(&batch);
            let recorder = self.gpu.begin_rehearsal(&self.ring);
            let mut ops = Ops { recorder, kernels: &self.kernels, plan: &plan };
            let logits = self.decoder.forward(&mut ops, &batch, &self.kv_cache, self.sampler.samples(), 0);
            self.sampler.pick(&mut ops, logits, &batch);
            variants.extend(ops.recorder.into_rehearsed());
        }
        let mut seen = FxHashSet::default();
        variants.retain(|variant| seen.insert(variant.clone()));
        self.gpu.compile(&variants, progress)
    }

    /// The model.
    pub fn spec(&self) -> &ModelSpec {
        self.decoder.spec()
    }

    /// How many bindings hold the embedding.
    pub fn embedding_pieces(&self) -> usize {
        self.decoder.weights().embedding.pieces.len()
    }

    /// The adapter.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Tokens that all sequences together may have in the cache.
    pub fn capacity(&self) -> usize {
        self.segments.capacity()
    }

    /// Slots of the cache that belong to no request.
    pub fn free_slots(&self) -> usize {
        self.segments.free_slots()
    }

    /// Takes free slots out of use for as long as the engine lives, so that sequences lie in several segments: for tests.
    ///
    /// # Panics
    /// If they are not free.
    #[doc(hidden)]
    pub fn hold_slots(&mut self, first_slot: usize, count: usize) {
        self.segments.hold(first_slot, count);
    }

    /// Queues a request.
    ///
    /// # Errors
    /// [`Error::Request`] for a prompt that is empty, names no row of the vocabulary or can never fit, and for sampling
    /// parameters out of range.
    pub fn submit(&mut self, request: Request) -> Result<RequestId, Error> {
        let vocab_size = self.spec().vocab_size;
        let refuse = |message: String| Err(Error::Request { message });
        if let Err(message) = request.sampling.validate() {
            return refuse(message);
        }
        if request.prompt.is_empty() {
            return refuse("the prompt has no tokens, wanted at least one".into());
        }
        if let Some(token) = request.prompt.iter().find(|&&token| token as usize >= vocab_size) {
            return refuse(format!("token id {token} is not below the vocabulary's size, {vocab_size}"));
        }
        if request.prompt.len() > self.capacity() {
            let (met, room) = (request.prompt.len(), self.capacity());
            return refuse(format!(
                "the prompt has {met} tokens, the KV cache has room for {room}: raise --max-context"
            ));
        }
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.scheduler.add(Sequence::new(id, request.prompt, request.sampling));
        Ok(id)
    }

    /// Ends a request; its `Finished` event comes with the next step.
    pub fn cancel(&mut self, request: RequestId) {
        self.scheduler.cancel(request, &mut self.segments);
    }

    /// Whether every request has ended and every event was given out.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.scheduler.is_idle()
    }

    /// One step: submits the next, then collects the last. Events may be empty while the pipeline fills.
    ///
    /// # Errors
    /// If the adapter was lost or refused the work; the engine cannot go on then.
    pub fn step(&mut self) -> Result<Vec<Event>, Error> {
        if self.pipeline == 1 {
            debug_assert!(self.in_flight.is_none(), "one step at a time");
        }
        let submitted = match self.scheduler.next_batch(&mut self.segments) {
            Some(scheduled) => Some(self.submit_step(scheduled)?),
            None => None,
        };
        let last = if self.pipeline == 1 { submitted } else { std::mem::replace(&mut self.in_flight, submitted) };
        let Some(step) = last else { return Ok(self.scheduler.take_ended()) };
        let samples = self.collect(&step.scheduled, step.submission, &step.outputs, step.parity)?;
        Ok(self.scheduler.commit(&step.scheduled, &samples, &mut self.segments))
    }

    fn submit_step(&mut self, scheduled: Scheduled) -> Result<InFlight, Error> {
        let parity = self.steps % 2;
        let (submission, outputs) = self.run(&scheduled.batch, parity)?;
        self.steps += 1;
        Ok(InFlight { scheduled, submission, outputs, parity })
    }

    fn run(&self, batch: &Batch, parity: usize) -> Result<(Submission, Outputs), Error> {
        let plan = self.kernels.planner.plan(batch);
        let recorder = self.gpu.begin_step(&self.ring);
        let mut ops = Ops { recorder, kernels: &self.kernels, plan: &plan };
        self.decoder.write_inputs(&mut ops, batch);
        self.sampler.write_inputs(&mut ops, batch);
        let logits = self.decoder.forward(&mut ops, batch, &self.kv_cache, self.sampler.samples(), parity);
        let outputs = self.sampler.pick(&mut ops, logits, batch);
        Ok((ops.recorder.submit()?, outputs))
    }

    /// A step's samples, one a row of logits; `None` for requests that ended meanwhile.
    fn collect(
        &self,
        scheduled: &Scheduled,
        submission: Submission,
        outputs: &Outputs,
        parity: usize,
    ) -> Result<Vec<Option<u32>>, Error> {
        let bytes = submission.collect()?;
        let greedy = self.sampler.samples_of(outputs, &bytes);
        let mut samples = Vec::with_capacity(greedy.len());
        for (row, &request) in scheduled.sampled.iter().enumerate() {
            let Some(sequence) = self.scheduler.sequence(request) else {
                samples.push(None);
                continue;
            };
            let top = scheduled.batch.top_rows.iter().position(|top| top.row as usize == row);
            let token = match top {
                None => greedy[row],
                Some(index) => {
                    let candidates = self.sampler.candidates_of(outputs, &bytes, index);
                    self.draw(&sequence.sampling, sequence.generated(), &candidates, row, parity)?
                }
            };
            if token as usize >= self.spec().vocab_size {
                return Err(Error::NotANumber);
            }
            samples.push(Some(token));
        }
        Ok(samples)
    }

    /// Draws a token from candidates, or from the whole row where they do not decide.
    fn draw(
        &self,
        params: &SamplingParams,
        index: usize,
        candidates: &Candidates,
        row: usize,
        parity: usize,
    ) -> Result<u32, Error> {
        if let Some(token) = choose(params, index, candidates) {
            return Ok(token);
        }
        let row = self.logits_row(row, parity)?;
        if row.iter().any(|logit| logit.is_nan()) {
            return Err(Error::NotANumber);
        }
        choose(params, index, &Candidates::whole(&row, params.temperature)).ok_or(Error::NotANumber)
    }

    fn logits_row(&self, row: usize, parity: usize) -> Result<Vec<f32>, Error> {
        let logits = self.decoder.logits(parity);
        let bytes =
            self.gpu.read(&logits.buffer, (4 * row * logits.stride) as u64, 4 * self.spec().vocab_size as u64)?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }

    /// Runs `tokens` as one sequence from nothing, in steps of at most `chunk` tokens, and gives each step's first row
    /// and its logits, `[rows, vocab_size]`, to `each`. For tests: it reads all logits back.
    ///
    /// # Errors
    /// As [`Engine::step`], and where the engine is not idle or the tokens do not fit.
    pub fn logits(&mut self, tokens: &[u32], chunk: usize, mut each: impl FnMut(usize, Vec<f32>)) -> Result<(), Error> {
        self.score_steps(tokens, chunk, false, |engine, first, rows, _, _| {
            for row in 0..rows {
                each(first + row, engine.logits_row(row, 0)?);
            }
            Ok(())
        })
    }

    /// The loss of every token but the first, in nats: one sequence, from nothing.
    ///
    /// # Errors
    /// As [`Engine::logits`].
    pub fn losses(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Error> {
        let mut losses = Vec::with_capacity(tokens.len());
        self.score_steps(tokens, usize::MAX, true, |engine, _, _, outputs, bytes| {
            losses.extend(engine.sampler.losses_of(outputs, bytes));
            Ok(())
        })?;
        losses.truncate(tokens.len() - 1);
        Ok(losses)
    }

    fn score_steps(
        &mut self,
        tokens: &[u32],
        chunk: usize,
        with_targets: bool,
        mut each: impl FnMut(&Engine, usize, usize, &Outputs, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        assert!(self.is_idle(), "an engine scores while it is idle");
        let mut segments = Vec::new();
        if tokens.len() < 2 || !self.segments.extend(&mut segments, tokens.len()) {
            let message = format!("{} tokens to score, wanted 2 to {}", tokens.len(), self.capacity());
            return Err(Error::Request { message });
        }
        let chunk = chunk.min(self.limits.max_sequences).min(self.limits.max_batch_tokens);
        let mut result = Ok(());
        for first in (0..tokens.len()).step_by(chunk) {
            let rows = chunk.min(tokens.len() - first);
            let mut batch = Batch::new();
            batch.push(tokens[first..first + rows].iter().copied(), first, &segments);
            batch.logit_rows = (0..rows as u32).collect();
            if with_targets {
                // The last token has no next one; its loss is cut off.
                batch.targets = (first..first + rows).map(|at| tokens[(at + 1).min(tokens.len() - 1)]).collect();
            }
            result = self.run(&batch, 0).and_then(|(submission, outputs)| {
                let bytes = submission.collect()?;
                each(self, first, rows, &outputs, &bytes)
            });
            if result.is_err() {
                break;
            }
        }
        self.segments.free(&mut segments);
        result
    }
}

/// Tokens of a step at most, whatever is asked for: what stays within the workgroups of a dispatch.
const MOST_BATCH_TOKENS: usize = 8192;

/// What a step may hold: the options, less where an array of a step would pass a binding.
fn step_limits(
    gpu: &Gpu,
    spec: &ModelSpec,
    attention: &AttentionShape,
    options: &EngineOptions,
) -> Result<StepLimits, Error> {
    let binding = gpu.limits().max_binding_bytes;
    let row_bytes = logits_row_bytes(spec);
    if spec.vocab_size > 1 << 24 || row_bytes > binding {
        return Err(Error::VocabularyTooLarge { met: spec.vocab_size, row_bytes, limit: binding });
    }
    let mut tokens = options.max_batch_tokens.clamp(1, MOST_BATCH_TOKENS);
    loop {
        let limits = StepLimits {
            max_batch_tokens: tokens,
            max_sequences: options.max_sequences.min(tokens).min((binding / row_bytes) as usize).max(1),
            // All that one sequence can ask for.
            max_adjustments: spec.vocab_size.max(4096),
            // A sequence of as many segments as there may be, and one more, has room for a token.
            max_split_rows: tokens.max(MAX_SEGMENTS + 1),
        };
        let largest = largest_array_bytes(spec, attention, &limits);
        if largest <= binding {
            return Ok(limits);
        }
        if tokens == 1 {
            return Err(Error::StepTooLarge { bytes: largest, limit: binding });
        }
        tokens /= 2;
    }
}

/// The default context where the adapter does not tell its memory.
const UNKNOWN_MEMORY_CONTEXT: usize = 8192;

/// Slots of the cache: what was asked for, else the model's positions; never more than a binding or the memory holds.
fn slots(gpu: &Gpu, spec: &ModelSpec, shape: &KvShape, weight_bytes: u64, options: &EngineOptions) -> usize {
    // Without a word on memory, a cache for all positions of a long-context model could be larger than the machine.
    let default = match gpu.summary().memory {
        Some(_) => spec.max_position_embeddings,
        None => spec.max_position_embeddings.min(UNKNOWN_MEMORY_CONTEXT),
    };
    let wanted = options.max_context.unwrap_or(default).next_multiple_of(QUANTUM);
    wanted.min(longest_context(gpu, shape, weight_bytes)).max(QUANTUM)
}

/// The most slots that fit beside the weights: within a binding an arena, within the adapter's memory in all.
pub fn longest_context(gpu: &Gpu, shape: &KvShape, weight_bytes: u64) -> usize {
    let binding = gpu.limits().max_binding_bytes / shape.arena_slot_bytes();
    let memory = gpu.summary().memory.as_ref().map_or(u64::MAX, |memory| memory.available_bytes());
    // A tenth stays for a step's scratch memory and for others.
    let room = (memory / 10 * 9).saturating_sub(weight_bytes) / shape.slot_bytes();
    (binding.min(room) as usize) / QUANTUM * QUANTUM
}
