//! How the time of a token grows with the context before it.

use super::models::{Kind, Row, Test};
use crate::segments::QUANTUM;
use std::str::FromStr;

/// A depth is called a cliff where even the fastest repetition takes longer than the line says by more than this share.
pub const CLIFF: f64 = 0.1;

/// Tokens of context at most, as an option may ask for.
const MOST: usize = 1 << 31;

/// The depths at which tokens are timed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Depths {
    /// These.
    List(Vec<usize>),
    /// The first, twice that and so on, and the last: `1024..131072`; as far as the cache goes where there is none: `1024..`.
    Doubling {
        /// The first.
        first: usize,
        /// The last.
        last: Option<usize>,
    },
}

impl Depths {
    /// The depths, ascending, where a cache of `slots` has room for `tokens` more behind each; those without room are left out of
    /// a doubling row that ends, which ends at the deepest that has.
    pub fn of(&self, slots: usize, tokens: usize) -> Vec<usize> {
        match self {
            Depths::List(list) => list.clone(),
            Depths::Doubling { first, last } => {
                // A prompt of one token, and a quantum of head-room at the end.
                let deepest = (slots / QUANTUM * QUANTUM).saturating_sub(QUANTUM + 1 + tokens);
                let last = last.unwrap_or(deepest).min(deepest).max(*first);
                let doubled = std::iter::successors(Some(*first), |depth| depth.checked_mul(2));
                // One just before the last would tell nothing new.
                let mut depths: Vec<usize> = doubled.take_while(|&depth| 4 * depth <= 3 * last).collect();
                depths.push(last);
                depths
            }
        }
    }

    /// A test of `tokens` tokens at each of `depths`.
    pub fn tests(depths: &[usize], tokens: usize) -> Vec<Test> {
        depths.iter().map(|&depth| Test { kind: Kind::Decode, tokens, depths: vec![depth] }).collect()
    }
}

impl FromStr for Depths {
    type Err = String;

    fn from_str(text: &str) -> Result<Depths, String> {
        let number = |text: &str| {
            let number = text.trim().parse().ok().filter(|number| (1..=MOST).contains(number));
            number.ok_or_else(|| format!("{text:?} is no whole number from 1 to {MOST}"))
        };
        let Some((first, last)) = text.split_once("..") else {
            return Ok(Depths::List(text.split(',').map(number).collect::<Result<_, _>>()?));
        };
        let first = number(first)?;
        let last = if last.trim().is_empty() { None } else { Some(number(last)?) };
        match last.filter(|last| *last < first) {
            Some(last) => Err(format!("{text:?}: {last} comes before {first}")),
            None => Ok(Depths::Doubling { first, last }),
        }
    }
}

/// A straight line through times over depths, of the least sum of squared relative residuals: noise grows with the time.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Fit {
    /// Milliseconds at depth 0.
    pub ms: f64,
    /// Microseconds more for each 1,024 tokens of depth.
    pub us_per_1k: f64,
    /// The share of the times' variance that the line explains.
    pub r2: f64,
    /// The largest residual, as a share of the fitted time.
    pub worst_residual: f64,
    /// Where it is.
    pub worst_depth: f64,
}

impl Fit {
    /// The line through (depth, milliseconds); `None` of fewer than three points, which no line fits badly, or of equal depths.
    pub fn of(points: &[(f64, f64)]) -> Option<Fit> {
        if points.len() < 3 || points.iter().any(|(_, ms)| *ms <= 0.0) {
            return None;
        }
        let sum =
            |of: &dyn Fn(f64, f64) -> f64| points.iter().map(|&(depth, ms)| of(depth, ms) / (ms * ms)).sum::<f64>();
        let (n, x, y) = (sum(&|_, _| 1.0), sum(&|depth, _| depth), sum(&|_, ms| ms));
        let (xx, xy) = (sum(&|depth, _| depth * depth), sum(&|depth, ms| depth * ms));
        let spread = n * xx - x * x;
        if spread <= 1e-12 * n * xx {
            return None;
        }
        let slope = (n * xy - x * y) / spread;
        let start = (y - slope * x) / n;
        let at = |depth: f64| start + slope * depth;
        let mean = points.iter().map(|(_, ms)| ms).sum::<f64>() / points.len() as f64;
        let squares = |of: &dyn Fn(f64, f64) -> f64| points.iter().map(|&(d, ms)| of(d, ms).powi(2)).sum::<f64>();
        let (left, all) = (squares(&|d, ms| ms - at(d)), squares(&|_, ms| ms - mean));
        let residual = |&(depth, ms): &(f64, f64)| ((ms - at(depth)).abs() / at(depth).abs(), depth);
        let (worst_residual, worst_depth) =
            points.iter().map(residual).max_by(|a, b| a.0.total_cmp(&b.0)).expect("there are points");
        let r2 = if all > 0.0 { 1.0 - left / all } else { 1.0 };
        Some(Fit { ms: start, us_per_1k: 1024e3 * slope, r2, worst_residual, worst_depth })
    }
}

