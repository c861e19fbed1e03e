//! How a product of many rows runs: which kernel, which schedule, and over how many splits of its inner columns.

use super::{Numerics, Planner};
use crate::cost::AdapterClass;
use crate::schedules::{LinearChoice, linear};
use raglan_shaders::{BLOCK, Kernel, Part, Schedule, matmul, matmul_coop};
use raglan_tuner::Cost;

/// Bytes that the parts of a split product take at most.
const SPLIT_BYTES: u64 = 8 << 20;

/// Bytes that they may take on such an adapter in such a run: none where no product is split.
pub fn split_bytes(class: AdapterClass, numerics: Numerics) -> u64 {
    if class == AdapterClass::Hardware && numerics == Numerics::Fast { SPLIT_BYTES } else { 0 }
}

/// A schedule for products of so many rows or more.
struct Candidate {
    rows: usize,
    settings: &'static [(&'static str, u32)],
    /// Its rate on whole tiles as a share of the widest one's: what a workgroup reads for an output grows as its tile shrinks.
    rate: f64,
}

const fn candidate(rows: usize, rate: f64, settings: &'static [(&'static str, u32)]) -> Candidate {
    Candidate { rows, settings, rate }
}

/// Of `matmul`: its staged forms. 8 × 8 outputs a lane take two 16-byte loads from workgroup memory to 32 multiply-adds.
const PLAIN: &[Candidate] = &[
    candidate(65, 1.0, &[("LANES_M", 16), ("TILE_M", 8), ("TILE_N", 8)]),
    candidate(33, 0.8, &[("TILE_M", 8), ("TILE_N", 8), ("STAGES", 2)]),
    candidate(17, 0.6, &[("LANES_N", 16), ("TILE_M", 4), ("TILE_N", 4)]),
    candidate(9, 0.4, &[("LANES_N", 32), ("TILE_M", 2), ("TILE_N", 4)]),
    // What every adapter has room for.
    candidate(0, 0.4, &[]),
];

/// Of `matmul_coop`. A subgroup of 64 × 64 reads 1 byte of workgroup memory for 32 operations and keeps 128 sums a lane of
/// 32; few rows are bound by reading the weights, so their stages are deep and their tiles wide: 16 KiB of f16 on the way.
const COOP: &[Candidate] = &[
    candidate(65, 1.0, &[]),
    candidate(65, 0.6, &[("TILE_M", 32), ("TILE_N", 32)]),
    candidate(33, 0.6, &[("SUBGROUPS_M", 1), ("SUBGROUPS_N", 4), ("TILE_M", 64), ("TILE_N", 32)]),
    candidate(33, 0.5, &[("SUBGROUPS_N", 4), ("TILE_M", 32), ("TILE_N", 16)]),
    candidate(
        17,
        0.5,
        &[("SUBGROUPS_M", 1), ("SUBGROUPS_N", 4), ("TILE_M", 32), ("TILE_N", 32), ("DEPTH", 64), ("STAGES", 1)],
    ),
    candidate(17, 0.4, &[("SUBGROUPS_M", 1), ("SUBGROUPS_N", 4), ("TILE_M", 32), ("TILE_N", 16)]),
    candidate(
        0,
        0.4,
        &[("SUBGROUPS_M", 1), ("SUBGROUPS_N", 4), ("TILE_M", 16), ("TILE_N", 32), ("DEPTH", 64), ("STAGES", 1)],
    ),
    candidate(0, 0.3, &[("SUBGROUPS_M", 1), ("SUBGROUPS_N", 4), ("TILE_M", 16), ("TILE_N", 16)]),
    candidate(0, 0.2, &[("SUBGROUPS_M", 1), ("SUBGROUPS_N", 2), ("TILE_M", 16), ("TILE_N", 16)]),
];

impl Planner {
    /// Bytes that the parts of a split product may take; none where no product is split.
    pub fn split_bytes(&self) -> u64 {
        self.terms.split_bytes
    }

