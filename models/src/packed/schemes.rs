//! What a configuration says of integers: `quantization_config` of `config.json`, or the `quantize_config.json` that older
//! GPTQ folders have beside it.
//!
//! Source: AutoAWQ's `WQLinear_GEMM`; AutoGPTQ's and GPTQModel's `QuantLinear`; compressed-tensors' `QuantizationConfig`.

use serde_json::Value;

use crate::Error;
use crate::config::Config;

/// How the matrices of a folder are stored, those that are not floats.
#[derive(Debug, Default)]
pub(crate) struct Schemes {
    /// A matrix is in the first that its tensors fit.
    pub(crate) schemes: Vec<Scheme>,
    /// Whether scales of keys and values lie beside the weights; they are not read.
    pub(crate) kv_scales: bool,
    /// What is done otherwise than the configuration says.
    pub(crate) notes: Vec<String>,
}

/// One way to store a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scheme {
    pub(crate) method: Method,
    /// Of a quant: 4 or 8.
    pub(crate) bits: usize,
    pub(crate) group: Group,
    /// Whether the zero points must be there; without them each is half of the range.
    pub(crate) zeros: bool,
}

/// Who wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Awq,
    Gptq {
        /// What is added to a stored zero point.
        added: u32,
    },
    /// compressed-tensors' `pack-quantized`
    Packed,
    /// compressed-tensors' `int-quantized` and `naive-quantized`
    Bytes,
}

/// What shares a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// So many columns of a row.
    Columns(usize),
    Row,
    Tensor,
}

impl Schemes {
    /// Reads them from `config.json`, or from the older file where there is one and `config.json` says nothing.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for what is not built, by name; [`Error::Malformed`] for numbers that cannot be.
    pub(crate) fn read(config: &Config, older: Option<&Config>) -> Result<Schemes, Error> {
        for key in ["quantization_config", "compression_config"] {
            if let Some(inner) = config.object(key)? {
                return Schemes::of(&inner);
            }
        }
        older.map_or_else(|| Ok(Schemes::default()), gptq)
    }

    fn of(config: &Config) -> Result<Schemes, Error> {
        match config.text("quant_method")? {
            Some("awq") => awq(config),
            Some("gptq") => gptq(config),
            Some("compressed-tensors") => compressed(config),
            None if config.says("config_groups") => compressed(config),
            met => Err(config.unsupported("quant_method", met.unwrap_or("absent"), "awq, gptq, compressed-tensors")),
        }
    }
}

fn bits(config: &Config, key: &str, supported: &[usize]) -> Result<usize, Error> {
    let bits = config.needed_count(key)?;
    if supported.contains(&bits) {
        return Ok(bits);
    }
    let wanted = supported.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    Err(config.unsupported(key, bits, wanted))
}

/// A number of columns; -1 is a whole row.
fn group(config: &Config, key: &str) -> Result<Option<Group>, Error> {
    match config.get(key).and_then(Value::as_i64) {
        Some(-1) => Ok(Some(Group::Row)),
        _ => Ok(config.count(key)?.map(Group::Columns)),
    }
}

fn one(method: Method, bits: usize, group: Group, zeros: bool) -> Schemes {
    Schemes { schemes: vec![Scheme { method, bits, group, zeros }], ..Schemes::default() }
}

fn awq(config: &Config) -> Result<Schemes, Error> {
    // transformers writes `bits`, AutoAWQ's own files `w_bit`.
    let key = |new, old| if config.says(old) { old } else { new };
    let bits = bits(config, key("bits", "w_bit"), &[4])?;
    match config.text("version")?.map(str::to_ascii_lowercase).as_deref() {
        None | Some("gemm") => (),
        Some(other) => return Err(config.unsupported("version", other, "gemm")),
    }
    let group = group(config, key("group_size", "q_group_size"))?;
    let zeros = config.stated_flag("zero_point")?.unwrap_or(true);
    Ok(one(Method::Awq, bits, group.unwrap_or(Group::Columns(128)), zeros))
}

