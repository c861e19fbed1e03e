//! Integers as quantising programs write them, turned into blocks of [`Format::I4G32`] and its like, or of ggml's Q4_0 and Q8_0
//! where those hold the same: AWQ, GPTQ and compressed-tensors keep quants, scales and zero points in tensors of their own, the
//! first two of them transposed.

mod place;
mod quants;
mod schemes;
#[cfg(test)]
mod tests;

use std::ops::Range;

use half::{bf16, f16};

pub(crate) use place::PackedPlace;
pub(crate) use quants::Layout;
use quants::{STRETCH, TILE, Tile};
pub(crate) use schemes::Schemes;

use crate::{Format, Tensor};

/// A matrix `[rows, cols]` of integers in groups along its rows; its parts are borrowed from the mapped file, as long as its
/// shape asks.
#[derive(Debug, Clone, Copy)]
pub struct Packed<'a> {
    pub(crate) layout: Layout,
    pub(crate) quants: &'a [u8],
    pub(crate) scales: Scales<'a>,
    pub(crate) zeros: Zeros<'a>,
    /// Columns of a group; every one of a row is in some group.
    pub(crate) group_size: usize,
    /// `[cols]` of i32: the group of each column, where they are not in order.
    pub(crate) group_of: Option<&'a [u8]>,
}

/// The scales of groups, floats of one of three formats.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scales<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) format: Format,
    pub(crate) order: Order,
}

/// How the scales, and zero points of whole bytes, lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// `[groups, rows]`
    Groups,
    /// `[rows, groups]`
    Rows,
    /// One for all.
    One,
}

