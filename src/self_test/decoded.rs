//! Blocks decoded on the adapter, beside what their own programs make of them, in units of the last place of f32.

use super::data::{Random, WeightRows, floats};
use super::golden::safetensor;
use super::rig::Rig;
use super::{Adapters, SelfTest, test};
use half::f16;
use raglan_shaders::embedding::{EmbeddingParams, KERNEL};
use raglan_shaders::{BLOCK, Part, WeightFormat};
use std::num::FpCategory;

/// Random blocks and their numbers by the Python package `gguf`; the versions are in its `golden.json`.
const BLOCKS: &[u8] = include_bytes!("../../tests/golden/gguf_blocks/golden.safetensors");

/// Columns of a row: a whole number of blocks of every format.
const COLS: usize = 256;

/// Subtraction of what a K-quant adds to every value rounds once; an adapter may round to either side.
const MOST_ULPS: u32 = 1;

pub(super) fn tests() -> Vec<SelfTest> {
    vec![test("decode/gguf", gguf), test("decode/integers", integers)]
}

/// Every format of GGUF within a unit of the reference.
fn gguf(adapters: &Adapters) -> Result<String, String> {
    use WeightFormat::{Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    let mut found = Vec::new();
    for (format, name, scales) in [
        (Q8_0, "Q8_0", &[0][..]),
        (Q4_0, "Q4_0", &[0]),
        (Q4_1, "Q4_1", &[0, 2]),
        (Q5_0, "Q5_0", &[0]),
        (Q5_1, "Q5_1", &[0, 2]),
        (Q4K, "Q4_K", &[0, 2]),
        (Q5K, "Q5_K", &[0, 2]),
        (Q6K, "Q6_K", &[208]),
    ] {
        let part = |end| safetensor(BLOCKS, &format!("{name}.{end}")).ok_or(format!("no {name}.{end}"));
        let (blocks, wanted) = (part("blocks")?, floats(part("values")?));
        let row_bytes = COLS / format.block_values() * format.block_bytes();
        let rows: Vec<u8> = blocks.chunks_exact(row_bytes).flat_map(|row| regrouped(format, row)).collect();
        // An adapter may take a subnormal half for zero.
        let is_subnormal = |block: &[u8], at: usize| {
            f16::from_le_bytes([block[at], block[at + 1]]).classify() == FpCategory::Subnormal
        };
        let counts: Vec<bool> = blocks
            .chunks_exact(format.block_bytes())
            .map(|block| !scales.iter().any(|&at| is_subnormal(block, at)))
            .flat_map(|counts| std::iter::repeat_n(counts, format.block_values()))
            .collect();
        let worst = worst(adapters, format, &rows, &wanted, &counts)?;
        if worst > MOST_ULPS {
            return Err(format!("{name} is {worst} units of the last place from the reference"));
        }
        found.push(format!("{name} {worst}"));
    }
    Ok(format!("units of the last place from the reference: {}", found.join(", ")))
}

/// scale · (q - zero) is exact.
fn integers(adapters: &Adapters) -> Result<String, String> {
    use WeightFormat::{I4G32, I4G128, I8G32, I8G128};
    for format in [I4G32, I4G128, I8G32, I8G128] {
        let rows = WeightRows::random(&mut Random::new(6), format, 64, COLS);
        let wanted: Vec<f32> = rows.values.iter().map(|&value| value as f32).collect();
        if rows.values.iter().zip(&wanted).any(|(exact, rounded)| *exact != f64::from(*rounded)) {
            return Err(format!("{format:?}: a number is no f32"));
        }
        let worst = worst(adapters, format, &rows.bytes, &wanted, &vec![true; wanted.len()])?;
        if worst > 0 {
            return Err(format!("{format:?} is {worst} units of the last place from exact"));
        }
    }
    Ok("exact".into())
}

fn regrouped(format: WeightFormat, row: &[u8]) -> Vec<u8> {
    let mut out = vec![0; format.gpu_row_bytes(COLS)];
    format.regroup(row, &mut out);
    out
}

/// How far the adapter's numbers are from `wanted`, of those that count, with and without checks.
fn worst(
    adapters: &Adapters,
    format: WeightFormat,
    rows: &[u8],
    wanted: &[f32],
    counts: &[bool],
) -> Result<u32, String> {
    let mut worst = 0;
    for rig in adapters.ways().iter().take(2) {
        let met = decoded(rig, format, rows)?;
        let pairs = met.iter().zip(wanted).zip(counts).filter(|(_, counts)| **counts);
        worst = pairs.map(|((met, wanted), _)| ulps(*met, *wanted)).fold(worst, u32::max);
    }
    Ok(worst)
}

/// All rows by way of the embedding.
fn decoded(rig: &Rig<'_>, format: WeightFormat, rows: &[u8]) -> Result<Vec<f32>, String> {
    let row_bytes = format.gpu_row_bytes(COLS);
    let count = rows.len() / row_bytes;
    let params = EmbeddingParams {
        first_row: 0,
        rows: count as u32,
        blocks: (COLS / BLOCK) as u32,
        weight_row_quads: (row_bytes / 16) as u32,
        weight_blocks: format.row_blocks(COLS) as u32,
    };
    let variant = KERNEL.variant(&[Part::Weight(format)], KERNEL.default_schedule());
    let ids: Vec<u32> = (0..count as u32).collect();
    let out = vec![0u8; 4 * count * COLS];
    let inputs = [rows, rows, bytemuck::cast_slice(&ids), &[0; 16], &out];
    let out = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), [count as u32, 1, 1])?.remove(0);
    Ok(floats(&out))
}

/// Steps between neighbouring f32 from one to the other.
fn ulps(a: f32, b: f32) -> u32 {
    let place = |value: f32| {
        let bits = value.to_bits() as i32;
        if bits < 0 { i64::from(i32::MIN) - i64::from(bits) } else { i64::from(bits) }
    };
    if a.is_nan() || b.is_nan() { u32::MAX } else { place(a).abs_diff(place(b)).try_into().unwrap_or(u32::MAX) }
}
