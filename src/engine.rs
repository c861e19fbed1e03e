//! The whole runtime in one function: schedule → forward → sample → commit.

mod limits;
mod score;

pub use limits::longest_context;
use limits::{slots, step_limits};

use crate::batch::{Batch, StepLimits};
use crate::cost::AdapterClass;
use crate::decoder::{Decoder, attention_shape, kv_shape};
use crate::error::Error;
use crate::gpu::{Gpu, StepRing, Submission};
use crate::kv_cache::KvCache;
use crate::ops::{Dtype, Kernels, Ops, Types};
use crate::plan::Planner;
use crate::request::{Event, Request, RequestId, SamplingParams};
use crate::sampler::{Candidates, Outputs, Sampler, choose};
use crate::scheduler::{Scheduled, Scheduler};
use crate::segments::{QUANTUM, Segments};
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
}
