//! The two containers, written row by row: no tensor is ever whole in memory.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use raglan_models::{Format, LayerRole, ModelSpec, Naming, Role, Rope, RopeScaling};

use super::numbers::Numbers;
use super::{Error, Recipe, io};

const ALIGNMENT: usize = 32;

/// A tensor to be written.
struct Planned {
    name: String,
    role: Role,
    shape: Vec<usize>,
    format: Format,
    row_bytes: usize,
    bytes: usize,
}

fn plan(recipe: &Recipe, spec: &ModelSpec, naming: Naming) -> Result<Vec<Planned>, Error> {
    spec.roles()
        .map(|role| {
            let (name, shape) = (naming.name(role), spec.shape(role));
            let in_gguf = matches!(naming, Naming::Gguf { .. });
            let format = if shape.len() == 1 && in_gguf { Format::F32 } else { recipe.format };
            let cols = shape[shape.len() - 1];
            let Some(row_bytes) = format.row_bytes(cols) else {
                return Err(Error::Blocks { name, cols, format });
            };
            let rows: usize = shape[..shape.len() - 1].iter().product();
            Ok(Planned { name, role, format, row_bytes, bytes: rows * row_bytes, shape })
        })
        .collect()
}

/// One tensor's numbers: norms about 1, biases small, matrices so that sizes keep from layer to layer.
fn write_tensor(out: &mut impl Write, planned: &Planned, seed: u64, index: usize) -> std::io::Result<()> {
    let mut numbers = Numbers::new(seed, index);
    let mut row = Vec::with_capacity(planned.row_bytes + 8);
    if let [cols] = planned.shape[..] {
        let norm = matches!(
            planned.role,
            Role::FinalNorm
                | Role::Layer(
                    _,
                    LayerRole::InputNorm | LayerRole::PostAttentionNorm | LayerRole::QNorm | LayerRole::KNorm
                )
        );
        for _ in 0..cols {
            let number = f32::from(u8::from(norm)) + 0.1 * numbers.normal();
            Numbers::push(planned.format, number, &mut row);
        }
        return out.write_all(&row);
    }
    let cols = planned.shape[planned.shape.len() - 1];
    for _ in 0..planned.bytes / planned.row_bytes {
        row.clear();
        numbers.row(planned.format, planned.row_bytes, (cols as f32).powf(-0.5), &mut row);
        out.write_all(&row)?;
    }
    Ok(())
}

/// A folder of `config.json` and `model.safetensors`.
pub(super) fn write_folder(recipe: &Recipe, spec: &ModelSpec, out: &Path) -> Result<(), Error> {
    let dtype = match recipe.format {
        Format::F32 => "F32",
        Format::F16 => "F16",
        Format::Bf16 => "BF16",
        format => return Err(Error::NoBlocksInFolder { format }),
    };
    let tensors = plan(recipe, spec, Naming::HuggingFace)?;
    let mut header = serde_json::Map::new();
    let mut offset = 0;
    for tensor in &tensors {
        let info = serde_json::json!({
            "dtype": dtype, "shape": tensor.shape, "data_offsets": [offset, offset + tensor.bytes]
        });
        header.insert(tensor.name.clone(), info);
        offset += tensor.bytes;
    }
    let mut header = serde_json::Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    fs::create_dir_all(out).map_err(io(out))?;
    fs::copy(&recipe.config, out.join("config.json")).map_err(io(&recipe.config))?;
    let path = out.join("model.safetensors");
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        for (index, tensor) in tensors.iter().enumerate() {
            write_tensor(&mut file, tensor, recipe.seed, index)?;
        }
        file.flush()
    };
    write().map_err(io(&path))
}

/// A GGUF file of version 3, without a tokenizer.
pub(super) fn write_gguf(recipe: &Recipe, spec: &ModelSpec, out: &Path) -> Result<(), Error> {
    let tensors = plan(recipe, spec, Naming::Gguf { interleaved: false })?;
    let factors = rope_factors(&spec.rope);
    let keys = keys(spec);
    let count = tensors.len() + usize::from(factors.is_some());
    let mut head = b"GGUF".to_vec();
    head.extend(3u32.to_le_bytes());
    head.extend((count as u64).to_le_bytes());
    head.extend((keys.len() as u64).to_le_bytes());
    head.extend(keys.concat());
    let mut offset = 0;
    let factor_bytes = factors.unwrap_or_default();
    if !factor_bytes.is_empty() {
        head.extend(table_row("rope_freqs.weight", &[factor_bytes.len() / 4], Format::F32, offset));
        offset += factor_bytes.len().next_multiple_of(ALIGNMENT);
    }
    for tensor in &tensors {
        head.extend(table_row(&tensor.name, &tensor.shape, tensor.format, offset));
        offset += tensor.bytes.next_multiple_of(ALIGNMENT);
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(out)?);
        file.write_all(&head)?;
        file.write_all(&factor_bytes)?;
        pad(&mut file, factor_bytes.len())?;
        for (index, tensor) in tensors.iter().enumerate() {
            write_tensor(&mut file, tensor, recipe.seed, index)?;
            pad(&mut file, tensor.bytes)?;
        }
        file.flush()
    };
    write().map_err(io(out))
}

