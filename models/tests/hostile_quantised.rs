//! Quantised folders whose parts disagree, lie or ask for what is not built: each a clear error, none a panic.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod checkpoint_support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use checkpoint_support::{ABSENT, copy_of, golden, refused, safetensors_file, split_safetensors, with_config};
use raglan_models::quantize::{FolderOptions, write_folder};
use raglan_models::{Checkpoint, Error, LayerRole, Role};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const GATE: &str = "model.layers.0.mlp.gate_proj";
const GATE_ROLE: Role = Role::Layer(0, LayerRole::Gate);

/// dtype, shape, bytes.
type Tensors = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

fn tensors(path: &Path) -> Tensors {
    let (header, data) = split_safetensors(path);
    let of = |(name, info): (&String, &Value)| {
        let [start, end] = [0, 1].map(|at| info["data_offsets"][at].as_u64().unwrap() as usize);
        let shape = serde_json::from_value(info["shape"].clone()).unwrap();
        (name.clone(), (info["dtype"].as_str().unwrap().to_owned(), shape, data[start..end].to_vec()))
    };
    header.iter().filter(|(name, _)| *name != "__metadata__").map(of).collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, (dtype, shape, bytes)) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        data.extend(bytes);
    }
    fs::write(path, safetensors_file(&Value::Object(header).to_string(), &data)).unwrap();
}

/// A golden folder whose tensors were changed.
fn changed(name: &str, change: impl Fn(&mut Tensors)) -> TempDir {
    let folder = copy_of(name);
    let path = folder.path().join("model.safetensors");
    let mut tensors = tensors(&path);
    change(&mut tensors);
    write(&path, &tensors);
    folder
}

/// A golden folder with keys of its `quantization_config` set, or taken out.
fn configured(name: &str, changes: &[(&str, Value)]) -> TempDir {
    let mut config: Value = serde_json::from_slice(&fs::read(golden(name).join("config.json")).unwrap()).unwrap();
    let object = &mut config["quantization_config"];
    for (path, value) in changes {
        let mut at = &mut *object;
        let (parents, key) = path.rsplit_once('.').unwrap_or(("", path));
        for parent in parents.split('.').filter(|parent| !parent.is_empty()) {
            at = &mut at[parent];
        }
        match value {
            Value::String(text) if text == ABSENT => drop(at.as_object_mut().unwrap().remove(key)),
            value => at[key] = value.clone(),
        }
    }
    with_config(name, &[("quantization_config", object.clone())])
}

fn refuse_tensors(name: &str, change: impl Fn(&mut Tensors), parts: &[&str]) {
    refused(changed(name, change).path(), parts);
}

fn refuse_config(name: &str, changes: &[(&str, Value)], parts: &[&str]) {
    let error = refused(configured(name, changes).path(), parts);
    assert!(!error.to_string().contains('\n'), "{error}");
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    for bits in [1, 2, 3, 5, 6] {
        refuse_config("gptq", &[("bits", json!(bits))], &["quantization_config.bits", &bits.to_string(), "4, 8"]);
    }
    refuse_config("awq", &[("bits", json!(8))], &["quantization_config.bits", "8", "4"]);
    refuse_config("awq", &[("version", json!("gemv"))], &["quantization_config.version", "gemv", "gemm"]);
    refuse_config("awq", &[("quant_method", json!("fp8"))], &["quant_method", "fp8", "awq, gptq, compressed-tensors"]);
    refuse_config("awq", &[("quant_method", json!(ABSENT))], &["quant_method", "absent"]);
    refuse_config("gptq", &[("checkpoint_format", json!("marlin"))], &["checkpoint_format", "marlin", "gptq_v2"]);
    refuse_config("gptq", &[("is_marlin_format", json!(true))], &["is_marlin_format"]);
    let int4 = "compressed_int4";
    let group = "config_groups.group_0";
    for format in ["float-quantized", "marlin-24", "nvfp4-pack-quantized"] {
        let change = [("format", json!(format)), ("config_groups.group_0.format", Value::Null)];
        refuse_config(int4, &change, &["quantization_config.format", format, "pack-quantized"]);
    }
    let inside = |key: &str, value: Value, parts: &[&str]| {
        refuse_config(int4, &[(&format!("{group}.{key}"), value)], parts);
    };
    inside("weights.num_bits", json!(5), &["config_groups.group_0.weights.num_bits", "5", "4, 8"]);
    inside("weights.type", json!("float"), &["group_0.weights.type", "float"]);
    inside("weights.strategy", json!("block"), &["strategy", "block", "group, channel, tensor"]);
    inside("weights.group_size", Value::Null, &["group_0.weights.group_size", "absent"]);
    inside("input_activations", json!({"dynamic": false, "num_bits": 8}), &["group_0.input_activations", "dynamic"]);
    inside("output_activations", json!({"num_bits": 8}), &["group_0.output_activations"]);
    refuse_config(int4, &[("sparsity_config", json!({"format": "sparse-24-bitmask"}))], &["sparsity_config.format"]);
    refuse_config(int4, &[("transform_config", json!({"u": 1}))], &["transform_config"]);
    refused(with_config("awq", &[("quantization_config", json!("awq"))]).path(), &["quantization_config", "an object"]);
}

