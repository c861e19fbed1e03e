//! The analytical prior: a wave model whose constants are fitted to an adapter.
//!
//! With b and f the times that a dispatch's bytes and operations take at the adapter's rates, and x its workgroups over
//! those that run at once:
//!
//! t = factor × (launch + (max(b, f) + overlap × min(b, f) + x × workgroup) × (1 + tail × (⌈x⌉ / x − 1)))
//!
//! `tail` is 1 where a last wave that is not full takes as long as a full one, and 0 where its work spreads. As many
//! workgroups run at once as there are slots, or as many as share the workgroup memory. The factor is the kernel's.

use crate::numbers::{LARGEST_CEIL, QUAD, Quad, ceil, ln};
use crate::{Candidate, Cost, MOST_CANDIDATES};

mod fit;

pub(crate) use fit::{Sample, fit};

/// A number for each candidate that a portfolio may have.
pub(crate) type Lanes = [f32; MOST_CANDIDATES];

/// What the prior says of the candidates of a portfolio for one shape.
pub(crate) struct Word {
    /// Natural logarithms of µs, without the kernels' factors.
    pub(crate) log_us: Lanes,
    pub(crate) traits: [Lanes; TRAITS],
    /// 0 where a candidate is legal, infinite where it is not or is none.
    pub(crate) barred: Lanes,
}

/// The prior's constants of one space on one adapter type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prior {
    /// Fixed part of a dispatch, µs.
    pub(crate) launch_us: f32,
    /// All compute units together.
    pub(crate) bytes_per_us: f32,
    /// All compute units together.
    pub(crate) flops_per_us: f32,
    /// Workgroups that run at once, at most.
    pub(crate) slots: f32,
    /// Workgroup memory of all compute units together.
    pub(crate) memory_bytes: f32,
    /// What a workgroup costs its slot beside its work, µs.
    pub(crate) workgroup_us: f32,
    /// How much of the lesser of bytes and operations is not hidden behind the greater: 0 to 1.
    pub(crate) overlap: f32,
    /// How much of an unfilled last wave is waited for: 0 to 1.
    pub(crate) tail: f32,
    /// Kernels, and the logarithms of their factors.
    pub(crate) kernels: Vec<(String, f32)>,
}

/// How many constants a prior has beside the factors.
pub(crate) const CONSTANTS: usize = 8;

/// What corrections of the MLP see of a candidate, each from 0 to 1: the share of the last wave that is empty, how far
/// the slots are filled, and the share of bytes in the work.
pub(crate) const TRAITS: usize = 3;

impl Prior {
    pub(crate) fn constants(&self) -> [f32; CONSTANTS] {
        let Prior { launch_us, bytes_per_us, flops_per_us, slots, memory_bytes, workgroup_us, overlap, tail, .. } =
            self;
        [*launch_us, *bytes_per_us, *flops_per_us, *slots, *memory_bytes, *workgroup_us, *overlap, *tail]
    }

    /// From constants; none where one is out of bounds.
    pub(crate) fn from_constants(constants: [f32; CONSTANTS], kernels: Vec<(String, f32)>) -> Option<Prior> {
        let [launch_us, bytes_per_us, flops_per_us, slots, memory_bytes, workgroup_us, overlap, tail] = constants;
        let within = |x: f32, low: f32, high: f32| (low..=high).contains(&x);
        let sound = [launch_us, workgroup_us].iter().all(|x| within(*x, 0.0, 1e9))
            && [bytes_per_us, flops_per_us, slots, memory_bytes].iter().all(|x| within(*x, 1e-9, 1e15))
            && [overlap, tail].iter().all(|x| within(*x, 0.0, 1.0))
            && kernels.iter().all(|(_, factor)| within(*factor, -20.0, 20.0));
        let prior =
            Prior { launch_us, bytes_per_us, flops_per_us, slots, memory_bytes, workgroup_us, overlap, tail, kernels };
        sound.then_some(prior)
    }

    /// The logarithm of the factor of each candidate's kernel; 0 for a kernel that is not known.
    pub(crate) fn factors(&self, candidates: &[Candidate]) -> Lanes {
        let mut factors = [0.0; MOST_CANDIDATES];
        for (factor, candidate) in factors.iter_mut().zip(candidates) {
            *factor =
                self.kernels.iter().find(|(name, _)| *name == candidate.kernel).map_or(0.0, |(_, factor)| *factor);
        }
        factors
    }

