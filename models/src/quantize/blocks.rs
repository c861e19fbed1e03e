//! A group as a block: ggml's, a scale in f16 and then its quants, or its quants and then one word of scale and zero point.

use half::f16;

use super::search::Grid;
use crate::Format;
use crate::packed::scale_word;

/// Writes a group's codes and grid, whose scale is a number of f16, as a block of one of the formats of
/// [`QuantizeTo::format`](super::QuantizeTo::format).
pub(super) fn write_block(format: Format, codes: &[u8], grid: Grid, block: &mut [u8]) {
    let quants = match format {
        Format::Q8_0 | Format::Q4_0 => {
            let (scale, quants) = block.split_at_mut(2);
            scale.copy_from_slice(&f16::from_f32(grid.scale).to_le_bytes());
            quants
        }
        _ => {
            let (quants, word) = block.split_at_mut(block.len() - 4);
            word.copy_from_slice(&scale_word(grid.scale, grid.zero).to_le_bytes());
            quants
        }
    };
    match format {
        // With a sign, where zero is 0.
        Format::Q8_0 => quants.iter_mut().zip(codes).for_each(|(byte, code)| *byte = code ^ 0x80),
        Format::I8G32 | Format::I8G128 => quants.copy_from_slice(codes),
        _ => write_nibbles(codes, quants),
    }
}

/// Value i of 32 in the low half of byte i, value i + 16 in its high half.
fn write_nibbles(codes: &[u8], quants: &mut [u8]) {
    for (bytes, codes) in quants.as_chunks_mut::<16>().0.iter_mut().zip(codes.as_chunks::<32>().0) {
        let (low, high) = codes.split_at(16);
        for (byte, (low, high)) in bytes.iter_mut().zip(low.iter().zip(high)) {
            *byte = low | high << 4;
        }
    }
}
