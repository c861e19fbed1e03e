//! `random_weights.wgsl`: rows of any weight format, made on the adapter from a seed.

use crate::kernel::{Access, Kernel, Tunable};
use crate::layout::gpu_struct;
use crate::{GpuStruct, WeightFormat};

gpu_struct! {
    /// Immediates of `random_weights.wgsl`.
    pub struct RandomWeightsParams {
        /// Other seeds, other bits.
        pub seed: u32,
        /// Where the buffer starts in the matrix, in 16-byte words; modulo 2³².
        pub first_quad: u32,
        /// 16-byte words to write.
        pub quads: u32,
        /// Words from one row to the next, a multiple of 4.
        pub row_words: u32,
        /// Words of a row that hold something; the others become zeros.
        pub used_words: u32,
        /// Words of a row from here on are scales.
        pub scale_start: u32,
        /// The first of so many words is a scale; 0 where none is.
        pub period: u32,
        /// Which bits of other words are random.
        pub keep: u32,
        /// Their forced bits.
        pub force: u32,
        /// Which bits of scales are random.
        pub scale_keep: u32,
        /// Their forced bits.
        pub scale_force: u32,
    }
}

/// Shape: `[16-byte words]`. Workgroups: [`workgroups`].
pub static KERNEL: Kernel = Kernel {
    name: "random_weights",
    source: include_str!("random_weights.wgsl"),
    parts: &[],
    bindings: &[Access::ReadWrite],
    immediates: RandomWeightsParams::LAYOUT,
    structs: &[],
    tunables: &[Tunable { name: "LANES", values: &[256, 64, 128] }],
    dims: &["quads"],
    legal: |limits, _, schedule| schedule.values[0] <= limits.max_workgroup_lanes,
};

/// Workgroups of a dispatch: lanes stride over what they leave.
pub fn workgroups(params: &RandomWeightsParams) -> [u32; 3] {
    [params.quads.div_ceil(256).clamp(1, 65_535), 1, 1]
}

/// Exponent bits of f16 for numbers of `scale` to twice it; the least that are no subnormal numbers where `scale` is less.
fn half_exponent(scale: f64) -> u32 {
    (scale.log2().floor() as i32 + 15).clamp(1, 24) as u32
}

/// An f32 without its fraction, for numbers of `scale` to twice it.
fn single(scale: f64) -> u32 {
    ((scale.log2().floor() as i32 + 127) as u32) << 23
}

impl RandomWeightsParams {
    /// Rows of `cols` values in `format`, about as large as `1 / √cols`, so that products of them keep the size of their
    /// inputs; larger where a quantised format's scale would be a subnormal number. Numbers of a float format are within a factor of two of each other, with either sign; every bit of a quant is
    /// random, and scales are positive and within a factor of two. `rows` start at the matrix's row `first_row`.
    ///
    /// # Panics
    /// If a row is no whole number of blocks, or of words.
    pub fn rows(format: WeightFormat, cols: usize, first_row: usize, rows: usize, seed: u32) -> RandomWeightsParams {
        use WeightFormat::*;
        assert!(cols.is_multiple_of(format.block_values().max(2)), "{format:?}: rows of {cols} values");
        let row_bytes = format.gpu_row_bytes(cols);
        let blocks = cols / format.block_values();
        let scale = 1.0 / (cols as f64).sqrt();
        // Values of a block spread as this many scales: what a quant, and with K-quants a scale of few bits, multiplies d by.
        let spread = match format {
            F32 | F16 | Bf16 => 1.0,
            Q8_0 => 74.0,
            Q4_0 | Q4_1 => 4.6,
            Q5_0 | Q5_1 => 9.2,
            Q4K => 4.6 * 31.5,
            Q5K => 9.2 * 31.5,
            Q6K => 18.5 * 74.0,
            I4G32 | I4G128 => 4.6,
            I8G32 | I8G128 => 74.0,
        };
        let exponent = half_exponent(scale / spread);
        let d = exponent << 10;
        // A minimum of 2^power d centres quants whose mean is about that.
        let minimum = |power: u32, sign: u32| sign << 15 | (exponent + power) << 10;
        let two = |low: u32, high: u32| high << 16 | low;
        let (keep, force) = match format {
            F32 => (0x807f_ffff, single(scale)),
            F16 => (0x83ff_83ff, two(d, d)),
            Bf16 => (0x807f_807f, two(1, 1) * (single(scale) >> 16)),
            _ => (u32::MAX, 0),
        };
        let scale_force = match format {
            Q4_1 => two(d, minimum(3, 1)),
            Q5_1 => two(d, minimum(4, 1)),
            Q4K => two(d, minimum(3, 0)),
            Q5K => two(d, minimum(4, 0)),
            I4G32 | I4G128 => single(scale / spread) | 8,
            I8G32 | I8G128 => single(scale / spread) | 128,
            _ => two(d, d),
        };
        let scale_keep = match format {
            I4G32 | I4G128 | I8G32 | I8G128 => 0x007f_ff00,
            _ => 0x03ff_03ff,
        };
        let planes = format.planes();
        let (_, scale_bytes) = planes[planes.len() - 1];
        let (scale_start, period) = match format {
            F32 | F16 | Bf16 => (row_bytes, 0),
            Q4K | Q5K => (row_bytes, format.block_bytes() / 4),
            _ => (blocks * (format.block_bytes() - scale_bytes), 0),
        };
        RandomWeightsParams {
            seed,
            first_quad: (first_row as u64 * row_bytes as u64 / 16) as u32,
            quads: (rows as u64 * row_bytes as u64 / 16) as u32,
            row_words: (row_bytes / 4) as u32,
            used_words: (blocks * format.block_bytes()).div_ceil(4) as u32,
            scale_start: (scale_start / 4) as u32,
            period: period as u32,
            keep,
            force,
            scale_keep,
            scale_force,
        }
    }
}

