use super::{Ops, RopeShape};
use crate::gpu::Buffer;
use crate::kv_cache::KvLayer;
use raglan_shaders::Work;
use raglan_shaders::move_rows::{KERNEL, MoveRowsParams, workgroups};

impl Ops<'_> {
    /// Copies rows of a layer's keys and values to other slots, one dispatch a round of the step's moves.
    pub fn move_rows(&mut self, (kv, slots): (&KvLayer, usize), shape: &RopeShape, moves: &Buffer) {
        let rounds = self.plan.groups[kv.group].rounds.clone();
        if rounds.is_empty() {
            return;
        }
        let head_stride = shape.head_stride(kv.kv);
        let all = MoveRowsParams::of(kv.kv, shape.num_kv_heads, slots, head_stride);
        let variant = KERNEL.variant(&[], self.kernels.planner.move_schedule());
        for round in &self.plan.rounds[rounds] {
            let params = MoveRowsParams { first_move: round.start as u32, ..all };
            let buffers = [moves, &kv.k, &kv.v, &kv.scales].map(Into::into);
            let slots = self.plan.moves[round.clone()].iter().map(|rows| rows.count as usize).sum();
            let bytes = shape.num_kv_heads * kv.kv.row_bytes(head_stride);
            self.recorder.work(|| Work::rows("move_rows", slots, shape.head_dim, bytes, bytes));
            self.recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), workgroups(&params, round.len()));
        }
    }
}
