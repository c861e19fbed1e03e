//! A batch → work items for attention, and the schedules of the step's kernels.

use crate::batch::{Batch, StepLimits};
use crate::cost::{AdapterClass, attention_chunk};
use crate::segments::Segment;
use raglan_shaders::attention::merge::AttentionMerge;
use raglan_shaders::attention::vector::PACKED_ROWS;
use raglan_shaders::attention::{AttentionItem, DIRECT, tile, vector};
use raglan_shaders::{Kernel, Schedule, matmul, matvec};
use std::ops::Range;

/// Workgroups along one dimension that every adapter allows.
const MAX_WORKGROUPS: usize = 65_535;

/// The attention of a model, as far as planning depends on it.
#[derive(Debug, Clone)]
pub struct AttentionShape {
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Columns of a head in the cache.
    pub head_stride: usize,
    /// Bytes of one of them.
    pub element_bytes: usize,
    /// The windows that its layers have, each once.
    pub windows: Vec<Option<usize>>,
}

impl AttentionShape {
    /// Query heads to a kv head.
    pub fn group(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }
}

/// The work items of one step. Layers with the same window share theirs.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Of all windows.
    pub items: Vec<AttentionItem>,
    /// Of all windows.
    pub merges: Vec<AttentionMerge>,
    /// One a window of [`AttentionShape::windows`].
    pub windows: Vec<WindowPlan>,
    /// Rows of partial results that the largest window needs.
    pub partials: usize,
}

/// Which items a layer runs.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct WindowPlan {
    /// Items for the vector form, longest first.
    pub vector: Range<usize>,
    /// The most packed rows among them.
    pub vector_packed_rows: usize,
    /// Items for the tile form, longest first.
    pub tile: Range<usize>,
    /// The most packed rows among them.
    pub tile_packed_rows: usize,
    /// Merges.
    pub merges: Range<usize>,
    /// The most packed rows among them.
    pub merge_packed_rows: usize,
}

/// How a matrix product runs.
#[derive(Debug, Clone)]
pub struct LinearChoice {
    /// `matvec` or `matmul`.
    pub kernel: &'static Kernel,
    /// Its schedule.
    pub schedule: Schedule,
}

impl Capacity {
    /// What the plan of a step within `limits` may hold.
    pub fn of(shape: &AttentionShape, limits: &StepLimits) -> Capacity {
        // A sequence of one segment may gain a second in its step; those of more are counted by the scheduler; and
        // long contexts may be split as far as the rest allows.
        let rows = 2 * limits.max_batch_tokens + limits.max_split_rows;
        let spare = (16 * limits.max_batch_tokens).min(512);
        let partials = 2 * shape.num_heads * (rows + spare);
        let merges = shape.windows.len() * shape.num_kv_heads * limits.max_batch_tokens;
        Capacity { items: merges + shape.windows.len() * partials / shape.group(), merges, partials }
    }
}

/// Plans steps for one model on one adapter.
#[derive(Debug)]
pub struct Planner {
    shape: AttentionShape,
    class: AdapterClass,
    tile_lanes: usize,
    capacity: Capacity,
}

/// What a step's plan may hold at most, from what a step may hold: what buffers are made for.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// Work items.
    pub items: usize,
    /// Merges.
    pub merges: usize,
    /// Rows of partial results.
    pub partials: usize,
}

/// Query rows of one sequence and one stretch of its keys that they see.
struct Stretch {
    first_row: usize,
    rows: usize,
    row_position: usize,
    /// Runs of keys, clipped to what some of the rows see.
    runs: Vec<Segment>,
}

impl Planner {
    /// A planner for a model's attention on a class of adapter.
    pub fn new(shape: AttentionShape, class: AdapterClass, limits: &StepLimits) -> Self {
        let capacity = Capacity::of(&shape, limits);
        Planner { shape, class, tile_lanes: 32, capacity }
    }