/// The CPU twin: the words that the kernel writes.
pub fn twin(params: &RandomWeightsParams) -> Vec<u32> {
    let hash = |place: u32| {
        let state = (place ^ params.seed).wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
        (word >> 22) ^ word
    };
    let word = |index: u32| {
        let place = params.first_quad.wrapping_mul(4).wrapping_add(index);
        let word = place % params.row_words;
        let is_scale = word >= params.scale_start || (params.period > 0 && word.is_multiple_of(params.period));
        match (word < params.used_words, is_scale) {
            (false, _) => 0,
            (true, true) => hash(place) & params.scale_keep | params.scale_force,
            (true, false) => hash(place) & params.keep | params.force,
        }
    };
    (0..4 * params.quads).map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row as the file stores it, from one as the GPU keeps it.
    fn ungroup(format: WeightFormat, row: &[u8], blocks: usize) -> Vec<u8> {
        let mut out = vec![0; blocks * format.block_bytes()];
        let mut taken = 0;
        for &(start, bytes) in format.planes() {
            for block in 0..blocks {
                let to = block * format.block_bytes() + start;
                out[to..to + bytes].copy_from_slice(&row[taken..taken + bytes]);
                taken += bytes;
            }
        }
        out
    }

    #[test]
    fn every_format_decodes_to_finite_numbers_of_the_wanted_size_around_zero() {
        for format in WeightFormat::ALL {
            for cols in [512, 4096, 13_824] {
                let params = RandomWeightsParams::rows(format, cols, 7, 4, 3);
                let words = twin(&params);
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                let blocks = cols / format.block_values();
                let values: Vec<f64> = bytes
                    .chunks_exact(format.gpu_row_bytes(cols))
                    .flat_map(|row| format.decode(&ungroup(format, row, blocks)))
                    .collect();
                assert_eq!(values.len(), 4 * cols, "{format:?}");
                assert!(values.iter().all(|value| value.is_finite()), "{format:?}");
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                let size = (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt();
                let wanted = 1.0 / (cols as f64).sqrt();
                assert!((0.4..32.0).contains(&(size / wanted)), "{format:?}, {cols}: {size} where {wanted} is wanted");
                assert!(mean.abs() < size, "{format:?}, {cols}: a mean of {mean} beside {size}");
            }
        }
    }

    #[test]
    fn pieces_of_a_matrix_join_to_the_whole_and_seeds_differ() {
        for format in WeightFormat::ALL {
            let cols = 512;
            let part = |first, rows, seed| twin(&RandomWeightsParams::rows(format, cols, first, rows, seed));
            let whole = part(0, 6, 1);
            assert_eq!([part(0, 2, 1), part(2, 4, 1)].concat(), whole, "{format:?}");
            assert_ne!(part(0, 6, 2), whole, "{format:?}");
        }
    }

    #[test]
    fn padding_columns_are_zeros() {
        let params = RandomWeightsParams::rows(WeightFormat::F16, 40, 0, 2, 1);
        let words = twin(&params);
        assert!(
            words.chunks_exact(32).all(|row| row[..20].iter().all(|w| *w != 0) && row[20..].iter().all(|w| *w == 0))
        );
    }
}
