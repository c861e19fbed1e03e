//! The flat arrays of one step: a ragged batch.

use crate::segments::{Move, Segment, Segments};
use raglan_shaders::adjust_logits::LogitAdjustment;
use raglan_shaders::attention::CHUNK;
use raglan_shaders::top_k::TopKRow;
use std::ops::Range;

/// What one step may hold.
#[derive(Debug, Clone, Copy)]
pub struct StepLimits {
    /// Tokens of all sequences.
    pub max_batch_tokens: usize,
    /// Sequences, which is also rows of logits.
    pub max_sequences: usize,
    /// Penalised logits.
    pub max_adjustments: usize,
}

/// What one step computes. Sequence `s` owns the tokens `q_indptr[s]..q_indptr[s + 1]`, and in each KV group the segments
/// `segment_indptr[s]..segment_indptr[s + 1]`.
#[derive(Debug, Default, Clone)]
pub struct Batch {
    /// `[tokens]`: vocabulary rows, or `SAMPLED | row` for a row of the last step's samples.
    pub token_ids: Vec<u32>,
    /// `[tokens]`: places in their sequences.
    pub positions: Vec<u32>,
    /// `[sequences + 1]`, first 0.
    pub q_indptr: Vec<u32>,
    /// Where keys and values lie, one a KV group of the model.
    pub groups: Vec<GroupBatch>,
    /// Tokens whose logits are wanted, ascending.
    pub logit_rows: Vec<u32>,
    /// Penalised logits; `row` counts in `logit_rows`.
    pub adjustments: Vec<LogitAdjustment>,
    /// Rows that the host samples from; `row` counts in `logit_rows`.
    pub top_rows: Vec<TopKRow>,
    /// The next token of each of `logit_rows`, where its loss is wanted; else empty.
    pub targets: Vec<u32>,
}

/// Where the keys and values of a batch lie in the arenas of one KV group: the layers that share a window.
#[derive(Debug, Clone)]
pub struct GroupBatch {
    /// Rows to copy before anything is appended or read: a round after the other, within a round in any order.
    pub moves: Vec<Vec<Move>>,
    /// `[tokens]`: where their keys and values go.
    pub slots: Vec<u32>,
    /// Runs of slots with the keys up to each sequence's last token of this step, by position.
    pub segments: Vec<Segment>,
    /// `[sequences + 1]`, first 0.
    pub segment_indptr: Vec<u32>,
}

impl Batch {
    /// An empty batch for a model of so many KV groups.
    pub fn new(groups: usize) -> Self {
        let group = GroupBatch { moves: Vec::new(), slots: Vec::new(), segments: Vec::new(), segment_indptr: vec![0] };
        Batch { q_indptr: vec![0], groups: vec![group; groups], ..Batch::default() }
    }

    /// A batch of `tokens` that dispatches all that one of its size can: a move, a context in two segments, penalties,
    /// sampling. It is never run: its token ids and slots mean nothing.
    pub fn rehearsal(tokens: usize, max_sequences: usize, groups: usize) -> Self {
        let mut batch = Batch::new(groups);
        let first = Segment { first_slot: 0, first_position: 0, count: CHUNK };
        let second = Segment { first_slot: 2 * CHUNK, first_position: CHUNK, count: tokens };
        batch.push((0..tokens).map(|_| 0), CHUNK, &vec![[first, second]; groups]);
        for group in &mut batch.groups {
            group.moves.push(vec![Move { from: 0, to: 1, count: 1 }]);
        }
        batch.logit_rows = (0..tokens.min(max_sequences) as u32).collect();
        batch.adjustments.push(LogitAdjustment { row: 0, token: 0, repetition: 1.0, subtract: 0.0 });
        batch.top_rows.push(TopKRow { row: 0, inverse_temperature: 1.0 });
        batch
    }

    /// Appends a sequence's next tokens, which take the places `first_position..first_position + token_ids.len()`.
    /// `segments` hold its keys in each KV group, by position, from the first that its window lets it see.
    ///
    /// # Panics
    /// If there is not a list of segments for each group, or one does not reach that far.
    pub fn push<S: AsRef<[Segment]>>(
        &mut self,
        token_ids: impl IntoIterator<Item = u32>,
        first_position: usize,
        segments: &[S],
    ) {
        let first = self.token_ids.len();
        self.token_ids.extend(token_ids);
        let end = first_position + self.token_ids.len() - first;
        self.positions.extend(first_position as u32..end as u32);
        self.q_indptr.push(self.token_ids.len() as u32);
        assert_eq!(segments.len(), self.groups.len(), "segments of every KV group");
        for (group, segments) in self.groups.iter_mut().zip(segments) {
            group.push(first_position..end, segments.as_ref());
        }
    }

    /// The moves that come before the batch, of each KV group in order.
    pub fn set_moves(&mut self, moves: &[Vec<Move>]) {
        for (group, moves) in self.groups.iter_mut().zip(moves) {
            group.moves = Segments::rounds(moves);
        }
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

impl GroupBatch {
    fn push(&mut self, positions: Range<usize>, segments: &[Segment]) {
        let mut position = positions.start;
        for segment in segments.iter().take_while(|segment| segment.first_position < positions.end) {
            let keys = segment.count.min(positions.end - segment.first_position);
            self.segments.push(Segment { count: keys, ..*segment });
            while position < segment.first_position + keys {
                self.slots.push((segment.first_slot + position - segment.first_position) as u32);
                position += 1;
            }
        }
        assert_eq!(position, positions.end, "segments of a sequence reach its last token");
        self.segment_indptr.push(self.segments.len() as u32);
    }
}