    /// What a plan may hold at most.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// The schedule of the tile form.
    pub fn tile_schedule(&self) -> Schedule {
        tile::KERNEL.schedule(&[("LANES", self.tile_lanes as u32), ("HEAD_STRIDE", self.shape.head_stride as u32)])
    }

    /// The schedule of the vector form.
    pub fn vector_schedule(&self) -> Schedule {
        let lanes = if self.class == AdapterClass::Software { 32 } else { 64 };
        vector::KERNEL.schedule(&[("LANES", lanes), ("HEAD_STRIDE", self.shape.head_stride as u32)])
    }

    /// The schedule of a kernel with one workgroup a row of `cols` columns.
    pub fn row_schedule(&self, kernel: &'static Kernel, cols: usize) -> Schedule {
        let wanted = match self.class {
            AdapterClass::Software => 32,
            AdapterClass::Hardware => 256.min(cols.div_ceil(4).next_power_of_two()),
        };
        let lanes = kernel.tunables[0].values.iter().copied().min_by_key(|&lanes| lanes.abs_diff(wanted as u32));
        kernel.schedule(&[("LANES", lanes.expect("a tunable has values"))])
    }

    /// The work items of a batch.
    pub fn plan(&self, batch: &Batch) -> Plan {
        let mut plan = Plan::default();
        for &window in &self.shape.windows {
            let mut tiles = Vec::new();
            let mut vectors = Vec::new();
            for sequence in 0..batch.sequences() {
                self.stretches(batch, sequence, window, &mut vectors, &mut tiles);
            }
            let runs: Vec<usize> = vectors.iter().flat_map(|s| s.runs.iter().map(|run| run.count)).collect();
            let key_bytes = 2 * self.shape.head_stride * self.shape.element_bytes;
            let partial_bytes = 4 * self.shape.head_stride * self.shape.group();
            let model = self.class.wave_model();
            let mut chunk = attention_chunk(&model, &runs, self.shape.num_kv_heads, key_bytes, partial_bytes);
            let mut next_partial = 0;
            let items =
                |chunk: usize| runs.iter().map(|keys| keys.div_ceil(chunk)).sum::<usize>() * self.shape.num_kv_heads;
            while (self.partials(&vectors, chunk) > self.capacity.partials / 2 || items(chunk) > MAX_WORKGROUPS)
                && runs.iter().any(|&keys| keys > chunk)
            {
                chunk *= 2;
            }
            let first_merge = plan.merges.len();
            let (vector, vector_packed_rows) = self.items(&vectors, chunk, &mut next_partial, &mut plan);
            let (tile, tile_packed_rows) = self.items(&tiles, usize::MAX, &mut next_partial, &mut plan);
            let merges = first_merge..plan.merges.len();
            let merge_packed_rows =
                plan.merges[merges.clone()].iter().map(|m| m.rows as usize * self.shape.group()).max().unwrap_or(0);
            plan.partials = plan.partials.max(next_partial);
            plan.windows.push(WindowPlan {
                vector,
                vector_packed_rows,
                tile,
                tile_packed_rows,
                merges,
                merge_packed_rows,
            });
        }
        let Capacity { items, merges, partials } = self.capacity;
        assert!(
            plan.items.len() <= items && plan.merges.len() <= merges && plan.partials <= partials,
            "a plan within its buffers"
        );
        plan
    }

    /// Rows of partial results that `stretches` need when their runs are split at `chunk` keys.
    fn partials(&self, stretches: &[Stretch], chunk: usize) -> usize {
        let of = |stretch: &Stretch| {
            let parts: usize = stretch.runs.iter().map(|run| run.count.div_ceil(chunk)).sum();
            if parts > 1 { parts * stretch.rows * self.shape.num_heads } else { 0 }
        };
        stretches.iter().map(of).sum()
    }

