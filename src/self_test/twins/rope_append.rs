//! Twin tests of `rope_append.wgsl`.

use crate::self_test::data::{is_f16, load, store, words};
use crate::self_test::rig::{Failure, Rig};
use raglan_shaders::kv_rows::{Scale, Side, rotate};
use raglan_shaders::rope_append::{KERNEL, RopeAppendParams, table, twin};
use raglan_shaders::{KvType, Part, Tolerance, Variant, Wanted, accuracy, rotation, round_up};

const UNTOUCHED: f32 = 1234.0;
/// Around the ends of the table's rows, and far out.
const POSITIONS: [u32; 7] = [0, 1, 1023, 1024, 1_000_003, 77, 2048];
const SLOTS: usize = 19;
/// What is kept for certain of any type; beyond it clamps.
const LARGEST: f64 = 65504.0;

struct Case {
    head_dim: usize,
    rotary_dim: usize,
    num_heads: usize,
    num_kv_heads: usize,
    norm: bool,
    /// What cos and sin are multiplied by.
    factor: f64,
}

const fn case(
    head_dim: usize,
    rotary_dim: usize,
    (num_heads, num_kv_heads): (usize, usize),
    norm: bool,
    factor: f64,
) -> Case {
    Case { head_dim, rotary_dim, num_heads, num_kv_heads, norm, factor }
}

pub(super) fn check(rig: &Rig<'_>) -> Result<(), Failure> {
    let cases = [
        case(64, 64, (4, 2), false, 1.0),
        case(64, 0, (2, 1), false, 1.0),
        case(64, 0, (2, 1), true, 1.0),
        case(20, 20, (3, 1), true, 1.0),
        case(72, 36, (1, 1), false, 1.0),
        case(50, 50, (2, 2), true, 1.25),
        case(2, 2, (1, 1), false, 1.0),
        case(128, 32, (2, 1), true, 1.0),
        case(256, 256, (1, 1), false, 1.0),
    ];
    for (index, case) in cases.iter().enumerate() {
        check_floats(rig, case, index)?;
    }
    Ok(())
}

pub(super) fn check_quantised(rig: &Rig<'_>, kv: KvType) -> Result<(), Failure> {
    let place = KvType::ALL.iter().position(|other| *other == kv).unwrap_or(0);
    if !rig.is_of_two(place) && !rig.is_sweeping() {
        return Ok(());
    }
    let cases = [
        case(64, 64, (4, 2), false, 1.0),
        case(20, 20, (3, 1), true, 1.0),
        case(64, 0, (2, 1), true, 1.0),
        case(80, 80, (2, 2), false, 1.0),
        case(128, 32, (2, 1), true, 1.0),
        case(50, 50, (2, 2), true, 1.25),
        case(2, 2, (1, 1), false, 1.0),
        case(256, 256, (1, 1), false, 1.0),
    ];
    for (index, case) in cases.iter().enumerate() {
        check_rows(rig, case, kv, index)?;
    }
    Ok(())
}

/// A dispatch: what it was given, and what came back.
struct Run<'a> {
    case: &'a Case,
    params: RopeAppendParams,
    variant: Variant,
    seed: u64,
    qkv: Vec<f32>,
    slots: Vec<usize>,
    inv_freq: Vec<f64>,
    norms: [Vec<f32>; 2],
    /// `[num_kv_heads, head_stride]`
    mean: Vec<f32>,
    /// K, V and scales as they were.
    before: [Vec<u8>; 3],
    /// q, K, V and scales.
    met: Vec<Vec<u8>>,
}

/// A token's head: which of queries, keys and values it is of, where it is written, and what it is before it is rounded.
struct Head {
    kind: usize,
    row: usize,
    values: Vec<f64>,
    /// Stands for the values where terms cancel.
    scale: Vec<f64>,
}

const QUERY: usize = 0;
const KEY: usize = 1;
const VALUE: usize = 2;

