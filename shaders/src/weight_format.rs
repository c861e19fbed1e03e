//! Weight formats: their blocks, how rows lie on the GPU, and their decoding in f64 (the twins of `parts/weight_*.wgsl`).
//!
//! On the GPU a row keeps the file's bits, regrouped so that every load is aligned: first the quants of all its blocks,
//! then their high bits, then their scales. Rows start at multiples of 16 bytes; floats are padded with zeros to whole
//! stretches of [`crate::BLOCK`] values. Source of the blocks: ggml's `ggml-common.h` and `ggml-quants.c`; those of integers in
//! groups (`I4G32` and on) are this program's own, as `raglan_models::Format` says.

use crate::link::wgsl;
use half::{bf16, f16};

/// How a weight matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are the formats' own")]
pub enum WeightFormat {
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

use WeightFormat::*;

impl WeightFormat {
    /// Every format.
    pub const ALL: [WeightFormat; 15] =
        [F32, F16, Bf16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4K, Q5K, Q6K, I4G32, I4G128, I8G32, I8G128];

    /// Values of one block of the file.
    pub const fn block_values(self) -> usize {
        match self {
            F32 | F16 | Bf16 => 1,
            Q8_0 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | I4G32 | I8G32 => 32,
            I4G128 | I8G128 => 128,
            Q4K | Q5K | Q6K => 256,
        }
    }

    /// Whether values share scales, block by block.
    pub const fn has_blocks(self) -> bool {
        self.block_values() > 1
    }

    /// Values that a lane of `matvec.wgsl` takes at once: `WEIGHT_GROUPS` times `WEIGHT_GROUP_QUADS` quads.
    pub const fn unit_values(self) -> usize {
        match self {
            F32 => 4,
            F16 | Bf16 => 8,
            Q8_0 | I8G32 | I8G128 => 16,
            Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q4K | Q5K | I4G32 | I4G128 => 32,
            Q6K => 64,
        }
    }

    /// Neighbouring values of a unit that share a scale: what `matvec_int8.wgsl` gives one scale of x.
    pub const fn group_values(self) -> usize {
        match self {
            Q8_0 | Q4K | Q5K | Q6K => 16,
            _ => self.unit_values(),
        }
    }

    /// The byte ranges of one block in the order in which the GPU keeps them, each range of all blocks together.
    pub const fn planes(self) -> &'static [(usize, usize)] {
        match self {
            F32 => &[(0, 4)],
            F16 | Bf16 => &[(0, 2)],
            Q8_0 => &[(2, 32), (0, 2)],
            Q4_0 => &[(2, 16), (0, 2)],
            Q4_1 => &[(4, 16), (0, 4)],
            Q5_0 => &[(6, 16), (2, 4), (0, 2)],
            Q5_1 => &[(8, 16), (4, 4), (0, 4)],
            Q4K => &[(0, 144)],
            Q5K => &[(0, 176)],
            Q6K => &[(0, 208), (208, 2)],
            I4G32 => &[(0, 16), (16, 4)],
            I4G128 => &[(0, 64), (64, 4)],
            I8G32 => &[(0, 32), (32, 4)],
            I8G128 => &[(0, 128), (128, 4)],
        }
    }

    /// Bytes of one block of the file.
    pub fn block_bytes(self) -> usize {
        self.planes().iter().map(|(_, bytes)| bytes).sum()
    }

    /// Blocks of a row of `cols` values, floats counted with their padding.
    pub fn row_blocks(self, cols: usize) -> usize {
        crate::round_up(cols, crate::BLOCK).div_ceil(self.block_values())
    }

    /// Bytes from one row to the next on the GPU, a multiple of 16.
    pub fn gpu_row_bytes(self, cols: usize) -> usize {
        crate::round_up(self.row_blocks(cols) * self.block_bytes(), 16)
    }

    /// Writes a row of the file as the GPU keeps it; what `row` does not cover of `out` becomes zeros.
    ///
    /// # Panics
    /// If `row` is longer than `out`, or no whole number of blocks.
    pub fn regroup(self, row: &[u8], out: &mut [u8]) {
        let block_bytes = self.block_bytes();
        assert!(row.len() <= out.len() && row.len().is_multiple_of(block_bytes), "{self:?}: a row of {}", row.len());
        if let [_] = self.planes() {
            out[..row.len()].copy_from_slice(row);
            out[row.len()..].fill(0);
            return;
        }
        let mut filled = 0;
        for &(start, bytes) in self.planes() {
            for block in row.chunks_exact(block_bytes) {
                out[filled..filled + bytes].copy_from_slice(&block[start..start + bytes]);
                filled += bytes;
            }
        }
        out[filled..].fill(0);
    }

