//! Arithmetic that is the same on every machine, and that compilers turn into vectors without an instruction set's leave.

/// One vector's worth of numbers, aligned to a cache line.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Block(pub(crate) [f32; BLOCK]);

/// Numbers of a [`Block`].
pub(crate) const BLOCK: usize = 16;

impl Block {
    pub(crate) const ZERO: Block = Block([0.0; BLOCK]);

    /// `self + factor * other`, in place.
    #[inline(always)]
    pub(crate) fn add(&mut self, factor: f32, other: &Block) {
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a += factor * *b;
        }
    }
}

/// Natural logarithm of a positive, normal number, to a few units in the last place.
///
/// With x = 2^e (1 + f) and s = f / (2 + f), ln x = e ln 2 + 2 (s + s³/3 + s⁵/5 + …), and |s| < 0.172.
#[inline(always)]
pub(crate) fn ln(x: f32) -> f32 {
    const HALF_SQRT: i32 = 0x3f35_04f3;
    let bits = x.to_bits() as i32;
    let exponent = bits.wrapping_sub(HALF_SQRT) >> 23;
    let f = f32::from_bits(bits.wrapping_sub(exponent << 23) as u32) - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let series = 2.0 + z * (2.0 / 3.0 + z * (2.0 / 5.0 + z * (2.0 / 7.0 + z * (2.0 / 9.0))));
    exponent as f32 * std::f32::consts::LN_2 + s * series
}

/// The least whole number that is not below `x`, for 0 ≤ x ≤ [`LARGEST_CEIL`]; no call, as `f32::ceil` is one without SSE4.1.
#[inline(always)]
pub(crate) fn ceil(x: f32) -> f32 {
    const WHOLE: f32 = 8_388_608.0;
    let nearest = (x + WHOLE) - WHOLE;
    nearest + if nearest < x { 1.0 } else { 0.0 }
}

/// Beyond it [`ceil`] is not exact.
pub(crate) const LARGEST_CEIL: f32 = 4_000_000.0;

/// The greater in one instruction; `b` where either is no number.
#[inline(always)]
pub(crate) fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The lesser in one instruction; `b` where either is no number.
#[inline(always)]
pub(crate) fn lesser(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// e^x for |x| ≤ 80, to a few units in the last place.
///
/// With x = n ln 2 + r and |r| ≤ ln 2 / 2, e^x = 2^n e^r; of e^r the series up to r⁷.
#[inline(always)]
pub(crate) fn exp_f32(x: f32) -> f32 {
    const WHOLE: f32 = 12_582_912.0;
    let n = (x * std::f32::consts::LOG2_E + WHOLE) - WHOLE;
    // ln 2 in two parts, the first of few bits, so that its product with n is exact.
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let series = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let power = series.iter().fold(0.0, |sum, term| sum * r + term);
    f32::from_bits(((n as i32 + 127) << 23) as u32) * power
}

/// e^x, the same on every machine.
pub(crate) fn exp(x: f64) -> f64 {
    libm::exp(x)
}

/// Natural logarithm, the same on every machine.
pub(crate) fn ln_f64(x: f64) -> f64 {
    libm::log(x)
}

/// The median; none of an empty list.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_right_to_a_few_units_in_the_last_place() {
        let mut x = 1e-30_f32;
        while x < 1e30 {
            let (met, wanted) = (f64::from(ln(x)), f64::from(x).ln());
            let step = f64::from(f32::EPSILON) * wanted.abs().max(0.1);
            assert!((met - wanted).abs() < 4.0 * step, "ln {x}: {met}, {wanted}");
            x *= 1.000_37;
        }
    }

    #[test]
    fn the_exponential_is_right_to_a_few_units_in_the_last_place() {
        let mut x = -80.0_f32;
        while x < 80.0 {
            let (met, wanted) = (f64::from(exp_f32(x)), f64::from(x).exp());
            assert!((met / wanted - 1.0).abs() < 4.0 * f64::from(f32::EPSILON), "e^{x}: {met}, {wanted}");
            x += 0.0137;
        }
    }

    #[test]
    fn ceilings_are_exact() {
        for whole in [0, 1, 2, 3, 1000, 65_535, 3_999_998] {
            let at = whole as f32;
            assert_eq!(ceil(at), at);
            assert_eq!(ceil(f32::from_bits((at + 1.0).to_bits() - 1)), at + 1.0);
            if whole < 1000 {
                assert_eq!(ceil(at + 0.001), at + 1.0);
                assert_eq!(ceil(at + 0.5), at + 1.0);
            }
        }
    }
}
