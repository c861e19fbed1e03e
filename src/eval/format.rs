//! What is judged: a type of weights with a type of keys and values.

use crate::engine::EngineOptions;
use crate::gpu::Gpu;
use crate::kv_cache::KvTypes;
use raglan_models::QuantizeTo;
use raglan_shaders::KvType;

/// The name of a model's own weights.
const AS_IS: &str = "as-is";

/// A type of weights with a type of keys and values.
#[derive(Debug, Clone, PartialEq)]
pub struct Format {
    /// As it was asked for: `as-is`, `q8`, …
    pub weights: String,
    /// As it was asked for: `f16`, `int4:unrotated`, …
    pub kv: String,
    quantize: Option<QuantizeTo>,
    types: KvTypes,
}

impl Format {
    /// From the names of both.
    ///
    /// # Errors
    /// The name that means nothing, and those that there are.
    pub fn new(weights: &str, kv: &str) -> Result<Format, String> {
        let quantize = match weights {
            AS_IS => None,
            name => Some(name.parse().map_err(|error| format!("{error}, or {AS_IS}"))?),
        };
        let types = kv.parse()?;
        Ok(Format { weights: weights.to_owned(), kv: kv.to_owned(), quantize, types })
    }

    /// What all are held against: a model's own weights with f16 keys and values, f32 where the adapter has no f16.
    pub fn reference(gpu: &Gpu) -> Format {
        let types = if gpu.limits().shader_f16 { KvType::F16 } else { KvType::F32 };
        Format { weights: AS_IS.to_owned(), kv: types.name().to_owned(), quantize: None, types: types.into() }
    }

    /// With what an adapter has in place of f16.
    pub fn on(&self, gpu: &Gpu) -> Format {
        match self.types == KvTypes::from(KvType::F16) {
            true => Format { weights: self.weights.clone(), quantize: self.quantize, ..Format::reference(gpu) },
            false => self.clone(),
        }
    }

    /// Whether it is computed as `other`, however they are called.
    pub fn is_same(&self, other: &Format) -> bool {
        self.quantize == other.quantize && self.types == other.types
    }

    /// The options of an engine that runs it.
    pub(super) fn options(&self, base: &EngineOptions) -> EngineOptions {
        EngineOptions { kv_types: Some(self.types.clone()), quantize: self.quantize, ..base.clone() }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} weights, {} KV", self.weights, self.kv)
    }
}
