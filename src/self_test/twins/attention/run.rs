//! One batch through the planner, an attention kernel and the merge.

use super::{AttentionForm, QUERY_STEPS};
use crate::batch::{Batch, StepLimits};
use crate::cost::AdapterClass;
use crate::plan::{AttentionShape, KvGroup, Numerics, Plan, Planner};
use crate::segments::Segment;
use crate::self_test::data::{Stored, is_f16, load, store};
use crate::self_test::rig::{Failure, Rig};
use raglan_shaders::attention::merge::{self, AttentionMergeParams};
use raglan_shaders::attention::{AttentionParams, TwinSequence, coop, tile, vector};
use raglan_shaders::kv_rows::{Decoded, Side};
use raglan_shaders::{Kernel, KvType, Part, Tolerance, Wanted};

/// One sequence of a batch.
pub(super) struct Context {
    /// Query rows, its last tokens.
    pub(super) rows: usize,
    /// Tokens before them.
    pub(super) computed: usize,
    /// Slots of each of its segments; together at least as many as it has tokens.
    pub(super) segments: Vec<usize>,
    /// How many of them, the first, are the sequence's before it.
    pub(super) shared: usize,
}

pub(super) struct Case {
    pub(super) head_dim: usize,
    pub(super) num_heads: usize,
    pub(super) num_kv_heads: usize,
    /// 0: none.
    pub(super) window: usize,
    pub(super) contexts: Vec<Context>,
    /// The type of keys and values.
    pub(super) kv: KvType,
}

impl Case {
    /// Columns of a head in q and in the cache.
    fn stride(&self) -> usize {
        self.kv.head_stride(self.head_dim).unwrap_or(self.head_dim)
    }
}

/// The cache of a layer: bytes of keys, of values and of their scales, and what rows say. What nobody may read is NaN.
pub(super) struct Arenas {
    pub(super) k: Vec<u8>,
    pub(super) v: Vec<u8>,
    pub(super) scales: Vec<u8>,
    /// `[num_kv_heads, slots]`: key and value.
    rows: Vec<[Decoded; 2]>,
}

impl Arenas {
    pub(super) fn new(kv: KvType, num_kv_heads: usize, slots: usize, head_stride: usize) -> Arenas {
        let rows = num_kv_heads * slots;
        let nan = |row_bytes: usize| vec![0xff; rows * row_bytes];
        Arenas {
            k: nan(kv.k_row_bytes(head_stride)),
            v: nan(kv.v_row_bytes(head_stride)),
            // Something has to be bound where nothing is read.
            scales: if kv.is_quantised() { nan(kv.scale_bytes()) } else { vec![0xff; 16] },
            rows: vec![Default::default(); rows],
        }
    }

    /// Puts a key and its value in row `head * slots + slot`.
    pub(super) fn set(&mut self, kv: KvType, row: usize, head_stride: usize, key: &[f64], value: &[f64]) {
        let (k, key_scale) = kv.encode(Side::Key, key, head_stride);
        let (v, value_scale) = kv.encode(Side::Value, value, head_stride);
        self.rows[row] =
            [kv.decode(Side::Key, &k, key_scale, key.len()), kv.decode(Side::Value, &v, value_scale, value.len())];
        let words = kv.scale_words(key_scale, value_scale);
        let scales: &[u8] = bytemuck::cast_slice(&words);
        for (arena, bytes) in [(&mut self.k, &k[..]), (&mut self.v, &v), (&mut self.scales, scales)] {
            arena[row * bytes.len()..][..bytes.len()].copy_from_slice(bytes);
        }
    }
}

const UNTOUCHED: f32 = 1234.0;

