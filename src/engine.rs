//! The whole runtime in one function: schedule → forward → sample → commit.

mod cache;
mod centring;
mod importance;
mod limits;
mod memory;
mod meter;
mod options;
mod score;
mod service;
mod tuning;

pub use importance::Importance;
use memory::{Arrangement, arrange};
pub use memory::{Bound, LARGEST_BINDING, Memory, Offer};
use meter::Meter;
pub use meter::Metered;
pub use options::EngineOptions;
use options::{model_cost, scheduler_options};
pub use score::{Held, Logits, Scorer};
pub use service::{Engine, EngineStats, EventStream, Loading};

use crate::batch::{Batch, StepLimits};
use crate::cost::StepCost;
use crate::decoder::Decoder;
use crate::error::Error;
use crate::gpu::{Gpu, StepRing, Submission, Uploader, Variant};
use crate::kv_cache::{KvCache, KvTypes};
use crate::ops::{Kernels, Ops, Types};
use crate::plan::{Plan, Planner, TunerStats};
use crate::request::{Event, Request, RequestId, SamplingParams};
use crate::sampler::{Candidates, Outputs, Sampler, choose};
use crate::scheduler::{Scheduled, Scheduler, SchedulerOptions, SchedulerStats};
use crate::segments::{Policy, SlotGroups};
use crate::sequence::Sequence;
use crate::weights::{Rewrite, Weights, lossy_twice};
use raglan_models::{Checkpoint, ModelSpec};
use rustc_hash::{FxHashMap, FxHashSet};
use std::time::Instant;

/// One model on one adapter, and the requests that it answers.
pub struct Stepper {
    gpu: Gpu,
    kernels: Kernels,
    decoder: Decoder,
    kv_cache: KvCache,
    kv_types: KvTypes,
    sampler: Sampler,
    scheduler: Scheduler,
    slots: SlotGroups,
    uploader: Uploader,
    ring: StepRing,
    limits: StepLimits,
    memory: Memory,
    pipeline: usize,
    /// Steps submitted.
    steps: usize,
    next_request: u64,
    in_flight: Option<InFlight>,
    /// Of the last step: its memory serves the next.
    plan: Plan,
    /// When the last step was.
    collected: Instant,
    /// Tokens of one sequence at most, whatever the slots.
    max_positions: usize,
    /// The logits of every sampled row, where a test wants them.
    logits_seen: Option<FxHashMap<RequestId, Vec<Vec<f32>>>>,
    /// Counts and times what steps do, where a bench wants it.
    meter: Option<Meter>,
}

/// A submitted step.
struct InFlight {
    scheduled: Scheduled,
    submission: Submission,
    outputs: Outputs,
    parity: usize,
    submitted: Instant,
}

