//! Rows as compressed-tensors packs them: quants, scales and zero points in tensors of their own.

use std::ops::Range;

use half::{bf16, f16};

use super::target::{Bits, QuantizeTo};
use super::{NotFinite, quantize_rows};
use crate::{Format, Tensor};

/// Some rows of a matrix.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Packed {
    /// `[rows, cols · bits / 32]` words, the first column lowest.
    pub(super) quants: Vec<u8>,
    /// `[rows, groups]` in f16 or bf16.
    pub(super) scales: Vec<u8>,
    /// `[rows · bits / 32, groups]` words, the first row lowest and the rows rounded up.
    pub(super) zeros: Vec<u8>,
}

/// Rows of whose zero points words are made.
pub(super) const fn zero_rows(bits: Bits) -> usize {
    32 / bits.count()
}

/// Quantises rows of a tensor; the first is a multiple of [`zero_rows`].
///
/// # Errors
/// The first number that is not finite, its index that of the tensor.
pub(super) fn pack_rows(
    tensor: &Tensor<'_>,
    rows: Range<usize>,
    to: QuantizeTo,
    importance: Option<&[f32]>,
    scales: Format,
) -> Result<Packed, NotFinite> {
    let values = decode_rows(tensor, rows.clone());
    let groups = tensor.cols / to.group_of(tensor.cols).expect("rows that are quantised have whole groups");
    let each_word = zero_rows(to.bits);
    let mut packed = Packed::default();
    let mut zeros = vec![0u32; rows.len().div_ceil(each_word) * groups];
    let mut index = 0;
    let each = |codes: &[u8], grid: super::Grid| {
        match to.bits {
            Bits::Eight => packed.quants.extend(codes),
            Bits::Four => packed.quants.extend(codes.as_chunks::<2>().0.iter().map(|[low, high]| low | high << 4)),
        }
        packed.scales.extend(match scales {
            Format::Bf16 => bf16::from_f32(grid.scale).to_le_bytes(),
            _ => f16::from_f32(grid.scale).to_le_bytes(),
        });
        let (row, group) = (index / groups, index % groups);
        zeros[row / each_word * groups + group] |= u32::from(grid.zero) << (to.bits.count() * (row % each_word));
        index += 1;
    };
    let done = quantize_rows(&values, tensor.cols, to, importance, scales, each);
    done.map_err(|refused| NotFinite { index: rows.start * tensor.cols + refused.index, ..refused })?;
    packed.zeros = zeros.into_iter().flat_map(u32::to_le_bytes).collect();
    Ok(packed)
}

/// The numbers of rows.
pub(super) fn decode_rows(tensor: &Tensor<'_>, rows: Range<usize>) -> Vec<f32> {
    let row_bytes = tensor.format.row_bytes(tensor.cols).expect("a tensor's rows are whole blocks");
    let mut stored = vec![0; rows.len() * row_bytes];
    let mut values = vec![0.0; rows.len() * tensor.cols];
    tensor.write_rows(rows, &mut stored);
    tensor.format.decode(&stored, &mut values);
    values
}