    /// How many rows times a matrix run on a hardware adapter: the legal schedule and the splits with the least predicted
    /// time. It depends on the next power of two of `rows` alone, so that powers of two show all that a run will take. A
    /// deterministic run takes one schedule whatever `rows` is, and never splits.
    pub(super) fn product(&self, rows: usize, cols: usize, inner: usize) -> LinearChoice {
        let is_fast = self.shape.numerics == Numerics::Fast;
        let rows = if is_fast { rows.next_power_of_two() } else { usize::MAX };
        let shape = [rows, cols, inner].map(|size| size.min(u16::MAX.into()) as u32);
        let coop = self.coop(rows, &shape);
        let candidates = if coop.is_empty() { self.plain(rows, &shape) } else { coop };
        let mut best: Option<(f64, LinearChoice)> = None;
        for (kernel, schedule, rate) in candidates {
            if !is_fast {
                return LinearChoice::whole(kernel, schedule);
            }
            for splits in [1, 2, 4, 8] {
                let Some(choice) = self.split(kernel, &schedule, [rows, cols, inner], splits) else { continue };
                let us = self.product_us(&choice, [rows, cols, inner], rate);
                if best.as_ref().is_none_or(|(least, _)| us < *least) {
                    best = Some((us, choice));
                }
            }
        }
        best.expect("a default schedule is legal on every adapter, whole").1
    }

    /// Legal schedules in cooperative matrices, none where the adapter has none or inputs are f32.
    fn coop(&self, rows: usize, shape: &[u32]) -> Vec<(&'static Kernel, Schedule, f64)> {
        let lanes = self.terms.limits.max_subgroup_lanes;
        if self.terms.limits.coop_side == 0
            || self.terms.limits.min_subgroup_lanes != lanes
            || self.terms.act != Part::ActF16
        {
            return Vec::new();
        }
        if !matmul_coop::KERNEL.tunables[0].values.contains(&lanes) {
            return Vec::new();
        }
        self.legal(&matmul_coop::KERNEL, COOP, &[("SUBGROUP_LANES", lanes)], rows, shape)
    }

    fn plain(&self, rows: usize, shape: &[u32]) -> Vec<(&'static Kernel, Schedule, f64)> {
        self.legal(&matmul::KERNEL, PLAIN, &[], rows, shape)
    }

    /// The legal schedules among `candidates` for the most rows that `rows` reaches.
    fn legal(
        &self,
        kernel: &'static Kernel,
        candidates: &[Candidate],
        common: &[(&str, u32)],
        rows: usize,
        shape: &[u32],
    ) -> Vec<(&'static Kernel, Schedule, f64)> {
        let mut found: Vec<(&'static Kernel, Schedule, f64)> = Vec::new();
        let mut least_rows = 0;
        for candidate in candidates.iter().filter(|candidate| candidate.rows <= rows) {
            if !found.is_empty() && candidate.rows < least_rows {
                break;
            }
            let schedule = kernel.schedule(&[common, candidate.settings].concat());
            if (kernel.legal)(&self.terms.limits, shape, &schedule) {
                found.push((kernel, schedule, candidate.rate));
                least_rows = candidate.rows;
            }
        }
        found
    }

    /// A product in `splits` parts, or `None` where that does not pay or has no room.
    fn split(
        &self,
        kernel: &'static Kernel,
        schedule: &Schedule,
        shape: [usize; 3],
        splits: u32,
    ) -> Option<LinearChoice> {
        let whole = LinearChoice { splits, ..LinearChoice::whole(kernel, schedule.clone()) };
        linear::has_room(&whole, shape, &self.terms).then_some(whole)
    }

    /// Predicted time in microseconds; the constants have to rank choices alone.
    fn product_us(&self, choice: &LinearChoice, shape: [usize; 3], rate: f64) -> f64 {
        let [rows, cols, inner] = shape;
        let model = self.terms.class.wave_model();
        let is_coop = std::ptr::eq(choice.kernel, &matmul_coop::KERNEL);
        let group = if is_coop { matmul_coop::group } else { matmul::group };
        let [group_m, group_n] = group(&choice.schedule).map(|side| side as usize);
        let (tiles_m, tiles_n) = (rows.div_ceil(group_m), cols.div_ceil(group_n));
        let splits = choice.split_blocks(inner).map_or(1, |blocks| inner.div_ceil(BLOCK).div_ceil(blocks as usize));
        let main = Cost {
            bytes: (2 * cols * inner) as f64,
            flops: 2.0 * (tiles_m * group_m) as f64 * (tiles_n * group_n) as f64 * inner as f64 / rate,
            workgroups: (tiles_m * tiles_n * splits) as f64,
            workgroup_bytes: 0.0,
        };
        let parts_bytes = 2.0 * (splits * rows * cols * 4) as f64;
        let rest_us = if splits > 1 { model.launch_us + parts_bytes / model.bytes_per_us } else { 0.0 };
        model.predict_us(&main) + rest_us
    }
}
