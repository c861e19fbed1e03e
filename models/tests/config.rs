//! What `config.json` may say, in both spellings, and what is refused by name.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod checkpoint_support;

use checkpoint_support::{ABSENT, refused, with_config};
use raglan_models::{Activation, Checkpoint, ModelSpec, RopeScaling};
use serde_json::{Value, json};

fn spec(name: &str, changes: &[(&str, Value)]) -> ModelSpec {
    Checkpoint::open(with_config(name, changes).path()).unwrap().spec().clone()
}

fn refuse(name: &str, changes: &[(&str, Value)], parts: &[&str]) {
    let folder = with_config(name, changes);
    let error = refused(folder.path(), parts).to_string();
    assert!(error.contains("config.json"), "{error}");
}

#[test]
fn both_spellings_of_rope_say_the_same() {
    let new = spec("llama3_rope", &[]);
    let scaling = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64
    });
    let mut older = scaling.clone();
    older["type"] = older["rope_type"].clone();
    for scaling in [scaling, older] {
        let changes = [("rope_parameters", json!(ABSENT)), ("rope_theta", json!(500000)), ("rope_scaling", scaling)];
        assert_eq!(spec("llama3_rope", &changes), new);
    }
    let both = [("rope_theta", json!(10000.0)), ("rope_scaling", Value::Null)];
    assert_eq!(spec("llama", &both), spec("llama", &[]));
    let neither = [("rope_parameters", json!(ABSENT))];
    assert_eq!(spec("llama", &neither).rope.theta, 1e4);
    assert_eq!(spec("smollm3", &neither).rope.theta, 2e6);
    refuse("llama", &[("rope_theta", json!(5e5))], &["rope_theta", "500000", "10000"]);
}

