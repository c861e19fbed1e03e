//! Which schedule a kernel takes on this adapter.

use super::{MAX_WORKGROUPS, Numerics, Planner};
use crate::cost::AdapterClass;
use raglan_shaders::attention::{tile, vector};
use raglan_shaders::{Kernel, Schedule, matmul, matvec, move_rows};

/// How a matrix product runs.
#[derive(Debug, Clone)]
pub struct LinearChoice {
    /// `matvec`, `matmul` or `matmul_coop`.
    pub kernel: &'static Kernel,
    /// Its schedule.
    pub schedule: Schedule,
    /// Stretches of inner columns that each part of a split product sums; `None`: it is whole.
    pub split_blocks: Option<u32>,
}

impl LinearChoice {
    /// A product that is not split.
    pub fn whole(kernel: &'static Kernel, schedule: Schedule) -> LinearChoice {
        LinearChoice { kernel, schedule, split_blocks: None }
    }
}

impl Planner {
    /// The schedule of the tile form.
    pub fn tile_schedule(&self) -> Schedule {
        tile::KERNEL.schedule(&[("LANES", self.tile_lanes as u32), ("HEAD_STRIDE", self.shape.head_stride as u32)])
    }

    /// The schedule of the vector form.
    pub fn vector_schedule(&self) -> Schedule {
        let lanes = if self.class == AdapterClass::Software { 32 } else { 64 };
        vector::KERNEL.schedule(&[("LANES", lanes), ("HEAD_STRIDE", self.shape.head_stride as u32)])
    }

    /// The schedule of moves: barriers are dear on a software adapter, so it takes few lanes.
    pub fn move_schedule(&self) -> Schedule {
        match self.class {
            AdapterClass::Software => move_rows::KERNEL.schedule(&[("LANES", 32), ("TILE", 4)]),
            AdapterClass::Hardware => move_rows::KERNEL.default_schedule(),
        }
    }

    /// The schedule of a kernel with one workgroup a row of `cols` columns.
    pub fn row_schedule(&self, kernel: &'static Kernel, cols: usize) -> Schedule {
        let wanted = match self.class {
            AdapterClass::Software => 32,
            AdapterClass::Hardware => 256.min(cols.div_ceil(4).next_power_of_two()),
        };
        let lanes = kernel.tunables[0].values.iter().copied().min_by_key(|&lanes| lanes.abs_diff(wanted as u32));
        kernel.schedule(&[("LANES", lanes.expect("a tunable has values"))])
    }

    /// How `[rows, inner] · [cols, inner]ᵀ` runs on this adapter. A deterministic run takes one schedule for every number
    /// of rows, since another may sum in another order.
    pub fn linear(&self, rows: usize, cols: usize, inner: usize) -> LinearChoice {
        let rows = if self.shape.numerics == Numerics::Fast { rows } else { usize::MAX };
        match self.class {
            // Few tile heights, since a software adapter takes about a second to compile a large tile.
            AdapterClass::Software => {
                let (tile_m, tile_n) = match rows {
                    1 => (1, 4),
                    2..=4 => (4, 8),
                    _ => (8, 8),
                };
                let settings = [("LANES_M", 1), ("LANES_N", 32), ("TILE_M", tile_m), ("TILE_N", tile_n), ("STAGES", 0)];
                LinearChoice::whole(&matmul::KERNEL, matmul::KERNEL.schedule(&settings))
            }
            AdapterClass::Hardware if rows <= 8 && (rows <= 4 || cols.div_ceil(4) <= MAX_WORKGROUPS) => {
                let tile_m = (rows as u32).next_power_of_two();
                let lanes = if inner >= 4096 { 128 } else { 64 };
                // A vocabulary of over 262,140 would take more workgroups than a dispatch may have.
                let tile_n = if cols.div_ceil(4) > MAX_WORKGROUPS && tile_m <= 4 { 8 } else { 4 };
                let settings = [("LANES", lanes), ("TILE_M", tile_m), ("TILE_N", tile_n)];
                LinearChoice::whole(&matvec::KERNEL, matvec::KERNEL.schedule(&settings))
            }
            AdapterClass::Hardware => self.product(rows, cols, inner),
        }
    }
}
