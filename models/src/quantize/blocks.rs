//! A group as a block of the integer formats: its quants, then one word of scale and zero point.

use super::search::Grid;
use super::target::Bits;
use crate::packed::scale_word;

/// Writes a group's codes and grid as a block.
pub(super) fn write_block(bits: Bits, codes: &[u8], grid: Grid, block: &mut [u8]) {
    let (quants, word) = block.split_at_mut(codes.len() * bits.count() / 8);
    match bits {
        Bits::Eight => quants.copy_from_slice(codes),
        // Value i of 32 in the low half of byte i, value i + 16 in its high half.
        Bits::Four => {
            for (bytes, codes) in quants.as_chunks_mut::<16>().0.iter_mut().zip(codes.as_chunks::<32>().0) {
                let (low, high) = codes.split_at(16);
                for (byte, (low, high)) in bytes.iter_mut().zip(low.iter().zip(high)) {
                    *byte = low | high << 4;
                }
            }
        }
    }
    word.copy_from_slice(&scale_word(grid.scale, grid.zero).to_le_bytes());
}
