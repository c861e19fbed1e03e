//! How far a kernel may be from its twin: computed from the arithmetic, never typed.

/// The largest error that rounding explains.
///
/// ε · (4 + √chain) · max(|want|, 10⁻³ · largest want), plus half a step of the storage type, plus what built-in
/// functions bring in. ε is a whole step of f32, since WGSL lets a result be either neighbour of the exact one; the
/// roundings of a chain of additions are taken for independent, so that they grow as its root; 4 stands for what
/// surrounds the chain.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// The longest run of dependent additions.
    pub chain: usize,
    /// Half a step of the type in which the result is stored, relative: 2⁻¹¹ for f16, 0 for f32.
    pub storage_step: f64,
}

/// What a twin says: values, and how large the terms are that they come from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// The exact results.
    pub values: Vec<f64>,
    /// Stands for |want| where terms cancel: the twin on absolute inputs.
    pub scale: Vec<f64>,
    /// Error that the twin's built-in functions may bring in on an adapter, absolute; see [`accuracy`].
    pub inherited: Vec<f64>,
}

/// The accuracy of WGSL's built-in functions in f32, by which a twin computes [`Wanted::inherited`].
///
/// Source: W3C WebGPU Shading Language, section 15.7.4.1, "Accuracy of Concrete Floating Point Expressions".
pub mod accuracy {
    /// A step of f32, relative.
    pub const STEP: f64 = f32::EPSILON as f64;
    /// tanh: absolute.
    pub const TANH: f64 = 1e-5;
    /// log of 0.5 to 2: absolute; elsewhere 3 steps, which is less for results over 0.7.
    pub const LOG: f64 = 4.0 * STEP;

    /// A value that is rounded to f16, absolute: nothing where it is an f16. What is less than the smallest normal one may
    /// become zero.
    pub fn f16(value: f64) -> f64 {
        const SMALLEST: f64 = 1.0 / 16384.0;
        match value.abs() {
            small if small < SMALLEST => small.max(SMALLEST / 2048.0),
            _ if half::f16::from_f64(value).to_f64() == value => 0.0,
            normal => normal / 2048.0,
        }
    }

    /// exp(x) and exp2(x), relative: 3 + 2 · |x| steps.
    pub fn exp(x: f64) -> f64 {
        (3.0 + 2.0 * x.abs()) * STEP
    }
}

/// The largest f16; kernels store it for what is beyond.
const LARGEST_F16: f64 = 65504.0;

impl Wanted {
    /// Results whose terms do not cancel.
    pub fn plain(values: Vec<f64>) -> Wanted {
        let scale = values.iter().map(|value| value.abs()).collect();
        Wanted::scaled(values, scale)
    }

    /// Results of terms whose absolute values sum to `scale`.
    pub fn scaled(values: Vec<f64>, scale: Vec<f64>) -> Wanted {
        let inherited = vec![0.0; values.len()];
        Wanted { values, scale, inherited }
    }
}

impl Tolerance {
    /// Sums of `chain` terms in f32, stored in f32.
    pub fn f32(chain: usize) -> Self {
        Tolerance { chain, storage_step: 0.0 }
    }

    /// The same, stored in f16, what is beyond its range as its largest number.
    pub fn stored_f16(self) -> Self {
        Tolerance { storage_step: 2f64.powi(-11), ..self }
    }

    /// The error that each value may have.
    pub fn allowed(&self, want: &Wanted) -> Vec<f64> {
        let largest = want.scale.iter().fold(0.0f64, |a, b| a.max(b.abs()));
        let relative = accuracy::STEP * (4.0 + (self.chain as f64).sqrt());
        let of = |((&value, &scale), &inherited): ((&f64, &f64), &f64)| {
            // f16 steps stop shrinking below 2⁻¹⁴: half a step there is 2⁻²⁵.
            let stored = self.storage_step * value.abs().clamp(2f64.powi(-14), LARGEST_F16);
            relative * scale.abs().max(1e-3 * largest) + stored + inherited
        };
        want.values.iter().zip(&want.scale).zip(&want.inherited).map(of).collect()
    }

    /// The worst error as a share of what is allowed.
    ///
    /// # Errors
    /// A sentence where it is more than the whole: the worst element's index, what was met, wanted and allowed.
    pub fn check(&self, met: &[f32], want: &Wanted) -> Result<f64, String> {
        assert_eq!(met.len(), want.values.len(), "values met and wanted");
        let mut worst = (0.0, 0, 0.0, 0.0);
        for (index, ((&met, &value), allowed)) in met.iter().zip(&want.values).zip(self.allowed(want)).enumerate() {
            let value = if self.storage_step > 0.0 { value.clamp(-LARGEST_F16, LARGEST_F16) } else { value };
            let error = (f64::from(met) - value).abs();
            let share = if error.is_nan() { f64::INFINITY } else { error / allowed.max(f64::MIN_POSITIVE) };
            if share > worst.0 {
                worst = (share, index, value, allowed);
            }
        }
        let (share, index, value, allowed) = worst;
        if share <= 1.0 {
            return Ok(share);
        }
        Err(format!(
            "element {index} of {}: met {}, wanted {value}, allowed error {allowed:.3e}, {share:.1} times over",
            met.len(),
            met[index],
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rounding_passes_and_a_wrong_term_does_not() {
        let want = Wanted::scaled(vec![1.0, 1e-9], vec![2.0, 2.0]);
        let tolerance = Tolerance::f32(100);
        let allowed = 14.0 * accuracy::STEP * 2.0;
        assert_eq!(tolerance.allowed(&want), [allowed, allowed]);
        assert!(tolerance.check(&[1.0 + 2e-6, 2e-6], &want).is_ok_and(|share| share < 0.7));
        let message = tolerance.check(&[1.0, 5e-6], &want).expect_err("1.5 times over");
        assert!(message.contains("element 1 of 2") && message.contains("1.5 times over"), "{message}");
        assert!(tolerance.check(&[f32::NAN, 0.0], &want).is_err());
    }

    #[test]
    fn f16_allows_half_a_step_and_ends_at_its_largest_number() {
        let want = Wanted::plain(vec![1e8, 1.0]);
        let tolerance = Tolerance::f32(1).stored_f16();
        assert!(tolerance.check(&[65504.0, 1.0 + 1.0 / 2048.0], &Wanted::plain(vec![65504.0, 1.0])).is_ok());
        assert!(tolerance.check(&[65504.0, 1.0], &want).is_ok());
        assert!(tolerance.check(&[f32::INFINITY, 1.0], &want).is_err());
        assert!(tolerance.check(&[1.0 + 1.0 / 900.0], &Wanted::plain(vec![1.0])).is_err());
    }
}
