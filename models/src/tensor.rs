//! A tensor as it lies in its file: a format, a shape and borrowed bytes.

mod decode;

use std::ops::Range;

use half::{bf16, f16};

use crate::packed::Packed;

/// How the numbers of a tensor are stored. Blocks are ggml's, bit for bit, but for the last four.
///
/// Those are integers in groups of 32 or 128 along a row, of 4 or 8 bits: x = scale · (q - zero), q without a sign. A block
/// is the group's quants, then one little-endian word: its top 24 bits are those of an f32, the scale (what an f16 or a bf16
/// scale is, it is exactly), its low 8 bits the zero point. Quants of 8 bits are bytes in order; those of 4 bits lie as in
/// ggml's Q4_0: of each 32 values byte i has value i in its low half, value 16 + i in its high half. A row's last group is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are the formats' own")]
pub enum Format {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q4K,
    Q5K,
    Q6K,
    I4G32,
    I4G128,
    I8G32,
    I8G128,
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 15] = [
        Format::F32,
        Format::F16,
        Format::Bf16,
        Format::Q8_0,
        Format::Q4_0,
        Format::Q4_1,
        Format::Q5_0,
        Format::Q5_1,
        Format::Q4K,
        Format::Q5K,
        Format::Q6K,
        Format::I4G32,
        Format::I4G128,
        Format::I8G32,
        Format::I8G128,
    ];

    /// The name, as ggml spells it where the format is ggml's.
    pub const fn name(self) -> &'static str {
        match self {
            Format::F32 => "F32",
            Format::F16 => "F16",
            Format::Bf16 => "BF16",
            Format::Q8_0 => "Q8_0",
            Format::Q4_0 => "Q4_0",
            Format::Q4_1 => "Q4_1",
            Format::Q5_0 => "Q5_0",
            Format::Q5_1 => "Q5_1",
            Format::Q4K => "Q4_K",
            Format::Q5K => "Q5_K",
            Format::Q6K => "Q6_K",
            Format::I4G32 => "INT4_G32",
            Format::I4G128 => "INT4_G128",
            Format::I8G32 => "INT8_G32",
            Format::I8G128 => "INT8_G128",
        }
    }

    /// Whether GGUF files have it.
    pub const fn is_in_gguf(self) -> bool {
        !matches!(self, Format::I4G32 | Format::I4G128 | Format::I8G32 | Format::I8G128)
    }

    /// Where the half-precision scales lie in one block: (first byte, how many). A float has none.
    const fn scales(self) -> (usize, usize) {
        match self {
            Format::F32 | Format::F16 | Format::Bf16 => (0, 0),
            // One word with the zero point, no half.
            Format::I4G32 | Format::I4G128 | Format::I8G32 | Format::I8G128 => (0, 0),
            Format::Q8_0 | Format::Q4_0 | Format::Q5_0 => (0, 1),
            Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => (0, 2),
            Format::Q6K => (208, 1),
        }
    }

    /// (values, bytes) of one block; a float is a block of one.
    pub const fn block(self) -> (usize, usize) {
        match self {
            Format::F32 => (1, 4),
            Format::F16 | Format::Bf16 => (1, 2),
            Format::Q8_0 => (32, 34),
            Format::Q4_0 => (32, 18),
            Format::Q4_1 => (32, 20),
            Format::Q5_0 => (32, 22),
            Format::Q5_1 => (32, 24),
            Format::Q4K => (256, 144),
            Format::Q5K => (256, 176),
            Format::Q6K => (256, 210),
            Format::I4G32 => (32, 20),
            Format::I4G128 => (128, 68),
            Format::I8G32 => (32, 36),
            Format::I8G128 => (128, 132),
        }
    }

    /// Bytes of a row of `cols` values; `None` where a row is no whole number of blocks, or too large to count.
    pub const fn row_bytes(self, cols: usize) -> Option<usize> {
        let (values, bytes) = self.block();
        if cols.is_multiple_of(values) { (cols / values).checked_mul(bytes) } else { None }
    }
}

