//! Twin test of `rope_append.wgsl`.

use crate::self_test::data::{is_f16, load, store};
use crate::self_test::rig::{Failure, Rig};
use raglan_shaders::rope_append::{KERNEL, RopeAppendParams, table, twin};
use raglan_shaders::{Tolerance, Wanted, attention, round_up};

const UNTOUCHED: f32 = 1234.0;
/// Around the ends of the table's rows, and far out.
const POSITIONS: [u32; 7] = [0, 1, 1023, 1024, 1_000_003, 77, 2048];
const SLOTS: usize = 19;

struct Case {
    head_dim: usize,
    rotary_dim: usize,
    num_heads: usize,
    num_kv_heads: usize,
    norm: bool,
    /// What cos and sin are multiplied by.
    factor: f64,
}

pub(super) fn check(rig: &Rig<'_>) -> Result<(), Failure> {
    let case = |head_dim, rotary_dim, (num_heads, num_kv_heads), norm, factor| Case {
        head_dim,
        rotary_dim,
        num_heads,
        num_kv_heads,
        norm,
        factor,
    };
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
        check_case(rig, case, index)?;
    }
    Ok(())
}

fn check_case(rig: &Rig<'_>, case: &Case, index: usize) -> Result<(), Failure> {
    let &Case { head_dim, rotary_dim, num_heads, num_kv_heads, norm, factor } = case;
    let mut random = rig.random(index);
    let tokens = POSITIONS.len();
    let head_stride = attention::head_stride(head_dim).unwrap_or(head_dim);
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
        rotation: 0,
    };
    let qkv = random.values(tokens * qkv_stride);
    let slots = random.permutation(SLOTS);
    let places: Vec<[u32; 2]> =
        POSITIONS.iter().zip(&slots).map(|(&position, &slot)| [position, slot as u32]).collect();
    let inv_freq: Vec<f64> =
        (0..rotary_dim / 2).map(|i| 10_000f64.powf(-(2.0 * i as f64) / rotary_dim as f64)).collect();
    let mut rope = table(&inv_freq, factor, 1_000_004);
    rope.resize(rope.len().max(1), [0.0; 2]);
    let (q_norm, k_norm) = (random.values(head_dim), random.values(head_dim));
    let heads = num_heads + 2 * num_kv_heads;
    let schedule = rig.one_schedule(&KERNEL, &[tokens as u32, heads as u32, head_dim as u32], index);
    let variant = KERNEL.variant(&[rig.act, rig.kv, rig.reduce], schedule);
    let q = store(rig.act, &vec![UNTOUCHED; tokens * num_heads * head_stride]).bytes;
    let [k, v] = [0; 2].map(|_| store(rig.kv, &vec![UNTOUCHED; num_kv_heads * SLOTS * head_stride]).bytes);
    let inputs: [&[u8]; 8] = [
        bytemuck::cast_slice(&qkv),
        bytemuck::cast_slice(&places),
        bytemuck::cast_slice(&rope),
        bytemuck::cast_slice(&q_norm),
        bytemuck::cast_slice(&k_norm),
        &q,
        &k,
        &v,
    ];
    let met = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), [tokens as u32, heads as u32, 1])?;

    let exact = |values: &[f32]| -> Vec<f64> { values.iter().map(|&value| value.into()).collect() };
    let stored = |tolerance: Tolerance, f16| if f16 { tolerance.stored_f16() } else { tolerance };
    // The sum of squares, and the two sums of a turn and of the addition theorem.
    let turned = Tolerance::f32(4 + if norm { head_dim } else { 0 });
    let what =
        |kind| format!("{variant}, {kind} of {head_dim} columns, {rotary_dim} turn, norm {norm}, seed {}", random.seed);

    let norms = |weight: &[f32]| if norm { exact(weight) } else { Vec::new() };
    let mut parts = [Wanted::default(), Wanted::default(), Wanted::default()];
    let mut written = [Vec::new(), Vec::new(), Vec::new()];
    for token in 0..tokens {
        for head in 0..heads {
            // Query, key or value; where it is read and written.
            let (kind, head, col) = match head {
                head if head < num_heads => (0, head, 0),
                head if head < num_heads + num_kv_heads => (1, head - num_heads, k_col),
                head => (2, head - num_heads - num_kv_heads, v_col),
            };
            let x = exact(&qkv[token * qkv_stride + col + head * head_dim..][..head_dim]);
            let row = if kind == 0 { token * num_heads + head } else { head * SLOTS + slots[token] };
            written[kind].extend(row * head_stride..row * head_stride + head_dim);
            let part = &mut parts[kind];
            if kind == 2 {
                part.values.extend(&x);
                part.scale.extend(&x);
                continue;
            }
            let weight = norms(if kind == 0 { &q_norm } else { &k_norm });
            part.values.extend(twin(&params, &x, &weight, &inv_freq, factor, POSITIONS[token]));
            // Of a pair that turns both may come in whole: |cos a cos b| + |sin a sin b| is at most 1.
            let normed: Vec<f64> = twin(&params, &x, &weight, &[], 1.0, 0).iter().map(|value| value.abs()).collect();
            let half = rotary_dim / 2;
            part.scale.extend((0..head_dim).map(|col| match col {
                col if col >= rotary_dim => normed[col],
                col => factor * (normed[col % half] + normed[col % half + half]),
            }));
        }
    }
    for (kind, (part, name)) in parts.iter_mut().zip(["queries", "keys", "values"]).enumerate() {
        part.inherited = vec![0.0; part.values.len()];
        let (types, tolerance) = match kind {
            0 => (rig.act, turned),
            1 => (rig.kv, turned),
            // A value passes as it is.
            _ => (rig.kv, Tolerance::f32(0)),
        };
        let met = load(types, &met[kind]);
        rig.compare_places(|| what(name), stored(tolerance, is_f16(types)), &met, (&written[kind], UNTOUCHED), part)?;
    }
    Ok(())
}
