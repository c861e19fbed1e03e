//! One group of weights: its scale, its zero point and its quants, by the least weighted squared error.
//!
//! Loops go over chunks of eight without branches, so that they run on vector units; sums of eight lanes are added last.

use half::f16;

use super::target::{Bits, QuantizeTo};

const LANES: usize = 8;

/// What a group is multiplied by and counted from: `x = scale * (q - zero)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Grid {
    /// Positive, and a number of f16.
    pub(super) scale: f32,
    /// 0..=15 or 0..=255.
    pub(super) zero: u8,
}

/// By how much the range of a group is shrunken: (first factor, step, tries). Where a weight is one of 255 steps, what the extremes
/// lose soon outweighs what the others win.
const fn shrinks(bits: Bits) -> (f32, f32, usize) {
    match bits {
        Bits::Four => (1.10, 0.035, 16),
        Bits::Eight => (1.002, 0.002, 3),
    }
}

/// How often codes and scale are fitted to each other at the end.
const REFITS: usize = 3;

/// Quantises the weights `x`, each error counted `weight` times, into `codes`.
///
/// Weights are finite, and a multiple of eight; `weight` is not negative and at most 1. Weights beyond what a scale of f16 reaches are
/// clamped.
pub(super) fn quantize_group(x: &[f32], weight: &[f32], to: QuantizeTo, codes: &mut [u8]) -> Grid {
    let (low, high) = x.iter().fold((0.0f32, 0.0f32), |(low, high), &x| (low.min(x), high.max(x)));
    let largest = high.max(-low);
    if largest == 0.0 {
        let zero = if to.symmetric { middle(to.bits) } else { 0 };
        codes.fill(zero);
        return Grid { scale: 1.0, zero };
    }
    // Powers of two keep every bit, and squares of what is tiny or huge in range.
    let unit = power_of_two(largest.log2().floor() as i32);
    let (mut unit_x, chunks) = ([0.0; 128], x.len() / LANES * LANES);
    unit_x.iter_mut().zip(x).for_each(|(to, x)| *to = x / unit);
    let group = Group { x: &unit_x[..chunks], weight, unit, to };

    let plain = group.plain(low / unit, high / unit);
    let best = if to.search { group.search(low / unit, high / unit, plain) } else { plain };
    group.encode(best, codes);
    best
}

/// The zero point of a symmetric group.
pub(super) const fn middle(bits: Bits) -> u8 {
    bits.max() / 2 + 1
}

struct Group<'a> {
    /// In units.
    x: &'a [f32],
    weight: &'a [f32],
    /// A power of two.
    unit: f32,
    to: QuantizeTo,
}

