//! Runs single dispatches on the adapter, as they are or as a mutant of them, and compares what comes back.

use super::data::Random;
use crate::gpu::{Buffer, Gpu, StepRing};
use raglan_shaders::{Access, AdapterLimits, Kernel, KvType, Part, Schedule, Tolerance, Variant, Wanted, link};
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};

/// Most bytes that the inputs of one dispatch take, and its outputs.
const RING_BYTES: u64 = 8 << 20;

/// Why a check failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The adapter computed something else than the twin: what a mutant must come to.
    Differs(String),
    /// The check could not be made.
    Broken(String),
}

impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Self {
        Failure::Broken(error.to_string())
    }
}

impl From<Failure> for String {
    fn from(failure: Failure) -> String {
        match failure {
            Failure::Differs(message) | Failure::Broken(message) => message,
        }
    }
}

/// A change of a kernel's source that its twin test must notice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mutation {
    /// The kernel's name.
    pub(super) kernel: &'static str,
    /// What is broken.
    pub(super) what: &'static str,
    /// A text that the kernel with its parts holds once.
    pub(super) from: &'static str,
    /// What stands there instead.
    pub(super) to: &'static str,
}

/// An open adapter with memory for the inputs and outputs of a dispatch.
pub(super) struct Opened {
    pub(super) gpu: Gpu,
    /// Whether kernels check bounds.
    checked: bool,
    ring: StepRing,
}

impl Opened {
    pub(super) fn new(gpu: Gpu, checked: bool) -> Result<Opened, crate::Error> {
        let ring = gpu.step_ring(1, RING_BYTES, RING_BYTES)?;
        Ok(Opened { gpu, checked, ring })
    }
}

/// One way to run kernels: an open adapter, with or without runtime checks, and the parts to link.
pub(super) struct Rig<'a> {
    opened: &'a Opened,
    /// Differs from one way to the next, so that together they meet more schedules and data than each alone.
    pub(super) turn: usize,
    /// How many ways there are.
    ways: usize,
    pub(super) act: Part,
    /// Of keys and values, where a check is of floats.
    pub(super) kv: KvType,
    pub(super) reduce: Part,
    pub(super) team: Part,
    pub(super) coop: Part,
    /// The one schedule that is tried, counted round and round among all that are legal; `None`: a few that have every value.
    sweep: Option<usize>,
    /// The most schedules that were legal where one was asked for.
    legal: Cell<usize>,
    /// Whether a schedule was legal on the adapter and not in this way.
    skipped: Cell<bool>,
    mutation: Option<Mutation>,
    mutants: RefCell<FxHashMap<Variant, Variant>>,
    /// The worst error as a share of what was allowed: of results in f32, and in f16.
    worst: [Cell<f64>; 2],
    checks: Cell<usize>,
}

impl<'a> Rig<'a> {
    pub(super) fn new(opened: &'a Opened, (turn, ways): (usize, usize), f16: bool, subgroups: bool) -> Rig<'a> {
        Rig {
            opened,
            turn,
            ways,
            act: if f16 { Part::ActF16 } else { Part::ActF32 },
            kv: if f16 { KvType::F16 } else { KvType::F32 },
            reduce: if subgroups { Part::ReduceSubgroup } else { Part::ReduceShared },
            team: if subgroups { Part::TeamSubgroup } else { Part::TeamShared },
            coop: if opened.gpu.limits().coop_side == 8 { Part::Coop8 } else { Part::Coop16 },
            sweep: None,
            legal: Cell::new(0),
            skipped: Cell::new(false),
            mutation: None,
            mutants: RefCell::default(),
            worst: Default::default(),
            checks: Cell::new(0),
        }
    }

    pub(super) fn with_mutation(self, mutation: Mutation) -> Rig<'a> {
        Rig { mutation: Some(mutation), ..self }
    }

