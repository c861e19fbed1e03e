//! The rotary half of a configuration, in both spellings: `rope_theta` beside `rope_scaling`, and `rope_parameters`.

use serde_json::{Map, Value};

use super::{Config, Spelling};
use crate::{Error, Rope, RopeScaling};

const SUPPORTED: &str = "default, linear, dynamic, llama3, yarn";
/// Every key here changes the maths, so any other is refused by name.
const KEYS: [&str; 15] = [
    "type",
    "rope_type",
    "rope_theta",
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "truncate",
    "mscale",
    "mscale_all_dim",
    "partial_rotary_factor",
    "finetuned",
];

impl Config {
    /// RoPE, and the positions that it reaches.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a type, or a key of the scaling, that is not known; [`Error::Malformed`] for a number
    /// out of range, and for two spellings that disagree.
    pub(crate) fn rope(&self, head_dim: usize, default_theta: f64) -> Result<(Rope, usize), Error> {
        let trained = self.needed_count("max_position_embeddings")?;
        // One reader for all of it: the scaling's keys beside the ones that older files keep outside.
        let dict = self.rope_dict()?;
        let spelling = match &self.spelling {
            Spelling::Plain if self.get("rope_scaling").is_some() => Spelling::Inside("rope_scaling"),
            Spelling::Plain => Spelling::Inside("rope_parameters"),
            other => other.clone(),
        };
        let scaling = Config { path: self.path.clone(), values: dict, spelling, tensors: 0 };
        let theta = scaling.positive("rope_theta")?.unwrap_or(default_theta);
        if theta <= 1.0 {
            return Err(self.malformed("rope_theta", theta, "a number greater than 1"));
        }
        let rotary_dim = scaling.rotary_dim(head_dim)?;
        let kind = match (scaling.text("rope_type")?, scaling.text("type")?) {
            (Some(new), Some(old)) if new != old => {
                return Err(scaling.malformed("rope_type", new, format_args!("{old}, as type says")));
            }
            (new, old) => new.or(old).unwrap_or("default"),
        };
        let (scaling, reached) = match kind {
            "default" => (RopeScaling::Default, trained),
            "linear" => (RopeScaling::Linear { factor: scaling.needed_positive("factor")? }, trained),
            "dynamic" => scaling.dynamic(trained)?,
            "llama3" => (scaling.llama3(trained)?, trained),
            "yarn" => scaling.yarn(trained)?,
            other => return Err(scaling.unsupported("rope_type", other, SUPPORTED)),
        };
        Ok((Rope { theta, rotary_dim, scaling }, reached))
    }

    /// `rope_scaling` and `rope_parameters` as one, with what older files keep beside them; null is absent.
    fn rope_dict(&self) -> Result<Map<String, Value>, Error> {
        let mut dict = Map::new();
        for spelling in ["rope_scaling", "rope_parameters"] {
            let object = match self.get(spelling) {
                None => continue,
                Some(Value::Object(object)) => object,
                Some(other) => return Err(self.malformed(spelling, other, "an object or null")),
            };
            for (key, value) in object.iter().filter(|(_, value)| !value.is_null()) {
                if !KEYS.contains(&key.as_str()) {
                    return Err(self.unsupported(&format!("{spelling}.{key}"), value, KEYS.join(", ")));
                }
                self.merge(&mut dict, key, value)?;
            }
        }
        for key in ["rope_theta", "partial_rotary_factor"] {
            if let Some(value) = self.get(key) {
                self.merge(&mut dict, key, value)?;
            }
        }
        // Beside the scaling it means the same, and transformers lets it win.
        let original = "original_max_position_embeddings";
        if let Some(value) = self.get(original) {
            dict.insert(original.into(), value.clone());
        }
        Ok(dict)
    }

    fn merge(&self, dict: &mut Map<String, Value>, key: &str, value: &Value) -> Result<(), Error> {
        let same = |met: &Value| met == value || met.as_f64().is_some_and(|number| value.as_f64() == Some(number));
        match dict.insert(key.into(), value.clone()) {
            Some(met) if !same(&met) => {
                Err(self.malformed(key, format_args!("{met} in one place and {value} in another"), "one value"))
            }
            _ => Ok(()),
        }
    }

