//! Folders of AWQ, GPTQ and compressed-tensors decode to the very numbers that other programs made of them.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod checkpoint_support;

use std::fs;

use checkpoint_support::golden;
use raglan_models::{Checkpoint, Format, LayerRole, Naming, Role, Tensor};
use serde_json::Value;
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
