//! Twin tests of the attention kernels, over ragged batches that the planner cuts into work items.

mod deterministic;
mod run;

pub(super) use deterministic::check as check_deterministic;

use crate::self_test::data::{is_f16, load, store};
use crate::self_test::rig::{Failure, Rig};
use raglan_shaders::attention::merge::{self, AttentionMerge, AttentionMergeParams};
use raglan_shaders::attention::{TwinSequence, coop, tile, twin, vector};
use raglan_shaders::{Kernel, KvType, Tolerance, Wanted, accuracy};
use run::{Case, Context, check_case};

/// The twin's result over keys and values that are floats, with the error that scores and exponentials bring into the weights of
/// the values, and, where `is_coop`, the rounding of weights to f16 as the cooperative-matrix form has it.
pub(in crate::self_test) fn wanted(
    sequence: &TwinSequence<'_>,
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
    window: usize,
    is_coop: bool,
) -> Wanted {
    let (k_terms, v_terms) = (sequence.k, sequence.v);
    AttentionForm { is_coop, k_terms, v_terms, is_rounded: false, query_steps: f64::INFINITY }.wanted(
        sequence,
        num_heads,
        num_kv_heads,
        head_dim,
        window,
    )
}

/// As [`wanted`], without a window, over quantised keys and values, of which the sizes of the terms that they are the sum of are given;
/// where `is_vector`, with the rounding of queries that meet them as whole numbers.
pub(in crate::self_test) fn wanted_packed(
    sequence: &TwinSequence<'_>,
    (k_terms, v_terms): (&[f64], &[f64]),
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
    is_vector: bool,
) -> Wanted {
    let query_steps = if is_vector { QUERY_STEPS } else { f64::INFINITY };
    let form = AttentionForm { is_coop: false, k_terms, v_terms, is_rounded: false, query_steps };
    form.wanted(sequence, num_heads, num_kv_heads, head_dim, 0)
}

/// Whole numbers from zero to a query's largest column where quantised keys meet it: 127 · 256.
const QUERY_STEPS: f64 = 32512.0;

/// What a form of attention rounds beside its sums.
struct AttentionForm<'a> {
    /// Weights to f16.
    is_coop: bool,
    /// How large the terms are that keys are the sum of, `[keys, num_kv_heads, head_dim]`.
    k_terms: &'a [f64],
    /// Likewise of values.
    v_terms: &'a [f64],
    /// Decoded keys and values to f16.
    is_rounded: bool,
    /// Queries to so many steps of their largest column.
    query_steps: f64,
}

impl AttentionForm<'_> {
    fn wanted(
        &self,
        sequence: &TwinSequence<'_>,
        num_heads: usize,
        num_kv_heads: usize,
        head_dim: usize,
        window: usize,
    ) -> Wanted {
        let is_coop = self.is_coop;
        let values = twin(sequence, num_heads, num_kv_heads, head_dim, window);
        let rows = sequence.q.len() / (num_heads * head_dim);
        let keys = sequence.k.len() / (num_kv_heads * head_dim);
        let (mut scale, mut inherited) = (vec![0.0; values.len()], vec![0.0; values.len()]);
        let root = (head_dim as f64).sqrt();
        for row in 0..rows {
            let position = keys - rows + row;
            let first = if window == 0 { 0 } else { (position + 1).saturating_sub(window) };
            for head in 0..num_heads {
                let kv_head = head / (num_heads / num_kv_heads);
                let at = (row * num_heads + head) * head_dim;
                let q = &sequence.q[at..at + head_dim];
                let half_step = q.iter().fold(0.0f64, |most, q| most.max(q.abs())) / self.query_steps / 2.0;
                let row = |all: &'_ [f64], key: usize| -> Vec<f64> {
                    all[(key * num_kv_heads + kv_head) * head_dim..][..head_dim].to_vec()
                };
                let rounding = |value: f64| if self.is_rounded { accuracy::f16(value) } else { 0.0 };
                // Scores in units of log2, and their rounding error, which is a relative error of their weights.
                let scores: Vec<(f64, f64)> = (first..=position)
                    .map(|k| {
                        let (keys, terms) = (row(sequence.k, k), row(self.k_terms, k));
                        let score: f64 = q.iter().zip(&keys).map(|(q, k)| q * k / root).sum();
                        let size: f64 = q.iter().zip(&terms).map(|(q, k)| (q * k).abs() / root).sum();
                        let of_query: f64 = terms.iter().map(|k| half_step * k.abs() / root).sum();
                        let of_keys: f64 = q.iter().zip(&keys).map(|(q, &k)| q.abs() * rounding(k) / root).sum();
                        let error = size * (4.0 + root) * accuracy::STEP + of_query + of_keys;
                        (score * std::f64::consts::LOG2_E, error)
                    })
                    .collect();
                let largest = scores.iter().map(|score| score.0).fold(f64::NEG_INFINITY, f64::max);
                let rescalings = rescalings(&scores);
                let total: f64 = scores.iter().map(|score| (score.0 - largest).exp2()).sum();
                let mut weight_error = 0.0;
                for ((k, &(score, error)), &times) in (first..).zip(&scores).zip(&rescalings) {
                    let weight = (score - largest).exp2() / total;
                    // The exponents of the weight and of its rescalings sum to its way to the largest.
                    let mut error = error + times as f64 * accuracy::exp(0.0) + accuracy::exp(score - largest);
                    if is_coop {
                        error += accuracy::exp(coop::LAG) - accuracy::exp(0.0);
                    }
                    weight_error += weight * error;
                    if is_coop {
                        // Half a step of f16; what is less than its least normal number may count as zero.
                        error += if score - largest < -14.0 { 1.0 } else { 2f64.powi(-11) };
                    }
                    for (col, (value, term)) in row(sequence.v, k).iter().zip(row(self.v_terms, k)).enumerate() {
                        scale[at + col] += weight * term.abs();
                        inherited[at + col] += weight * (value.abs() * error + rounding(*value));
                    }
                }
                for col in at..at + head_dim {
                    inherited[col] += values[col].abs() * weight_error;
                }
            }
        }
        Wanted { values, scale, inherited }
    }
}

