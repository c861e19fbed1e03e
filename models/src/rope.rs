//! The numbers of rotary position embedding: what `transformers` computes, in f64.

use std::f64::consts::TAU;

use crate::{Rope, RopeScaling};

impl Rope {
    /// Radians that pair i turns a position, scaling included.
    ///
    /// - returns `[rotary_dim / 2]`
    ///
    /// Source: Su et al. 2021, arXiv:2104.09864, section 3.2.2; for YaRN Peng et al. 2023, arXiv:2309.00071, section 3.2; for
    /// dynamic NTK `_compute_dynamic_ntk_parameters` of `transformers`, at a sequence as long as the longest context.
    pub fn inv_freq(&self) -> Vec<f64> {
        let pairs = self.rotary_dim / 2;
        let theta = self.base();
        let plain = (0..pairs).map(|i| theta.powf(-(2.0 * i as f64) / self.rotary_dim as f64));
        match &self.scaling {
            RopeScaling::Default | RopeScaling::Dynamic { .. } => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|freq| freq / factor).collect(),
            RopeScaling::Factors(factors) => plain.zip(factors).map(|(freq, factor)| freq / factor).collect(),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                plain
                    .map(|freq| {
                        let rotations = original_max_position_embeddings * freq / TAU; // over the whole training context
                        if rotations > *high_freq_factor {
                            freq
                        } else if rotations < *low_freq_factor {
                            freq / factor
                        } else {
                            let kept = (rotations - low_freq_factor) / (high_freq_factor - low_freq_factor);
                            (1.0 - kept) * freq / factor + kept * freq
                        }
                    })
                    .collect()
            }
            RopeScaling::Yarn { factor, .. } => {
                let (low, high) = self.yarn_ramp();
                let stretched = |i: usize| ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                plain.enumerate().map(|(i, freq)| freq * (1.0 - stretched(i)) + freq / factor * stretched(i)).collect()
            }
        }
    }

    /// What cosine and sine are multiplied by: 1 but for YaRN.
    pub fn attention_factor(&self) -> f64 {
        match self.scaling {
            RopeScaling::Yarn { attention_factor, .. } => attention_factor,
            _ => 1.0,
        }
    }

    /// The same for a cache that holds contexts of up to `longest` tokens: what dynamic scaling follows.
    #[must_use]
    pub fn for_context(&self, longest: usize) -> Rope {
        let mut rope = self.clone();
        if let RopeScaling::Dynamic { context, .. } = &mut rope.scaling {
            *context = longest as f64;
        }
        rope
    }

    /// Positions of the training before the scaling, where the scaling tells them.
    pub(crate) fn original_positions(&self) -> Option<f64> {
        match self.scaling {
            RopeScaling::Dynamic { original_max_position_embeddings: original, .. }
            | RopeScaling::Llama3 { original_max_position_embeddings: original, .. }
            | RopeScaling::Yarn { original_max_position_embeddings: original, .. } => Some(original),
            RopeScaling::Default | RopeScaling::Linear { .. } | RopeScaling::Factors(_) => None,
        }
    }

    /// The base of the frequencies, which dynamic scaling raises.
    pub fn base(&self) -> f64 {
        match self.scaling {
            // Of a single pair, which turns by a whole radian a position whatever the base.
            RopeScaling::Dynamic { .. } if self.rotary_dim <= 2 => self.theta,
            RopeScaling::Dynamic { factor, original_max_position_embeddings: original, context } => {
                let dim = self.rotary_dim as f64;
                let stretch = factor * context.max(original) / original - (factor - 1.0);
                self.theta * stretch.powf(dim / (dim - 2.0))
            }
            _ => self.theta,
        }
    }

    /// The pairs between which YaRN goes over from kept to stretched.
    fn yarn_ramp(&self) -> (f64, f64) {
        let RopeScaling::Yarn { beta_fast, beta_slow, original_max_position_embeddings: original, truncate, .. } =
            self.scaling
        else {
            return (0.0, 1.0);
        };
        let dim = self.rotary_dim as f64;
        // The (fractional) pair that makes so many rotations over the training context.
        let pair = |rotations: f64| dim * (original / (rotations * TAU)).ln() / (2.0 * self.theta.ln());
        let (low, high) = (pair(beta_fast), pair(beta_slow));
        let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
        let (low, high) = (low.max(0.0), high.min(dim - 1.0));
        (low, if low == high { high + 0.001 } else { high })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (pair, radians), computed apart from this program in f64 from the papers' formulas.
    fn check(rope: &Rope, wanted: &[(usize, f64)]) {
        let met = rope.inv_freq();
        assert_eq!(met.len(), rope.rotary_dim / 2);
        for (pair, wanted) in wanted {
            // A power, a logarithm and a handful of roundings on either side.
            assert!(
                (met[*pair] / wanted - 1.0).abs() < 64.0 * f64::EPSILON,
                "pair {pair}: {} where {wanted} is wanted",
                met[*pair]
            );
        }
    }

    #[test]
    fn plain_and_linear_frequencies_are_powers_of_theta() {
        let mut rope = Rope { theta: 1e4, rotary_dim: 16, scaling: RopeScaling::Default };
        let plain = [(0, 1.0), (1, 0.31622776601683794), (2, 0.1), (4, 0.01), (7, 0.00031622776601683794)];
        check(&rope, &plain);
        rope.scaling = RopeScaling::Linear { factor: 4.0 };
        check(&rope, &plain.map(|(pair, freq)| (pair, freq / 4.0)));
        rope.scaling = RopeScaling::Factors(vec![1.0, 1.0, 2.0, 1.0, 8.0, 8.0, 8.0, 8.0]);
        check(&rope, &[(1, 0.31622776601683794), (2, 0.05), (4, 0.00125)]);
    }

    #[test]
    fn llama3_keeps_stretches_and_blends() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192.0,
        };
        check(
            &Rope { theta: 5e5, rotary_dim: 128, scaling },
            &[
                (0, 1.0),
                (28, 0.003211445994752591),
                (29, 0.002166570763503359),
                (32, 0.0005248461609929547),
                (35, 9.556212353964683e-05),
                (36, 7.78465527393245e-05),
                (63, 3.068925988914511e-07),
            ],
        );
    }

    #[test]
    fn yarn_blends_by_rotations_whether_its_ends_are_rounded_or_not() {
        let yarn = |factor: f64, original: f64, truncate: bool| RopeScaling::Yarn {
            factor,
            beta_fast: 32.0,
            beta_slow: 1.0,
            original_max_position_embeddings: original,
            attention_factor: 1.25,
            truncate,
        };
        let rope = Rope { theta: 1e6, rotary_dim: 128, scaling: yarn(4.0, 32768.0, true) };
        check(
            &rope,
            &[
                (0, 1.0),
                (23, 0.006978305848598663),
                (24, 0.005375321490790102),
                (30, 0.001064360981247002),
                (39, 6.490394320837029e-05),
                (40, 4.445698525097307e-05),
                (63, 3.102344401879299e-07),
            ],
        );
        assert_eq!(rope.attention_factor(), 1.25);
        check(
            &Rope { theta: 1e4, rotary_dim: 64, scaling: yarn(16.0, 4096.0, false) },
            &[(0, 1.0), (12, 0.027861316864565167), (20, 0.0008164706233662652), (31, 8.334508951020775e-06)],
        );
    }
}
