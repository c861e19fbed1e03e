//! Twin tests of `matmul.wgsl`, `matmul_coop.wgsl` and `split_sum.wgsl`: every weight format, both epilogues, whole and split.

use super::linear::{schedules, wanted_gated};
use crate::self_test::data::{WeightRows, floats, is_f16, load, store};
use crate::self_test::rig::{Failure, Mutation, Rig};
use raglan_shaders::linear::{self, LinearParams};
use raglan_shaders::matmul::{self, MatmulParams};
use raglan_shaders::split_sum::{self, SplitSumParams};
use raglan_shaders::{BLOCK, Kernel, Part, Schedule, Tolerance, Wanted, WeightFormat, accuracy, matmul_coop};

/// What no lane may write over, in f16 too.
const UNTOUCHED: f32 = 1234.0;

/// Multiplications that a twin is given at most.
const LARGEST_PRODUCT: usize = 4 << 20;

/// The largest f16.
const LARGEST_F16: f64 = 65504.0;

/// A kernel with what it is linked with.
#[derive(Clone, Copy)]
struct Form<'a> {
    kernel: &'static Kernel,
    format: WeightFormat,
    schedule: &'a Schedule,
}

/// `[rows, inner] · [cols, inner]ᵀ`
struct Case {
    rows: usize,
    cols: usize,
    inner: usize,
    ends: Ends,
}

/// What becomes of the sums.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ends {
    Stored,
    /// With a bias, added to what is there, in two bindings.
    Added,
    /// Gates and ups in turn, with a bias.
    Gated,
    /// In parts of two blocks.
    Split,
}

pub(super) fn check_matmul(rig: &Rig<'_>, format: WeightFormat) -> Result<(), Failure> {
    check_schedules(rig, &matmul::KERNEL, matmul::group, format)
}

pub(super) fn check_coop(rig: &Rig<'_>, format: WeightFormat) -> Result<(), Failure> {
    // Weights are decoded by the parts that every product links, and compiling takes seconds on a software adapter.
    let is_tried = matches!(format, WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Q4_0 | WeightFormat::Q4K);
    // A way without them, or with inputs in f32.
    if rig.limits().coop_side == 0 || !(is_tried || rig.is_sweeping()) {
        return Ok(());
    }
    check_schedules(rig, &matmul_coop::KERNEL, matmul_coop::group, format)
}

