//! How the time of a token grows with the context before it.

use super::models::{Kind, Row, Test};
use crate::segments::QUANTUM;
use std::str::FromStr;

/// A depth is called a cliff where every time taken there is further from the line than this share of it.
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

    /// How far the line passes by all times of a depth, from `least` to `most` milliseconds, as a share of the line there: what
    /// scatter does not explain. 0 where it passes between them.
    fn miss(&self, depth: f64, least: f64, most: f64) -> f64 {
        let line = self.ms + self.us_per_1k / 1024e3 * depth;
        (least - line).max(line - most).max(0.0) / line.abs()
    }
}

/// A straight line through the times of rows, and how far it holds.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Line {
    /// Through the median of each depth.
    pub fit: Fit,
    /// The largest share by which it passes by all times of a depth.
    pub worst_miss: f64,
    /// Where that is.
    pub worst_miss_depth: f64,
}

impl Line {
    /// `None` where there is no [`Fit`].
    pub fn of(rows: &[Row]) -> Option<Line> {
        let fit = fit(rows, |row| row.ms_per_token)?;
        let miss = |row: &Row| Some((fit.miss(middle(row), row.ms_per_token_min?, row.ms_per_token_max?), middle(row)));
        let (worst_miss, worst_miss_depth) = rows.iter().filter_map(miss).max_by(|a, b| a.0.total_cmp(&b.0))?;
        Some(Line { fit, worst_miss, worst_miss_depth })
    }

    /// The line through the limits.
    pub fn limit(rows: &[Row]) -> Option<Fit> {
        fit(rows, |row| row.limit_ms_per_token)
    }

    /// Whether all times of a depth are so far from the line that time does not grow in proportion there.
    pub fn has_cliff(&self) -> bool {
        self.worst_miss > CLIFF
    }
}

/// An answer goes on from its depth: its middle is what was measured.
fn middle(row: &Row) -> f64 {
    row.depth as f64 + row.tokens as f64 / 2.0
}

fn fit(rows: &[Row], of: impl Fn(&Row) -> Option<f64>) -> Option<Fit> {
    Fit::of(&rows.iter().filter_map(|row| Some((middle(row), of(row)?))).collect::<Vec<_>>())
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

        // Twice the time from 8,192 on, with repetitions that scatter by so much to either side.
        let broken = |scatter: f64| {
            let row = |depth: f64| {
                let ms = line(depth) * if depth > 8000.0 { 2.0 } else { 1.0 };
                let [least, most] = [1.0 - scatter, 1.0 + scatter].map(|factor| Some(factor * ms));
                Row {
                    depth: depth as usize,
                    ms_per_token: Some(ms),
                    ms_per_token_min: least,
                    ms_per_token_max: most,
                    ..Row::default()
                }
            };
            Line::of(&depths.map(row)).expect("a line")
        };
        let sharp = broken(0.0);
        assert!(sharp.has_cliff() && (sharp.worst_miss - sharp.fit.worst_residual).abs() < 1e-12, "{sharp:?}");
        let wide = broken(0.6);
        assert!(
            !wide.has_cliff() && wide.fit.worst_residual > CLIFF,
            "nothing was seen of what hides in scatter: {wide:?}"
        );
    }
}