#[test]
fn sizes_that_disagree_are_refused_by_tensor() {
    let scales = format!("{GATE}.scales");
    let q = "model.layers.0.self_attn.q_proj";
    // A whole row is a group under either name, of which there are then fewer than the file has.
    for key in ["group_size", "q_group_size"] {
        refuse_config("awq", &[(key, json!(-1))], &["model.safetensors", q, ".scales", "[2, 128]", "[1, 128]"]);
        refuse_config("awq", &[(key, json!(-2))], &["quantization_config", key]);
    }
    refuse_config("awq", &[("group_size", json!(32))], &["model.safetensors", q, ".scales", "[2, 128]", "[4, 128]"]);
    refuse_config("gptq", &[("group_size", json!(1))], &[q, ".scales", "[1, 128]", "[128, 128]"]);
    refuse_config("gptq", &[("bits", json!(8))], &[q, ".qweight", "[16, 128]", "[32, 128]"]);
    for size in [json!(0), json!(-2), json!("x"), json!(1.5), json!(1_u64 << 40), json!(u64::MAX)] {
        refuse_config("gptq", &[("group_size", size)], &["quantization_config.group_size"]);
    }
    Checkpoint::open(configured("gptq", &[("group_size", json!(1 << 30))]).path()).unwrap_err();
    let cut = |tensors: &mut Tensors| {
        let tensor = tensors.get_mut(&format!("{GATE}.qweight")).unwrap();
        tensor.1[0] -= 1;
        let row = 4 * tensor.1[1];
        tensor.2.truncate(tensor.2.len() - row);
    };
    refuse_tensors("gptq", cut, &[GATE, ".qweight", "[15, 256]", "[16, 256]"]);
    refuse_tensors("awq", cut, &[GATE, ".qweight", "[127, 32]", "[128, 32]"]);
    refuse_tensors("awq", |tensors| drop(tensors.remove(&scales)), &[&scales, "missing"]);
    refuse_tensors("awq", |tensors| drop(tensors.remove(&format!("{GATE}.qzeros"))), &[GATE, ".qzeros", "missing"]);
    refuse_tensors("awq", |tensors| drop(tensors.remove(&format!("{GATE}.qweight"))), &[GATE, "missing"]);
    let float = |tensors: &mut Tensors| tensors.get_mut(&format!("{GATE}.qweight")).unwrap().0 = "F32".into();
    refuse_tensors("awq", float, &[GATE, ".qweight", "F32", "I32"]);
    let integers = |tensors: &mut Tensors| tensors.get_mut(&scales).unwrap().0 = "I16".into();
    refuse_tensors("awq", integers, &[&scales, "I16", "F16, BF16, F32"]);
    let twice = |tensors: &mut Tensors| {
        tensors.insert(format!("{GATE}.weight"), ("F16".into(), vec![0], vec![]));
    };
    refuse_tensors("awq", twice, &[GATE, ".weight", "no part of a llama model"]);
    let wrong_shape = |tensors: &mut Tensors| tensors.get_mut(&format!("{GATE}.weight_shape")).unwrap().2[0] ^= 1;
    refuse_tensors("compressed_int4", wrong_shape, &[GATE, "weight_shape", "[129, 128]", "[128, 128]"]);
    let huge = [
        ("num_attention_heads", json!(1u64 << 31)),
        ("head_dim", json!(1u64 << 31)),
        ("num_key_value_heads", json!(1)),
    ];
    for name in ["awq", "gptq", "gptq_int8", "compressed_int4", "compressed_int8"] {
        refused(with_config(name, &huge).path(), &["model.layers.0.self_attn.q_proj", "shape"]);
    }
}

#[test]
fn groups_of_columns_that_are_not_there_are_refused() {
    for group in [-1i32, 4, i32::MAX, i32::MIN] {
        let change = |tensors: &mut Tensors| {
            tensors.get_mut(&format!("{GATE}.g_idx")).unwrap().2[28..32].copy_from_slice(&group.to_le_bytes());
        };
        let met = group.to_string();
        refuse_tensors("gptq_act_order", change, &[GATE, "g_idx: index 7", &met, "from 0 to 3"]);
    }
    // Columns in any other order of groups that are there are read.
    let change = |tensors: &mut Tensors| tensors.get_mut(&format!("{GATE}.g_idx")).unwrap().2.fill(0);
    Checkpoint::open(changed("gptq_act_order", change).path()).unwrap();
}

