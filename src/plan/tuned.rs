//! What a planner asks the tuner, and how often.

use super::picks::Portfolio;
use super::{Kind, Numerics, Picked, Planner};
use crate::cost::Predicted;
use crate::schedules::{
    AttentionChoice, AttentionStats, Filling, Form, Level, Levels, LinearChoice, LinearShape, LinearTable, Measure,
    Mode, ProductKey, Tuner,
};
use raglan_shaders::KvType;
use std::cell::Cell;

/// Keys to a part where rules would say it, in the batches that stand for large ones.
const AUTO_KEYS: usize = 1024;

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
        let tuner = match (self.shape.numerics, products.first()) {
            (Numerics::Deterministic { .. }, Some(product)) => tuner.in_one_order(&self.linear_rules(&product.at(1))),
            _ => tuner,
        };
        let packed_rows = self.max_batch_tokens * self.shape.group();
        for kind in 0..self.kinds.len() {
            let heads = self.heads_of(kind);
            self.kinds[kind].attention = [Form::Vector, Form::Tile].map(|form| {
                let model = tuner.attention(form, &heads, packed_rows, &self.terms);
                model.map_or_else(Portfolio::default, |model| Portfolio::of_model(model, self.terms.limits.coop_side))
            });
        }
        self.table = LinearTable::default();
        let filling = Filling { terms: &self.terms, tuner: &tuner, rules: &|shape| self.linear_rules(shape), measure };
        self.table = LinearTable::fill(products, self.max_batch_tokens, filling);
        self.tuner = tuner;
    }

    /// Tunes anew, without some choices of products.
    pub fn retune(&mut self, refused: &[LinearChoice], products: &[ProductKey], measure: Option<&mut dyn Measure>) {
        let tuner = std::mem::take(&mut self.tuner).without(refused);
        self.tune(tuner, products, measure);
    }

    /// What the table says of a product.
    pub(super) fn tabled(&self, shape: &LinearShape) -> Option<&LinearChoice> {
        let choice = self.table.get(shape);
        add(&self.counters.asked, true);
        add(&self.counters.table_hits, choice.is_some());
        choice
    }

    /// Times of steps: of all `products`, each with whether its rows are those of logits, and how often a step has it; and of
    /// attention in so many layers of each KV group. What is not predicted is left out.
    pub fn predicted(
        &self,
        products: &[(ProductKey, bool, usize)],
        layers: &[usize],
        max_sequences: usize,
    ) -> Predicted {
        let step_us = |tokens: usize| -> Option<f64> {
            let us = |&(key, of_logits, count): &(ProductKey, bool, usize)| {
                let rows = if of_logits { tokens.min(max_sequences) } else { tokens };
                self.table.us(&key.at(rows)).map(|us| count as f64 * us)
            };
            products.iter().map(us).sum()
        };
        let steps: Option<Vec<(usize, f64)>> =
            self.table.points().into_iter().map(|tokens| Some((tokens, step_us(tokens)?))).collect();
        // Enough of both to fill any adapter.
        let (runs, keys) = (64, 8192);
        let run_us = |form: Form, kind: usize, run_rows: usize| -> Option<f64> {
            let stats = AttentionStats::of(self.heads_of(kind), runs * run_rows, &vec![keys as u32; runs], AUTO_KEYS);
            let (_, us) = self.kinds[kind].attention[form as usize].model()?.pick(&stats, &self.terms)?;
            Some(f64::from(us) / (runs * run_rows * keys) as f64)
        };
        let layers_us = |form: Form, kind_rows: &dyn Fn(&Kind) -> usize| -> Option<f64> {
            let group = |(&kind, &layers): (&usize, &usize)| {
                run_us(form, kind, kind_rows(&self.kinds[kind])).map(|us| us * layers as f64)
            };
            self.kind_of.iter().zip(layers).map(group).sum()
        };
        let tile_rows = |kind: &Kind| (kind.tile(Picked::Rules, 0).packed_rows / self.shape.group()).max(1);
        let (key_us, pair_us) = (layers_us(Form::Vector, &|_| 1), layers_us(Form::Tile, &tile_rows));
        let levels = self.tuner.levels();
        let products = [levels.linear_few, levels.linear_many].iter().all(|level| *level == Level::Exact);
        let products = (products || self.tuner.mode() == Mode::Exhaustive) && steps.is_some();
        let attention = [levels.attention_vector, levels.attention_tile].iter().all(|level| *level == Level::Exact);
        Predicted {
            products: steps.unwrap_or_default(),
            key_us,
            pair_us,
            exact_products: products,
            exact_attention: attention && key_us.is_some() && pair_us.is_some(),
        }
    }

    /// The choices of the model's products.
    pub fn table(&self) -> &LinearTable {
        &self.table
    }

    /// What predicts.
    pub fn tuner(&self) -> &Tuner {
        &self.tuner
    }

    /// Every choice of attention that batches may be given, beside what rules say, with the type of the cache.
    pub fn attention_choices(&self) -> impl Iterator<Item = (KvType, &AttentionChoice)> {
        self.kinds
            .iter()
            .flat_map(|kind| kind.attention.iter().flat_map(Portfolio::all).map(|choice| (kind.kv, choice)))
    }

    /// Whether hand-written rules may still choose for a form of attention.
    pub fn has_rules(&self, form: Form) -> bool {
        self.kinds.iter().any(|kind| kind.attention[form as usize].all().next().is_none())
    }

    /// Counts questions from 0 on.
    pub fn forget_questions(&self) {
        let Counters { asked, table_hits, memo_hits } = &self.counters;
        [asked, table_hits, memo_hits].into_iter().for_each(|count| count.set(0));
    }

    /// How schedules are chosen, and how often that was asked.
    pub fn tuner_stats(&self) -> TunerStats {
        let Counters { asked, table_hits, memo_hits } = &self.counters;
        let portfolios = self.kinds.iter().flat_map(|kind| &kind.attention);
        TunerStats {
            mode: self.tuner.mode(),
            levels: self.tuner.levels(),
            asked: asked.get(),
            table_hits: table_hits.get(),
            memo_hits: memo_hits.get(),
            refused: self.tuner.refused() + portfolios.map(Portfolio::refused).sum::<u64>(),
        }
    }
}

#[cfg(test)]
mod tests;