    pub(crate) fn part_name(self) -> &'static str {
        match self {
            F32 => "weight_f32",
            F16 => "weight_f16",
            Bf16 => "weight_bf16",
            Q8_0 => "weight_q8_0",
            Q4_0 => "weight_q4_0",
            Q4_1 => "weight_q4_1",
            Q5_0 => "weight_q5_0",
            Q5_1 => "weight_q5_1",
            Q4K => "weight_q4_k",
            Q5K => "weight_q5_k",
            Q6K => "weight_q6_k",
            I4G32 => "weight_i4_g32",
            I4G128 => "weight_i4_g128",
            I8G32 => "weight_i8_g32",
            I8G128 => "weight_i8_g128",
        }
    }

    pub(crate) fn part_source(self) -> &'static str {
        match self {
            F32 => wgsl!("parts/weight_" => "rows", "plain", "f32"),
            F16 => wgsl!("parts/weight_" => "rows", "plain", "f16"),
            Bf16 => wgsl!("parts/weight_" => "rows", "plain", "bf16"),
            Q8_0 => wgsl!("parts/weight_" => "rows", "bytes", "half", "q8_0"),
            Q4_0 => wgsl!("parts/weight_" => "rows", "bytes", "zero", "half", "nibbles", "q4_0"),
            Q4_1 => wgsl!("parts/weight_" => "rows", "bytes", "zero", "nibbles", "q4_1"),
            Q5_0 => wgsl!("parts/weight_" => "rows", "bytes", "zero", "half", "nibbles", "fifth", "q5_0"),
            Q5_1 => wgsl!("parts/weight_" => "rows", "bytes", "zero", "nibbles", "fifth", "q5_1"),
            Q4K => wgsl!("parts/weight_" => "rows", "bytes", "zero", "k", "q4_k"),
            Q5K => wgsl!("parts/weight_" => "rows", "bytes", "zero", "k", "q5_k"),
            Q6K => wgsl!("parts/weight_" => "rows", "bytes", "zero", "half", "q6_k"),
            I4G32 => wgsl!("parts/weight_" => "rows", "bytes", "nibbles", "integers", "g32", "i4"),
            I4G128 => wgsl!("parts/weight_" => "rows", "bytes", "nibbles", "integers", "g128", "i4"),
            I8G32 => wgsl!("parts/weight_" => "rows", "bytes", "integers", "g32", "i8"),
            I8G128 => wgsl!("parts/weight_" => "rows", "bytes", "integers", "g128", "i8"),
        }
    }

    /// The values of a row as the file stores it, in f64.
    ///
    /// # Panics
    /// If `row` is no whole number of blocks.
    pub fn decode(self, row: &[u8]) -> Vec<f64> {
        assert!(row.len().is_multiple_of(self.block_bytes()), "{self:?}: a row of {} bytes", row.len());
        let mut values = Vec::with_capacity(row.len() / self.block_bytes() * self.block_values());
        for block in row.chunks_exact(self.block_bytes()) {
            self.decode_block(block, &mut values);
        }
        values
    }

    fn decode_block(self, b: &[u8], out: &mut Vec<f64>) {
        let half_at = |at: usize| f16::from_le_bytes([b[at], b[at + 1]]).to_f64();
        let nibble = |at: usize, i: usize| (b[at + i % 16] >> (4 * (i / 16))) & 15;
        let fifth = |at: usize, i: usize| ((b[at + i / 8] >> (i % 8)) & 1) << 4;
        match self {
            F32 => out.push(f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into()),
            F16 => out.push(half_at(0)),
            Bf16 => out.push(bf16::from_le_bytes([b[0], b[1]]).to_f64()),
            Q8_0 => out.extend((0..32).map(|i| half_at(0) * f64::from(b[2 + i] as i8))),
            Q4_0 => out.extend((0..32).map(|i| half_at(0) * (f64::from(nibble(2, i)) - 8.0))),
            Q4_1 => out.extend((0..32).map(|i| half_at(0) * f64::from(nibble(4, i)) + half_at(2))),
            Q5_0 => out.extend((0..32).map(|i| half_at(0) * (f64::from(nibble(6, i) | fifth(2, i)) - 16.0))),
            Q5_1 => out.extend((0..32).map(|i| half_at(0) * f64::from(nibble(8, i) | fifth(4, i)) + half_at(2))),
            Q4K | Q5K => {
                let quants = if self == Q4K { 16 } else { 48 };
                for i in 0..256 {
                    let sub = i / 32;
                    let (scale, min) = k_scale(&b[4..16], sub);
                    let byte = b[quants + 32 * (sub / 2) + i % 32];
                    let mut q = (byte >> (4 * (sub % 2))) & 15;
                    if self == Q5K {
                        q |= ((b[16 + i % 32] >> sub) & 1) << 4;
                    }
                    out.push(half_at(0) * f64::from(scale) * f64::from(q) - half_at(2) * f64::from(min));
                }
            }
            Q6K => out.extend((0..256).map(|i| {
                let (half, quarter, l) = (i / 128, i / 32 % 4, i % 32);
                let low = (b[64 * half + 32 * (quarter % 2) + l] >> (4 * (quarter / 2))) & 15;
                let high = (b[128 + 32 * half + l] >> (2 * quarter)) & 3;
                let scale = b[192 + 8 * half + 2 * quarter + l / 16] as i8;
                half_at(208) * f64::from(scale) * (f64::from(low | high << 4) - 32.0)
            })),
            I4G32 | I4G128 | I8G32 | I8G128 => {
                let values = self.block_values();
                let (quants, word) = b.split_at(b.len() - 4);
                let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                let (scale, zero) = (f64::from(f32::from_bits(word & 0xffff_ff00)), f64::from(word & 0xff));
                let quant = |i: usize| match quants.len() == values {
                    true => quants[i],
                    false => nibble(i / 32 * 16, i % 32),
                };
                out.extend((0..values).map(|i| scale * (f64::from(quant(i)) - zero)));
            }
        }
    }
}

/// The 6-bit scale and minimum of a K-quant's stretch `sub` of 32 values, from its 12 packed bytes.
fn k_scale(packed: &[u8], sub: usize) -> (u8, u8) {
    if sub < 4 {
        (packed[sub] & 63, packed[sub + 4] & 63)
    } else {
        let low = packed[sub + 4];
        (low & 15 | (packed[sub - 4] >> 6) << 4, low >> 4 | (packed[sub] >> 6) << 4)
    }
}
