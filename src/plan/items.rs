//! Stretches → work items, and the merges that join their partial results.

use super::picks::{Chunks, Picks};
use super::stretches::Stretch;
use super::{FORMS, MAX_WORKGROUPS, NONE, Numerics, Pass, Plan, Planner, Scratch};
use raglan_shaders::attention::merge::AttentionMerge;
use raglan_shaders::attention::{AttentionItem, CHUNK, DIRECT};
use std::ops::Range;

impl Planner {
    /// Writes the items of the stretches in the scratch, in as many passes as the room for partial results asks for.
    pub(super) fn passes(&self, picks: Picks, chunks: Chunks, plan: &mut Plan) -> Range<usize> {
        let first_pass = plan.passes.len();
        let mut first = 0;
        while first < plan.scratch.stretches.len() {
            let stretches = &plan.scratch.stretches;
            let (mut end, mut room, mut items) = (first, self.capacity.partials, MAX_WORKGROUPS);
            while end < stretches.len() {
                let unit = unit(stretches, end);
                let (needed, parts) = self.need(&plan.scratch, unit.clone(), chunks);
                if end > first && (needed > room || parts > items) {
                    break;
                }
                (room, items, end) = (room.saturating_sub(needed), items.saturating_sub(parts), unit.end);
            }
            self.pass(first..end, (picks, chunks), plan);
            first = end;
        }
        first_pass..plan.passes.len()
    }

    /// Whether every stretch with all that follows it finds room in one pass, and their parts in the plan.
    pub(super) fn fits(&self, scratch: &Scratch) -> bool {
        let chunks = if self.is_deterministic() { [CHUNK; FORMS] } else { [usize::MAX; FORMS] };
        let (mut first, mut room) = (0, self.capacity.parts / self.shape.groups.len() * self.shape.group());
        while first < scratch.stretches.len() {
            let unit = unit(&scratch.stretches, first);
            first = unit.end;
            let (needed, _) = self.need(scratch, unit, chunks);
            if needed > self.capacity.partials || needed > room {
                return false;
            }
            room -= needed;
        }
        true
    }

    /// Items that read the same keys of a stretch, for other rows of it.
    pub(super) fn tiles_of(&self, stretch: &Stretch, scratch: &Scratch) -> usize {
        if stretch.form == 0 { 1 } else { stretch.rows.div_ceil(self.tile_rows(stretch.form, scratch)) }
    }

    /// Packed rows of partial results that `stretches` need, and items.
    pub(super) fn need(&self, scratch: &Scratch, stretches: Range<usize>, chunks: Chunks) -> (usize, usize) {
        let (mut rows, mut items) = (0, 0);
        for stretch in &scratch.stretches[stretches] {
            let parts = parts(scratch, stretch, chunks);
            rows += if self.is_direct(stretch, parts) { 0 } else { parts * stretch.rows };
            items += parts * self.tiles_of(stretch, scratch);
        }
        (rows * self.shape.group(), items)
    }

    /// Whether a stretch's rows are finished by its only item. Deterministic rows always pass the merge, so that it is the
    /// same division for all.
    fn is_direct(&self, stretch: &Stretch, parts: usize) -> bool {
        self.shape.numerics == Numerics::Fast && !stretch.shared && stretch.parent == NONE && parts == 1
    }