/// The zero points of groups.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Zeros<'a> {
    /// Half of the quants' range.
    Middle,
    /// `[groups, rows / 8]` of words as AWQ packs them.
    Awq(&'a [u8]),
    /// `[groups, rows · bits / 32]` of words, and what is added to each.
    Gptq(&'a [u8], u32),
    /// `[rows · bits / 32, groups]` of words, the rows rounded up.
    PackedRows(&'a [u8]),
    /// Bytes with a sign in such an order: -128 is 0.
    Bytes(&'a [u8], Order),
}

/// Reads a number at an index of an array of them.
fn word(bytes: &[u8], index: usize) -> u32 {
    bytes[4 * index..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b))
}

impl Scales<'_> {
    fn get(&self, index: usize) -> f32 {
        let half = || [self.bytes[2 * index], self.bytes[2 * index + 1]];
        match self.format {
            Format::F16 => f16::from_le_bytes(half()).to_f32(),
            Format::Bf16 => bf16::from_le_bytes(half()).to_f32(),
            _ => f32::from_bits(word(self.bytes, index)),
        }
    }
}

/// The word of a block's scale and zero point: the scale is rounded to 15 bits of fraction, to even at a tie, so that those
/// from f16 and bf16 stay as they are.
pub fn scale_word(scale: f32, zero: u8) -> u32 {
    let bits = scale.to_bits();
    let rounded = bits.wrapping_add(0x7f + (bits >> 8 & 1));
    // A NaN stays one.
    let top = if scale.is_nan() { bits | 0x40_0000 } else { rounded };
    top & 0xffff_ff00 | u32::from(zero)
}

impl Packed<'_> {
    fn bits(&self) -> usize {
        self.layout.bits()
    }

    fn groups(&self, cols: usize) -> usize {
        cols.div_ceil(self.group_size)
    }

    fn place(&self, order: Order, [rows, cols]: [usize; 2], row: usize, group: usize) -> usize {
        match order {
            Order::Groups => group * rows + row,
            Order::Rows => row * self.groups(cols) + group,
            Order::One => 0,
        }
    }

    /// The zero point of a row's group; past 255 it is none that a block can have.
    fn zero(&self, [rows, cols]: [usize; 2], row: usize, group: usize) -> u32 {
        let bits = self.bits();
        let (each, mask) = (32 / bits, (1 << bits) - 1);
        match self.zeros {
            Zeros::Middle => 1 << (bits - 1),
            Zeros::Awq(bytes) => word(bytes, (group * rows + row) / 8) >> (4 * quants::awq_nibble(row % 8)) & 15,
            Zeros::Gptq(bytes, added) => {
                let packed = word(bytes, group * (rows / each) + row / each);
                (packed >> (bits * (row % each)) & mask) + added
            }
            Zeros::PackedRows(bytes) => {
                word(bytes, row / each * self.groups(cols) + group) >> (bits * (row % each)) & mask
            }
            Zeros::Bytes(bytes, order) => {
                let signed = bytes[self.place(order, [rows, cols], row, group)] as i8;
                (i32::from(signed) + (1 << (bits - 1))) as u32
            }
        }
    }

    fn scale(&self, shape: [usize; 2], row: usize, group: usize) -> f32 {
        self.scales.get(self.place(self.scales.order, shape, row, group))
    }

    /// [`Tensor::write_rows`]: stretches of 32 columns of up to 128 rows at once, so that of files that keep a column's
    /// rows together whole cache lines are read, and a row's lines are written while they are near.
    pub(crate) fn write_rows(&self, tensor: &Tensor<'_>, rows: Range<usize>, out: &mut [u8]) {
        let row_bytes = out.len() / rows.len().max(1);
        let mut first = rows.start;
        while first < rows.end {
            // Tiles begin at whole words of packed rows.
            let start = first / 8 * 8;
            let end = (start + TILE).min(rows.end);
            let out = &mut out[(first - rows.start) * row_bytes..(end - rows.start) * row_bytes];
            self.write_tile(tensor, start, first..end, out);
            first = end;
        }
    }

    /// Rows of one tile, which begins at `start`.
    fn write_tile(&self, tensor: &Tensor<'_>, start: usize, rows: Range<usize>, out: &mut [u8]) {
        let (values, block_bytes) = tensor.format.block();
        let row_bytes = out.len() / rows.len();
        let shape = [tensor.rows, tensor.cols];
        let scaled = if values == 1 { self.scaled(shape, &rows) } else { Vec::new() };
        let mut tile = Tile::new();
        for stretch in 0..tensor.cols / STRETCH {
            self.layout.read(self.quants, shape, start..rows.end, stretch, &mut tile);
            if values == 1 {
                self.write_floats(tensor, stretch, &scaled, (&tile, rows.start - start), out);
                continue;
            }
            let (block, part) = (stretch * STRETCH / values, stretch * STRETCH % values);
            let bytes = self.bits() * STRETCH / 8;
            let is_ggml = matches!(tensor.format, Format::Q8_0 | Format::Q4_0);
            let at = block * block_bytes + if is_ggml { 2 } else { part * self.bits() / 8 };
            for (row, out) in rows.clone().zip(out.chunks_exact_mut(row_bytes)) {
                tile.write(row - start, bytes, &mut out[at..at + bytes]);
                let group = block * values / self.group_size;
                if is_ggml {
                    if tensor.format == Format::Q8_0 {
                        out[at..at + bytes].iter_mut().for_each(|quant| *quant ^= 0x80);
                    }
                    // As it is in the file.
                    let scale = f16::from_f32(self.scale(shape, row, group));
                    out[at - 2..at].copy_from_slice(&scale.to_le_bytes());
                } else if part == 0 {
                    // What is past a byte was refused before.
                    let zero = self.zero(shape, row, group).min(255) as u8;
                    let word = scale_word(self.scale(shape, row, group), zero);
                    out[(block + 1) * block_bytes - 4..][..4].copy_from_slice(&word.to_le_bytes());
                }
            }
        }
    }

    /// Scale and zero point of every group of a tile's rows: `[groups, rows]`.
    fn scaled(&self, shape: [usize; 2], rows: &Range<usize>) -> Vec<(f32, i32)> {
        let of = |group, row| (self.scale(shape, row, group), self.zero(shape, row, group) as i32);
        (0..self.groups(shape[1])).flat_map(|group| rows.clone().map(move |row| of(group, row))).collect()
    }

    /// Values of a stretch as floats, where columns are not in order of their groups; the first row is the tile's row `skipped`.
    fn write_floats(
        &self,
        tensor: &Tensor<'_>,
        stretch: usize,
        scaled: &[(f32, i32)],
        (tile, skipped): (&Tile, usize),
        out: &mut [u8],
    ) {
        let groups = self.groups(tensor.cols);
        let rows = scaled.len() / groups;
        let group_of: [usize; STRETCH] = std::array::from_fn(|i| {
            let col = stretch * STRETCH + i;
            self.group_of.map_or(col / self.group_size, |groups| word(groups, col) as usize).min(groups - 1)
        });
        for (row, out) in out.chunks_exact_mut(tensor.cols * 2).enumerate() {
            let out = out[2 * STRETCH * stretch..][..2 * STRETCH].as_chunks_mut().0;
            for ((i, group), out) in group_of.iter().enumerate().zip(out) {
                let (scale, zero) = scaled[group * rows + row];
                let value = scale * (tile.quant(skipped + row, self.bits(), i) as i32 - zero) as f32;
                *out = match tensor.format {
                    Format::Bf16 => bf16::from_f32(value).to_le_bytes(),
                    _ => f16::from_f32(value).to_le_bytes(),
                };
            }
        }
    }

    /// The index of the first scale that is not finite, also as a block's word has it, and the scale.
    pub(crate) fn first_not_finite(&self) -> Option<(usize, f32)> {
        let count = self.scales.bytes.len() / self.scales.format.block().1;
        let stored = |index| f32::from_bits(scale_word(self.scales.get(index), 0));
        (0..count).map(|index| (index, stored(index))).find(|(_, scale)| !scale.is_finite())
    }

    /// The row and group of the first zero point that is past the range, and it.
    pub(crate) fn first_bad_zero(&self, [rows, cols]: [usize; 2]) -> Option<(usize, usize, u32)> {
        match self.zeros {
            Zeros::Gptq(..) if self.bits() == 8 => (),
            Zeros::Bytes(..) if self.bits() == 4 => (),
            _ => return None,
        }
        let most = if self.bits() == 8 { 255 } else { 15 };
        let mut places = (0..self.groups(cols)).flat_map(|group| (0..rows).map(move |row| (row, group)));
        places.find_map(|(row, group)| {
            let zero = self.zero([rows, cols], row, group);
            (zero > most).then_some((row, group, zero))
        })
    }
}
