//! Requests through a policy on a simulated clock, and what is counted on the way.

use super::plot::Film;
use super::workloads::Lengths;
use raglan::segments::{MAX_SEGMENTS, Segment};
use smallvec::SmallVec;

/// Requests that wait at least, while there are some: more than a scheduler looks at in a step.
const QUEUE: usize = 96;
/// Where sequences lie is looked at once in so many steps.
const LOOK_EVERY: u64 = 4;

/// What a step did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ran {
    /// Its simulated time.
    pub(crate) us: f64,
    /// Keys read.
    pub(crate) keys: usize,
    /// Rows moved.
    pub(crate) moved: usize,
    /// The part of its time that moves took.
    pub(crate) moves_us: f64,
    /// Tokens sampled.
    pub(crate) generated: usize,
}

/// What a sequence with slots has.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) number: u64,
    /// Positions that have slots.
    pub(crate) reserved: usize,
    /// Positions whose rows are computed, or are in this step.
    pub(crate) computed: usize,
    /// Where they lie; empty for the baselines.
    pub(crate) segments: SmallVec<[Segment; MAX_SEGMENTS]>,
}

/// What has happened since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) preemptions: u64,
    pub(crate) swaps: u64,
    /// Rows moved with less than half of the slots in use.
    pub(crate) moved_below_half: u64,
}

/// A scheduler with its slots.
pub(crate) trait Runner {
    /// Queues a request.
    fn add(&mut self, number: u64, lengths: Lengths);
    /// Requests without slots.
    fn waiting(&self) -> usize;
    /// Chooses the next step and runs it; `None` where nothing can run.
    fn begin(&mut self) -> Option<Ran>;
    /// Ends the step: its tokens are known.
    fn end(&mut self);
    /// Every sequence with slots.
    fn held(&self) -> Vec<Held>;
    /// What has happened.
    fn counts(&self) -> Counts;
}

/// What was measured: from when a fifth of the requests had been queued until no request waits.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measured {
    pub(crate) utilisation: f64,
    pub(crate) computed_utilisation: f64,
    pub(crate) moved_over_read: f64,
    /// Generated tokens a simulated second.
    pub(crate) throughput: f64,
    pub(crate) preemptions: f64,
    pub(crate) swaps: f64,
    pub(crate) added_delay_p50_ms: f64,
    pub(crate) added_delay_p99_ms: f64,
    pub(crate) segments_mean: f64,
    pub(crate) segments_max: usize,
    /// Of the whole replay.
    pub(crate) moved_below_half: f64,
}

#[derive(Default)]
struct Sums {
    us: f64,
    looked_us: f64,
    reserved: f64,
    computed: f64,
    keys: f64,
    moved: f64,
    generated: usize,
    segments: usize,
    sequences: usize,
    segments_max: usize,
    moves_ms: Vec<f64>,
    before: Counts,
}

/// Runs all requests; the queue is never empty before the last.
pub(crate) fn replay(
    requests: &[Lengths],
    capacity: usize,
    runner: &mut dyn Runner,
    film: &mut Film,
    progress: &dyn Fn(),
) -> Measured {
    let fitting = |lengths: &&Lengths| lengths.prompt + lengths.answer <= capacity;
    let mut coming = requests.iter().filter(fitting).zip(0..);
    let mut sums = Sums::default();
    let (mut queued, mut step, mut left) = (0, 0, true);
    loop {
        while left && runner.waiting() < QUEUE {
            match coming.next() {
                Some((&lengths, number)) => {
                    runner.add(number, lengths);
                    queued += 1;
                    progress();
                }
                None => left = false,
            }
        }
        let warm = queued * 5 >= requests.len();
        if !warm {
            sums.before = runner.counts();
        }
        let ran = runner.begin().expect("what waits finds room in time");
        if warm {
            sums.note(&ran);
            let look = step % LOOK_EVERY == 0;
            if look || film.wants(sums.us) {
                let held = runner.held();
                film.frame(sums.us, &held);
                if look {
                    sums.look(&ran, &held);
                }
            }
        }
        runner.end();
        step += 1;
        if !left && runner.waiting() == 0 {
            return sums.measured(capacity, runner.counts());
        }
    }
}

impl Sums {
    fn note(&mut self, ran: &Ran) {
        self.us += ran.us;
        self.keys += ran.keys as f64;
        self.moved += ran.moved as f64;
        self.generated += ran.generated;
        self.moves_ms.push(ran.moves_us / 1e3);
    }

    fn look(&mut self, ran: &Ran, held: &[Held]) {
        let sum = |slots: fn(&Held) -> usize| held.iter().map(slots).sum::<usize>() as f64;
        self.looked_us += ran.us;
        self.reserved += ran.us * sum(|held| held.reserved);
        self.computed += ran.us * sum(|held| held.computed);
        self.sequences += held.len();
        self.segments += held.iter().map(|held| held.segments.len()).sum::<usize>();
        self.segments_max = held.iter().map(|held| held.segments.len()).fold(self.segments_max, usize::max);
    }

    fn measured(mut self, capacity: usize, counts: Counts) -> Measured {
        self.moves_ms.sort_by(f64::total_cmp);
        let quantile =
            |q: f64| self.moves_ms.get(((self.moves_ms.len() as f64 - 1.0) * q) as usize).copied().unwrap_or(0.0);
        let slot_us = self.looked_us * capacity as f64;
        Measured {
            utilisation: self.reserved / slot_us,
            computed_utilisation: self.computed / slot_us,
            moved_over_read: self.moved / self.keys,
            throughput: self.generated as f64 / self.us * 1e6,
            preemptions: (counts.preemptions - self.before.preemptions) as f64,
            swaps: (counts.swaps - self.before.swaps) as f64,
            added_delay_p50_ms: quantile(0.5),
            added_delay_p99_ms: quantile(0.99),
            segments_mean: self.segments as f64 / self.sequences.max(1) as f64,
            segments_max: self.segments_max,
            moved_below_half: counts.moved_below_half as f64,
        }
    }
}
