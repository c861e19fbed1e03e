//! What a layer's matrices are multiplied by, summed over the tokens that pass: by how much the error of each column counts.

use crate::error::Error;
use crate::gpu::{Buffer, Gpu};
use crate::ops::{Ops, Rows};
use raglan_models::ModelSpec;
use raglan_shaders::{BLOCK, round_up};

/// Inputs of a layer's products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    /// Of q, k and v: the normed residual.
    Qkv,
    /// Of o: attention's output.
    O,
    /// Of gate and up: the normed residual.
    GateUp,
    /// Of down: what the MLP made.
    Down,
}

impl Watched {
    /// Every one, in the order of a layer.
    pub const ALL: [Watched; 4] = [Watched::Qkv, Watched::O, Watched::GateUp, Watched::Down];
}

/// Sums of squares on the adapter.
#[derive(Debug)]
pub struct Watch {
    sums: Buffer,
    /// Columns of each input.
    cols: [usize; 4],
}

impl Watch {
    /// All sums zero.
    ///
    /// # Errors
    /// If the adapter has no room.
    pub fn new(gpu: &Gpu, spec: &ModelSpec) -> Result<Watch, Error> {
        let heads = spec.num_attention_heads * spec.head_dim;
        let cols = [spec.hidden_size, heads, spec.hidden_size, spec.intermediate_size];
        let bytes = 4 * spec.layers.len() * cols.map(|cols| round_up(cols, BLOCK)).iter().sum::<usize>();
        Ok(Watch { sums: gpu.buffer("sums of squares", bytes as u64)?, cols })
    }

    /// Where the sums of an input begin.
    fn first(&self, layer: usize, watched: Watched) -> usize {
        let padded = self.cols.map(|cols| round_up(cols, BLOCK));
        layer * padded.iter().sum::<usize>() + padded[..watched as usize].iter().sum::<usize>()
    }

    /// Adds the squares of `rows` of an input.
    pub(super) fn add(&self, ops: &mut Ops<'_>, layer: usize, watched: Watched, x: &Rows, rows: usize) {
        ops.column_squares(x, rows, &self.sums, self.first(layer, watched));
    }

    /// The sums of an input's columns.
    ///
    /// # Errors
    /// If the adapter was lost.
    pub fn read(&self, gpu: &Gpu, layer: usize, watched: Watched) -> Result<Vec<f32>, Error> {
        let bytes = 4 * self.cols[watched as usize] as u64;
        Ok(bytemuck::pod_collect_to_vec(&gpu.read(&self.sums, 4 * self.first(layer, watched) as u64, bytes)?))
    }
}
