//! Twin tests of `matvec.wgsl` and `matvec_int8.wgsl`: every weight format, inputs as they are and normed, both epilogues.

use super::linear::{is_tried, schedules, wanted_gated};
use crate::self_test::data::{Random, Stored, WeightRows, is_f16, load, store};
use crate::self_test::rig::{Failure, Rig};
use raglan_shaders::matvec::{self, MatvecParams};
use raglan_shaders::rms_norm::{self, RmsNormParams};
use raglan_shaders::{BLOCK, Kernel, Part, Schedule, Tolerance, Wanted, WeightFormat, linear, matvec_int8};

/// What no lane may write over, in f16 too.
const UNTOUCHED: f32 = 1234.0;

const EPS: f32 = 1e-5;

/// A kernel with its parts.
#[derive(Clone, Copy)]
struct Form {
    kernel: &'static Kernel,
    format: WeightFormat,
    input: Part,
    epilogue: Part,
}

/// `[rows, inner] · [cols, inner]ᵀ`
struct Case {
    rows: usize,
    cols: usize,
    inner: usize,
    bias: bool,
    /// Columns of the first of two bindings; all of them: one binding.
    first_cols: usize,
}

pub(super) fn check_plain(rig: &Rig<'_>, format: WeightFormat) -> Result<(), Failure> {
    let form = Form { kernel: &matvec::KERNEL, format, input: Part::InputAct, epilogue: Part::EpiloguePlain };
    check_schedules(rig, form, &schedules(rig, form.kernel, format))
}

/// Every other way with another input and epilogue.
pub(super) fn check_int8(rig: &Rig<'_>, format: WeightFormat) -> Result<(), Failure> {
    let place = WeightFormat::ALL.iter().position(|other| *other == format).unwrap_or(0);
    let (input, epilogue) = match (rig.turn + place) % 4 {
        0 | 1 => (Part::InputAct, Part::EpiloguePlain),
        2 => (Part::InputNormed, Part::EpiloguePlain),
        _ => (Part::InputNormed, Part::EpilogueGated),
    };
    let form = Form { kernel: &matvec_int8::KERNEL, format, input, epilogue };
    match is_tried(rig, format) {
        true => check_schedules(rig, form, &[rig.one_schedule(form.kernel, &[64, 64, 64], place)]),
        false => Ok(()),
    }
}

pub(super) fn check_normed(rig: &Rig<'_>) -> Result<(), Failure> {
    few(rig, |format| Form { kernel: &matvec::KERNEL, format, input: Part::InputNormed, epilogue: Part::EpiloguePlain })
}

pub(super) fn check_gated(rig: &Rig<'_>) -> Result<(), Failure> {
    let input = if rig.turn.is_multiple_of(2) { Part::InputAct } else { Part::InputNormed };
    few(rig, |format| Form { kernel: &matvec::KERNEL, format, input, epilogue: Part::EpilogueGated })
}

/// Three formats, and a few schedules among them.
fn few(rig: &Rig<'_>, form: impl Fn(WeightFormat) -> Form) -> Result<(), Failure> {
    for (place, format) in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Q4K].into_iter().enumerate() {
        let form = form(format);
        let schedules = match (format, rig.turn) {
            (WeightFormat::F32, 0) => rig.schedules(form.kernel, &[64, 64, 64]),
            _ if rig.is_of_four() => vec![rig.one_schedule(form.kernel, &[64, 64, 64], place)],
            _ => Vec::new(),
        };
        check_schedules(rig, form, &schedules)?;
    }
    Ok(())
}

fn check_schedules(rig: &Rig<'_>, form: Form, schedules: &[Schedule]) -> Result<(), Failure> {
    for schedule in schedules {
        for (index, case) in cases(form, schedule).iter().enumerate() {
            check(rig, form, schedule, case, index)?;
        }
    }
    Ok(())
}

