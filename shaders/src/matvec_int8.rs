//! `matvec_int8.wgsl`: a few rows, in 8 bits, times a weight matrix of a block format.

use crate::kernel::Kernel;
use crate::link::wgsl;
use crate::matvec::{BINDINGS, MatvecParams, TUNABLES, legal};
use crate::tolerance::accuracy;
use crate::{GpuStruct, PartKind};

/// Shape: `[rows, cols, inner]`; workgroups are those of [`crate::matvec`].
pub static KERNEL: Kernel = Kernel {
    name: "matvec_int8",
    source: wgsl!("parts/matvec_forms", "matvec_int8"),
    parts: &[PartKind::Quants, PartKind::Act, PartKind::Input, PartKind::Reduce, PartKind::Epilogue],
    bindings: BINDINGS,
    immediates: MatvecParams::LAYOUT,
    structs: &[],
    tunables: TUNABLES,
    dims: &["rows", "cols", "inner"],
    legal: |limits, shape, schedule| {
        let [_, tile_m, tile_n, unroll] = schedule.values[..] else { return false };
        // Every unit in flight is code of its own for each sum, whose quants differ by group.
        legal(limits, shape, schedule, 32) && tile_m * tile_n * unroll <= 32
    },
};

/// The CPU twin of what becomes of a row of x: every `group` neighbouring values are rounded to whole 127ths of the largest.
///
/// Returns the rounded values, and how far each may be from that on an adapter: a whole 127th where x lies so near to the
/// middle of two that the errors of a product, a quotient and another product reach it, else nothing.
pub fn twin(x: &[f64], group: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut rounded, mut ties) = (Vec::with_capacity(x.len()), Vec::with_capacity(x.len()));
    for values in x.chunks(group) {
        let largest = values.iter().fold(0.0f64, |most, value| most.max(value.abs()));
        let step = largest / 127.0;
        for value in values {
            let places = if largest > 1e-30 { value / step } else { 0.0 };
            // A quotient is exact to 2.5 steps, the products on either side and the largest value to half a step each.
            let error = places.abs() * 4.0 * accuracy::STEP;
            rounded.push(places.round_ties_even() * step);
            ties.push(if (places - places.floor() - 0.5).abs() <= error { step } else { 0.0 });
        }
    }
    (rounded, ties)
}