impl Stepper {
    /// Uploads a model and allocates all that its steps will need. `progress` hears the bytes uploaded and those in all.
    ///
    /// # Errors
    /// If the adapter has no room, `kv_memory` holds not even the least, or a kernel cannot be compiled.
    pub fn new(
        gpu: &Gpu,
        checkpoint: &Checkpoint,
        options: &EngineOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Stepper, Error> {
        if !(1..=2).contains(&options.pipeline) {
            let message = format!("pipeline is {}, wanted 1 or 2 steps in flight", options.pipeline);
            return Err(Error::Request { message });
        }
        if options.deterministic && options.int8_activations {
            let message = "int8_activations are for few rows alone, so that a deterministic run cannot have them";
            return Err(Error::Request { message: message.to_owned() });
        }
        let spec = &options.spec(checkpoint);
        let types = Types::of(gpu, options.dtype);
        let offer = Offer::of(gpu, options);
        let arranged = arrange(&offer, checkpoint, spec, options)?;
        let Arrangement { mut memory, kv_types, attention, kv_shape, limits, max_positions, quantum, input_bytes } =
            arranged;
        let windows: Vec<_> = attention.groups.iter().map(|group| group.window).collect();
        let planner = Planner::new(attention, offer.class, gpu.limits(), &limits);
        let mut kernels = Kernels::new(gpu, types, planner.with_int8_activations(options.int8_activations))?;
        let turned = |layer| kv_types.turned(layer, spec.head_dim);
        let rewrite = Rewrite { quantize: options.quantize, rotation: &turned };
        match lossy_twice(checkpoint, &rewrite) {
            0 => (),
            count => log::warn!(
                "{count} matrices are quantised already and lose twice; a checkpoint of floats answers better"
            ),
        }
        let mut weights = Weights::upload(gpu, checkpoint, &rewrite, progress)?;
        // Dynamic scaling follows the longest context that the cache is made for; but a deterministic run computes the same
        // whatever the size of its cache.
        let longest = if options.deterministic { spec.max_position_embeddings } else { memory.longest_context };
        let spec = &ModelSpec { rope: spec.rope.for_context(longest), ..spec.clone() };
        if spec.rope.base() > spec.rope.theta {
            log::warn!(
                "dynamic scaling for contexts of {longest} tokens raises RoPE's base from {} to {:.0}, for short prompts too: \
                 there answers differ from transformers', which raises it once a prompt is that long",
                spec.rope.theta,
                spec.rope.base()
            );
        }
        let mut found = Vec::new();
        if kv_shape.is_quantised() && !checkpoint.is_synthetic() {
            let of = (&types, &kv_types);
            (weights, found) = centring::find(gpu, spec, weights, of, options, longest.min(max_positions))?;
        }
        centring::warn(spec, (&types, &kv_types), &found);
        let decoder = Decoder::new(gpu, spec, weights, &kernels, &limits, max_positions)?;
        tuning::tune(gpu, &mut kernels, &decoder, options)?;
        let sampler = Sampler::new(gpu, spec.vocab_size, &limits)?;
        let kv_cache = KvCache::allocate(gpu, &kv_shape, &memory.slots, quantum)?;
        for (layer, found) in found.iter().enumerate() {
            if let Some(found) = found.as_ref().filter(|_| kv_types.center) {
                kv_cache.set_mean(gpu, layer, &found.mean)?;
            }
        }
        let groups: Vec<_> = windows.iter().copied().zip(kv_cache.slots.iter().copied()).collect();
        let slots = SlotGroups::new(&groups, &Policy { quantum, ..Policy::default() });
        memory.set_slots(&kv_cache.slots, slots.longest().min(max_positions), kv_cache.bytes());
        let cost = StepCost::new(model_cost(spec, &kv_shape, &windows, memory.weight_bytes), offer.class);
        let cost = cost.with_predicted(tuning::predicted(&kernels.planner, &decoder, &kv_shape, limits.max_sequences));
        let scheduler_options = SchedulerOptions { max_positions, ..scheduler_options(options, offer.class) };
        let scheduler = Scheduler::new(limits, scheduler_options, cost);
        // The rare read of a whole row of logits must not be the first to make its buffer.
        gpu.read(&decoder.logits(0).buffer, 0, 4)?;
        let ring = gpu.step_ring(options.pipeline + 1, input_bytes, Sampler::output_bytes(&limits))?;
        Ok(Stepper {
            gpu: gpu.clone(),
            kernels,
            decoder,
            scheduler,
            kv_cache,
            kv_types,
            sampler,
            slots,
            memory,
            max_positions,
            logits_seen: None,
            meter: None,
            uploader: gpu.uploader()?,
            ring,
            limits,
            pipeline: options.pipeline,
            steps: 0,
            next_request: 0,
            in_flight: None,
            plan: Plan::default(),
            collected: Instant::now(),
        })
    }

    /// Compiles every kernel that steps ask for, so that no client waits for a compiler later; what only
    /// [`Stepper::losses`] needs is compiled there. `progress` hears how many are done and of how many.
    ///
    /// # Errors
    /// The first refusal by naga or the driver.
    pub fn compile(&self, progress: impl Fn(usize, usize) + Sync) -> Result<(), Error> {
        let planner = &self.kernels.planner;
        let attention =
            planner.attention_choices().map(|(kv, choice)| self.kernels.types.attention_variant(choice, kv));
        let mut variants: Vec<_> = attention.collect();
        let steps = planner.table().rows().into_iter().flat_map(|size| {
            self.rehearse(&Batch::rehearsal(size, self.limits.max_sequences, self.kv_cache.slots.len()))
        });
        variants.extend(steps);
        let mut seen = FxHashSet::default();
        variants.retain(|variant| seen.insert(variant.clone()));
        // Rehearsals asked as steps do.
        planner.forget_questions();
        self.gpu.compile(&variants, progress)
    }

    /// What a step would dispatch.
    #[doc(hidden)]
    pub fn rehearse(&self, batch: &Batch) -> Vec<Variant> {
        let plan = self.kernels.planner.plan(batch);
        let recorder = self.gpu.begin_rehearsal(&self.ring);
        let mut ops = Ops { recorder, kernels: &self.kernels, plan: &plan };
        let logits = self.decoder.forward(&mut ops, batch, &self.kv_cache, self.sampler.samples(), 0);
        self.sampler.pick(&mut ops, logits, batch);
        ops.recorder.into_rehearsed()
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
        self.slots.capacity()
    }

    /// Tokens that one sequence may have: the slots, or the model's positions where windows let it go on for ever.
    pub fn longest(&self) -> usize {
        self.slots.longest().min(self.max_positions)
    }

    /// Slots of the cache that belong to no request and to no kept prefix.
    pub fn free_slots(&self) -> usize {
        self.slots.free_slots()
    }

    /// The slots themselves, for tests and tools.
    #[doc(hidden)]
    pub fn slots(&self) -> &SlotGroups {
        &self.slots
    }

    /// Gives the slots of every kept prefix back.
    pub fn forget_prefixes(&mut self) {
        self.scheduler.forget_prefixes(&mut self.slots);
    }

    /// What it holds on the adapter, as it was computed beforehand.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Bytes of the KV cache.
    pub fn kv_bytes(&self) -> u64 {
        self.kv_cache.bytes()
    }

    /// Refuses slots once in so many times, at random: for tests.
    #[doc(hidden)]
    pub fn refuse_slots(&mut self, seed: u64, one_in: u64) {
        self.slots.refuse_some(seed, one_in);
    }

    /// What has happened until now.
    pub fn stats(&self) -> SchedulerStats {
        self.scheduler.stats()
    }

    /// How schedules are chosen, and how often that was asked.
    pub fn tuner_stats(&self) -> TunerStats {
        self.kernels.planner.tuner_stats()
    }

    /// Takes free slots out of use for as long as the engine lives, so that sequences lie in several segments: for tests.
    ///
    /// # Panics
    /// If they are not free.
    #[doc(hidden)]
    pub fn hold_slots(&mut self, first_slot: usize, count: usize) {
        self.slots.group_mut(0).hold(first_slot, count);
    }

    /// Queues a request.
    ///
    /// # Errors
    /// [`Error::Request`] for a prompt that is empty, names no row of the vocabulary or can never fit, and for sampling
    /// parameters out of range.
    pub fn submit(&mut self, request: Request) -> Result<RequestId, Error> {
        let checked = request.validate(self.spec().vocab_size, self.longest());
        checked.map_err(|message| Error::Request { message })?;
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.scheduler.add(Sequence::new(id, request));
        Ok(id)
    }

    /// Ends a request; its `Finished` event comes with the next step.
    pub fn cancel(&mut self, request: RequestId) {
        self.scheduler.cancel(request, &mut self.slots);
    }

    /// Tokens of a request that have keys and values, or will have them when the submitted steps end; `None` once it has ended.
    pub fn computed(&self, request: RequestId) -> Option<usize> {
        self.scheduler.sequence(request).map(Sequence::known)
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
        let submitted = match self.scheduler.next_batch(&mut self.slots) {
            Some(scheduled) => Some(self.submit_step(scheduled)?),
            None => None,
        };
        let last = if self.pipeline == 1 { submitted } else { std::mem::replace(&mut self.in_flight, submitted) };
        let Some(step) = last else { return Ok(self.scheduler.take_events()) };
        let samples = self.collect(&step.scheduled, step.submission, &step.outputs, step.parity)?;
        self.see_logits(&step.scheduled, step.parity)?;
        let began = step.submitted.max(self.collected);
        self.collected = Instant::now();
        self.scheduler.observe(&step.scheduled, 1e6 * self.collected.duration_since(began).as_secs_f64());
        Ok(self.scheduler.commit(&step.scheduled, &samples, &mut self.slots))
    }

    fn see_logits(&mut self, scheduled: &Scheduled, parity: usize) -> Result<(), Error> {
        let Some(mut seen) = self.logits_seen.take() else { return Ok(()) };
        for (row, &request) in scheduled.sampled.iter().enumerate() {
            seen.entry(request).or_default().push(self.logits_row(row, parity)?);
        }
        self.logits_seen = Some(seen);
        Ok(())
    }

    /// Reads the logits of every sampled row back from now on, and gives those that were read: for tests.
    #[doc(hidden)]
    pub fn take_logits(&mut self) -> FxHashMap<RequestId, Vec<Vec<f32>>> {
        self.logits_seen.replace(FxHashMap::default()).unwrap_or_default()
    }

    /// Starts the allocator anew with another policy: for tests.
    ///
    /// # Panics
    /// If the engine is not idle.
    #[doc(hidden)]
    pub fn set_slot_policy(&mut self, change: impl FnOnce(&mut Policy)) {
        assert!(self.is_idle(), "the policy changes while nothing runs");
        self.forget_prefixes();
        let mut policy = self.slots.group(0).policy().clone();
        change(&mut policy);
        let groups: Vec<_> = self.slots.windows().zip(self.kv_cache.slots.iter().copied()).collect();
        self.slots = SlotGroups::new(&groups, &policy);
    }

    fn submit_step(&mut self, mut scheduled: Scheduled) -> Result<InFlight, Error> {
        let submitted = Instant::now();
        for op in std::mem::take(&mut scheduled.before) {
            self.change_cache(op)?;
        }
        self.move_what_is_too_much(&mut scheduled.batch)?;
        let parity = self.steps % 2;
        let (submission, outputs) = self.run(&scheduled.batch, parity)?;
        self.steps += 1;
        Ok(InFlight { scheduled, submission, outputs, parity, submitted })
    }

    fn run(&mut self, batch: &Batch, parity: usize) -> Result<(Submission, Outputs), Error> {
        self.kernels.planner.plan_into(batch, &mut self.plan);
        let recorder = self.gpu.begin_step(&self.ring);
        let mut ops = Ops { recorder, kernels: &self.kernels, plan: &self.plan };
        if let Some(meter) = &self.meter {
            meter.attach(&mut ops.recorder);
        }
        self.decoder.write_inputs(&mut ops, batch);
        self.sampler.write_inputs(&mut ops, batch);
        let logits = self.decoder.forward(&mut ops, batch, &self.kv_cache, self.sampler.samples(), parity);
        let outputs = self.sampler.pick(&mut ops, logits, batch);
        if let Some(meter) = &mut self.meter {
            meter.count(&mut ops.recorder);
        }
        Ok((ops.recorder.submit()?, outputs))
    }

    /// A step's samples, one a row of logits; `None` for requests that ended meanwhile, and for those whose logits are not
    /// numbers: they fail, and the others go on.
    fn collect(
        &mut self,
        scheduled: &Scheduled,
        submission: Submission,
        outputs: &Outputs,
        parity: usize,
    ) -> Result<Vec<Option<u32>>, Error> {
        let bytes = submission.collect()?;
        if let Some(meter) = &mut self.meter {
            meter.collect();
        }
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
            samples.push(Some(token).filter(|&token| (token as usize) < self.spec().vocab_size));
            if samples[row].is_none() {
                self.scheduler.fail(request, Error::NotANumber.to_string(), &mut self.slots);
            }
        }
        Ok(samples)
    }

    /// Draws a token from candidates, or from the whole row where they do not decide; past the vocabulary where logits are
    /// not numbers.
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
            return Ok(u32::MAX);
        }
        Ok(choose(params, index, &Candidates::whole(&row, params.temperature)).unwrap_or(u32::MAX))
    }

    fn logits_row(&self, row: usize, parity: usize) -> Result<Vec<f32>, Error> {
        let logits = self.decoder.logits(parity);
        let bytes =
            self.gpu.read(&logits.buffer, (4 * row * logits.stride) as u64, 4 * self.spec().vocab_size as u64)?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }
}
