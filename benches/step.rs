//! What a step costs the CPU: the tiny model's decode steps, recorded and submitted while the adapter is idle.
//! A software adapter begins to run a step on the same cores before `submit` returns: there the lowest time says more than
//! the median, and "one more dispatch" is the difference of the lowest.
//! usage: cargo bench --bench step

use raglan::batch::{Batch, StepLimits};
use raglan::cost::AdapterClass;
use raglan::decoder::{Decoder, attention_shape, kv_shape};
use raglan::gpu::{Gpu, GpuOptions, StepRing};
use raglan::kv_cache::KvCache;
use raglan::models::Checkpoint;
use raglan::ops::{Dtype, Kernels, Ops, Types};
use raglan::plan::Planner;
use raglan::sampler::Sampler;
use raglan::segments::{QUANTUM, Segment};
use raglan::weights::{Rewrite, Weights};
use std::error::Error;
use std::time::{Duration, Instant};

/// Steps of one measurement.
const STEPS: usize = 200;
/// Slots of a sequence.
const CONTEXT: usize = 256;
/// What is asked of record and submit together.
const TARGET_US: f64 = 1.5;
/// Forward passes in the longer of two steps: their difference is what a dispatch costs without what a submission does.
const PASSES: usize = 8;

/// What an engine is made of, so that its step can be timed from inside.
struct Steps {
    gpu: Gpu,
    kernels: Kernels,
    decoder: Decoder,
    kv_cache: KvCache,
    sampler: Sampler,
    ring: StepRing,
}

/// CPU time of one step.
struct Cost {
    plan: Duration,
    record: Duration,
    submit: Duration,
}

fn main() -> Result<(), Box<dyn Error>> {
    let gpu = Gpu::open(&GpuOptions::default())?;
    let summary = gpu.summary();
    println!("{} · {} {}", summary.name, summary.driver, summary.driver_info);
    let limits = StepLimits { max_batch_tokens: 64, max_sequences: 64, max_adjustments: 64 };
    let steps = Steps::new(&gpu, limits)?;

    println!(
        "| sequences | passes | dispatches | µs to plan | µs to record | µs to submit | µs a dispatch, median of {STEPS} | lowest | target |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for sequences in [1, 8, 64] {
        let dispatches = steps.dispatches(sequences);
        let mut totals = Vec::new();
        for passes in [1, PASSES] {
            let mut costs = Vec::with_capacity(STEPS);
            for step in 0..STEPS + 20 {
                let cost = steps.run(&batch(sequences, CONTEXT / 2 + step % (CONTEXT / 2)), passes)?;
                if step >= 20 {
                    costs.push(cost);
                }
            }
            let dispatches = dispatches * passes;
            let median = |of: &dyn Fn(&Cost) -> Duration| median_and_lowest(&costs, of).0;
            let (plan, record, submit) = (median(&|c| c.plan), median(&|c| c.record), median(&|c| c.submit));
            let (both, lowest) = median_and_lowest(&costs, &|c| c.record + c.submit);
            totals.push(lowest);
            let each = |us: f64| us / dispatches as f64;
            println!(
                "| {sequences} | {passes} | {dispatches} | {plan:.1} | {record:.1} | {submit:.1} | {:.2} | {:.2} | ≤ {TARGET_US} |",
                each(both),
                each(lowest)
            );
        }
        let more = (PASSES - 1) * dispatches;
        println!(
            "| {sequences} | one more dispatch | | | | | {:.2} | | ≤ {TARGET_US} |",
            (totals[1] - totals[0]) / more as f64
        );
    }
    Ok(())
}

/// Of a part of the costs, in µs.
fn median_and_lowest(costs: &[Cost], of: &dyn Fn(&Cost) -> Duration) -> (f64, f64) {
    let mut times: Vec<_> = costs.iter().map(of).collect();
    times.sort_unstable();
    (times[times.len() / 2].as_secs_f64() * 1e6, times[0].as_secs_f64() * 1e6)
}

/// One token for each sequence, at `position`.
fn batch(sequences: usize, position: usize) -> Batch {
    let mut batch = Batch::new(1);
    for sequence in 0..sequences {
        let segment = Segment { first_slot: sequence * CONTEXT, first_position: 0, count: CONTEXT };
        batch.push([sequence as u32], position, &[[segment]]);
        batch.want_last_logits();
    }
    batch
}

impl Steps {
    fn new(gpu: &Gpu, limits: StepLimits) -> Result<Steps, Box<dyn Error>> {
        let checkpoint = Checkpoint::tiny()?;
        let spec = checkpoint.spec();
        let types = Types::of(gpu, Dtype::default());
        let attention = attention_shape(spec, &types.kv.into())?;
        let kv_shape = kv_shape(spec, &attention, &types.kv.into());
        let class = if gpu.is_software() { AdapterClass::Software } else { AdapterClass::Hardware };
        let kernels = Kernels::new(gpu, types, Planner::new(attention, class, gpu.limits(), &limits))?;
        let weights = Weights::upload(gpu, &checkpoint, &Rewrite::NONE, &mut |_, _| ())?;
        Ok(Steps {
            decoder: Decoder::new(gpu, spec, weights, &kernels, &limits, CONTEXT)?,
            sampler: Sampler::new(gpu, spec.vocab_size, &limits)?,
            kv_cache: KvCache::allocate(gpu, &kv_shape, &[limits.max_sequences * CONTEXT], QUANTUM)?,
            ring: gpu.step_ring(2, 1 << 20, Sampler::output_bytes(&limits))?,
            kernels,
            gpu: gpu.clone(),
        })
    }

    fn dispatches(&self, sequences: usize) -> usize {
        let batch = batch(sequences, CONTEXT - 1);
        let plan = self.kernels.planner.plan(&batch);
        let mut ops = Ops { recorder: self.gpu.begin_rehearsal(&self.ring), kernels: &self.kernels, plan: &plan };
        let logits = self.decoder.forward(&mut ops, &batch, &self.kv_cache, self.sampler.samples(), 0);
        self.sampler.pick(&mut ops, logits, &batch);
        ops.recorder.into_rehearsed().len()
    }

    fn run(&self, batch: &Batch, passes: usize) -> Result<Cost, raglan::Error> {
        let start = Instant::now();
        let plan = self.kernels.planner.plan(batch);
        let planned = Instant::now();
        let mut ops = Ops { recorder: self.gpu.begin_step(&self.ring), kernels: &self.kernels, plan: &plan };
        self.decoder.write_inputs(&mut ops, batch);
        self.sampler.write_inputs(&mut ops, batch);
        for pass in 0..passes {
            let logits = self.decoder.forward(&mut ops, batch, &self.kv_cache, self.sampler.samples(), pass % 2);
            if pass + 1 == passes {
                self.sampler.pick(&mut ops, logits, batch);
            }
        }
        let recorded = Instant::now();
        let submission = ops.recorder.submit()?;
        let submitted = Instant::now();
        submission.collect()?;
        Ok(Cost { plan: planned - start, record: recorded - planned, submit: submitted - recorded })
    }
}
