//! Seeded inputs, and numbers in the types in which kernels keep them.

use half::f16;
use raglan_shaders::{BLOCK, Part, WeightFormat, round_up};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Random numbers from a seed that a failure names.
pub(super) struct Random {
    pub(super) seed: u64,
    rng: StdRng,
}

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random { seed, rng: StdRng::seed_from_u64(seed) }
    }

    /// From -1 to 1.
    pub(super) fn value(&mut self) -> f32 {
        self.rng.random_range(-1.0..1.0)
    }

    pub(super) fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.value()).collect()
    }

    /// Less than `end`.
    pub(super) fn index(&mut self, end: usize) -> usize {
        self.rng.random_range(0..end)
    }

    /// Every number below `end`, in some order.
    pub(super) fn permutation(&mut self, end: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..end).collect();
        for last in (1..end).rev() {
            all.swap(last, self.index(last + 1));
        }
        all
    }
}

/// Numbers as a buffer of an `act_*` or `kv_*` part holds them.
pub(super) struct Stored {
    pub(super) bytes: Vec<u8>,
    /// What the bytes say, exactly.
    pub(super) values: Vec<f64>,
}

/// Whether a part keeps its numbers in f16.
pub(super) fn is_f16(part: Part) -> bool {
    part.needs_f16()
}

/// Rounds `values` to the part's type.
pub(super) fn store(part: Part, values: &[f32]) -> Stored {
    if is_f16(part) {
        let halves: Vec<f16> = values.iter().map(|&value| f16::from_f32(value)).collect();
        Stored {
            bytes: bytemuck::cast_slice(&halves).to_vec(),
            values: halves.iter().map(|half| half.to_f64()).collect(),
        }
    } else {
        Stored { bytes: bytemuck::cast_slice(values).to_vec(), values: values.iter().map(|&v| v.into()).collect() }
    }
}

/// The numbers in a buffer of the part's type.
pub(super) fn load(part: Part, bytes: &[u8]) -> Vec<f32> {
    if is_f16(part) {
        bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
    } else {
        floats(bytes)
    }
}

/// The numbers in a buffer of f32.
pub(super) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(bytes)
}

/// The numbers in a buffer of u32.
pub(super) fn words(bytes: &[u8]) -> Vec<u32> {
    bytemuck::pod_collect_to_vec(bytes)
}

/// Rows of a weight matrix of some format.
pub(super) struct WeightRows {
    pub(super) format: WeightFormat,
    pub(super) inner: usize,
    /// As the GPU keeps them.
    pub(super) bytes: Vec<u8>,
    /// `[rows, inner]`, decoded.
    pub(super) values: Vec<f64>,
    /// `[rows, inner]`: the sum of the absolute values of the terms that a value is decoded from.
    pub(super) magnitudes: Vec<f64>,
}

impl WeightRows {
    /// Random blocks with finite scales. `inner` is in whole blocks but for floats.
    pub(super) fn random(random: &mut Random, format: WeightFormat, rows: usize, inner: usize) -> WeightRows {
        assert!(inner.is_multiple_of(format.block_values()), "{format:?}: a row of {inner} values");
        let row_bytes = format.gpu_row_bytes(inner);
        let mut all =
            WeightRows { format, inner, bytes: vec![0; rows * row_bytes], values: vec![], magnitudes: vec![] };
        for out in all.bytes.chunks_exact_mut(row_bytes) {
            let mut row = Vec::new();
            for _ in 0..inner / format.block_values() {
                row.extend(block(random, format));
            }
            format.regroup(&row, out);
            all.values.extend(format.decode(&row));
            make_terms_add(format, &mut row);
            all.magnitudes.extend(format.decode(&row).iter().map(|value| value.abs()));
        }
        all
    }

    /// Stretches of 32 values in a row, the last one padded.
    pub(super) fn blocks(&self) -> usize {
        round_up(self.inner, BLOCK) / BLOCK
    }

    /// Bytes of a row on the GPU.
    pub(super) fn row_bytes(&self) -> usize {
        self.format.gpu_row_bytes(self.inner)
    }
}

fn block(random: &mut Random, format: WeightFormat) -> Vec<u8> {
    match format {
        WeightFormat::F32 => return random.value().to_le_bytes().to_vec(),
        WeightFormat::F16 => return f16::from_f32(random.value()).to_le_bytes().to_vec(),
        WeightFormat::Bf16 => return half::bf16::from_f32(random.value()).to_le_bytes().to_vec(),
        _ => (),
    }
    let mut bytes: Vec<u8> = (0..format.block_bytes()).map(|_| random.index(256) as u8).collect();
    for &at in scale_offsets(format) {
        bytes[at..at + 2].copy_from_slice(&f16::from_f32(scale(random)).to_le_bytes());
    }
    if let Some(most) = most_zero(format) {
        // The top 24 bits of an f32 over the zero point, at the block's end.
        let word = scale(random).to_bits() & 0xffff_ff00 | random.index(most + 1) as u32;
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// No subnormal f16: an adapter may flush them.
fn scale(random: &mut Random) -> f32 {
    let scale = random.value() * 0.05;
    scale.abs().max(0.001).copysign(scale)
}

/// The largest zero point of a format that has them, one past the quants' of 4 bits, as GPTQ may have it.
fn most_zero(format: WeightFormat) -> Option<usize> {
    match format {
        WeightFormat::I4G32 | WeightFormat::I4G128 => Some(16),
        WeightFormat::I8G32 | WeightFormat::I8G128 => Some(255),
        _ => None,
    }
}

/// Where a block keeps its half-precision scales.
fn scale_offsets(format: WeightFormat) -> &'static [usize] {
    use WeightFormat::*;
    match format {
        F32 | F16 | Bf16 | I4G32 | I4G128 | I8G32 | I8G128 => &[],
        Q8_0 | Q4_0 | Q5_0 => &[0],
        Q4_1 | Q5_1 | Q4K | Q5K => &[0, 2],
        Q6K => &[208],
    }
}

/// Sets the signs of a row's scales so that scale · q and minimum add where they would cancel.
fn make_terms_add(format: WeightFormat, row: &mut [u8]) {
    use WeightFormat::*;
    let minimum_sign = match format {
        Q4_1 | Q5_1 => 0,
        Q4K | Q5K => 0x80,
        _ => return,
    };
    for block in row.chunks_exact_mut(format.block_bytes()) {
        block[1] &= 0x7f;
        block[3] = block[3] & 0x7f | minimum_sign;
    }
}
