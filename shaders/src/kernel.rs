//! A kernel as data, and a variant of it: the kernel with its parts and its schedule chosen.

use crate::{Part, PartKind, StructLayout};
use smallvec::SmallVec;
use std::hash::{Hash, Hasher};

/// One compute shader and what the host must know of it.
pub struct Kernel {
    /// The file's name and the entry point's.
    pub name: &'static str,
    /// The WGSL file, after those that it shares with other kernels, with the default schedule in its constants.
    pub source: &'static str,
    /// One part of each of these kinds is linked in.
    pub parts: &'static [PartKind],
    /// How each binding of group 0 is used, by binding number.
    pub bindings: &'static [Access],
    /// The immediates of a dispatch.
    pub immediates: StructLayout,
    /// The structs that its storage buffers hold.
    pub structs: &'static [StructLayout],
    /// The open constants that a schedule sets, in the order of [`Schedule::values`].
    pub tunables: &'static [Tunable],
    /// What `shape` means, in words of the field: `["rows", "cols"]`.
    pub dims: &'static [&'static str],
    /// Whether a schedule may run on such an adapter for such a shape. Its values are from the tunables' lists.
    pub legal: fn(&AdapterLimits, shape: &[u32], &Schedule) -> bool,
}

/// How a kernel uses a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    ReadWrite,
}

/// An open constant of a kernel: a line `const NAME: u32 = …;` that linking rewrites.
#[derive(Debug, Clone, Copy)]
pub struct Tunable {
    /// The constant's name.
    pub name: &'static str,
    /// Every value it may take; the first is the default.
    pub values: &'static [u32],
}

/// A value for each tunable of a kernel, in the kernel's order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Schedule {
    /// One value a tunable.
    pub values: SmallVec<[u32; 8]>,
}

/// What an adapter allows, as far as legality depends on it; units end the names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterLimits {
    /// Lanes of one workgroup.
    pub max_workgroup_lanes: u32,
    /// `var<workgroup>` memory of one workgroup.
    pub max_workgroup_bytes: u32,
    /// Workgroups along one dimension of a dispatch.
    pub max_workgroups: u32,
    /// One storage binding.
    pub max_binding_bytes: u64,
    /// Whether WGSL's `f16` is there.
    pub shader_f16: bool,
    /// Whether subgroup operations are there.
    pub subgroups: bool,
    /// The smallest subgroup that a kernel may meet.
    pub min_subgroup_lanes: u32,
    /// The largest.
    pub max_subgroup_lanes: u32,
    /// The side of its cooperative matrices, f16 in and f32 out: 16, 8, or 0 where there are none.
    pub coop_side: u32,
}

/// A kernel with its parts and schedule chosen: the key of a pipeline.
#[derive(Clone)]
pub struct Variant {
    /// The kernel.
    pub kernel: &'static Kernel,
    /// One part for each of `kernel.parts`, in that order.
    pub parts: SmallVec<[Part; 5]>,
    /// The schedule.
    pub schedule: Schedule,
}

impl Kernel {
    /// The first value of every tunable.
    pub fn default_schedule(&self) -> Schedule {
        Schedule { values: self.tunables.iter().map(|tunable| tunable.values[0]).collect() }
    }

    /// The default schedule with some tunables set.
    ///
    /// # Panics
    /// If the kernel has no such tunable, or the tunable has no such value.
    pub fn schedule(&self, settings: &[(&str, u32)]) -> Schedule {
        let mut schedule = self.default_schedule();
        for &(name, value) in settings {
            let index = self.index_of(name);
            assert!(self.tunables[index].values.contains(&value), "{}: {name} = {value} is not in its list", self.name);
            schedule.values[index] = value;
        }
        schedule
    }

    /// The value that `schedule` gives to the tunable `name`.
    ///
    /// # Panics
    /// If the kernel has no such tunable.
    pub fn value(&self, schedule: &Schedule, name: &str) -> u32 {
        schedule.values[self.index_of(name)]
    }

    fn index_of(&self, name: &str) -> usize {
        let found = self.tunables.iter().position(|tunable| tunable.name == name);
        found.unwrap_or_else(|| panic!("{} has no tunable {name}", self.name))
    }

    /// Every combination of tunables that is legal for `shape` on such an adapter.
    pub fn legal_schedules(&self, limits: &AdapterLimits, shape: &[u32]) -> Vec<Schedule> {
        let mut all = vec![Schedule::default()];
        for tunable in self.tunables {
            all = all
                .into_iter()
                .flat_map(|schedule| {
                    tunable.values.iter().map(move |&value| {
                        let mut longer = schedule.clone();
                        longer.values.push(value);
                        longer
                    })
                })
                .collect();
        }
        all.retain(|schedule| (self.legal)(limits, shape, schedule));
        all
    }

    /// This kernel with `parts` and `schedule`.
    ///
    /// # Panics
    /// If `parts` are not of the kernel's kinds, in its order, or the schedule has another length.
    pub fn variant(&'static self, parts: &[Part], schedule: Schedule) -> Variant {
        assert!(
            parts.len() == self.parts.len() && parts.iter().zip(self.parts).all(|(part, &kind)| part.is(kind)),
            "{} links {:?}, got {parts:?}",
            self.name,
            self.parts
        );
        assert_eq!(schedule.values.len(), self.tunables.len(), "{}: values of the schedule", self.name);
        Variant { kernel: self, parts: SmallVec::from_slice(parts), schedule }
    }
}

impl AdapterLimits {
    /// The least that a kernel may count on: WebGPU's default limits, no optional feature.
    pub const fn least() -> Self {
        AdapterLimits {
            max_workgroup_lanes: 256,
            max_workgroup_bytes: 16 << 10,
            max_workgroups: 65_535,
            max_binding_bytes: 128 << 20,
            shader_f16: false,
            subgroups: false,
            min_subgroup_lanes: 1,
            max_subgroup_lanes: 1,
            coop_side: 0,
        }
    }

    /// Limits of a large GPU with every feature: the widest space of schedules.
    pub const fn most() -> Self {
        AdapterLimits {
            max_workgroup_lanes: 1024,
            max_workgroup_bytes: 48 << 10,
            max_workgroups: 65_535,
            max_binding_bytes: (2 << 30) - 4,
            shader_f16: true,
            subgroups: true,
            min_subgroup_lanes: 32,
            max_subgroup_lanes: 32,
            coop_side: 16,
        }
    }
}

/// A kernel is equal to itself alone.
impl PartialEq for Kernel {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Kernel {}

impl PartialEq for Variant {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.kernel, other.kernel) && self.parts == other.parts && self.schedule == other.schedule
    }
}

impl Eq for Variant {}

impl Hash for Variant {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::ptr::hash(self.kernel, state);
        self.parts.hash(state);
        self.schedule.hash(state);
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// `matmul[weight_q4_1, act_f16] LANES_N=64 …`: how logs and errors name a variant.
impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<_> = self.parts.iter().map(|part| part.name()).collect();
        write!(f, "{}[{}]", self.kernel.name, parts.join(", "))?;
        for (tunable, value) in self.kernel.tunables.iter().zip(&self.schedule.values) {
            write!(f, " {}={value}", tunable.name)?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}