    /// The same, to try schedule `turn` alone.
    pub(super) fn sweeping(self, turn: usize) -> Rig<'a> {
        Rig { sweep: Some(turn), ..self }
    }

    /// The most schedules that were legal where one was asked for.
    pub(super) fn legal_schedules(&self) -> usize {
        self.legal.get()
    }

    /// Whether a schedule was legal on the adapter and not in this way.
    pub(super) fn has_skipped(&self) -> bool {
        self.skipped.get()
    }

    /// Whether this rig tries one schedule alone: then checks leave out no way or format for the sake of time.
    pub(super) fn is_sweeping(&self) -> bool {
        self.sweep.is_some()
    }

    /// The adapter's settings and the parts, as failures name them.
    pub(super) fn name(&self) -> String {
        let checks = if self.opened.checked { "checked" } else { "unchecked" };
        format!("{checks}, {}, {}", self.act.name(), self.reduce.name())
    }

    /// Whether this is one of the first four ways, which differ in checks and in f16: enough where a kernel reduces nothing.
    pub(super) fn is_of_four(&self) -> bool {
        self.turn < 4
    }

    /// Whether this is one of two ways that differ in all: the first two for an even `place`, the next two for an odd one.
    pub(super) fn is_of_two(&self, place: usize) -> bool {
        self.turn / 2 == if self.ways < 4 { 0 } else { place % 2 }
    }

    /// Whether the adapter is a CPU, which takes long to compile large kernels.
    pub(super) fn is_software(&self) -> bool {
        self.opened.gpu.is_software()
    }

    /// Whether this is the way for `place`, of which each has one.
    pub(super) fn is_of_one(&self, place: usize) -> bool {
        self.turn == place % self.ways
    }

    /// The worst error as a share of what was allowed: of results in f32, and in f16.
    pub(super) fn worst(&self) -> [f64; 2] {
        [self.worst[0].get(), self.worst[1].get()]
    }

    /// Whether kernels go through Metal.
    pub(super) fn is_metal(&self) -> bool {
        self.opened.gpu.summary().backend == "metal"
    }

    /// Comparisons made.
    pub(super) fn checks(&self) -> usize {
        self.checks.get()
    }

    /// Random numbers for case `index` of this way.
    pub(super) fn random(&self, index: usize) -> Random {
        Random::new((self.sweep.unwrap_or(self.turn) * 1000 + index) as u64)
    }

    /// What the adapter allows in this way of running kernels.
    pub(super) fn limits(&self) -> AdapterLimits {
        let limits = self.opened.gpu.limits();
        let subgroups = self.reduce == Part::ReduceSubgroup;
        let coop_side = if subgroups && self.act == Part::ActF16 { limits.coop_side } else { 0 };
        AdapterLimits { subgroups, coop_side, ..limits.clone() }
    }

    /// Legal schedules that together have every value of every tunable which is legal for `shape`; one where this rig is
    /// sweeping, or none if that is not legal in this way.
    pub(super) fn schedules(&self, kernel: &'static Kernel, shape: &[u32]) -> Vec<Schedule> {
        let Some(turn) = self.sweep else { return covering(kernel.legal_schedules(&self.limits(), shape)) };
        let all = kernel.legal_schedules(self.opened.gpu.limits(), shape);
        self.legal.set(self.legal.get().max(all.len()));
        let one = all.get(turn % all.len().max(1)).cloned();
        let legal = one.filter(|schedule| (kernel.legal)(&self.limits(), shape, schedule));
        self.skipped.set(self.skipped.get() || legal.is_none() && !all.is_empty());
        legal.into_iter().collect()
    }

    /// One of [`Rig::schedules`], another from turn to turn.
    pub(super) fn one_schedule(&self, kernel: &'static Kernel, shape: &[u32], offset: usize) -> Schedule {
        let all = self.schedules(kernel, shape);
        let all = if all.is_empty() { kernel.legal_schedules(&self.limits(), shape) } else { all };
        all[(self.turn + offset) % all.len()].clone()
    }

    /// Runs a dispatch on buffers that hold `inputs`; what the buffers that it writes hold then, in binding order.
    /// An input that is given twice is one buffer.
    pub(super) fn run(
        &self,
        variant: &Variant,
        inputs: &[&[u8]],
        immediates: &[u8],
        workgroups: [u32; 3],
    ) -> Result<Vec<Vec<u8>>, Failure> {
        let Opened { gpu, ring, .. } = self.opened;
        let mut buffers: Vec<Buffer> = Vec::new();
        let mut recorder = gpu.begin_step(ring);
        for (index, input) in inputs.iter().enumerate() {
            match inputs[..index].iter().position(|other| std::ptr::eq(*other, *input)) {
                Some(same) => buffers.push(buffers[same].clone()),
                None => {
                    let buffer = gpu.buffer("self-test", input.len() as u64)?;
                    recorder.write(&buffer, 0, input);
                    buffers.push(buffer);
                }
            }
        }
        let slices: Vec<_> = buffers.iter().map(Into::into).collect();
        recorder.dispatch(&self.mutated(variant)?, &slices, immediates, workgroups);
        let written = variant.kernel.bindings.iter().zip(&buffers).filter(|(access, _)| **access == Access::ReadWrite);
        let ranges: Vec<_> = written.map(|(_, buffer)| recorder.output(buffer, 0, buffer.bytes())).collect();
        let bytes = recorder.submit()?.collect()?;
        Ok(ranges.into_iter().map(|range| bytes[range].to_vec()).collect())
    }

    /// The mutant of a variant, where this rig has one of its kernel: the linked text, changed, as a kernel without parts.
    fn mutated(&self, variant: &Variant) -> Result<Variant, Failure> {
        let Some(mutation) = self.mutation.filter(|mutation| mutation.kernel == variant.kernel.name) else {
            return Ok(variant.clone());
        };
        if let Some(mutant) = self.mutants.borrow().get(variant) {
            return Ok(mutant.clone());
        }
        let source = link(variant);
        let places = source.matches(mutation.from).count();
        if places != 1 {
            return Err(Failure::Broken(format!("{variant} holds {:?} {places} times, wanted once", mutation.from)));
        }
        let source = source.replace(mutation.from, mutation.to).leak();
        // Pipelines are known by their kernel's address, so the kernel lives as long as they do.
        let kernel = Box::leak(Box::new(Kernel { source, parts: &[], tunables: &[], ..*variant.kernel }));
        let mutant = kernel.variant(&[], Schedule::default());
        self.mutants.borrow_mut().insert(variant.clone(), mutant.clone());
        Ok(mutant)
    }

    /// Fails where `met` is further from the twin's than rounding explains.
    pub(super) fn compare(
        &self,
        what: impl Fn() -> String,
        tolerance: Tolerance,
        met: &[f32],
        want: &Wanted,
    ) -> Result<(), Failure> {
        self.checks.set(self.checks.get() + 1);
        let share = tolerance.check(met, want).map_err(|message| Failure::Differs(format!("{}: {message}", what())))?;
        let worst = &self.worst[usize::from(tolerance.storage_step > 0.0)];
        worst.set(worst.get().max(share));
        Ok(())
    }

    /// Compares the elements at `places`, in the order of `want`; all others must still be `untouched`.
    pub(super) fn compare_places(
        &self,
        what: impl Fn() -> String,
        tolerance: Tolerance,
        met: &[f32],
        (places, untouched): (&[usize], f32),
        want: &Wanted,
    ) -> Result<(), Failure> {
        let mut rest = met.to_vec();
        let chosen: Vec<f32> = places.iter().map(|&place| std::mem::replace(&mut rest[place], untouched)).collect();
        self.compare(&what, tolerance, &chosen, want)?;
        match rest.iter().position(|&value| value != untouched) {
            None => Ok(()),
            Some(at) => Err(Failure::Differs(format!("{}: element {at} was written: {}", what(), rest[at]))),
        }
    }

    /// Fails where `met` is not `want`, bit for bit.
    pub(super) fn same<T: PartialEq + std::fmt::Debug>(
        &self,
        what: impl Fn() -> String,
        met: &[T],
        want: &[T],
    ) -> Result<(), Failure> {
        self.checks.set(self.checks.get() + 1);
        assert_eq!(met.len(), want.len(), "{}: values met and wanted", what());
        match met.iter().zip(want).position(|(met, want)| met != want) {
            None => Ok(()),
            Some(at) => {
                let message =
                    format!("{}: element {at} of {}: met {:?}, wanted {:?}", what(), met.len(), met[at], want[at]);
                Err(Failure::Differs(message))
            }
        }
    }
}

