//! Quants as files keep them, in the order of blocks: stretches of 32 columns of up to 128 rows.

use std::ops::Range;

use super::word;

/// Rows of a tile.
pub(super) const TILE: usize = 128;
/// Columns of a tile.
pub(super) const STRETCH: usize = 32;

/// How the quants of a matrix `[rows, cols]` lie in words of 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// 4 bits, `[cols, rows / 8]`: of eight rows those of even number first.
    Awq,
    /// `[cols · bits / 32, rows]`: a word has neighbouring columns, the first lowest.
    Gptq {
        /// 4 or 8.
        bits: usize,
    },
    /// `[rows, cols · bits / 32]`: the same, row by row.
    Rows {
        /// 4 or 8.
        bits: usize,
    },
    /// 8 bits, `[rows, cols]` with a sign: -128 is 0.
    Bytes,
}

/// Where AWQ keeps the row `row` of eight in a word.
pub(super) const fn awq_nibble(row: usize) -> usize {
    [0, 4, 1, 5, 2, 6, 3, 7][row]
}

/// The quants of 32 columns of up to 128 rows: eight words of bytes a row, or four of nibbles as a block has them.
pub(super) struct Tile {
    /// `[word][row]`
    words: [[u32; TILE]; 8],
}

impl Tile {
    pub(super) fn new() -> Tile {
        Tile { words: [[0; TILE]; 8] }
    }

    /// Writes a row's words.
    pub(super) fn write(&self, row: usize, bytes: usize, out: &mut [u8]) {
        for (word, out) in self.words[..bytes / 4].iter().zip(out.as_chunks_mut::<4>().0) {
            *out = word[row].to_le_bytes();
        }
    }

    /// One quant of a row.
    pub(super) fn quant(&self, row: usize, bits: usize, col: usize) -> u32 {
        match bits {
            8 => self.words[col / 4][row] >> (8 * (col % 4)) & 0xff,
            _ => self.words[col % 16 / 4][row] >> (8 * (col % 4) + 4 * (col / 16)) & 15,
        }
    }
}

/// Four nibbles to the low halves of four bytes.
const fn spread(nibbles: u32) -> u32 {
    let pairs = (nibbles | nibbles << 8) & 0x00ff_00ff;
    (pairs | pairs << 4) & 0x0f0f_0f0f
}

/// 32 nibbles in order as a block has them: byte i has value i low and value 16 + i high.
const fn interleave([a, b, c, d]: [u32; 4]) -> [u32; 4] {
    [
        spread(a & 0xffff) | spread(c & 0xffff) << 4,
        spread(a >> 16) | spread(c >> 16) << 4,
        spread(b & 0xffff) | spread(d & 0xffff) << 4,
        spread(b >> 16) | spread(d >> 16) << 4,
    ]
}

impl Layout {
    pub(super) fn bits(self) -> usize {
        match self {
            Layout::Awq => 4,
            Layout::Bytes => 8,
            Layout::Gptq { bits } | Layout::Rows { bits } => bits,
        }
    }

    /// Reads the stretch `stretch` of columns of at most 128 rows, which begin at a multiple of eight.
    pub(super) fn read(self, quants: &[u8], shape: [usize; 2], rows: Range<usize>, stretch: usize, tile: &mut Tile) {
        let [all_rows, cols] = shape;
        match self {
            Layout::Awq => read_awq(quants, all_rows, rows, stretch, tile),
            Layout::Gptq { bits } => {
                let words = bits;
                let line = |index: usize| &quants[4 * ((words * stretch + index) * all_rows + rows.start)..];
                for index in 0..words {
                    let line = line(index).as_chunks::<4>().0;
                    for (out, word) in tile.words[index][..rows.len()].iter_mut().zip(line) {
                        *out = u32::from_le_bytes(*word);
                    }
                }
                if bits == 4 {
                    tile.interleave();
                }
            }
            Layout::Rows { bits } => {
                for (place, row) in rows.enumerate() {
                    let first = (row * cols + stretch * STRETCH) * bits / 32;
                    for index in 0..bits {
                        tile.words[index][place] = word(quants, first + index);
                    }
                }
                if bits == 4 {
                    tile.interleave();
                }
            }
            Layout::Bytes => {
                for (place, row) in rows.enumerate() {
                    let values = &quants[row * cols + stretch * STRETCH..][..STRETCH];
                    for index in 0..8 {
                        tile.words[index][place] = word(values, index) ^ 0x8080_8080;
                    }
                }
            }
        }
    }
}

impl Tile {
    fn interleave(&mut self) {
        for row in 0..TILE {
            let ordered = interleave([0, 1, 2, 3].map(|index| self.words[index][row]));
            for (index, word) in ordered.into_iter().enumerate() {
                self.words[index][row] = word;
            }
        }
    }
}

/// Words of eight rows in a tile.
const LANES: usize = TILE / 8;

/// Eight columns at a time in the order of a block's word; then eight by eight nibbles are transposed, sixteen words of
/// eight rows at once.
fn read_awq(quants: &[u8], all_rows: usize, rows: Range<usize>, stretch: usize, tile: &mut Tile) {
    let line_words = all_rows / 8;
    let lanes = rows.len().div_ceil(8);
    for index in 0..4 {
        let mut eight = [[0u32; LANES]; 8];
        for (place, lane_words) in eight.iter_mut().enumerate() {
            let col = stretch * STRETCH + 4 * index + place / 2 + place % 2 * 16;
            let line = quants[4 * (col * line_words + rows.start / 8)..].as_chunks::<4>().0;
            for (out, word) in lane_words[..lanes].iter_mut().zip(line) {
                *out = u32::from_le_bytes(*word);
            }
        }
        for (distance, shift, mask) in [(1, 4, 0x0f0f_0f0f), (2, 8, 0x00ff_00ff), (4, 16, 0x0000_ffff)] {
            for low in (0..8).filter(|low| low & distance == 0) {
                let (head, tail) = eight.split_at_mut(low + distance);
                for (a, b) in head[low].iter_mut().zip(&mut tail[0]) {
                    let swapped = ((*a >> shift) ^ *b) & mask;
                    *b ^= swapped;
                    *a ^= swapped << shift;
                }
            }
        }
        for row in 0..8 {
            for (lane, word) in eight[awq_nibble(row)][..lanes].iter().enumerate() {
                tile.words[index][8 * lane + row] = *word;
            }
        }
    }
}
