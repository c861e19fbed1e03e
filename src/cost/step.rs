//! Predicted time of a whole step, and what it costs to give up a sequence's slots and have them back.

use super::AdapterClass;

/// What a step does, as far as its time depends on it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Tokens computed.
    pub tokens: usize,
    /// Keys read, by the sequence: a sequence's keys count once however many of its tokens are computed.
    pub keys: usize,
    /// Query tokens times the keys that each of them sees.
    pub pairs: usize,
}

impl Load {
    /// `tokens` of one sequence, of which `computed` are there already; a window bounds what a token sees.
    pub fn of(tokens: usize, computed: usize, window: Option<usize>) -> Load {
        let seen = |end: usize| window.map_or(end, |window| end.min(window + tokens));
        let keys = seen(computed + tokens);
        Load { tokens, keys, pairs: tokens * seen(computed + tokens.div_ceil(2)) }
    }
}

impl std::ops::Add for Load {
    type Output = Load;

    fn add(self, other: Load) -> Load {
        Load { tokens: self.tokens + other.tokens, keys: self.keys + other.keys, pairs: self.pairs + other.pairs }
    }
}

/// What of a model decides how long a step takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelCost {
    /// Bytes of weights that a step reads.
    pub weight_bytes: f64,
    /// Floating-point operations of a token in matrix products.
    pub token_flops: f64,
    /// Bytes of a token's keys and values in all layers.
    pub slot_bytes: f64,
    /// Floating-point operations of one query token against one key in all layers.
    pub pair_flops: f64,
    /// The window, where every layer has the same.
    pub window: Option<usize>,
}

/// What was measured of an adapter says of a model's steps; what is not known is left to the constants of its class.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Predicted {
    /// Tokens, ascending, and the microseconds of all products of a step of so many; fewer tokens take as long as the next.
    pub products: Vec<(usize, f64)>,
    /// Microseconds of attention for each key that is read, in all layers.
    pub key_us: Option<f64>,
    /// The same for each pair of a query token and a key.
    pub pair_us: Option<f64>,
    /// Whether the products were measured on this very adapter, so that they are expected to take as long as it says.
    pub exact_products: bool,
    /// The same of attention.
    pub exact_attention: bool,
}

impl Predicted {
    /// Microseconds of the products of so many tokens; past the last in proportion.
    fn products_us(&self, tokens: usize) -> Option<f64> {
        if tokens == 0 {
            return None;
        }
        let place = self.products.partition_point(|(most, _)| *most < tokens);
        match self.products.get(place) {
            Some((_, us)) => Some(*us),
            None => self.products.last().map(|(most, us)| us * tokens as f64 / *most as f64),
        }
    }
}

/// Predicts the time of steps on a class of adapter: weights and products, then attention, each as long as its bytes or
/// its operations need. It learns one factor from the steps that were measured.
#[derive(Debug, Clone)]
pub struct StepCost {
    model: ModelCost,
    bytes_per_us: f64,
    flops_per_us: f64,
    host_bytes_per_us: f64,
    step_us: f64,
    predicted: Predicted,
    /// Measured time over what the constants say: a power of two.
    factor: f64,
    /// Steps in a row whose time was less than half of the prediction (negative), or more than twice.
    surprises: i32,
}

/// As many steps in a row must be mispredicted twofold before the factor changes: chunks of prompts stay the same from
/// run to run unless the constants are really wrong.
const SURPRISES: i32 = 4;

/// A step that took twice as long as was predicted, and longer than this, changes it at once: a watchdog may be near.
const LONG_US: f64 = 100e3;