/// Sizes at and around a workgroup's tile, and rows of more units than lanes have in flight.
fn cases(form: Form, schedule: &Schedule) -> Vec<Case> {
    let value = |name| form.kernel.value(schedule, name) as usize;
    let (tile_m, tile_n) = (value("TILE_M"), value("TILE_N"));
    let block = form.format.block_values();
    let inners = match block {
        1 => [1, 33, 64, 100, 127],
        _ => [block, 2 * block, block, 3 * block, 2 * block],
    };
    let long = (form.format.unit_values() * value("LANES") * value("UNROLL") + 1).next_multiple_of(block);
    let sizes = [
        (1, 1, false, inners[0]),
        (tile_m.max(2) - 1, tile_n + 1, true, inners[1]),
        (tile_m, tile_n, false, inners[2]),
        (tile_m + 1, tile_n - 1, true, inners[3]),
        (7, 13, true, inners[4]),
        (2, 5, false, long),
    ];
    let gated = form.epilogue == Part::EpilogueGated;
    let case = |(rows, cols, bias, inner): (usize, usize, bool, usize)| {
        // Of gate and up in turn there are as many.
        let (cols, first) = if gated { (2 * cols, 2 * cols.div_ceil(3)) } else { (cols, cols.div_ceil(3)) };
        Case { rows, cols, inner, bias, first_cols: if bias { first } else { cols } }
    };
    sizes.map(case).into()
}

/// What a row of the product is made of.
struct Input {
    /// As the kernel binds them.
    x: Stored,
    norm: Vec<f32>,
    gather: Vec<u32>,
    /// `[rows, inner]`, normed where the form norms; in whole 127ths where it multiplies in 8 bits.
    values: Vec<f64>,
    /// How far each may be from that.
    ties: Vec<f64>,
}

fn input(rig: &Rig<'_>, form: Form, case: &Case, random: &mut Random) -> Input {
    let &Case { rows, inner, .. } = case;
    let stride = inner.next_multiple_of(BLOCK);
    let normed = form.input == Part::InputNormed;
    let padded = |mut values: Vec<f32>| {
        values.resize(stride, 0.0);
        values
    };
    let norm = padded(random.values(inner));
    // Gathered rows are among others.
    let tokens = if normed { rows + 2 } else { rows };
    let all: Vec<f32> = (0..tokens)
        .flat_map(|token| padded(random.values(inner).iter().map(|value| value * (1.0 + token as f32)).collect()))
        .collect();
    let x = if normed { store(Part::ActF32, &all) } else { store(rig.act, &all) };
    let gather: Vec<u32> =
        (0..rows as u32).map(|row| if normed && case.bias { tokens as u32 - 1 - row } else { row }).collect();
    let (mut values, mut ties) = (Vec::new(), Vec::new());
    for &row in &gather {
        let row = &x.values[row as usize * stride..][..inner];
        let gains: Vec<f64> = norm[..inner].iter().map(|&gain| gain.into()).collect();
        let params = RmsNormParams { cols: inner as u32, eps: EPS, ..RmsNormParams::default() };
        // Of one in every column the norm is the factor that a whole row has.
        let factor = if normed { rms_norm::twin(&params, row, &vec![1.0; inner])[0] / row[0] } else { 1.0 };
        let weighed: Vec<f64> = match normed {
            true => row.iter().zip(&gains).map(|(x, gain)| x * gain).collect(),
            false => row.to_vec(),
        };
        let (rounded, tied) = match std::ptr::eq(form.kernel, &matvec_int8::KERNEL) {
            true => matvec_int8::twin(&weighed, form.format.group_values()),
            false => (weighed, vec![0.0; inner]),
        };
        values.extend(rounded.iter().map(|value| value * factor));
        ties.extend(tied.iter().map(|tie| tie * factor));
    }
    Input { x, norm, gather, values, ties }
}