fn gptq(config: &Config) -> Result<Schemes, Error> {
    let bits = bits(config, "bits", &[4, 8])?;
    if config.flag("is_marlin_format")? {
        return Err(config.unsupported("is_marlin_format", true, "false"));
    }
    let mut added = 1;
    for key in ["checkpoint_format", "format"] {
        match config.text(key)? {
            None | Some("gptq") => (),
            Some("gptq_v2") => added = 0,
            Some(other) => return Err(config.unsupported(key, other, "gptq, gptq_v2")),
        }
    }
    match config.text("pack_dtype")? {
        None | Some("int32") => (),
        Some(other) => return Err(config.unsupported("pack_dtype", other, "int32")),
    }
    let group = group(config, "group_size")?.unwrap_or(Group::Columns(128));
    let symmetric = config.stated_flag("sym")?.unwrap_or(true);
    Ok(one(Method::Gptq { added }, bits, group, !symmetric))
}

fn compressed(config: &Config) -> Result<Schemes, Error> {
    let mut schemes = Schemes::default();
    if let Some(sparsity) = config.object("sparsity_config")? {
        match sparsity.text("format")? {
            None | Some("dense") => (),
            Some(other) => return Err(sparsity.unsupported("format", other, "dense")),
        }
    }
    if let Some(transforms) = config.get("transform_config").filter(|met| met.as_object().is_none_or(|o| !o.is_empty()))
    {
        let met: String = transforms.to_string().chars().take(80).collect();
        return Err(config.unsupported("transform_config", met, "no transforms"));
    }
    if config.get("kv_cache_scheme").is_some() {
        schemes.kv_scales = true;
        schemes.notes.push(
            "the scales of keys and values (kv_cache_scheme) are not used: --kv-type says how those are kept".into(),
        );
    }
    let Some(groups) = config.object("config_groups")? else { return Ok(schemes) };
    let mut dynamic = false;
    for name in groups.keys() {
        let Some(group) = groups.object(name)? else { continue };
        if let Some(inputs) = group.object("input_activations")? {
            // Any other `dynamic` has numbers that were measured, for which there is no place.
            if inputs.get("dynamic") != Some(&Value::Bool(true)) {
                return Err(group.unsupported(
                    "input_activations",
                    "quantised with scales of the file",
                    "none, or dynamic ones",
                ));
            }
            dynamic = true;
        }
        if group.get("output_activations").is_some() {
            return Err(group.unsupported("output_activations", "quantised", "none"));
        }
        if let Some(weights) = group.object("weights")? {
            let format = group.text("format")?.or(config.text("format")?);
            schemes.schemes.extend(compressed_weights(config, format, &weights)?);
        }
    }
    if dynamic {
        schemes.notes.push("activations are not quantised as the configuration asks for: weights alone are".into());
    }
    Ok(schemes)
}

fn compressed_weights(config: &Config, format: Option<&str>, weights: &Config) -> Result<Option<Scheme>, Error> {
    let method = match format {
        Some("pack-quantized") => Method::Packed,
        Some("int-quantized" | "naive-quantized") => Method::Bytes,
        Some("dense") => return Ok(None),
        met => {
            let wanted = "pack-quantized, int-quantized, naive-quantized, dense";
            return Err(config.unsupported("format", met.unwrap_or("absent"), wanted));
        }
    };
    match weights.text("type")? {
        None | Some("int") => (),
        Some(other) => return Err(weights.unsupported("type", other, "int")),
    }
    let bits = bits(weights, "num_bits", if method == Method::Packed { &[4, 8] } else { &[8] })?;
    let size = group(weights, "group_size")?;
    let group = match (weights.text("strategy")?, size) {
        (Some("group") | None, Some(size)) => size,
        (Some("group"), None) => return Err(weights.malformed("group_size", "absent", "the columns of a group")),
        (Some("channel"), _) => Group::Row,
        (Some("tensor") | None, _) => Group::Tensor,
        (Some(other), _) => return Err(weights.unsupported("strategy", other, "group, channel, tensor")),
    };
    let zeros = !weights.stated_flag("symmetric")?.unwrap_or(true);
    Ok(Some(Scheme { method, bits, group, zeros }))
}
