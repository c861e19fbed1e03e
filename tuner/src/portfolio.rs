//! The few candidates that are worth keeping.

use crate::{Candidate, Dataset};

/// The portfolio of a space, at most [`crate::MOST_CANDIDATES`]: greedily by the geometric mean over the Train shapes of
/// the best in the portfolio, until another candidate gains less than 0.02 %. The single best comes first.
pub fn portfolio(_dataset: &Dataset, _space: &str) -> Vec<Candidate> {
    Vec::new()
}

/// The candidates to go on with after a pilot, at most `most`: the portfolio of the pilot's shapes, filled up with those
/// nearest to the best over them.
pub fn go_on(_dataset: &Dataset, _space: &str, _most: usize) -> Vec<Candidate> {
    Vec::new()
}
