//! A deterministic run's attention: the same bits, whatever else is in the batch and however the sequence is cut.

use super::run::{Arenas, Case, attend, out_stride};
use crate::batch::{Batch, StepLimits};
use crate::cost::AdapterClass;
use crate::plan::{AttentionShape, KvGroup, Numerics, Planner};
use crate::segments::Segment;
use crate::self_test::data::{Random, store};
use crate::self_test::rig::{Failure, Rig};
use raglan_shaders::attention::tile;
use std::ops::Range;

/// Tokens of the sequence.
const TOKENS: usize = 600;
const SLOTS: usize = 4096;
const HEAD_DIM: usize = 32;
const HEADS: usize = 3;

/// Keys and values of the sequence, and arenas to lay them in.
struct Rows {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

/// One sequence of a batch: which rows of the sequence it computes, and where its keys lie.
struct Part {
    rows: Range<usize>,
    segments: Vec<Segment>,
}

pub(in crate::self_test::twins) fn check(rig: &Rig<'_>) -> Result<(), Failure> {
    if !rig.is_of_four() {
        return Ok(());
    }
    for window in [0, 1, 301] {
        let mut random = rig.random(window);
        let mut values = || random.values(TOKENS * HEADS * HEAD_DIM);
        let (q, k, v) = (values(), values(), values());
        let rows = Rows { q, k: k[..TOKENS * HEAD_DIM].to_vec(), v: v[..TOKENS * HEAD_DIM].to_vec() };
        check_window(rig, window, &rows, &mut random)?;
    }
    Ok(())
}

fn check_window(rig: &Rig<'_>, window: usize, rows: &Rows, random: &mut Random) -> Result<(), Failure> {
    let whole = vec![Segment { first_slot: 3200, first_position: 0, count: TOKENS }];
    let want = run(rig, window, rows, &[Part { rows: 0..TOKENS, segments: whole.clone() }])?.remove(0);
    let segment = |first_slot, first_position, count| Segment { first_slot, first_position, count };
    let three = vec![segment(2000, 0, 256), segment(1000, 256, 256), segment(3000, 512, 88)];
    let two = vec![segment(2000, 0, 512), segment(16, 512, 88)];
    let fork = vec![segment(2000, 0, 512), segment(256, 512, 88)];
    let late = vec![segment(2000, 0, 512), segment(512, 512, 88)];

    // Alone in chunks; over other segments; among others; beside forks of its prefix, which are attended together.
    let part = |rows: Range<usize>, segments: &Vec<Segment>| Part { rows, segments: segments.clone() };
    let mut batches: Vec<Vec<Part>> = Vec::new();
    for at in [0, 3, 254, 255, 256, 299, 511, 512, 599] {
        batches.push(vec![part(at..at + 1, if at % 2 == 0 { &whole } else { &three })]);
    }
    batches.extend([vec![part(0..TOKENS, &three)], vec![part(250..257, &two)], vec![part(301..338, &whole)]]);
    batches.push(vec![part(0..7, &whole), part(255..300, &three), part(599..600, &two), part(511..513, &two)]);
    batches.push(vec![part(598..600, &two), part(550..551, &fork), part(512..600, &late)]);
    let mut first = 0;
    while first < TOKENS {
        let end = (first + 1 + random.index(150)).min(TOKENS);
        batches.push(vec![part(first..end, &three)]);
        first = end;
    }
    for batch in &batches {
        for (part, met) in batch.iter().zip(run(rig, window, rows, batch)?) {
            let cols = HEADS * HEAD_DIM;
            let what = || format!("rows {:?} of a batch of {}, window {window}", part.rows, batch.len());
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            rig.same(what, &bits(&met), &bits(&want[part.rows.start * cols..part.rows.end * cols]))?;
        }
    }
    Ok(())
}

/// The results of each part of a batch: `[rows, HEADS * HEAD_DIM]`.
fn run(rig: &Rig<'_>, window: usize, rows: &Rows, parts: &[Part]) -> Result<Vec<Vec<f32>>, Failure> {
    let case = Case { head_dim: HEAD_DIM, num_heads: HEADS, num_kv_heads: 1, window, contexts: Vec::new(), kv: rig.kv };
    let shape = AttentionShape {
        num_heads: HEADS,
        num_kv_heads: 1,
        head_dim: HEAD_DIM,
        groups: vec![KvGroup { window: (window > 0).then_some(window), kv: rig.kv }],
        numerics: Numerics::Deterministic { longest_context: TOKENS },
    };
    let limits = StepLimits { max_batch_tokens: 1024, max_sequences: 16, max_adjustments: 1 };
    let planner = Planner::new(shape, AdapterClass::Hardware, &rig.limits(), &limits);

    let mut arenas = Arenas::new(rig.kv, 1, SLOTS, HEAD_DIM);
    for segment in parts.iter().flat_map(|part| &part.segments) {
        for index in 0..segment.count {
            let row = |values: &[f32]| -> Vec<f64> {
                let from = (segment.first_position + index) * HEAD_DIM;
                values[from..from + HEAD_DIM].iter().map(|&value| value.into()).collect()
            };
            arenas.set(rig.kv, segment.first_slot + index, HEAD_DIM, &row(&rows.k), &row(&rows.v));
        }
    }
    let cols = HEADS * HEAD_DIM;
    let mut batch = Batch::new(1);
    let mut q = Vec::new();
    for part in parts {
        batch.push(part.rows.clone().map(|_| 0), part.rows.start, &[&part.segments]);
        q.extend_from_slice(&rows.q[part.rows.start * cols..part.rows.end * cols]);
    }
    let q = store(rig.act, &q);
    let plan = planner.plan(&batch);
    let met = attend(rig, &tile::KERNEL, &case, &plan, SLOTS, &q, &arenas)?;
    let row = |row: usize| met[row * out_stride(&case)..][..cols].iter().copied();
    let rows_of = |sequence: usize| batch.q_indptr[sequence] as usize..batch.q_indptr[sequence + 1] as usize;
    Ok((0..parts.len()).map(|sequence| rows_of(sequence).flat_map(row).collect()).collect())
}