impl Run<'_> {
    fn new<'a>(
        rig: &Rig<'_>,
        case: &'a Case,
        kv: KvType,
        index: usize,
        before: &dyn Fn(usize) -> Vec<u8>,
    ) -> Result<Run<'a>, Failure> {
        let &Case { head_dim, rotary_dim, num_heads, num_kv_heads, norm, factor } = case;
        let mut random = rig.random(index);
        let tokens = POSITIONS.len();
        let head_stride = kv.head_stride(head_dim).unwrap_or(head_dim);
        let k_col = round_up(num_heads * head_dim, 32);
        let v_col = k_col + round_up(num_kv_heads * head_dim, 32);
        let qkv_stride = v_col + round_up(num_kv_heads * head_dim, 32);
        let params = RopeAppendParams {
            num_heads: num_heads as u32,
            num_kv_heads: num_kv_heads as u32,
            head_dim: head_dim as u32,
            rotary_dim: rotary_dim as u32,
            qkv_stride: qkv_stride as u32,
            k_col: k_col as u32,
            v_col: v_col as u32,
            head_stride: head_stride as u32,
            slots: SLOTS as u32,
            norm: norm.into(),
            eps: 1e-3,
            rotation: if index % 3 == 2 { 0 } else { rotation(head_dim) as u32 },
        };
        let mut qkv = random.values(tokens * qkv_stride);
        if kv.is_quantised() {
            // A row of nothing, one that is beyond what is kept, and one that is far from zero.
            qkv[2 * qkv_stride..3 * qkv_stride].fill(0.0);
            qkv[3 * qkv_stride..4 * qkv_stride].iter_mut().for_each(|value| *value *= 3e5);
            qkv[5 * qkv_stride..6 * qkv_stride].iter_mut().for_each(|value| *value = 9.0 + *value / 16.0);
        }
        let slots = random.permutation(SLOTS);
        let places: Vec<[u32; 2]> =
            POSITIONS.iter().zip(&slots).map(|(&position, &slot)| [position, slot as u32]).collect();
        let inv_freq: Vec<f64> =
            (0..rotary_dim / 2).map(|i| 10_000f64.powf(-(2.0 * i as f64) / rotary_dim as f64)).collect();
        let mut rope = table(&inv_freq, factor, 1_000_004);
        rope.resize(rope.len().max(1), [0.0; 2]);
        let norms = [random.values(head_dim), random.values(head_dim)];
        let mean = random.values(num_kv_heads * head_stride);
        let heads = num_heads + 2 * num_kv_heads;
        let schedule = rig.one_schedule(&KERNEL, &[tokens as u32, heads as u32, head_dim as u32], index);
        let variant = KERNEL.variant(&[rig.act, Part::Kv(kv), rig.reduce], schedule);
        let q = store(rig.act, &vec![UNTOUCHED; tokens * num_heads * head_stride]).bytes;
        let rows = num_kv_heads * SLOTS;
        let sizes = [kv.k_row_bytes(head_stride), kv.v_row_bytes(head_stride), kv.scale_bytes()];
        let before = sizes.map(|row_bytes| before((rows * row_bytes).max(16)));
        let inputs: [&[u8]; 10] = [
            bytemuck::cast_slice(&qkv),
            bytemuck::cast_slice(&places),
            bytemuck::cast_slice(&rope),
            bytemuck::cast_slice(&norms[0]),
            bytemuck::cast_slice(&norms[1]),
            &q,
            &before[0],
            &before[1],
            &before[2],
            bytemuck::cast_slice(&mean),
        ];
        let met = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), [tokens as u32, heads as u32, 1])?;
        Ok(Run { case, params, variant, seed: random.seed, qkv, slots, inv_freq, norms, mean, before, met })
    }

    fn what(&self, kind: &str) -> String {
        let Case { head_dim, rotary_dim, norm, .. } = self.case;
        let RopeAppendParams { rotation, .. } = self.params;
        format!(
            "{}, {kind} of {head_dim} columns, {rotary_dim} turn, norm {norm}, {rotation} rotated, seed {}",
            self.variant, self.seed
        )
    }

    /// The sum of squares, and the two sums of a turn and of the addition theorem.
    fn tolerance(&self) -> Tolerance {
        Tolerance::f32(4 + if self.case.norm { self.case.head_dim } else { 0 })
    }

    /// Every head of every token, after norm and RoPE.
    fn heads(&self) -> Vec<Head> {
        let &Case { head_dim, rotary_dim, num_heads, num_kv_heads, norm, factor } = self.case;
        let exact = |values: &[f32]| -> Vec<f64> { values.iter().map(|&value| value.into()).collect() };
        let mut all = Vec::new();
        for (token, &position) in POSITIONS.iter().enumerate() {
            for head in 0..num_heads + 2 * num_kv_heads {
                // Query, key or value; where it is read and written.
                let (kind, head, col) = match head {
                    head if head < num_heads => (QUERY, head, 0),
                    head if head < num_heads + num_kv_heads => (KEY, head - num_heads, self.params.k_col),
                    head => (VALUE, head - num_heads - num_kv_heads, self.params.v_col),
                };
                let at = token * self.params.qkv_stride as usize + col as usize + head * head_dim;
                let x = exact(&self.qkv[at..at + head_dim]);
                let row = if kind == QUERY { token * num_heads + head } else { head * SLOTS + self.slots[token] };
                if kind == VALUE {
                    let scale = x.iter().map(|x| x.abs()).collect();
                    all.push(Head { kind, row, values: x, scale });
                    continue;
                }
                let weight = if norm { exact(&self.norms[kind]) } else { Vec::new() };
                let values = twin(&self.params, &x, &weight, &self.inv_freq, factor, position);
                // Of a pair that turns both may come in whole: |cos a cos b| + |sin a sin b| is at most 1.
                let normed: Vec<f64> =
                    twin(&self.params, &x, &weight, &[], 1.0, 0).iter().map(|value| value.abs()).collect();
                let half = rotary_dim / 2;
                let scale = (0..head_dim).map(|col| match col {
                    col if col >= rotary_dim => normed[col],
                    col => factor * (normed[col % half] + normed[col % half + half]),
                });
                all.push(Head { kind, row, values, scale: scale.collect() });
            }
        }
        all
    }
}

