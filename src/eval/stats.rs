//! Many rows in a few numbers.

use super::rows::{Compared, Reference};
use serde::Serialize;

/// Where the reference's largest logit leads the second by more than this, a format must have a reason to disagree.
pub const CLEAR_MARGIN: f32 = 0.1;

/// The first bucket's positions; each later one begins where the last ends and reaches to its double.
const FIRST_BUCKET: usize = 64;

/// A format against the reference, over some rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stats {
    /// Rows of logits compared: every token of every window.
    pub rows: usize,
    /// Tokens whose loss counts: all but each window's first.
    pub scored: usize,
    /// exp of the mean loss.
    pub perplexity: f64,
    /// Mean loss, in nats.
    pub nll: f64,
    /// Of the perplexity, against the reference's.
    pub perplexity_change_percent: f64,
    /// The standard error of that, from how the tokens' own changes scatter, as if they were independent: neighbours are not quite, and
    /// it is at least this. None of a single token.
    pub perplexity_change_error_percent: Option<f64>,
    /// Mean KL(reference ‖ format), in nats.
    pub kl_mean: f64,
    /// The 99th percentile: the least that no more than 1 % of rows exceed.
    pub kl_p99: f64,
    /// The largest.
    pub kl_max: f64,
    /// Share of rows whose largest logit is the reference's.
    pub top1_agreement: f64,
    /// Rows where the reference's largest logit leads by more than [`CLEAR_MARGIN`].
    pub clear_rows: usize,
    /// The share among those; none where there are none.
    pub clear_top1_agreement: Option<f64>,
    /// By place in the window.
    pub by_position: Vec<Bucket>,
}

/// The rows of some places.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bucket {
    /// The first place.
    pub from: usize,
    /// The last place.
    pub to: usize,
    /// Rows there.
    pub rows: usize,
    /// As in [`Stats`].
    pub kl_mean: f64,
    /// As in [`Stats`].
    pub kl_max: f64,
    /// As in [`Stats`].
    pub top1_agreement: f64,
}

/// A row with its place in its window.
pub(super) type Placed<'a> = (usize, &'a Reference, &'a Compared);

impl Stats {
    /// `None` where there are no rows, none with a next token, or one that is no number.
    pub(super) fn new<'a>(rows: impl Iterator<Item = Placed<'a>>) -> Option<Stats> {
        let rows: Vec<Placed<'a>> = rows.collect();
        let losses: Vec<(f64, f64)> = rows.iter().filter_map(|(_, r, c)| Some((r.nll?, c.nll?))).collect();
        let mut kls: Vec<f64> = rows.iter().map(|(.., compared)| compared.kl).collect();
        if losses.is_empty() || kls.iter().any(|kl| !kl.is_finite()) {
            return None;
        }
        let mean = |of: fn(&(f64, f64)) -> f64| losses.iter().map(of).sum::<f64>() / losses.len() as f64;
        let (reference, nll) = (mean(|loss| loss.0), mean(|loss| loss.1));
        let change = nll - reference;
        let scatter = losses.iter().map(|(reference, nll)| (nll - reference - change).powi(2)).sum::<f64>();
        let tokens = losses.len() as f64;
        let error = (tokens > 1.0).then(|| (scatter / (tokens - 1.0) / tokens).sqrt());
        let by_position = buckets(&rows);
        let clear: Vec<bool> =
            rows.iter().filter(|(_, r, _)| r.margin > CLEAR_MARGIN).map(|(.., compared)| compared.agrees).collect();
        let kl_mean = kls.iter().sum::<f64>() / kls.len() as f64;
        kls.sort_by(f64::total_cmp);
        Some(Stats {
            rows: rows.len(),
            scored: losses.len(),
            perplexity: nll.exp(),
            nll,
            perplexity_change_percent: 100.0 * change.exp_m1(),
            perplexity_change_error_percent: error.map(|error| 100.0 * change.exp() * error),
            kl_mean,
            kl_p99: percentile(&kls, 99),
            kl_max: percentile(&kls, 100),
            top1_agreement: share(rows.iter().map(|(.., compared)| compared.agrees)),
            clear_rows: clear.len(),
            clear_top1_agreement: (!clear.is_empty()).then(|| share(clear.iter().copied())),
            by_position,
        })
    }
}

/// The least of the ascending `sorted` that `percent` of them do not exceed (nearest rank).
///
/// # Panics
/// If there are none.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(percent * sorted.len()).div_ceil(100).max(1) - 1]
}

