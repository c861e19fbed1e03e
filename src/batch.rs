//! The flat arrays of one step: a ragged batch.

use crate::segments::{QUANTUM, Segment};
use raglan_shaders::adjust_logits::LogitAdjustment;
use raglan_shaders::top_k::TopKRow;

/// What one step may hold.
#[derive(Debug, Clone, Copy)]
pub struct StepLimits {
    /// Tokens of all sequences.
    pub max_batch_tokens: usize,
    /// Sequences, which is also rows of logits.
    pub max_sequences: usize,
    /// Penalised logits.
    pub max_adjustments: usize,
    /// Query rows times segments, over the sequences that have several.
    pub max_split_rows: usize,
}

/// What one step computes. Sequence `s` owns the tokens `q_indptr[s]..q_indptr[s + 1]` and the segments
/// `segment_indptr[s]..segment_indptr[s + 1]`.
#[derive(Debug, Default, Clone)]
pub struct Batch {
    /// `[tokens]`: vocabulary rows, or `SAMPLED | row` for a row of the last step's samples.
    pub token_ids: Vec<u32>,
    /// `[tokens]`: places in their sequences.
    pub positions: Vec<u32>,
    /// `[tokens]`: where their keys and values go.
    pub slots: Vec<u32>,
    /// `[sequences + 1]`, first 0.
    pub q_indptr: Vec<u32>,
    /// Runs of slots with the keys up to each sequence's last token of this step, by position.
    pub segments: Vec<Segment>,
    /// `[sequences + 1]`, first 0.
    pub segment_indptr: Vec<u32>,
    /// Tokens whose logits are wanted, ascending.
    pub logit_rows: Vec<u32>,
    /// Penalised logits; `row` counts in `logit_rows`.
    pub adjustments: Vec<LogitAdjustment>,
    /// Rows that the host samples from; `row` counts in `logit_rows`.
    pub top_rows: Vec<TopKRow>,
    /// The next token of each of `logit_rows`, where its loss is wanted; else empty.
    pub targets: Vec<u32>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Batch { q_indptr: vec![0], segment_indptr: vec![0], ..Batch::default() }
    }

    /// A batch of `tokens` that dispatches all that one of its size can: a context in two segments, penalties, sampling.
    /// It is never run: its token ids and slots mean nothing.
    pub fn rehearsal(tokens: usize, max_sequences: usize) -> Self {
        let mut batch = Batch::new();
        let first = Segment { first_slot: 0, first_position: 0, count: QUANTUM };
        let second = Segment { first_slot: 2 * QUANTUM, first_position: QUANTUM, count: tokens };
        batch.push((0..tokens).map(|_| 0), QUANTUM, &[first, second]);
        batch.logit_rows = (0..tokens.min(max_sequences) as u32).collect();
        batch.adjustments.push(LogitAdjustment { row: 0, token: 0, repetition: 1.0, subtract: 0.0 });
        batch.top_rows.push(TopKRow { row: 0, inverse_temperature: 1.0 });
        batch
    }

    /// Appends a sequence's next tokens. `segments` hold its keys from position 0; the tokens take the places
    /// `first_position..first_position + token_ids.len()`.
    ///
    /// # Panics
    /// If the segments do not reach that far.
    pub fn push(&mut self, token_ids: impl IntoIterator<Item = u32>, first_position: usize, segments: &[Segment]) {
        let first = self.token_ids.len();
        self.token_ids.extend(token_ids);
        let end = first_position + self.token_ids.len() - first;
        let mut position = first_position;
        for segment in segments {
            if segment.first_position >= end {
                break;
            }
            let keys = segment.count.min(end - segment.first_position);
            self.segments.push(Segment { count: keys, ..*segment });
            while position < segment.first_position + keys {
                self.positions.push(position as u32);
                self.slots.push((segment.first_slot + position - segment.first_position) as u32);
                position += 1;
            }
        }
        assert_eq!(position, end, "segments of a sequence reach its last token");
        self.q_indptr.push(self.token_ids.len() as u32);
        self.segment_indptr.push(self.segments.len() as u32);
    }

    /// Asks for the logits of the last token pushed; returns its row among them.
    pub fn want_last_logits(&mut self) -> u32 {
        self.logit_rows.push(self.token_ids.len() as u32 - 1);
        self.logit_rows.len() as u32 - 1
    }

    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.token_ids.len()
    }

    /// Sequences.
    pub fn sequences(&self) -> usize {
        self.q_indptr.len() - 1
    }
}