    /// Splits a sequence's query rows into tiles, each with the keys that it sees.
    fn stretches(
        &self,
        batch: &Batch,
        sequence: usize,
        window: Option<usize>,
        vectors: &mut Vec<Stretch>,
        tiles: &mut Vec<Stretch>,
    ) {
        let rows = batch.q_indptr[sequence] as usize..batch.q_indptr[sequence + 1] as usize;
        let segments =
            &batch.segments[batch.segment_indptr[sequence] as usize..batch.segment_indptr[sequence + 1] as usize];
        let is_vector = rows.len() == 1 || rows.len() * self.shape.group() <= 2 * PACKED_ROWS as usize;
        let tile_rows = if is_vector { rows.len() } else { (self.tile_lanes / self.shape.group()).max(1) };
        for first_row in rows.clone().step_by(tile_rows.max(1)) {
            let tile_len = tile_rows.min(rows.end - first_row);
            let row_position = batch.positions[first_row] as usize;
            let seen = window.map_or(0, |w| (row_position + 1).saturating_sub(w))..row_position + tile_len;
            let runs = segments.iter().filter_map(|segment| clip(segment, &seen)).collect();
            let stretch = Stretch { first_row, rows: tile_len, row_position, runs };
            if is_vector { vectors.push(stretch) } else { tiles.push(stretch) }
        }
    }

    /// Writes the items of `stretches`, split at `chunk` keys, longest first, and the merges that they need.
    fn items(
        &self,
        stretches: &[Stretch],
        chunk: usize,
        next_partial: &mut usize,
        plan: &mut Plan,
    ) -> (Range<usize>, usize) {
        let first_item = plan.items.len();
        let mut packed_rows = 0;
        for stretch in stretches {
            let parts: usize = stretch.runs.iter().map(|run| run.count.div_ceil(chunk)).sum();
            let packed = stretch.rows * self.shape.group();
            packed_rows = packed_rows.max(packed);
            for kv_head in 0..self.shape.num_kv_heads {
                let item = AttentionItem {
                    first_row: stretch.first_row as u32,
                    rows: stretch.rows as u32,
                    kv_head: kv_head as u32,
                    row_position: stretch.row_position as u32,
                    partial: DIRECT,
                    ..AttentionItem::default()
                };
                if parts > 1 {
                    plan.merges.push(AttentionMerge {
                        first_row: item.first_row,
                        rows: item.rows,
                        kv_head: item.kv_head,
                        partial: *next_partial as u32,
                        parts: parts as u32,
                    });
                }
                for run in &stretch.runs {
                    for at in (0..run.count).step_by(chunk) {
                        let partial = if parts > 1 { *next_partial as u32 } else { DIRECT };
                        *next_partial += if parts > 1 { packed } else { 0 };
                        plan.items.push(AttentionItem {
                            first_slot: (run.first_slot + at) as u32,
                            count: chunk.min(run.count - at) as u32,
                            first_position: (run.first_position + at) as u32,
                            partial,
                            ..item
                        });
                    }
                }
            }
        }
        plan.items[first_item..].sort_by_key(|item| std::cmp::Reverse(item.count));
        (first_item..plan.items.len(), packed_rows)
    }

    /// How `[rows, inner] · [cols, inner]ᵀ` runs on this adapter.
    pub fn linear(&self, rows: usize, cols: usize, inner: usize) -> LinearChoice {
        match self.class {
            // Few tile heights, since a software adapter takes about a second to compile a large tile.
            AdapterClass::Software => {
                let (tile_m, tile_n) = match rows {
                    1 => (1, 4),
                    2..=4 => (4, 8),
                    _ => (8, 8),
                };
                let settings = [("LANES_M", 1), ("LANES_N", 32), ("TILE_M", tile_m), ("TILE_N", tile_n), ("STAGE", 0)];
                LinearChoice { kernel: &matmul::KERNEL, schedule: matmul::KERNEL.schedule(&settings) }
            }
            AdapterClass::Hardware if rows <= 8 && (rows <= 4 || cols.div_ceil(4) <= MAX_WORKGROUPS) => {
                let tile_m = (rows as u32).next_power_of_two();
                let lanes = if inner >= 4096 { 128 } else { 64 };
                // A vocabulary of over 262,140 would take more workgroups than a dispatch may have.
                let tile_n = if cols.div_ceil(4) > MAX_WORKGROUPS && tile_m <= 4 { 8 } else { 4 };
                let settings = [("LANES", lanes), ("TILE_M", tile_m), ("TILE_N", tile_n)];
                LinearChoice { kernel: &matvec::KERNEL, schedule: matvec::KERNEL.schedule(&settings) }
            }
            AdapterClass::Hardware => {
                LinearChoice { kernel: &matmul::KERNEL, schedule: matmul::KERNEL.default_schedule() }
            }
        }
    }
}