    fn rotary_dim(&self, head_dim: usize) -> Result<usize, Error> {
        let factor = self.positive("partial_rotary_factor")?.unwrap_or(1.0);
        let dim = (head_dim as f64 * factor + 1e-6) as usize; // a share from a division may fall just short
        if factor > 1.0 || dim == 0 || !dim.is_multiple_of(2) {
            let wanted = format_args!("a share of head_dim {head_dim} that is an even number of columns");
            return Err(self.malformed("partial_rotary_factor", factor, wanted));
        }
        Ok(dim)
    }

    fn needed_positive(&self, key: &str) -> Result<f64, Error> {
        self.positive(key)?.ok_or_else(|| self.malformed(key, "absent", "a finite number greater than 0"))
    }

    fn llama3(&self, trained: usize) -> Result<RopeScaling, Error> {
        let low_freq_factor = self.needed_positive("low_freq_factor")?;
        let high_freq_factor = self.needed_positive("high_freq_factor")?;
        if high_freq_factor <= low_freq_factor {
            let wanted = format_args!("a number greater than low_freq_factor, which is {low_freq_factor}");
            return Err(self.malformed("high_freq_factor", high_freq_factor, wanted));
        }
        Ok(RopeScaling::Llama3 {
            factor: self.needed_positive("factor")?,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings: self.original(trained)?,
        })
    }

    fn original(&self, trained: usize) -> Result<f64, Error> {
        Ok(self.positive("original_max_position_embeddings")?.unwrap_or(trained as f64))
    }

    /// Dynamic NTK, and the positions that it reaches: `factor` times those of the training. transformers takes
    /// `max_position_embeddings` for the latter, whatever else is said.
    fn dynamic(&self, trained: usize) -> Result<(RopeScaling, usize), Error> {
        let factor = self.needed_positive("factor")?;
        if factor < 1.0 {
            return Err(self.malformed("factor", factor, "a number of at least 1"));
        }
        let original = trained as f64;
        let scaling = RopeScaling::Dynamic { factor, original_max_position_embeddings: original, context: original };
        Ok((scaling, stretched(original, factor)))
    }

    /// YaRN, and the positions that it reaches: `config.json` says either those before or those after the stretch.
    fn yarn(&self, trained: usize) -> Result<(RopeScaling, usize), Error> {
        let original = self.original(trained)?;
        let factor = self.positive("factor")?.unwrap_or(trained as f64 / original);
        let mscale = |scale: f64| yarn_attention_factor(factor, scale);
        let attention_factor = match (self.number("mscale")?, self.number("mscale_all_dim")?) {
            _ if self.get("attention_factor").is_some() => self.needed_positive("attention_factor")?,
            (Some(above), Some(below)) if above != 0.0 && below != 0.0 => mscale(above) / mscale(below),
            _ => mscale(1.0),
        };
        if !(attention_factor > 0.0 && attention_factor.is_finite()) {
            return Err(self.malformed("mscale", attention_factor, "an attention factor greater than 0"));
        }
        let scaling = RopeScaling::Yarn {
            factor,
            beta_fast: self.beta("beta_fast", 32.0)?,
            beta_slow: self.beta("beta_slow", 1.0)?,
            original_max_position_embeddings: original,
            attention_factor,
            truncate: self.stated_flag("truncate")?.unwrap_or(true),
        };
        Ok((scaling, trained.max(stretched(original, factor))))
    }

    /// A number of rotations; 0 is as good as absent.
    fn beta(&self, key: &str, default: f64) -> Result<f64, Error> {
        match self.number(key)? {
            None | Some(0.0) => Ok(default),
            Some(_) => self.needed_positive(key),
        }
    }

    fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        self.get(key)
            .map(|value| {
                let number = value.as_f64().filter(|number| number.is_finite());
                number.ok_or_else(|| self.malformed(key, value, "a finite number"))
            })
            .transpose()
    }
}

/// Positions that a stretch of `original` reaches.
pub(crate) fn stretched(original: f64, factor: f64) -> usize {
    (original * factor).min(f64::from(u32::MAX)) as usize
}

/// What YaRN multiplies cosine and sine by: equation 22 of arXiv:2309.00071, as transformers generalises it.
pub(crate) fn yarn_attention_factor(factor: f64, scale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 }
}
