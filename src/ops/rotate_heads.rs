use super::{Ops, RopeShape, Rows};
use raglan_shaders::Work;
use raglan_shaders::rotate_heads::{KERNEL, RotateHeadsParams};

impl Ops<'_> {
    /// Rotates every query head of attention's output in place, in blocks of `rotation` columns: what values were rotated by, undone.
    pub fn rotate_heads(&mut self, rows: &Rows, tokens: usize, shape: &RopeShape, rotation: usize) {
        let params = RotateHeadsParams {
            head_dim: shape.head_dim as u32,
            rotation: rotation as u32,
            stride: rows.stride as u32,
        };
        let types = self.kernels.types;
        let variant = KERNEL.variant(&[types.act], KERNEL.default_schedule());
        let (cols, groups) = (shape.num_heads * shape.head_dim, [tokens as u32, shape.num_heads as u32, 1]);
        let bytes = cols * types.act_bytes();
        self.recorder.work(|| Work::rows("rotate_heads", tokens, cols, bytes, bytes));
        self.recorder.dispatch(&variant, &[(&rows.buffer).into()], bytemuck::bytes_of(&params), groups);
    }
}
