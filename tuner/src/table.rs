//! A space's measurements, by shape and candidate.

use std::collections::{BTreeMap, HashMap};

use crate::{Candidate, Dataset, Row, Space, Split, split};

/// How often the slowest time a candidate stands that has none: it failed, or was given up.
const SLOW: f64 = 4.0;
/// No candidate is worse than the best by more than this factor, for what is learned and scored.
pub(crate) const WORST: f64 = 8.0;

/// All measurements of one space.
pub(crate) struct Table<'a> {
    /// Every candidate that has a row, in the order of the rows.
    pub(crate) candidates: Vec<&'a Candidate>,
    /// Every shape that has a row, in the order of the rows.
    pub(crate) shapes: Vec<Measured<'a>>,
}

/// All measurements of one shape.
pub(crate) struct Measured<'a> {
    pub(crate) shape: &'a [f32],
    pub(crate) split: Split,
    /// By candidate, as an index into the table's; where a row is there twice, the later.
    pub(crate) rows: BTreeMap<usize, &'a Row>,
}

impl<'a> Table<'a> {
    pub(crate) fn new(dataset: &'a Dataset, space: &Space) -> Table<'a> {
        let mut ids: HashMap<&Candidate, usize> = HashMap::new();
        let mut places: HashMap<Vec<u32>, usize> = HashMap::new();
        let mut table = Table { candidates: Vec::new(), shapes: Vec::new() };
        let rows = dataset.rows.iter().filter(|row| row.space == space.name && row.shape.len() == space.dims.len());
        for row in rows {
            let id = *ids.entry(&row.candidate).or_insert_with(|| {
                table.candidates.push(&row.candidate);
                table.candidates.len() - 1
            });
            let place = *places.entry(row.shape.iter().map(|x| x.to_bits()).collect()).or_insert_with(|| {
                let split = split(space, &row.shape);
                table.shapes.push(Measured { shape: &row.shape, split, rows: BTreeMap::new() });
                table.shapes.len() - 1
            });
            table.shapes[place].rows.insert(id, row);
        }
        table
    }

    pub(crate) fn id(&self, candidate: &Candidate) -> Option<usize> {
        self.candidates.iter().position(|other| *other == candidate)
    }

    /// The shapes of a split that have a time at all.
    pub(crate) fn of(&self, split: Split) -> impl Iterator<Item = &Measured<'a>> {
        self.shapes.iter().filter(move |shape| shape.split == split && shape.best_us().is_some())
    }
}

impl Measured<'_> {
    /// The least time by set A.
    pub(crate) fn best_us(&self) -> Option<f64> {
        self.rows.values().filter_map(|row| row.chosen_us()).min_by(f64::total_cmp)
    }

    /// A candidate's time by set A; where it was run and has none, slower than all. None where it was not to be run.
    pub(crate) fn us(&self, id: usize) -> Option<f64> {
        let row = self.rows.get(&id).filter(|row| row.cost.is_legal())?;
        row.chosen_us().or_else(|| {
            let slowest = self.rows.values().filter_map(|row| row.chosen_us()).max_by(f64::total_cmp)?;
            Some(SLOW * slowest)
        })
    }

    /// The logarithm of how much slower than the best a candidate is, at most that of [`WORST`]; which also stands for
    /// one that was not to be run.
    pub(crate) fn regret(&self, id: usize) -> f64 {
        let worst = crate::numbers::ln_f64(WORST);
        match (self.us(id), self.best_us()) {
            (Some(us), Some(best)) => crate::numbers::ln_f64(us / best).min(worst),
            _ => worst,
        }
    }
}
