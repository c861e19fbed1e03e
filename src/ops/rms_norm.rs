use super::{Ops, Rows};
use crate::gpu::Buffer;
use raglan_shaders::Work;
use raglan_shaders::rms_norm::{KERNEL, RmsNormParams};

/// A root-mean-square norm of rows.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// `[cols, padded]`
    pub weight: &'a Buffer,
    /// Columns that count.
    pub cols: usize,
    /// Added to the mean square.
    pub eps: f64,
    /// Row r is row `gather[r]`, where there is one.
    pub gather: Option<&'a Buffer>,
}

impl Ops<'_> {
    /// `out = norm(residual)`: `rows` of `[tokens, cols]`.
    pub fn rms_norm(&mut self, residual: &Rows, norm: Norm<'_>, rows: usize, out: &Rows) {
        assert_eq!(residual.stride, out.stride, "columns of the norm");
        let params = RmsNormParams {
            cols: norm.cols as u32,
            stride_quads: (residual.stride / 4) as u32,
            eps: norm.eps as f32,
            gather: u32::from(norm.gather.is_some()),
        };
        let types = self.kernels.types;
        let variant = KERNEL.variant(&[types.act, types.reduce], self.kernels.planner.row_schedule(&KERNEL, norm.cols));
        let gather = norm.gather.unwrap_or(&self.kernels.absent);
        let buffers = [&residual.buffer, norm.weight, gather, &out.buffer].map(Into::into);
        self.recorder.work(|| Work::rms_norm(rows, norm.cols, types.act_bytes()));
        self.recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), [rows as u32, 1, 1]);
    }
}
