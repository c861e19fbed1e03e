//! The few candidates that are worth keeping.

use crate::table::Table;
use crate::{Candidate, Dataset, MOST_CANDIDATES, Split};

/// Another candidate has to better the geometric mean by so much: little, since what gains little on the shapes of
/// training can gain more on others.
const LEAST_GAIN: f64 = 5e-5;

/// The portfolio of a space, at most [`MOST_CANDIDATES`]: greedily by the geometric mean over the Train shapes of the
/// best in the portfolio, until another candidate gains less than 0.005 %. The single best comes first. Where unseen
/// shapes were measured, only candidates that were run on them can be chosen, since the others were left behind by a pilot.
pub fn portfolio(dataset: &Dataset, space: &str) -> Vec<Candidate> {
    chosen(dataset, space, |regrets, _| greedy(regrets, MOST_CANDIDATES))
}

/// The candidates to go on with after a pilot, at most `most`: the portfolio of the pilot's shapes, filled up with those
/// nearest to the best over them.
pub fn go_on(dataset: &Dataset, space: &str, most: usize) -> Vec<Candidate> {
    chosen(dataset, space, |regrets, candidates| {
        let mut kept = greedy(regrets, most);
        let mean = |id: usize| regrets.iter().map(|shape| shape[id]).sum::<f64>();
        let mut rest: Vec<(f64, usize)> =
            (0..candidates).filter(|id| !kept.contains(id)).map(|id| (mean(id), id)).collect();
        rest.sort_by(|a, b| a.0.total_cmp(&b.0));
        kept.extend(rest.iter().map(|(_, id)| *id).take(most.saturating_sub(kept.len())));
        kept
    })
}

fn chosen(dataset: &Dataset, space: &str, choose: impl Fn(&[Vec<f64>], usize) -> Vec<usize>) -> Vec<Candidate> {
    let Some(space) = dataset.space(space) else { return Vec::new() };
    let table = Table::new(dataset, space);
    let ids = eligible(&table);
    let regrets: Vec<Vec<f64>> =
        table.of(Split::Train).map(|shape| ids.iter().map(|id| shape.regret(*id)).collect()).collect();
    choose(&regrets, ids.len()).into_iter().map(|at| table.candidates[ids[at]].clone()).collect()
}

/// Candidates that went on from the pilot, whose shapes are all of the Train split: those with rows on unseen shapes.
/// All, where no unseen shape was measured yet.
fn eligible(table: &Table<'_>) -> Vec<usize> {
    let unseen: Vec<_> = table.shapes.iter().filter(|shape| shape.split != Split::Train).collect();
    let has_time = |id: usize| {
        table.of(Split::Train).any(|shape| shape.rows.get(&id).is_some_and(|row| row.chosen_us().is_some()))
    };
    let went_on = |id: usize| unseen.is_empty() || unseen.iter().any(|shape| shape.us(id).is_some());
    (0..table.candidates.len()).filter(|id| has_time(*id) && went_on(*id)).collect()
}

/// By shape and candidate, logarithms over the best; the candidates that are worth keeping, the best first.
fn greedy(regrets: &[Vec<f64>], most: usize) -> Vec<usize> {
    let candidates = regrets.first().map_or(0, Vec::len);
    let worst = crate::numbers::ln_f64(crate::table::WORST);
    let mut left = vec![worst; regrets.len()];
    let mut kept = Vec::new();
    while kept.len() < most.min(candidates) {
        let gain = |id: usize| left.iter().zip(regrets).map(|(left, shape)| (left - shape[id]).max(0.0)).sum::<f64>();
        let mut best = (0, -1.0);
        for id in (0..candidates).filter(|id| !kept.contains(id)) {
            let gain = gain(id);
            best = if gain > best.1 { (id, gain) } else { best };
        }
        if !kept.is_empty() && best.1 / (regrets.len() as f64) < LEAST_GAIN {
            break;
        }
        kept.push(best.0);
        for (left, shape) in left.iter_mut().zip(regrets) {
            *left = left.min(shape[best.0]);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_single_best_comes_first_and_what_gains_nothing_is_left_out() {
        // Candidate 1 is never far off; 0 and 2 are each best somewhere; 3 is 1's twin, 4 gains a hair.
        let regrets =
            vec![vec![0.0, 0.1, 0.9, 0.1, 0.9], vec![0.9, 0.1, 0.0, 0.1, 0.9], vec![0.9, 0.0001, 0.9, 0.0001, 0.0]];
        assert_eq!(greedy(&regrets, 48), [1, 0, 2]);
        assert_eq!(greedy(&regrets, 2), [1, 0]);
        assert_eq!(greedy(&[], 48), [0_usize; 0]);
    }
}