fn pad(out: &mut impl Write, written: usize) -> std::io::Result<()> {
    out.write_all(&[0; ALIGNMENT][..written.next_multiple_of(ALIGNMENT) - written])
}

/// Llama 3.1's scaling, and the rarer ones that a GGUF file has no keys for: what each frequency is divided by.
fn rope_factors(rope: &Rope) -> Option<Vec<u8>> {
    if !matches!(rope.scaling, RopeScaling::Llama3 { .. } | RopeScaling::Factors(_)) {
        return None;
    }
    let plain = Rope { scaling: RopeScaling::Default, ..rope.clone() }.inv_freq();
    let factors = plain.into_iter().zip(rope.inv_freq()).map(|(plain, scaled)| (plain / scaled) as f32);
    Some(factors.flat_map(f32::to_le_bytes).collect())
}

fn keys(spec: &ModelSpec) -> Vec<Vec<u8>> {
    let architecture = if spec.family == "mistral" { "llama" } else { spec.family };
    let key = |rest: &str| format!("{architecture}.{rest}");
    let mut keys = vec![text_key("general.architecture", architecture), text_key("general.type", "model")];
    for (rest, number) in [
        ("embedding_length", spec.hidden_size),
        ("feed_forward_length", spec.intermediate_size),
        ("block_count", spec.layers.len()),
        ("attention.head_count", spec.num_attention_heads),
        ("attention.head_count_kv", spec.num_key_value_heads),
        ("attention.key_length", spec.head_dim),
        ("attention.value_length", spec.head_dim),
        ("rope.dimension_count", spec.rope.rotary_dim),
        ("context_length", spec.max_position_embeddings),
        // Mistral's, the same on every layer; other families have no key for theirs.
        ("attention.sliding_window", spec.layers.first().and_then(|layer| layer.sliding_window).unwrap_or(0)),
    ] {
        keys.push([head(&key(rest), 4), (number as u32).to_le_bytes().into()].concat());
    }
    let mut numbers =
        vec![("attention.layer_norm_rms_epsilon", spec.rms_norm_eps), ("rope.freq_base", spec.rope.theta)];
    match spec.rope.scaling {
        RopeScaling::Linear { factor } => {
            keys.push(text_key(&key("rope.scaling.type"), "linear"));
            numbers.push(("rope.scaling.factor", factor));
        }
        RopeScaling::Yarn { factor, beta_fast, beta_slow, original_max_position_embeddings, .. } => {
            keys.push(text_key(&key("rope.scaling.type"), "yarn"));
            numbers.push(("rope.scaling.factor", factor));
            numbers.push(("rope.scaling.yarn_beta_fast", beta_fast));
            numbers.push(("rope.scaling.yarn_beta_slow", beta_slow));
            numbers.push(("rope.scaling.original_context_length", original_max_position_embeddings));
        }
        _ => {}
    }
    keys.extend(
        numbers.iter().map(|(rest, number)| [head(&key(rest), 6), (*number as f32).to_le_bytes().into()].concat()),
    );
    keys
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn head(key: &str, kind: u32) -> Vec<u8> {
    [text(key), kind.to_le_bytes().into()].concat()
}

fn text_key(key: &str, value: &str) -> Vec<u8> {
    [head(key, 8), text(value)].concat()
}

fn table_row(name: &str, shape: &[usize], format: Format, offset: usize) -> Vec<u8> {
    let kind: u32 = match format {
        Format::F32 => 0,
        Format::F16 => 1,
        Format::Q4_0 => 2,
        Format::Q4_1 => 3,
        Format::Q5_0 => 6,
        Format::Q5_1 => 7,
        Format::Q8_0 => 8,
        Format::Q4K => 12,
        Format::Q5K => 13,
        Format::Q6K => 14,
        Format::Bf16 => 30,
        Format::I4G32 | Format::I4G128 | Format::I8G32 | Format::I8G128 => unreachable!("no recipe has {format}"),
    };
    let mut row = text(name);
    row.extend((shape.len() as u32).to_le_bytes());
    row.extend(shape.iter().rev().flat_map(|size| (*size as u64).to_le_bytes()));
    row.extend(kind.to_le_bytes());
    row.extend((offset as u64).to_le_bytes());
    row
}
