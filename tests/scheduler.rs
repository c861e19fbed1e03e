//! The scheduler and the slot allocator under random histories, without a GPU: what a step computes is checked against what
//! the sequences are.

use raglan::batch::StepLimits;
use raglan::request::{Event, FinishReason, RequestId, SamplingParams};
use raglan::scheduler::{Scheduled, Scheduler};
use raglan::segments::Segments;
use raglan::sequence::Sequence;
use raglan::shaders::embedding::SAMPLED;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, VecDeque};

/// A model: the token after `tokens`.
fn next_token(tokens: &[u32]) -> u32 {
    tokens.iter().fold(17u32, |hash, &token| hash.wrapping_mul(31).wrapping_add(token)) % 1000
}

/// What a GPU would hold: which token's keys lie in each slot, and the last step's samples.
#[derive(Default)]
struct Gpu {
    slots: BTreeMap<u32, (u32, u32)>,
    samples: Vec<u32>,
}

impl Gpu {
    /// Runs a step: writes slots, and samples from what the segments hold.
    fn run(&mut self, step: &Scheduled) -> Vec<u32> {
        let batch = &step.batch;
        for token in 0..batch.tokens() {
            let id = match batch.token_ids[token] {
                id if id & SAMPLED != 0 => self.samples[(id & !SAMPLED) as usize],
                id => id,
            };
            self.slots.insert(batch.slots[token], (batch.positions[token], id));
        }
        let sample = |&row: &u32| {
            let sequence = batch.q_indptr.partition_point(|&first| first <= row) - 1;
            let segments = batch.segment_indptr[sequence] as usize..batch.segment_indptr[sequence + 1] as usize;
            let mut tokens = Vec::new();
            for segment in &batch.segments[segments] {
                for at in 0..segment.count {
                    let (position, id) = self.slots[&((segment.first_slot + at) as u32)];
                    assert_eq!(position as usize, segment.first_position + at, "keys lie where the segment says");
                    tokens.push(id);
                }
            }
            assert_eq!(tokens.len() as u32, batch.positions[row as usize] + 1, "every key up to the row is there");
            next_token(&tokens)
        };
        self.samples = batch.logit_rows.iter().map(sample).collect();
        self.samples.clone()
    }
}

/// Runs random requests to their end, and compares each answer with the model's.
fn history(seed: u64, pipeline: usize, capacity: usize) -> usize {
    let mut rng = StdRng::seed_from_u64(seed);
    let limits = StepLimits { max_batch_tokens: 48, max_sequences: 6, max_adjustments: 4096, max_split_rows: 48 };
    let mut scheduler = Scheduler::new(limits);
    let mut slots = Segments::new(capacity);
    let mut gpu = Gpu::default();
    let mut wanted = BTreeMap::new();
    let mut met: BTreeMap<RequestId, Vec<u32>> = BTreeMap::new();
    let mut ended: BTreeMap<RequestId, FinishReason> = BTreeMap::new();
    let mut cancelled = 0;
    let mut flying: VecDeque<(Scheduled, Vec<u32>)> = VecDeque::new();
    let mut next = 0u64;
    for turn in 0..4000 {
        if next < 30 && rng.random_bool(0.3) {
            let prompt: Vec<u32> = (0..rng.random_range(1..90)).map(|_| rng.random_range(0..1000)).collect();
            // A third of the requests wait for the host between tokens.
            let presence_penalty = if next.is_multiple_of(3) { 1.0 } else { 0.0 };
            let max_tokens = rng.random_range(1..40);
            let sampling = SamplingParams { max_tokens, presence_penalty, ..SamplingParams::default() };
            wanted.insert(RequestId(next), (prompt.clone(), max_tokens));
            scheduler.add(Sequence::new(RequestId(next), prompt, sampling));
            next += 1;
        }
        if next > 0 && rng.random_bool(0.01) {
            scheduler.cancel(RequestId(rng.random_range(0..next)), &mut slots);
        }
        if let Some(step) = scheduler.next_batch(&mut slots) {
            assert!(step.batch.tokens() <= limits.max_batch_tokens && step.batch.sequences() <= limits.max_sequences);
            assert_eq!(step.sampled.len(), step.batch.logit_rows.len());
            let samples = gpu.run(&step);
            flying.push_back((step, samples));
        } else if flying.is_empty() && next == 30 && scheduler.is_idle() {
            break;
        }
        let full = flying.len() >= pipeline || turn % 7 == 0;
        let mut events = scheduler.take_ended();
        if full && let Some((step, samples)) = flying.pop_front() {
            let samples: Vec<_> = samples.into_iter().map(Some).collect();
            events.extend(scheduler.commit(&step, &samples, &mut slots));
        }
        for event in events {
            match event {
                Event::Token { request, token } => {
                    assert!(!ended.contains_key(&request), "seed {seed}: a token after the end");
                    met.entry(request).or_default().push(token);
                }
                Event::Finished { request, reason } => {
                    cancelled += usize::from(reason == FinishReason::Cancelled);
                    assert!(ended.insert(request, reason).is_none(), "seed {seed}: ended twice");
                }
            }
        }
    }
    assert_eq!(ended.len(), 30, "seed {seed}: every request ends");
    assert_eq!(slots.free_slots(), slots.capacity(), "seed {seed}: every slot comes back");
    for (request, (prompt, max_tokens)) in wanted {
        let answer = met.remove(&request).unwrap_or_default();
        let mut tokens = prompt;
        for &token in &answer {
            assert_eq!(token, next_token(&tokens), "seed {seed}, {request:?}");
            tokens.push(token);
        }
        let cut = ended[&request] == FinishReason::Cancelled || tokens.len() + 16 > capacity;
        assert!(answer.len() == max_tokens || cut, "seed {seed}, {request:?}: {} of {max_tokens}", answer.len());
    }
    cancelled
}

