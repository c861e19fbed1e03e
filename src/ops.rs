//! One file a kernel, its host half: check shapes, take the schedule, record one dispatch.

mod attention;
mod column_squares;
mod embedding;
mod gated_activation;
mod linear;
mod matmul;
mod move_rows;
mod rms_norm;
mod rope_append;
mod rotate_heads;
mod sampling;

pub use attention::Partials;
pub use linear::Product;
pub use rms_norm::Norm;
pub use rope_append::{QkNorm, RopeShape};

use crate::error::Error;
use crate::gpu::{Buffer, Gpu, Recorder};
use crate::plan::{Plan, Planner, TileForm};
use crate::schedules::AttentionChoice;
use raglan_models::Activation;
use raglan_shaders::attention::coop;
use raglan_shaders::{AdapterLimits, KvType, Part, Variant};

/// A matrix of activations on the GPU, its rows `stride` elements apart; padding columns hold zeros.
#[derive(Debug)]
pub struct Rows {
    /// `[rows, stride]`
    pub buffer: Buffer,
    /// Elements from one row to the next, a multiple of 32 for inputs of matrix products.
    pub stride: usize,
}

/// The parts that every kernel of a run links, by what the adapter offers and the user allows.
#[derive(Debug, Clone, Copy)]
pub struct Types {
    /// Inputs of matrix products and attention.
    pub act: Part,
    /// Keys and values, where a layer's type is not said.
    pub kv: KvType,
    /// Sums over a workgroup.
    pub reduce: Part,
    /// Sums over teams of lanes.
    pub team: Part,
    /// Cooperative matrices, for kernels that are chosen where the adapter has them.
    pub coop: Part,
}

/// In which type matrix products and attention take their inputs; the residual stream and every sum are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dtype {
    /// f16 where the adapter has it, else f32.
    #[default]
    F16,
    /// f32.
    F32,
}

impl Types {
    /// The types that `dtype` asks for, and subgroups where the adapter has them.
    pub fn of(gpu: &Gpu, dtype: Dtype) -> Types {
        Types::within(gpu.limits(), dtype)
    }

    /// The same for an adapter of such limits.
    pub fn within(limits: &AdapterLimits, dtype: Dtype) -> Types {
        let half = limits.shader_f16 && dtype == Dtype::F16;
        Types {
            act: if half { Part::ActF16 } else { Part::ActF32 },
            kv: if half { KvType::F16 } else { KvType::F32 },
            reduce: if limits.subgroups { Part::ReduceSubgroup } else { Part::ReduceShared },
            team: if limits.subgroups { Part::TeamSubgroup } else { Part::TeamShared },
            coop: if limits.coop_side == 8 { Part::Coop8 } else { Part::Coop16 },
        }
    }

    /// Attention over a cache of type `kv`, of many query rows as `tile` says.
    pub fn tile_variant(&self, tile: &TileForm, kv: KvType) -> Variant {
        let last = if std::ptr::eq(tile.kernel, &coop::KERNEL) { self.coop } else { self.team };
        tile.kernel.variant(&[self.act, Part::Kv(kv), last], tile.schedule.clone())
    }

    /// Attention over a cache of type `kv` as `choice` says.
    pub fn attention_variant(&self, choice: &AttentionChoice, kv: KvType) -> Variant {
        let last = if choice.is_coop() { self.coop } else { self.team };
        choice.kernel.variant(&[self.act, Part::Kv(kv), last], choice.schedule.clone())
    }

    /// Bytes of one activation.
    pub fn act_bytes(&self) -> usize {
        if self.act == Part::ActF16 { 2 } else { 4 }
    }
}

/// Bytes of what is bound where a kernel's input is absent.
pub const ABSENT_BYTES: u64 = 256;

/// What all steps share: types, schedules, and a buffer to bind where a kernel's input is absent.
#[derive(Debug)]
pub struct Kernels {
    /// Parts to link.
    pub types: Types,
    /// Schedules.
    pub planner: Planner,
    absent: Buffer,
    /// Parts of split products.
    partials: Buffer,
}

impl Kernels {
    /// # Errors
    /// If the adapter has no room for 256 bytes and the parts of split products.
    pub fn new(gpu: &Gpu, types: Types, planner: Planner) -> Result<Kernels, Error> {
        let planner = planner.with_inputs(types.act);
        let partials = gpu.buffer("parts of split products", planner.split_bytes())?;
        let absent = gpu.buffer("absent input", ABSENT_BYTES)?;
        Ok(Kernels { types, planner, absent, partials })
    }
}

/// Records the dispatches of one step. An op returns no `Result`: what goes wrong comes from `submit` and `collect`.
pub struct Ops<'a> {
    /// Where they go.
    pub recorder: Recorder<'a>,
    /// Types and schedules.
    pub kernels: &'a Kernels,
    /// This step's work items.
    pub plan: &'a Plan,
}

/// An activation as the kernels' immediates name it.
fn activation_number(activation: Activation) -> u32 {
    match activation {
        Activation::Silu => 0,
        Activation::GeluTanh => 1,
    }
}