impl StepCost {
    /// With the constants of a class of adapter, right within an order of magnitude.
    pub fn new(model: ModelCost, class: AdapterClass) -> Self {
        let wave = class.wave_model();
        let host_bytes_per_us = match class {
            AdapterClass::Software => 4e3,
            AdapterClass::Hardware => 12e3,
        };
        let (bytes_per_us, flops_per_us) = class.step_rates();
        let rates = (bytes_per_us, flops_per_us, host_bytes_per_us, 40.0 * wave.launch_us);
        // An adapter far slower than the constants must not meet its watchdog before they are learned.
        let factor = if class == AdapterClass::Hardware { 4.0 } else { 1.0 };
        StepCost { factor, ..StepCost::with_rates(model, rates) }
    }

    /// With an adapter's own rates: bytes and operations a microsecond, bytes a microsecond between it and the host, and
    /// what a step takes that does nothing, in microseconds.
    pub fn with_rates(
        model: ModelCost,
        (bytes_per_us, flops_per_us, host_bytes_per_us, step_us): (f64, f64, f64, f64),
    ) -> Self {
        StepCost {
            model,
            bytes_per_us,
            flops_per_us,
            host_bytes_per_us,
            step_us,
            predicted: Predicted::default(),
            factor: 1.0,
            surprises: 0,
        }
    }

    /// The same, with times that the tuner predicts where it can.
    #[must_use]
    pub fn with_predicted(self, mut predicted: Predicted) -> Self {
        if !predicted.exact_products {
            return StepCost { predicted, ..self };
        }
        if !predicted.exact_attention {
            // What is not known keeps the factor that it had.
            let cautious = |us: f64| Some(self.factor * us);
            predicted.key_us = cautious(predicted.key_us.unwrap_or(self.model.slot_bytes / self.bytes_per_us));
            predicted.pair_us = cautious(predicted.pair_us.unwrap_or(self.model.pair_flops / self.flops_per_us));
        }
        StepCost { predicted, factor: 1.0, ..self }
    }

    /// The load of `tokens` more of a sequence that has `computed`.
    pub fn load(&self, tokens: usize, computed: usize) -> Load {
        Load::of(tokens, computed, self.model.window)
    }

    /// Predicted time of a step, in microseconds.
    pub fn step_us(&self, load: &Load) -> f64 {
        let model = &self.model;
        let predicted = &self.predicted;
        let products = predicted.products_us(load.tokens).unwrap_or_else(|| {
            (model.weight_bytes / self.bytes_per_us).max(model.token_flops * load.tokens as f64 / self.flops_per_us)
        });
        let key_us = predicted.key_us.unwrap_or(model.slot_bytes / self.bytes_per_us);
        let pair_us = predicted.pair_us.unwrap_or(model.pair_flops / self.flops_per_us);
        let attention = (key_us * load.keys as f64).max(pair_us * load.pairs as f64);
        self.factor * (self.step_us + products + attention)
    }

    /// The most of `tokens` more of a sequence that has `computed` with which the step stays within `bound_us`; 0 where
    /// one is too many.
    pub fn tokens_within(&self, bound_us: f64, load: &Load, computed: usize, tokens: usize) -> usize {
        let fits = |more: usize| self.step_us(&(*load + self.load(more, computed))) <= bound_us;
        if fits(tokens) {
            return tokens;
        }
        let (mut low, mut high) = (0, tokens);
        while low + 1 < high {
            let middle = (low + high) / 2;
            if fits(middle) { low = middle } else { high = middle }
        }
        low
    }

    /// Time to copy so many slots within the arenas.
    pub fn move_us(&self, slots: usize) -> f64 {
        self.factor * 2.0 * self.model.slot_bytes * slots as f64 / self.bytes_per_us
    }

    /// Time to compute `computed` tokens again, in steps of `chunk`.
    pub fn recompute_us(&self, computed: usize, chunk: usize) -> f64 {
        let step = |first: usize| self.step_us(&self.load(chunk.min(computed - first), first));
        (0..computed).step_by(chunk.max(1)).map(step).sum()
    }

    /// Time to bring so many slots to the host and back.
    pub fn swap_us(&self, slots: usize) -> f64 {
        2.0 * self.model.slot_bytes * slots as f64 / self.host_bytes_per_us
    }

