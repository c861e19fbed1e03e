//! Rows of the KV cache as a host makes and reads them: the CPU twin of how `rope_append.wgsl` rounds and packs them, and of how
//! attention reads them.

use crate::KvType;
use half::f16;
use std::ops::{Add, MulAssign, Sub};

/// The largest magnitude that is kept.
const LARGEST: f32 = 65504.0;
/// The least scale: less is nothing.
const LEAST: f32 = f32::from_bits(0x0f80_0000);

/// Keys or values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Keys.
    Key,
    /// Values.
    Value,
}

/// What a column is multiplied by, and what is added then, each a bf16.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// The factor; 1 of floats.
    pub step: f32,
    /// The minimum; 0 in all but 4 bits.
    pub minimum: f32,
}

/// What a row says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decoded {
    /// Its columns.
    pub values: Vec<f64>,
    /// Of each the absolute values of the terms that it is the sum of.
    pub magnitudes: Vec<f64>,
}

impl KvType {
    /// Bits of a column of keys, or of values.
    pub fn bits(self, side: Side) -> usize {
        match side {
            Side::Key => self.k_bits(),
            Side::Value => self.v_bits(),
        }
    }

    /// Bytes of a row of keys, or of values.
    pub fn side_bytes(self, side: Side, head_stride: usize) -> usize {
        head_stride * self.bits(side) / 8
    }

    /// Whether keys, or values, are rotated before they are rounded.
    pub fn rotates(self, side: Side) -> bool {
        match side {
            Side::Key => self.rotates_keys(),
            Side::Value => self.rotates_values(),
        }
    }

    /// The scale of a row whose columns run from `lowest` to `highest`.
    pub fn scale(self, side: Side, lowest: f32, highest: f32) -> Scale {
        let [lowest, highest] = [lowest, highest].map(|value| value.clamp(-LARGEST, LARGEST));
        match self.bits(side) {
            4 => {
                let minimum = downwards(lowest);
                Scale { step: outwards(((highest - minimum) / 15.0).max(LEAST)), minimum }
            }
            8 => Scale { step: outwards((highest.max(-lowest) / 127.0).max(LEAST)), minimum: 0.0 },
            _ => Scale { step: 1.0, minimum: 0.0 },
        }
    }

    /// The scale in the words of a head and slot.
    ///
    /// # Panics
    /// If a quantised type has fewer words than [`KvType::scale_bytes`] says.
    pub fn scale_in(self, side: Side, words: &[u32]) -> Scale {
        let low = |word: u32| f32::from_bits(word << 16);
        let high = |word: u32| f32::from_bits(word & 0xffff_0000);
        match (self, side) {
            (KvType::F32 | KvType::F16, _) => Scale { step: 1.0, minimum: 0.0 },
            (KvType::Int8, Side::Key) => Scale { step: low(words[0]), minimum: 0.0 },
            (KvType::Int8, Side::Value) => Scale { step: high(words[0]), minimum: 0.0 },
            (_, side) => {
                let word = words[usize::from(side == Side::Value)];
                Scale { step: low(word), minimum: high(word) }
            }
        }
    }

    /// The words of a head and slot with such scales.
    pub fn scale_words(self, key: Scale, value: Scale) -> Vec<u32> {
        let pair = |low: f32, high: f32| low.to_bits() >> 16 | high.to_bits() & 0xffff_0000;
        match self {
            KvType::F32 | KvType::F16 => Vec::new(),
            KvType::Int8 => vec![pair(key.step, value.step)],
            KvType::K8V4 | KvType::Int4 => vec![pair(key.step, key.minimum), pair(value.step, value.minimum)],
        }
    }