/// Of each key, how often its weight is rescaled at most: where a later key passes the largest score so far, in whatever part of
/// the keys its team or item has, where teams join, and where partial results merge. Passing is bounded by the longest
/// rising sequence of later scores.
fn rescalings(scores: &[(f64, f64)]) -> Vec<usize> {
    // From the end: of each length, the largest first score of a rising sequence so long; falling.
    let mut firsts: Vec<f64> = Vec::new();
    let mut times: Vec<usize> = scores
        .iter()
        .rev()
        .map(|&(score, _)| {
            let length = firsts.partition_point(|&first| first > score);
            match firsts.get_mut(length) {
                Some(first) => *first = score,
                None => firsts.push(score),
            }
            length + 2
        })
        .collect();
    times.reverse();
    times
}

pub(super) fn check_vector(rig: &Rig<'_>) -> Result<(), Failure> {
    check(rig, &vector::KERNEL)
}

pub(super) fn check_tile(rig: &Rig<'_>) -> Result<(), Failure> {
    check(rig, &tile::KERNEL)
}

/// Any form over quantised keys and values: the first shape with all contexts, others with some, and one of 8K keys.
pub(super) fn check_quantised(rig: &Rig<'_>, kernel: &'static Kernel, kv: KvType) -> Result<(), Failure> {
    let is_coop = std::ptr::eq(kernel, &coop::KERNEL);
    if is_coop && rig.limits().coop_side == 0 {
        return Ok(());
    }
    // Each type in one way of its own where kernels take long to compile, else in two.
    let place = KvType::ALL.iter().position(|other| *other == kv).unwrap_or(0);
    let is_wanted = if rig.is_software() { rig.is_of_one(place) } else { rig.is_of_two(place) };
    if !is_wanted && !rig.is_sweeping() && !is_coop || is_coop && rig.is_software() && rig.turn > 0 {
        return Ok(());
    }
    let mut shapes = [(64, 4, 2), (20, 6, 2), (80, 3, 3), (128, 4, 1), (33, 4, 1), (256, 3, 1)];
    if is_coop {
        shapes.swap(0, 1);
    }
    let software_shapes = if is_coop { 1 } else { 4 };
    for (index, (head_dim, num_heads, num_kv_heads)) in shapes.into_iter().enumerate() {
        if rig.is_software() && index >= software_shapes {
            continue;
        }
        let windows: &[usize] = if index == 0 { &[0, 7] } else { &[[0, 40, 1][index % 3]] };
        for &window in windows {
            for contexts in contexts(index == 0) {
                check_case(rig, kernel, &Case { head_dim, num_heads, num_kv_heads, window, contexts, kv }, index)?;
            }
        }
    }
    let rows = if std::ptr::eq(kernel, &vector::KERNEL) { 1 } else { 5 };
    let segments = vec![5000, 3192];
    let contexts = vec![Context { rows, computed: 8192 - rows, segments, shared: 0 }];
    check_case(
        rig,
        kernel,
        &Case { head_dim: 20, num_heads: 2, num_kv_heads: 1, window: 0, contexts, kv },
        shapes.len(),
    )
}

