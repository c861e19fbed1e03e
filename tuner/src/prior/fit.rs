//! The prior's constants from measurements, by a search that no single bad measurement can sway.

use super::{CONSTANTS, Prior, Wave};
use crate::numbers::{exp, median};

/// A measurement to fit.
pub(crate) struct Sample<'a> {
    pub(crate) kernel: &'a str,
    /// Bytes, operations, workgroups and workgroup memory.
    pub(crate) cost: [f32; 4],
    /// Natural logarithm of µs.
    pub(crate) log_us: f32,
    /// How much it counts.
    pub(crate) weight: f32,
}

/// More samples than that are thinned.
const MOST_SAMPLES: usize = 2500;
/// Errors of the logarithm beyond it count linearly.
const HUBER: f64 = 0.1;

/// The constants as numbers without bounds: logarithms of sizes, logits of shares.
type Free = [f64; CONSTANTS];

/// Fits the constants of a prior: a compass search in the logarithms from a few starts, with the kernels' factors at
/// the weighted median of what they leave. The same samples give the same prior.
pub(crate) fn fit(samples: &[Sample<'_>]) -> Prior {
    let step = samples.len().div_ceil(MOST_SAMPLES).max(1);
    let samples: Vec<&Sample<'_>> = samples.iter().step_by(step).collect();
    let mut kernels: Vec<&str> = samples.iter().map(|sample| sample.kernel).collect();
    kernels.sort_unstable();
    kernels.dedup();

    // Rates that explain the slowest and the fastest samples; the search moves from there by factors.
    let rate = |which: usize, quantile: f64| {
        let mut rates: Vec<f64> = samples.iter().map(|s| f64::from(s.cost[which]) / exp(f64::from(s.log_us))).collect();
        rates.sort_by(f64::total_cmp);
        let at = ((rates.len().max(1) - 1) as f64 * quantile) as usize;
        rates.get(at).copied().unwrap_or(1.0).clamp(1e-3, 1e12)
    };
    let least_us = samples.iter().map(|s| exp(f64::from(s.log_us))).fold(f64::INFINITY, f64::min).clamp(1e-2, 1e6);
    let start = |slots: f64, tail: f64| -> Free {
        let log = crate::numbers::ln_f64;
        [
            log(least_us / 2.0),
            log(rate(0, 0.95)),
            log(rate(1, 0.95)),
            log(slots),
            log(slots * 32e3),
            log(least_us / 1e3),
            -1.0,
            tail,
        ]
    };
    let starts = [(2.0, 0.0), (16.0, 0.0), (128.0, 0.0), (512.0, 0.0), (1024.0, -2.0)];
    let mut found: Vec<(f64, Free)> =
        starts.iter().map(|(slots, tail)| search(&samples, &kernels, start(*slots, *tail))).collect();
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    let free = found.iter().take(2).map(|found| refined(&samples, &kernels, *found)).min_by(|a, b| a.0.total_cmp(&b.0));
    let free = free.map_or(start(16.0, 0.0), |(_, free)| free);
    let prior = at(&free);
    let factors = factors(&prior, &samples, &kernels);
    let kernels = kernels.iter().zip(factors).map(|(name, factor)| ((*name).to_owned(), factor as f32)).collect();
    Prior { kernels, ..prior }
}

fn at(free: &Free) -> Prior {
    let size = |x: f64| exp(x.clamp(-18.0, 32.0)) as f32;
    let share = |x: f64| (1.0 / (1.0 + exp(-x.clamp(-8.0, 8.0)))) as f32;
    Prior {
        launch_us: size(free[0]),
        bytes_per_us: size(free[1]),
        flops_per_us: size(free[2]),
        slots: size(free[3].clamp(0.0, 14.0)),
        memory_bytes: size(free[4]),
        workgroup_us: size(free[5]),
        overlap: share(free[6]),
        tail: share(free[7]),
        kernels: Vec::new(),
    }
}

fn factors(prior: &Prior, samples: &[&Sample<'_>], kernels: &[&str]) -> Vec<f64> {
    let wave = Wave::new(prior);
    let residual = |s: &Sample<'_>| f64::from(s.log_us - wave.one(s.cost));
    let of = |kernel: &str| samples.iter().filter(|s| s.kernel == kernel).map(|s| residual(s)).collect::<Vec<f64>>();
    kernels.iter().map(|kernel| median(of(kernel)).unwrap_or(0.0).clamp(-20.0, 20.0)).collect()
}

fn loss(samples: &[&Sample<'_>], kernels: &[&str], free: &Free) -> f64 {
    let prior = at(free);
    let factors = factors(&prior, samples, kernels);
    let wave = Wave::new(&prior);
    let (mut total, mut weights) = (0.0, 0.0);
    for s in samples {
        let kernel = kernels.iter().position(|kernel| *kernel == s.kernel).unwrap_or(0);
        let predicted = f64::from(wave.one(s.cost)) + factors[kernel];
        let error = (predicted - f64::from(s.log_us)).abs();
        let huber = if error < HUBER { error * error / 2.0 } else { HUBER * (error - HUBER / 2.0) };
        total += f64::from(s.weight) * huber;
        weights += f64::from(s.weight);
    }
    // Factors near 1, where the rates can say the same.
    let drift: f64 = factors.iter().map(|factor| factor * factor).sum::<f64>() / kernels.len().max(1) as f64;
    total / f64::max(weights, 1e-9) + 1e-3 * drift
}

/// Whole waves make a staircase of the slots, on which steps get stuck: looks at slots near and far, the workgroup memory
/// in step with them or off by some, and steps on from the best, while that helps.
fn refined(samples: &[&Sample<'_>], kernels: &[&str], found: (f64, Free)) -> (f64, Free) {
    let mut best = found;
    for _ in 0..4 {
        let mut looked = best;
        for memory in [-0.8, -0.4, 0.0, 0.4, 0.8] {
            for step in -120..=120 {
                let mut free = best.1;
                // Up to a factor of 6, finely near 1.
                let offset = f64::from(step) / 120.0;
                let offset = 1.8 * offset * offset.abs();
                free[3] += offset;
                free[4] += offset + memory;
                let found = loss(samples, kernels, &free);
                looked = if found < looked.0 { (found, free) } else { looked };
            }
        }
        let next = search(samples, kernels, looked.1);
        if next.0 > 0.999 * best.0 {
            return if next.0 < best.0 { next } else { best };
        }
        best = next;
    }
    best
}

/// Steps along each constant, longer after success and shorter after failure, and after each round a leap along all that
/// the round has moved.
///
/// Source: Hooke & Jeeves 1961, "Direct search" solution of numerical and statistical problems, section 2.
fn search(samples: &[&Sample<'_>], kernels: &[&str], start: Free) -> (f64, Free) {
    let (mut free, mut least) = (start, loss(samples, kernels, &start));
    let mut steps = [1.0_f64; CONSTANTS];
    for _ in 0..60 {
        let before = free;
        for which in 0..CONSTANTS {
            let mut moved = false;
            for sign in [1.0, -1.0] {
                let mut next = free;
                next[which] += sign * steps[which];
                let found = loss(samples, kernels, &next);
                if found < least {
                    (free, least, moved) = (next, found, true);
                    steps[which] *= sign;
                    break;
                }
            }
            steps[which] *= if moved { 1.5 } else { 0.5 };
            steps[which] = steps[which].clamp(-3.0, 3.0);
        }
        let mut reach = 1.0;
        while reach < 100.0 {
            let leap: Free = std::array::from_fn(|which| free[which] + reach * (free[which] - before[which]));
            let found = loss(samples, kernels, &leap);
            if found >= least {
                break;
            }
            (free, least, reach) = (leap, found, 2.0 * reach);
        }
        if steps.iter().all(|step| step.abs() < 1e-3) {
            break;
        }
    }
    (least, free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_found_again() {
        let wanted = Prior {
            launch_us: 5.0,
            bytes_per_us: 2e4,
            flops_per_us: 4e4,
            slots: 24.0,
            memory_bytes: 1e6,
            workgroup_us: 0.2,
            overlap: 0.2,
            tail: 0.7,
            kernels: vec![("a".to_owned(), 0.0), ("b".to_owned(), 0.3)],
        };
        let samples: Vec<Sample<'_>> = (0..1500_u32)
            .map(|at| {
                let draw = |salt: u32, n: u32| (at.wrapping_mul(2_654_435_761).wrapping_add(salt) >> 7) % n;
                let cost = [
                    (10 + draw(1, 5)) as f32 * 1e4 * 2_f32.powi(draw(2, 6) as i32),
                    (10 + draw(3, 7)) as f32 * 1e4 * 2_f32.powi(draw(4, 8) as i32),
                    (1 + draw(5, 400)) as f32,
                    (draw(6, 3) * 16_384) as f32,
                ];
                let kernel = &wanted.kernels[at as usize % 2];
                let log_us = Wave::new(&wanted).one(cost) + kernel.1;
                // One in fifty is a mishap.
                let mishap = if at % 50 == 0 { 2.0 } else { 0.0 };
                Sample { kernel: &kernel.0, cost, log_us: log_us + mishap, weight: 1.0 }
            })
            .collect();
        let met = fit(&samples);
        let errors: Vec<f64> = samples
            .iter()
            .map(|s| {
                let factor = met.kernels.iter().find(|(name, _)| name == s.kernel).expect("a factor").1;
                f64::from((Wave::new(&met).one(s.cost) + factor - s.log_us).abs())
            })
            .collect();
        let error = median(errors).expect("samples");
        assert!(error < 0.03, "median error {error}, {met:?}");
    }
}