    /// Rounds a row, which has lost its mean and is rotated where it should be, and packs it; columns past its end are padding.
    pub fn encode(self, side: Side, values: &[f64], head_stride: usize) -> (Vec<u8>, Scale) {
        let clamped = values.iter().map(|&value| (value as f32).clamp(-LARGEST, LARGEST));
        let (lowest, highest) =
            clamped.clone().fold((LARGEST, -LARGEST), |(low, high), value| (low.min(value), high.max(value)));
        let scale = self.scale(side, lowest, highest);
        let columns = clamped.map(f64::from).map(Some).chain(std::iter::repeat(None)).take(head_stride);
        let quant = |value: f64| ((value - f64::from(scale.minimum)) / f64::from(scale.step)).round_ties_even();
        let bytes = match self.bits(side) {
            32 => values.iter().flat_map(|&value| (value as f32).to_le_bytes()).collect(),
            16 => columns.flat_map(|value| f16::from_f64(value.unwrap_or(0.0)).to_le_bytes()).collect(),
            8 => columns.map(|value| value.map_or(0, |value| quant(value).clamp(-127.0, 127.0) as i8 as u8)).collect(),
            _ => {
                let quants: Vec<u8> =
                    columns.map(|value| value.map_or(0, |value| quant(value).clamp(0.0, 15.0) as u8)).collect();
                quants.chunks_exact(8).flat_map(|eight| (0..4).map(move |i| eight[i] | eight[i + 4] << 4)).collect()
            }
        };
        let mut bytes: Vec<u8> = bytes;
        bytes.resize(self.side_bytes(side, head_stride), 0);
        (bytes, scale)
    }

    /// The first `head_dim` columns of a row.
    pub fn decode(self, side: Side, bytes: &[u8], scale: Scale, head_dim: usize) -> Decoded {
        let quant = |col: usize| match self.bits(side) {
            32 => f64::from(f32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[4 * col + i]))),
            16 => f16::from_le_bytes([bytes[2 * col], bytes[2 * col + 1]]).to_f64(),
            8 => f64::from(bytes[col] as i8),
            _ => f64::from(bytes[col / 8 * 4 + col % 4] >> (col % 8 / 4 * 4) & 15),
        };
        let (step, minimum) = (f64::from(scale.step), f64::from(scale.minimum));
        let mut decoded = Decoded::default();
        for product in (0..head_dim).map(|col| quant(col) * step) {
            decoded.values.push(product + minimum);
            decoded.magnitudes.push(product.abs() + minimum.abs());
        }
        decoded
    }
}

/// Rotates blocks of `rotation` columns by the normalised Hadamard matrix: entry (i, j) is -1 to the number of bits that i and j
/// share, over the root of `rotation`. Twice is what was.
///
/// # Panics
/// If `rotation`, a power of two, does not divide the columns.
pub fn rotate(values: &mut [f64], rotation: usize) {
    assert!(rotation.is_power_of_two() && values.len().is_multiple_of(rotation), "blocks of {rotation} columns");
    for block in values.chunks_exact_mut(rotation) {
        let x = block.to_vec();
        for (i, out) in block.iter_mut().enumerate() {
            let sign = |j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
            *out = x.iter().enumerate().map(|(j, x)| sign(j) * x).sum::<f64>() / (rotation as f64).sqrt();
        }
    }
}

/// [`rotate`] in as many rounds as `rotation` has bits, in whatever floats the columns are; `scale` is one over the root of
/// `rotation` in them.
///
/// # Panics
/// As [`rotate`].
pub fn rotate_fast<T>(values: &mut [T], rotation: usize, scale: T)
where
    T: Copy + Add<Output = T> + Sub<Output = T> + MulAssign,
{
    assert!(rotation.is_power_of_two() && values.len().is_multiple_of(rotation), "blocks of {rotation} columns");
    for block in values.chunks_exact_mut(rotation) {
        let mut bit = 1;
        while bit < rotation {
            for pair in block.chunks_exact_mut(2 * bit) {
                let (low, high) = pair.split_at_mut(bit);
                low.iter_mut().zip(high).for_each(|(a, b)| (*a, *b) = (*a + *b, *a - *b));
            }
            bit *= 2;
        }
        block.iter_mut().for_each(|value| *value *= scale);
    }
}

/// The next bf16 away from zero.
fn outwards(value: f32) -> f32 {
    f32::from_bits((value.to_bits() + 0xffff) & 0xffff_0000)
}

