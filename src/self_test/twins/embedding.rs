//! Twin test of `embedding.wgsl`, and so of every weight format's decoding.

use crate::self_test::data::{WeightRows, floats};
use crate::self_test::rig::{Failure, Rig};
use raglan_shaders::embedding::{EmbeddingParams, KERNEL, SAMPLED, twin};
use raglan_shaders::{BLOCK, Part, Tolerance, Wanted, WeightFormat};

/// What the output holds where nothing was written.
const UNTOUCHED: f32 = 1234.5;

pub(super) fn check(rig: &Rig<'_>, format: WeightFormat) -> Result<(), Failure> {
    let values = format.block_values();
    // One stretch, several, and more than a workgroup of 32 lanes; floats also with a padded last stretch.
    let inners: &[usize] = match values {
        1 => &[1, 31, 40, 1056],
        32 => &[32, 96, 1056],
        128 => &[128, 1152],
        _ => &[256, 1280],
    };
    for (index, &inner) in inners.iter().enumerate() {
        for tokens in [1, 5, 61] {
            case(rig, format, inner, tokens, index)?;
        }
    }
    Ok(())
}

fn case(rig: &Rig<'_>, format: WeightFormat, inner: usize, tokens: usize, index: usize) -> Result<(), Failure> {
    let mut random = rig.random(10 * index + tokens);
    let vocab = 37;
    let weight = WeightRows::random(&mut random, format, vocab, inner);
    let samples: Vec<u32> = (0..4).map(|_| random.index(vocab) as u32).collect();
    let token_ids: Vec<u32> = (0..tokens)
        .map(|token| if token % 3 == 1 { SAMPLED | random.index(4) as u32 } else { random.index(vocab) as u32 })
        .collect();
    let (blocks, row_bytes) = (weight.blocks(), weight.row_bytes());
    let schedule = rig.one_schedule(&KERNEL, &[tokens as u32, inner as u32], index);
    let variant = KERNEL.variant(&[Part::Weight(format)], schedule);
    let columns = blocks * BLOCK;
    let mut out = bytemuck::cast_slice(&vec![UNTOUCHED; tokens * columns]).to_vec();
    let ids: Vec<u32> =
        token_ids.iter().map(|&id| if id & SAMPLED != 0 { samples[(id & !SAMPLED) as usize] } else { id }).collect();
    // The matrix in two bindings, as one larger than a binding is.
    for rows in [0..16, 16..vocab] {
        let params = EmbeddingParams {
            first_row: rows.start as u32,
            rows: rows.len() as u32,
            blocks: blocks as u32,
            weight_row_quads: (row_bytes / 16) as u32,
            weight_blocks: format.row_blocks(inner) as u32,
        };
        let piece = &weight.bytes[rows.start * row_bytes..rows.end * row_bytes];
        let inputs = [piece, piece, bytemuck::cast_slice(&token_ids), bytemuck::cast_slice(&samples), &out];
        out = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), [tokens as u32, 1, 1])?.remove(0);

        let written = |token: &usize| (ids[*token] as usize) < rows.end;
        let seen: Vec<usize> = (0..tokens).filter(written).collect();
        let places: Vec<usize> = seen.iter().flat_map(|token| token * columns..token * columns + inner).collect();
        let ids: Vec<u32> = seen.iter().map(|&token| token_ids[token]).collect();
        let row = |values: &[f64]| twin(values, inner, &ids, &samples);
        let want = Wanted::scaled(row(&weight.values), row(&weight.magnitudes));
        let what = || format!("{variant}, {tokens} tokens of {inner}, rows {rows:?}, seed {}", random.seed);
        // Padding columns are written too, with zeros.
        let mut met = floats(&out);
        for token in &seen {
            let padding = &mut met[token * columns + inner..(token + 1) * columns];
            rig.same(what, padding, &vec![0.0; columns - inner])?;
            padding.fill(UNTOUCHED);
        }
        rig.compare_places(what, Tolerance::f32(1), &met, (&places, UNTOUCHED), &want)?;
    }
    Ok(())
}
