//! Shapes of matrix products.

use super::{Extent, GROUP_SHAPES, log_uniform, multiple, random};
use crate::schedules::LinearShape;
use rand::RngExt;
use rand::rngs::StdRng;

/// Rows of a prompt's part at most.
const MOST_ROWS: f64 = 2048.0;

/// A matrix of a model: what it is for, and its columns of out and of x.
#[derive(Debug, Clone, Copy)]
struct Matrix {
    cols: usize,
    inner: usize,
    normed: bool,
    gated: bool,
}

/// Of a model: hidden_size, columns of q·k·v, of the heads' outputs, intermediate_size, vocab_size.
///
/// Source: config.json of SmolLM2-135M, Llama-2-7B, Llama-2-13B, Llama-3.1-8B and Qwen3-8B.
const MODELS: [[usize; 5]; 5] = [
    [576, 960, 576, 1536, 49_152],
    [4096, 12_288, 4096, 11_008, 32_000],
    [5120, 15_360, 5120, 13_824, 32_000],
    [4096, 6144, 4096, 14_336, 128_256],
    [4096, 6144, 4096, 12_288, 151_936],
];

/// Matrices of a model.
const ROLES: usize = 5;

fn known(model: usize, role: usize) -> Matrix {
    let [hidden, qkv, heads, intermediate, vocab] = MODELS[model % MODELS.len()];
    let (cols, inner, normed, gated) = match role % ROLES {
        0 => (qkv, hidden, true, false),
        1 => (2 * intermediate, hidden, true, true),
        2 => (hidden, heads, false, false),
        3 => (hidden, intermediate, false, false),
        _ => (vocab, hidden, true, false),
    };
    Matrix { cols, inner, normed, gated }
}

/// Shape `index` of the products of few rows, or of many.
pub(super) fn shape(few: bool, index: usize, extent: &Extent) -> LinearShape {
    let (kind, group) = (u64::from(few), index / GROUP_SHAPES);
    let mut rng = random(kind + 2, group);
    let format = extent.formats[group % extent.formats.len()];
    // Two of three groups are a model's, each of its matrices in turn.
    let turn = group / 3 * 2 + group % 3;
    let matrix = match group % 3 {
        2 => unknown(&mut rng),
        _ => known(turn / ROLES + turn, turn),
    };
    let unit = if format.has_blocks() { format.block_values().max(64) } else { 64 };
    let most_rows = if few { 8.0 } else { log_uniform(&mut rng, 48.0, MOST_ROWS) };
    let most = match few {
        true => log_uniform(&mut rng, extent.most_weights / 24.0, extent.most_weights),
        false => extent.most_weights.min(extent.most_products / most_rows),
    };
    let (mut cols, mut inner) = (matrix.cols as f64, matrix.inner as f64);
    // Where the matrix is too large, a part of its rows; of many rows a smaller model's, so that both sides vary.
    let share = (most / (cols * inner)).min(1.0);
    if !few {
        inner = (inner * share.sqrt()).max(unit as f64);
    }
    cols = cols.min(most / inner);
    let rounded =
        if matrix.inner % unit == 0 && inner == matrix.inner as f64 { matrix.inner } else { multiple(inner, unit) };
    let row_bytes = format.gpu_row_bytes(rounded) as f64;
    let most_cols = (extent.most_matrix_bytes / row_bytes / 32.0).floor() as usize * 32;
    let cols = multiple(cols, 32).min(most_cols);

    let mut rng = random(kind + 4, index);
    let stratum = (index % GROUP_SHAPES) as f64;
    let rows = match few {
        true => [1, 2 + rng.random_range(0..3), 5 + rng.random_range(0..4)][index % GROUP_SHAPES],
        false => {
            let most = (extent.most_products / (cols * rounded) as f64).clamp(24.0, MOST_ROWS);
            let place = (stratum + rng.random_range(0.0..1.0)) / GROUP_SHAPES as f64;
            let rows = (9.0 * (most / 9.0).powf(place)) as usize;
            // Parts of prompts are often round.
            let unit = if rows < 64 { 8 } else { 64 };
            if rows >= 16 && rng.random_range(0..3) == 0 { rows / unit * unit } else { rows }
        }
    };
    LinearShape { rows, cols, inner: rounded, format, normed: matrix.normed, gated: matrix.gated }
}

/// A matrix of no model: sizes between those of all, some of them 32 times a prime.
fn unknown(rng: &mut StdRng) -> Matrix {
    const PRIMES: [usize; 12] = [7, 11, 17, 23, 31, 43, 61, 89, 127, 181, 257, 383];
    let cols = match rng.random_range(0..3) {
        0 => 32 * PRIMES[rng.random_range(0..PRIMES.len())],
        _ => multiple(log_uniform(rng, 256.0, 32_768.0), 32),
    };
    let inner = multiple(log_uniform(rng, 256.0, 14_336.0), 64);
    let gated = rng.random_range(0..4) == 0;
    Matrix { cols, inner, normed: gated || rng.random_range(0..2) == 0, gated }
}
