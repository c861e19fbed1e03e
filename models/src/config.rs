//! A model's configuration in the words of `config.json`, with every number checked before it is believed.
//!
//! A GGUF file's metadata are put into the same words, so that a family is one file whatever the container; messages
//! name the key as the file spells it.

mod rope;

pub(crate) use rope::{stretched, yarn_attention_factor};

use std::fmt::Display;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::{Error, gguf};

/// The largest `config.json` that is read.
const CONFIG_LIMIT: u64 = 16 << 20;
/// No count of a real model is larger, and the product of two fits a `usize`.
const COUNT_LIMIT: u64 = 1 << 31;
/// The most layers where there are no tensors to tell.
const LAYER_LIMIT: usize = 10_000;

/// Keys and values of a configuration, and where they come from.
#[derive(Debug)]
pub(crate) struct Config {
    path: PathBuf,
    values: Map<String, Value>,
    spelling: Spelling,
    /// How many tensors lie in the checkpoint: more layers there cannot be.
    tensors: usize,
}

/// How the file spells a key, for messages.
#[derive(Debug, Clone)]
enum Spelling {
    /// As `config.json` does.
    Plain,
    /// Inside this object of `config.json`.
    Inside(&'static str),
    /// Inside an object that itself is inside one.
    Nested(String),
    /// As a GGUF file of this architecture does.
    Gguf(String),
}

/// A JSON object from a file of at most `limit` bytes.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] where the file is larger, or no JSON object.
pub(crate) fn read_json(path: &Path, limit: u64) -> Result<Map<String, Value>, Error> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > limit {
        return Err(Error::malformed(path, "the file", format_args!("over {limit} bytes"), "a smaller one"));
    }
    parse_json(path, &bytes)
}

fn parse_json(path: &Path, bytes: &[u8]) -> Result<Map<String, Value>, Error> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::malformed(path, "the file", format_args!("no JSON object ({error})"), "a JSON object; fetch it again")
    })
}

impl Config {
    /// Reads `config.json`. `tensors` is the number of tensors in the checkpoint.
    ///
    /// # Errors
    /// As [`read_json`].
    pub(crate) fn read(path: &Path, tensors: usize) -> Result<Config, Error> {
        Ok(Config::new(path, read_json(path, CONFIG_LIMIT)?, tensors))
    }

    /// [`Config::read`] for bytes that are there already.
    ///
    /// # Errors
    /// [`Error::Malformed`] where the bytes are no JSON object.
    pub(crate) fn parse(path: &Path, bytes: &[u8], tensors: usize) -> Result<Config, Error> {
        Ok(Config::new(path, parse_json(path, bytes)?, tensors))
    }

    /// Reads a `config.json` that stands alone.
    ///
    /// # Errors
    /// As [`read_json`].
    pub(crate) fn read_alone(path: &Path) -> Result<Config, Error> {
        Config::read(path, LAYER_LIMIT)
    }

    fn new(path: &Path, values: Map<String, Value>, tensors: usize) -> Config {
        Config { path: path.into(), values, spelling: Spelling::Plain, tensors }
    }

    /// The metadata of a GGUF file in the words of `config.json`.
    pub(crate) fn from_gguf(path: &Path, values: Map<String, Value>, tensors: usize, architecture: &str) -> Config {
        Config { path: path.into(), values, spelling: Spelling::Gguf(architecture.into()), tensors }
    }

