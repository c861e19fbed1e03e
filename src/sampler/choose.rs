//! Sampling on the host, exact: from the candidates where they decide, else from the whole row.

use crate::request::SamplingParams;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The likeliest tokens of a row, and the mass that they are a part of.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidates {
    /// (token, logit), from large to small, equal ones by token.
    logits: Vec<(u32, f32)>,
    /// The sum of exp((logit - largest) / temperature) over the row.
    total: f64,
    /// Whether they are the whole row.
    whole: bool,
}

impl Candidates {
    /// Candidates in any order. `tied`: logits equal to the smallest were left out, so that which of them came is chance.
    pub fn new(mut logits: Vec<(u32, f32)>, total: f64, whole: bool, tied: bool) -> Candidates {
        logits.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if tied && !whole {
            // What is equal to the last came by chance: leave it out.
            let last = logits.last().map(|&(_, logit)| logit);
            logits.retain(|&(_, logit)| Some(logit) != last);
        }
        Candidates { logits, total, whole }
    }

    /// A whole row of logits.
    pub fn whole(row: &[f32], temperature: f32) -> Candidates {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total = row.iter().map(|&logit| weight(logit, largest, temperature)).sum();
        Candidates::new((0..).zip(row.iter().copied()).collect(), total, true, false)
    }
}

fn weight(logit: f32, largest: f32, temperature: f32) -> f64 {
    ((f64::from(logit) - f64::from(largest)) / f64::from(temperature)).exp()
}

