//! GGUF files say the same as the folders that they were made from.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod checkpoint_support;

use std::fs;

use checkpoint_support::{GgufFile, gguf_of, golden, half_bytes, refused};
use raglan_models::{Checkpoint, Format, LayerRole, Role, RopeScaling, RowOrder};

fn write(file: &GgufFile) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, file.bytes().0).unwrap();
    (folder, path)
}

#[test]
fn every_row_comes_back_in_the_models_order_whatever_the_writer_permuted() {
    for name in ["llama", "llama_tied_bias", "llama3_rope", "mistral_swa", "qwen2", "qwen3", "smollm3"] {
        let folder = Checkpoint::open(&golden(name)).unwrap();
        let (_scratch, path) = write(&gguf_of(&folder));
        let file = Checkpoint::open(&path).unwrap();
        assert_eq!(folder.parameters(), file.parameters(), "{name}");
        for role in folder.spec().roles() {
            let (wanted, met) = (folder.tensor(role).unwrap().unwrap(), file.tensor(role).unwrap().unwrap());
            if folder.spec().shape(role).len() == 1 {
                assert_eq!(folder.vector(role).unwrap(), file.vector(role).unwrap(), "{name}: {role:?}");
                continue;
            }
            assert_eq!((met.format, met.rows, met.cols), (Format::F16, wanted.rows, wanted.cols), "{name}: {role:?}");
            for row in 0..met.rows {
                assert_eq!(met.row(row), half_bytes(wanted.row(row)), "{name}: {role:?} row {row}");
            }
        }
        let permuted = file.tensor(Role::Layer(0, LayerRole::Q)).unwrap().unwrap().row_order != RowOrder::Plain;
        assert_eq!(permuted, !name.starts_with("qwen"), "{name}");
    }
}

#[test]
fn the_spec_is_the_folders() {
    for name in ["llama", "llama_tied_bias", "llama3_rope", "mistral_swa", "qwen2", "qwen3", "smollm3"] {
        let mut wanted = Checkpoint::open(&golden(name)).unwrap().spec().clone();
        let (_scratch, path) = write(&gguf_of(&Checkpoint::open(&golden(name)).unwrap()));
        let file = Checkpoint::open(&path).unwrap();
        let mut met = file.spec().clone();
        for (wanted, met) in wanted.rope.inv_freq().into_iter().zip(met.rope.inv_freq()) {
            assert!((wanted / met - 1.0).abs() < f64::from(f32::EPSILON), "{name}: {wanted} and {met}");
        }
        wanted.rope.scaling = RopeScaling::Default;
        met.rope.scaling = RopeScaling::Default;
        if name == "smollm3" {
            // A GGUF file does not say which layers; every fourth has none.
            let rope: Vec<bool> = met.layers.iter().map(|layer| layer.rope).collect();
            assert_eq!(rope, [true, true, true, false]);
            met.layers = wanted.layers.clone();
        }
        assert_eq!(wanted, met, "{name}");
    }
}

#[test]
fn scalings_and_their_keys_are_read() {
    let golden = Checkpoint::open(&golden("llama")).unwrap();
    let mut file = gguf_of(&golden);
    file.f32("llama.rope.scaling.factor", 4.0);
    let (_scratch, path) = write(&file);
    assert_eq!(Checkpoint::open(&path).unwrap().spec().rope.scaling, RopeScaling::Linear { factor: 4.0 });

    file.text("llama.rope.scaling.type", "yarn");
    file.u32("llama.rope.scaling.original_context_length", 64);
    let (_scratch, path) = write(&file);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let RopeScaling::Yarn { factor, original_max_position_embeddings, attention_factor, .. } =
        checkpoint.spec().rope.scaling
    else {
        panic!("{:?}", checkpoint.spec().rope)
    };
    assert_eq!((factor, original_max_position_embeddings), (4.0, 64.0));
    assert!((attention_factor - (0.1 * 4f64.ln() + 1.0)).abs() < 4.0 * f64::EPSILON);

    file.set("llama.rope.scaling.type", 8, [&8u64.to_le_bytes()[..], b"longrope"].concat());
    let (_scratch, path) = write(&file);
    refused(&path, &["model.gguf", "llama.rope.scaling.type", "longrope", "yarn"]);
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    let golden = Checkpoint::open(&golden("llama")).unwrap();
    let refuse = |change: &dyn Fn(&mut GgufFile), parts: &[&str]| {
        let mut file = gguf_of(&golden);
        change(&mut file);
        let (_scratch, path) = write(&file);
        refused(&path, parts);
    };
    let gemma = [&5u64.to_le_bytes()[..], b"gemma"].concat();
    refuse(&|file| file.set("general.architecture", 8, gemma.clone()), &["general.architecture", "gemma", "qwen3"]);
    refuse(&|file| file.u32("llama.expert_count", 8), &["llama.expert_count", "8"]);
    refuse(&|file| file.f32("llama.attn_logit_softcapping", 50.0), &["llama.attn_logit_softcapping", "50"]);
    refuse(&|file| file.set("llama.attention.causal", 7, vec![0]), &["llama.attention.causal", "false"]);
    refuse(&|file| file.u32("split.count", 2), &["split.count", "gguf-split"]);
    refuse(
        &|file| file.set("llama.rope.dimension_count", 4, 8u32.to_le_bytes().into()),
        &["llama.rope.dimension_count"],
    );
    refuse(&|file| file.tensor("blk.0.attn_q.weight").2 = 10, &["blk.0.attn_q.weight", "Q2_K", "Q4_K"]);
    refuse(
        &|file| file.tensor("blk.0.attn_q.weight").0 = "blk.0.attn_qkv.weight".into(),
        &["blk.0.attn_q.weight", "missing"],
    );
    let extra = ("blk.0.attn_q_norm.weight".into(), vec![16], 0, vec![0; 64]);
    refuse(&|file| file.tensors.push(extra.clone()), &["blk.0.attn_q_norm.weight", "llama"]);
    refuse(&|file| file.version = 1, &["version", "1", "2, 3"]);
    refuse(&|file| file.version = 3u32.swap_bytes(), &["byte order", "big-endian"]);
}

#[test]
fn blocks_decode_to_the_bits_of_the_reference() {
    let bytes = fs::read(golden("gguf_blocks").join("golden.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let quantised = Format::ALL.into_iter().filter(|format| format.is_in_gguf() && format.block().0 > 1);
    for format in quantised {
        let tensor = |end: &str| file.tensor(&format!("{format}.{end}")).unwrap();
        let (blocks, wanted) = (tensor("blocks"), tensor("values"));
        let mut met = vec![0.0; wanted.data().len() / 4];
        format.decode(blocks.data(), &mut met);
        let wanted = wanted.data().chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        assert!(met.len() >= 2048 && met.iter().any(|value| *value != 0.0), "{format}");
        for (index, (met, wanted)) in met.iter().zip(wanted).enumerate() {
            assert_eq!(met.to_bits(), wanted, "{format}: value {index}: {met} where {} is", f32::from_bits(wanted));
        }
    }
}