pub(super) fn check_coop(rig: &Rig<'_>) -> Result<(), Failure> {
    if rig.limits().coop_side == 0 {
        return Ok(());
    }
    // A software adapter takes up to a minute to compile the fragments of a wide head: wide ones are for others, and of its
    // own all but the first are tried in one way.
    let shapes =
        [(16, 4, 2), (20, 6, 2), (33, 3, 1), (64, 8, 1), (80, 3, 3), (96, 4, 2), (128, 4, 1), (160, 2, 1), (256, 3, 1)];
    for (index, (head_dim, num_heads, num_kv_heads)) in shapes.into_iter().enumerate() {
        if rig.is_software() && (head_dim > 64 || index > 0 && rig.turn > 0) {
            continue;
        }
        let windows: &[usize] = if index == 0 { &[0, 1, 7, 40] } else { &[[0, 40, 7][index % 3]] };
        for &window in windows {
            for contexts in contexts(index == 0) {
                check_case(
                    rig,
                    &coop::KERNEL,
                    &Case { head_dim, num_heads, num_kv_heads, window, contexts, kv: rig.kv },
                    index,
                )?;
            }
        }
    }
    Ok(())
}

/// Every width of head and every group, with batches of contexts around the widths of workgroups.
fn check(rig: &Rig<'_>, kernel: &'static Kernel) -> Result<(), Failure> {
    let shapes = [
        (64, 4, 2),
        (80, 3, 3),
        (96, 8, 1),
        (128, 4, 1),
        (256, 3, 1),
        (20, 6, 2),
        (72, 4, 4),
        (50, 8, 2),
        (16, 3, 1),
        (112, 1, 1),
        (160, 2, 2),
        (192, 2, 1),
        (33, 4, 1),
        (16, 12, 1),
    ];
    for (index, (head_dim, num_heads, num_kv_heads)) in shapes.into_iter().enumerate() {
        // The width of a head is compiled in, and there are many: the first is tried in every way, the others in two, or in
        // one where kernels take long to compile.
        let is_wanted = if rig.is_software() { rig.is_of_one(index) } else { rig.is_of_two(index) };
        if index > 0 && !is_wanted {
            continue;
        }
        for window in [0, 1, 7, 40] {
            if index > 0 && window != [0, 1, 7, 40][index % 4] {
                continue;
            }
            for contexts in contexts(index == 0) {
                check_case(
                    rig,
                    kernel,
                    &Case { head_dim, num_heads, num_kv_heads, window, contexts, kv: rig.kv },
                    index,
                )?;
            }
        }
    }
    Ok(())
}

/// Batches: of each sequence its query rows, the tokens before them, and the slots of each of its segments.
fn contexts(all: bool) -> Vec<Vec<Context>> {
    let context =
        |rows, computed, segments: &[usize]| Context { rows, computed, segments: segments.to_vec(), shared: 0 };
    let fork = |rows, computed, segments: &[usize], shared| Context { shared, ..context(rows, computed, segments) };
    let ragged = vec![
        context(1, 0, &[16]),
        context(0, 5, &[16]),
        context(1, 130, &[64, 1, 66]),
        context(5, 0, &[16]),
        context(2, 62, &[16, 48]),
        context(37, 26, &[32, 16, 16]),
        context(1, 63, &[64]),
    ];
    // Forks of a prefix in two segments, of a longer one, and of what is too short to share; then one that is alone.
    let forks = vec![
        context(1, 170, &[100, 33, 40]),
        fork(3, 140, &[100, 33, 20], 2),
        fork(1, 133, &[100, 33, 1], 2),
        fork(9, 180, &[100, 33, 60], 2),
        fork(1, 200, &[100, 33, 60, 10], 3),
        fork(1, 110, &[100, 50], 1),
        fork(1, 77, &[100], 1),
        fork(2, 120, &[100, 50], 1),
        context(1, 70, &[71]),
    ];
    if !all {
        return vec![ragged, forks];
    }
    let lone = |keys: usize| vec![context(1, keys - 1, &[keys])];
    let mut batches: Vec<_> = [1, 7, 15, 31, 32, 33, 63, 64, 65, 127, 128, 129, 257].into_iter().map(lone).collect();
    batches.extend([ragged, forks]);
    // Long enough to be split over items by the planner of a hardware adapter; eight segments, one of a single slot.
    batches.push(vec![context(1, 699, &[700]), context(3, 640, &[16, 1, 63, 100, 20, 200, 43, 200])]);
    batches.push(vec![context(65, 0, &[65]), context(33, 96, &[48, 100])]);
    // Rows around the heights of tiles, most of them alone in an item.
    batches.push([3, 4, 5, 8, 9, 15, 16, 17, 31, 33].map(|rows| context(rows, 3 * rows, &[4 * rows])).into());
    batches
}