impl Group<'_> {
    /// The nearest scale that f16 has, in units as `scale` is.
    fn rounded(&self, scale: f32) -> f32 {
        round_scale(scale * self.unit) / self.unit
    }

    fn grid(&self, scale: f32, zero: u8) -> Grid {
        Grid { scale: round_scale(scale * self.unit), zero }
    }

    /// What the extremes ask for.
    fn plain(&self, low: f32, high: f32) -> Grid {
        let max = f32::from(self.to.bits.max());
        if self.to.symmetric {
            let zero = middle(self.to.bits);
            return self.grid(high.max(-low) / (max - f32::from(zero)), zero);
        }
        let scale = self.rounded((high - low) / max);
        self.grid(scale, nearest(-low / scale).clamp(0.0, max) as u8)
    }

    /// The best grid that is found, `plain` where none is better.
    fn search(&self, low: f32, high: f32, plain: Grid) -> Grid {
        let max = f32::from(self.to.bits.max());
        let (first, step, tries) = shrinks(self.to.bits);
        let whole = if self.to.symmetric {
            high.max(-low) / (max - f32::from(middle(self.to.bits)))
        } else {
            (high - low) / max
        };
        // The share of the squares that a scale fitted to the codes accounts for: what is left is the error.
        let (mut most, mut best) = (f32::MIN, (whole, plain.zero));
        for index in 0..tries {
            let scale = whole * (first - step * index as f32);
            let mut try_zero = |zero: u8| {
                let (xl, ll) = self.moments(scale, zero);
                let explained = if ll > 0.0 { xl * xl / ll } else { 0.0 };
                if explained > most {
                    (most, best) = (explained, (xl / ll, zero));
                }
            };
            if self.to.symmetric {
                try_zero(middle(self.to.bits));
                continue;
            }
            // What lies in the middle of the weights is the middle of the codes, or one beside it.
            let zero = nearest(0.5 * max - 0.5 * (low + high) / scale).clamp(0.0, max);
            for zero in [zero - 1.0, zero, zero + 1.0] {
                if (0.0..=max).contains(&zero) {
                    try_zero(zero as u8);
                }
            }
        }
        let (mut scale, zero) = best;
        let (mut chosen, mut least) = (plain, self.error(plain));
        for _ in 0..REFITS {
            let grid = self.grid(scale, zero);
            let error = self.error(grid);
            if error >= least {
                break;
            }
            (chosen, least) = (grid, error);
            let (xl, ll) = self.moments(grid.scale / self.unit, zero);
            if ll == 0.0 {
                break;
            }
            scale = xl / ll;
        }
        chosen
    }

    /// The sums of `weight * x * l` and of `weight * l * l` over the levels `l = q - zero` that a scale gives.
    fn moments(&self, scale: f32, zero: u8) -> (f32, f32) {
        let levels = Levels::new(scale, zero, self.to.bits);
        let (mut xl, mut ll) = ([0.0; LANES], [0.0; LANES]);
        for (x, weight) in self.x.as_chunks::<LANES>().0.iter().zip(self.weight.as_chunks::<LANES>().0) {
            for lane in 0..LANES {
                let level = levels.of(x[lane]);
                let weighted = weight[lane] * level;
                xl[lane] += weighted * x[lane];
                ll[lane] += weighted * level;
            }
        }
        (xl.iter().sum(), ll.iter().sum())
    }

    /// The sum of `weight * (x - scale * l)²`.
    fn error(&self, grid: Grid) -> f32 {
        let scale = grid.scale / self.unit;
        let levels = Levels::new(scale, grid.zero, self.to.bits);
        let mut sums = [0.0; LANES];
        for (x, weight) in self.x.as_chunks::<LANES>().0.iter().zip(self.weight.as_chunks::<LANES>().0) {
            for lane in 0..LANES {
                let error = x[lane] - scale * levels.of(x[lane]);
                sums[lane] += weight[lane] * error * error;
            }
        }
        sums.iter().sum()
    }

    fn encode(&self, grid: Grid, codes: &mut [u8]) {
        let levels = Levels::new(grid.scale / self.unit, grid.zero, self.to.bits);
        let zero = i32::from(grid.zero);
        codes.iter_mut().zip(self.x).for_each(|(code, &x)| *code = (levels.of(x) as i32 + zero) as u8);
    }
}

/// The levels `q - zero` of a grid.
struct Levels {
    inverse: f32,
    lowest: f32,
    highest: f32,
}

impl Levels {
    fn new(scale: f32, zero: u8, bits: Bits) -> Levels {
        let (zero, max) = (f32::from(zero), f32::from(bits.max()));
        Levels { inverse: 1.0 / scale, lowest: -zero, highest: max - zero }
    }

    /// The nearest level.
    #[inline(always)]
    fn of(&self, x: f32) -> f32 {
        let level = x * self.inverse;
        // Comparisons that compile to one instruction each.
        let level = if level > self.lowest { level } else { self.lowest };
        let level = if level < self.highest { level } else { self.highest };
        nearest(level)
    }
}

/// The nearest whole number of a number under 2²²: adding 1.5 · 2²³ leaves no bits for a fraction.
#[inline(always)]
fn nearest(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT) - SHIFT
}

/// The nearest positive number of f16.
fn round_scale(scale: f32) -> f32 {
    f16::from_f32(scale).clamp(f16::MIN_POSITIVE_SUBNORMAL, f16::MAX).to_f32()
}

/// 2 to a power, clamped to what f32 has without loss.
fn power_of_two(power: i32) -> f32 {
    f32::from_bits(((power.clamp(-126, 126) + 127) as u32) << 23)
}
