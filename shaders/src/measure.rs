//! Kernels that measure what an adapter can do: how fast it reads, copies and multiplies. No model runs them.

pub mod copy;
pub mod dot;
pub mod matrix;
pub mod multiply;
pub mod read;
