//! Arithmetic that is the same on every machine, four numbers at a time where it has to be fast.

use wide::{f32x4, i32x4};

/// Four numbers, as every machine has them in a register.
pub(crate) type Quad = f32x4;
/// Numbers of a [`Quad`].
pub(crate) const QUAD: usize = 4;
/// Numbers of a [`Block`].
pub(crate) const BLOCK: usize = 16;

/// Numbers of a cache line, aligned to one.
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Block(pub(crate) [f32; BLOCK]);

impl Block {
    pub(crate) const ZERO: Block = Block([0.0; BLOCK]);

    #[inline(always)]
    pub(crate) fn quads(&self) -> [Quad; BLOCK / QUAD] {
        let (quads, _) = self.0.as_chunks::<QUAD>();
        [0, 1, 2, 3].map(|at| Quad::from(quads[at]))
    }

    /// `self + factor * other`, in place.
    #[inline(always)]
    pub(crate) fn add(&mut self, factor: f32, other: &Block) {
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a += factor * *b;
        }
    }
}

/// Natural logarithms of positive, normal numbers, to a few units in the last place.
///
/// With x = 2^e (1 + f) and s = f / (2 + f), ln x = e ln 2 + 2 (s + s³/3 + s⁵/5 + …), and |s| < 0.172.
#[inline(always)]
pub(crate) fn ln(x: Quad) -> Quad {
    const HALF_SQRT: i32 = 0x3f35_04f3;
    let bits: i32x4 = bytemuck::cast(x);
    let exponent: i32x4 = (bits - i32x4::splat(HALF_SQRT)) >> 23;
    let mantissa: Quad = bytemuck::cast(bits - (exponent << 23));
    let f = mantissa - Quad::splat(1.0);
    let s = f / (f + Quad::splat(2.0));
    let z = s * s;
    let mut series = Quad::splat(2.0 / 9.0);
    for term in [2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0, 2.0] {
        series = series * z + Quad::splat(term);
    }
    exponent.round_float() * Quad::splat(std::f32::consts::LN_2) + s * series
}

/// The least whole numbers that are not below `x`, for 0 ≤ x ≤ [`LARGEST_CEIL`].
#[inline(always)]
pub(crate) fn ceil(x: Quad) -> Quad {
    let whole = Quad::splat(8_388_608.0);
    let nearest = (x + whole) - whole;
    nearest + (nearest.simd_lt(x) & Quad::splat(1.0))
}

/// Beyond it [`ceil`] is not exact.
pub(crate) const LARGEST_CEIL: f32 = 4_000_000.0;

/// Each number, or the bound where it is above or none.
#[inline(always)]
pub(crate) fn at_most(x: Quad, bound: f32) -> Quad {
    let bound = Quad::splat(bound);
    x.simd_lt(bound).select(x, bound)
}

/// Each number, or the bound where it is below or none.
#[inline(always)]
pub(crate) fn at_least(x: Quad, bound: f32) -> Quad {
    let bound = Quad::splat(bound);
    bound.simd_lt(x).select(x, bound)
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
            let (met, wanted) = (f64::from(ln(Quad::splat(x)).to_array()[3]), f64::from(x).ln());
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
        let ceil = |x: f32| ceil(Quad::splat(x)).to_array()[2];
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
