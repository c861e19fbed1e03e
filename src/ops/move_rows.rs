use super::{Ops, RopeShape};
use crate::gpu::Buffer;
use crate::kv_cache::KvLayer;
use raglan_shaders::Work;
use raglan_shaders::move_rows::{KERNEL, MoveRowsParams, group_words, workgroups};

impl Ops<'_> {
    /// Copies rows of a layer's keys and values to other slots, one dispatch a round of the step's moves.
    pub fn move_rows(&mut self, (kv, slots): (&KvLayer, usize), shape: &RopeShape, moves: &Buffer) {
        let rounds = self.plan.groups[kv.group].rounds.clone();
        if rounds.is_empty() {
            return;
        }
        let row_words = (kv.kv.k_row_bytes(shape.head_stride(kv.kv)) / 16) as u32;
        let variant = KERNEL.variant(&[], self.kernels.planner.move_schedule());
        for round in &self.plan.rounds[rounds] {
            let params = MoveRowsParams {
                num_kv_heads: shape.num_kv_heads as u32,
                slots: slots as u32,
                row_words,
                group_words: group_words(row_words),
                first_move: round.start as u32,
            };
            let buffers = [moves, &kv.k, &kv.v].map(Into::into);
            let slots = self.plan.moves[round.clone()].iter().map(|rows| rows.count as usize).sum();
            let bytes = 2 * shape.num_kv_heads * 16 * row_words as usize;
            self.recorder.work(|| Work::rows("move_rows", slots, shape.head_dim, bytes, bytes));
            self.recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), workgroups(&params, round.len()));
        }
    }
}