fn check(rig: &Rig<'_>, form: Form, schedule: &Schedule, case: &Case, index: usize) -> Result<(), Failure> {
    let &Case { rows, cols, inner, bias, first_cols } = case;
    let mut random = rig.random(index);
    let weight = WeightRows::random(&mut random, form.format, cols, inner);
    let input = input(rig, form, case, &mut random);
    let biases = random.values(cols);
    let gated = form.epilogue == Part::EpilogueGated;
    let add = !gated && index % 2 == 1;
    let parts = [Part::Weight(form.format), rig.act, form.input, rig.reduce, form.epilogue];
    let variant = form.kernel.variant(&parts, schedule.clone());

    // A few columns and a row past the product's, which no lane may write.
    let (out_part, out_cols) = if gated { (rig.act, cols / 2) } else { (Part::ActF32, cols) };
    let out_stride = out_cols + 3;
    let places: Vec<usize> = (0..rows).flat_map(|row| row * out_stride..row * out_stride + out_cols).collect();
    let mut before = vec![UNTOUCHED; (rows + 1) * out_stride];
    if add {
        places.iter().for_each(|&place| before[place] = random.value());
    }
    // Whole words, where two halves are one.
    before.resize(before.len().next_multiple_of(2), UNTOUCHED);
    let mut out = store(out_part, &before).bytes;
    for columns in [0..first_cols, first_cols..cols] {
        let params = MatvecParams {
            rows: rows as u32,
            cols: columns.len() as u32,
            blocks: weight.blocks() as u32,
            weight_row_quads: (weight.row_bytes() / 16) as u32,
            weight_blocks: form.format.row_blocks(inner) as u32,
            first_col: columns.start as u32,
            out_stride: out_stride as u32,
            bias: bias.into(),
            add: add.into(),
            activation: (index % 2) as u32,
            norm_cols: inner as u32,
            eps: EPS,
            gather: bias.into(),
        };
        if columns.is_empty() {
            continue;
        }
        let piece = &weight.bytes[columns.start * weight.row_bytes()..columns.end * weight.row_bytes()];
        let (norm, gather) = (bytemuck::cast_slice(&input.norm), bytemuck::cast_slice(&input.gather));
        let inputs = [piece, piece, &input.x.bytes, bytemuck::cast_slice(&biases), &out, norm, gather];
        let workgroups = matvec::workgroups(&params, schedule);
        out = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), workgroups)?.remove(0);
    }

    let before: Vec<f64> = match add {
        true => places.iter().map(|&place| before[place].into()).collect(),
        false => vec![0.0; rows * cols],
    };
    let biases: Vec<f64> = if bias { biases.iter().map(|&b| b.into()).collect() } else { Vec::new() };
    let sums = wanted_sums(&input, &weight, &biases, &before);
    // Normed inputs bring a second sum in, that of their squares.
    let chain = if form.input == Part::InputNormed { 2 * inner + 2 } else { inner + 2 };
    let tolerance = Tolerance::f32(chain);
    let (want, tolerance) = match gated {
        true => (wanted_gated(&sums, tolerance, (index % 2) as u32), Tolerance::f32(2)),
        false => (sums, tolerance),
    };
    let tolerance = if gated && is_f16(rig.act) { tolerance.stored_f16() } else { tolerance };
    let what = || format!("{variant}, {rows} × {cols} × {inner}, seed {}", random.seed);
    rig.compare_places(what, tolerance, &load(out_part, &out), (&places, UNTOUCHED), &want)
}

/// Sums with bias and what was there before.
fn wanted_sums(input: &Input, weight: &WeightRows, biases: &[f64], before: &[f64]) -> Wanted {
    let absolute = |values: &[f64]| -> Vec<f64> { values.iter().map(|value| value.abs()).collect() };
    let (inner, sizes) = (weight.inner, absolute(&weight.values));
    let plus = |sums: Vec<f64>, before: &[f64]| sums.iter().zip(before).map(|(sum, before)| sum + before).collect();
    let values = plus(linear::twin(&input.values, &weight.values, biases, inner), before);
    let scale =
        plus(linear::twin(&absolute(&input.values), &weight.magnitudes, &absolute(biases), inner), &absolute(before));
    Wanted { values, scale, inherited: linear::twin(&input.ties, &sizes, &[], inner) }
}
