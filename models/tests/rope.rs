//! RoPE's scalings against transformers.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod checkpoint_support;

use checkpoint_support::{refused, with_config};
use raglan_models::{Checkpoint, RopeScaling};
use serde_json::{Value, json};

/// The values of `models/tests/golden/rope_scaling.json`, which tells what made it.
#[test]
fn scaled_frequencies_are_those_of_transformers() {
    let golden: Value = serde_json::from_str(include_str!("golden/rope_scaling.json")).unwrap();
    let mut met = 0;
    for case in golden["cases"].as_array().unwrap() {
        let mut scaling = case["rope_scaling"].clone();
        scaling["rope_theta"] = case["rope_theta"].clone();
        let partial = scaling.get("partial_rotary_factor").and_then(Value::as_f64).unwrap_or(1.0);
        let changes =
            [("rope_parameters", scaling), ("max_position_embeddings", case["max_position_embeddings"].clone())];
        let folder = with_config("llama", &changes);
        let mut rope = Checkpoint::open(folder.path()).unwrap().spec().rope.clone();
        // The folder's own heads are of another width.
        rope.rotary_dim = (case["head_dim"].as_f64().unwrap() * partial) as usize;
        for of in case["of"].as_array().unwrap() {
            let longest = of["longest"].as_u64().unwrap() as usize;
            let rope = rope.for_context(longest);
            let wanted: Vec<f64> =
                of["inv_freq"].as_array().unwrap().iter().map(|freq| freq.as_f64().unwrap()).collect();
            // f32 there: a power whose exponent is rounded, and a handful of roundings.
            let tolerance = f64::from(f32::EPSILON) * (4.0 + wanted.last().unwrap().ln().abs());
            assert_eq!(rope.inv_freq().len(), wanted.len(), "{}", case["name"]);
            for (pair, (met, wanted)) in rope.inv_freq().iter().zip(&wanted).enumerate() {
                let error = (met / wanted - 1.0).abs();
                assert!(error < tolerance, "{} at {longest}, pair {pair}: {met} for {wanted}", case["name"]);
            }
            let factor = of["attention_factor"].as_f64().unwrap();
            assert!((rope.attention_factor() - factor).abs() < 4.0 * f64::EPSILON, "{}", case["name"]);
            met += 1;
        }
    }
    assert_eq!(met, 15, "sequences");
}

#[test]
fn dynamic_scaling_is_read_and_follows_the_longest_context() {
    let with =
        |scaling: Value| with_config("llama", &[("rope_parameters", scaling), ("max_position_embeddings", json!(64))]);
    let folder = with(json!({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}));
    let spec = Checkpoint::open(folder.path()).unwrap().spec().clone();
    assert_eq!(spec.max_position_embeddings, 256, "the factor times the positions of the training");
    let plain = { raglan_models::Rope { scaling: RopeScaling::Default, ..spec.rope.clone() } }.inv_freq();
    for within in [1, 64] {
        assert_eq!(spec.rope.for_context(within).inv_freq(), plain, "{within} tokens need no stretch");
    }
    let [shorter, longer] = [65, 256].map(|longest| spec.rope.for_context(longest).inv_freq());
    assert!(plain.iter().zip(&shorter).skip(1).all(|(plain, freq)| freq < plain));
    assert!(shorter.iter().zip(&longer).skip(1).all(|(shorter, longer)| longer < shorter));
    for (scaling, parts) in [
        (json!({"rope_type": "dynamic", "rope_theta": 1e4}), ["factor", "absent"]),
        (json!({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 0.5}), ["factor", "at least 1"]),
        (json!({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0, "alpha": 2.0}), ["alpha", "factor"]),
    ] {
        refused(with(scaling).path(), &parts);
    }
}
