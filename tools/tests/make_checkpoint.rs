//! Made checkpoints open, in every format and family, and are the same for the same seed.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::path::{Path, PathBuf};

use raglan_models::{Checkpoint, Format, ModelSpec, RopeScaling};
use raglan_tools::make_checkpoint::{Error, Recipe, make};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name).join("config.json")
}

fn open(recipe: &Recipe, out: &Path) -> Checkpoint {
    make(recipe, out).unwrap();
    let checkpoint = Checkpoint::open(out).unwrap();
    for role in checkpoint.spec().roles() {
        checkpoint.check_finite(role).unwrap();
    }
    checkpoint
}

#[test]
fn every_family_opens_from_both_containers() {
    let scratch = tempfile::tempdir().unwrap();
    for name in ["llama", "llama_tied_bias", "llama3_rope", "mistral_swa", "qwen2", "qwen3", "smollm3"] {
        let recipe = Recipe { config: golden(name), format: Format::F16, seed: 7 };
        let mut spec = ModelSpec::from_config(&recipe.config).unwrap();
        assert_eq!(*open(&recipe, &scratch.path().join(name)).spec(), spec, "{name}");
        let file = open(&recipe, &scratch.path().join(format!("{name}.gguf")));
        let mut met = file.spec().clone();
        for (wanted, met) in spec.rope.inv_freq().into_iter().zip(met.rope.inv_freq()) {
            assert!((wanted / met - 1.0).abs() < f64::from(f32::EPSILON), "{name}");
        }
        (met.rope.scaling, spec.rope.scaling) = (RopeScaling::Default, RopeScaling::Default);
        if name == "smollm3" {
            met.layers.clone_from(&spec.layers); // a GGUF file does not say which layers have no RoPE
        }
        assert_eq!(met, spec, "{name}");
    }
}

#[test]
fn every_format_is_written_and_a_seed_gives_its_bytes() {
    let scratch = tempfile::tempdir().unwrap();
    let config = scratch.path().join("config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(golden("llama")).unwrap()).unwrap();
    for (key, value) in [("hidden_size", 256), ("intermediate_size", 512), ("head_dim", 64)] {
        json[key] = value.into();
    }
    fs::write(&config, json.to_string()).unwrap();
    for format in Format::ALL.into_iter().filter(|format| format.is_in_gguf()) {
        let bytes = |seed: u64, name: &str| {
            let out = scratch.path().join(name);
            let recipe = Recipe { config: config.clone(), format, seed };
            let used = open(&recipe, &out).formats();
            assert!(used.iter().any(|used| used.format == format), "{format}");
            fs::read(out).unwrap()
        };
        assert!(bytes(1, "a.gguf") == bytes(1, "b.gguf"), "{format}: the same seed");
        assert!(bytes(1, "a.gguf") != bytes(2, "b.gguf"), "{format}: another seed");
    }
}

#[test]
fn what_cannot_be_made_is_said() {
    let scratch = tempfile::tempdir().unwrap();
    let recipe = Recipe { config: golden("llama"), format: Format::Q4K, seed: 0 };
    let error = make(&recipe, &scratch.path().join("x.gguf")).unwrap_err();
    assert!(matches!(&error, Error::Blocks { cols: 64, .. }), "{error}");
    let error = make(&recipe, &scratch.path().join("folder")).unwrap_err();
    assert!(error.to_string().contains("not Q4_K"), "{error}");
}
