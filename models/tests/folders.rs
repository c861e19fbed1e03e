//! Every golden folder opens as what it is.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::path::{Path, PathBuf};

use raglan_models::{Activation, Checkpoint, Format, LayerRole, Role, RopeScaling};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

#[test]
fn every_golden_folder_opens_with_every_tensor_in_its_shape() {
    for name in ["llama", "llama_tied_bias", "llama3_rope", "mistral_swa", "qwen2", "qwen3", "smollm3"] {
        let checkpoint = Checkpoint::open(&golden(name)).unwrap();
        let spec = checkpoint.spec();
        assert_eq!((spec.vocab_size, spec.hidden_size, spec.hidden_act), (320, 64, Activation::Silu), "{name}");
        for role in spec.roles() {
            let tensor = checkpoint.tensor(role).unwrap().unwrap();
            assert_eq!(tensor.bytes.len(), tensor.rows * tensor.cols * 4, "{name}: {role:?}");
            checkpoint.check_finite(role).unwrap();
            if spec.shape(role).len() == 1 {
                assert_eq!(checkpoint.vector(role).unwrap().unwrap().len(), tensor.cols, "{name}: {role:?}");
            }
        }
        let used = checkpoint.formats();
        assert_eq!((used.len(), used[0].format), (1, Format::F32), "{name}");
        assert_eq!(checkpoint.weight_bytes(), 4 * checkpoint.parameters(), "{name}");
    }
}

#[test]
fn each_golden_folder_has_what_makes_its_family() {
    let open = |name: &str| Checkpoint::open(&golden(name)).unwrap();
    let has = open("llama_tied_bias").spec().has;
    assert!(has.qkv_bias && has.o_bias && has.mlp_bias && !has.lm_head && !has.qk_norm);
    let llama = open("llama");
    assert!(llama.spec().has.lm_head && llama.tensor(Role::Layer(0, LayerRole::QBias)).unwrap().is_none());
    assert!(llama.tensor(Role::Layer(3, LayerRole::Q)).unwrap().is_none(), "three layers");
    assert!(matches!(open("llama3_rope").spec().rope.scaling, RopeScaling::Llama3 { factor: 8.0, .. }));
    assert!(open("mistral_swa").spec().layers.iter().all(|layer| layer.sliding_window == Some(16) && layer.rope));
    let qwen2 = open("qwen2");
    assert!(qwen2.spec().has.qkv_bias && !qwen2.spec().has.o_bias && qwen2.spec().rope.theta == 1e6);
    let qwen3 = open("qwen3");
    assert!(qwen3.spec().has.qk_norm && !qwen3.spec().has.qkv_bias && qwen3.spec().head_dim == 32);
    let rope: Vec<bool> = open("smollm3").spec().layers.iter().map(|layer| layer.rope).collect();
    assert_eq!(rope, [true, false, true, false]);
}

#[test]
fn the_embedded_model_opens_and_brings_its_tokenizer() {
    let tiny = Checkpoint::tiny().unwrap();
    assert_eq!((tiny.spec().vocab_size, tiny.spec().layers.len(), tiny.formats()[0].format), (2048, 5, Format::F16));
    assert!(tiny.file("tokenizer.json").unwrap().is_some_and(|bytes| bytes.starts_with(b"{")));
    assert!(tiny.file("chat_template.jinja").unwrap().is_none() && tiny.metadata().is_none());
}