pub(super) fn check_merge(rig: &Rig<'_>) -> Result<(), Failure> {
    for schedule in rig.schedules(&merge::KERNEL, &[8, 8]) {
        for (index, (head_dim, group, rows, parts)) in
            [(64, 1, 1, 2), (20, 3, 2, 8), (160, 4, 3, 3), (50, 8, 1, 5), (33, 2, 2, 2), (16, 1, 1, 133)]
                .into_iter()
                .enumerate()
        {
            let mut random = rig.random(index);
            let head_stride = raglan_shaders::attention::head_stride(head_dim).unwrap_or(head_dim);
            let packed = rows * group;
            // Two kv heads; two merges, the second dispatched alone as a later pass is. Its parts lie apart, in an order of
            // their own, each a few rows longer than the merge: other rows may share an item.
            let (kv_heads, pitch) = (2, packed + 3);
            let partials = 2 * parts * pitch;
            let mut sums = random.values(kv_heads * partials * head_stride);
            // Exponents far apart; and items that saw no key, as the kernels leave them.
            let mut weights: Vec<[f32; 2]> =
                (0..kv_heads * partials).map(|_| [random.value() * 20.0, 1.0 + random.value().abs() * 30.0]).collect();
            let starts: Vec<u32> =
                random.permutation(2 * parts).iter().map(|&place| (place * pitch + place % 3) as u32).collect();
            let masked = starts[parts] as usize;
            weights[masked] = [-3.0e38, 0.0];
            sums[masked * head_stride..][..head_stride].fill(0.0);
            let merge_of = |index: usize| AttentionMerge {
                first_row: (index * rows) as u32,
                rows: rows as u32,
                first_part: (index * parts) as u32,
                parts: parts as u32,
            };
            let merges = [merge_of(0), merge_of(1)];
            let out_stride = kv_heads * group * head_dim + 3;
            let params = AttentionMergeParams {
                group: group as u32,
                head_dim: head_dim as u32,
                head_stride: head_stride as u32,
                out_stride: out_stride as u32,
                partials: partials as u32,
                first_merge: 1,
            };
            let variant = merge::KERNEL.variant(&[rig.act, rig.reduce], schedule.clone());
            const UNTOUCHED: f32 = 1234.0;
            let out = store(rig.act, &vec![UNTOUCHED; (2 * rows * out_stride).next_multiple_of(2)]).bytes;
            let inputs = [
                bytemuck::cast_slice(&merges),
                bytemuck::cast_slice(&starts),
                bytemuck::cast_slice(&sums),
                bytemuck::cast_slice(&weights),
                &out,
            ];
            let workgroups = [1, packed as u32 + 1, kv_heads as u32];
            let met = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), workgroups)?;

            let mut want = Wanted::default();
            let mut places = Vec::new();
            for (kv_head, row) in (0..kv_heads).flat_map(|kv_head| (0..packed).map(move |row| (kv_head, row))) {
                let at = |part: usize| kv_head * partials + starts[parts + part] as usize + row;
                let weights: Vec<[f64; 2]> = (0..parts).map(|part| weights[at(part)].map(f64::from)).collect();
                let sums: Vec<f64> = (0..parts)
                    .flat_map(|part| sums[at(part) * head_stride..][..head_dim].iter().map(|&sum| f64::from(sum)))
                    .collect();
                let absolute: Vec<f64> = sums.iter().map(|sum| sum.abs()).collect();
                let values = merge::twin(&sums, &weights, head_dim);
                let scale = merge::twin(&absolute, &weights, head_dim);
                // Every term's weight has the error of its exponential, above and below the line.
                let largest = weights.iter().map(|weight| weight[0]).fold(f64::NEG_INFINITY, f64::max);
                let way =
                    weights.iter().map(|weight| largest - weight[0]).filter(|way| *way < 1e30).fold(0.0, f64::max);
                want.inherited.extend(scale.iter().map(|scale| 2.0 * scale * accuracy::exp(way)));
                want.values.extend(values);
                want.scale.extend(scale);
                let start = (rows + row / group) * out_stride + (kv_head * group + row % group) * head_dim;
                places.extend(start..start + head_dim);
            }
            let tolerance = Tolerance::f32(parts);
            let tolerance = if is_f16(rig.act) { tolerance.stored_f16() } else { tolerance };
            let what = || format!("{variant}, {parts} parts of {packed} × {head_dim}, seed {}", random.seed);
            rig.compare_places(what, tolerance, &load(rig.act, &met[0]), (&places, UNTOUCHED), &want)?;
        }
    }
    Ok(())
}