/// Draws the `index`th token of an answer: temperature, then top-k, top-p and min-p. `None` where the candidates do not
/// hold the mass that the draw needs and the whole row must be read.
///
/// Source: top-p: Holtzman et al. 2019, arXiv:1904.09751, section 3.1; min-p: Nguyen et al. 2024, arXiv:2407.01082.
pub fn choose(params: &SamplingParams, index: usize, candidates: &Candidates) -> Option<u32> {
    let Candidates { logits, whole, .. } = candidates;
    let &(first, largest) = logits.first()?;
    let weights: Vec<f64> = logits.iter().map(|&(_, logit)| weight(logit, largest, params.temperature)).collect();

    // Top-k: its mass is known only where all k are here.
    let top_k = if params.top_k == 0 { usize::MAX } else { params.top_k };
    let inside = weights.len().min(top_k);
    let cut = top_k <= weights.len();
    let total = match (cut, whole) {
        (true, _) => weights[..inside].iter().sum(),
        (false, true) => weights.iter().sum(),
        (false, false) if params.top_k == 0 => candidates.total,
        (false, false) => return None,
    };
    let mut decided = cut || *whole;
    let mut kept = inside;

    // Top-p: up to and with the token that crosses.
    if params.top_p < 1.0 {
        let mut sum = 0.0;
        let crossing = weights[..inside].iter().position(|w| {
            sum += w;
            sum >= f64::from(params.top_p) * total
        });
        if let Some(crossing) = crossing {
            kept = crossing + 1;
            decided = true;
        }
    }
    // Min-p: the likeliest has weight 1.
    if params.min_p > 0.0
        && let Some(below) = weights[..kept].iter().position(|&w| w < f64::from(params.min_p))
    {
        kept = below.max(1);
        decided = true;
    }

    // A filter that cuts behind the candidates leaves a mass that they do not tell.
    if !decided && (params.top_p < 1.0 || params.min_p > 0.0) {
        return None;
    }
    let mut rng = StdRng::seed_from_u64(params.seed ^ (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let draw: f64 = rng.random();
    let mass: f64 = if decided { weights[..kept].iter().sum() } else { total };
    if !mass.is_finite() {
        return None;
    }
    let mut left = draw * mass;
    for (&(token, _), &weight) in logits[..kept].iter().zip(&weights) {
        left -= weight;
        if left < 0.0 {
            return Some(token);
        }
    }
    // Rounding may leave a little of the mass past the last token.
    if decided { Some(logits[..kept].last().map_or(first, |&(token, _)| token)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Vec<f32> {
        (0..1000).map(|i| ((i * 7919 % 1000) as f32) / 100.0).collect()
    }

    /// The best `k` of a row as the GPU gives them.
    fn best(row: &[f32], k: usize, temperature: f32) -> Candidates {
        let whole = Candidates::whole(row, temperature);
        Candidates::new(whole.logits[..k].to_vec(), whole.total, false, false)
    }

    #[test]
    fn candidates_draw_what_the_whole_row_draws_or_ask_for_it() {
        let row = row();
        let mut asked = 0;
        for seed in 0..200 {
            for (temperature, top_k, top_p, min_p) in [
                (1.0, 0, 1.0, 0.0),
                (0.7, 50, 1.0, 0.0),
                (1.0, 0, 0.5, 0.0),
                (2.0, 0, 0.95, 0.0),
                (1.0, 0, 1.0, 0.3),
                (1.0, 200, 1.0, 0.0),
            ] {
                let params = SamplingParams { temperature, top_k, top_p, min_p, seed, ..SamplingParams::default() };
                let wanted = choose(&params, 3, &Candidates::whole(&row, temperature));
                assert!(wanted.is_some());
                match choose(&params, 3, &best(&row, 128, temperature)) {
                    Some(met) => assert_eq!(Some(met), wanted, "{params:?}"),
                    None => asked += 1,
                }
            }
        }
        assert!(asked > 0, "some draws need the whole row");
    }

    #[test]
    fn nothing_is_drawn_from_what_is_no_number() {
        for top_k in [0, 1, 50] {
            let params = SamplingParams { temperature: 1.0, top_k, ..SamplingParams::default() };
            assert_eq!(choose(&params, 0, &Candidates::whole(&[0.0, f32::NAN, 1.0], 1.0)), None, "top_k {top_k}");
        }
    }

    #[test]
    fn draws_follow_the_distribution() {
        let row = [1.0f32, 2.0, 0.0];
        let total: f64 = row.iter().map(|&l| f64::from(l).exp()).sum();
        let mut counts = [0.0; 3];
        let draws = 20_000;
        for index in 0..draws {
            let params = SamplingParams { temperature: 1.0, seed: 5, ..SamplingParams::default() };
            counts[choose(&params, index, &Candidates::whole(&row, 1.0)).unwrap() as usize] += 1.0;
        }
        for (count, logit) in counts.iter().zip(row) {
            let wanted = f64::from(logit).exp() / total;
            let deviation = (wanted * (1.0 - wanted) / f64::from(draws as u32)).sqrt();
            assert!((count / f64::from(draws as u32) - wanted).abs() < 4.0 * deviation, "{count} {wanted}");
        }
    }

    #[test]
    fn filters_keep_what_their_definitions_say() {
        let row = [3.0f32, 2.0, 1.0, 0.0];
        let drawn = |params: SamplingParams| -> Vec<u32> {
            let params = |seed| SamplingParams { temperature: 1.0, seed, ..params.clone() };
            let mut all: Vec<u32> =
                (0..2000).map(|seed| choose(&params(seed), 0, &Candidates::whole(&row, 1.0)).unwrap()).collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        let default = SamplingParams::default;
        assert_eq!(drawn(default()), [0, 1, 2, 3]);
        assert_eq!(drawn(SamplingParams { top_k: 2, ..default() }), [0, 1]);
        // Probabilities are .644, .237, .087, .032.
        assert_eq!(drawn(SamplingParams { top_p: 0.6, ..default() }), [0]);
        assert_eq!(drawn(SamplingParams { top_p: 0.7, ..default() }), [0, 1]);
        assert_eq!(drawn(SamplingParams { min_p: 0.1, ..default() }), [0, 1, 2]);
        assert_eq!(drawn(SamplingParams { min_p: 1.0, ..default() }), [0]);
    }

    #[test]
    fn a_tie_at_the_last_candidate_is_not_decided_by_chance() {
        let tied = Candidates::new(vec![(7, 1.0), (3, 0.0), (9, 0.0)], 5.0, false, true);
        assert_eq!(tied.logits, [(7, 1.0)]);
    }
}
