//! A tensor as it lies in its file: a format, a shape and borrowed bytes.

use half::{bf16, f16};

/// How the numbers of a tensor are stored. Blocks are ggml's, bit for bit.
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
}

impl Format {
    /// The name as ggml spells it.
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
        }
    }

    /// Where the half-precision scales lie in one block: (first byte, how many). A float has none.
    const fn scales(self) -> (usize, usize) {
        match self {
            Format::F32 | Format::F16 | Format::Bf16 => (0, 0),
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
    /// `rows * row_bytes` bytes.
    pub bytes: &'a [u8],
    /// In which order the rows lie.
    pub row_order: RowOrder,
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
        let bad = |value: f32| (!value.is_finite()).then_some(value);
        let found = |at: (usize, Option<f32>)| at.1.map(|value| (at.0, value));
        match self.format {
            Format::F32 => {
                let values = self.bytes.as_chunks().0.iter().map(|b| bad(f32::from_le_bytes(*b)));
                values.enumerate().find_map(found)
            }
            Format::F16 => {
                // Bits first: an exponent of all ones, whatever the rest.
                let at = self.bytes.as_chunks::<2>().0.iter().position(|b| b[1] & 0x7c == 0x7c)?;
                Some((at, half_at(self.bytes, at * 2)))
            }
            Format::Bf16 => {
                let all_ones = |b: &[u8; 2]| b[1] & 0x7f == 0x7f && b[0] & 0x80 == 0x80;
                let at = self.bytes.as_chunks::<2>().0.iter().position(all_ones)?;
                Some((at, bf16::from_le_bytes([self.bytes[2 * at], self.bytes[2 * at + 1]]).to_f32()))
            }
            _ => {
                let (values, block_bytes) = self.format.block();
                let (first, count) = self.format.scales();
                let blocks = self
                    .bytes
                    .chunks_exact(block_bytes)
                    .map(|block| (0..count).find_map(|scale| bad(half_at(block, first + 2 * scale))));
                blocks.enumerate().find_map(found).map(|(block, value)| (block * values, value))
            }
        }
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

    /// The bytes of the model's row `row`, wherever the file keeps it.
    ///
    /// # Panics
    /// If `row` is not less than `rows`.
    pub fn row(&self, row: usize) -> &'a [u8] {
        assert!(row < self.rows, "{}: row {row} of {}", self.name, self.rows);
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

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}