/// A few of `all` that together have every value that some schedule has: the default first, then whichever brings the
/// most new values.
fn covering(all: Vec<Schedule>) -> Vec<Schedule> {
    let mut seen: Vec<(usize, u32)> = Vec::new();
    let mut chosen: Vec<Schedule> = Vec::new();
    loop {
        let new = |schedule: &Schedule| {
            schedule.values.iter().copied().enumerate().filter(|value| !seen.contains(value)).count()
        };
        let best = all.iter().rev().max_by_key(|schedule| new(schedule)).filter(|schedule| new(schedule) > 0);
        let Some(best) = best else { return chosen };
        seen.extend(best.values.iter().copied().enumerate());
        chosen.push(best.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raglan_shaders::ALL;

    #[test]
    fn every_value_of_every_tunable_is_in_a_covering_schedule() {
        for kernel in ALL {
            let is_attention = kernel.dims.last() == Some(&"word_values");
            let shapes = if is_attention {
                vec![vec![64, 64, 64, 8], vec![64, 64, 256, 16]]
            } else {
                vec![vec![64; kernel.dims.len()]]
            };
            for shape in shapes {
                let all = kernel.legal_schedules(&AdapterLimits::most(), &shape);
                let few = covering(all.clone());
                let values = |schedules: &[Schedule]| {
                    let mut values: Vec<(usize, u32)> =
                        schedules.iter().flat_map(|s| s.values.iter().copied().enumerate()).collect();
                    values.sort_unstable();
                    values.dedup();
                    values
                };
                assert_eq!(values(&few), values(&all), "{}", kernel.name);
                assert_eq!(few[0], all[0], "{}: the first is the default", kernel.name);
            }
        }
    }
}
