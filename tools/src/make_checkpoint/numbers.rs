//! Random rows: about normal where they are floats, uniform in their quants where they are blocks.

use half::{bf16, f16};
use raglan_models::Format;

/// SplitMix64: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", figure 17.
pub(super) struct Numbers(u64);

impl Numbers {
    /// A stream of its own for each tensor, so that one tensor's size moves no other's numbers.
    pub(super) fn new(seed: u64, tensor: usize) -> Numbers {
        Numbers(seed ^ (tensor as u64).wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The sum of four uniform numbers: mean 0, variance 1, nothing beyond ±3.5.
    pub(super) fn normal(&mut self) -> f32 {
        let bits = self.next();
        let sum: u64 = (0..4).map(|part| bits >> (16 * part) & 0xffff).sum();
        (sum as f32 / 65535.0 - 2.0) * 3f32.sqrt()
    }

    /// Appends one float.
    pub(super) fn push(format: Format, number: f32, bytes: &mut Vec<u8>) {
        match format {
            Format::F16 => bytes.extend(f16::from_f32(number).to_le_bytes()),
            Format::Bf16 => bytes.extend(bf16::from_f32(number).to_le_bytes()),
            _ => bytes.extend(number.to_le_bytes()),
        }
    }

    /// Appends a row of `row_bytes` bytes whose numbers have mean 0 (or nearly) and this deviation.
    pub(super) fn row(&mut self, format: Format, row_bytes: usize, deviation: f32, bytes: &mut Vec<u8>) {
        let (_, block_bytes) = format.block();
        if matches!(format, Format::F32 | Format::F16 | Format::Bf16) {
            for _ in 0..row_bytes / block_bytes {
                let number = self.normal() * deviation;
                Numbers::push(format, number, bytes);
            }
            return;
        }
        let start = bytes.len();
        while bytes.len() < start + row_bytes {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(start + row_bytes);
        for block in bytes[start..].chunks_exact_mut(block_bytes) {
            scale_block(format, deviation, block);
        }
    }
}

/// Puts scales over random bits, so that the block's numbers have this deviation.
fn scale_block(format: Format, deviation: f32, block: &mut [u8]) {
    // (deviation of the numbers at scale 1, offset in scales): from the moments of uniform quants and, for the k-quants,
    // of uniform 6- and 8-bit sub-scales.
    let (spread, offset) = match format {
        Format::Q8_0 => (73.9, None),
        Format::Q4_0 => (4.61, None),
        Format::Q4_1 => (4.61, Some(-7.5)),
        Format::Q5_0 => (9.23, None),
        Format::Q5_1 => (9.23, Some(-15.5)),
        Format::Q4K => (258.0, Some(7.5)), // its offset is subtracted
        Format::Q5K => (527.0, Some(15.5)),
        _ => (1366.0, None),
    };
    let scale = deviation / spread;
    let at = if format == Format::Q6K { 208 } else { 0 };
    block[at..at + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    if let Some(offset) = offset {
        block[2..4].copy_from_slice(&f16::from_f32(scale * offset).to_le_bytes());
    }
}
