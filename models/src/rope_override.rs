//! A RoPE scaling that a user asks for in place of the checkpoint's.

use std::fmt;
use std::str::FromStr;

use crate::config::{stretched, yarn_attention_factor};
use crate::{ModelSpec, RopeScaling};

/// What takes the place of a checkpoint's RoPE scaling, so that a model runs past what it was trained for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeOverride {
    /// No scaling: `none`.
    None,
    /// Every frequency divided: `linear=2`.
    Linear(f64),
    /// Dynamic NTK: `dynamic=4`.
    Dynamic(f64),
    /// YaRN with the defaults of transformers: `yarn=4`.
    Yarn(f64),
}

impl RopeOverride {
    /// The model with this scaling in place of its own, and the positions that it reaches then: the factor times those
    /// before any scaling, as far as the checkpoint tells them.
    #[must_use]
    pub fn apply(self, spec: &ModelSpec) -> ModelSpec {
        let original = spec.rope.original_positions().unwrap_or(spec.max_position_embeddings as f64);
        let (scaling, reached) = match self {
            RopeOverride::None => (RopeScaling::Default, original as usize),
            RopeOverride::Linear(factor) => (RopeScaling::Linear { factor }, stretched(original, factor)),
            RopeOverride::Dynamic(factor) => {
                let original_max_position_embeddings = original;
                let scaling = RopeScaling::Dynamic { factor, original_max_position_embeddings, context: original };
                (scaling, stretched(original, factor))
            }
            RopeOverride::Yarn(factor) => {
                let scaling = RopeScaling::Yarn {
                    factor,
                    beta_fast: 32.0,
                    beta_slow: 1.0,
                    original_max_position_embeddings: original,
                    attention_factor: yarn_attention_factor(factor, 1.0),
                    truncate: true,
                };
                (scaling, stretched(original, factor))
            }
        };
        let mut spec = spec.clone();
        (spec.rope.scaling, spec.max_position_embeddings) = (scaling, reached);
        spec
    }
}

impl FromStr for RopeOverride {
    type Err = String;

    fn from_str(text: &str) -> Result<RopeOverride, String> {
        let wanted =
            || format!("{text:?} is no RoPE scaling; there are none, linear=F, dynamic=F and yarn=F, F from 1 on");
        if text == "none" {
            return Ok(RopeOverride::None);
        }
        let (name, factor) = text.split_once('=').ok_or_else(wanted)?;
        let factor = factor.parse().ok().filter(|factor: &f64| (1.0..=65_536.0).contains(factor)).ok_or_else(wanted)?;
        match name {
            "linear" => Ok(RopeOverride::Linear(factor)),
            "dynamic" => Ok(RopeOverride::Dynamic(factor)),
            "yarn" => Ok(RopeOverride::Yarn(factor)),
            _ => Err(wanted()),
        }
    }
}

impl fmt::Display for RopeOverride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RopeOverride::None => f.write_str("none"),
            RopeOverride::Linear(factor) => write!(f, "linear={factor}"),
            RopeOverride::Dynamic(factor) => write!(f, "dynamic={factor}"),
            RopeOverride::Yarn(factor) => write!(f, "yarn={factor}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Synthetic;

    #[test]
    fn an_override_takes_the_place_of_the_scaling_and_moves_the_positions() {
        let spec = |name: &str| Synthetic::parse(name).expect("it is there").spec;
        let reached = |name: &str, text: &str| {
            let wanted: RopeOverride = text.parse().expect(text);
            assert_eq!(wanted.to_string(), text);
            wanted.apply(&spec(name)).max_position_embeddings
        };
        assert_eq!(reached("llama-2-13b", "yarn=4"), 16_384);
        assert_eq!(reached("llama-2-13b", "dynamic=2.5"), 10_240);
        assert_eq!(reached("llama-2-13b", "linear=2"), 8192);
        assert_eq!(reached("llama-2-13b", "none"), 4096);
        // Llama 3.1 was trained on 8,192 before its own scaling.
        assert_eq!(reached("llama-3.1-8b", "none"), 8192);
        assert_eq!(reached("llama-3.1-8b", "yarn=32"), 262_144);
        let spec = RopeOverride::Yarn(1.0).apply(&spec("tiny"));
        let freqs = spec.rope.inv_freq();
        assert_eq!((spec.rope.attention_factor(), freqs[0]), (1.0, 1.0));
        for text in ["", "yarn", "yarn=", "yarn=0", "yarn=x", "yarn=inf", "linear=-1", "ntk=2", "None", "yarn=1e9"] {
            assert!(text.parse::<RopeOverride>().is_err(), "{text:?}");
        }
    }
}