/// A matrix `[rows, cols]`, borrowed from the mapped file. A vector is a matrix of one row.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    /// The tensor's name in the file.
    pub name: &'a str,
    /// How its numbers are stored.
    pub format: Format,
    /// Rows of the matrix: outputs of a projection.
    pub rows: usize,
    /// Columns of the matrix: inputs of a projection; contiguous.
    pub cols: usize,
    /// `rows * row_bytes` bytes; none where `packed` says how the file keeps them.
    pub bytes: &'a [u8],
    /// In which order the rows lie.
    pub row_order: RowOrder,
    /// Where the rows are not in the file as `format` has them: [`Tensor::write_rows`] makes them.
    pub packed: Option<Packed<'a>>,
}

/// The order of a matrix's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOrder {
    /// Row i is row i.
    Plain,
    /// Within each head the two halves are interleaved, as writers of Llama GGUF files permute q and k: the stored
    /// row `2 i + h` of a head is the row `h * head_dim / 2 + i` of the model.
    Interleaved {
        /// Rows of one head.
        head_dim: usize,
    },
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl<'a> Tensor<'a> {
    /// The first NaN or infinity, in the file's order: the index of the value (of a block's first value where the
    /// block's scale is at fault) and the number. One pass over the bytes; a quantised block is judged by its scales.
    pub fn first_not_finite(&self) -> Option<(usize, f32)> {
        let (values, block_bytes) = self.format.block();
        // No finite number has an exponent of all ones.
        let at = match self.format {
            Format::F32 => first(self.bytes, |b: [u8; 4]| u32::from_le_bytes(b) & 0x7f80_0000 == 0x7f80_0000),
            Format::F16 => first(self.bytes, |b: [u8; 2]| u16::from_le_bytes(b) & 0x7c00 == 0x7c00),
            Format::Bf16 => first(self.bytes, |b: [u8; 2]| u16::from_le_bytes(b) & 0x7f80 == 0x7f80),
            Format::I4G32 | Format::I4G128 | Format::I8G32 | Format::I8G128 => {
                let scale = |block: &'a [u8]| f32::from_bits(word_at(block, block.len() - 4) & 0xffff_ff00);
                let mut scales = self.bytes.chunks_exact(block_bytes).map(scale).enumerate();
                return scales.find(|(_, scale)| !scale.is_finite()).map(|(at, scale)| (at * values, scale));
            }
            _ => {
                let (start, count) = self.format.scales();
                let scale = |block: &'a [u8], index: usize| half_at(block, start + 2 * index);
                let mut blocks = self.bytes.chunks_exact(block_bytes).enumerate();
                return blocks.find_map(|(at, block)| {
                    let bad = (0..count).map(|index| scale(block, index)).find(|scale| !scale.is_finite())?;
                    Some((at * values, bad))
                });
            }
        }?;
        let number = &self.bytes[at * block_bytes..];
        let number = Tensor { rows: 1, cols: 1, bytes: &number[..block_bytes], ..*self }.floats()?;
        Some((at, number[0]))
    }

    /// The numbers of a float tensor, in the file's order. `None` for a quantised format.
    pub(crate) fn floats(&self) -> Option<Vec<f32>> {
        match self.format {
            Format::F32 => Some(self.bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
            Format::F16 => Some(self.bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect()),
            Format::Bf16 => Some(self.bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()),
            _ => None,
        }
    }

    /// Bytes that its rows take in `format`.
    pub fn stored_bytes(&self) -> u64 {
        self.format.row_bytes(self.cols).map_or(0, |bytes| self.rows as u64 * bytes as u64)
    }

    /// The model's rows `rows` in blocks of `format`, one after the other: a copy of what lies in the file so, else made from
    /// it. Some hundred rows at once are made faster than few, since such files keep neighbouring rows together.
    ///
    /// # Panics
    /// If the rows are not all less than `self.rows`, or `out` is not as long as they are; if the tensor is a synthetic one,
    /// which has no bytes.
    pub fn write_rows(&self, rows: Range<usize>, out: &mut [u8]) {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "{}: rows {rows:?} of {}", self.name, self.rows);
        let row_bytes = self.format.row_bytes(self.cols).expect("a tensor's rows are whole blocks");
        assert_eq!(out.len(), rows.len() * row_bytes, "{}: rows {rows:?}", self.name);
        if let Some(packed) = &self.packed {
            return packed.write_rows(self, rows, out);
        }
        for (row, out) in rows.zip(out.chunks_exact_mut(row_bytes)) {
            out.copy_from_slice(self.row(row));
        }
    }

    /// The bytes of the model's row `row`, wherever the file keeps it; for tensors that are not packed.
    ///
    /// # Panics
    /// If `row` is not less than `rows`, or the tensor is packed.
    pub fn row(&self, row: usize) -> &'a [u8] {
        assert!(row < self.rows, "{}: row {row} of {}", self.name, self.rows);
        assert!(self.packed.is_none(), "{}: its rows are to be made", self.name);
        let row_bytes = self.bytes.len() / self.rows;
        &self.bytes[self.row_order.stored(row) * row_bytes..][..row_bytes]
    }
}