#[test]
fn numbers_that_cannot_be_are_found_before_they_are_uploaded() {
    let check = |folder: TempDir| Checkpoint::open(folder.path()).unwrap().check_finite(GATE_ROLE).unwrap_err();
    let scale = |name: &str, end: &str, bits: u16| {
        let end = format!("{GATE}.{end}");
        check(changed(name, |tensors| tensors.get_mut(&end).unwrap().2[6..8].copy_from_slice(&bits.to_le_bytes())))
    };
    for (name, end, infinite) in
        [("awq", "scales", 0x7c00), ("gptq", "scales", 0xfe00), ("compressed_int4", "weight_scale", 0x7f80)]
    {
        let error = scale(name, end, infinite);
        let is_it = matches!(&error, Error::NotFinite { name, index: 3, .. } if *name == format!("{GATE}.{end}"));
        assert!(is_it, "{name}: {error}");
    }
    // The first version of GPTQ counts zero points from one: 255 in a file is 256.
    let older = configured("gptq_int8", &[("checkpoint_format", json!(ABSENT))]);
    let path = older.path().join("model.safetensors");
    let mut all = tensors(&path);
    all.get_mut(&format!("{GATE}.qzeros")).unwrap().2.fill(3);
    all.get_mut(&format!("{GATE}.qzeros")).unwrap().2[5] = 0xff;
    write(&path, &all);
    let out = older.path().join("out");
    let options = FolderOptions {
        to: "q4".parse().unwrap(),
        keep: &[],
        importance: &|_| None,
        shard_bytes: None,
        interrupted: None,
    };
    let written = write_folder(&Checkpoint::open(older.path()).unwrap(), &out, &options, &mut |_, _| ()).unwrap_err();
    let parts = ["model.safetensors", GATE, "qzeros", "output 5, group 0", "256", "0 to 255"];
    for message in [written.to_string(), check(older).to_string()] {
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    assert!(!out.exists());
    // compressed-tensors' zero points as bytes, which older versions wrote.
    let bytes = |value: u8| {
        changed("compressed_int4", |tensors| {
            let zeros = tensors.get_mut(&format!("{GATE}.weight_zero_point")).unwrap();
            *zeros = ("I8".into(), vec![128, 4], vec![value; 512]);
        })
    };
    Checkpoint::open(bytes(0xf8).path()).unwrap().check_finite(GATE_ROLE).unwrap();
    let message = check(bytes(8)).to_string();
    assert!(message.contains("is 16, wanted a number from 0 to 15"), "{message}");
    let message = check(bytes(0xf7)).to_string();
    assert!(message.contains("is -1, wanted a number from 0 to 15"), "{message}");
}

#[test]
fn what_writers_add_is_no_hindrance() {
    let bias = |value: u8| {
        move |tensors: &mut Tensors| {
            tensors.insert(format!("{GATE}.bias"), ("F16".into(), vec![256], vec![value; 512]));
        }
    };
    Checkpoint::open(changed("gptq", bias(0)).path()).unwrap();
    refuse_tensors("gptq", bias(1), &[GATE, ".bias", "no part of a llama model"]);
    // The scales of a quantised cache.
    let scales = |tensors: &mut Tensors| {
        tensors.insert("model.layers.0.self_attn.k_scale".into(), ("F32".into(), vec![1], vec![0; 4]));
    };
    refuse_tensors("compressed_int4", scales, &["k_scale", "no part"]);
    let folder = configured("compressed_int4", &[("kv_cache_scheme", json!({"num_bits": 8}))]);
    let path = folder.path().join("model.safetensors");
    let mut all = tensors(&path);
    scales(&mut all);
    write(&path, &all);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert!(checkpoint.notes().iter().any(|note| note.contains("kv_cache_scheme")), "{:?}", checkpoint.notes());
    // Older GPTQ folders have a file of their own.
    let config: Value = serde_json::from_slice(&fs::read(golden("gptq").join("config.json")).unwrap()).unwrap();
    let folder = with_config("gptq", &[("quantization_config", json!(ABSENT))]);
    refused(folder.path(), &["q_proj.weight", "missing"]);
    fs::write(folder.path().join("quantize_config.json"), config["quantization_config"].to_string()).unwrap();
    Checkpoint::open(folder.path()).unwrap();
    fs::write(folder.path().join("quantize_config.json"), r#"{"bits": 3, "group_size": 128}"#).unwrap();
    refused(folder.path(), &["quantize_config.json", "bits", "3"]);
}

#[test]
fn no_value_of_any_key_is_a_panic() {
    let odd = [
        json!(null),
        json!(-1),
        json!(0),
        json!(1e300),
        json!(u64::MAX),
        json!("x"),
        json!([]),
        json!({}),
        json!(true),
    ];
    for name in ["awq", "gptq", "compressed_int4", "compressed_int8"] {
        let config: Value = serde_json::from_slice(&fs::read(golden(name).join("config.json")).unwrap()).unwrap();
        let mut paths = Vec::new();
        let mut open = vec![(String::new(), &config["quantization_config"])];
        while let Some((path, value)) = open.pop() {
            for (key, value) in value.as_object().into_iter().flatten() {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                paths.push(path.clone());
                open.push((path, value));
            }
        }
        for path in &paths {
            for value in &odd {
                if let Ok(checkpoint) = Checkpoint::open(configured(name, &[(path, value.clone())]).path()) {
                    let _ = checkpoint.check_finite(GATE_ROLE);
                }
            }
        }
    }
}
