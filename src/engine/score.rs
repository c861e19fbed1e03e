//! Running known tokens through a model: their logits, for those who compare formats, and their losses, for perplexity.

mod held;

pub use held::Held;

use super::Stepper;
use crate::batch::Batch;
use crate::error::Error;
use crate::gpu::{StepRing, Submission, Variant};
use crate::ops::Ops;
use std::borrow::Cow;
use std::ops::Range;

/// Bytes of logits that one step brings back at most: the host holds three steps' worth.
const MOST_STEP_BYTES: usize = 64 << 20;

/// Logits of consecutive tokens as they came back: `[rows, vocab_size]`, padded.
#[derive(Debug)]
pub struct Logits {
    bytes: Vec<u8>,
    stride: usize,
    vocab_size: usize,
}

impl Logits {
    /// How many tokens they are of.
    pub fn rows(&self) -> usize {
        self.bytes.len() / (4 * self.stride)
    }

    /// What the model foretells after the token `row`, `[vocab_size]`.
    pub fn row(&self, row: usize) -> Cow<'_, [f32]> {
        let bytes = &self.bytes[4 * row * self.stride..][..4 * self.vocab_size];
        // What came back is bytes, at no particular address.
        match bytemuck::try_cast_slice(bytes) {
            Ok(logits) => Cow::Borrowed(logits),
            Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
        }
    }
}

/// An engine that gives all logits of what it reads, a step at a time while the next is under way.
pub struct Scorer<'a> {
    engine: &'a mut Stepper,
    ring: StepRing,
    chunk: usize,
}

