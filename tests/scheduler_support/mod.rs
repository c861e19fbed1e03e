//! An engine without a GPU: memory that knows which token lies in each slot, and a model that reads it.
#![allow(dead_code, reason = "each test uses some of it")]

use raglan::batch::{Batch, StepLimits};
use raglan::cost::{ModelCost, StepCost};
use raglan::request::{Event, FinishReason, Request, RequestId, SamplingParams};
use raglan::scheduler::{CacheOp, Scheduled, Scheduler, SchedulerOptions, SchedulerStats};
use raglan::segments::{Move, Policy, Segment, Segments, SlotGroups};
use raglan::sequence::Sequence;
use raglan::shaders::embedding::SAMPLED;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, VecDeque};

/// What a history is made of.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) pipeline: usize,
    pub(crate) capacity: usize,
    pub(crate) requests: u64,
    /// The window of each KV group.
    pub(crate) groups: Vec<Option<usize>>,
    pub(crate) max_batch_tokens: usize,
    pub(crate) max_sequences: usize,
    /// Whether giving way to others saves keys and values on the host.
    pub(crate) swap: bool,
    /// Whether the allocator refuses now and then without a reason.
    pub(crate) refuse: bool,
    /// Slots come in multiples of this; shared prefixes too where it is larger than 16.
    pub(crate) quantum: usize,
}

impl Default for Case {
    fn default() -> Self {
        Case {
            seed: 0,
            pipeline: 2,
            capacity: 4096,
            requests: 30,
            groups: vec![None],
            max_batch_tokens: 48,
            max_sequences: 6,
            swap: true,
            refuse: false,
            quantum: 16,
        }
    }
}

impl Case {
    /// The model: the token after `tokens`, from those that its windows let it see.
    pub(crate) fn next_token(&self, tokens: &[u32]) -> u32 {
        let seen = self.groups.iter().map(|window| window.unwrap_or(usize::MAX)).max().unwrap_or(usize::MAX);
        let seen = &tokens[tokens.len().saturating_sub(seen)..];
        seen.iter().fold(17u32, |hash, &token| hash.wrapping_mul(31).wrapping_add(token)) % 1000
    }

    /// Tokens that a sequence may have keys for.
    pub(crate) fn longest(&self) -> usize {
        if self.groups.contains(&None) { self.capacity } else { usize::MAX }
    }
}

pub(crate) fn limits(case: &Case) -> StepLimits {
    let max_batch_tokens = case.max_batch_tokens;
    StepLimits { max_batch_tokens, max_sequences: case.max_sequences, max_adjustments: 4096 }
}

/// Llama-2-13B in f16 on an adapter of 3 TB/s.
pub(crate) fn cost() -> StepCost {
    let model =
        ModelCost { weight_bytes: 26e9, token_flops: 26e9, slot_bytes: 819_200.0, pair_flops: 819_200.0, window: None };
    StepCost::with_rates(model, (3e6, 1.12e8, 12e3, 100.0))
}

/// Which token's keys lie in each slot of each KV group, and the last step's samples.
struct Gpu {
    case: Case,
    slots: Vec<Vec<Option<(u32, u32)>>>,
    samples: Vec<u32>,
    moved: usize,
}

impl Gpu {
    fn change(&mut self, op: CacheOp) {
        match op {
            CacheOp::Move(groups) => {
                for (group, moves) in groups.iter().enumerate() {
                    Segments::rounds(moves).iter().for_each(|round| self.copy(group, round));
                }
            }
            CacheOp::Save { saved, segments } => {
                let mut bytes = Vec::new();
                for (group, list) in segments.iter().enumerate() {
                    let first = list.first().map_or(saved.end, |s| s.first_position);
                    assert_eq!(first, saved.first_positions[group]);
                    let seen = self.case.groups[group].map_or(0, |window| (saved.end + 1).saturating_sub(window));
                    for (position, slot) in places(list) {
                        // What no later row sees may be anything.
                        let (held, id) = self.slots[group][slot].unwrap_or((u32::MAX, 0));
                        assert!(held as usize == position || position < seen, "what is saved was computed");
                        bytes.extend(id.to_le_bytes());
                    }
                }
                saved.bytes.set(bytes).expect("saved once");
            }
            CacheOp::Restore { saved, segments } => {
                let bytes = saved.bytes.get().expect("what comes back was saved");
                let mut start = 0;
                for (group, list) in segments.iter().enumerate() {
                    for (position, slot) in places(list) {
                        let at = start + 4 * (position - saved.first_positions[group]);
                        let id = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
                        self.slots[group][slot] = Some((position as u32, id));
                    }
                    start += 4 * (saved.end - saved.first_positions[group]);
                }
            }
        }
    }

    /// A round of moves, all read before any is written.
    fn copy(&mut self, group: usize, round: &[Move]) {
        let arena = &mut self.slots[group];
        let rows: Vec<_> = round.iter().map(|m| arena[m.from..m.from + m.count].to_vec()).collect();
        for (rows, m) in rows.into_iter().zip(round) {
            arena[m.to..m.to + m.count].copy_from_slice(&rows);
            self.moved += m.count;
        }
    }

