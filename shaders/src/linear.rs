//! Products of a few or many rows with a weight matrix: what their kernels share.

use crate::WeightFormat;
use crate::layout::gpu_struct;

gpu_struct! {
    /// Immediates of every form.
    pub struct LinearParams {
        /// Rows of x and out.
        pub rows: u32,
        /// Columns of out in this binding.
        pub cols: u32,
        /// Stretches of 32 columns of x.
        pub blocks: u32,
        /// 16-byte words from one weight row to the next.
        pub weight_row_quads: u32,
        /// File blocks of a weight row.
        pub weight_blocks: u32,
        /// Where this binding's columns start in out and bias.
        pub first_col: u32,
        /// From one row of out to the next.
        pub out_stride: u32,
        /// 1 to add the bias.
        pub bias: u32,
        /// Plain epilogue: 1 to add to what out holds.
        pub add: u32,
        /// Gated epilogue: 0 for SiLU, 1 for GELU's tanh form.
        pub activation: u32,
    }
}

/// A product as far as what it costs depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// Rows of x and out.
    pub rows: usize,
    /// Columns of out.
    pub cols: usize,
    /// Columns of x and of the weights.
    pub inner: usize,
    /// How the weights are stored.
    pub format: WeightFormat,
    /// Bytes of a number of x, where it is not normed on the way.
    pub act_bytes: usize,
    /// Whether pairs of columns are joined to one.
    pub gated: bool,
    /// Parts of the inner columns that are summed apart.
    pub splits: usize,
}

/// The CPU twin of every form with the plain epilogue: out = x · weightᵀ + bias.
///
/// - `x`: `[rows, inner]`, `weight`: `[cols, inner]`, decoded; `bias`: `[cols]` or empty
/// - returns `[rows, cols]`
pub fn twin(x: &[f64], weight: &[f64], bias: &[f64], inner: usize) -> Vec<f64> {
    let mut out = Vec::with_capacity(x.len() / inner * (weight.len() / inner));
    for row in x.chunks_exact(inner) {
        for (col, weights) in weight.chunks_exact(inner).enumerate() {
            let sum: f64 = row.iter().zip(weights).map(|(a, b)| a * b).sum();
            out.push(sum + bias.get(col).copied().unwrap_or(0.0));
        }
    }
    out
}
