use super::{Ops, Rows};
use crate::weights::Matrix;
use raglan_shaders::linear::LinearParams;
use raglan_shaders::{BLOCK, Part, matvec};

impl Ops<'_> {
    /// `out = x · weightᵀ + bias`: `[rows, inner]` → `[rows, weight.rows]`, one dispatch a piece of the matrix.
    pub fn linear(&mut self, x: &Rows, weight: &Matrix, rows: usize, out: &Rows) {
        assert_eq!(x.stride, weight.inner.next_multiple_of(BLOCK), "columns of a product's input");
        assert_eq!(out.stride, weight.rows, "columns of a product");
        let types = self.kernels.types;
        let bias = weight.bias.as_ref().unwrap_or(&self.kernels.absent);
        for piece in &weight.pieces {
            let params = LinearParams {
                rows: rows as u32,
                cols: piece.rows as u32,
                blocks: (x.stride / BLOCK) as u32,
                weight_row_quads: (piece.format.gpu_row_bytes(weight.inner) / 16) as u32,
                weight_blocks: piece.format.row_blocks(weight.inner) as u32,
                first_col: piece.first_row as u32,
                out_stride: out.stride as u32,
                bias: u32::from(weight.bias.is_some()),
                add: 0,
                activation: 0,
            };
            let choice = self.kernels.planner.linear(rows, piece.rows, weight.inner);
            let buffers = [&piece.buffer, &piece.buffer, &x.buffer, bias, &out.buffer].map(Into::into);
            let part = Part::Weight(piece.format);
            if !std::ptr::eq(choice.kernel, &matvec::KERNEL) {
                self.matmul(&choice, &params, (part, Part::EpiloguePlain), &buffers);
                continue;
            }
            let workgroups = matvec::workgroups(&params, &choice.schedule);
            let variant = choice.kernel.variant(&[part, types.act, types.reduce, Part::EpiloguePlain], choice.schedule);
            self.recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), workgroups);
        }
    }
}
