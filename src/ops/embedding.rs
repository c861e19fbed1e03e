use super::{Ops, Rows};
use crate::gpu::Buffer;
use crate::weights::Matrix;
use raglan_shaders::embedding::{EmbeddingParams, KERNEL};
use raglan_shaders::{BLOCK, Part, Work};

impl Ops<'_> {
    /// Rows of `weight` that `token_ids` name, directly or through the last step's `samples`: `out` is `[tokens, hidden]`.
    pub fn embedding(&mut self, weight: &Matrix, token_ids: &Buffer, samples: &Buffer, tokens: usize, out: &Rows) {
        let blocks = weight.inner.div_ceil(BLOCK);
        assert_eq!(out.stride, blocks * BLOCK, "columns of the residual stream");
        for piece in &weight.pieces {
            let params = EmbeddingParams {
                first_row: piece.first_row as u32,
                rows: piece.rows as u32,
                blocks: blocks as u32,
                weight_row_quads: (piece.format.gpu_row_bytes(weight.inner) / 16) as u32,
                weight_blocks: piece.format.row_blocks(weight.inner) as u32,
            };
            let variant = KERNEL.variant(&[Part::Weight(piece.format)], KERNEL.default_schedule());
            let buffers = [&piece.buffer, &piece.buffer, token_ids, samples, &out.buffer].map(Into::into);
            let (cols, row_bytes) = (weight.inner, piece.format.gpu_row_bytes(weight.inner));
            self.recorder.work(|| Work::rows("embedding", tokens, cols, row_bytes, 4 * cols));
            self.recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), [tokens as u32, 1, 1]);
        }
    }
}
