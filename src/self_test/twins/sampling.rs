//! Twin tests of the kernels on rows of logits: `adjust_logits.wgsl`, `argmax.wgsl`, `top_k.wgsl`, `cross_entropy.wgsl`.

use crate::self_test::data::{Random, floats, words};
use crate::self_test::rig::{Failure, Rig};
use raglan_shaders::adjust_logits::{self, AdjustLogitsParams, LogitAdjustment};
use raglan_shaders::argmax::{self, ArgmaxParams};
use raglan_shaders::cross_entropy::{self, CrossEntropyParams};
use raglan_shaders::top_k::{self, TopKParams, TopKRow, TopKSummary};
use raglan_shaders::{Tolerance, Wanted, accuracy};

/// What stands in a row past the columns that count: the largest of all, if it counted.
const PAST: f32 = 1e6;

/// Rows of `cols` random logits, `stride` apart, with [`PAST`] between.
fn logits(random: &mut Random, rows: usize, cols: usize, stride: usize) -> Vec<f32> {
    let mut all = vec![PAST; rows * stride];
    for row in all.chunks_exact_mut(stride) {
        row[..cols].copy_from_slice(&random.values(cols).iter().map(|value| value * 10.0).collect::<Vec<_>>());
    }
    all
}

fn lengths(lanes: u32) -> [usize; 6] {
    let lanes = lanes as usize;
    [1, 2, lanes - 1, lanes, lanes + 1, 1031]
}

pub(super) fn check_adjust_logits(rig: &Rig<'_>) -> Result<(), Failure> {
    for schedule in rig.schedules(&adjust_logits::KERNEL, &[64]) {
        for (index, count) in lengths(schedule.values[0]).into_iter().enumerate() {
            let mut random = rig.random(index);
            let (rows, cols, stride) = (3, count, count + 5);
            let logits = logits(&mut random, rows, cols, stride);
            let adjustments: Vec<LogitAdjustment> = random.permutation(rows * cols)[..count]
                .iter()
                .map(|&at| LogitAdjustment {
                    row: (at / cols) as u32,
                    token: (at % cols) as u32,
                    repetition: 1.0 + random.value().abs(),
                    subtract: random.value() * 2.0,
                })
                .collect();
            let params = AdjustLogitsParams { count: count as u32, stride: stride as u32 };
            let variant = adjust_logits::KERNEL.variant(&[], schedule.clone());
            let workgroups = [params.count.div_ceil(schedule.values[0]), 1, 1];
            // One adjustment more than counts: nobody may apply it.
            let mut list = adjustments.clone();
            list.push(LogitAdjustment { row: 0, token: cols as u32, repetition: 1.0, subtract: 1.0 });
            let inputs = [bytemuck::cast_slice(&list), bytemuck::cast_slice(&logits)];
            let met = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), workgroups)?;
            let met = floats(&met[0]);
            let what = || format!("{variant}, {count} adjustments, seed {}", random.seed);
            let mut rest = logits.clone();
            let mut want = Wanted::default();
            let mut adjusted = Vec::new();
            for adjustment in &adjustments {
                let at = adjustment.row as usize * stride + adjustment.token as usize;
                let value = adjust_logits::twin(adjustment, logits[at].into());
                want.values.push(value);
                want.scale.push(value.abs() + 2.0 * f64::from(adjustment.subtract).abs());
                want.inherited.push(0.0);
                adjusted.push(met[at]);
                rest[at] = met[at];
            }
            rig.compare(what, Tolerance::f32(1), &adjusted, &want)?;
            rig.same(what, &met, &rest)?;
        }
    }
    Ok(())
}

