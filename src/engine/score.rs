//! Running known tokens through a model: their logits, for tests, and their losses, for perplexity.

use super::Stepper;
use crate::batch::Batch;
use crate::error::Error;
use crate::sampler::Outputs;

impl Stepper {
    /// Runs `tokens` as one sequence from nothing, in steps of at most `chunk` tokens, and gives each step's first row
    /// and its logits, `[rows, vocab_size]`, to `each`. For tests: it reads all logits back.
    ///
    /// # Errors
    /// As [`Stepper::step`], and where the engine is not idle or the tokens do not fit.
    pub fn logits(&mut self, tokens: &[u32], chunk: usize, mut each: impl FnMut(usize, Vec<f32>)) -> Result<(), Error> {
        self.score_steps(tokens, chunk, false, |engine, first, rows, _, _| {
            for row in 0..rows {
                each(first + row, engine.logits_row(row, 0)?);
            }
            Ok(())
        })
    }

    /// The loss of every token but the first, in nats: one sequence, from nothing.
    ///
    /// # Errors
    /// As [`Stepper::logits`].
    pub fn losses(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Error> {
        let mut losses = Vec::with_capacity(tokens.len());
        self.score_steps(tokens, usize::MAX, true, |engine, _, _, outputs, bytes| {
            losses.extend(engine.sampler.losses_of(outputs, bytes));
            Ok(())
        })?;
        losses.truncate(tokens.len() - 1);
        Ok(losses)
    }

    fn score_steps(
        &mut self,
        tokens: &[u32],
        chunk: usize,
        with_targets: bool,
        mut each: impl FnMut(&Stepper, usize, usize, &Outputs, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        assert!(self.is_idle(), "an engine scores while it is idle");
        if tokens.len() < 2 || tokens.len() > self.longest() {
            let message = format!("{} tokens to score, wanted 2 to {}", tokens.len(), self.longest());
            return Err(Error::Request { message });
        }
        self.forget_prefixes();
        let tables = self.slots.admit();
        let chunk =
            chunk.min(self.limits.max_sequences).min(self.limits.max_batch_tokens).min(self.slots.longest_chunk());
        let mut result = Ok(());
        for first in (0..tokens.len()).step_by(chunk) {
            let rows = chunk.min(tokens.len() - first);
            self.slots.release_unseen(&tables, first);
            if !self.slots.extend(&tables, first + rows) {
                let message = format!("{} tokens to score, and no room for them beside what is held", tokens.len());
                result = Err(Error::Request { message });
                break;
            }
            let mut batch = Batch::new(self.slots.len());
            batch.push(tokens[first..first + rows].iter().copied(), first, &self.slots.segments(&tables));
            batch.set_moves(&self.slots.take_moves());
            batch.logit_rows = (0..rows as u32).collect();
            if with_targets {
                // The last token has no next one; its loss is cut off.
                batch.targets = (first..first + rows).map(|at| tokens[(at + 1).min(tokens.len() - 1)]).collect();
            }
            result = self.run(&batch, 0).and_then(|(submission, outputs)| {
                let bytes = submission.collect()?;
                each(self, first, rows, &outputs, &bytes)
            });
            if result.is_err() {
                break;
            }
        }
        self.slots.free(tables);
        result
    }
}
