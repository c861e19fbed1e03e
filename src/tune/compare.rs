//! Whether a candidate computes what the default does: they differ by roundings alone.

use raglan_shaders::{Tolerance, Wanted, accuracy};

/// A step of f16 that rounding takes at most half of, relative.
pub(super) const F16_HALF_STEP: f64 = 1.0 / 2048.0;

/// What rounding x to whole 127ths of the largest of a group brings, as a share of x: a uniform error of half a step, where the
/// largest is about twice the root mean square.
pub(super) const INT8_ROUNDING: f64 = 2.0 / 127.0 / 3.464;

/// Results of the default, and how far others may be from them.
#[derive(Debug)]
pub(super) struct Reference {
    want: Wanted,
    tolerance: Tolerance,
}

/// Sums of products as they come, before anything is done to them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums {
    /// Terms of each.
    pub(super) terms: usize,
    /// What each term was rounded by beforehand, relative and independent of the others.
    pub(super) rounding: f64,
}

impl Sums {
    /// How far one result may be from another, by rounding of sums whose root mean square is `rms`, of so many: the part that
    /// grows with the chain of additions (as the scale that [`Tolerance`] takes), and what the terms bring with them.
    ///
    /// Terms of random signs that make sums of `rms` have absolute values that sum to √terms times that at most, by Cauchy and
    /// Schwarz; their independent roundings add up to `rounding · rms`, the worst of `count` to √(2 ln 2count) times that. Both
    /// results are rounded.
    fn allowed(&self, rms: f64, count: usize) -> (f64, f64) {
        let worst = 1.0 + (2.0 * (2.0 * count.max(1) as f64).ln()).sqrt();
        (2.0 * rms * (self.terms as f64).sqrt(), 2.0 * worst * self.rounding * rms)
    }
}

impl Reference {
    /// Sums that are stored in f32.
    pub(super) fn sums(values: &[f32], sums: Sums) -> Reference {
        let (scale, inherited) = sums.allowed(rms(values), values.len());
        let want = Wanted {
            values: values.iter().copied().map(f64::from).collect(),
            scale: vec![scale; values.len()],
            inherited: vec![inherited; values.len()],
        };
        Reference { want, tolerance: Tolerance::f32(sums.terms) }
    }

    /// silu(gate) · up of neighbouring `values`, which are sums; stored in f16 or in f32.
    pub(super) fn gated(values: &[f32], sums: Sums, is_f16: bool) -> Reference {
        let (scale, inherited) = sums.allowed(rms(values), values.len());
        let mut want = Wanted::default();
        for pair in values.chunks_exact(2) {
            let (gate, up) = (f64::from(pair[0]), f64::from(pair[1]));
            let silu = gate / (1.0 + (-gate).exp());
            // SiLU rises by at most 1.1 for each one of its argument.
            let slope = silu.abs() + 1.1 * up.abs();
            want.values.push(silu * up);
            want.scale.push(slope * scale);
            want.inherited.push(slope * inherited + accuracy::exp(gate) * (silu * up).abs());
        }
        let tolerance = Tolerance::f32(sums.terms);
        Reference { want, tolerance: if is_f16 { tolerance.stored_f16() } else { tolerance } }
    }

    /// Means of `keys` values of up to `largest`, weighted by exponentials of scores whose terms add up to `scores`, row by row of
    /// `cols`; stored in f16 where what they are made from is f16.
    ///
    /// Rounding a term moves a row by its share of the row's root mean square, since values have random signs; what all
    /// weights share moves it by its share of the values.
    pub(super) fn means(
        values: &[f32],
        cols: usize,
        keys: usize,
        largest: f64,
        scores: f64,
        is_f16: bool,
    ) -> Reference {
        let mut want = Wanted::default();
        // Weights may be rounded to f16.
        let rounding = if is_f16 { 2.0 * F16_HALF_STEP } else { 0.0 };
        let shared = 2.0 * (accuracy::STEP * (4.0 + (cols as f64).sqrt()) * scores + accuracy::exp(scores));
        for row in values.chunks_exact(cols) {
            let (_, inherited) = Sums { terms: keys, rounding }.allowed(rms(row), values.len());
            // The reference is rounded when it is stored, as what it is compared with.
            let stored = |value: f64| if is_f16 { F16_HALF_STEP * value.abs().max(2f64.powi(-14)) } else { 0.0 };
            for &value in row {
                let value = f64::from(value);
                want.values.push(value);
                want.scale.push(2.0 * largest);
                want.inherited.push(inherited + shared * largest + stored(value));
            }
        }
        let tolerance = Tolerance::f32(keys);
        Reference { want, tolerance: if is_f16 { tolerance.stored_f16() } else { tolerance } }
    }

    /// The worst difference as a share of what is allowed.
    ///
    /// # Errors
    /// A sentence where it is more than that.
    pub(super) fn check(&self, met: &[f32]) -> Result<f64, String> {
        self.tolerance.check(met, &self.want).map_err(|message| format!("its output is not the default's: {message}"))
    }
}

fn rms(values: &[f32]) -> f64 {
    let squares: f64 = values.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
    (squares / values.len().max(1) as f64).sqrt()
}
