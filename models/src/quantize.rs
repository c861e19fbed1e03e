//! Weights into group-wise integers: pure functions from floats to the blocks of [`Format`](crate::Format).

mod target;

pub use target::{Bits, QuantizeTo};