#[test]
fn yarn_takes_the_defaults_of_transformers() {
    let yarn = |rope: Value, positions: usize| {
        let rope = [("rope_parameters", rope), ("max_position_embeddings", json!(positions))];
        let spec = spec("qwen2", &rope);
        match spec.rope.scaling {
            RopeScaling::Yarn {
                factor,
                attention_factor,
                original_max_position_embeddings,
                beta_fast,
                beta_slow,
                truncate,
            } => {
                assert_eq!((beta_fast, beta_slow, truncate), (32.0, 1.0, true));
                (factor, attention_factor, original_max_position_embeddings, spec.max_position_embeddings)
            }
            other => panic!("{other:?}"),
        }
    };
    let near = |met: (f64, f64, f64, usize), wanted: (f64, f64, f64, usize)| {
        assert!((met.1 - wanted.1).abs() < 4.0 * f64::EPSILON, "{met:?} {wanted:?}");
        assert_eq!((met.0, met.2, met.3), (wanted.0, wanted.2, wanted.3));
    };
    let mut rope =
        json!({"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 64});
    near(yarn(rope.clone(), 80), (4.0, 1.138629436111989, 64.0, 256));
    rope.as_object_mut().unwrap().remove("original_max_position_embeddings");
    near(yarn(rope.clone(), 80), (4.0, 1.138629436111989, 80.0, 320));
    rope["factor"] = json!(40.0);
    rope["mscale"] = json!(0.707);
    rope["mscale_all_dim"] = json!(1.0);
    near(yarn(rope.clone(), 80), (40.0, 0.9210423553163399, 80.0, 3200));
    rope["attention_factor"] = json!(1.5);
    near(yarn(rope.clone(), 80), (40.0, 1.5, 80.0, 3200));
}

#[test]
fn layers_get_their_windows_as_transformers_gives_them() {
    let windows = |name: &str, changes: &[(&str, Value)]| -> Vec<Option<usize>> {
        spec(name, changes).layers.iter().map(|layer| layer.sliding_window).collect()
    };
    assert_eq!(windows("mistral_swa", &[("sliding_window", Value::Null)]), [None; 3]);
    assert_eq!(windows("mistral_swa", &[("sliding_window", json!(ABSENT))]), [Some(4096); 3]);
    let on = |more: &[(&'static str, Value)]| {
        let mut changes =
            vec![("use_sliding_window", json!(true)), ("sliding_window", json!(8)), ("layer_types", json!(ABSENT))];
        changes.extend_from_slice(more);
        changes
    };
    assert_eq!(windows("qwen2", &on(&[("max_window_layers", json!(1))])), [None, Some(8), Some(8)]);
    assert_eq!(windows("qwen2", &on(&[])), [None; 3], "28 layers come first");
    let types = json!(["sliding_attention", "full_attention", "sliding_attention"]);
    assert_eq!(windows("qwen3", &on(&[("layer_types", types.clone())])), [Some(8), None, Some(8)]);
    assert_eq!(windows("smollm3", &on(&[])), [None, Some(8), None, Some(8)]);
    refuse("qwen3", &[("layer_types", types)], &["sliding_window", "use_sliding_window"]);
    refuse("qwen3", &[("layer_types", json!(["full_attention"]))], &["layer_types", "3"]);
    refuse("qwen3", &[("layer_types", json!(["chunked_attention", "a", "b"]))], &["layer_types", "chunked_attention"]);
}

#[test]
fn layers_without_rope_are_listed_or_every_so_many() {
    let rope = |changes: &[(&str, Value)]| -> Vec<bool> {
        spec("smollm3", changes).layers.iter().map(|layer| layer.rope).collect()
    };
    assert_eq!(rope(&[("no_rope_layers", json!([0, 0, 1, 1]))]), [false, false, true, true]);
    let absent = ("no_rope_layers", json!(ABSENT));
    assert_eq!(rope(&[absent.clone(), ("no_rope_layer_interval", json!(3))]), [true, true, false, true]);
    assert_eq!(rope(&[absent, ("no_rope_layer_interval", json!(ABSENT))]), [true, true, true, false]);
    refuse("smollm3", &[("no_rope_layers", json!([1, 2, 3, 4]))], &["no_rope_layers", "2"]);
}

#[test]
fn harmless_keys_change_nothing() {
    let plain = spec("llama", &[]);
    let changes = [
        ("pretraining_tp", json!(2)),
        ("torch_dtype", json!("bfloat16")),
        ("dtype", json!(ABSENT)),
        ("attention_dropout", json!(0.1)),
        ("architectures", json!(ABSENT)),
        ("quantization_config", Value::Null),
        ("head_dim", Value::Null),
        ("something_new", json!({"a": 1})),
    ];
    assert_eq!(spec("llama", &changes), plain);
    assert_eq!(spec("llama", &[("model_type", json!(ABSENT))]), plain);
    assert_eq!(spec("llama", &[("hidden_act", json!("gelu_pytorch_tanh"))]).hidden_act, Activation::GeluTanh);
    let partial = json!({"rope_theta": 1e4, "partial_rotary_factor": 0.5});
    assert_eq!(spec("llama", &[("rope_parameters", partial)]).rope.rotary_dim, 8);
}

#[test]
fn what_is_not_built_is_refused_by_name_with_what_is() {
    refuse(
        "llama",
        &[("model_type", json!("gemma2"))],
        &["model_type", "gemma2", "llama, mistral, qwen2, qwen3, smollm3"],
    );
    refuse(
        "llama",
        &[("architectures", json!(["LlamaForSequenceClassification"]))],
        &["architectures", "LlamaForCausalLM"],
    );
    refuse("llama", &[("hidden_act", json!("gelu"))], &["hidden_act", "gelu", "silu"]);
    for kind in ["longrope", "mrope"] {
        let rope = json!({"rope_type": kind, "factor": 2.0});
        refuse(
            "llama",
            &[("rope_scaling", rope), ("rope_parameters", Value::Null)],
            &["rope_scaling.rope_type", kind, "yarn"],
        );
    }
    let sections = json!({"rope_type": "default", "mrope_section": [1, 2, 3]});
    refuse("qwen2", &[("rope_parameters", sections)], &["rope_parameters.mrope_section"]);
    let layered = json!({"full_attention": {"rope_type": "default"}});
    refuse("qwen2", &[("rope_parameters", layered)], &["rope_parameters.full_attention"]);
    for (key, value) in [
        ("quantization_config", json!({"quant_method": "fp8"})),
        ("num_local_experts", json!(8)),
        ("attn_logit_softcapping", json!(50.0)),
        ("final_logit_softcapping", json!(30.0)),
        ("attention_sinks", json!(true)),
        ("logit_scale", json!(0.0625)),
        ("embedding_multiplier", json!(12.0)),
        ("is_encoder_decoder", json!(true)),
        ("alibi", json!(true)),
    ] {
        refuse("llama", &[(key, value)], &[key, "not supported"]);
    }
}

#[test]
fn numbers_that_no_model_has_are_refused_and_allocate_nothing() {
    let keys =
        ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "head_dim"];
    for key in keys {
        for value in [
            json!(0),
            json!(-1),
            json!(1.5),
            json!("64"),
            json!([64]),
            json!(1e18),
            json!(1_000_000_000_000_000_000u64),
        ] {
            refuse("llama", &[(key, value)], &[key]);
        }
        if key != "head_dim" {
            refuse("llama", &[(key, json!(ABSENT))], &[key, "absent"]);
        }
    }
    refuse("llama", &[("num_hidden_layers", json!(2_000_000_000))], &["num_hidden_layers", "30"]);
    refuse("llama", &[("num_key_value_heads", json!(3))], &["num_key_value_heads", "divisor of num_attention_heads"]);
    refuse("llama", &[("num_key_value_heads", json!(0))], &["num_key_value_heads", "0"]);
    refuse("llama", &[("head_dim", json!(15))], &["head_dim", "even"]);
    let no_head_dim = [("head_dim", json!(ABSENT)), ("num_attention_heads", json!(6))];
    refuse("llama", &no_head_dim, &["num_attention_heads", "divisor of hidden_size"]);
    for eps in [json!(0.0), json!(-1e-5), json!("1e-5")] {
        refuse("llama", &[("rms_norm_eps", eps)], &["rms_norm_eps"]);
    }
    for (key, value) in
        [("rope_theta", json!(0.0)), ("rope_theta", json!(1.0)), ("factor", json!(0)), ("factor", json!(-8.0))]
    {
        let mut rope = json!({"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0});
        rope[key] = value;
        refuse("llama", &[("rope_parameters", rope)], &[key]);
    }
    let swapped = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0});
    refuse("llama", &[("rope_parameters", swapped)], &["rope_parameters.high_freq_factor", "4"]);
    refuse(
        "llama",
        &[("rope_parameters", json!({"rope_type": "llama3"}))],
        &["rope_parameters.low_freq_factor", "absent"],
    );
    refuse("llama", &[("rope_parameters", json!([1]))], &["rope_parameters"]);
    refuse("llama", &[("max_position_embeddings", json!(0))], &["max_position_embeddings"]);
    refuse("mistral_swa", &[("sliding_window", json!(0))], &["sliding_window"]);
    refuse("llama", &[("tie_word_embeddings", json!("yes"))], &["tie_word_embeddings"]);
}
