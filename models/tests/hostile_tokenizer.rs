//! Tokenizers that are damaged or made to do harm: each a clear error, no panic.

mod text_support;

use std::path::Path;

use proptest::prelude::*;
use raglan_models::{Error, GgufVocabulary, Tokenizer, TokenizerConfig};
use serde_json::{Value, json};

fn committed() -> String {
    std::fs::read_to_string(text_support::golden_path("spm_small.json")).expect("is committed")
}

fn open(bytes: &[u8]) -> Result<Tokenizer, Error> {
    Tokenizer::from_json(Path::new("tokenizer.json"), bytes, &TokenizerConfig::default())
}

/// The committed tokenizer with one field changed.
fn changed(pointer: &str, value: Value) -> Result<Tokenizer, Error> {
    let mut file: Value = serde_json::from_str(&committed()).expect("is JSON");
    *file.pointer_mut(pointer).expect(pointer) = value;
    open(file.to_string().as_bytes())
}

#[test]
fn each_broken_rule_is_named() {
    for (pointer, value, words) in [
        ("/model/vocab/a", json!(0), "model.vocab[\\"),
        ("/model/vocab/a", json!(16_777_216), "an id below 16777216"),
        ("/model/vocab/a", json!(-1), "the file is"),
        ("/model/vocab/a", json!("x"), "the file is"),
        ("/model/vocab", json!({}), "model.vocab is empty"),
        ("/model/vocab", json!([["a", 0.0]]), "model.type"),
        ("/model/merges/0", json!(["a", "no such token"]), "model.merges[0] is"),
        ("/model/merges/0", json!(["<0x41>", "<0x42>"]), "is no token"),
        ("/model/merges/0", json!("a b c"), "two tokens with a space between"),
        ("/model/merges/0", json!([]), "the file is"),
        ("/model/type", json!("Unigram"), "model.type is \"Unigram\", which is not supported; supported: \"BPE\""),
        ("/model/unk_token", json!("nothing"), "model.unk_token is \"nothing\""),
        ("/model/dropout", json!(0.5), "model.dropout"),
        ("/model/continuing_subword_prefix", json!("é"), "model.continuing_subword_prefix"),
        ("/added_tokens/0/id", json!(7), "added_tokens[\"<unk>\"].id is 7, wanted 0"),
        ("/added_tokens/0/content", json!(""), "each token once"),
        ("/added_tokens/0/content", json!("<s>"), "added_tokens[\"<s>\"].id is 0, wanted 1"),
        (
            "/normalizer",
            json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
            "normalizer.type is \"Precompiled\"",
        ),
        ("/normalizer/normalizers/0", json!({"type": "Precompiled"}), "normalizer.normalizers[0].type"),
        ("/normalizer/normalizers/1/pattern", json!({"String": ""}), "normalizer.normalizers[1].pattern is empty"),
        ("/normalizer/normalizers/1/pattern", json!({"Regex": "("}), "normalizer is"),
        ("/pre_tokenizer", json!({"type": "FixedLength", "length": 0}), "pre_tokenizer.type is \"FixedLength\""),
        ("/pre_tokenizer", json!({"pretokenizers": []}), "pre_tokenizer.type is \"absent\""),
        (
            "/post_processor/single/0",
            json!({"SpecialToken": {"id": "?", "type_id": 0}}),
            "post_processor.special_tokens[\"?\"].ids is absent",
        ),
        ("/post_processor/single/1", json!({"Sequence": {"id": "B", "type_id": 0}}), "post_processor.single"),
        ("/post_processor/special_tokens/<s>/ids", json!([9999]), "to add token 9999"),
        ("/post_processor", json!({"type": "Later"}), "post_processor.type is \"Later\""),
        ("/decoder", json!({"type": "WordPiece"}), "decoder.type is \"WordPiece\""),
        ("/decoder/decoders/3/content", json!("ab"), "decoder.Strip.content"),
        ("/decoder/decoders", json!(3), "decoder.Sequence.decoders"),
    ] {
        let refusal = changed(pointer, value).expect_err(pointer).to_string();
        let words = words.trim_end_matches('\\');
        assert!(refusal.starts_with("tokenizer.json: ") && refusal.contains(words), "{pointer}: {refusal}");
    }
    let twice = committed().replacen("\"a\":", "\"b\":", 1);
    assert!(open(twice.as_bytes()).expect_err("b is there twice").to_string().contains("there twice"));
    assert!(open(b"\xFF{}").expect_err("is not UTF-8").to_string().starts_with("tokenizer.json: the file"));
    let deep = format!("{{\"decoder\": {}", "[".repeat(1_000_000));
    assert!(open(deep.as_bytes()).is_err());
}

#[test]
fn ids_with_a_gap_are_kept() {
    let mut file: Value = serde_json::from_str(&committed()).expect("is JSON");
    let token = json!({"id": 5000, "content": "<|far|>", "special": true});
    file["added_tokens"].as_array_mut().expect("a list").push(token);
    let tokenizer = open(file.to_string().as_bytes()).expect("opens");
    assert_eq!(
        (tokenizer.id_of("<|far|>"), tokenizer.vocab_size(), tokenizer.is_special(5000)),
        (Some(5000), 5001, true)
    );
    assert!(tokenizer.encode("a <|far|> b", false).expect("encodes").contains(&5000));
}

