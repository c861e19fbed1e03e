//! Twin tests of the kernels that measure an adapter: what does not compute what it says measures nothing.

use crate::self_test::data::{floats, is_f16, words};
use crate::self_test::rig::{Failure, Rig};
use half::f16;
use raglan_shaders::measure::copy::{self, MeasureCopyParams};
use raglan_shaders::measure::dot::{self, MeasureDotParams};
use raglan_shaders::measure::matrix::{self, MeasureMatrixParams};
use raglan_shaders::measure::multiply::{self, MeasureMultiplyParams};
use raglan_shaders::measure::read::{self, MeasureReadParams};
use raglan_shaders::{Kernel, Part, Tolerance, Wanted};

/// Checks one kernel in one way.
type Check = fn(&Rig<'_>) -> Result<(), Failure>;

/// Words at and around what lanes take at a time.
const QUADS: [usize; 4] = [1, 127, 512, 4 * 8 * 512 + 5];

fn check_read(rig: &Rig<'_>) -> Result<(), Failure> {
    for (index, quads) in QUADS.into_iter().enumerate() {
        let variant = read::KERNEL.variant(&[], rig.one_schedule(&read::KERNEL, &[quads as u32], index));
        let (lanes, chunk) = (variant.schedule.values[0] as usize, quads.div_ceil(1 + index));
        let workgroups = quads.div_ceil(chunk) as u32;
        let x = random_words(rig, index, 4 * quads);
        let out = vec![0u8; 4 * lanes * workgroups as usize];
        let params = MeasureReadParams { quads: quads as u32, chunk: chunk as u32 };
        let inputs = [bytemuck::cast_slice(&x), &out];
        let met = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), [workgroups, 1, 1])?.remove(0);
        rig.same(|| format!("{variant}, {quads} quads"), &words(&met), &read::twin(&x, chunk, lanes))?;
    }
    Ok(())
}

fn check_copy(rig: &Rig<'_>) -> Result<(), Failure> {
    for (index, quads) in QUADS.into_iter().enumerate() {
        let variant = copy::KERNEL.variant(&[], rig.one_schedule(&copy::KERNEL, &[quads as u32], index));
        let mut x = random_words(rig, index, 4 * quads + 4);
        let out = vec![0u8; 16 * (quads + 1)];
        let chunk = quads.div_ceil(1 + index);
        let params = MeasureCopyParams { quads: quads as u32, chunk: chunk as u32 };
        let inputs = [bytemuck::cast_slice(&x), &out];
        let workgroups = [quads.div_ceil(chunk) as u32, 1, 1];
        let met = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), workgroups)?.remove(0);
        x[4 * quads..].fill(0);
        rig.same(|| format!("{variant}, {quads} quads"), &words(&met), &x)?;
    }
    Ok(())
}

fn check_multiply(rig: &Rig<'_>) -> Result<(), Failure> {
    for (index, steps) in [0, 1, 5].into_iter().enumerate() {
        let variant = multiply::KERNEL.variant(&[rig.act], rig.one_schedule(&multiply::KERNEL, &[steps], index));
        let lanes = 2 * variant.schedule.values[0] as usize;
        let out = vec![0u8; 16 * lanes];
        let params = MeasureMultiplyParams { steps, factor: 0.5 };
        let met = rig.run(&variant, &[&out], bytemuck::bytes_of(&params), [2, 1, 1])?.remove(0);
        let tolerance = Tolerance::f32(8 + steps as usize);
        let tolerance = if is_f16(rig.act) { tolerance.stored_f16() } else { tolerance };
        let want = Wanted::plain(multiply::twin(&params, lanes));
        rig.compare(|| format!("{variant}, {steps} steps"), tolerance, &floats(&met), &want)?;
    }
    Ok(())
}

fn check_dot(rig: &Rig<'_>) -> Result<(), Failure> {
    for (index, steps) in [0, 1, 9].into_iter().enumerate() {
        let variant = dot::KERNEL.variant(&[], rig.one_schedule(&dot::KERNEL, &[steps], index));
        let lanes = 2 * variant.schedule.values[0] as usize;
        let out = vec![0u8; 4 * lanes];
        let params = MeasureDotParams { steps, factor: 0x7f80_03fd };
        let met = rig.run(&variant, &[&out], bytemuck::bytes_of(&params), [2, 1, 1])?.remove(0);
        let met: Vec<i32> = bytemuck::pod_collect_to_vec(&met);
        rig.same(|| format!("{variant}, {steps} steps"), &met, &dot::twin(&params, lanes))?;
    }
    Ok(())
}

/// Skipped where the adapter has no cooperative matrices.
fn check_matrix(rig: &Rig<'_>) -> Result<(), Failure> {
    if !rig.is_of_two(0) {
        return Ok(());
    }
    let limits = rig.limits();
    let part = match limits.coop_side {
        16 => Part::Coop16,
        8 => Part::Coop8,
        _ => return Ok(()),
    };
    let side = limits.coop_side as usize;
    for (index, steps) in [0, 1, 3].into_iter().enumerate() {
        let variant = matrix::KERNEL.variant(&[part], rig.one_schedule(&matrix::KERNEL, &[steps], index));
        let x: Vec<f16> =
            rig.random(index).values(matrix::FACTORS * side * side).into_iter().map(f16::from_f32).collect();
        let values: Vec<f64> = x.iter().map(|value| value.to_f64()).collect();
        let subgroups = 2 * (variant.schedule.values[0] / limits.max_subgroup_lanes) as usize;
        let out = vec![0u8; 4 * subgroups * matrix::ACCUMULATORS * side * side];
        let params = MeasureMatrixParams { steps };
        let inputs = [bytemuck::cast_slice(&x), &out];
        let met = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), [2, 1, 1])?.remove(0);
        let magnitudes: Vec<f64> = values.iter().map(|value| value.abs()).collect();
        let want = Wanted::scaled(matrix::twin(&values, side, steps), matrix::twin(&magnitudes, side, steps));
        for met in floats(&met).chunks_exact(matrix::ACCUMULATORS * side * side) {
            let tolerance = Tolerance::f32(side * steps as usize);
            rig.compare(|| format!("{variant}, {steps} steps"), tolerance, met, &want)?;
        }
    }
    Ok(())
}

fn random_words(rig: &Rig<'_>, index: usize, count: usize) -> Vec<u32> {
    rig.random(index).values(count).into_iter().map(f32::to_bits).collect()
}

/// Every kernel here with its check.
pub(super) const CHECKS: [(&Kernel, Check); 5] = [
    (&read::KERNEL, check_read),
    (&copy::KERNEL, check_copy),
    (&multiply::KERNEL, check_multiply),
    (&dot::KERNEL, check_dot),
    (&matrix::KERNEL, check_matrix),
];
