//! What happens to keys and values between two steps: rows that move, go to the host and come back.

use super::Stepper;
use crate::batch::Batch;
use crate::error::Error;
use crate::plan::MOST_MOVES;
use crate::scheduler::CacheOp;
use crate::segments::Move;

impl Stepper {
    /// What happens to keys and values between two steps.
    pub(super) fn change_cache(&mut self, op: CacheOp) -> Result<(), Error> {
        match op {
            CacheOp::Move(moves) => self.move_rows(&moves),
            CacheOp::Save { saved, segments } => {
                let bytes = self.kv_cache.save(&self.gpu, &segments)?;
                saved.bytes.set(bytes).expect("a sequence is saved once");
                Ok(())
            }
            CacheOp::Restore { saved, segments } => {
                let positions: Vec<_> = saved.first_positions.iter().map(|&first| first..saved.end).collect();
                let bytes = saved.bytes.get().expect("what comes back was saved");
                self.kv_cache.restore(&mut self.uploader, bytes, &positions, &segments)
            }
        }
    }

    /// Copies rows before the next step.
    fn move_rows(&mut self, moves: &[Vec<Move>]) -> Result<(), Error> {
        let mut batch = Batch::new(self.slots.len());
        batch.set_moves(moves);
        self.move_what_is_too_much(&mut batch)?;
        self.run(&batch, 0)?.0.collect().map(|_| ())
    }

    /// Copies the first rows of a batch in submissions of their own, where there are more moves than a step has room for.
    pub(super) fn move_what_is_too_much(&mut self, batch: &mut Batch) -> Result<(), Error> {
        let moves = |batch: &Batch| batch.groups.iter().flat_map(|group| &group.moves).map(Vec::len).sum::<usize>();
        while moves(batch) > MOST_MOVES {
            let mut part = Batch::new(batch.groups.len());
            for (part, group) in part.groups.iter_mut().zip(&mut batch.groups) {
                let Some(round) = group.moves.first_mut() else { continue };
                part.moves.push(round.drain(..round.len().min(MOST_MOVES / self.slots.len())).collect());
                group.moves.retain(|round| !round.is_empty());
            }
            self.run(&part, 0)?.0.collect()?;
        }
        Ok(())
    }
}
