//! The analytical prior: a wave model whose constants are fitted to an adapter.
//!
//! With b and f the times that a dispatch's bytes and operations take at the adapter's rates, and x its workgroups over
//! those that run at once:
//!
//! t = factor × (launch + (max(b, f) + overlap × min(b, f) + x × workgroup) × (1 + tail × (⌈x⌉ / x − 1)))
//!
//! `tail` is 1 where a last wave that is not full takes as long as a full one, and 0 where its work spreads. As many
//! workgroups run at once as there are slots, or as many as share the workgroup memory. The factor is the kernel's.

use crate::numbers::{LARGEST_CEIL, ceil, greater, lesser, ln};
use crate::{Candidate, Cost, MOST_CANDIDATES};

mod fit;

pub(crate) use fit::{Sample, fit};

/// Costs of a portfolio, a column each, one place a candidate; illegal and absent ones stand as 1.
pub(crate) struct CostColumns {
    pub(crate) bytes: Lanes,
    pub(crate) flops: Lanes,
    pub(crate) workgroups: Lanes,
    pub(crate) workgroup_bytes: Lanes,
    /// 0 where legal, infinite where not.
    pub(crate) barred: Lanes,
}

/// A number for each candidate that a portfolio may have.
pub(crate) type Lanes = [f32; MOST_CANDIDATES];

impl CostColumns {
    #[inline(always)]
    pub(crate) fn new(costs: &[Cost]) -> CostColumns {
        let zero = [0.0; MOST_CANDIDATES];
        let mut columns =
            CostColumns { bytes: zero, flops: zero, workgroups: zero, workgroup_bytes: zero, barred: zero };
        for (at, cost) in costs.iter().enumerate().take(MOST_CANDIDATES) {
            let [bytes, flops, workgroups, workgroup_bytes] = cost.as_f32();
            columns.bytes[at] = bytes;
            columns.flops[at] = flops;
            columns.workgroups[at] = workgroups;
            columns.workgroup_bytes[at] = workgroup_bytes;
        }
        for at in 0..MOST_CANDIDATES {
            let all = [columns.bytes[at], columns.flops[at], columns.workgroups[at], columns.workgroup_bytes[at]];
            // Masks, as a choice between stores would become branches.
            let barred = u32::from(Cost::are_legal(all[0], all[1], all[2], all[3])).wrapping_sub(1);
            let or_one = |x: f32| f32::from_bits((x.to_bits() & !barred) | (1.0_f32.to_bits() & barred));
            columns.bytes[at] = or_one(all[0]);
            columns.flops[at] = or_one(all[1]);
            columns.workgroups[at] = or_one(all[2]);
            columns.workgroup_bytes[at] = or_one(all[3]);
            columns.barred[at] = f32::from_bits(f32::INFINITY.to_bits() & barred);
        }
        columns
    }
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

    /// Natural logarithm of the time in µs without the kernel's factor, and the traits.
    #[inline(always)]
    pub(crate) fn one(&self, bytes: f32, flops: f32, workgroups: f32, workgroup_bytes: f32) -> (f32, [f32; TRAITS]) {
        let bytes_us = bytes * (1.0 / self.bytes_per_us);
        let flops_us = flops * (1.0 / self.flops_per_us);
        let (more, less) = (greater(bytes_us, flops_us), lesser(bytes_us, flops_us));
        // Slots, or what the memory holds, whichever is less.
        let x = workgroups * greater(1.0 / self.slots, workgroup_bytes * (1.0 / self.memory_bytes));
        let bounded = greater(lesser(x, LARGEST_CEIL), 1e-6);
        let waves = ceil(bounded);
        // Two quotients of one division, twice.
        let inverse = 1.0 / (bounded * waves);
        let (waste, full) = (waves * waves * inverse, bounded * bounded * inverse);
        let busy_us = more + self.overlap * less + x * self.workgroup_us;
        let us = self.launch_us + busy_us * (1.0 + self.tail * (waste - 1.0));
        let work_us = lesser(more + less, 1e15) + 1e-9;
        let inverse = 1.0 / ((1.0 + bounded) * work_us);
        let traits = [1.0 - full, bounded * work_us * inverse, lesser(bytes_us, work_us) * (1.0 + bounded) * inverse];
        (ln(greater(us, 1e-9)), traits)
    }

    /// [`Prior::one`] for all candidates.
    #[inline(always)]
    pub(crate) fn all(&self, costs: &CostColumns, log_us: &mut Lanes, traits: &mut [Lanes; TRAITS]) {
        let [empty, filled, bytes_share] = traits;
        for at in 0..MOST_CANDIDATES {
            let (us, [a, b, c]) =
                self.one(costs.bytes[at], costs.flops[at], costs.workgroups[at], costs.workgroup_bytes[at]);
            (log_us[at], empty[at], filled[at], bytes_share[at]) = (us, a, b, c);
        }
    }
}
