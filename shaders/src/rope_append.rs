//! `rope_append.wgsl`: norm a head, RoPE, and the append to the KV cache.

use crate::kernel::{Access, Kernel, Tunable};
use crate::layout::gpu_struct;
use crate::link::wgsl;
use crate::{GpuStruct, PartKind};

gpu_struct! {
    /// Immediates of `rope_append.wgsl`.
    pub struct RopeAppendParams {
        /// Query heads.
        pub num_heads: u32,
        /// Key and value heads.
        pub num_kv_heads: u32,
        /// Columns of a head.
        pub head_dim: u32,
        /// Columns that turn; 0 in a layer without RoPE.
        pub rotary_dim: u32,
        /// From one row of qkv to the next.
        pub qkv_stride: u32,
        /// Where keys start in a row of qkv.
        pub k_col: u32,
        /// Where values start in a row of qkv.
        pub v_col: u32,
        /// From one head to the next in q, from one slot to the next in k and v.
        pub head_stride: u32,
        /// Slots of a head's plane in k and v.
        pub slots: u32,
        /// 1 to norm queries and keys.
        pub norm: u32,
        /// Added to the mean square.
        pub eps: f32,
        /// Columns that are rotated together, by [`crate::rotation`], where the type of keys and values wants it; 0 or 1:
        /// none.
        pub rotation: u32,
    }
}

/// Positions to a row of the high table.
pub const LOW_POSITIONS: usize = 1024;

/// Shape: `[tokens, heads of all three kinds, head_dim]`. Workgroups: tokens × heads.
///
/// A head of 128 columns that is quantised takes four columns of each of 32 lanes, two reductions at most, and where it is rotated
/// seven rounds of two sums a lane in workgroup memory: next to nothing beside the products of its token.
pub static KERNEL: Kernel = Kernel {
    name: "rope_append",
    source: wgsl!("parts/rotate", "rope_append"),
    parts: &[PartKind::Act, PartKind::Kv, PartKind::Reduce],
    bindings: &[
        Access::Read,
        Access::Read,
        Access::Read,
        Access::Read,
        Access::Read,
        Access::ReadWrite,
        Access::ReadWrite,
        Access::ReadWrite,
        Access::ReadWrite,
        Access::Read,
    ],
    immediates: RopeAppendParams::LAYOUT,
    structs: &[],
    tunables: &[Tunable { name: "LANES", values: &[32, 64] }],
    dims: &["tokens", "heads", "head_dim"],
    legal: |limits, shape, schedule| {
        schedule.values[0] <= limits.max_workgroup_lanes
            && shape[0] <= limits.max_workgroups
            && shape[1] <= limits.max_workgroups
    },
};

/// cos and sin of `position * inv_freq[i]` as the kernel's table: a row for each of the positions 0..1024, times `factor`,
/// then one for every 1024th position up to `positions`. Each row `[inv_freq.len()]`.
pub fn table(inv_freq: &[f64], factor: f64, positions: usize) -> Vec<[f32; 2]> {
    let row = |position: usize, scale: f64| {
        inv_freq.iter().map(move |f| {
            let (sin, cos) = (position as f64 * f).sin_cos();
            [(cos * scale) as f32, (sin * scale) as f32]
        })
    };
    let low = (0..LOW_POSITIONS).flat_map(|p| row(p, factor));
    let high = (0..table_rows(positions) - LOW_POSITIONS).flat_map(|p| row(p * LOW_POSITIONS, 1.0));
    low.chain(high).collect()
}

/// Rows of the kernel's table for so many positions.
pub fn table_rows(positions: usize) -> usize {
    LOW_POSITIONS + positions.div_ceil(LOW_POSITIONS).max(1)
}

/// The CPU twin on one head's columns: norm where `norm` is not empty, then RoPE at `position` over the first
/// `2 * inv_freq.len()` columns.
pub fn twin(
    params: &RopeAppendParams,
    x: &[f64],
    norm: &[f64],
    inv_freq: &[f64],
    factor: f64,
    position: u32,
) -> Vec<f64> {
    let mut x = x.to_vec();
    if !norm.is_empty() {
        let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (mean + f64::from(params.eps)).sqrt();
        x.iter_mut().zip(norm).for_each(|(v, w)| *v *= scale * w);
    }
    let half = inv_freq.len();
    for (i, f) in inv_freq.iter().enumerate() {
        let (sin, cos) = (f64::from(position) * f).sin_cos();
        let (first, second) = (x[i], x[i + half]);
        x[i] = factor * (first * cos - second * sin);
        x[i + half] = factor * (second * cos + first * sin);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel makes of the table, in f32: the addition theorem.
    fn turn(table: &[[f32; 2]], pairs: usize, pair: usize, position: usize) -> [f32; 2] {
        let low = table[position % LOW_POSITIONS * pairs + pair];
        let high = table[(LOW_POSITIONS + position / LOW_POSITIONS) * pairs + pair];
        [low[0] * high[0] - low[1] * high[1], low[0] * high[1] + low[1] * high[0]]
    }

    #[test]
    fn positions_beyond_a_million_turn_as_exactly_as_the_first() {
        const POSITIONS: usize = (1 << 22) + 1;
        for (theta, dim) in [(1e4f64, 128), (5e5, 128), (1e6, 64), (1e7, 16)] {
            let pairs = dim / 2;
            let inv_freq: Vec<f64> = (0..pairs).map(|i| theta.powf(-2.0 * i as f64 / dim as f64)).collect();
            let table = table(&inv_freq, 1.0, POSITIONS);
            assert_eq!(table.len(), table_rows(POSITIONS) * pairs);
            let near = |power: u32| (1usize << power) - 3..=(1usize << power) + 3;
            let places = [0..=5, 1021..=1027].into_iter().chain([17, 18, 20, 21].map(near)).flatten();
            for position in places.chain([1_000_003, 2_796_203, POSITIONS - 1]) {
                for (pair, freq) in inv_freq.iter().enumerate() {
                    let (sin, cos) = (position as f64 * freq).sin_cos();
                    let met = turn(&table, pairs, pair, position);
                    // Four numbers rounded to f32, two products and their sum: each within half a step of 1.
                    let allowed = f64::from(f32::EPSILON) / 2.0 * (4.0 + 2.0 + 1.0);
                    for (met, wanted) in met.into_iter().zip([cos, sin]) {
                        let error = (f64::from(met) - wanted).abs();
                        assert!(error < allowed, "theta {theta}, position {position}, pair {pair}: {met} for {wanted}");
                    }
                }
            }
        }
    }
}
