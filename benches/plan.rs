//! What a step costs the CPU before it is recorded: choosing tokens and slots, and planning attention, by kind of batch.
//! usage: cargo bench --bench plan

use raglan::batch::{Batch, StepLimits};
use raglan::cost::{AdapterClass, ModelCost, StepCost};
use raglan::plan::{AttentionShape, KvGroup, Numerics, Plan, Planner};
use raglan::request::{Request, RequestId, SamplingParams};
use raglan::scheduler::{Scheduler, SchedulerOptions};
use raglan::schedules::made_up::{ADAPTER, chance, weights};
use raglan::schedules::{AdapterKey, Form, Found, Mode, Tuner, attention};
use raglan::segments::{Policy, Segment, SlotGroups};
use raglan::sequence::Sequence;
use raglan::shaders::attention::CHUNK;
use raglan::shaders::{AdapterLimits, KvType, Part};
use raglan::tuner::{Candidate, Cost};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Instant;

/// Sequences of a batch.
const SEQUENCES: usize = 256;
/// Steps of one measurement.
const STEPS: usize = 500;
/// What is asked of a step.
const TARGET_US: f64 = 50.0;
const LONGEST: usize = 32_768;

fn main() {
    let (median, lowest) = schedule();
    println!(
        "choosing a step of {SEQUENCES} answers and taking its samples: {median:.1} µs median of {STEPS}, {lowest:.1} lowest\n"
    );
    println!("Attention's schedules by predictions are those of made-up weights, a whole portfolio of each form.\n");
    println!("| batch | tokens | items | merges | µs to plan, median of {STEPS} | lowest | target |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let deterministic = Numerics::Deterministic { longest_context: LONGEST };
    for (name, numerics, forks, prompt, tuner) in [
        ("decode", Numerics::Fast, false, 0, Asked::Never),
        ("decode, by predictions, remembered", Numerics::Fast, false, 0, Asked::Remembered),
        ("decode, by predictions, each batch new", Numerics::Fast, false, 0, Asked::Anew),
        ("decode, an eighth forks", Numerics::Fast, true, 0, Asked::Never),
        ("decode and 512 tokens of a prompt", Numerics::Fast, true, 512, Asked::Never),
        ("the same, by predictions, each batch new", Numerics::Fast, true, 512, Asked::Anew),
        ("decode, deterministic", deterministic, true, 0, Asked::Never),
    ] {
        let shape = AttentionShape {
            num_heads: 32,
            num_kv_heads: 8,
            head_dim: 128,
            groups: vec![KvGroup { window: None, kv: KvType::F16 }],
            numerics,
        };
        let limits = StepLimits { max_batch_tokens: 768, max_sequences: 257, max_adjustments: 1 };
        let planner = Planner::new(shape, AdapterClass::Hardware, &AdapterLimits::most(), &limits);
        let planner = if tuner == Asked::Never { planner } else { tuned(planner.with_inputs(Part::ActF16)) };
        let quantum = if numerics == Numerics::Fast { 16 } else { CHUNK };
        let seeds = if tuner == Asked::Anew { 1..STEPS as u64 + 21 } else { 1..2 };
        let batches: Vec<Batch> = seeds.map(|seed| batch(seed, quantum, forks, prompt)).collect();
        let batch = &batches[0];
        let mut plan = Plan::default();
        let mut times: Vec<f64> = (0..STEPS + 20)
            .map(|step| {
                let start = Instant::now();
                planner.plan_into(std::hint::black_box(&batches[step % batches.len()]), &mut plan);
                start.elapsed().as_secs_f64() * 1e6
            })
            .skip(20)
            .collect();
        times.sort_by(f64::total_cmp);
        println!(
            "| {name} | {} | {} | {} | {:.1} | {:.1} | {} |",
            batch.tokens(),
            plan.items.len(),
            plan.merges.len(),
            times[STEPS / 2],
            times[0],
            if numerics == Numerics::Fast { format!("≤ {TARGET_US}") } else { String::new() }
        );
    }
}

/// Whether the tuner is asked for attention's schedules, and whether it has met the batch before.
#[derive(PartialEq)]
enum Asked {
    Never,
    Remembered,
    Anew,
}

/// The same planner with made-up weights that know 48 candidates of each form.
fn tuned(mut planner: Planner) -> Planner {
    let (terms, heads) = (planner.terms().clone(), planner.heads(0));
    let mut forms = Vec::new();
    for form in [Form::Vector, Form::Tile] {
        let all = attention::all(form, &heads, &terms, &planner.usual_attention(form));
        let step = (all.len() / 48).max(1);
        forms.extend(all.into_iter().step_by(step).take(48));
    }
    let time = |_: &str, shape: &[f32], candidate: &Candidate, cost: &Cost| {
        let taste = chance(1, &format!("{candidate} {}", shape[0].log2() as u32));
        (5.0 + cost.bytes / 1e6 + cost.workgroups / 100.0) * (1.0 + 0.2 * taste)
    };
    let weights = weights(ADAPTER, &terms, &heads, (&[], &forms), &time).expect("something is learned");
    let key =
        AdapterKey { adapter_type: ADAPTER.0.to_owned(), driver: ADAPTER.1.to_owned(), class: AdapterClass::Hardware };
    planner.tune(Tuner::new(Mode::Predict, false, Found::of(&key, vec![weights])), &[], None);
    let kept = planner.attention_choices().count();
    assert!(kept > 0, "some candidate is worth compiling");
    planner
}

/// Microseconds that the scheduler takes to choose a step of many answers and to take its samples, median and lowest:
/// contexts grow by a token a step, some meet their neighbours, and rows are moved.
fn schedule() -> (f64, f64) {
    let limits = StepLimits { max_batch_tokens: 768, max_sequences: SEQUENCES, max_adjustments: 1 };
    let model =
        ModelCost { weight_bytes: 16e9, token_flops: 16e9, slot_bytes: 131_072.0, pair_flops: 524_288.0, window: None };
    let cost = StepCost::with_rates(model, (3e6, 1.1e8, 12e3, 100.0));
    let options = SchedulerOptions { max_step_us: 1e9, max_delay_us: 1e9, ..SchedulerOptions::default() };
    let mut scheduler = Scheduler::new(limits, options, cost);
    let mut slots = SlotGroups::new(&[(None, 440_320)], &Policy::default());
    let mut rng = StdRng::seed_from_u64(2);
    for id in 0..SEQUENCES as u64 {
        let length = (4096f64 / 16.0).powf(rng.random_range(0.0..1.0)) * 16.0;
        let prompt = (0..length as u32).map(|_| rng.random_range(0..50_000)).collect();
        let sampling = SamplingParams { max_tokens: 10_000, ..SamplingParams::default() };
        scheduler.add(Sequence::new(RequestId(id), Request::new(prompt, sampling)));
    }
    let mut times = Vec::new();
    while times.len() < STEPS {
        let start = Instant::now();
        let Some(step) = scheduler.next_batch(&mut slots) else { continue };
        let chosen = start.elapsed();
        let samples = vec![Some(rng.random_range(0..50_000)); step.sampled.len()];
        let start = Instant::now();
        scheduler.commit(&step, &samples, &mut slots);
        if step.batch.tokens() == SEQUENCES && step.sampled.len() == SEQUENCES {
            times.push((chosen + start.elapsed()).as_secs_f64() * 1e6);
        }
    }
    times.sort_by(f64::total_cmp);
    (times[STEPS / 2], times[0])
}

/// A token for each of many sequences with log-uniform contexts, a quarter of them in two segments, an eighth forks of
/// the one before; and some tokens of a long prompt.
fn batch(seed: u64, quantum: usize, forks: bool, prompt: usize) -> Batch {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut batch = Batch::new(1);
    let (mut next_slot, mut last) = (0, Vec::<Segment>::new());
    for _ in 0..SEQUENCES {
        let length = (LONGEST as f64 / 16.0).powf(rng.random_range(0.0..1.0)) * 16.0;
        let length = (length as usize).max(2);
        let mut segments = Vec::new();
        let mut keys = 0;
        if forks && rng.random_bool(0.125) && !last.is_empty() {
            let count = last[0].count / quantum * quantum;
            segments.extend((count > 0).then_some(Segment { count, ..last[0] }));
            keys = count;
        } else if rng.random_bool(0.25) && length > 2 * quantum {
            keys = length / 2 / quantum * quantum;
            segments.push(Segment { first_slot: next_slot, first_position: 0, count: keys });
            next_slot += keys + quantum;
        }
        let length = length.max(keys + 1);
        segments.push(Segment { first_slot: next_slot, first_position: keys, count: length - keys });
        next_slot += length - keys + quantum;
        batch.push([0], length - 1, &[&segments]);
        last = segments;
    }
    if prompt > 0 {
        let segment = Segment { first_slot: next_slot, first_position: 0, count: LONGEST };
        batch.push((0..prompt).map(|_| 0), LONGEST - prompt, &[[segment]]);
    }
    batch
}