pub(super) fn check_case(rig: &Rig<'_>, kernel: &'static Kernel, case: &Case, index: usize) -> Result<(), Failure> {
    let &Case { head_dim, num_heads, num_kv_heads, window, ref contexts, kv } = case;
    let mut random = rig.random(index);
    let stride = case.stride();

    // Segments scattered over the arena with slots of others between, in an order of their own.
    let lengths: Vec<usize> =
        contexts.iter().flat_map(|context| context.segments[context.shared..].iter().copied()).collect();
    let order = random.permutation(lengths.len());
    let mut starts = vec![0; lengths.len()];
    let mut slots = 3;
    for place in order {
        starts[place] = slots;
        slots += lengths[place] + 1 + random.index(4);
    }

    // Some keys of some cases are far larger than the others, so that maxima grow by much, and late.
    let outliers = window % 8 == 0;
    let mut arenas = Arenas::new(kv, num_kv_heads, slots, stride);
    for (&start, &length) in starts.iter().zip(&lengths) {
        for (head, slot) in (0..num_kv_heads).flat_map(|head| (start..start + length).map(move |slot| (head, slot))) {
            let size = if outliers && slot % 13 == 0 { 24.0 } else { 3.0 };
            let key: Vec<f64> = random.values(head_dim).iter().map(|&value| size * f64::from(value)).collect();
            let value: Vec<f64> = random.values(head_dim).iter().map(|&value| value.into()).collect();
            arenas.set(kv, head * slots + slot, stride, &key, &value);
        }
    }

    let mut batch = Batch::new(1);
    let mut next = 0;
    let mut tables = Vec::new();
    for context in contexts {
        let mut segments: Vec<Segment> =
            tables.last().map_or(Vec::new(), |last: &Vec<_>| last[..context.shared].to_vec());
        let mut first_position = segments.iter().map(|segment| segment.count).sum();
        for &count in &context.segments[context.shared..] {
            segments.push(Segment { first_slot: starts[next], first_position, count });
            first_position += count;
            next += 1;
        }
        batch.push((0..context.rows).map(|_| 0), context.computed, &[&segments]);
        tables.push(segments);
    }
    let tokens = batch.tokens();
    let mut rows = vec![0.0; tokens * num_heads * stride];
    for row in rows.chunks_exact_mut(stride) {
        row[..head_dim].copy_from_slice(&random.values(head_dim));
    }
    let q = store(rig.act, &rows);

    let shape = AttentionShape {
        num_heads,
        num_kv_heads,
        head_dim,
        groups: vec![KvGroup { window: (window > 0).then_some(window), kv }],
        numerics: Numerics::Fast,
    };
    let class = if rig.turn.is_multiple_of(2) { AdapterClass::Hardware } else { AdapterClass::Software };
    let limits = StepLimits { max_batch_tokens: 256, max_sequences: 16, max_adjustments: 1 };
    let planner = Planner::new(shape, class, &rig.limits(), &limits);
    let plan = planner.plan(&batch);
    let met = attend(rig, kernel, case, &plan, slots, &q, &arenas)?;

    let (is_vector, is_coop) = (std::ptr::eq(kernel, &vector::KERNEL), std::ptr::eq(kernel, &coop::KERNEL));
    let mut want = Wanted::default();
    for (sequence, segments) in tables.iter().enumerate() {
        let at = batch.q_indptr[sequence] as usize..batch.q_indptr[sequence + 1] as usize;
        if at.is_empty() {
            continue;
        }
        let slots_of = |s: &Segment| s.first_slot..s.first_slot + s.count;
        let keys = contexts[sequence].computed + at.len();
        let own = segments.iter().flat_map(slots_of).take(keys);
        let rows: Vec<_> = own.flat_map(|slot| (0..num_kv_heads).map(move |head| head * slots + slot)).collect();
        let gather = |part: &dyn Fn(&[Decoded; 2]) -> &[f64]| -> Vec<f64> {
            rows.iter().flat_map(|&row| part(&arenas.rows[row])).copied().collect()
        };
        let heads = |row: usize| &q.values[row * stride..][..head_dim];
        let q: Vec<f64> = (at.start * num_heads..at.end * num_heads).flat_map(heads).copied().collect();
        let (k, v) = (gather(&|row| &row[0].values), gather(&|row| &row[1].values));
        let (k_terms, v_terms) = (gather(&|row| &row[0].magnitudes), gather(&|row| &row[1].magnitudes));
        let form = AttentionForm {
            is_coop,
            k_terms: &k_terms,
            v_terms: &v_terms,
            is_rounded: kv.is_quantised() && is_coop,
            query_steps: if kv.is_quantised() && is_vector { QUERY_STEPS } else { f64::INFINITY },
        };
        let part = form.wanted(&TwinSequence { q: &q, k: &k, v: &v }, num_heads, num_kv_heads, head_dim, window);
        want.values.extend(part.values);
        want.scale.extend(part.scale);
        want.inherited.extend(part.inherited);
    }
    let out_stride = out_stride(case);
    let places: Vec<usize> =
        (0..tokens).flat_map(|token| token * out_stride..token * out_stride + num_heads * head_dim).collect();
    let keys = contexts.iter().map(|context| context.computed + context.rows).max().unwrap_or(0);
    let tolerance = if is_f16(rig.act) { Tolerance::f32(keys).stored_f16() } else { Tolerance::f32(keys) };
    let what = || {
        let lengths: Vec<_> = contexts.iter().map(|c| (c.rows, c.computed)).collect();
        format!(
            "{}, {kv}, {num_heads}/{num_kv_heads} heads of {head_dim}, window {window}, (rows, computed) {lengths:?}, seed {}",
            kernel.name, random.seed
        )
    };
    rig.compare_places(what, tolerance, &met, (&places, UNTOUCHED), &want)
}

