//! A batch → stretches: query rows and the keys that they read together.
//!
//! A leaf is some rows of one sequence and the keys that only it reads here. Where neighbours in the batch share a prefix,
//! one shared stretch has the prefix with all their rows, its leaves what is left, and so on in depth.

use super::{NONE, Numerics, Planner, Scratch};
use crate::batch::{Batch, GroupBatch};
use crate::segments::{MAX_SEGMENTS, Segment};
use raglan_shaders::attention::CHUNK;
use raglan_shaders::attention::vector::MOST_ROWS;
use std::ops::Range;

/// Keys that a shared prefix has at least; less is cheaper to read again than to merge.
const LEAST_SHARED: usize = 64;

/// Query rows and one stretch of keys, all of which some of them see.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub(super) first_row: usize,
    pub(super) rows: usize,
    /// Position of the first row; of a shared stretch its last key's, since every row sees every key.
    pub(super) row_position: usize,
    /// Runs of keys, in [`Scratch::runs`].
    pub(super) runs: (usize, usize),
    /// The shared stretch whose keys these rows see before their own, or [`NONE`].
    pub(super) parent: usize,
    pub(super) shared: bool,
    /// 0 for the vector form, else one more than the place in [`Planner::tiles`].
    pub(super) form: usize,
    /// Of a shared stretch, where the partial results of its parts start: in [`Scratch::blocks`], known once its items are.
    pub(super) blocks: (usize, usize),
}

/// Consecutive slots and how many keys they hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) first_slot: usize,
    pub(super) first_position: usize,
    pub(super) count: usize,
}

/// What stretches are made from.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) batch: &'a Batch,
    pub(super) group: &'a GroupBatch,
    pub(super) window: Option<usize>,
}

impl Source<'_> {
    fn rows(&self, sequence: usize) -> Range<usize> {
        self.batch.q_indptr[sequence] as usize..self.batch.q_indptr[sequence + 1] as usize
    }

    fn segments(&self, sequence: usize) -> &[Segment] {
        let indptr = &self.group.segment_indptr;
        &self.group.segments[indptr[sequence] as usize..indptr[sequence + 1] as usize]
    }

    /// How many leading keys two sequences have in the same slots, all of them before the first row of either.
    fn common(&self, a: usize, b: usize) -> usize {
        let (rows_a, rows_b) = (self.rows(a), self.rows(b));
        if self.window.is_some() || rows_a.is_empty() || rows_b.is_empty() {
            return 0;
        }
        let mut keys = 0;
        for (x, y) in self.segments(a).iter().zip(self.segments(b)) {
            if (x.first_slot, x.first_position) != (y.first_slot, y.first_position) {
                break;
            }
            keys = x.first_position + x.count.min(y.count);
            if x.count != y.count {
                break;
            }
        }
        let positions = &self.batch.positions;
        keys.min(positions[rows_a.start] as usize).min(positions[rows_b.start] as usize)
    }
}

impl Planner {
    /// Query rows to a tile of such a form.
    pub(super) fn tile_rows(&self, form: usize, scratch: &Scratch) -> usize {
        (scratch.heights[form - 1] / self.shape.group()).max(1)
    }

    /// Query rows to a tile of a sequence that reads up to `keys` keys: every part of a tile finds room at once.
    fn leaf_rows(&self, form: usize, keys: usize, scratch: &Scratch) -> usize {
        let parts = if self.is_deterministic() { keys / CHUNK + 2 } else { MAX_SEGMENTS };
        self.tile_rows(form, scratch).min(self.capacity.partials / self.shape.group() / parts).max(1)
    }

    /// Fills the scratch with the stretches of a group, parents before their children, in the order of the rows.
    pub(super) fn stretches(&self, source: Source<'_>, cascade: bool, scratch: &mut Scratch) {
        scratch.stretches.clear();
        scratch.runs.clear();
        scratch.common.clear();
        let sequences = source.batch.sequences();
        scratch.common.resize(sequences, 0);
        if cascade {
            for next in 1..sequences {
                let common = source.common(next - 1, next);
                scratch.common[next] = if self.is_deterministic() { common / CHUNK * CHUNK } else { common };
            }
        }
        self.level(source, 0..sequences, (0, NONE), scratch);
    }

