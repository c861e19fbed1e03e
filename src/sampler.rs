//! Logits → tokens: the largest on the GPU, or candidates that the host picks from.

mod choose;

pub use choose::{Candidates, choose};

use crate::batch::{Batch, StepLimits};
use crate::error::Error;
use crate::gpu::{Buffer, Gpu};
use crate::ops::{Ops, Rows};
use raglan_shaders::adjust_logits::LogitAdjustment;
use raglan_shaders::top_k::{TopKRow, TopKSummary};
use std::ops::Range;

/// Candidates that the GPU gives for a row that the host samples from.
pub const CANDIDATES: usize = 128;

/// Memory for choosing tokens.
#[derive(Debug)]
pub struct Sampler {
    vocab_size: usize,
    k: usize,
    adjustments: Buffer,
    top_rows: Buffer,
    targets: Buffer,
    samples: Buffer,
    candidates: Buffer,
    summaries: Buffer,
    nll: Buffer,
}

/// Where a step's outputs lie in what its submission brings back.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    samples: Range<usize>,
    candidates: Range<usize>,
    summaries: Range<usize>,
    nll: Range<usize>,
}

impl Sampler {
    /// # Errors
    /// If the adapter has no room.
    pub fn new(gpu: &Gpu, vocab_size: usize, limits: &StepLimits) -> Result<Sampler, Error> {
        let [adjustments, top_rows, targets, samples, candidates, summaries, nll] = sizes(vocab_size, limits);
        Ok(Sampler {
            vocab_size,
            k: CANDIDATES.min(vocab_size),
            adjustments: gpu.buffer("adjustments", adjustments)?,
            top_rows: gpu.buffer("top rows", top_rows)?,
            targets: gpu.buffer("targets", targets)?,
            samples: gpu.buffer("samples", samples)?,
            candidates: gpu.buffer("candidates", candidates)?,
            summaries: gpu.buffer("summaries", summaries)?,
            nll: gpu.buffer("losses", nll)?,
        })
    }

    /// Bytes that it allocates.
    pub fn bytes(vocab_size: usize, limits: &StepLimits) -> u64 {
        sizes(vocab_size, limits).into_iter().sum()
    }

    /// The last step's samples, on the GPU.
    pub fn samples(&self) -> &Buffer {
        &self.samples
    }

    /// Bytes that a step brings back at most.
    pub fn output_bytes(limits: &StepLimits) -> u64 {
        (limits.max_sequences * (8 + 8 * CANDIDATES + size_of::<TopKSummary>())) as u64
    }

    /// Writes a step's arrays to the GPU; comes before the step's first dispatch.
    pub fn write_inputs(&self, ops: &mut Ops<'_>, batch: &Batch) {
        ops.recorder.write(&self.adjustments, 0, bytemuck::cast_slice(&batch.adjustments));
        ops.recorder.write(&self.top_rows, 0, bytemuck::cast_slice(&batch.top_rows));
        ops.recorder.write(&self.targets, 0, bytemuck::cast_slice(&batch.targets));
    }

    /// Records the choice of a token for every row of logits, or the loss of the tokens that are known.
    pub fn pick(&self, ops: &mut Ops<'_>, logits: &Rows, batch: &Batch) -> Outputs {
        let (rows, top) = (batch.logit_rows.len(), batch.top_rows.len());
        let mut outputs = Outputs::default();
        if rows == 0 {
            return outputs;
        }
        if !batch.targets.is_empty() {
            ops.cross_entropy(logits, self.vocab_size, rows, &self.targets, &self.nll);
            outputs.nll = ops.recorder.output(&self.nll, 0, 4 * rows as u64);
            return outputs;
        }
        if !batch.adjustments.is_empty() {
            ops.adjust_logits(logits, &self.adjustments, batch.adjustments.len());
        }
        ops.argmax(logits, self.vocab_size, rows, &self.samples);
        outputs.samples = ops.recorder.output(&self.samples, 0, 4 * rows as u64);
        if top > 0 {
            let shape = (self.vocab_size, self.k);
            ops.top_k(logits, shape, (&self.top_rows, top), &self.candidates, &self.summaries);
            outputs.candidates = ops.recorder.output(&self.candidates, 0, (8 * top * self.k) as u64);
            outputs.summaries = ops.recorder.output(&self.summaries, 0, (top * size_of::<TopKSummary>()) as u64);
        }
        outputs
    }

    /// The largest logit's column of every row.
    pub fn samples_of(&self, outputs: &Outputs, bytes: &[u8]) -> Vec<u32> {
        bytemuck::pod_collect_to_vec(&bytes[outputs.samples.clone()])
    }

    /// The candidates of the top row `index`, from large to small.
    pub fn candidates_of(&self, outputs: &Outputs, bytes: &[u8], index: usize) -> Candidates {
        // What came back is bytes, at no particular address.
        let row = &bytes[outputs.candidates.clone()][8 * self.k * index..][..8 * self.k];
        let row: Vec<[u32; 2]> = bytemuck::pod_collect_to_vec(row);
        let logits = row.into_iter().map(|[token, bits]| (token, f32::from_bits(bits)));
        let summary_bytes = size_of::<TopKSummary>();
        let summaries = &bytes[outputs.summaries.clone()];
        let summary: TopKSummary = bytemuck::pod_read_unaligned(&summaries[summary_bytes * index..][..summary_bytes]);
        Candidates::new(logits.collect(), summary.total.into(), self.k == self.vocab_size, summary.left_out > 0)
    }

    /// The loss of every target.
    pub fn losses_of(&self, outputs: &Outputs, bytes: &[u8]) -> Vec<f32> {
        bytemuck::pod_collect_to_vec(&bytes[outputs.nll.clone()])
    }
}

/// Bytes of adjustments, top rows, targets, samples, candidates, summaries and losses.
fn sizes(vocab_size: usize, limits: &StepLimits) -> [u64; 7] {
    let rows = limits.max_sequences;
    [
        limits.max_adjustments * size_of::<LogitAdjustment>(),
        rows * size_of::<TopKRow>(),
        rows * 4,
        rows * 4,
        rows * CANDIDATES.min(vocab_size) * 8,
        rows * size_of::<TopKSummary>(),
        rows * 4,
    ]
    .map(|bytes| bytes.max(4) as u64)
}
