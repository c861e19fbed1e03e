//! Several measurements of one thing.

/// Their median and how far they spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The middle one; of an even number the mean of two.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Their standard deviation; 0 for one.
    pub deviation: f64,
}

impl Spread {
    /// # Panics
    /// If there are none.
    pub fn of(samples: &[f64]) -> Spread {
        assert!(!samples.is_empty(), "a spread of at least one sample");
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let mean = sorted.iter().sum::<f64>() / count as f64;
        let squares: f64 = sorted.iter().map(|sample| (sample - mean).powi(2)).sum();
        Spread {
            median: sorted[(count - 1) / 2].midpoint(sorted[count / 2]),
            min: sorted[0],
            max: sorted[count - 1],
            deviation: (squares / (count.max(2) - 1) as f64).sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        let spread = Spread::of(&[5.0, 1.0, 3.0]);
        assert_eq!((spread.median, spread.min, spread.max, spread.deviation), (3.0, 1.0, 5.0, 2.0));
        assert_eq!(Spread::of(&[4.0, 2.0]).median, 3.0);
        assert_eq!(Spread::of(&[7.0]).deviation, 0.0);
    }
}
