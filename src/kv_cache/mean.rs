//! What quantised keys lose before they are rounded: one vector a head, the same for every key.
//!
//! Softmax does not see it: q · (k - m) is q · k less a number that is the same for all keys, and of scores it keeps what differs.
//! So any m is exact, as long as it is constant for the model; forks, moves and shared prefixes stay what they are. The m that
//! leaves least to be rounded is the mean of the keys, where some channels of some models have large ones (Qwen2's biases).
//!
//! Keys are rounded behind their RoPE. A pair of channels whose mean before it is μ, as a complex number, shows μ e^{ipf} at position p:
//! its mean over the positions 0..P is μ times the mean of e^{ipf}, which is near 1 where the pair turns slowly and near 0 where it
//! turns often. So slow channels lose the mean that they show, and fast ones, whose mean is gone, keep what they are.
//!
//! Source: Zhang et al. 2024, "SageAttention", arXiv:2410.02367, section 4.2, where the mean is that of each prompt.

use raglan_shaders::KvType;
use raglan_shaders::kv_rows::{Side, rotate_fast};

/// The RoPE of a layer.
#[derive(Debug, Clone)]
pub struct Turn {
    /// `[rotary_dim / 2]`; empty in a layer without.
    pub inv_freq: Vec<f64>,
}

/// How well a type holds the keys or the values of a head.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Fidelity {
    /// What rounding moves, root mean square over all rows but the first, as a share of how far rows differ from their mean.
    pub error: f64,
    /// The same of the first row, which attention may use as a sink.
    pub first_error: f64,
    /// The length of the first row as a share of the others', root mean square.
    pub first_length: f64,
}

impl Fidelity {
    /// Of each number the larger.
    #[must_use]
    pub fn worse(self, other: Fidelity) -> Fidelity {
        Fidelity {
            error: self.error.max(other.error),
            first_error: self.first_error.max(other.first_error),
            first_length: self.first_length.max(other.first_length),
        }
    }
}

/// The mean of e^{ipf} over the positions 0..`positions`: (cos, sin).
fn average_turn(freq: f64, positions: usize) -> (f64, f64) {
    let (half, count) = ((freq / 2.0).sin(), positions as f64);
    if positions == 0 || half.abs() < 1e-12 {
        return (1.0, 0.0);
    }
    // The sum of a geometric series, as its middle term times a Dirichlet kernel.
    let length = (count * freq / 2.0).sin() / (count * half);
    let (sin, cos) = ((count - 1.0) * freq / 2.0).sin_cos();
    (length * cos, length * sin)
}

impl Turn {
    /// Turns one head's columns by (cos, sin) of each pair.
    fn turn(&self, columns: &mut [f64], turn: impl Fn(f64) -> (f64, f64)) {
        let pairs = self.inv_freq.len();
        for (i, &freq) in self.inv_freq.iter().enumerate() {
            let ((cos, sin), first, second) = (turn(freq), columns[i], columns[i + pairs]);
            columns[i] = first * cos - second * sin;
            columns[i + pairs] = second * cos + first * sin;
        }
    }

    /// Keys as they were before their RoPE, but for a factor of it: `[tokens, head_dim]`, at positions from 0.
    pub fn unturned(&self, keys: &[f64], head_dim: usize) -> Vec<f64> {
        let mut keys = keys.to_vec();
        for (position, columns) in keys.chunks_exact_mut(head_dim).enumerate() {
            self.turn(columns, |freq| {
                let (sin, cos) = (position as f64 * freq).sin_cos();
                (cos, -sin)
            });
        }
        keys
    }

    /// [`Turn::unturned`] keys at other positions, a row each: `[rows, head_dim]`.
    pub fn turned(&self, unturned: &[f64], head_dim: usize, position: impl Fn(usize) -> usize) -> Vec<f64> {
        let mut keys = unturned.to_vec();
        for (row, columns) in keys.chunks_exact_mut(head_dim).enumerate() {
            self.turn(columns, |freq| {
                let (sin, cos) = (position(row) as f64 * freq).sin_cos();
                (cos, sin)
            });
        }
        keys
    }

    /// What a head's keys lose, from [`Turn::unturned`] ones, for contexts of up to `positions` tokens.
    pub fn average(&self, unturned: &[f64], head_dim: usize, positions: usize) -> Vec<f64> {
        let mut mean = mean(unturned, head_dim);
        self.turn(&mut mean, |freq| average_turn(freq, positions));
        mean
    }
}