    /// Bytes of so many slots.
    pub fn slots_bytes(&self, slots: usize) -> u64 {
        (self.model.slot_bytes * slots as f64) as u64
    }

    /// Hears how long a step took that was predicted to take `predicted_us`.
    pub fn observe(&mut self, predicted_us: f64, measured_us: f64) {
        let ratio = measured_us / predicted_us.max(1e-3);
        if ratio > 2.0 && measured_us > LONG_US {
            self.factor = (self.factor * 2f64.powi(ratio.log2() as i32)).min(1e3);
            self.surprises = 0;
            return;
        }
        self.surprises = match ratio {
            r if r > 2.0 => self.surprises.max(0) + 1,
            r if r < 0.5 => self.surprises.min(0) - 1,
            _ => 0,
        };
        if self.surprises.abs() >= SURPRISES {
            self.factor = (self.factor * if self.surprises > 0 { 2.0 } else { 0.5 }).clamp(1e-3, 1e3);
            self.surprises = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost() -> StepCost {
        let model = ModelCost {
            weight_bytes: 26e9,
            token_flops: 26e9,
            slot_bytes: 819_200.0,
            pair_flops: 819_200.0,
            window: None,
        };
        StepCost::with_rates(model, (3e6, 1.6e8, 12e3, 100.0))
    }

    #[test]
    fn a_long_context_makes_the_chunk_that_fits_a_bound_smaller() {
        let cost = cost();
        let chunk = |computed| cost.tokens_within(100e3, &Load::default(), computed, 8192);
        assert!(chunk(0) > chunk(30_000) && chunk(30_000) > chunk(70_000) && chunk(70_000) > 0);
        for computed in [0, 30_000, 70_000] {
            assert!(cost.step_us(&cost.load(chunk(computed), computed)) <= 100e3);
            assert!(cost.step_us(&cost.load(chunk(computed) + 1, computed)) > 100e3);
        }
        assert_eq!(cost.tokens_within(1.0, &Load::default(), 0, 100), 0);
    }

    #[test]
    fn a_few_odd_steps_change_nothing_and_many_do() {
        let mut cost = cost();
        let load = cost.load(1, 1000);
        let before = cost.step_us(&load);
        for step in 0..100 {
            cost.observe(before, before * if step % 7 == 0 { 9.0 } else { 1.3 });
        }
        assert_eq!(cost.step_us(&load), before);
        (0..4).for_each(|_| cost.observe(before, 3.0 * before));
        assert_eq!(cost.step_us(&load), 2.0 * before);
        cost.observe(150e3, 1500e3);
        assert_eq!(cost.step_us(&load), 16.0 * before, "one long step is enough");
    }

    #[test]
    fn swapping_beats_computing_again_where_the_host_is_near() {
        let cost = cost();
        assert!(cost.swap_us(2000) < cost.recompute_us(2000, 512));
        let far = StepCost { host_bytes_per_us: 1e3, ..cost };
        assert!(far.swap_us(2000) > far.recompute_us(2000, 512));
    }

    #[test]
    fn attention_that_nobody_measured_keeps_its_factor_where_products_are_known() {
        let model = cost().model;
        let guessed = StepCost::new(model, AdapterClass::Hardware);
        let products = vec![(1024, 100.0)];
        let known = |exact_attention| {
            let predicted =
                Predicted { products: products.clone(), exact_products: true, exact_attention, ..Predicted::default() };
            guessed.clone().with_predicted(predicted)
        };
        let of_keys = |cost: &StepCost| {
            let load = |keys| Load { tokens: 1, keys, pairs: keys };
            cost.step_us(&load(100_000)) - cost.step_us(&load(0))
        };
        assert!((of_keys(&known(false)) / of_keys(&guessed) - 1.0).abs() < 1e-9);
        assert!((of_keys(&known(true)) / of_keys(&guessed) - 0.25).abs() < 1e-9);
    }
}
