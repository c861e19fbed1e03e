use super::Ops;
use crate::gpu::BufferSlice;
use crate::schedules::LinearChoice;
use raglan_shaders::linear::LinearParams;
use raglan_shaders::matmul::MatmulParams;
use raglan_shaders::split_sum::SplitSumParams;
use raglan_shaders::{BLOCK, Part, Work, matmul, matmul_coop, split_sum};

impl Ops<'_> {
    /// A product of many rows, as `choice` says: one dispatch, or two where it is split. `parts` are those of the weights
    /// and of the epilogue; `buffers` the bindings of a product: weights, the same once more, x, bias and out.
    pub(super) fn matmul(
        &mut self,
        choice: &LinearChoice,
        params: &LinearParams,
        (weight, epilogue): (Part, Part),
        buffers: &[BufferSlice<'_>; 5],
    ) {
        let Some(split_blocks) = choice.split_blocks(params.blocks as usize * BLOCK) else {
            return self.sums(choice, &MatmulParams::whole(params), (weight, epilogue), buffers);
        };
        let absent = || (&self.kernels.absent).into();
        let partials = || (&self.kernels.partials).into();
        let [weights, again, x, bias, out] = *buffers;
        let inputs = [weights, again, x, absent(), partials()];
        let split = MatmulParams::split(params, split_blocks);
        self.sums(choice, &split, (weight, Part::EpiloguePlain), &inputs);

        let params = SplitSumParams::of(params, split.splits());
        let schedule = split_sum::KERNEL.default_schedule();
        let workgroups = split_sum::workgroups(&params, &schedule);
        let variant = split_sum::KERNEL.variant(&[self.kernels.types.act, epilogue], schedule);
        let buffers = [partials(), absent(), absent(), bias, out];
        let (rows, cols) = (params.rows as usize, params.cols as usize);
        self.recorder.work(|| Work::rows("split_sum", rows, cols, 4 * cols * split.splits() as usize, 4 * cols));
        self.recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), workgroups);
    }

    fn sums(
        &mut self,
        choice: &LinearChoice,
        params: &MatmulParams,
        (weight, epilogue): (Part, Part),
        buffers: &[BufferSlice<'_>; 5],
    ) {
        let (types, schedule) = (self.kernels.types, choice.schedule.clone());
        let (parts, workgroups) = if std::ptr::eq(choice.kernel, &matmul_coop::KERNEL) {
            (&[weight, types.act, types.coop, epilogue][..], matmul_coop::workgroups(params, &schedule))
        } else {
            (&[weight, types.act, epilogue][..], matmul::workgroups(params, &schedule))
        };
        let variant = choice.kernel.variant(parts, schedule);
        self.recorder.dispatch(&variant, buffers, bytemuck::bytes_of(params), workgroups);
    }
}