    /// Writes the items and merges of some stretches.
    fn pass(&self, stretches: Range<usize>, (picks, chunks): (Picks, Chunks), plan: &mut Plan) {
        let group = self.shape.group();
        let (first_merge, mut next, mut merge_rows, mut packed_rows) = (plan.merges.len(), 0, 0, [0; FORMS]);
        let scratch = &mut plan.scratch;
        let kind = &self.kinds[scratch.kind];
        scratch.items.iter_mut().for_each(Vec::clear);
        scratch.blocks.clear();
        for index in stretches {
            let stretch = scratch.stretches[index];
            let (form, chunk) = (stretch.form, chunks[stretch.form]);
            let direct = self.is_direct(&stretch, parts(scratch, &stretch, chunks));
            let (first_block, first_part) = (scratch.blocks.len(), plan.parts.len());
            if !direct && !stretch.shared {
                scratch.ancestors(&stretch, group, &mut plan.parts);
            }
            let tile_rows = if form == 0 { stretch.rows } else { self.tile_rows(form, scratch) };
            for run in &scratch.runs[stretch.runs.0..stretch.runs.1] {
                for at in (0..run.count).step_by(chunk) {
                    let count = chunk.min(run.count - at);
                    for first in (0..stretch.rows).step_by(tile_rows) {
                        let rows = tile_rows.min(stretch.rows - first);
                        packed_rows[form] = packed_rows[form].max(rows * group);
                        scratch.items[form].push(AttentionItem {
                            first_row: (stretch.first_row + first) as u32,
                            rows: rows as u32,
                            first_slot: (run.first_slot + at) as u32,
                            count: count as u32,
                            first_position: (run.first_position + at) as u32,
                            row_position: stretch.row_position as u32,
                            partial: if direct { DIRECT } else { (next + first * group) as u32 },
                        });
                    }
                    if !direct {
                        let list = if stretch.shared { &mut scratch.blocks } else { &mut plan.parts };
                        list.push(next as u32);
                        next += stretch.rows * group;
                    }
                }
            }
            if stretch.shared {
                scratch.stretches[index].blocks = (first_block, scratch.blocks.len());
            } else if !direct {
                merge_rows = merge_rows.max(stretch.rows * group);
                plan.merges.push(AttentionMerge {
                    first_row: stretch.first_row as u32,
                    rows: stretch.rows as u32,
                    first_part: first_part as u32,
                    parts: (plan.parts.len() - first_part) as u32,
                });
            }
        }
        plan.partials = plan.partials.max(next);
        let [short, tall] = scratch.heights;
        for (items, packed) in scratch.items.iter().zip([kind.vector_rows(picks[0], packed_rows[0]), short, tall]) {
            let keys = |item: &AttentionItem| item.count as usize * (item.rows as usize * group).div_ceil(packed);
            plan.keys_read += items.iter().map(keys).sum::<usize>() as u64;
        }
        let [vector, short, tall] =
            [0, 1, 2].map(|form: usize| longest_first(&scratch.items[form], &mut scratch.order, &mut plan.items));
        plan.passes.push(Pass {
            vector,
            vector_packed_rows: packed_rows[0],
            tiles: [short, tall],
            tile_packed_rows: [packed_rows[1], packed_rows[2]],
            merges: first_merge..plan.merges.len(),
            merge_packed_rows: merge_rows,
        });
    }
}

impl Scratch {
    /// Appends where the rows of a leaf lie in the partial results of the shared stretches before it, by position.
    fn ancestors(&mut self, leaf: &Stretch, group: usize, parts: &mut Vec<u32>) {
        self.chain.clear();
        let mut at = leaf.parent;
        while at != NONE {
            self.chain.push(at);
            at = self.stretches[at].parent;
        }
        for &shared in self.chain.iter().rev() {
            let shared = self.stretches[shared];
            let rows_before = ((leaf.first_row - shared.first_row) * group) as u32;
            parts.extend(self.blocks[shared.blocks.0..shared.blocks.1].iter().map(|block| block + rows_before));
        }
    }
}

/// A stretch that follows no other, and all that follow it.
fn unit(stretches: &[Stretch], first: usize) -> Range<usize> {
    let followers = stretches[first + 1..].iter().take_while(|stretch| stretch.parent != NONE).count();
    first..first + 1 + followers
}

/// Items along the keys of a stretch.
fn parts(scratch: &Scratch, stretch: &Stretch, chunks: Chunks) -> usize {
    let runs = &scratch.runs[stretch.runs.0..stretch.runs.1];
    runs.iter().map(|run| run.count.div_ceil(chunks[stretch.form])).sum()
}

/// Appends `items` by falling count; among equals those that were planned together stay together.
fn longest_first(items: &[AttentionItem], order: &mut Vec<u64>, out: &mut Vec<AttentionItem>) -> Range<usize> {
    order.clear();
    order.extend(items.iter().zip(0u64..).map(|(item, index)| u64::from(!item.count) << 32 | index));
    order.sort_unstable();
    let first = out.len();
    out.extend(order.iter().map(|key| items[*key as u32 as usize]));
    first..out.len()
}