/// `coop_8.wgsl` with f16 staged in quads, as in `coop_16.wgsl`, which no adapter of side 8 links.
pub(super) const QUADS: Mutation = Mutation {
    kernel: "matmul_coop",
    what: "quads",
    from: "alias coop_word = f16;
const COOP_WORD: u32 = 1u;

// The word of a quad that begins at its value `first`.
fn coop_word_of(quad: vec4<f16>, first: u32) -> coop_word {
    return quad[first];",
    to: "alias coop_word = vec4<f16>;
const COOP_WORD: u32 = 4u;

fn coop_word_of(quad: vec4<f16>, first: u32) -> coop_word {
    return quad;",
};

/// Metal takes no such matrices, which is why its part has scalars.
pub(super) fn check_quads(rig: &Rig<'_>) -> Result<(), Failure> {
    if rig.turn > 0 || rig.limits().coop_side != 8 || rig.is_metal() {
        return Ok(());
    }
    check_schedules(rig, &matmul_coop::KERNEL, matmul_coop::group, WeightFormat::F16)
}

fn check_schedules(
    rig: &Rig<'_>,
    kernel: &'static Kernel,
    group: impl Fn(&Schedule) -> [u32; 2],
    format: WeightFormat,
) -> Result<(), Failure> {
    // One format alone has both epilogues: each is compiled for itself.
    let is_tried = |case: &Case| case.ends != Ends::Gated || format == WeightFormat::F16 || rig.is_sweeping();
    for schedule in &schedules(rig, kernel, format) {
        let form = Form { kernel, format, schedule };
        let cases = cases(group(schedule).map(|side| side as usize), format);
        for (index, case) in cases.iter().enumerate().filter(|(_, case)| is_tried(case)) {
            check(rig, form, case, index)?;
        }
    }
    Ok(())
}

/// Sizes at and around a workgroup's tile, and inner columns at and around a stage.
fn cases([group_m, group_n]: [usize; 2], format: WeightFormat) -> Vec<Case> {
    let inners = match format.block_values() {
        1 => [1, 70, 96, 161, 127],
        32 => [32, 96, 64, 160, 128],
        unit => [unit, 2 * unit, unit, 3 * unit, 2 * unit],
    };
    let sizes = [
        (1, 1, Ends::Stored),
        (group_m.max(2) - 1, group_n + 1, Ends::Added),
        (group_m, group_n, Ends::Stored),
        (group_m + 1, group_n - 1, Ends::Split),
        (7, 26, Ends::Gated),
    ];
    let case = |((rows, cols, ends), inner): ((usize, usize, Ends), usize)| {
        let inner = if rows * cols * inner > LARGEST_PRODUCT { format.block_values() } else { inner };
        Case { rows, cols, inner, ends }
    };
    sizes.into_iter().zip(inners).map(case).collect()
}

fn check(rig: &Rig<'_>, form: Form<'_>, case: &Case, index: usize) -> Result<(), Failure> {
    let (Form { kernel, format, schedule }, &Case { rows, cols, inner, ends }) = (form, case);
    let is_coop = std::ptr::eq(kernel, &matmul_coop::KERNEL);
    let mut random = rig.random(index);
    let mut weight = WeightRows::random(&mut random, format, cols, inner);
    if is_coop {
        round_weights(&mut weight);
    }
    let stride = weight.blocks() * BLOCK;
    let mut padded = vec![0.0; rows * stride];
    for row in padded.chunks_exact_mut(stride) {
        row[..inner].copy_from_slice(&random.values(inner));
    }
    let x = store(rig.act, &padded);
    let biases = random.values(cols);
    let epilogue = if ends == Ends::Gated { Part::EpilogueGated } else { Part::EpiloguePlain };
    let variant = match is_coop {
        true => kernel.variant(&[Part::Weight(format), rig.act, rig.coop, epilogue], schedule.clone()),
        false => kernel.variant(&[Part::Weight(format), rig.act, epilogue], schedule.clone()),
    };

    let whole = LinearParams {
        rows: rows as u32,
        cols: cols as u32,
        blocks: weight.blocks() as u32,
        weight_row_quads: (weight.row_bytes() / 16) as u32,
        weight_blocks: format.row_blocks(inner) as u32,
        bias: (ends == Ends::Added || ends == Ends::Gated).into(),
        add: (ends == Ends::Added).into(),
        activation: (index + rig.turn) as u32 % 2,
        ..LinearParams::default()
    };
    let split_blocks = if ends == Ends::Split { 2.min(weight.blocks()) } else { weight.blocks() };
    let splits = weight.blocks().div_ceil(split_blocks);
    // A few columns and a row past the product's, which no lane may write.
    let (out_part, out_cols, out_stride) = match ends {
        Ends::Gated => (rig.act, cols / 2, cols / 2 + 3),
        Ends::Split => (Part::ActF32, cols, cols.next_multiple_of(2)),
        _ => (Part::ActF32, cols, cols + 3),
    };
    let places: Vec<usize> = (0..splits * rows).flat_map(|row| row * out_stride..row * out_stride + out_cols).collect();
    let mut before = vec![UNTOUCHED; (splits * rows + 1) * out_stride];
    if ends == Ends::Added {
        places.iter().for_each(|&place| before[place] = random.value());
    }
    // Whole words, where two halves are one.
    before.resize(before.len().next_multiple_of(2), UNTOUCHED);
    let mut out = store(out_part, &before).bytes;
    let first_cols = if ends == Ends::Added { cols.div_ceil(3) } else { cols };
    for columns in [0..first_cols, first_cols..cols].into_iter().filter(|columns| !columns.is_empty()) {
        let (first_col, cols) = (columns.start as u32, columns.len() as u32);
        let params = LinearParams { cols, first_col, out_stride: out_stride as u32, ..whole };
        let params = match ends {
            Ends::Split => MatmulParams::split(&params, split_blocks as u32),
            _ => MatmulParams::whole(&params),
        };
        let workgroups = match is_coop {
            true => matmul_coop::workgroups(&params, schedule),
            false => matmul::workgroups(&params, schedule),
        };
        let piece = &weight.bytes[columns.start * weight.row_bytes()..columns.end * weight.row_bytes()];
        let inputs = [piece, piece, &x.bytes, bytemuck::cast_slice(&biases), &out];
        out = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), workgroups)?.remove(0);
    }

    let rows_of = |values: &[f64], columns: std::ops::Range<usize>| -> Vec<f64> {
        values.chunks_exact(values.len() / rows).flat_map(|row| row[columns.clone()].iter().copied()).collect()
    };
    let biases: Vec<f64> = if whole.bias == 1 { biases.iter().map(|&b| b.into()).collect() } else { Vec::new() };
    let mut sums = Wanted::default();
    for split in 0..splits {
        let end = (split_blocks * BLOCK * (split + 1)).min(inner);
        let columns = split_blocks * BLOCK * split..end;
        let part = wanted(&rows_of(&x.values, columns.clone()), &weight, columns, &biases, is_coop);
        sums.values.extend(part.values);
        sums.scale.extend(part.scale);
        sums.inherited.extend(part.inherited);
    }
    if ends == Ends::Added {
        for (at, &place) in places.iter().enumerate() {
            sums.values[at] += f64::from(before[place]);
            sums.scale[at] += f64::from(before[place].abs());
        }
    }
    let tolerance = Tolerance::f32(inner + 2);
    let (want, tolerance) = match ends {
        Ends::Gated => (wanted_gated(&sums, tolerance, whole.activation), Tolerance::f32(2)),
        _ => (sums, tolerance),
    };
    let tolerance = if ends == Ends::Gated && is_f16(rig.act) { tolerance.stored_f16() } else { tolerance };
    let what = || format!("{variant}, {rows} × {cols} × {inner}, {ends:?}, seed {}", random.seed);
    rig.compare_places(what, tolerance, &load(out_part, &out), (&places, UNTOUCHED), &want)
}