/// The part of a segment with positions in `seen`, if any.
fn clip(segment: &Segment, seen: &Range<usize>) -> Option<Segment> {
    let first = segment.first_position.max(seen.start);
    let end = (segment.first_position + segment.count).min(seen.end);
    let first_slot = segment.first_slot + first.checked_sub(segment.first_position)?;
    (first < end).then(|| Segment { first_slot, first_position: first, count: end - first })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planner(windows: Vec<Option<usize>>) -> Planner {
        let shape = AttentionShape { num_heads: 6, num_kv_heads: 2, head_stride: 16, element_bytes: 4, windows };
        let limits = StepLimits { max_batch_tokens: 512, max_sequences: 8, max_adjustments: 0, max_split_rows: 512 };
        Planner::new(shape, AdapterClass::Hardware, &limits)
    }

    /// Every (row, key) pair that causality and the window allow is in just one item of every kv head.
    #[test]
    fn items_cover_every_visible_key_once() {
        for window in [None, Some(5), Some(40)] {
            let planner = planner(vec![window]);
            let mut batch = Batch::new();
            let whole = |first_slot| [Segment { first_slot, first_position: 0, count: 1024 }];
            batch.push(0..1, 999, &whole(0));
            batch.push(0..37, 63, &whole(2048));
            let (first, second) = (
                Segment { first_slot: 4000, first_position: 0, count: 48 },
                Segment { first_slot: 1500, first_position: 48, count: 200 },
            );
            batch.push(0..100, 0, &[first, second]);
            batch.push(0..1, 120, &[first, second]);
            let plan = planner.plan(&batch);
            for sequence in 0..batch.sequences() {
                for row in batch.q_indptr[sequence]..batch.q_indptr[sequence + 1] {
                    let position = batch.positions[row as usize];
                    let mut seen = vec![0; position as usize + 1];
                    for item in plan
                        .items
                        .iter()
                        .filter(|i| i.kv_head == 1 && (i.first_row..i.first_row + i.rows).contains(&row))
                    {
                        assert_eq!(item.row_position + row - item.first_row, position);
                        for key in item.first_position..(item.first_position + item.count).min(position + 1) {
                            seen[key as usize] += 1;
                        }
                    }
                    let from = window.map_or(0, |w| (position as usize + 1).saturating_sub(w));
                    assert!(seen[from..].iter().all(|&count| count == 1), "window {window:?}, row {row}: {seen:?}");
                }
            }
        }
    }

    #[test]
    fn a_row_with_one_item_is_written_directly_and_others_are_merged() {
        let planner = planner(vec![None]);
        let mut batch = Batch::new();
        batch.push(0..1, 100, &[Segment { first_slot: 0, first_position: 0, count: 112 }]);
        batch.push(
            0..1,
            100,
            &[
                Segment { first_slot: 200, first_position: 0, count: 64 },
                Segment { first_slot: 400, first_position: 64, count: 64 },
            ],
        );
        let plan = planner.plan(&batch);
        assert_eq!(plan.items.iter().filter(|i| i.partial == DIRECT).count(), 2);
        assert_eq!(plan.merges.len(), 2);
        assert!(plan.merges.iter().all(|m| m.parts == 2 && m.first_row == 1));
        assert_eq!(plan.partials, 2 * 2 * 3);
    }
}
