use super::{Ops, Rows};
use crate::gpu::Buffer;
use raglan_shaders::Work;
use raglan_shaders::rms_norm::{KERNEL, RmsNormParams};

impl Ops<'_> {
    /// `residual += delta; out = norm(residual)`: every row of `[rows, cols]`, or row `gather[r]` for row r.
    #[expect(clippy::too_many_arguments, reason = "one line an op in the decoder reads better than a struct")]
    pub fn rms_norm(
        &mut self,
        residual: &Rows,
        delta: Option<&Rows>,
        weight: &Buffer,
        (cols, eps): (usize, f64),
        rows: usize,
        gather: Option<&Buffer>,
        out: &Rows,
    ) {
        assert_eq!(residual.stride, out.stride, "columns of the norm");
        let absent = &self.kernels.absent;
        let params = RmsNormParams {
            cols: cols as u32,
            stride_quads: (residual.stride / 4) as u32,
            eps: eps as f32,
            add: u32::from(delta.is_some()),
            gather: u32::from(gather.is_some()),
        };
        let types = self.kernels.types;
        let variant = KERNEL.variant(&[types.act, types.reduce], self.kernels.planner.row_schedule(&KERNEL, cols));
        let delta = delta.map_or(absent, |rows| &rows.buffer);
        let buffers = [&residual.buffer, delta, weight, gather.unwrap_or(absent), &out.buffer].map(Into::into);
        self.recorder.work(|| Work::rms_norm(rows, cols, params.add == 1, types.act_bytes()));
        self.recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), [rows as u32, 1, 1]);
    }
}