/// Puts a weight beyond the range of f16 among those that can hold one, and takes all for what a kernel makes of them.
fn round_weights(weight: &mut WeightRows) {
    if weight.format == WeightFormat::F32 {
        weight.bytes[..4].copy_from_slice(&1e5f32.to_le_bytes());
        weight.values[0] = 1e5;
        weight.magnitudes[0] = 1e5;
    }
    for value in weight.values.iter_mut().chain(&mut weight.magnitudes) {
        *value = value.clamp(-LARGEST_F16, LARGEST_F16);
    }
}

/// The sums over some inner columns; `x` holds those alone.
fn wanted(x: &[f64], weight: &WeightRows, columns: std::ops::Range<usize>, biases: &[f64], is_coop: bool) -> Wanted {
    let inner = columns.len();
    let part = |values: &[f64]| -> Vec<f64> {
        values.chunks_exact(weight.inner).flat_map(|row| row[columns.clone()].iter().copied()).collect()
    };
    let absolute = |values: &[f64]| -> Vec<f64> { values.iter().map(|value| value.abs()).collect() };
    let (values, magnitudes) = (part(&weight.values), part(&weight.magnitudes));
    let mut want = Wanted::scaled(
        linear::twin(x, &values, biases, inner),
        linear::twin(&absolute(x), &magnitudes, &absolute(biases), inner),
    );
    if is_coop {
        let roundings: Vec<f64> = values.iter().map(|&value| accuracy::f16(value)).collect();
        want.inherited = linear::twin(&absolute(x), &roundings, &[], inner);
    }
    want
}

pub(super) fn check_split_sum(rig: &Rig<'_>) -> Result<(), Failure> {
    if !rig.is_of_four() {
        return Ok(());
    }
    let kernel = &split_sum::KERNEL;
    for schedule in rig.schedules(kernel, &[64, 64, 8]) {
        let lanes = kernel.value(&schedule, "LANES") as usize;
        for (index, (rows, cols, splits)) in
            [(1, 1, 2), (3, 2 * lanes - 1, 8), (2, 2 * lanes, 3), (5, 2 * lanes + 1, 4)].into_iter().enumerate()
        {
            let mut random = rig.random(index);
            let parts = random.values(splits * rows * cols.next_multiple_of(2));
            let biases = random.values(cols);
            let out_stride = cols + 3;
            let params = SplitSumParams {
                rows: rows as u32,
                cols: cols as u32,
                out_stride: out_stride as u32,
                bias: index as u32 % 2,
                splits: splits as u32,
                ..SplitSumParams::default()
            };
            let variant = kernel.variant(&[rig.act, Part::EpiloguePlain], schedule.clone());
            let (out, unused) = (vec![UNTOUCHED; (rows + 1) * out_stride], [0u8; 16]);
            let bytes: &[u8] = bytemuck::cast_slice(&parts);
            let inputs = [bytes, &unused, &unused, bytemuck::cast_slice(&biases), bytemuck::cast_slice(&out)];
            let workgroups = split_sum::workgroups(&params, &schedule);
            let out = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), workgroups)?.remove(0);

            let stored = parts.chunks_exact(cols.next_multiple_of(2)).flat_map(|row| &row[..cols]);
            let parts: Vec<f64> = stored.map(|&part| part.into()).collect();
            let biases: Vec<f64> = if params.bias == 1 { biases.iter().map(|&b| b.into()).collect() } else { vec![] };
            let absolute = |values: &[f64]| -> Vec<f64> { values.iter().map(|value| value.abs()).collect() };
            let want = Wanted::scaled(
                split_sum::twin(&parts, &biases, splits, cols),
                split_sum::twin(&absolute(&parts), &absolute(&biases), splits, cols),
            );
            let places: Vec<usize> = (0..rows).flat_map(|row| row * out_stride..row * out_stride + cols).collect();
            let what = || format!("{variant}, {splits} parts of {rows} × {cols}, seed {}", random.seed);
            rig.compare_places(what, Tolerance::f32(splits + 1), &floats(&out), (&places, UNTOUCHED), &want)?;
        }
    }
    Ok(())
}
