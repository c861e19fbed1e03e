//! What a text makes of the inputs of a model's matrices: by how much the error of each column counts when they are quantised.

use super::Stepper;
use crate::batch::Batch;
use crate::decoder::{Watch, Watched};
use crate::error::Error;
use raglan_models::{LayerRole, Role};

/// The mean square of every input column of every layer's matrices.
#[derive(Debug, Clone, PartialEq)]
pub struct Importance {
    /// By layer and [`Watched`].
    layers: Vec<[Vec<f32>; 4]>,
}

impl Importance {
    /// Of the columns of a matrix, `[cols]`; `None` for what is no matrix of a layer.
    pub fn of(&self, role: Role) -> Option<&[f32]> {
        use LayerRole::{Down, Gate, K, O, Q, Up, V};
        let Role::Layer(layer, role) = role else { return None };
        let watched = match role {
            Q | K | V => Watched::Qkv,
            O => Watched::O,
            Gate | Up => Watched::GateUp,
            Down => Watched::Down,
            _ => return None,
        };
        self.layers.get(layer).map(|layer| &layer[watched as usize][..])
    }
}

impl Stepper {
    /// Runs `tokens` through the model in windows that do not see each other, and gathers the mean squares of what its matrices are
    /// multiplied by. `progress` hears the tokens done and those in all.
    ///
    /// # Errors
    /// As [`Stepper::step`], and where there are no tokens, or a window does not fit.
    ///
    /// # Panics
    /// If the engine is not idle.
    pub fn importance(
        &mut self,
        tokens: &[u32],
        window: usize,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Importance, Error> {
        assert!(self.is_idle(), "an engine watches while it is idle");
        let window = window.min(self.longest());
        if tokens.is_empty() || window == 0 {
            return Err(Error::Request { message: "there are no tokens to watch activations over".to_owned() });
        }
        self.forget_prefixes();
        self.decoder.set_watch(Some(Watch::new(&self.gpu, self.decoder.spec())?));
        let (mut done, total) = (0, tokens.len());
        let ran: Result<(), Error> = tokens.chunks(window).try_for_each(|tokens| {
            self.run_window(tokens)?;
            done += tokens.len();
            progress(done, total);
            Ok(())
        });
        let watch = self.decoder.set_watch(None).expect("it was set above");
        ran?;
        let mean = |layer: usize, watched: Watched| -> Result<Vec<f32>, Error> {
            let sums = watch.read(&self.gpu, layer, watched)?;
            let means: Vec<f32> = sums.into_iter().map(|sum| sum / tokens.len() as f32).collect();
            if means.iter().all(|mean| mean.is_finite()) { Ok(means) } else { Err(Error::NotANumber) }
        };
        let [qkv, o, gate_up, down] = Watched::ALL;
        let layer = |layer| Ok([mean(layer, qkv)?, mean(layer, o)?, mean(layer, gate_up)?, mean(layer, down)?]);
        let layers = (0..self.spec().layers.len()).map(layer).collect::<Result<_, Error>>()?;
        Ok(Importance { layers })
    }

    /// Runs tokens as one sequence from nothing, without logits.
    fn run_window(&mut self, tokens: &[u32]) -> Result<(), Error> {
        let tables = self.slots.admit();
        let chunk = self.limits.max_batch_tokens.min(self.slots.longest_chunk());
        let mut result = Ok(());
        for first in (0..tokens.len()).step_by(chunk) {
            let rows = chunk.min(tokens.len() - first);
            self.slots.release_unseen(&tables, first);
            if !self.slots.extend(&tables, first + rows) {
                let message = format!("no room for a window of {} tokens beside what is held", tokens.len());
                result = Err(Error::Request { message });
                break;
            }
            let mut batch = Batch::new(self.slots.len());
            batch.push(tokens[first..first + rows].iter().copied(), first, &self.slots.segments(&tables));
            batch.set_moves(&self.slots.take_moves());
            result = self.run(&batch, 0).and_then(|(submission, _)| submission.collect().map(|_| ()));
            if result.is_err() {
                break;
            }
        }
        self.slots.free(tables);
        result
    }
}