#[test]
fn a_special_token_that_is_no_token_is_named() {
    let config = TokenizerConfig { eos_token: Some("<|end|>".into()), ..TokenizerConfig::default() };
    let refusal = Tokenizer::from_json(Path::new("tokenizer.json"), committed().as_bytes(), &config);
    assert!(
        refusal
            .expect_err("is refused")
            .to_string()
            .contains("eos_token of the tokenizer's configuration is \"<|end|>\"")
    );
    for text in ["[", "7", r#"{"bos_token": 7}"#, r#"{"chat_template": [{"name": "x"}]}"#, "\u{0}"] {
        assert!(TokenizerConfig::parse(Path::new("tokenizer_config.json"), text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn each_broken_rule_of_gguf_is_named() {
    let words = ["<unk>", "<s>", "a", "b", "ab"].map(str::to_owned).to_vec();
    let good = GgufVocabulary {
        model: "gpt2".into(),
        pre: Some("gpt-2".into()),
        tokens: words,
        token_types: vec![2, 3, 1, 1, 1],
        merges: vec!["a b".into()],
        ..GgufVocabulary::default()
    };
    let open = |vocabulary: GgufVocabulary| Tokenizer::from_gguf(Path::new("m.gguf"), &vocabulary);
    let encoded = open(good.clone()).expect("opens").encode("ab<s>", true).expect("encodes");
    assert_eq!(encoded, [4, 1]);
    let sentence_piece = || GgufVocabulary { model: "llama".into(), ..good.clone() };
    let bad = [
        (GgufVocabulary { model: "t5".into(), ..good.clone() }, "tokenizer.ggml.model is \"t5\""),
        (GgufVocabulary { pre: Some("viking".into()), ..good.clone() }, "tokenizer.ggml.pre is \"viking\""),
        (GgufVocabulary { token_types: vec![1], ..good.clone() }, "tokenizer.ggml.token_type is 1 long, wanted 5"),
        (GgufVocabulary { scores: vec![0.0; 9], ..good.clone() }, "tokenizer.ggml.scores is 9 long"),
        (GgufVocabulary { scores: vec![f32::NAN; 5], ..sentence_piece() }, "tokenizer.ggml.scores[0] is NaN"),
        (GgufVocabulary { tokens: vec!["a".into(); 5], ..good.clone() }, "tokenizer.ggml.tokens[\"a\"] is there twice"),
        (GgufVocabulary { tokens: vec![], token_types: vec![], ..good.clone() }, "tokenizer.ggml.tokens is empty"),
        (
            GgufVocabulary { tokens: ["x".repeat(2000)].into(), token_types: vec![], ..sentence_piece() },
            "2000 bytes long",
        ),
        (GgufVocabulary { merges: vec!["ab".into()], ..good.clone() }, "tokenizer.ggml.merges[0] is \"ab\""),
        (GgufVocabulary { merges: vec!["b a".into()], ..good.clone() }, "tokenizer.ggml.merges[0] is"),
        (
            GgufVocabulary { bos_token_id: Some(5), ..good.clone() },
            "tokenizer.ggml.bos_token_id is 5, wanted an id below 5",
        ),
        (GgufVocabulary { end_token_ids: vec![99], ..good.clone() }, "eot_token_id"),
        (GgufVocabulary { add_bos_token: Some(true), ..good.clone() }, "tokenizer.ggml.bos_token_id is absent"),
    ];
    for (vocabulary, words) in bad {
        let refusal = open(vocabulary).expect_err(words).to_string();
        assert!(refusal.starts_with("m.gguf: ") && refusal.contains(words), "{refusal}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_makes_it_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(), text in "\\PC{0,20}") {
        let mut bytes = committed().into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if let Ok(tokenizer) = open(&bytes) {
            let ids = tokenizer.encode(&text, true).unwrap_or_default();
            let _ = tokenizer.decode(&ids, false);
        }
    }

    #[test]
    fn no_structure_makes_it_panic(field in 0..5usize, which in 0..24usize, text in "[a-z ▁<>0-9]{0,20}") {
        let fields = ["/normalizer", "/pre_tokenizer", "/post_processor", "/decoder", "/model"];
        let kinds = [
            "NFC", "Strip", "Replace", "Prepend", "Sequence", "ByteLevel", "Split", "Digits", "Punctuation", "Whitespace", "Metaspace",
            "TemplateProcessing", "BertProcessing", "RobertaProcessing", "ByteFallback", "Fuse", "BPE", "WordLevel", "Lowercase",
            "StripAccents", "WhitespaceSplit", "Nmt", "BertNormalizer", "CTC",
        ];
        let value = json!({
            "type": kinds[which], "pattern": {"String": "a"}, "content": "x", "start": 1, "stop": 0, "prepend": "", "individual_digits": true,
            "add_prefix_space": true, "trim_offsets": true, "behavior": "MergedWithNext", "invert": true, "strip_left": true,
            "strip_right": false, "replacement": "a", "prepend_scheme": "always", "sep": ["a", 1], "cls": ["b", 2],
        });
        if let Ok(tokenizer) = changed(fields[field], value) {
            let ids = tokenizer.encode(&text, true).unwrap_or_default();
            let mut stream = tokenizer.stream(false);
            let joined: String = ids.iter().filter_map(|id| stream.push(*id)).collect();
            prop_assert_eq!(joined + &stream.finish().unwrap_or_default(), tokenizer.decode(&ids, false).expect("decodes"));
        }
    }
}