/// From one row of the result to the next: a few columns more than the heads take.
pub(super) fn out_stride(case: &Case) -> usize {
    (case.num_heads * case.head_dim + 2).next_multiple_of(2)
}

/// Runs every item of a plan by `kernel`, whichever form the planner had in mind for it.
pub(super) fn attend(
    rig: &Rig<'_>,
    kernel: &'static Kernel,
    case: &Case,
    plan: &Plan,
    slots: usize,
    q: &Stored,
    arenas: &Arenas,
) -> Result<Vec<f32>, Failure> {
    let (kv, stride) = (case.kv, case.stride());
    let tokens = q.values.len() / (case.num_heads * stride);
    let group = case.num_heads / case.num_kv_heads;
    let partials = case.num_kv_heads * plan.partials.max(1);
    let mut out = store(rig.act, &vec![UNTOUCHED; tokens * out_stride(case)]).bytes;
    let mut sums: Vec<u8> = bytemuck::cast_slice(&vec![f32::NAN; partials * stride]).to_vec();
    let mut weights: Vec<u8> = bytemuck::cast_slice(&vec![f32::NAN; partials * 2]).to_vec();
    let schedule = rig.one_schedule(kernel, &[64, 64, stride as u32, kv.word_values() as u32], stride / 16);
    let (is_vector, is_coop) = (std::ptr::eq(kernel, &vector::KERNEL), std::ptr::eq(kernel, &coop::KERNEL));
    let rows = match kernel.name {
        "attention_vector" => kernel.value(&schedule, "ROWS"),
        "attention_coop" => coop::packed_rows(&schedule, rig.limits().coop_side),
        _ => tile::packed_rows(&schedule),
    } as usize;
    let variant = kernel.variant(&[rig.act, Part::Kv(kv), if is_coop { rig.coop } else { rig.team }], schedule);
    for pass in &plan.passes {
        let tiles = pass.tiles.iter().zip(pass.tile_packed_rows);
        let forms: Vec<_> = [(&pass.vector, pass.vector_packed_rows)].into_iter().chain(tiles).collect();
        for (items, packed_rows) in forms.into_iter().filter(|(items, _)| !items.is_empty()) {
            let params = AttentionParams {
                num_heads: case.num_heads as u32,
                group: group as u32,
                head_dim: case.head_dim as u32,
                slots: slots as u32,
                window: case.window as u32,
                scale_log2: (std::f64::consts::LOG2_E / (case.head_dim as f64).sqrt()) as f32,
                out_stride: out_stride(case) as u32,
                partials: plan.partials as u32,
                first_item: items.start as u32,
            };
            let [heads, blocks, items] = [case.num_kv_heads, packed_rows.div_ceil(rows), items.len()].map(|n| n as u32);
            let workgroups = if is_vector { [heads, blocks, items] } else { [items, blocks, heads] };
            let items = bytemuck::cast_slice(&plan.items);
            let inputs = [&q.bytes, &arenas.k, &arenas.v, items, &out, &sums, &weights, &arenas.scales];
            let mut met = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), workgroups)?.into_iter();
            [&mut out, &mut sums, &mut weights].into_iter().for_each(|bytes| *bytes = met.next().unwrap_or_default());
        }
        if !pass.merges.is_empty() {
            let params = AttentionMergeParams {
                group: group as u32,
                head_dim: case.head_dim as u32,
                head_stride: stride as u32,
                out_stride: out_stride(case) as u32,
                partials: plan.partials as u32,
                first_merge: pass.merges.start as u32,
            };
            let variant =
                merge::KERNEL.variant(&[rig.act, rig.reduce], rig.one_schedule(&merge::KERNEL, &[64, 64], stride / 16));
            let workgroups = [pass.merges.len() as u32, pass.merge_packed_rows as u32, case.num_kv_heads as u32];
            let lists = [bytemuck::cast_slice(&plan.merges), bytemuck::cast_slice(&plan.parts)];
            let inputs = [lists[0], lists[1], &sums[..], &weights[..], &out[..]];
            out = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), workgroups)?.remove(0);
        }
    }
    Ok(load(rig.act, &out))
}