    /// Runs a step: moves, writes slots, and samples from what the segments hold.
    fn run(&mut self, batch: &Batch) -> Vec<u32> {
        for (group, plan) in batch.groups.iter().enumerate() {
            plan.moves.iter().for_each(|round| self.copy(group, round));
            for token in 0..batch.tokens() {
                let id = match batch.token_ids[token] {
                    id if id & SAMPLED != 0 => self.samples[(id & !SAMPLED) as usize],
                    id => id,
                };
                self.slots[group][plan.slots[token] as usize] = Some((batch.positions[token], id));
            }
        }
        self.samples = batch.logit_rows.iter().map(|&row| self.sample(batch, row)).collect();
        self.samples.clone()
    }

    fn sample(&self, batch: &Batch, row: u32) -> u32 {
        let sequence = batch.q_indptr.partition_point(|&first| first <= row) - 1;
        let end = batch.positions[row as usize] as usize + 1;
        let mut seen: Vec<Vec<u32>> = Vec::new();
        for (group, plan) in batch.groups.iter().enumerate() {
            let lists = plan.segment_indptr[sequence] as usize..plan.segment_indptr[sequence + 1] as usize;
            let first = self.case.groups[group].map_or(0, |window| end.saturating_sub(window));
            let mut tokens = Vec::new();
            for (position, slot) in
                places(&plan.segments[lists]).filter(|&(position, _)| (first..end).contains(&position))
            {
                let (held, id) = self.slots[group][slot].expect("a key that is read was written");
                assert_eq!(held as usize, position, "keys lie where the segment says");
                tokens.push(id);
            }
            assert_eq!(tokens.len(), end - first, "every key that the row sees is there");
            seen.push(tokens);
        }
        let longest = seen.iter().max_by_key(|tokens| tokens.len()).expect("a group");
        assert!(seen.iter().all(|tokens| longest.ends_with(tokens)), "groups hold the same tokens");
        self.case.next_token(longest)
    }
}

/// Position and slot of every row.
fn places(segments: &[Segment]) -> impl Iterator<Item = (usize, usize)> {
    segments.iter().flat_map(|s| (0..s.count).map(|at| (s.first_position + at, s.first_slot + at)))
}

/// A scheduler with its memory, a step at a time as the engine does it.
pub(crate) struct Run {
    pub(crate) scheduler: Scheduler,
    pub(crate) slots: SlotGroups,
    pub(crate) cost: StepCost,
    /// Slots of the first group in use at most.
    pub(crate) most_used: usize,
    gpu: Gpu,
    flying: VecDeque<(Scheduled, Vec<u32>)>,
    next: u64,
}

impl Run {
    pub(crate) fn new(case: &Case, options: SchedulerOptions) -> Run {
        let groups: Vec<_> = case.groups.iter().map(|&window| (window, case.capacity)).collect();
        let slots = SlotGroups::new(&groups, &Policy { quantum: case.quantum, ..Policy::default() });
        let gpu = Gpu {
            slots: vec![vec![None; case.capacity]; groups.len()],
            case: case.clone(),
            samples: Vec::new(),
            moved: 0,
        };
        let scheduler = Scheduler::new(limits(case), options, cost());
        Run { scheduler, slots, cost: cost(), most_used: 0, gpu, flying: VecDeque::new(), next: 0 }
    }

    pub(crate) fn add(&mut self, request: Request) -> RequestId {
        let id = RequestId(self.next);
        self.next += 1;
        self.scheduler.add(Sequence::new(id, request));
        id
    }

    /// Submits a step where there is one, and collects where the pipeline is full or there is none.
    pub(crate) fn turn(&mut self) -> (Option<Scheduled>, Vec<Event>) {
        let pipeline = self.gpu.case.pipeline;
        let step = self.submit();
        let full = self.flying.len() >= pipeline || step.is_none();
        let events = if full { self.collect() } else { self.scheduler.take_events() };
        (step, events)
    }

    fn submit(&mut self) -> Option<Scheduled> {
        let mut step = self.scheduler.next_batch(&mut self.slots)?;
        std::mem::take(&mut step.before).into_iter().for_each(|op| self.gpu.change(op));
        let samples = self.gpu.run(&step.batch);
        self.most_used = self.most_used.max(self.slots.capacity() - self.slots.free_slots());
        let limits = limits(&self.gpu.case);
        assert!(step.batch.tokens() <= limits.max_batch_tokens && step.batch.sequences() <= limits.max_sequences);
        assert_eq!(step.sampled.len(), step.batch.logit_rows.len());
        self.flying.push_back((step.clone(), samples));
        Some(step)
    }

    fn collect(&mut self) -> Vec<Event> {
        let Some((step, samples)) = self.flying.pop_front() else { return self.scheduler.take_events() };
        let samples: Vec<_> = samples.into_iter().map(Some).collect();
        self.scheduler.commit(&step, &samples, &mut self.slots)
    }