#[test]
fn every_answer_is_the_models_whatever_runs_beside_it() {
    let cancelled: usize = (0..40).map(|seed| history(seed, 1 + seed as usize % 2, 4096)).sum();
    assert!(cancelled > 0, "some requests were cancelled");
}

#[test]
fn answers_stay_the_same_when_slots_run_out() {
    for seed in 0..40 {
        history(seed, 1 + seed as usize % 2, 192);
    }
}

/// Runs one greedy request as the engine does, submitting a step before the last one is committed where `pipeline` is 2.
/// Returns its answer, and in which turns a step was submitted.
fn alone(pipeline: usize, capacity: usize, max_batch_tokens: usize) -> (Vec<u32>, Vec<bool>) {
    let limits =
        StepLimits { max_batch_tokens, max_sequences: 4, max_adjustments: 8, max_split_rows: max_batch_tokens.max(9) };
    let mut scheduler = Scheduler::new(limits);
    let mut slots = Segments::new(capacity);
    let mut gpu = Gpu::default();
    let sampling = SamplingParams { max_tokens: 100, ..SamplingParams::default() };
    scheduler.add(Sequence::new(RequestId(0), (0..20).collect(), sampling));
    let (mut answer, mut submitted, mut flying) = (Vec::new(), Vec::new(), None);
    for _ in 0..1000 {
        let step = scheduler.next_batch(&mut slots).map(|step| (gpu.run(&step), step));
        submitted.push(step.is_some());
        let last = if pipeline == 1 { step } else { std::mem::replace(&mut flying, step) };
        let events = match last {
            Some((samples, step)) => {
                scheduler.commit(&step, &samples.into_iter().map(Some).collect::<Vec<_>>(), &mut slots)
            }
            None => scheduler.take_ended(),
        };
        for event in events {
            match event {
                Event::Token { token, .. } => answer.push(token),
                Event::Finished { .. } => return (answer, submitted),
            }
        }
    }
    panic!("the request does not end: {answer:?}");
}

#[test]
fn a_lone_answer_submits_a_step_in_every_turn() {
    let (answer, submitted) = alone(2, 1024, 64);
    assert_eq!(answer.len(), 100);
    // The last turn collects.
    assert!(submitted[..submitted.len() - 1].iter().all(|&step| step), "{submitted:?}");
}

#[test]
fn a_full_context_ends_an_answer_at_the_same_token_whatever_the_pipeline() {
    for capacity in [32, 48, 64, 112] {
        for max_batch_tokens in [1, 3, 64] {
            let (one, _) = alone(1, capacity, max_batch_tokens);
            assert_eq!(one, alone(2, capacity, max_batch_tokens).0, "{capacity} slots");
            assert_eq!(one.len(), capacity - 20 + 1, "every slot is used, and the last sample needs none");
        }
    }
}