fn share(all: impl ExactSizeIterator<Item = bool>) -> f64 {
    let count = all.len() as f64;
    all.filter(|held| *held).count() as f64 / count
}

/// Which bucket a place is in.
fn bucket(position: usize) -> usize {
    (position / FIRST_BUCKET).checked_ilog2().map_or(0, |log| log as usize + 1)
}

fn buckets(rows: &[Placed<'_>]) -> Vec<Bucket> {
    let mut all: Vec<Vec<&Compared>> = Vec::new();
    for (position, _, compared) in rows {
        let index = bucket(*position);
        all.resize_with(all.len().max(index + 1), Vec::new);
        all[index].push(compared);
    }
    let filled = all.iter().enumerate().filter(|(_, rows)| !rows.is_empty());
    filled
        .map(|(index, rows)| Bucket {
            from: if index == 0 { 0 } else { FIRST_BUCKET << (index - 1) },
            to: (FIRST_BUCKET << index) - 1,
            rows: rows.len(),
            kl_mean: rows.iter().map(|row| row.kl).sum::<f64>() / rows.len() as f64,
            kl_max: rows.iter().map(|row| row.kl).fold(0.0, f64::max),
            top1_agreement: share(rows.iter().map(|row| row.agrees)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(margin: f32, nll: Option<f64>) -> Reference {
        let mut reference = Reference::new(&[margin, 0.0], None);
        reference.nll = nll;
        reference
    }

    #[test]
    fn a_few_rows_give_the_numbers_that_a_hand_computes() {
        let references =
            [reference(1.0, Some(1.0)), reference(0.05, Some(2.0)), reference(3.0, Some(3.0)), reference(0.1, None)];
        let compared = |kl, agrees, nll| Compared { kl, agrees, nll };
        let rows = [
            compared(0.1, true, Some(1.5)),
            compared(0.2, false, Some(2.0)),
            compared(0.6, false, Some(2.8)),
            compared(0.3, true, None),
        ];
        let met = Stats::new((0..4).map(|i| (60 + 4 * i, &references[i], &rows[i]))).unwrap();
        assert_eq!((met.rows, met.scored, met.clear_rows), (4, 3, 2));
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        close(met.nll, 2.1);
        close(met.perplexity, 2.1f64.exp());
        close(met.perplexity_change_percent, 100.0 * (0.1f64.exp() - 1.0));
        // Changes of 0.5, 0 and -0.2 nats.
        let variance = (0.4f64.powi(2) + 0.1f64.powi(2) + 0.3f64.powi(2)) / 2.0;
        close(met.perplexity_change_error_percent.unwrap(), 100.0 * 0.1f64.exp() * (variance / 3.0).sqrt());
        let one = Stats::new([(0, &references[0], &rows[0])].into_iter()).unwrap();
        assert_eq!(one.perplexity_change_error_percent, None);
        close(met.kl_mean, 0.3);
        assert_eq!((met.kl_max, met.kl_p99), (0.6, 0.6));
        assert_eq!((met.top1_agreement, met.clear_top1_agreement), (0.5, Some(0.5)));
        let places: Vec<_> = met.by_position.iter().map(|b| (b.from, b.to, b.rows)).collect();
        assert_eq!(places, [(0, 63, 1), (64, 127, 3)]);
        assert_eq!((met.by_position[0].kl_mean, met.by_position[0].top1_agreement), (0.1, 1.0));
        close(met.by_position[1].kl_mean, (0.2 + 0.6 + 0.3) / 3.0);
        // A margin of just 0.1 is not clear.
        assert!(Stats::new([(0, &references[3], &rows[0])].into_iter()).is_none());
    }

    #[test]
    fn buckets_double_from_64_on() {
        let at = |positions: [usize; 8]| positions.map(bucket);
        assert_eq!(at([0, 63, 64, 127, 128, 255, 256, 1_000_000]), [0, 0, 1, 1, 2, 2, 3, 14]);
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let all: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((percentile(&all, 99), percentile(&all, 100), percentile(&all, 0)), (198.0, 200.0, 1.0));
        assert_eq!(percentile(&all[..7], 99), 7.0);
        assert_eq!(percentile(&[3.0], 99), 3.0);
    }

    #[test]
    fn rows_that_are_no_numbers_give_no_stats_rather_than_wrong_ones() {
        let reference = reference(1.0, Some(1.0));
        let row = Compared { kl: f64::NAN, agrees: false, nll: Some(f64::NAN) };
        assert!(Stats::new([(0, &reference, &row)].into_iter()).is_none());
        assert!(Stats::new(std::iter::empty()).is_none());
    }
}