    /// The value of a key; null is as good as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    /// Whether the key is there at all, be it null.
    pub(crate) fn says(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// The configuration that is the value of a key.
    ///
    /// # Errors
    /// [`Error::Malformed`] where the value is anything but an object.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Config>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(values)) => {
                let spelling = Spelling::Nested(self.spelled(key));
                Ok(Some(Config { path: self.path.clone(), values: values.clone(), spelling, tensors: self.tensors }))
            }
            Some(other) => {
                let met: String = other.to_string().chars().take(80).collect();
                Err(self.malformed(key, met, "an object"))
            }
        }
    }

    /// Every key.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    fn spelled(&self, key: &str) -> String {
        match &self.spelling {
            Spelling::Plain => key.into(),
            Spelling::Inside(object) => format!("{object}.{key}"),
            Spelling::Nested(path) => format!("{path}.{key}"),
            Spelling::Gguf(architecture) => gguf::spelled(architecture, key),
        }
    }

    pub(crate) fn malformed(&self, key: &str, met: impl Display, wanted: impl Display) -> Error {
        Error::malformed(&self.path, self.spelled(key), met, wanted)
    }

    pub(crate) fn unsupported(&self, key: &str, met: impl Display, wanted: impl Display) -> Error {
        Error::unsupported(&self.path, self.spelled(key), met, wanted)
    }

    /// A whole number from 1 to 2³¹.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it is anything else.
    pub(crate) fn count(&self, key: &str) -> Result<Option<usize>, Error> {
        self.get(key).map(|value| self.checked_count(key, value, 1)).transpose()
    }

    /// [`Config::count`] of a key that has no default.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it is absent or anything else.
    pub(crate) fn needed_count(&self, key: &str) -> Result<usize, Error> {
        let wanted = format!("a whole number from 1 to {COUNT_LIMIT}");
        self.count(key)?.ok_or_else(|| self.malformed(key, "absent", wanted))
    }

    /// A whole number from 0 to 2³¹.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it is anything else.
    pub(crate) fn index(&self, key: &str) -> Result<Option<usize>, Error> {
        self.get(key).map(|value| self.checked_count(key, value, 0)).transpose()
    }

    fn checked_count(&self, key: &str, value: &Value, least: u64) -> Result<usize, Error> {
        match value.as_u64() {
            Some(count) if (least..=COUNT_LIMIT).contains(&count) => Ok(count as usize),
            _ => Err(self.malformed(key, value, format_args!("a whole number from {least} to {COUNT_LIMIT}"))),
        }
    }

    /// How many layers, no more than the checkpoint has tensors, so that nothing is allocated by an absurd number.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it is absent, zero or larger.
    pub(crate) fn layer_count(&self) -> Result<usize, Error> {
        let key = "num_hidden_layers";
        let layers = self.needed_count(key)?;
        if layers > self.tensors {
            let wanted = format_args!("at most {}, the number of tensors", self.tensors);
            return Err(self.malformed(key, layers, wanted));
        }
        Ok(layers)
    }

    /// A finite number greater than 0.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it is anything else.
    pub(crate) fn positive(&self, key: &str) -> Result<Option<f64>, Error> {
        self.get(key).map(|value| self.checked_positive(key, value)).transpose()
    }

    fn checked_positive(&self, key: &str, value: &Value) -> Result<f64, Error> {
        match value.as_f64() {
            Some(number) if number > 0.0 && number.is_finite() => Ok(number),
            _ => Err(self.malformed(key, value, "a finite number greater than 0")),
        }
    }

    /// True or false; false where absent.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it is anything else.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, Error> {
        Ok(self.stated_flag(key)?.unwrap_or(false))
    }

    /// True or false, or not said.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it is anything else.
    pub(crate) fn stated_flag(&self, key: &str) -> Result<Option<bool>, Error> {
        self.get(key)
            .map(|value| value.as_bool().ok_or_else(|| self.malformed(key, value, "true or false")))
            .transpose()
    }

    /// A string.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it is anything else.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>, Error> {
        self.get(key).map(|value| value.as_str().ok_or_else(|| self.malformed(key, value, "a string"))).transpose()
    }

    /// An array with one element a layer.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it is anything else.
    pub(crate) fn per_layer(&self, key: &str, layers: usize) -> Result<Option<&[Value]>, Error> {
        let wanted = || format!("an array of {layers} elements, one a layer");
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(list)) if list.len() == layers => Ok(Some(list)),
            Some(Value::Array(list)) => Err(self.malformed(key, format_args!("{} elements", list.len()), wanted())),
            Some(other) => Err(self.malformed(key, other, wanted())),
        }
    }
}