fn check_floats(rig: &Rig<'_>, case: &Case, index: usize) -> Result<(), Failure> {
    let kv = Part::Kv(rig.kv);
    let bytes = |count: usize| {
        let untouched = store(kv, &[UNTOUCHED]).bytes;
        untouched.iter().copied().cycle().take(count).collect()
    };
    let run = Run::new(rig, case, rig.kv, index, &bytes)?;
    let head_stride = run.params.head_stride as usize;
    let mut parts = [Wanted::default(), Wanted::default(), Wanted::default()];
    let mut written = [Vec::new(), Vec::new(), Vec::new()];
    for head in run.heads() {
        written[head.kind].extend(head.row * head_stride..head.row * head_stride + case.head_dim);
        let part = &mut parts[head.kind];
        part.inherited.extend(head.values.iter().map(|_| 0.0));
        part.values.extend(head.values);
        part.scale.extend(head.scale);
    }
    for (kind, (part, name)) in parts.iter().zip(["queries", "keys", "values"]).enumerate() {
        let (types, tolerance) = match kind {
            QUERY => (rig.act, run.tolerance()),
            KEY => (kv, run.tolerance()),
            // A value passes as it is.
            _ => (kv, Tolerance::f32(0)),
        };
        let tolerance = if is_f16(types) { tolerance.stored_f16() } else { tolerance };
        let met = load(types, &run.met[kind]);
        rig.compare_places(|| run.what(name), tolerance, &met, (&written[kind], UNTOUCHED), part)?;
    }
    rig.same(|| run.what("scales"), &run.met[3], &run.before[2])
}