pub(super) fn check_argmax(rig: &Rig<'_>) -> Result<(), Failure> {
    for schedule in rig.schedules(&argmax::KERNEL, &[8, 64]) {
        for (index, cols) in lengths(schedule.values[0]).into_iter().enumerate() {
            let mut random = rig.random(index);
            let (rows, stride) = (9, cols + 3);
            let mut logits = logits(&mut random, rows, cols, stride);
            for (row, logits) in logits.chunks_exact_mut(stride).enumerate() {
                let logits = &mut logits[..cols];
                let (one, other) = (random.index(cols), random.index(cols));
                match row {
                    1 => logits.fill(-2.5),
                    2 => logits.fill(f32::NAN),
                    3 => logits.fill(f32::NEG_INFINITY),
                    // Ties of the largest.
                    4 => [one, other].into_iter().for_each(|at| logits[at] = 11.0),
                    5 => logits[one] = f32::NAN,
                    6 => {
                        logits.fill(f32::NEG_INFINITY);
                        logits[one] = -1e30;
                    }
                    7 => logits[cols - 1] = 12.0,
                    8 => logits.iter_mut().for_each(|logit| *logit = -logit.abs() - 1.0),
                    _ => (),
                }
            }
            let params = ArgmaxParams { cols: cols as u32, stride: stride as u32 };
            let variant = argmax::KERNEL.variant(&[rig.reduce], schedule.clone());
            let samples = vec![7u32; rows];
            let inputs = [bytemuck::cast_slice(&logits), bytemuck::cast_slice(&samples)];
            let met = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), [rows as u32, 1, 1])?;
            let want: Vec<u32> = logits.chunks_exact(stride).map(|row| argmax::twin(&row[..cols])).collect();
            rig.same(|| format!("{variant}, {cols} columns, seed {}", random.seed), &words(&met[0]), &want)?;
        }
    }
    Ok(())
}

pub(super) fn check_top_k(rig: &Rig<'_>) -> Result<(), Failure> {
    for schedule in rig.schedules(&top_k::KERNEL, &[8, 64]) {
        for (index, cols) in lengths(schedule.values[0]).into_iter().enumerate() {
            for k in [1, 7, 128, cols] {
                let mut random = rig.random(index);
                let (rows, stride, k) = (4, cols + 3, k.min(cols));
                let mut logits = logits(&mut random, rows, cols, stride);
                // Many ties in one row, nothing but one value in another.
                logits[stride..stride + cols].iter_mut().for_each(|logit| *logit = (*logit / 4.0).round());
                logits[2 * stride..2 * stride + cols].fill(-3.0);
                let top_rows: Vec<TopKRow> =
                    [3, 1, 0, 2].map(|row| TopKRow { row, inverse_temperature: 0.25 + random.value().abs() }).to_vec();
                let params = TopKParams { cols: cols as u32, stride: stride as u32, k: k as u32 };
                let variant = top_k::KERNEL.variant(&[rig.reduce], schedule.clone());
                let candidates = vec![u32::MAX; rows * 2 * k];
                let summaries = vec![0u32; rows * 3];
                let inputs = [
                    bytemuck::cast_slice(&logits),
                    bytemuck::cast_slice(&top_rows),
                    bytemuck::cast_slice(&candidates),
                    bytemuck::cast_slice(&summaries),
                ];
                let met = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), [rows as u32, 1, 1])?;
                let pairs = words(&met[0]);
                let summaries: Vec<TopKSummary> = bytemuck::pod_collect_to_vec(&met[1]);
                for (index, row) in top_rows.iter().enumerate() {
                    let logits = &logits[row.row as usize * stride..][..cols];
                    let what = || format!("{variant}, {k} of {cols}, row {}, seed {}", row.row, random.seed);
                    check_candidates(
                        rig,
                        &what,
                        &params,
                        row,
                        logits,
                        &pairs[index * 2 * k..][..2 * k],
                        &summaries[index],
                    )?;
                }
            }
        }
    }
    Ok(())
}

