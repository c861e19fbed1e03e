//! Folders of AWQ, GPTQ and compressed-tensors decode to the very numbers that other programs made of them.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod checkpoint_support;

use std::fs;

use checkpoint_support::golden;
use raglan_models::{Checkpoint, Format, LayerRole, Naming, Role, Tensor};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Names, and the formats of their matrices beside the embedding's f16.
const FOLDERS: [(&str, Format); 7] = [
    ("awq", Format::I4G32),
    ("gptq", Format::I4G128),
    ("compressed_int8", Format::I8G128),
    ("compressed_int4", Format::I4G32),
    ("compressed_tensor", Format::I8G128),
    ("gptq_int8", Format::I8G32),
    ("gptq_act_order", Format::F16),
];

const MATRICES: [LayerRole; 7] =
    [LayerRole::Q, LayerRole::K, LayerRole::V, LayerRole::O, LayerRole::Gate, LayerRole::Up, LayerRole::Down];

fn rows(tensor: &Tensor<'_>, rows: std::ops::Range<usize>) -> Vec<u8> {
    let mut out = vec![0xee; rows.len() * tensor.format.row_bytes(tensor.cols).unwrap()];
    tensor.write_rows(rows, &mut out);
    out
}

#[test]
fn every_matrix_is_what_its_writer_reads() {
    for (name, format) in FOLDERS {
        let checkpoint = Checkpoint::open(&golden(name)).unwrap();
        let json: Value = serde_json::from_slice(&fs::read(golden(name).join("golden.json")).unwrap()).unwrap();
        for layer in 0..checkpoint.spec().layers.len() {
            for role in MATRICES.map(|role| Role::Layer(layer, role)) {
                checkpoint.check_finite(role).unwrap();
                let tensor = checkpoint.tensor(role).unwrap().unwrap();
                assert_eq!((tensor.format, tensor.bytes.len()), (format, 0), "{name}: {}", tensor.name);
                let mut values = vec![0.0f32; tensor.rows * tensor.cols];
                tensor.format.decode(&rows(&tensor, 0..tensor.rows), &mut values);
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                let met: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
                let wanted = &json["sha256"][Naming::HuggingFace.name(role)];
                assert_eq!(*wanted, met, "{name}: {}: {:?}", tensor.name, &values[..8]);
            }
        }
        let used = checkpoint.formats();
        assert!(used.iter().any(|used| used.format == format && used.tensors >= 7), "{name}: {used:?}");
    }
}

#[test]
fn rows_are_the_same_whatever_band_they_are_made_in() {
    for (name, _) in FOLDERS {
        let checkpoint = Checkpoint::open(&golden(name)).unwrap();
        let tensor = checkpoint.tensor(Role::Layer(0, LayerRole::Gate)).unwrap().unwrap();
        let whole = rows(&tensor, 0..tensor.rows);
        let row_bytes = whole.len() / tensor.rows;
        for band in [0..1, 5..6, 7..9, 3..100, 100..tensor.rows, 127..128, 64..64] {
            let part = rows(&tensor, band.clone());
            assert_eq!(part, whole[band.start * row_bytes..band.end * row_bytes], "{name}: {band:?}");
        }
    }
}

#[test]
fn what_a_user_should_know_is_told() {
    let notes = |name: &str| Checkpoint::open(&golden(name)).unwrap().notes().join("\n");
    assert_eq!(notes("awq"), "");
    assert!(notes("gptq_act_order").contains("7 matrices are decoded to 16-bit floats"), "{}", notes("gptq_act_order"));
    assert!(notes("compressed_int8").contains("activations are not quantised"), "{}", notes("compressed_int8"));
}

