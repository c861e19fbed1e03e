use super::{Ops, Rows};
use crate::gpu::Buffer;
use raglan_shaders::Work;
use raglan_shaders::column_squares::{self, ColumnSquaresParams, KERNEL};

impl Ops<'_> {
    /// Adds the squares of every column of `rows` to `sums`, from its number `first` on.
    pub fn column_squares(&mut self, x: &Rows, rows: usize, sums: &Buffer, first: usize) {
        let quads = x.stride / 4;
        let params = ColumnSquaresParams { rows: rows as u32, quads: quads as u32, first: (first / 4) as u32 };
        let variant = KERNEL.variant(&[self.kernels.types.act], KERNEL.default_schedule());
        let workgroups = column_squares::workgroups(&params, &variant.schedule);
        let (cols, act_bytes) = (x.stride, self.kernels.types.act_bytes());
        self.recorder.work(|| Work::rows("column_squares", rows, cols, act_bytes * cols, 0));
        let buffers = [&x.buffer, sums].map(Into::into);
        self.recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), workgroups);
    }
}
