//! raglan's kernels as plain WGSL files, and all that is true of them without a GPU: what they link, which schedules are
//! legal, how their parameters lie in memory, and a CPU twin in f64 that says what each must compute.
//!
//! A kernel is a `.wgsl` file beside a `.rs` file; [`ALL`] lists them. [`link`] joins a kernel with the parts that fit a
//! weight format and an adapter, and writes the schedule into its constants.

mod cost;
mod hash;
mod kernel;
mod kv_type;
mod layout;
mod link;
mod parts;
mod tolerance;
mod unroll;
mod weight_format;
mod work;

pub mod adjust_logits;
pub mod argmax;
pub mod attention;
pub mod column_squares;
pub mod cross_entropy;
pub mod embedding;
pub mod gated_activation;
pub mod kv_rows;
pub mod linear;
pub mod matmul;
pub mod matmul_coop;
pub mod matvec;
pub mod matvec_int8;
pub mod measure;
pub mod move_rows;
pub mod random_weights;
pub mod rms_norm;
pub mod rope_append;
pub mod rotate_heads;
pub mod split_sum;
pub mod top_k;

pub use cost::DispatchCost;
pub use hash::kernel_hash;
pub use kernel::{Access, AdapterLimits, Kernel, Schedule, Tunable, Variant};
pub use kv_type::{KvType, rotation};
pub use layout::{AsScalar, Field, GpuStruct, Scalar, StructLayout};
pub use link::{link, module};
pub use parts::{Part, PartKind};
pub use tolerance::{Tolerance, Wanted, accuracy};
pub use unroll::unroll;
pub use weight_format::WeightFormat;
pub use work::{Heads, Work};

/// Every kernel, in the order in which a token meets them.
pub static ALL: &[&Kernel] = &[
    &move_rows::KERNEL,
    &embedding::KERNEL,
    &rms_norm::KERNEL,
    &matvec::KERNEL,
    &matvec_int8::KERNEL,
    &matmul::KERNEL,
    &matmul_coop::KERNEL,
    &split_sum::KERNEL,
    &rope_append::KERNEL,
    &attention::vector::KERNEL,
    &attention::tile::KERNEL,
    &attention::coop::KERNEL,
    &attention::merge::KERNEL,
    &rotate_heads::KERNEL,
    &gated_activation::KERNEL,
    &column_squares::KERNEL,
    &adjust_logits::KERNEL,
    &argmax::KERNEL,
    &top_k::KERNEL,
    &cross_entropy::KERNEL,
    &random_weights::KERNEL,
    &measure::read::KERNEL,
    &measure::copy::KERNEL,
    &measure::multiply::KERNEL,
    &measure::dot::KERNEL,
    &measure::matrix::KERNEL,
];

/// Values in one decoded stretch of a weight row; rows of weights and of matmul inputs are padded with zeros to whole blocks.
pub const BLOCK: usize = 32;

/// `value` rounded up to a multiple of `step`.
pub const fn round_up(value: usize, step: usize) -> usize {
    value.div_ceil(step) * step
}