/// The mean row; the first, which may be an attention sink and like no other, is left out where there are others.
fn mean(rows: &[f64], cols: usize) -> Vec<f64> {
    let rows = if rows.len() > cols { &rows[cols..] } else { rows };
    let mut mean = vec![0.0; cols];
    for row in rows.chunks_exact(cols) {
        mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    let count = (rows.len() / cols).max(1) as f64;
    mean.iter_mut().for_each(|sum| *sum /= count);
    mean
}

/// How well `kv` holds rows `[tokens, head_dim]`, of which every column has lost its `mean`, rotated in blocks of `rotation` columns
/// where the type does. `spread` is how far rows differ from their mean before anything turns them, root mean square.
pub fn fidelity(kv: KvType, side: Side, rows: &[f64], mean: &[f64], rotation: usize, spread: f64) -> Fidelity {
    let (head_dim, mut errors, mut lengths) = (mean.len(), Vec::new(), Vec::new());
    let stride = kv.head_stride(head_dim).expect("the heads' width was checked");
    for row in rows.chunks_exact(head_dim) {
        let mut left: Vec<f64> = row.iter().zip(mean).map(|(value, mean)| value - mean).collect();
        if kv.rotates(side) && rotation > 1 {
            rotate_fast(&mut left, rotation, (rotation as f64).sqrt().recip());
        }
        let (bytes, scale) = kv.encode(side, &left, stride);
        let met = kv.decode(side, &bytes, scale, head_dim).values;
        errors.push(met.iter().zip(&left).map(|(met, want)| (met - want).powi(2)).sum::<f64>());
        lengths.push(row.iter().map(|value| value * value).sum::<f64>());
    }
    let of_others = |squares: &[f64]| {
        let others = squares.get(1..).unwrap_or_default();
        (others.iter().sum::<f64>() / others.len().max(1) as f64).sqrt()
    };
    let share = |length: f64, of: f64| if of > 0.0 { length / of } else { 0.0 };
    let first = |squares: &[f64]| squares.first().map_or(0.0, |square| square.sqrt());
    Fidelity {
        error: share(of_others(&errors), spread),
        first_error: share(first(&errors), spread),
        first_length: share(first(&lengths), of_others(&lengths)),
    }
}

/// How far rows differ from their mean, root mean square over all but the first.
pub fn spread(rows: &[f64], cols: usize) -> f64 {
    let mean = mean(rows, cols);
    let others = rows.get(cols..).unwrap_or_default();
    let squares =
        others.chunks_exact(cols).flat_map(|row| row.iter().zip(&mean)).map(|(value, mean)| (value - mean).powi(2));
    (squares.sum::<f64>() / (others.len() / cols).max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn() -> Turn {
        Turn { inv_freq: vec![1.0, 0.1, 0.0] }
    }

    /// Keys at positions from 0 whose mean before RoPE is `mean`.
    fn keys(turn: &Turn, mean: &[f64], tokens: usize) -> Vec<f64> {
        let noise = |position: usize, col: usize| ((position * 31 + col * 17) % 23) as f64 / 23.0 - 11.0 / 23.0;
        let row = |position| mean.iter().enumerate().map(move |(col, mean)| mean + noise(position, col));
        turn.turned(&(0..tokens).flat_map(row).collect::<Vec<_>>(), mean.len(), |position| position)
    }

    #[test]
    fn the_closed_form_is_the_mean_of_all_turns() {
        for (freq, positions) in
            [(1.0, 1), (1.0, 7), (0.3, 1000), (1e-6, 4096), (0.0, 5), (2.0 * std::f64::consts::PI, 9)]
        {
            let sum =
                (0..positions).map(|p| (p as f64 * freq).sin_cos()).fold((0.0, 0.0), |a, b| (a.0 + b.1, a.1 + b.0));
            let want = (sum.0 / positions as f64, sum.1 / positions as f64);
            let met = average_turn(freq, positions);
            assert!(
                (met.0 - want.0).abs() < 1e-9 && (met.1 - want.1).abs() < 1e-9,
                "{freq} {positions}: {met:?} {want:?}"
            );
        }
    }

    #[test]
    fn slow_channels_lose_the_mean_that_they_show_and_fast_ones_nothing() {
        let (turn, bias) = (turn(), [40.0, 30.0, -20.0, 10.0, 5.0, 60.0, 7.0]);
        let unturned = turn.unturned(&keys(&turn, &bias, 23 * 40 + 1), 7);
        assert!(mean(&unturned, 7).iter().zip(bias).all(|(met, want)| (met - want).abs() < 1e-6));
        let average = turn.average(&unturned, 7, 100_000);
        for (col, want) in [0.0, 0.0, -20.0, 0.0, 0.0, 60.0, 7.0].into_iter().enumerate() {
            assert!((average[col] - want).abs() < 0.02, "column {col}: {average:?}");
        }
        // Of one position only, nothing has turned yet.
        assert!(turn.average(&unturned, 7, 1).iter().zip(bias).all(|(met, want)| (met - want).abs() < 1e-6));
    }

    #[test]
    fn a_bias_costs_what_centring_brings_back() {
        let turn = Turn { inv_freq: Vec::new() };
        let bias: Vec<f64> = (0..32).map(|col| if col % 5 == 0 { 50.0 } else { 0.0 }).collect();
        let keys = keys(&turn, &bias, 200);
        let spread = spread(&keys, 32);
        let error = |kv: KvType, mean: &[f64]| fidelity(kv, Side::Key, &keys, mean, 0, spread).error;
        for kv in [KvType::Int8, KvType::Int4] {
            let (centred, uncentred) = (error(kv, &mean(&keys, 32)), error(kv, &[0.0; 32]));
            assert!(uncentred > 20.0 * centred, "{kv}: {uncentred} and {centred}");
        }
        assert!(error(KvType::F16, &[0.0; 32]) < error(KvType::Int8, &mean(&keys, 32)) * 10.0);
    }

    #[test]
    fn a_first_row_like_no_other_is_seen() {
        let mut rows: Vec<f64> = (0..64 * 32).map(|i| ((i * 37) % 19) as f64 / 19.0 - 0.5).collect();
        rows[3] = 400.0;
        let met = fidelity(KvType::Int4, Side::Value, &rows, &[0.0; 32], 0, spread(&rows, 32));
        assert!(met.first_error > 10.0 * met.error && met.first_length > 100.0, "{met:?}");
    }
}
