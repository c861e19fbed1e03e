//! How long a prompt that is being read will take: later tokens take longer, since they see more.

use std::time::Duration;

/// Times of a prompt that is being read, after so many of its tokens. The time to read from the first computed token to position
/// p grows as a · p + b · p² / 2: products of each token, and its attention to all before it. Both are found by least squares.
#[derive(Debug, Default)]
pub(in crate::cli) struct Estimate {
    /// The position at which the reading began.
    first: Option<f64>,
    /// Sums over the samples of x², xy, y², xt and yt, of x = p − first, y = (p² − first²) / 2 and seconds t.
    sums: [f64; 5],
    /// The last sample: position and seconds.
    last: (f64, f64),
    samples: usize,
}

impl Estimate {
    /// So many tokens were there after so long.
    pub(in crate::cli) fn add(&mut self, tokens: usize, elapsed: Duration) {
        let (position, seconds) = (tokens as f64, elapsed.as_secs_f64());
        let Some(first) = self.first else {
            (self.first, self.last) = (Some(position), (position, seconds));
            return;
        };
        if position <= self.last.0 {
            return;
        }
        let (x, y) = terms(first, position);
        for (sum, term) in self.sums.iter_mut().zip([x * x, x * y, y * y, x * seconds, y * seconds]) {
            *sum += term;
        }
        self.last = (position, seconds);
        self.samples += 1;
    }

    /// The time from the last sample to the end of a prompt of so many tokens; `None` before anything is known.
    pub(in crate::cli) fn left(&self, tokens: usize) -> Option<Duration> {
        let first = self.first.filter(|_| self.samples > 0)?;
        let [xx, xy, yy, xt, yt] = self.sums;
        let determinant = xx * yy - xy * xy;
        let (mut a, mut b) = (xt / xx, 0.0);
        if self.samples > 2 && determinant > 1e-9 * xx * yy {
            (a, b) = ((xt * yy - yt * xy) / determinant, (yt * xx - xt * xy) / determinant);
            // Neither part takes less than no time.
            if b < 0.0 {
                (a, b) = (xt / xx, 0.0);
            } else if a < 0.0 {
                (a, b) = (0.0, yt / yy);
            }
        }
        let (x, y) = terms(first, (tokens as f64).max(self.last.0));
        let (x_done, y_done) = terms(first, self.last.0);
        Duration::try_from_secs_f64((a * (x - x_done) + b * (y - y_done)).max(0.0)).ok()
    }
}

fn terms(first: f64, position: f64) -> (f64, f64) {
    (position - first, (position * position - first * first) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds to read up to a position.
    fn time(position: f64) -> f64 {
        2e-4 * position + 1e-8 * position * position / 2.0
    }

    #[test]
    fn the_rest_of_a_long_prompt_takes_longer_than_its_share() {
        for first in [0, 20_000] {
            let mut estimate = Estimate::default();
            assert_eq!(estimate.left(280_000), None);
            for position in (first..=first + 30_000).step_by(512) {
                let seconds = time(position as f64) - time(first as f64);
                estimate.add(position, Duration::from_secs_f64(seconds));
            }
            let last = (first + 30_000) / 512 * 512;
            let last = first + (last - first) / 512 * 512;
            let wanted = time(280_000.0) - time(last as f64);
            let left = estimate.left(280_000).expect("it was measured").as_secs_f64();
            assert!((left / wanted - 1.0).abs() < 0.01, "{left} s where {wanted} s are left");
        }
    }

    #[test]
    fn few_and_falling_times_are_taken_for_even_ones() {
        let mut estimate = Estimate::default();
        estimate.add(0, Duration::ZERO);
        estimate.add(0, Duration::from_secs(1));
        assert_eq!(estimate.left(100), None, "nothing was read");
        estimate.add(10, Duration::from_secs(2));
        assert_eq!(estimate.left(100), Some(Duration::from_secs(18)));
        for (tokens, seconds) in [(20, 3.5), (40, 6.0), (50, 6.5)] {
            estimate.add(tokens, Duration::from_secs_f64(seconds));
        }
        let left = estimate.left(100).expect("it was measured").as_secs_f64();
        assert!(left > 5.0 && left < 10.0, "{left}");
        assert_eq!(estimate.left(50), Some(Duration::ZERO));
    }
}