/// Candidates come in any order, and of equal ones any may be left out.
fn check_candidates(
    rig: &Rig<'_>,
    what: &dyn Fn() -> String,
    params: &TopKParams,
    row: &TopKRow,
    logits: &[f32],
    pairs: &[u32],
    summary: &TopKSummary,
) -> Result<(), Failure> {
    let mut met: Vec<(u32, f32)> = pairs.chunks_exact(2).map(|pair| (pair[0], f32::from_bits(pair[1]))).collect();
    met.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let (want, total) = top_k::twin(params, row, logits);
    let numbers = |pairs: &[(u32, f32)]| -> Vec<f32> { pairs.iter().map(|pair| pair.1).collect() };
    rig.same(what, &numbers(&met), &numbers(&want))?;
    let least = want[want.len() - 1].1;
    let above = |pairs: &[(u32, f32)]| -> Vec<u32> {
        pairs.iter().filter(|pair| pair.1.total_cmp(&least).is_gt()).map(|pair| pair.0).collect()
    };
    rig.same(what, &above(&met), &above(&want))?;
    let named: Vec<f32> = met.iter().map(|pair| logits.get(pair.0 as usize).copied().unwrap_or(f32::NAN)).collect();
    rig.same(what, &numbers(&met), &named)?;
    let mut columns: Vec<u32> = met.iter().map(|pair| pair.0).collect();
    columns.sort_unstable();
    columns.dedup();
    rig.same(what, &[columns.len()], &[met.len()])?;
    // The zeros of both signs are different logits here.
    let equal = |logits: &mut dyn Iterator<Item = f32>| logits.filter(|logit| logit.total_cmp(&least).is_eq()).count();
    let left_out = equal(&mut logits.iter().copied()) - equal(&mut numbers(&met).into_iter());
    rig.same(what, &[summary.left_out], &[left_out as u32])?;
    rig.same(what, &[summary.largest], &[want[0].1])?;
    let inverse = f64::from(row.inverse_temperature);
    let largest = f64::from(want[0].1);
    let error = |&logit: &f32| {
        // The argument is rounded twice before the exponential.
        let x = (f64::from(logit) - largest) * inverse;
        x.exp() * (accuracy::exp(x) + 2.0 * x.abs() * accuracy::STEP)
    };
    let want = Wanted { values: vec![total], scale: vec![total], inherited: vec![logits.iter().map(error).sum()] };
    rig.compare(what, Tolerance::f32(logits.len()), &[summary.total], &want)
}

pub(super) fn check_cross_entropy(rig: &Rig<'_>) -> Result<(), Failure> {
    for schedule in rig.schedules(&cross_entropy::KERNEL, &[8, 64]) {
        for (index, cols) in lengths(schedule.values[0]).into_iter().enumerate() {
            let mut random = rig.random(index);
            let (rows, stride) = (5, cols + 3);
            let mut logits = logits(&mut random, rows, cols, stride);
            // All equal; one far above; large ones.
            logits[stride..stride + cols].fill(0.5);
            logits[2 * stride] = 200.0;
            logits[3 * stride..3 * stride + cols].iter_mut().for_each(|logit| *logit += 1000.0);
            let targets: Vec<u32> = (0..rows).map(|_| random.index(cols) as u32).collect();
            let params = CrossEntropyParams { cols: cols as u32, stride: stride as u32 };
            let variant = cross_entropy::KERNEL.variant(&[rig.reduce], schedule.clone());
            let nll = vec![0f32; rows];
            let inputs = [bytemuck::cast_slice(&logits), bytemuck::cast_slice(&targets), bytemuck::cast_slice(&nll)];
            let met = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), [rows as u32, 1, 1])?;
            let met = floats(&met[0]);
            for (row, &target) in targets.iter().enumerate() {
                let exact: Vec<f64> = logits[row * stride..][..cols].iter().map(|&logit| logit.into()).collect();
                let largest = exact.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let value = cross_entropy::twin(&exact, target as usize);
                // The sum's relative error is the logarithm's absolute one.
                let (total, error) = exact.iter().fold((0.0, 0.0), |(total, error), logit| {
                    let (x, weight) = (logit - largest, (logit - largest).exp());
                    (total + weight, error + weight * (accuracy::exp(x) + x.abs() * accuracy::STEP))
                });
                let sum_error = (4.0 + (cols as f64).sqrt()) * accuracy::STEP;
                let want = Wanted {
                    values: vec![value],
                    scale: vec![total.ln() + largest.abs() + exact[target as usize].abs()],
                    inherited: vec![error / total + sum_error + accuracy::LOG],
                };
                let what = || format!("{variant}, {cols} columns, row {row}, seed {}", random.seed);
                rig.compare(what, Tolerance::f32(2), &met[row..=row], &want)?;
            }
        }
    }
    Ok(())
}
