//! What a planner asks the tuner, and how often.

use super::picks::Portfolio;
use super::{Numerics, Planner};
use crate::cost::AdapterClass;
use crate::schedules::{
    AttentionChoice, Filling, Form, Levels, LinearChoice, LinearShape, LinearTable, Measure, Mode, ProductKey, Tuner,
};
use std::cell::Cell;

/// How schedules are chosen, and how often that was asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct TunerStats {
    /// How they are chosen.
    pub mode: Mode,
    /// How far the predictions of each space are to be trusted.
    pub levels: Levels,
    /// Questions: one a product, one a form of attention and KV group of a step.
    pub asked: u64,
    /// Those that the table of the model's products answered.
    pub table_hits: u64,
    /// Those of attention that were remembered.
    pub memo_hits: u64,
    /// Candidates of the weights that must not run on this adapter.
    pub refused: u64,
}

/// Counts questions.
#[derive(Debug, Default)]
pub(super) struct Counters {
    asked: Cell<u64>,
    table_hits: Cell<u64>,
    memo_hits: Cell<u64>,
}

fn add(count: &Cell<u64>, more: bool) {
    count.set(count.get() + u64::from(more));
}

impl Counters {
    /// A form of attention was asked for, and perhaps remembered.
    pub(super) fn asked(&self, is_remembered: bool) {
        add(&self.asked, true);
        add(&self.memo_hits, is_remembered);
    }
}

impl Planner {
    /// Takes `tuner` for what steps run from now on: fills the table of the model's products, and keeps of attention's portfolio
    /// what may run. `measure` is what exhaustive tuning and calibration ask.
    pub fn tune(&mut self, tuner: Tuner, products: &[ProductKey], measure: Option<&mut dyn Measure>) {
        // The order in which `matmul` sums is tested on software adapters, where all that compiles its shaders is known.
        let tuner = match self.shape.numerics {
            Numerics::Fast => tuner,
            Numerics::Deterministic { .. } => tuner.in_one_order(self.terms.class == AdapterClass::Software),
        };
        let (heads, packed_rows) = (self.heads(), self.max_batch_tokens * self.shape.group());
        self.attention = [Form::Vector, Form::Tile].map(|form| {
            let model = tuner.attention(form, &heads, packed_rows, &self.terms);
            model.map_or_else(Portfolio::default, |model| Portfolio::of_model(model, self.terms.limits.coop_side))
        });
        self.table = LinearTable::default();
        let filling = Filling { terms: &self.terms, tuner: &tuner, rules: &|shape| self.linear_rules(shape), measure };
        self.table = LinearTable::fill(products, self.max_batch_tokens, filling);
        self.tuner = tuner;
    }

    /// What the table says of a product.
    pub(super) fn tabled(&self, shape: &LinearShape) -> Option<&LinearChoice> {
        let choice = self.table.get(shape);
        add(&self.counters.asked, true);
        add(&self.counters.table_hits, choice.is_some());
        choice
    }

    /// The choices of the model's products.
    pub fn table(&self) -> &LinearTable {
        &self.table
    }

    /// What predicts.
    pub fn tuner(&self) -> &Tuner {
        &self.tuner
    }

    /// Every choice of attention that batches may be given, beside what rules say.
    pub fn attention_choices(&self) -> impl Iterator<Item = &AttentionChoice> {
        self.attention.iter().flat_map(Portfolio::all)
    }

    /// Whether hand-written rules may still choose for a form of attention.
    pub fn has_rules(&self, form: Form) -> bool {
        self.attention[form as usize].all().next().is_none()
    }

    /// How schedules are chosen, and how often that was asked.
    pub fn tuner_stats(&self) -> TunerStats {
        let Counters { asked, table_hits, memo_hits } = &self.counters;
        TunerStats {
            mode: self.tuner.mode(),
            levels: self.tuner.levels(),
            asked: asked.get(),
            table_hits: table_hits.get(),
            memo_hits: memo_hits.get(),
            refused: self.tuner.refused() + self.attention.iter().map(Portfolio::refused).sum::<u64>(),
        }
    }
}
