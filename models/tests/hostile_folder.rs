//! Folders that are cut, lie or overlap: each a clear error that names file and field, none a panic.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod checkpoint_support;

use std::fs::{self, OpenOptions};
use std::path::Path;

use checkpoint_support::{copy_of, golden, refused, safetensors_file, split_safetensors, with_config};
use raglan_models::{Checkpoint, Error, Role};
use serde_json::{Map, Value, json};

/// The golden llama with its header changed; the message must name the file and hold `parts`.
fn check_header(change: impl Fn(&mut Map<String, Value>), parts: &[&str]) {
    let folder = copy_of("llama");
    let path = folder.path().join("model.safetensors");
    let (mut header, data) = split_safetensors(&path);
    change(&mut header);
    fs::write(&path, safetensors_file(&Value::Object(header).to_string(), &data)).unwrap();
    let error = refused(folder.path(), parts).to_string();
    assert!(error.contains("model.safetensors") || error.contains("is missing"), "{error}");
}

const NORM: &str = "model.layers.1.input_layernorm.weight";

#[test]
fn a_file_cut_anywhere_is_refused() {
    let folder = copy_of("llama");
    let path = folder.path().join("model.safetensors");
    let length = fs::metadata(&path).unwrap().len();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let in_data = (4000..length).rev().step_by(8111);
    for cut in in_data.chain((0..4000).rev()) {
        file.set_len(cut).unwrap();
        refused(folder.path(), &["model.safetensors"]);
    }
    let config = folder.path().join("config.json");
    fs::copy(golden("llama").join("model.safetensors"), &path).unwrap();
    let length = fs::metadata(&config).unwrap().len();
    let file = OpenOptions::new().write(true).open(&config).unwrap();
    for cut in (0..length).rev().skip(1) {
        file.set_len(cut).unwrap();
        refused(folder.path(), &["config.json"]);
    }
}

#[test]
fn a_header_that_lies_is_refused() {
    let raw = |bytes: &[u8], parts: &[&str]| {
        let folder = copy_of("llama");
        fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        refused(folder.path(), &["model.safetensors"]);
        refused(folder.path(), parts);
    };
    raw(&u64::MAX.to_le_bytes(), &["header's length", "18446744073709551615"]);
    raw(&[&(1u64 << 62).to_le_bytes()[..], b"{}"].concat(), &["header's length"]);
    raw(&[&99_999_999u64.to_le_bytes()[..], b"{}"].concat(), &["header's length", "99999999"]);
    raw(&[&4u64.to_le_bytes()[..], b"\xff\xff\xff\xff"].concat(), &["the header", "no JSON"]);
    raw(&safetensors_file("[1, 2]", b""), &["the header", "no JSON object"]);
    raw(&safetensors_file(&"[".repeat(100_000), b""), &["the header", "no JSON object"]);
    raw(&[&7u64.to_le_bytes()[..], b"{\"\xff\":1}"].concat(), &["the header"]);
    let folder = copy_of("llama");
    fs::write(folder.path().join("model.safetensors"), safetensors_file("{}", b"")).unwrap();
    refused(folder.path(), &["config.json", "num_hidden_layers", "number of tensors"]);
}

#[test]
fn ranges_that_overlap_leave_the_file_or_overflow_are_refused() {
    check_header(|header| header[NORM]["data_offsets"] = json!([0, 256]), &["data_offsets", "overlapping"]);
    check_header(|header| header[NORM]["data_offsets"] = json!([256, 0]), &["data_offsets"]);
    check_header(|header| header[NORM]["data_offsets"] = json!([u64::MAX - 256, u64::MAX]), &["tensor"]);
    check_header(|header| header[NORM]["data_offsets"] = json!([-1, 256]), &[NORM, "shape and data_offsets"]);
    check_header(|header| header[NORM]["shape"] = json!([u64::MAX, u64::MAX]), &[NORM, "shape"]);
    check_header(|header| header[NORM]["shape"] = json!([63]), &[NORM, "shape", "[63]"]);
    check_header(|header| header[NORM]["dtype"] = json!("F33"), &[NORM, "F33"]);
    check_header(|header| header[NORM] = json!(7), &[NORM]);
    // Sizes whose sum wraps round to just what the file has: 8 + header + sum = the file's length modulo 2^64.
    let pieces = 1u64 << 60;
    let mut header = Map::new();
    for index in 0..16 {
        let end = if index == 15 { u64::MAX - 4095 } else { (index + 1) * pieces };
        let offsets = json!([index * pieces, end]);
        header.insert(
            format!("t{index:02}"),
            json!({"dtype": "U8", "shape": [end - index * pieces], "data_offsets": offsets}),
        );
    }
    let folder = copy_of("llama");
    let mut text = Value::Object(header).to_string();
    text.push_str(&" ".repeat(8192 - text.len()));
    fs::write(folder.path().join("model.safetensors"), safetensors_file(&text, &[0; 4096])).unwrap();
    refused(folder.path(), &["model.safetensors", "the data", "18446744073709547520"]);
}

