//! How far a kernel may be from its twin: computed from the arithmetic, never typed.

/// The largest error that rounding explains.
///
/// ε · (4 + √chain) · max(|want|, 10⁻³ · largest want), plus half a step of the storage type.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// The longest run of dependent additions.
    pub chain: usize,
    /// Half a step of the type in which inputs to the sum are kept, relative: 2⁻¹¹ for f16, 0 where exact.
    pub input_step: f64,
    /// Half a step of the type in which the result is stored, relative: 2⁻¹¹ for f16, 0 for f32.
    pub storage_step: f64,
}

impl Tolerance {
    /// Sums of `chain` exact inputs in f32, stored in f32.
    pub fn f32(chain: usize) -> Self {
        Tolerance { chain, input_step: 0.0, storage_step: 0.0 }
    }

    /// The same, stored in f16.
    pub fn stored_f16(self) -> Self {
        Tolerance { storage_step: half_step_f16(), ..self }
    }

    /// Fails with a sentence where a value is further from the twin's than rounding explains.
    /// `scale` stands for |want| where terms cancel: the twin on absolute inputs.
    ///
    /// # Errors
    /// The worst element: its index, what was met, wanted and allowed.
    pub fn check(&self, met: &[f32], want: &[f64], scale: &[f64]) -> Result<(), String> {
        assert_eq!(met.len(), want.len(), "values met and wanted");
        assert_eq!(met.len(), scale.len(), "values met and their scale");
        let largest = scale.iter().fold(0.0f64, |a, b| a.max(b.abs()));
        let mut worst: Option<(f64, usize, f64)> = None;
        for (index, ((&met, &want), &scale)) in met.iter().zip(want).zip(scale).enumerate() {
            let scale = scale.abs().max(1e-3 * largest);
            let relative = f64::from(f32::EPSILON) * (4.0 + (self.chain as f64).sqrt()) + self.input_step;
            // f16 steps stop shrinking below 2⁻¹⁴: half a step there is 2⁻²⁵.
            let allowed = relative * scale + self.storage_step * want.abs().max(2f64.powi(-14));
            let error = (f64::from(met) - want).abs();
            let excess = if error.is_nan() { f64::INFINITY } else { error / allowed.max(f64::MIN_POSITIVE) };
            if excess > 1.0 && worst.is_none_or(|(most, _, _)| excess > most) {
                worst = Some((excess, index, allowed));
            }
        }
        match worst {
            None => Ok(()),
            Some((excess, index, allowed)) => Err(format!(
                "element {index} of {}: met {}, wanted {}, allowed error {allowed:.3e}, {excess:.1} times over",
                met.len(),
                met[index],
                want[index]
            )),
        }
    }
}

/// Half a step of f16, relative.
pub(crate) fn half_step_f16() -> f64 {
    2f64.powi(-11)
}
