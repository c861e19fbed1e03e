use super::{Ops, RopeShape, Rows};
use crate::gpu::Buffer;
use crate::kv_cache::KvLayer;
use raglan_shaders::attention::merge::{self, AttentionMergeParams};
use raglan_shaders::attention::{AttentionParams, vector};
use raglan_shaders::{Heads, Part, Work};

/// This step's work items and the memory for partial results.
#[derive(Debug)]
pub struct Partials {
    /// `[items]` of all passes.
    pub items: Buffer,
    /// `[merges]` of all passes.
    pub merges: Buffer,
    /// `[parts]` of all merges.
    pub parts: Buffer,
    /// `[num_kv_heads, partials, head_stride]` in f32.
    pub sums: Buffer,
    /// `[num_kv_heads, partials]` of (maximum, sum of weights).
    pub weights: Buffer,
}

impl Ops<'_> {
    /// Causal attention of every query row over its sequence's keys: `[tokens, num_heads, head_stride]` →
    /// `[tokens, num_heads * head_dim]`.
    pub fn attention(
        &mut self,
        q: &Rows,
        (kv, slots): (&KvLayer, usize),
        shape: &RopeShape,
        window: Option<usize>,
        partials: &Partials,
        out: &Rows,
    ) {
        let (types, head_stride) = (self.kernels.types, shape.head_stride(kv.kv));
        let heads = shape.num_heads / shape.num_kv_heads;
        let params = AttentionParams {
            num_heads: shape.num_heads as u32,
            group: heads as u32,
            head_dim: shape.head_dim as u32,
            slots: slots as u32,
            window: window.unwrap_or(0) as u32,
            scale_log2: (std::f64::consts::LOG2_E / (shape.head_dim as f64).sqrt()) as f32,
            out_stride: out.stride as u32,
            partials: self.plan.partials as u32,
            first_item: 0,
        };
        let merge_params = AttentionMergeParams {
            group: heads as u32,
            head_dim: shape.head_dim as u32,
            head_stride: head_stride as u32,
            out_stride: out.stride as u32,
            partials: self.plan.partials as u32,
            first_merge: 0,
        };
        let Partials { items, sums, weights, .. } = partials;
        let buffers = [&q.buffer, &kv.k, &kv.v, items, &out.buffer, sums, weights, &kv.scales].map(Into::into);
        let merge_buffers =
            [&partials.merges, &partials.parts, &partials.sums, &partials.weights, &out.buffer].map(Into::into);
        let counted = Heads {
            num_heads: shape.num_heads,
            num_kv_heads: shape.num_kv_heads,
            head_dim: shape.head_dim,
            head_stride,
            act_bytes: types.act_bytes(),
            kv: kv.kv,
            window: window.unwrap_or(0),
        };
        let (planner, kv_heads) = (&self.kernels.planner, shape.num_kv_heads as u32);
        let group = &self.plan.groups[kv.group];
        for pass in &self.plan.passes[group.passes.clone()] {
            if !pass.vector.is_empty() {
                let params = AttentionParams { first_item: pass.vector.start as u32, ..params };
                let schedule = planner.vector_schedule(kv.group, group.vector, pass.vector_packed_rows).clone();
                let variant = vector::KERNEL.variant(&[types.act, Part::Kv(kv.kv), types.team], schedule);
                let rows = vector::KERNEL.value(&variant.schedule, "ROWS") as usize;
                let workgroups = [kv_heads, pass.vector_packed_rows.div_ceil(rows) as u32, pass.vector.len() as u32];
                self.recorder.work(|| Work::attention(&self.plan.items[pass.vector.clone()], &counted));
                self.recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), workgroups);
            }
            for (index, (items, packed_rows)) in pass.tiles.iter().zip(pass.tile_packed_rows).enumerate() {
                if !items.is_empty() {
                    let tile = planner.tile(kv.group, group.tiles[index], index);
                    let params = AttentionParams { first_item: items.start as u32, ..params };
                    let variant = types.tile_variant(tile, kv.kv);
                    let workgroups = [items.len() as u32, packed_rows.div_ceil(tile.packed_rows) as u32, kv_heads];
                    self.recorder.work(|| Work::attention(&self.plan.items[items.clone()], &counted));
                    self.recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), workgroups);
                }
            }
            if !pass.merges.is_empty() {
                let params = AttentionMergeParams { first_merge: pass.merges.start as u32, ..merge_params };
                let variant = merge::KERNEL.variant(&[types.act, types.reduce], planner.merge_schedule());
                let workgroups = [pass.merges.len() as u32, pass.merge_packed_rows as u32, kv_heads];
                self.recorder.work(|| Work::merge(&self.plan.merges[pass.merges.clone()], &counted));
                self.recorder.dispatch(&variant, &merge_buffers, bytemuck::bytes_of(&params), workgroups);
            }
        }
    }
}