#[test]
fn tensors_that_are_absent_misshapen_strange_or_too_many_are_refused_by_name() {
    let rename = |header: &mut Map<String, Value>, name: &str| {
        let info = header.remove(NORM).unwrap();
        header.insert(name.into(), info);
    };
    check_header(|header| rename(header, "model.rotary_emb.inv_freq"), &[NORM, "missing", "[64]"]);
    let extra = "model.layers.0.self_attn.q_norm.weight";
    let empty = json!({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]});
    check_header(|header| drop(header.insert(extra.into(), empty.clone())), &[extra, "llama"]);
    check_header(|header| header[NORM]["shape"] = json!([8, 8]), &[NORM, "[8, 8]", "[64]"]);
    check_header(|header| header[NORM]["dtype"] = json!("I32"), &[NORM, "I32", "F32, F16, BF16"]);
    let q = "model.layers.0.self_attn.q_proj.weight";
    check_header(|header| header[q]["shape"] = json!([32, 128]), &[q, "[32, 128]", "[64, 64]"]);
    refused(
        with_config("llama", &[("tie_word_embeddings", json!(true)), ("attention_bias", json!(true))]).path(),
        &["q_proj.bias", "missing"],
    );
    Checkpoint::open(with_config("llama", &[("tie_word_embeddings", json!(true))]).path()).unwrap();
    refused(with_config("llama", &[("num_hidden_layers", json!(2))]).path(), &["model.layers.2."]);
    refused(with_config("qwen2", &[("tie_word_embeddings", json!(false))]).path(), &["lm_head.weight", "missing"]);
}

#[test]
fn numbers_that_are_not_finite_are_refused_by_name() {
    let poison = |name: &str| {
        let folder = copy_of("llama");
        let path = folder.path().join("model.safetensors");
        let (header, mut data) = split_safetensors(&path);
        let start = header[name]["data_offsets"][0].as_u64().unwrap() as usize;
        data[start + 12..start + 16].copy_from_slice(&f32::NAN.to_le_bytes());
        fs::write(&path, safetensors_file(&Value::Object(header).to_string(), &data)).unwrap();
        folder
    };
    refused(poison(NORM).path(), &["model.safetensors", NORM, "NaN at index 3"]);
    let folder = poison("lm_head.weight");
    let error = Checkpoint::open(folder.path()).unwrap().check_finite(Role::LmHead).unwrap_err();
    assert!(matches!(&error, Error::NotFinite { name, index: 3, .. } if name == "lm_head.weight"), "{error}");
}

/// The golden llama in two shards.
fn sharded(folder: &Path) -> Map<String, Value> {
    let (header, data) = split_safetensors(&folder.join("model.safetensors"));
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    let names: Vec<&String> = header.keys().filter(|name| *name != "__metadata__").collect();
    let mut weight_map = Map::new();
    for (shard, names) in names.chunks(names.len() / 2 + 1).enumerate() {
        let file = format!("model-{:05}-of-00002.safetensors", shard + 1);
        let (mut part, mut bytes) = (Map::new(), Vec::new());
        for name in names {
            let mut info = header[*name].clone();
            let [start, end] = [0, 1].map(|at| info["data_offsets"][at].as_u64().unwrap() as usize);
            info["data_offsets"] = json!([bytes.len(), bytes.len() + end - start]);
            bytes.extend(&data[start..end]);
            part.insert((*name).clone(), info);
            weight_map.insert((*name).clone(), json!(file));
        }
        fs::write(folder.join(file), safetensors_file(&Value::Object(part).to_string(), &bytes)).unwrap();
    }
    weight_map
}

#[test]
fn shards_are_one_checkpoint_and_their_index_stays_in_the_folder() {
    let folder = copy_of("llama");
    let weight_map = sharded(folder.path());
    let write = |weight_map: &Map<String, Value>| {
        let index = json!({"metadata": {"total_size": 0}, "weight_map": weight_map});
        fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    };
    write(&weight_map);
    let (whole, parts) = (Checkpoint::open(&golden("llama")).unwrap(), Checkpoint::open(folder.path()).unwrap());
    for role in whole.spec().roles() {
        let [whole, parts] = [&whole, &parts].map(|checkpoint| checkpoint.tensor(role).unwrap().unwrap().bytes);
        assert_eq!(whole, parts, "{role:?}");
    }
    let index = "model.safetensors.index.json";
    for escape in ["../model.safetensors", "/etc/passwd", "..", "", "a/../b", "C:\\x", "sub/model.safetensors", "."] {
        let mut weight_map = weight_map.clone();
        weight_map[NORM] = json!(escape);
        write(&weight_map);
        refused(folder.path(), &[index, "weight_map", &format!("{escape:?}")]);
    }
    let mut wrong = weight_map.clone();
    wrong[NORM] = json!("model-00003-of-00002.safetensors");
    write(&wrong);
    refused(folder.path(), &[index, "model-00003-of-00002.safetensors", "missing"]);
    wrong[NORM] = json!(["a"]);
    write(&wrong);
    refused(folder.path(), &[index, NORM]);
    let mut elsewhere = weight_map.clone();
    elsewhere.insert("lm_head.weight".into(), json!("model-00002-of-00002.safetensors"));
    write(&elsewhere);
    refused(folder.path(), &[index, "lm_head.weight", "model-00002-of-00002.safetensors"]);
    fs::write(folder.path().join(index), "{}").unwrap();
    refused(folder.path(), &[index, "weight_map"]);
    fs::remove_file(folder.path().join("model-00002-of-00002.safetensors")).unwrap();
    write(&weight_map);
    refused(folder.path(), &[index, "model-00002-of-00002.safetensors", "missing"]);
}

#[test]
fn folders_without_weights_say_what_is_there() {
    let folder = copy_of("llama");
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    refused(folder.path(), &["model.safetensors", ".gguf"]);
    fs::write(folder.path().join("pytorch_model.bin"), "").unwrap();
    refused(folder.path(), &["pytorch_model.bin", "pickle"]);
}