    /// The word on all candidates; an illegal one stands as one of a single byte, operation and workgroup.
    ///
    /// In three passes, since in one the chain of dependent steps is longer than a core looks ahead.
    #[inline(always)]
    pub(crate) fn word(&self, costs: &[Cost], word: &mut Word) {
        const QUADS: usize = MOST_CANDIDATES / QUAD;
        let mut columns = [[Quad::ZERO; 4]; QUADS];
        let (barred, _) = word.barred.as_chunks_mut::<QUAD>();
        for ((columns, barred), costs) in columns.iter_mut().zip(barred).zip(costs.chunks(QUAD)) {
            let mut rows = [Quad::ZERO; QUAD];
            for (row, cost) in rows.iter_mut().zip(costs) {
                *row = Quad::from(cost.as_f32());
            }
            let cost = Quad::transpose(rows);
            let sound = |x: Quad, least: f32| x.simd_ge(Quad::splat(least)) & x.simd_le(Quad::splat(Cost::LARGEST));
            let is_legal = sound(cost[0], 0.0) & sound(cost[1], 0.0) & sound(cost[2], 1.0) & sound(cost[3], 0.0);
            *columns = cost.map(|x| is_legal.select(x, Quad::splat(1.0)));
            *barred = is_legal.select(Quad::ZERO, Quad::splat(f32::INFINITY)).to_array();
        }
        let wave = Wave::new(self);
        let (log_us, _) = word.log_us.as_chunks_mut::<QUAD>();
        for at in 0..costs.len().div_ceil(QUAD).min(QUADS) {
            let (us, traits) = wave.us(columns[at]);
            log_us[at] = us.to_array();
            for (lanes, values) in word.traits.iter_mut().zip(traits) {
                lanes.as_chunks_mut().0[at] = values.to_array();
            }
        }
        for quad in log_us {
            *quad = ln(Quad::from(*quad)).to_array();
        }
    }
}

impl Word {
    pub(crate) const NONE: Word = Word {
        log_us: [1.0; MOST_CANDIDATES],
        traits: [[0.0; MOST_CANDIDATES]; TRAITS],
        barred: [f32::INFINITY; MOST_CANDIDATES],
    };
}

/// A prior's constants as the arithmetic takes them.
pub(crate) struct Wave {
    launch_us: Quad,
    us_per_byte: Quad,
    us_per_flop: Quad,
    /// Of a workgroup, and of a byte of its memory: the share of all slots.
    slot: Quad,
    slot_per_byte: Quad,
    workgroup_us: Quad,
    overlap: Quad,
    tail: Quad,
}

impl Wave {
    #[inline(always)]
    pub(crate) fn new(prior: &Prior) -> Wave {
        let inverse = |x: f32| Quad::splat(1.0 / x);
        Wave {
            launch_us: Quad::splat(prior.launch_us),
            us_per_byte: inverse(prior.bytes_per_us),
            us_per_flop: inverse(prior.flops_per_us),
            slot: inverse(prior.slots),
            slot_per_byte: inverse(prior.memory_bytes),
            workgroup_us: Quad::splat(prior.workgroup_us),
            overlap: Quad::splat(prior.overlap),
            tail: Quad::splat(prior.tail),
        }
    }

    /// Natural logarithm of µs of one candidate.
    pub(crate) fn one(&self, cost: [f32; 4]) -> f32 {
        ln(self.us(cost.map(Quad::splat)).0).to_array()[0]
    }

    /// Of four candidates' bytes, operations, workgroups and workgroup memory: µs and traits.
    #[inline(always)]
    pub(crate) fn us(&self, [bytes, flops, workgroups, workgroup_bytes]: [Quad; 4]) -> (Quad, [Quad; TRAITS]) {
        let one = Quad::splat(1.0);
        let (bytes_us, flops_us) = (bytes * self.us_per_byte, flops * self.us_per_flop);
        let (more, less) = (bytes_us.fast_max(flops_us), bytes_us.fast_min(flops_us));
        let x = workgroups * self.slot.fast_max(workgroup_bytes * self.slot_per_byte);
        let bounded = x.fast_min(Quad::splat(LARGEST_CEIL)).fast_max(Quad::splat(1e-6));
        let waves = ceil(bounded);
        // Two quotients of one division, twice.
        let inverse = one / (bounded * waves);
        let (waste, full) = (waves * waves * inverse, bounded * bounded * inverse);
        let busy_us = more + self.overlap * less + x * self.workgroup_us;
        let us = self.launch_us + busy_us * (one + self.tail * (waste - one));
        let work_us = (more + less).fast_min(Quad::splat(1e15)) + Quad::splat(1e-9);
        let inverse = one / ((one + bounded) * work_us);
        let bytes_share = bytes_us.fast_min(work_us) * (one + bounded) * inverse;
        (us.fast_max(Quad::splat(1e-9)), [one - full, bounded * work_us * inverse, bytes_share])
    }
}
