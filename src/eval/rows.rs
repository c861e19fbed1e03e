//! One row of logits, and one against another, in f64.

/// What is kept of a row of the reference's logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reference {
    /// The largest logit.
    max: f64,
    /// ln Σ exp(logit - max).
    log_sum: f64,
    /// Which is the largest; of equal ones the first, as greedy decoding has it.
    top: u32,
    /// The largest less the second largest: ∞ where there is but one.
    pub(super) margin: f32,
    /// The loss of the text's next token, where it has one.
    pub(super) nll: Option<f64>,
}

/// A format's row against the reference's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Compared {
    /// KL(reference ‖ format) in nats, never below 0; NaN where the format's logits are not numbers.
    pub(super) kl: f64,
    /// Whether both have the same largest logit.
    pub(super) agrees: bool,
    /// The loss of the text's next token, where it has one.
    pub(super) nll: Option<f64>,
}

/// The largest logit, its column, and the second largest; NaN counts as less than all.
fn largest(logits: &[f32]) -> (f32, u32, f32) {
    let (mut max, mut top, mut second) = (f32::NEG_INFINITY, 0, f32::NEG_INFINITY);
    for (column, &logit) in logits.iter().enumerate() {
        if logit > second {
            if logit > max {
                (second, max, top) = (max, logit, column as u32);
            } else {
                second = logit;
            }
        }
    }
    (max, top, second)
}

impl Reference {
    /// Of a row after which the text goes on with `next`; its loss is NaN where the logits are not numbers.
    ///
    /// # Panics
    /// If `next` is past the row.
    pub(super) fn new(logits: &[f32], next: Option<u32>) -> Reference {
        let (max, top, second) = largest(logits);
        let (margin, max) = (max - second, f64::from(max));
        let log_sum = logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum::<f64>().ln();
        let nll = next.map(|next| log_sum - (f64::from(logits[next as usize]) - max));
        Reference { max, log_sum, top, margin, nll }
    }

    /// Whether its logits were numbers.
    pub(super) fn is_sound(&self) -> bool {
        self.log_sum.is_finite()
    }

    /// The reference's row against itself.
    pub(super) fn itself(&self) -> Compared {
        Compared { kl: 0.0, agrees: true, nll: self.nll }
    }

    /// Holds a format's row against the reference's, `own`, from which `self` was made.
    ///
    /// # Panics
    /// If the rows are not of one length, or `next` is past them.
    pub(super) fn compare(&self, own: &[f32], other: &[f32], next: Option<u32>) -> Compared {
        assert_eq!(own.len(), other.len(), "rows of one vocabulary");
        let (max, top, _) = largest(other);
        let max = f64::from(max);
        // With p = exp(x) / P and q = exp(y) / Q: Σ p (ln p - ln q) = Σ exp(x) (x - y) / P - ln P + ln Q.
        let (mut weighted, mut sum) = (0.0f64, 0.0f64);
        for (&x, &y) in own.iter().zip(other) {
            let (x, y) = (f64::from(x) - self.max, f64::from(y) - max);
            weighted += x.exp() * (x - y);
            sum += y.exp();
        }
        let log_sum = sum.ln();
        let kl = weighted / self.log_sum.exp() - self.log_sum + log_sum;
        let nll = next.map(|next| log_sum - (f64::from(other[next as usize]) - max));
        // Below zero it is by rounding alone; `f64::max` would make a number of NaN.
        Compared { kl: if kl < 0.0 { 0.0 } else { kl }, agrees: top == self.top, nll }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPS: f64 = 1e-12;

    #[test]
    fn divergence_and_losses_of_known_distributions_are_those_of_the_textbook() {
        // p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2): KL = 1/2 ln 2 + 0 - 1/4 ln 2. Logits are known up to a constant.
        let ln = |p: f64, offset: f64| (p.ln() + offset) as f32;
        let p = [ln(0.5, 3.0), ln(0.25, 3.0), ln(0.25, 3.0)];
        let q = [ln(0.25, -70.0), ln(0.25, -70.0), ln(0.5, -70.0)];
        let reference = Reference::new(&p, Some(1));
        let met = reference.compare(&p, &q, Some(2));
        // The logits were rounded to f32.
        let rounding = f64::from(f32::EPSILON) * 70.0;
        assert!((met.kl - 0.25 * 2f64.ln()).abs() < rounding, "{met:?}");
        assert!(
            (reference.nll.unwrap() - 4f64.ln()).abs() < rounding && (met.nll.unwrap() - 2f64.ln()).abs() < rounding
        );
        assert!((f64::from(reference.margin) - 2f64.ln()).abs() < rounding && !met.agrees);
        assert_eq!(Reference::new(&p, None).nll, None);
    }

    #[test]
    fn a_row_against_itself_and_against_itself_shifted_diverges_by_nothing() {
        let row: Vec<f32> = (0..1000).map(|i| ((i * 37) % 101) as f32 / 8.0 - 6.0).collect();
        let shifted: Vec<f32> = row.iter().map(|logit| logit + 16.0).collect();
        let reference = Reference::new(&row, None);
        for other in [&row, &shifted] {
            let met = reference.compare(&row, other, None);
            assert!(met.kl >= 0.0 && met.kl < EPS && met.agrees, "{met:?}");
        }
    }

    #[test]
    fn of_equal_logits_the_first_is_the_largest_and_the_margin_is_zero() {
        let reference = Reference::new(&[1.0, 5.0, 5.0, 2.0], None);
        assert_eq!(reference.margin, 0.0);
        let agrees = |other: &[f32]| reference.compare(&[1.0, 5.0, 5.0, 2.0], other, None).agrees;
        assert!(agrees(&[0.0, 7.0, 7.0, 7.0]) && agrees(&[0.0, 7.0, 6.9, 0.0]));
        assert!(!agrees(&[7.0, 7.0, 7.0, 7.0]) && !agrees(&[0.0, 6.9, 7.0, 0.0]));
        assert_eq!(Reference::new(&[3.0], None).margin, f32::INFINITY);
        assert_eq!(largest(&[-1.0, -3.0, -2.0]), (-1.0, 0, -2.0));
    }

    #[test]
    fn what_is_no_number_is_told_and_never_taken_for_small() {
        let row = [1.0f32, 2.0, 3.0];
        let reference = Reference::new(&row, Some(0));
        for bad in [[f32::NAN, 2.0, 3.0], [f32::INFINITY, 2.0, 3.0], [f32::NAN; 3], [f32::NEG_INFINITY; 3]] {
            assert!(!reference.compare(&row, &bad, Some(1)).kl.is_finite(), "{bad:?}");
            assert!(!Reference::new(&bad, None).is_sound(), "{bad:?}");
        }
        // What the format holds for impossible and the reference does not.
        assert_eq!(reference.compare(&row, &[1.0, f32::NEG_INFINITY, 3.0], None).kl, f64::INFINITY);
    }
}
