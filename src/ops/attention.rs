use super::{Ops, RopeShape, Rows};
use crate::gpu::Buffer;
use crate::kv_cache::KvLayer;
use raglan_shaders::attention::merge::{self, AttentionMergeParams};
use raglan_shaders::attention::{AttentionParams, tile, vector};

/// This step's work items and the memory for partial results.
#[derive(Debug)]
pub struct Partials {
    /// `[items]` of all windows.
    pub items: Buffer,
    /// `[merges]` of all windows.
    pub merges: Buffer,
    /// `[partials, head_stride]` in f32.
    pub sums: Buffer,
    /// `[partials]` of (maximum, sum of weights).
    pub weights: Buffer,
}

impl Ops<'_> {
    /// Causal attention of every query row over its sequence's keys: `[tokens, num_heads, head_stride]` →
    /// `[tokens, num_heads * head_dim]`. `window` counts in the planner's list.
    pub fn attention(
        &mut self,
        q: &Rows,
        (kv, slots): (&KvLayer, usize),
        shape: &RopeShape,
        (window, window_len): (usize, Option<usize>),
        partials: &Partials,
        out: &Rows,
    ) {
        let types = self.kernels.types;
        let group = shape.num_heads / shape.num_kv_heads;
        let window_plan = &self.plan.windows[window];
        let params = AttentionParams {
            num_heads: shape.num_heads as u32,
            group: group as u32,
            head_dim: shape.head_dim as u32,
            slots: slots as u32,
            window: window_len.unwrap_or(0) as u32,
            scale_log2: (std::f64::consts::LOG2_E / (shape.head_dim as f64).sqrt()) as f32,
            out_stride: out.stride as u32,
            first_item: 0,
        };
        let buffers =
            [&q.buffer, &kv.k, &kv.v, &partials.items, &out.buffer, &partials.sums, &partials.weights].map(Into::into);
        let planner = &self.kernels.planner;
        if !window_plan.vector.is_empty() {
            let params = AttentionParams { first_item: window_plan.vector.start as u32, ..params };
            let variant = vector::KERNEL.variant(&[types.act, types.kv, types.reduce], planner.vector_schedule());
            let tiles = window_plan.vector_packed_rows.div_ceil(vector::PACKED_ROWS as usize);
            let workgroups = [window_plan.vector.len() as u32, tiles as u32, 1];
            self.recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), workgroups);
        }
        if !window_plan.tile.is_empty() {
            let params = AttentionParams { first_item: window_plan.tile.start as u32, ..params };
            let variant = tile::KERNEL.variant(&[types.act, types.kv], planner.tile_schedule());
            let lanes = tile::KERNEL.value(&variant.schedule, "LANES") as usize;
            let workgroups = [window_plan.tile.len() as u32, window_plan.tile_packed_rows.div_ceil(lanes) as u32, 1];
            self.recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), workgroups);
        }
        if !window_plan.merges.is_empty() {
            let params = AttentionMergeParams {
                group: group as u32,
                head_dim: shape.head_dim as u32,
                head_stride: shape.head_stride as u32,
                out_stride: out.stride as u32,
                first_merge: window_plan.merges.start as u32,
            };
            let variant = merge::KERNEL.variant(&[types.act], merge::KERNEL.default_schedule());
            let buffers = [&partials.merges, &partials.sums, &partials.weights, &out.buffer].map(Into::into);
            let workgroups = [window_plan.merges.len() as u32, window_plan.merge_packed_rows as u32, 1];
            self.recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), workgroups);
        }
    }
}
