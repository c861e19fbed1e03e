//! Twin test of `rms_norm.wgsl`.

use crate::self_test::data::{self, load};
use crate::self_test::rig::{Failure, Rig};
use raglan_shaders::rms_norm::{KERNEL, RmsNormParams, twin};
use raglan_shaders::{BLOCK, Schedule, Tolerance, Wanted, round_up};

const UNTOUCHED: f32 = 1234.5;

pub(super) fn check(rig: &Rig<'_>) -> Result<(), Failure> {
    for schedule in rig.schedules(&KERNEL, &[8, 64]) {
        let quads = schedule.values[0] as usize;
        // Around one pass of the lanes over quads of columns, and a prime.
        let lengths = [1, 3, 4 * quads - 1, 4 * quads, 4 * quads + 1, 1021];
        for (index, cols) in lengths.into_iter().enumerate() {
            for gather in [false, true] {
                case(rig, &schedule, cols, gather, index)?;
            }
        }
    }
    Ok(())
}

fn case(rig: &Rig<'_>, schedule: &Schedule, cols: usize, gather: bool, index: usize) -> Result<(), Failure> {
    let mut random = rig.random(index);
    let (tokens, stride) = (5, round_up(cols, BLOCK));
    let chosen: Vec<usize> = if gather { vec![3, 0, 4] } else { (0..tokens).collect() };
    let weight = padded(random.values(cols), stride);
    // Of different size row by row: large ones, and ones beside which eps counts.
    let scales = [1.0, 1e-3, 30.0, 1e-2, 0.0];
    let row = |random: &mut data::Random, token: usize| {
        padded(random.values(cols).iter().map(|value| value * scales[token]).collect(), stride)
    };
    let residual: Vec<f32> = (0..tokens).flat_map(|token| row(&mut random, token)).collect();
    let params =
        RmsNormParams { cols: cols as u32, stride_quads: (stride / 4) as u32, eps: 1e-5, gather: gather.into() };
    let variant = KERNEL.variant(&[rig.act, rig.reduce], schedule.clone());
    let rows: Vec<u32> = chosen.iter().map(|&token| token as u32).collect();
    let out = data::store(rig.act, &vec![UNTOUCHED; chosen.len() * stride]).bytes;
    let inputs: [&[u8]; 4] =
        [bytemuck::cast_slice(&residual), bytemuck::cast_slice(&weight), bytemuck::cast_slice(&rows), &out];
    let met = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), [chosen.len() as u32, 1, 1])?;
    let what = || format!("{variant}, {cols} columns, gather {gather}, seed {}", random.seed);

    let exact = |values: &[f32]| -> Vec<f64> { values.iter().map(|&value| value.into()).collect() };
    let tolerance = if data::is_f16(rig.act) { Tolerance::f32(cols).stored_f16() } else { Tolerance::f32(cols) };
    let normed = load(rig.act, &met[0]);
    for (row, &token) in chosen.iter().enumerate() {
        let at = token * stride..token * stride + cols;
        let norm = twin(&params, &exact(&residual[at]), &exact(&weight[..cols]));
        // The last quad's padding is written, and zero.
        let out = &normed[row * stride..(row + 1) * stride];
        rig.compare(what, tolerance, &out[..cols], &Wanted::plain(norm))?;
        let written = round_up(cols, 4);
        rig.same(what, &out[cols..written], &vec![0.0; written - cols])?;
        let untouched = load(rig.act, &data::store(rig.act, &vec![UNTOUCHED; stride - written]).bytes);
        rig.same(what, &out[written..], &untouched)?;
    }
    Ok(())
}

fn padded(mut values: Vec<f32>, stride: usize) -> Vec<f32> {
    values.resize(stride, 0.0);
    values
}