/// The next bf16 below.
fn downwards(value: f32) -> f32 {
    if value < 0.0 { outwards(value) } else { f32::from_bits(value.to_bits() & 0xffff_0000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns as a channel of keys has them: some far out.
    fn row(head_dim: usize) -> Vec<f64> {
        (0..head_dim).map(|i| ((i * i * 37 + 11) % 101) as f64 / 50.0 - 0.7 + if i == 3 { 9.0 } else { 0.0 }).collect()
    }

    #[test]
    fn a_row_comes_back_within_half_a_step() {
        for kv in KvType::ALL {
            for (side, head_dim) in [(Side::Key, 64), (Side::Value, 64), (Side::Key, 50), (Side::Value, 7)] {
                let stride = kv.head_stride(head_dim).expect("not above 256");
                let (bytes, scale) = kv.encode(side, &row(head_dim), stride);
                assert_eq!(bytes.len(), kv.side_bytes(side, stride), "{kv}");
                let decoded = kv.decode(side, &bytes, scale, head_dim);
                for (met, want) in decoded.values.iter().zip(row(head_dim)) {
                    let allowed = match kv {
                        KvType::F32 => 1e-6,
                        KvType::F16 => want.abs() / 2048.0,
                        _ => f64::from(scale.step) * 0.5001,
                    };
                    assert!((met - want).abs() <= allowed, "{kv} {side:?}: {met} {want}");
                }
                let words = kv.scale_words(scale, scale);
                assert_eq!(4 * words.len(), kv.scale_bytes());
                assert_eq!(kv.scale_in(side, &words), scale, "a scale is two bf16");
            }
        }
    }

    #[test]
    fn scales_are_rounded_outwards_and_rows_of_one_number_are_exact_enough() {
        let scale = KvType::Int4.scale(Side::Key, -1.001, 2.0);
        assert!(f64::from(scale.minimum) <= -1.001 && scale.minimum > -1.01);
        assert!(scale.minimum + 15.0 * scale.step >= 2.0);
        for (kv, value) in [(KvType::Int8, 0.0), (KvType::Int4, 0.0), (KvType::Int4, 0.3), (KvType::Int8, -1e30)] {
            let (bytes, scale) = kv.encode(Side::Key, &[value; 32], 32);
            let want = value.clamp(-65504.0, 65504.0);
            for met in kv.decode(Side::Key, &bytes, scale, 32).values {
                assert!((met - want).abs() <= f64::from(scale.step) / 2.0, "{kv} {value}: {met}");
            }
        }
    }

    #[test]
    fn columns_of_four_bits_lie_in_the_nibbles_of_four_bytes() {
        let values: Vec<f64> = (0..16).map(f64::from).collect();
        let (bytes, scale) = KvType::Int4.encode(Side::Value, &values, 32);
        assert_eq!(scale, Scale { step: 1.0, minimum: 0.0 });
        assert_eq!(bytes[..8], [0x40, 0x51, 0x62, 0x73, 0xc8, 0xd9, 0xea, 0xfb]);
    }

    #[test]
    fn a_rotation_is_its_own_inverse_and_keeps_lengths() {
        let mut values = row(48);
        rotate(&mut values, 16);
        let length = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>();
        assert!((length(&values) - length(&row(48))).abs() < 1e-9);
        let largest = values.iter().fold(0.0f64, |most, value| most.max(value.abs()));
        assert!(largest < 8.0, "an outlier of 9 is spread over its block: {largest}");
        rotate(&mut values, 16);
        assert!(values.iter().zip(row(48)).all(|(met, want)| (met - want).abs() < 1e-12));
    }

    #[test]
    fn the_fast_rotation_is_the_twin() {
        let row: Vec<f64> = (0..96).map(|i| ((i * 37) % 23) as f64 - 11.0).collect();
        for rotation in [1, 2, 16, 32] {
            let (mut fast, mut slow) = (row.clone(), row.clone());
            rotate_fast(&mut fast, rotation, (rotation as f64).sqrt().recip());
            rotate(&mut slow, rotation);
            assert!(fast.iter().zip(&slow).all(|(a, b)| (a - b).abs() < 1e-12), "{rotation}");
        }
    }
}
