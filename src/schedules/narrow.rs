//! Few of many candidates, so that few kernels are compiled.

/// Stands for a candidate that is illegal, beyond any logarithm of a time.
const ILLEGAL: f32 = 40.0;

/// Which candidates to keep: one pipeline after the other, each the one that lowers the weighed mean of the least `log_us`
/// the most, as long as it does so by `gain` or makes a point legal that was not.
///
/// `points` are weights and, by candidate, logarithms of times; `pipelines` name what is compiled for a candidate.
pub(super) fn narrow(points: &[(f32, &[f32])], pipelines: &[usize], gain: f32) -> Vec<bool> {
    let mut keep = vec![false; pipelines.len()];
    let mut least = vec![ILLEGAL; points.len()];
    let total: f32 = points.iter().map(|(weight, _)| weight).sum();
    let mut names: Vec<usize> = pipelines.to_vec();
    names.sort_unstable();
    names.dedup();
    loop {
        let gain_of = |name: usize| {
            let mut sum = 0.0;
            for ((weight, log_us), &least) in points.iter().zip(&least) {
                let own = log_us.iter().zip(pipelines).filter(|(_, pipeline)| **pipeline == name);
                let own = own.map(|(log_us, _)| *log_us).fold(f32::INFINITY, f32::min);
                sum += weight * (least - own).max(0.0);
            }
            sum
        };
        let best = names.iter().enumerate().map(|(at, &name)| (at, gain_of(name))).max_by(|a, b| a.1.total_cmp(&b.1));
        let Some((at, gained)) = best.filter(|(_, gained)| *gained > gain * total) else { return keep };
        debug_assert!(gained.is_finite(), "logarithms of times are finite or illegal");
        let name = names.remove(at);
        for (keep, _) in keep.iter_mut().zip(pipelines).filter(|(_, pipeline)| **pipeline == name) {
            *keep = true;
        }
        for ((_, log_us), least) in points.iter().zip(&mut least) {
            let own = log_us.iter().zip(pipelines).filter(|(_, pipeline)| **pipeline == name);
            *least = own.map(|(log_us, _)| *log_us).fold(*least, f32::min);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_must_gain_enough_or_make_a_point_legal() {
        const NEVER: f32 = f32::INFINITY;
        let points: Vec<(f32, &[f32])> = vec![
            (1.0, &[1.0, 0.99, 3.0, NEVER, 0.995]),
            (1.0, &[1.0, 1.00, 0.5, NEVER, 1.0]),
            (1.0, &[NEVER, NEVER, NEVER, 7.0, NEVER]),
        ];
        // The last two are one pipeline.
        let pipelines = [0, 1, 2, 3, 0];
        assert_eq!(narrow(&points, &pipelines, 0.02), [false, true, true, true, false]);
        assert_eq!(narrow(&points, &pipelines, 0.3), [false, true, false, true, false]);
        assert_eq!(narrow(&[], &[0, 1], 0.1), [false, false]);
    }
}
