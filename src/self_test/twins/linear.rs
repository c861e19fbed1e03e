//! Twin test of `matvec.wgsl`.

use crate::self_test::data::{WeightRows, floats, store};
use crate::self_test::rig::{Failure, Rig};
use raglan_shaders::linear::{self, LinearParams};
use raglan_shaders::matvec;
use raglan_shaders::{BLOCK, Kernel, Part, PartKind, Schedule, Tolerance, Wanted, WeightFormat};

const UNTOUCHED: f32 = 1234.5;

/// Multiplications that a twin is given at most.
const LARGEST_PRODUCT: usize = 4 << 20;

/// `[rows, inner] · [cols, inner]ᵀ`
struct Case {
    rows: usize,
    cols: usize,
    inner: usize,
    bias: bool,
    /// Columns of the first of two bindings; all of them: one binding.
    first_cols: usize,
}

pub(super) fn check_matvec(rig: &Rig<'_>, format: WeightFormat) -> Result<(), Failure> {
    for schedule in schedules(rig, &matvec::KERNEL, format) {
        let [lanes, tile_m, tile_n] = schedule.values[..] else { unreachable!("matvec has three tunables") };
        // More stretches than lanes, so that lanes take a second one.
        let unit = format.block_values();
        let long = (BLOCK * lanes as usize + 1).next_multiple_of(unit);
        let mut cases = cases(tile_m as usize, tile_n as usize, format);
        cases.push(Case { rows: 2, cols: 5, inner: long, bias: false, first_cols: 5 });
        for (index, case) in cases.iter().enumerate() {
            check(rig, &matvec::KERNEL, format, &schedule, case, index)?;
        }
    }
    Ok(())
}

/// Compiling bounds what can be tried. Schedules and weight formats are independent in the source, so f32 sees every value
/// of every tunable in one way of linking, and each other format one schedule in a way, another from way to way.
pub(super) fn schedules(rig: &Rig<'_>, kernel: &'static Kernel, format: WeightFormat) -> Vec<Schedule> {
    let shape = [64, 64, 64];
    let place = WeightFormat::ALL.iter().position(|other| *other == format).unwrap_or(0);
    match format {
        WeightFormat::F32 if rig.turn == 0 => rig.schedules(kernel, &shape),
        _ if rig.is_of_four() => vec![rig.one_schedule(kernel, &shape, place)],
        WeightFormat::F32 if kernel.parts.contains(&PartKind::Reduce) => vec![rig.one_schedule(kernel, &shape, 0)],
        _ => Vec::new(),
    }
}

/// Sizes at and around a workgroup's tile of `group_m` × `group_n` outputs.
fn cases(group_m: usize, group_n: usize, format: WeightFormat) -> Vec<Case> {
    let inners = match format.block_values() {
        1 => [1, 33, 64, 100, 127],
        unit => [unit, 2 * unit, unit, 3 * unit, 2 * unit],
    };
    let sizes = [
        (1, 1, false),
        (group_m.max(2) - 1, group_n + 1, true),
        (group_m, group_n, false),
        (group_m + 1, group_n.max(2) - 1, true),
        (7, 13, true),
    ];
    let case = |((rows, cols, bias), inner): ((usize, usize, bool), usize)| {
        let inner = if rows * cols * inner > LARGEST_PRODUCT { format.block_values() } else { inner };
        Case { rows, cols, inner, bias, first_cols: if bias { cols.div_ceil(3) } else { cols } }
    };
    sizes.into_iter().zip(inners).map(case).collect()
}

fn check(
    rig: &Rig<'_>,
    kernel: &'static Kernel,
    format: WeightFormat,
    schedule: &Schedule,
    case: &Case,
    index: usize,
) -> Result<(), Failure> {
    let &Case { rows, cols, inner, bias, first_cols } = case;
    let mut random = rig.random(index);
    let weight = WeightRows::random(&mut random, format, cols, inner);
    let stride = weight.blocks() * BLOCK;
    let mut padded = vec![0.0; rows * stride];
    for row in padded.chunks_exact_mut(stride) {
        row[..inner].copy_from_slice(&random.values(inner));
    }
    let x = store(rig.act, &padded);
    let biases = random.values(cols);
    let parts = [Part::Weight(format), rig.act, rig.reduce, Part::EpiloguePlain];
    let variant = kernel.variant(&parts, schedule.clone());

    // A few columns and a row past the product's, which no lane may write.
    let out_stride = cols + 3;
    let mut out = bytemuck::cast_slice(&vec![UNTOUCHED; (rows + 1) * out_stride]).to_vec();
    for columns in [0..first_cols, first_cols..cols] {
        let params = LinearParams {
            rows: rows as u32,
            cols: columns.len() as u32,
            blocks: weight.blocks() as u32,
            weight_row_quads: (weight.row_bytes() / 16) as u32,
            weight_blocks: format.row_blocks(inner) as u32,
            first_col: columns.start as u32,
            out_stride: out_stride as u32,
            bias: bias.into(),
            add: 0,
            activation: 0,
        };
        let workgroups = matvec::workgroups(&params, schedule);
        if columns.is_empty() {
            continue;
        }
        let piece = &weight.bytes[columns.start * weight.row_bytes()..columns.end * weight.row_bytes()];
        let inputs = [piece, piece, &x.bytes, bytemuck::cast_slice(&biases), &out];
        out = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), workgroups)?.remove(0);
    }

    let x: Vec<f64> = x.values.chunks_exact(stride).flat_map(|row| row[..inner].iter().copied()).collect();
    let biases: Vec<f64> = if bias { biases.iter().map(|&b| b.into()).collect() } else { Vec::new() };
    let absolute = |values: &[f64]| -> Vec<f64> { values.iter().map(|value| value.abs()).collect() };
    let want = Wanted::scaled(
        linear::twin(&x, &weight.values, &biases, inner),
        linear::twin(&absolute(&x), &weight.magnitudes, &absolute(&biases), inner),
    );
    let places: Vec<usize> = (0..rows).flat_map(|row| row * out_stride..row * out_stride + cols).collect();
    let what = || format!("{variant}, {rows} × {cols} × {inner}, seed {}", random.seed);
    rig.compare_places(what, Tolerance::f32(inner + 1), &floats(&out), (&places, UNTOUCHED), &want)
}