/// Rows that are quantised: scales by the rule within what rounding explains of the row's ends, columns within half a step, and
/// nothing else written.
fn check_rows(rig: &Rig<'_>, case: &Case, kv: KvType, index: usize) -> Result<(), Failure> {
    let run = Run::new(rig, case, kv, index, &|count| (0..count).map(|i| (i * 7 + i / 256) as u8).collect())?;
    let (head_dim, head_stride) = (case.head_dim, run.params.head_stride as usize);
    let scale_words = kv.scale_bytes() / 4;
    let scales = words(&run.met[3]);
    let (mut queries, mut query_places) = (Wanted::default(), Vec::new());
    let mut rest = [run.met[1].clone(), run.met[2].clone(), run.met[3].clone()];
    for mut head in run.heads() {
        let side = if head.kind == VALUE { Side::Value } else { Side::Key };
        if head.kind == KEY {
            let mean = &run.mean[head.row / SLOTS * head_stride..][..head_dim];
            for ((value, scale), &mean) in head.values.iter_mut().zip(&mut head.scale).zip(mean) {
                *value -= f64::from(mean);
                *scale += f64::from(mean.abs());
            }
        }
        if kv.rotates(side) && run.params.rotation > 1 {
            let block = run.params.rotation as usize;
            rotate(&mut head.values, block);
            for scale in head.scale.chunks_exact_mut(block) {
                // Every column of a block is in each of its sums.
                let all = scale.iter().sum::<f64>() / (block as f64).sqrt();
                scale.fill(all);
            }
        }
        if head.kind == QUERY {
            query_places.extend(head.row * head_stride..head.row * head_stride + head_dim);
            queries.inherited.extend(head.values.iter().map(|_| 0.0));
            queries.values.extend(head.values);
            queries.scale.extend(head.scale);
            continue;
        }
        let name = ["", "keys", "values"][head.kind];
        let row_bytes = kv.side_bytes(side, head_stride);
        let bytes = &run.met[head.kind][head.row * row_bytes..][..row_bytes];
        let met = kv.scale_in(side, &scales[head.row * scale_words..][..scale_words]);
        let errors = run.tolerance().allowed(&Wanted::scaled(head.values.clone(), head.scale.clone()));
        let error = errors.iter().fold(0.0f64, |most, error| most.max(*error));
        let kept = head.values.iter().map(|value| value.clamp(-LARGEST, LARGEST));
        let ends = kept.clone().fold([LARGEST, -LARGEST], |[low, high], value| [low.min(value), high.max(value)]);
        check_scale(kv, side, met, ends, error)
            .map_err(|message| Failure::Differs(format!("{}: row {}: {message}", run.what(name), head.row)))?;
        let step = half_step(met.step);
        let allowed = errors.iter().map(|error| error + step).collect();
        let want = Wanted { values: kept.collect(), scale: vec![0.0; head_dim], inherited: allowed };
        let decoded: Vec<f32> =
            kv.decode(side, bytes, met, head_dim).values.iter().map(|&value| value as f32).collect();
        rig.compare(|| format!("{}, row {}", run.what(name), head.row), Tolerance::f32(0), &decoded, &want)?;
        rest[head.kind - KEY][head.row * row_bytes..][..row_bytes]
            .copy_from_slice(&run.before[head.kind - KEY][head.row * row_bytes..][..row_bytes]);
        let scale_bytes = kv.scale_bytes();
        rest[2][head.row * scale_bytes..][..scale_bytes]
            .copy_from_slice(&run.before[2][head.row * scale_bytes..][..scale_bytes]);
    }
    let tolerance = if is_f16(rig.act) { run.tolerance().stored_f16() } else { run.tolerance() };
    let met = load(rig.act, &run.met[0]);
    rig.compare_places(|| run.what("queries"), tolerance, &met, (&query_places, UNTOUCHED), &queries)?;
    for ((rest, before), name) in rest.iter().zip(&run.before).zip(["keys", "values", "scales"]) {
        rig.same(|| format!("{} of other slots", run.what(name)), rest, before)?;
    }
    Ok(())
}

/// How far rounding to multiples of `step` may move a value: a quotient that is a few steps of f32 off may fall on the other side
/// of a tie.
pub(in crate::self_test) fn half_step(step: f32) -> f64 {
    f64::from(step) * (0.5 + 4.0 * 127.0 * accuracy::STEP)
}

/// Whether a scale is that of a row with such ends, each within `error`.
fn check_scale(kv: KvType, side: Side, met: Scale, [low, high]: [f64; 2], error: f64) -> Result<(), String> {
    let of = |low: f64, high: f64| kv.scale(side, low as f32, high as f32);
    // f32 divides to within two and a half steps.
    let slack = 4.0 * accuracy::STEP;
    let (least, most) = match kv.bits(side) {
        4 => {
            let minima = [low - error, low + error].map(|low| of(low, high).minimum);
            if !(minima[0]..=minima[1]).contains(&met.minimum) {
                return Err(format!("minimum {}, wanted {} to {}", met.minimum, minima[0], minima[1]));
            }
            let minimum = f64::from(met.minimum);
            let span = high - minimum;
            let end = |error: f64, slack: f64| of(minimum, minimum + (span + error) * (1.0 + slack));
            (end(-error, -slack).step, end(error, slack).step)
        }
        _ => {
            let size = high.max(-low);
            let end = |size: f64| of(-size, size).step;
            (end((size - error) * (1.0 - slack)), end((size + error) * (1.0 + slack)))
        }
    };
    if met.step < least || met.step > most {
        return Err(format!("scale {}, wanted {least} to {most}", met.step));
    }
    Ok(())
}
