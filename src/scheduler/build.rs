//! A chosen step as flat arrays.

use super::step::Step;
use super::{Scheduled, Scheduler};
use crate::batch::Batch;
use crate::segments::SlotGroups;
use crate::sequence::{InFlightToken, Sequence};
use raglan_shaders::adjust_logits::LogitAdjustment;
use raglan_shaders::embedding::SAMPLED;
use raglan_shaders::top_k::TopKRow;

impl Scheduler {
    /// The chosen sequences as flat arrays, those that share a prefix beside each other.
    pub(super) fn build(&mut self, step: &Step, slots: &mut SlotGroups) -> Scheduled {
        let number = self.steps;
        self.steps += 1;
        let mut batch = Batch::new(slots.len());
        let mut sampled = Vec::new();
        for chosen in step.in_order(&self.sequences, slots) {
            let sequence = self.sequences.get_mut(&chosen.rank.1).expect("a chosen sequence");
            let tables = sequence.tables.as_ref().expect("a chosen sequence has tables");
            let (known, first) = (sequence.tokens.len(), sequence.computed);
            let end = first + chosen.tokens;
            let ids = (first..end).map(|place| match sequence.in_flight {
                Some(token) if place == known => SAMPLED | token.row,
                _ => sequence.tokens[place],
            });
            batch.push(ids, first, &slots.segments(tables));
            sequence.computed = end;
            sequence.last_step = number;
            if end < known + usize::from(sequence.in_flight.is_some()) {
                sequence.in_flight = None;
                continue;
            }
            let row = batch.want_last_logits();
            sequence.in_flight = Some(InFlightToken { step: number, row });
            batch.adjustments.extend(penalties(sequence, row));
            if sequence.sampling.temperature > 0.0 {
                let inverse_temperature = 1.0 / sequence.sampling.temperature;
                batch.top_rows.push(TopKRow { row, inverse_temperature });
            }
            sampled.push(chosen.rank.1);
        }
        let moved = slots.moving();
        batch.set_moves(&slots.take_moves());
        self.stats.computed_tokens += batch.tokens() as u64;
        let most = self.options.move_share * slots.capacity() as f64;
        self.move_credit = (self.move_credit + self.options.move_share * step.load.keys as f64).min(most);
        self.move_credit = (self.move_credit - moved as f64).max(0.0);
        Scheduled {
            predicted_us: self.cost.step_us(&step.load)
                + self.cost.move_us(moved)
                + self.before.iter().map(|op| op.host_slots()).map(|slots| self.cost.swap_us(slots) / 2.0).sum::<f64>(),
            before: std::mem::take(&mut self.before),
            batch,
            sampled,
            step: number,
            load: step.load,
        }
    }
}

/// The adjustments of a sequence's next logits, by token.
fn penalties(sequence: &Sequence, row: u32) -> Vec<LogitAdjustment> {
    let params = &sequence.sampling;
    let mut counts: Vec<_> = sequence.occurrences().iter().map(|(&token, &count)| (token, count)).collect();
    counts.sort_unstable();
    let adjustment = |(token, count): (u32, u32)| LogitAdjustment {
        row,
        token,
        repetition: params.repetition_penalty,
        subtract: if count > 0 { params.presence_penalty + params.frequency_penalty * count as f32 } else { 0.0 },
    };
    counts.into_iter().map(adjustment).collect()
}
