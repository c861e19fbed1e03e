//! Blocks → f32, to the bit as the programs that define them do it: products and sums of f32 in their order.
//!
//! Source: ggml's `dequantize_row_*` in `ggml-quants.c`; the integers in groups are scale · (q - zero), which is exact.

use half::{bf16, f16};

use super::{Format, half_at, word_at};

impl Format {
    /// The numbers of whole blocks.
    ///
    /// # Panics
    /// If `blocks` is no whole number of them, or `out` has not one place for each number.
    pub fn decode(self, blocks: &[u8], out: &mut [f32]) {
        let (values, bytes) = self.block();
        assert!(blocks.len().is_multiple_of(bytes), "{self}: {} bytes are no whole blocks", blocks.len());
        assert_eq!(out.len(), blocks.len() / bytes * values, "{self}: numbers of {} bytes", blocks.len());
        match self {
            Format::F32 => each(blocks, out, f32::from_le_bytes),
            Format::F16 => each(blocks, out, |b| f16::from_le_bytes(b).to_f32()),
            Format::Bf16 => each(blocks, out, |b| bf16::from_le_bytes(b).to_f32()),
            _ => {
                for (block, out) in blocks.chunks_exact(bytes).zip(out.chunks_exact_mut(values)) {
                    self.decode_block(block, out);
                }
            }
        }
    }

    fn decode_block(self, b: &[u8], out: &mut [f32]) {
        let half = |at: usize| half_at(b, at);
        let nibble = |at: usize, i: usize| (b[at + i % 16] >> (4 * (i / 16))) & 15;
        let fifth = |at: usize, i: usize| ((b[at + i / 8] >> (i % 8)) & 1) << 4;
        let fill = |out: &mut [f32], value: &dyn Fn(usize) -> f32| {
            for (i, out) in out.iter_mut().enumerate() {
                *out = value(i);
            }
        };
        match self {
            Format::F32 | Format::F16 | Format::Bf16 => (),
            Format::Q8_0 => fill(out, &|i| f32::from(b[2 + i] as i8) * half(0)),
            Format::Q4_0 => fill(out, &|i| (f32::from(nibble(2, i)) - 8.0) * half(0)),
            Format::Q4_1 => fill(out, &|i| f32::from(nibble(4, i)) * half(0) + half(2)),
            Format::Q5_0 => fill(out, &|i| (f32::from(nibble(6, i) | fifth(2, i)) - 16.0) * half(0)),
            Format::Q5_1 => fill(out, &|i| f32::from(nibble(8, i) | fifth(4, i)) * half(0) + half(2)),
            Format::Q4K | Format::Q5K => {
                let quants = if self == Format::Q4K { 16 } else { 48 };
                for (sub, out) in out.chunks_exact_mut(32).enumerate() {
                    let (scale, min) = k_scale(&b[4..16], sub);
                    let (d, m) = (half(0) * f32::from(scale), half(2) * f32::from(min));
                    fill(out, &|i| {
                        let low = (b[quants + 32 * (sub / 2) + i] >> (4 * (sub % 2))) & 15;
                        let high = if self == Format::Q5K { ((b[16 + i] >> sub) & 1) << 4 } else { 0 };
                        d * f32::from(low | high) - m
                    });
                }
            }
            Format::Q6K => fill(out, &|i| {
                let (half_block, quarter, l) = (i / 128, i / 32 % 4, i % 32);
                let low = (b[64 * half_block + 32 * (quarter % 2) + l] >> (4 * (quarter / 2))) & 15;
                let high = (b[128 + 32 * half_block + l] >> (2 * quarter)) & 3;
                let scale = b[192 + 8 * half_block + 2 * quarter + l / 16] as i8;
                half(208) * f32::from(scale) * (f32::from(low | high << 4) - 32.0)
            }),
            Format::I4G32 | Format::I4G128 => {
                let (scale, zero) = scale_and_zero(b);
                fill(out, &|i| scale * (f32::from(nibble(i / 32 * 16, i % 32)) - zero));
            }
            Format::I8G32 | Format::I8G128 => {
                let (scale, zero) = scale_and_zero(b);
                fill(out, &|i| scale * (f32::from(b[i]) - zero));
            }
        }
    }
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], number: impl Fn([u8; N]) -> f32) {
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *out = number(*bytes);
    }
}

/// The scale and the zero point at the end of a block of integers.
fn scale_and_zero(block: &[u8]) -> (f32, f32) {
    let word = word_at(block, block.len() - 4);
    (f32::from_bits(word & 0xffff_ff00), f32::from(word as u8))
}

/// The 6-bit scale and minimum of a K-quant's stretch `sub` of 32 values, from its 12 packed bytes.
fn k_scale(packed: &[u8], sub: usize) -> (u8, u8) {
    if sub < 4 {
        return (packed[sub] & 63, packed[sub + 4] & 63);
    }
    let low = packed[sub + 4];
    (low & 15 | (packed[sub - 4] >> 6) << 4, low >> 4 | (packed[sub] >> 6) << 4)
}