    /// Runs until nothing is left; every answer.
    pub(crate) fn finish(&mut self) -> BTreeMap<RequestId, Vec<u32>> {
        let mut answers: BTreeMap<RequestId, Vec<u32>> = BTreeMap::new();
        while !self.scheduler.is_idle() || !self.flying.is_empty() {
            for event in self.turn().1 {
                if let Event::Token { request, token } = event {
                    answers.entry(request).or_default().push(token);
                }
            }
        }
        answers
    }
}

/// What became of a history.
pub(crate) struct Ran {
    pub(crate) case: Case,
    pub(crate) asked: BTreeMap<RequestId, Request>,
    pub(crate) answers: BTreeMap<RequestId, Vec<u32>>,
    pub(crate) ended: BTreeMap<RequestId, FinishReason>,
    pub(crate) stats: SchedulerStats,
    pub(crate) moved: usize,
    /// Requests whose prompt could never fit.
    pub(crate) refused: usize,
}

/// Runs random requests to their end. Some share the beginnings of their prompts, some wait for the host between tokens,
/// some are cancelled, some are urgent.
pub(crate) fn history(case: &Case) -> Ran {
    let mut rng = StdRng::seed_from_u64(case.seed);
    let options = SchedulerOptions {
        fork_quantum: if case.quantum > 16 { case.quantum } else { 1 },
        host_bytes: if case.swap { 1 << 40 } else { 0 },
        // Half of the histories compute what was preempted again, where that is short.
        max_delay_us: rng.random_range(1e3..1e5),
        ..SchedulerOptions::default()
    };
    let mut run = Run::new(case, options);
    if case.refuse {
        run.slots.refuse_some(case.seed, 50);
    }
    let beginnings: Vec<Vec<u32>> = (0..4u32).map(|i| (0..60).map(|at| i * 100 + at).collect()).collect();
    let (mut asked, mut answers) = (BTreeMap::<RequestId, Request>::new(), BTreeMap::<RequestId, Vec<u32>>::new());
    let (mut ended, mut refused) = (BTreeMap::new(), 0);
    let most_turns = 400 * case.requests + 4000;
    let mut turns = 0;
    while run.next < case.requests || !run.scheduler.is_idle() || !run.flying.is_empty() {
        turns += 1;
        assert!(turns < most_turns, "{case:?}: it does not end");
        if run.next < case.requests && rng.random_bool(0.3) {
            let mut prompt: Vec<u32> = match rng.random_range(0..6usize) {
                index @ 0..4 => beginnings[index][..rng.random_range(1..60)].to_vec(),
                _ => Vec::new(),
            };
            // And some go on where an earlier answer ended.
            if rng.random_bool(0.2)
                && let Some((id, request)) = asked.iter().nth(rng.random_range(0..asked.len().max(1)))
            {
                let request: &Request = request;
                prompt = [&request.prompt[..], answers.get(id).map_or(&[][..], |answer| answer)].concat();
                prompt.truncate(120);
            }
            prompt.extend((0..rng.random_range(1..40)).map(|_| rng.random_range(0..1000)));
            // A third of the requests wait for the host between tokens.
            let presence_penalty = if run.next.is_multiple_of(3) { 1.0 } else { 0.0 };
            let max_tokens = rng.random_range(1..40);
            let sampling = SamplingParams { max_tokens, presence_penalty, ..SamplingParams::default() };
            let request = Request { prompt, sampling, priority: rng.random_range(-1..2) };
            if rng.random_bool(0.05) {
                // What the engine refuses before it comes here.
                refused += 1;
                run.next += 1;
            } else {
                let id = run.add(request.clone());
                asked.insert(id, request);
            }
        }
        if run.next > 0 && rng.random_bool(0.01) {
            let id = RequestId(rng.random_range(run.next.saturating_sub(20)..run.next));
            run.scheduler.cancel(id, &mut run.slots);
        }
        run.submit();
        let full = run.flying.len() >= case.pipeline || rng.random_bool(0.15) || run.flying.len() == 1;
        let events = if full { run.collect() } else { run.scheduler.take_events() };
        for event in events {
            match event {
                Event::Started { .. } => {}
                Event::Token { request, token } => {
                    assert!(!ended.contains_key(&request), "{case:?}: a token after the end");
                    answers.entry(request).or_default().push(token);
                }
                Event::Finished { request, reason } => {
                    assert!(ended.insert(request, reason).is_none(), "{case:?}: ended twice");
                }
                Event::Failed { message, .. } => panic!("{case:?}: {message}"),
            }
        }
    }
    assert_eq!(ended.len(), asked.len(), "{case:?}: every request ends");
    run.scheduler.forget_prefixes(&mut run.slots);
    for group in 0..case.groups.len() {
        let slots = run.slots.group(group);
        assert_eq!(slots.free_slots(), slots.capacity(), "{case:?}: every slot comes back");
    }
    let (stats, moved) = (run.scheduler.stats(), run.gpu.moved);
    Ran { case: case.clone(), asked, answers, ended, stats, moved, refused }
}
