//! One group of weights: its scale, its zero point and its quants, by the least weighted squared error.
//!
//! Loops go over chunks of eight without branches, so that they run on vector units; sums of eight lanes are added last.

use half::{bf16, f16};

use super::target::{Bits, QuantizeTo};
use crate::Format;

const LANES: usize = 8;

/// What a group is multiplied by and counted from: `x = scale * (q - zero)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Grid {
    /// Positive, and a number of the format that was asked for.
    pub(super) scale: f32,
    /// 0..=15 or 0..=255.
    pub(super) zero: u8,
}

/// By how much the range of a group is shrunken: (first factor, step, tries). Where a weight is one of 255 steps, what the extremes
/// lose soon outweighs what the others win.
const fn shrinks(bits: Bits) -> (f32, f32, usize) {
    match bits {
        Bits::Four => (1.10, 0.07, 8),
        Bits::Eight => (1.002, 0.002, 3),
    }
}

/// How often codes and scale are fitted to each other at the end.
const REFITS: usize = 3;

/// Quantises the weights `x`, each error counted `weight` times, into `codes`.
///
/// Weights are finite, and a multiple of eight; `weight` is not negative and at most 1. The scale is a number of `scales`, f16 or bf16;
/// weights beyond what it reaches are clamped.
pub(super) fn quantize_group(x: &[f32], weight: &[f32], to: QuantizeTo, scales: Format, codes: &mut [u8]) -> Grid {
    let (low, high) = extremes(x);
    let largest = high.max(-low);
    if largest == 0.0 {
        let zero = if to.symmetric { middle(to.bits) } else { 0 };
        codes.fill(zero);
        return Grid { scale: 1.0, zero };
    }
    // Powers of two keep every bit, and squares of what is tiny or huge in range.
    let exponent = largest.log2().floor() as i32;
    let (unit, inverse) = (power_of_two(exponent), power_of_two(-exponent));
    let mut unit_x = [0.0; 128];
    unit_x.iter_mut().zip(x).for_each(|(to, x)| *to = x * inverse);
    let (low, high) = (low * inverse, high * inverse);
    let group = Group { x: &unit_x[..x.len()], weight, unit, to, scales };

    let plain = group.plain(low, high);
    let best = if to.search { group.search(low, high, plain) } else { plain };
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
    scales: Format,
}

impl Group<'_> {
    /// The nearest scale that there is, in units as `scale` is.
    fn rounded(&self, scale: f32) -> f32 {
        round_scale(scale * self.unit, self.scales) / self.unit
    }

    fn grid(&self, scale: f32, zero: u8) -> Grid {
        Grid { scale: round_scale(scale * self.unit, self.scales), zero }
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
        let (mut most, mut best) = (f32::MIN, (whole, whole, plain.zero));
        let mut attempt = |scale: f32, zero: f32, best: &mut (f32, f32, u8)| {
            if !(0.0..=max).contains(&zero) {
                return;
            }
            let (xl, ll) = self.moments(scale, zero as u8);
            let explained = if ll > 0.0 { xl * xl / ll } else { 0.0 };
            if explained > most {
                (most, *best) = (explained, (xl / ll, scale, zero as u8));
            }
        };
        for index in 0..tries {
            let scale = whole * (first - step * index as f32);
            // What lies in the middle of the weights is the middle of the codes.
            let zero = match self.to.symmetric {
                true => f32::from(middle(self.to.bits)),
                false => nearest(0.5 * max - 0.5 * (low + high) / scale).clamp(0.0, max),
            };
            attempt(scale, zero, &mut best);
        }
        if self.to.bits == Bits::Four {
            // What lies beside the best: zero points, then scales.
            let (_, tried, zero) = best;
            if !self.to.symmetric {
                [-1.0, 1.0].into_iter().for_each(|beside| attempt(tried, f32::from(zero) + beside, &mut best));
            }
            let (_, tried, zero) = best;
            let beside = [-0.5, 0.5].map(|beside| tried + beside * step * whole);
            beside.into_iter().for_each(|scale| attempt(scale, f32::from(zero), &mut best));
        }
        let (mut scale, _, zero) = best;
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
        let zero = f32::from(grid.zero);
        // A whole number is in the low bits of its sum with the shift.
        codes.iter_mut().zip(self.x).for_each(|(code, &x)| *code = (levels.of(x) + zero + SHIFT).to_bits() as u8);
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

/// The least and the largest, zero among them.
fn extremes(x: &[f32]) -> (f32, f32) {
    let (mut low, mut high) = ([0.0f32; LANES], [0.0f32; LANES]);
    for x in x.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            low[lane] = if x[lane] < low[lane] { x[lane] } else { low[lane] };
            high[lane] = if x[lane] > high[lane] { x[lane] } else { high[lane] };
        }
    }
    (low.into_iter().fold(0.0, f32::min), high.into_iter().fold(0.0, f32::max))
}

/// 1.5 · 2²³: added to a number under 2²² it leaves no bits for a fraction.
const SHIFT: f32 = 12_582_912.0;

/// The nearest whole number of a number under 2²².
#[inline(always)]
fn nearest(x: f32) -> f32 {
    (x + SHIFT) - SHIFT
}

/// The nearest positive number of a format.
fn round_scale(scale: f32, format: Format) -> f32 {
    match format {
        Format::Bf16 => bf16::from_f32(scale).clamp(bf16::MIN_POSITIVE, bf16::MAX).to_f32(),
        _ => f16::from_f32(scale).clamp(f16::MIN_POSITIVE_SUBNORMAL, f16::MAX).to_f32(),
    }
}

/// 2 to a power, clamped to what f32 has without loss.
fn power_of_two(power: i32) -> f32 {
    f32::from_bits(((power.clamp(-126, 126) + 127) as u32) << 23)
}