impl Stepper {
    /// Prepares to read sequences in steps of at most `chunk` tokens, with memory for the logits of two steps.
    ///
    /// # Errors
    /// If the adapter has no room.
    pub fn scorer(&mut self, chunk: usize) -> Result<Scorer<'_>, Error> {
        let chunk = self.scoring_chunk(chunk);
        let ring = self.gpu.ring_like(&self.ring, 2, (4 * chunk * self.decoder.logits(0).stride) as u64)?;
        Ok(Scorer { engine: self, ring, chunk })
    }

    /// What of `chunk` tokens a scorer reads in a step: no more than rows of logits that a step may have and bring back.
    pub fn scoring_chunk(&self, chunk: usize) -> usize {
        let row_bytes = 4 * self.decoder.logits(0).stride;
        self.longest_step(chunk).min(MOST_STEP_BYTES / row_bytes).max(1)
    }

    /// What steps of up to `chunk` tokens of one sequence dispatch first, compiled together rather than one after another.
    ///
    /// # Errors
    /// The first refusal by naga or the driver.
    pub fn compile_scoring(&self, chunk: usize, progress: impl Fn(usize, usize) + Sync) -> Result<(), Error> {
        let size = self.scoring_chunk(chunk);
        let mut variants: Vec<Variant> = Vec::new();
        for variant in self.rehearse(&Batch::rehearsal(size, self.limits.max_sequences, self.slots.len())) {
            if !variants.contains(&variant) {
                variants.push(variant);
            }
        }
        self.kernels.planner.forget_questions();
        self.gpu.compile(&variants, progress)
    }

    /// Runs `tokens` as one sequence from nothing, in steps of at most `chunk` tokens, and gives each token's place and the
    /// logits after it, `[vocab_size]`, to `each`.
    ///
    /// # Errors
    /// As [`Scorer::score`].
    pub fn logits(&mut self, tokens: &[u32], chunk: usize, mut each: impl FnMut(usize, Vec<f32>)) -> Result<(), Error> {
        self.scorer(chunk)?.score(tokens, |first, logits| {
            (0..logits.rows()).for_each(|row| each(first + row, logits.row(row).into_owned()));
            Ok(())
        })
    }

    /// The loss of every token but the first, in nats: one sequence, from nothing.
    ///
    /// # Errors
    /// As [`Scorer::score`].
    pub fn losses(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Error> {
        let mut losses = Vec::with_capacity(tokens.len());
        let chunk = self.longest_step(usize::MAX);
        self.read_alone(
            tokens,
            chunk,
            |engine, rows, mut batch, parity| {
                // The last token has no next one; its loss is cut off.
                batch.targets = rows.map(|at| tokens[(at + 1).min(tokens.len() - 1)]).collect();
                let (submission, outputs) = engine.run(&batch, parity)?;
                Ok((submission, outputs))
            },
            |engine, _, outputs, bytes| {
                losses.extend(engine.sampler.losses_of(&outputs, &bytes));
                Ok(())
            },
        )?;
        losses.truncate(tokens.len() - 1);
        Ok(losses)
    }

    /// Tokens of a step that gives a row of logits for each.
    fn longest_step(&self, chunk: usize) -> usize {
        let most = self.limits.max_sequences.min(self.limits.max_batch_tokens).min(self.slots.longest_chunk());
        chunk.clamp(1, most.max(1))
    }

    /// Reads `tokens` as one sequence from nothing, `chunk` at a time, all rows of logits wanted. `submit` gets a step's
    /// places, its batch and its parity; `each` gets what came back, while the step after it is under way.
    fn read_alone<T>(
        &mut self,
        tokens: &[u32],
        chunk: usize,
        mut submit: impl FnMut(&mut Stepper, Range<usize>, Batch, usize) -> Result<(Submission, T), Error>,
        mut each: impl FnMut(&Stepper, usize, T, Vec<u8>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        assert!(self.is_idle(), "an engine scores while it is idle");
        if tokens.len() < 2 || tokens.len() > self.longest() {
            let message = format!("{} tokens to score, wanted 2 to {}", tokens.len(), self.longest());
            return Err(Error::Request { message });
        }
        self.forget_prefixes();
        let tables = self.slots.admit();
        let mut steps = || -> Result<(), Error> {
            let mut in_flight: Option<(usize, Submission, T)> = None;
            for (step, first) in (0..tokens.len()).step_by(chunk).enumerate() {
                let rows = first..tokens.len().min(first + chunk);
                self.slots.release_unseen(&tables, first);
                if !self.slots.extend(&tables, rows.end) {
                    let message = format!("{} tokens to score, and no room for them beside what is held", tokens.len());
                    return Err(Error::Request { message });
                }
                let mut batch = Batch::new(self.slots.len());
                batch.push(tokens[rows.clone()].iter().copied(), first, &self.slots.segments(&tables));
                batch.set_moves(&self.slots.take_moves());
                batch.logit_rows = (0..rows.len() as u32).collect();
                let (submission, what) = submit(self, rows, batch, step % 2)?;
                if let Some((first, submission, what)) = in_flight.replace((first, submission, what)) {
                    each(self, first, what, submission.collect()?)?;
                }
            }
            match in_flight {
                Some((first, submission, what)) => each(self, first, what, submission.collect()?),
                None => Ok(()),
            }
        };
        let result = steps();
        self.slots.free(tables);
        result
    }
}

impl Scorer<'_> {
    /// Runs `tokens` as one sequence from nothing and gives each step's first place and its logits to `each`, the next
    /// step under way.
    ///
    /// # Errors
    /// As [`Stepper::step`], where the tokens do not fit, and what `each` returns, which ends the reading.
    ///
    /// # Panics
    /// If the engine is not idle.
    pub fn score(
        &mut self,
        tokens: &[u32],
        mut each: impl FnMut(usize, Logits) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (stride, vocab_size) = (self.engine.decoder.logits(0).stride, self.engine.spec().vocab_size);
        let ring = self.ring.clone();
        self.engine.read_alone(
            tokens,
            self.chunk,
            |engine, _, batch, parity| {
                engine.kernels.planner.plan_into(&batch, &mut engine.plan);
                let recorder = engine.gpu.begin_step(&ring);
                let mut ops = Ops { recorder, kernels: &engine.kernels, plan: &engine.plan };
                engine.decoder.write_inputs(&mut ops, &batch);
                let samples = engine.sampler.samples();
                let logits = engine.decoder.forward(&mut ops, &batch, &engine.kv_cache, samples, parity);
                ops.recorder.output(&logits.buffer, 0, (4 * batch.tokens() * stride) as u64);
                Ok((ops.recorder.submit()?, ()))
            },
            |_, first, (), bytes| each(first, Logits { bytes, stride, vocab_size }),
        )
    }
}