/// How far the times of rows lie over their line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Excess {
    /// The largest share by which the fastest repetition at a depth takes longer than the line says: scatter makes a time longer,
    /// and hardly ever all of them.
    pub share: f64,
    /// At which depth.
    pub depth: f64,
}

impl Excess {
    /// `None` of no rows with a time.
    pub fn of(fit: &Fit, rows: &[Row]) -> Option<Excess> {
        let excess = |row: &Row| {
            let line = fit.ms + fit.us_per_1k / 1024e3 * middle(row);
            Some(Excess { share: row.ms_per_token_min? / line - 1.0, depth: middle(row) })
        };
        rows.iter().filter_map(excess).max_by(|a, b| a.share.total_cmp(&b.share))
    }

    /// Whether time does not grow in proportion there.
    pub fn is_cliff(&self) -> bool {
        self.share > CLIFF
    }
}

/// The line of the times of rows, and that of their limits.
pub fn fits(rows: &[Row]) -> (Option<Fit>, Option<Fit>) {
    let line = |of: &dyn Fn(&Row) -> Option<f64>| {
        Fit::of(&rows.iter().filter_map(|row| Some((middle(row), of(row)?))).collect::<Vec<_>>())
    };
    (line(&|row| row.ms_per_token), line(&|row| row.limit_ms_per_token))
}

/// An answer goes on from its depth: its middle is what was measured.
fn middle(row: &Row) -> f64 {
    row.depth as f64 + row.tokens as f64 / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths_double_to_the_last_that_fits() {
        let of = |text: &str, slots| text.parse::<Depths>().map(|depths| depths.of(slots, 32));
        assert_eq!(of("1024..", 70_000), Ok(vec![1024, 2048, 4096, 8192, 16_384, 32_768, 69_951]));
        assert_eq!(of("1024..131072", 1 << 20), Ok(vec![1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072]));
        assert_eq!(of("1000..1000", 1 << 20), Ok(vec![1000]));
        assert_eq!(of("1024..", 64), Ok(vec![1024]), "which has no room, and says so");
        assert_eq!(of("5, 4,3", 64), Ok(vec![5, 4, 3]));
        for text in ["", "..", "..5", "0..", "9..3", "1,,2", "x", "-1..", "1..99999999999"] {
            assert!(text.parse::<Depths>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_line_is_found_and_a_cliff_told_from_it() {
        let depths = [1024.0, 2048.0, 4096.0, 8192.0, 16_384.0];
        let line = |depth: f64| 5.0 + depth / 1024.0 * 0.25;
        let fit = Fit::of(&depths.map(|depth| (depth, line(depth)))).expect("a line");
        assert!((fit.ms - 5.0).abs() < 1e-9 && (fit.us_per_1k - 250.0).abs() < 1e-6, "{fit:?}");
        assert!(fit.r2 > 1.0 - 1e-12 && fit.worst_residual < 1e-12, "{fit:?}");
        assert!(Fit::of(&[(1.0, 1.0), (2.0, 2.0)]).is_none());
        assert!(Fit::of(&[(1.0, 1.0); 4]).is_none());
    }

    #[test]
    fn a_cliff_is_what_the_fastest_repetition_meets_too() {
        let depths = [1024, 2048, 4096, 8192, 16_384];
        // Times `factor` times the line's at 8,192, the fastest repetition a share `scatter` below the median.
        let excess = |factor: f64, scatter: f64| {
            let row = |depth: usize| {
                let ms = (5.0 + depth as f64 / 4096.0) * if depth == 8192 { factor } else { 1.0 };
                let least = Some(ms * (1.0 - scatter));
                Row { depth, ms_per_token: Some(ms), ms_per_token_min: least, ..Row::default() }
            };
            let rows = depths.map(row);
            Excess::of(&fits(&rows).0.expect("a line"), &rows).expect("times")
        };
        assert!(excess(1.0, 0.0).share.abs() < 1e-12 && !excess(1.0, 0.0).is_cliff());
        let sharp = excess(1.5, 0.0);
        assert!(sharp.is_cliff() && sharp.depth == 8192.0, "{sharp:?}");
        assert!(excess(1.5, 0.05).is_cliff(), "a little scatter hides no cliff");
        assert!(!excess(1.5, 0.4).is_cliff(), "the fastest was no slower than the line");
        assert!(!excess(1.05, 0.0).is_cliff());
    }
}
