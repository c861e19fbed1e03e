use super::{Ops, Rows};
use crate::gpu::Buffer;
use raglan_shaders::Work;
use raglan_shaders::adjust_logits::{self, AdjustLogitsParams};
use raglan_shaders::argmax::{self, ArgmaxParams};
use raglan_shaders::cross_entropy::{self, CrossEntropyParams};
use raglan_shaders::top_k::{self, TopKParams};

impl Ops<'_> {
    /// Applies `count` penalties to logits `[rows, stride]`.
    pub fn adjust_logits(&mut self, logits: &Rows, adjustments: &Buffer, count: usize) {
        let params = AdjustLogitsParams { count: count as u32, stride: logits.stride as u32 };
        let variant = adjust_logits::KERNEL.variant(&[], adjust_logits::KERNEL.default_schedule());
        let workgroups = [(count as u32).div_ceil(variant.schedule.values[0]), 1, 1];
        let buffers = [adjustments, &logits.buffer].map(Into::into);
        self.recorder.work(|| Work::rows("adjust_logits", count, 1, 20, 4));
        self.recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), workgroups);
    }

    /// The column of the largest of `vocab` logits of every row → `samples` `[rows]`.
    pub fn argmax(&mut self, logits: &Rows, vocab: usize, rows: usize, samples: &Buffer) {
        let params = ArgmaxParams { cols: vocab as u32, stride: logits.stride as u32 };
        let schedule = self.kernels.planner.row_schedule(&argmax::KERNEL, vocab);
        let variant = argmax::KERNEL.variant(&[self.kernels.types.reduce], schedule);
        let buffers = [&logits.buffer, samples].map(Into::into);
        self.recorder.work(|| Work::rows("argmax", rows, vocab, 4 * vocab, 4));
        self.recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), [rows as u32, 1, 1]);
    }

    /// The `k` largest logits of `rows` chosen rows → `candidates` `[rows, k]` and `summaries` `[rows]`.
    pub fn top_k(
        &mut self,
        logits: &Rows,
        (vocab, k): (usize, usize),
        chosen: (&Buffer, usize),
        candidates: &Buffer,
        summaries: &Buffer,
    ) {
        let params = TopKParams { cols: vocab as u32, stride: logits.stride as u32, k: k as u32 };
        let schedule = self.kernels.planner.row_schedule(&top_k::KERNEL, vocab);
        let variant = top_k::KERNEL.variant(&[self.kernels.types.reduce], schedule);
        let buffers = [&logits.buffer, chosen.0, candidates, summaries].map(Into::into);
        self.recorder.work(|| Work::rows("top_k", chosen.1, vocab, 4 * vocab, 8 * k));
        self.recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), [chosen.1 as u32, 1, 1]);
    }

    /// The loss of `targets` `[rows]` → `nll` `[rows]`.
    pub fn cross_entropy(&mut self, logits: &Rows, vocab: usize, rows: usize, targets: &Buffer, nll: &Buffer) {
        let params = CrossEntropyParams { cols: vocab as u32, stride: logits.stride as u32 };
        let schedule = self.kernels.planner.row_schedule(&cross_entropy::KERNEL, vocab);
        let variant = cross_entropy::KERNEL.variant(&[self.kernels.types.reduce], schedule);
        let buffers = [&logits.buffer, targets, nll].map(Into::into);
        self.recorder.work(|| Work::rows("cross_entropy", rows, vocab, 4 * vocab, 4));
        self.recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), [rows as u32, 1, 1]);
    }
}
