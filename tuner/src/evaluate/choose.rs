//! The ways to choose that a model is compared with.

use std::collections::HashMap;

use crate::table::{Measured, Table};
use crate::{Cost, DimKind, Model, Pick, Space, Split};

/// All that choosers need of a space.
pub(super) struct Choosers<'a> {
    space: &'a Space,
    table: &'a Table<'a>,
    model: &'a Model,
    analytical: Model,
    /// The model's candidates as the table's.
    ids: Vec<usize>,
    train: Vec<&'a Measured<'a>>,
    /// Candidates of the portfolio, the best over all shapes of training first.
    order: Vec<usize>,
    /// By bucket: its shapes of training.
    buckets: HashMap<Vec<i32>, Vec<usize>>,
}

/// The predictions of a shape: costs and logarithms, in the model's order.
pub(super) struct Predicted {
    log_us: Vec<f32>,
    pub(super) pick: Option<Pick>,
}

impl<'a> Choosers<'a> {
    pub(super) fn new(space: &'a Space, table: &'a Table<'a>, model: &'a Model) -> Choosers<'a> {
        // A candidate without rows stands beyond the table, where no shape has it.
        let ids: Vec<usize> =
            model.candidates().iter().map(|candidate| table.id(candidate).unwrap_or(usize::MAX)).collect();
        let train: Vec<&Measured<'_>> = table.of(Split::Train).collect();
        let mean = |id: usize| train.iter().map(|shape| shape.regret(id)).sum::<f64>();
        let mut order: Vec<(f64, usize)> = ids.iter().map(|id| (mean(*id), *id)).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        let order = order.into_iter().map(|(_, id)| id).collect();
        let mut buckets: HashMap<Vec<i32>, Vec<usize>> = HashMap::new();
        for (at, shape) in train.iter().enumerate() {
            buckets.entry(bucket(space, shape.shape)).or_default().push(at);
        }
        Choosers { space, table, model, analytical: model.without_mlp(), ids, train, order, buckets }
    }

    pub(super) fn model(&self, shape: &Measured<'_>) -> Predicted {
        let costs = self.costs(shape);
        let mut log_us = vec![0.0; self.ids.len()];
        self.model.predict(shape.shape, &costs, &mut log_us);
        Predicted { log_us, pick: self.model.pick(shape.shape, &costs) }
    }

    /// The candidate of a pick, as the table's.
    pub(super) fn id(&self, pick: Option<Pick>) -> Option<usize> {
        pick.map(|pick| self.ids[pick.index])
    }

    pub(super) fn default_candidate(&self, shape: &Measured<'_>) -> Option<usize> {
        Some(self.ids[self.model.default_candidate()]).filter(|id| shape.us(*id).is_some())
    }

    /// The three least predictions, each timed once: the least time.
    pub(super) fn calibrated(&self, shape: &Measured<'_>, predicted: &Predicted) -> Option<usize> {
        let mut order: Vec<usize> = (0..self.ids.len()).filter(|at| predicted.log_us[*at].is_finite()).collect();
        order.sort_by(|a, b| predicted.log_us[*a].total_cmp(&predicted.log_us[*b]));
        let once = |at: &usize| shape.rows.get(&self.ids[*at]).and_then(|row| row.round_us(0)).unwrap_or(f64::INFINITY);
        order.iter().take(3).min_by(|a, b| once(a).total_cmp(&once(b))).map(|at| self.ids[*at])
    }

    pub(super) fn single_best(&self, shape: &Measured<'_>) -> Option<usize> {
        self.order.iter().copied().find(|id| shape.us(*id).is_some())
    }

    pub(super) fn buckets(&self, shape: &Measured<'_>) -> Option<usize> {
        let wanted = bucket(self.space, shape.shape);
        let distance = |key: &[i32]| key.iter().zip(&wanted).map(|(a, b)| a.abs_diff(*b) as u64).sum::<u64>();
        let nearest = self.buckets.keys().min_by_key(|key| (distance(key), (*key).clone()))?;
        let shapes = &self.buckets[nearest];
        let mean = |id: usize| shapes.iter().map(|at| self.train[*at].regret(id)).sum::<f64>();
        self.least(shape, mean)
    }

    pub(super) fn nearest(&self, shape: &Measured<'_>) -> Option<usize> {
        let place = |shape: &[f32]| {
            let dims = self.space.dims.iter().zip(shape);
            dims.map(|(dim, x)| if dim.kind == DimKind::Number { *x } else { (1.0 + x.max(0.0)).log2() })
                .collect::<Vec<f32>>()
        };
        let wanted = place(shape.shape);
        let distance = |other: &Measured<'_>| -> f64 {
            place(other.shape).iter().zip(&wanted).map(|(a, b)| f64::from(a - b).powi(2)).sum()
        };
        let nearest = self.train.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
        self.least(shape, |id| nearest.regret(id))
    }

    pub(super) fn analytical(&self, shape: &Measured<'_>) -> Option<usize> {
        self.id(self.analytical.pick(shape.shape, &self.costs(shape)))
    }

    /// The candidate that may run here and is the least by some measure; of equals the better single one.
    fn least(&self, shape: &Measured<'_>, measure: impl Fn(usize) -> f64) -> Option<usize> {
        let legal = self.order.iter().copied().filter(|id| shape.us(*id).is_some());
        legal.min_by(|a, b| measure(*a).total_cmp(&measure(*b)))
    }

    fn costs(&self, shape: &Measured<'_>) -> Vec<Cost> {
        self.ids.iter().map(|id| shape.rows.get(id).map_or(Cost::ILLEGAL, |row| row.cost)).collect()
    }

    pub(super) fn text(&self, id: usize) -> String {
        self.table.candidates.get(id).map(|candidate| candidate.to_string()).unwrap_or_default()
    }
}

/// Sizes rounded to powers of two; numbers in thousandths, so that another number is far.
fn bucket(space: &Space, shape: &[f32]) -> Vec<i32> {
    let key = |(dim, x): (&crate::Dim, &f32)| match dim.kind {
        DimKind::Number => (x * 1000.0) as i32,
        DimKind::Size | DimKind::Tiled => x.max(0.5).log2().round() as i32,
    };
    space.dims.iter().zip(shape).map(key).collect()
}