impl RowOrder {
    /// Where the file keeps the model's row `row`.
    pub const fn stored(self, row: usize) -> usize {
        match self {
            RowOrder::Plain => row,
            RowOrder::Interleaved { head_dim } => {
                let (head, i, half) = (row / head_dim, row % head_dim, head_dim / 2);
                head * head_dim + 2 * (i % half) + i / half
            }
        }
    }
}

/// The index of the first piece that is `bad`; whole stretches without a branch, so that it runs at the memory's speed.
fn first<const N: usize>(bytes: &[u8], bad: impl Fn([u8; N]) -> bool) -> Option<usize> {
    const STRETCH: usize = 1024;
    let pieces = bytes.as_chunks::<N>().0;
    let mut stretches = pieces.chunks(STRETCH).enumerate();
    let (index, stretch) = stretches.find(|(_, stretch)| stretch.iter().fold(false, |any, piece| any | bad(*piece)))?;
    Some(index * STRETCH + stretch.iter().position(|piece| bad(*piece))?)
}

fn word_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKS: [Format; 8] =
        [Format::Q8_0, Format::Q4_0, Format::Q4_1, Format::Q5_0, Format::Q5_1, Format::Q4K, Format::Q5K, Format::Q6K];

    fn not_finite(format: Format, bytes: &[u8]) -> Option<(usize, String)> {
        let cols = bytes.len() / format.block().1 * format.block().0;
        let tensor = Tensor { name: "x", format, rows: 1, cols, bytes, row_order: RowOrder::Plain, packed: None };
        tensor.first_not_finite().map(|(index, number)| (index, number.to_string()))
    }

    #[test]
    fn every_scale_of_every_block_is_looked_at() {
        let infinite = f16::INFINITY.to_le_bytes();
        for format in BLOCKS {
            let (values, block_bytes) = format.block();
            // All ones where there is no scale: any such byte taken for a scale would be NaN.
            let mut bytes = vec![0xff; 3 * block_bytes];
            let (start, count) = format.scales();
            for block in 0..3 {
                bytes[block * block_bytes + start..][..2 * count].fill(0);
            }
            assert_eq!(not_finite(format, &bytes), None, "{format}");
            for scale in 0..count {
                let mut bytes = bytes.clone();
                bytes[block_bytes + start + 2 * scale..][..2].copy_from_slice(&infinite);
                assert_eq!(not_finite(format, &bytes), Some((values, "inf".into())), "{format} scale {scale}");
            }
        }
    }

    #[test]
    fn the_first_of_many_floats_is_found_and_the_largest_are_finite() {
        for at in [0, 1, 1023, 1024, 2999] {
            let mut halves = vec![f16::MAX; 3000];
            halves[at] = f16::NEG_INFINITY;
            let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
            assert_eq!(not_finite(Format::F16, &bytes), Some((at, "-inf".into())));
            let mut singles = vec![f32::MIN; 3000];
            singles[at] = f32::NAN;
            let bytes: Vec<u8> = singles.iter().flat_map(|single| single.to_le_bytes()).collect();
            assert_eq!(not_finite(Format::F32, &bytes), Some((at, "NaN".into())));
            let mut brains = vec![bf16::MAX; 3000];
            brains[at] = bf16::INFINITY;
            let bytes: Vec<u8> = brains.iter().flat_map(|brain| brain.to_le_bytes()).collect();
            assert_eq!(not_finite(Format::Bf16, &bytes), Some((at, "inf".into())));
        }
    }
}