/// `cargo test --release -p raglan-models --test quantised -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn how_fast_rows_are_made() {
    const ROWS: usize = 11008;
    const COLS: usize = 4096;
    const GROUPS: usize = COLS / 128;
    let awq = [
        ("qweight", "I32", [COLS, ROWS / 8]),
        ("qzeros", "I32", [GROUPS, ROWS / 8]),
        ("scales", "F16", [GROUPS, ROWS]),
    ];
    let gptq = |bits: usize| {
        let each = 32 / bits;
        [
            ("qweight", "I32", [COLS / each, ROWS]),
            ("qzeros", "I32", [GROUPS, ROWS / each]),
            ("scales", "F16", [GROUPS, ROWS]),
        ]
    };
    let packed = [
        ("weight_packed", "I32", [ROWS, COLS / 8]),
        ("weight_scale", "BF16", [ROWS, GROUPS]),
        ("weight_zero_point", "I32", [ROWS / 8, GROUPS]),
    ];
    let weights = json!({"num_bits": 4, "type": "int", "symmetric": false, "strategy": "group", "group_size": 128});
    let groups = json!({"group_0": {"targets": ["Linear"], "weights": weights}});
    for (name, parts, config) in [
        ("AWQ", awq, json!({"quant_method": "awq", "bits": 4, "group_size": 128})),
        ("GPTQ of 4 bits", gptq(4), json!({"quant_method": "gptq", "bits": 4, "group_size": 128})),
        ("GPTQ of 8 bits", gptq(8), json!({"quant_method": "gptq", "bits": 8, "group_size": 128})),
        (
            "compressed-tensors of 4 bits",
            packed,
            json!({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups}),
        ),
    ] {
        let folder = one_matrix(&parts, &config);
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let tensor = checkpoint.tensor(Role::Layer(0, LayerRole::Gate)).unwrap().unwrap();
        let row_bytes = tensor.format.row_bytes(tensor.cols).unwrap();
        // As many rows as a part of the upload ring has.
        let band = (8 << 20) / row_bytes;
        let mut out = vec![0; band * row_bytes];
        let mut least = f64::INFINITY;
        for _ in 0..5 {
            let start = std::time::Instant::now();
            for first in (0..ROWS).step_by(band) {
                let rows = first..(first + band).min(ROWS);
                tensor.write_rows(rows.clone(), &mut out[..rows.len() * row_bytes]);
            }
            least = least.min(start.elapsed().as_secs_f64());
        }
        println!("{name}: {:.0} MB/s of blocks", (ROWS * row_bytes) as f64 / least / 1e6);
    }
}

/// A folder with one layer whose matrices are like this, of random bits and scales of one.
fn one_matrix(parts: &[(&str, &str, [usize; 2])], quantization: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 1,
        "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 64, "vocab_size": 32, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 64, "tie_word_embeddings": true, "quantization_config": quantization
    });
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    let mut add = |name: String, dtype: &str, shape: &[usize]| {
        let bytes = shape.iter().product::<usize>() * if dtype == "I32" { 4 } else { 2 };
        let byte = |index: usize| match dtype {
            "I32" => (index.wrapping_mul(2_654_435_761) >> 13) as u8,
            "BF16" => [0x80, 0x3f][index % 2],
            _ => [0x00, 0x3c][index % 2],
        };
        header.insert(name, json!({"dtype": dtype, "shape": shape, "data_offsets": [data.len(), data.len() + bytes]}));
        data.extend((0..bytes).map(byte));
    };
    let layer = "model.layers.0";
    add("model.embed_tokens.weight".into(), "F16", &[32, 4096]);
    for norm in ["model.norm", "model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm"] {
        add(format!("{norm}.weight"), "F16", &[4096]);
    }
    for (module, shape) in [
        ("self_attn.q_proj", [64, 4096]),
        ("self_attn.k_proj", [64, 4096]),
        ("self_attn.v_proj", [64, 4096]),
        ("self_attn.o_proj", [4096, 64]),
        ("mlp.down_proj", [4096, 11008]),
        ("mlp.up_proj", [11008, 4096]),
    ] {
        add(format!("{layer}.{module}.weight"), "F16", &shape);
    }
    for (end, dtype, shape) in parts {
        add(format!("{layer}.mlp.gate_proj.{end}"), dtype, shape);
    }
    let file = checkpoint_support::safetensors_file(&Value::Object(header).to_string(), &data);
    fs::write(folder.path().join("model.safetensors"), file).unwrap();
    folder
}
