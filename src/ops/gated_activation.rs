use super::{Ops, Rows};
use raglan_models::Activation;
use raglan_shaders::Work;
use raglan_shaders::gated_activation::{self, GatedActivationParams, KERNEL};

impl Ops<'_> {
    /// `out = activation(gate) · up`: `[rows, gate|up]`, up from column `up_col` on, → `[rows, out.stride]`.
    pub fn gated_activation(&mut self, gate_up: &Rows, up_col: usize, rows: usize, activation: Activation, out: &Rows) {
        assert!(up_col + out.stride <= gate_up.stride, "columns of gate and up");
        let params = GatedActivationParams {
            rows: rows as u32,
            quads: (out.stride / 4) as u32,
            up_quads: (up_col / 4) as u32,
            stride_quads: (gate_up.stride / 4) as u32,
            activation: super::activation_number(activation),
        };
        let variant = KERNEL.variant(&[self.kernels.types.act], KERNEL.default_schedule());
        let workgroups = gated_activation::workgroups(&params, &variant.schedule);
        let buffers = [&gate_up.buffer, &out.buffer].map(Into::into);
        let (cols, act_bytes) = (out.stride, self.kernels.types.act_bytes());
        self.recorder.work(|| Work::rows("gated_activation", rows, cols, 8 * cols, act_bytes * cols));
        self.recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), workgroups);
    }
}