    /// The stretches of `sequences` from position `base` on, which follow the shared stretch `parent`.
    fn level(
        &self,
        source: Source<'_>,
        sequences: Range<usize>,
        (base, parent): (usize, usize),
        scratch: &mut Scratch,
    ) {
        let least = base + if self.is_deterministic() { CHUNK } else { LEAST_SHARED };
        let mut first = sequences.start;
        for next in sequences.start + 1..=sequences.end {
            if next < sequences.end && scratch.common[next] >= least {
                continue;
            }
            if next - first == 1 {
                self.leaves(source, first, (base, parent), scratch);
            } else {
                let end = scratch.common[first + 1..next].iter().copied().min().unwrap_or(base);
                let rows = source.rows(first).start..source.rows(next - 1).end;
                let runs = runs(source.segments(first), &(base..end), &mut scratch.runs);
                let form = self.form(rows.len(), scratch.kind);
                let row_position = end - 1;
                let (first_row, rows) = (rows.start, rows.len());
                let blocks = (0, 0);
                let shared = Stretch { first_row, rows, row_position, runs, parent, shared: true, form, blocks };
                scratch.stretches.push(shared);
                self.level(source, first..next, (end, scratch.stretches.len() - 1), scratch);
            }
            first = next;
        }
    }

    /// The stretches of one sequence: its rows in tiles, each with the keys from `base` on that it sees.
    fn leaves(&self, source: Source<'_>, sequence: usize, (base, parent): (usize, usize), scratch: &mut Scratch) {
        let rows = source.rows(sequence);
        if rows.is_empty() {
            return;
        }
        let form = self.form(rows.len(), scratch.kind);
        let from_of = |position: usize| source.window.map_or(0, |w| (position + 1).saturating_sub(w)).max(base);
        let first_position = source.batch.positions[rows.start] as usize;
        let keys = first_position + rows.len() - from_of(first_position);
        let tile_rows = if form == 0 { rows.len() } else { self.leaf_rows(form, keys, scratch) };
        for first_row in rows.clone().step_by(tile_rows) {
            let rows = tile_rows.min(rows.end - first_row);
            let row_position = source.batch.positions[first_row] as usize;
            let from = from_of(row_position);
            // Masked keys change nothing, so that a chunk may start before the window.
            let from = if self.is_deterministic() { from / CHUNK * CHUNK } else { from };
            let runs = runs(source.segments(sequence), &(from..row_position + rows), &mut scratch.runs);
            scratch.stretches.push(Stretch {
                first_row,
                rows,
                row_position,
                runs,
                parent,
                shared: false,
                form,
                blocks: (0, 0),
            });
        }
    }

    fn form(&self, rows: usize, kind: usize) -> usize {
        let tiles = &self.kinds[kind].tiles;
        let packed_rows = rows * self.shape.group();
        if self.shape.numerics == Numerics::Fast && (rows == 1 || packed_rows <= MOST_ROWS as usize) {
            return 0;
        }
        1 + tiles.iter().position(|tile| packed_rows <= tile.packed_rows).unwrap_or(tiles.len() - 1)
    }
}

/// Appends the runs of `segments` with positions in `seen`; returns where they are.
fn runs(segments: &[Segment], seen: &Range<usize>, out: &mut Vec<Run>) -> (usize, usize) {
    let start = out.len();
    for segment in segments {
        let first = segment.first_position.max(seen.start);
        let end = (segment.first_position + segment.count).min(seen.end);
        if first < end {
            let first_slot = segment.first_slot + first - segment.first_position;
            out.push(Run { first_slot, first_position: first, count: end - first });
        }
    }
    (start, out.len())
}
