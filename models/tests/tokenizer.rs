//! Tokenizers against what the reference library (tokenizers 0.23.3) makes of the same texts.

mod text_support;

use std::path::Path;

use raglan_models::{Checkpoint, GgufVocabulary, Tokenizer, TokenizerConfig};
use text_support::{Family, goldens, small, tokenizers_at_hand};

/// Llama 3's and Gemma 3's cannot be had without an account.
const SKIPPED: &str =
    "not in the cache and not under $RAGLAN_TOKENIZERS; see tools/fetch-model and tools/fetch-tokenizers";

/// Encodes and decodes every text of a golden family.
fn check(name: &str, tokenizer: &Tokenizer, texts: &[String], family: &Family) {
    assert_eq!(tokenizer.vocab_size(), family.vocab, "{name}");
    for (index, text) in texts.iter().enumerate() {
        let with = tokenizer.encode(text, true).expect("encodes");
        assert_eq!(with, family.with_special[index], "{name}: {text:?} with special tokens");
        let without = tokenizer.encode(text, false).expect("encodes");
        assert_eq!(without, family.without_special[index], "{name}: {text:?} without special tokens");
        let decoded = tokenizer.decode(family.decoded_ids(index), family.skips_special()).expect("decodes");
        assert_eq!(decoded, family.decoded[index], "{name}: decoding {text:?}");
        if let Some(all) = &family.decoded_with_special {
            assert_eq!(tokenizer.decode(&with, false).expect("decodes"), all[index], "{name}: decoding {text:?} whole");
        }
    }
}

#[test]
fn the_small_tokenizers_give_the_reference_ids_and_texts() {
    let goldens = goldens("small_goldens.json");
    assert_eq!(goldens.families.len(), 3);
    for (name, family) in &goldens.families {
        check(name, &small(name), &goldens.texts, family);
    }
}

#[test]
fn fetched_tokenizers_give_the_reference_ids_and_texts() {
    let goldens = goldens("goldens.json");
    let mut at_hand = tokenizers_at_hand(&goldens);
    if let Some(checkpoint) = text_support::default_model() {
        let tokenizer = Tokenizer::open(&checkpoint).expect("opens").expect("is there");
        assert_eq!((tokenizer.eos_token_ids(), tokenizer.bos_token_id()), (&[0, 2][..], Some(1)));
        at_hand.insert("smollm2".into(), tokenizer);
    }
    for (name, family) in &goldens.families {
        match at_hand.get(name) {
            Some(tokenizer) => check(name, tokenizer, &goldens.texts, family),
            None => eprintln!("skipped {name}: {SKIPPED}"),
        }
    }
}

#[test]
fn the_embedded_model_has_a_tokenizer_that_knows_its_ends() {
    let checkpoint = Checkpoint::tiny().expect("is whole");
    let tokenizer = Tokenizer::open(&checkpoint).expect("opens").expect("is there");
    assert_eq!((tokenizer.eos_token_ids(), tokenizer.bos_token_id()), (&[0, 2][..], Some(0)));
    assert_eq!(tokenizer.encode("Once upon a time", true).expect("encodes"), [517, 769, 260, 770]);
}

#[test]
fn the_configuration_says_which_tokens_begin_and_end_a_text() {
    let bytes = std::fs::read(text_support::golden_path("spm_small.json")).expect("is committed");
    let open = |config: &str| {
        let config = TokenizerConfig::parse(Path::new("tokenizer_config.json"), config.as_bytes()).expect("parses");
        Tokenizer::from_json(Path::new("tokenizer.json"), &bytes, &config).expect("opens")
    };
    let as_filed = open("{}");
    let plain = as_filed.encode("a b", false).expect("encodes");
    assert_eq!(as_filed.encode("a b", true).expect("encodes"), [&[1], &plain[..]].concat());
    assert_eq!((as_filed.bos_token_id(), as_filed.eos_token_ids()), (None, &[][..]));

    let tokens = r#""bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>""#;
    let neither = open(&format!("{{{tokens}, \"add_bos_token\": false}}"));
    assert_eq!(neither.encode("a b", true).expect("encodes"), plain);
    let both = open(&format!("{{{tokens}, \"add_bos_token\": true, \"add_eos_token\": true}}"));
    assert_eq!(both.encode("a b", true).expect("encodes"), [&[1], &plain[..], &[2]].concat());
    assert_eq!((both.bos_token_id(), both.eos_token_ids()), (Some(1), &[2][..]));
    assert!(both.is_special(2) && !both.is_special(plain[0]) && !both.is_special(9_999_999));
}

/// The same vocabulary as a GGUF file would hold it: scores fall with the rank of the merge that makes a token.
fn as_gguf(path: &Path, model: &str, pre: Option<&str>) -> GgufVocabulary {
    let bytes = std::fs::read(path).expect("is there");
    let file: serde_json::Value = serde_json::from_slice(&bytes).expect("is JSON");
    let pair = |merge: &serde_json::Value| match merge.as_str() {
        Some(line) => line.to_owned(),
        None => format!("{} {}", merge[0].as_str().expect("a text"), merge[1].as_str().expect("a text")),
    };
    let merges: Vec<String> = file["model"]["merges"].as_array().expect("a list").iter().map(pair).collect();
    let mut rank = std::collections::HashMap::new();
    for (index, merge) in merges.iter().enumerate() {
        rank.entry(merge.replacen(' ', "", 1)).or_insert(-(index as f32));
    }
    let vocab = file["model"]["vocab"].as_object().expect("a map").iter();
    let mut tokens: Vec<(u64, String)> = vocab.map(|(t, id)| (id.as_u64().expect("an id"), t.clone())).collect();
    let added = file["added_tokens"].as_array().expect("a list");
    for token in added {
        let entry = (token["id"].as_u64().expect("an id"), token["content"].as_str().expect("a text").to_owned());
        if !tokens.contains(&entry) {
            tokens.push(entry);
        }
    }
    tokens.sort();
    let kind = |(id, token): &(u64, String)| match added.iter().find(|added| added["id"].as_u64() == Some(*id)) {
        Some(added) if added["special"] == true => 3,
        Some(_) => 4,
        None if token.len() == 6 && token.starts_with("<0x") => 6,
        None => 1,
    };
    let begin =
        |names: &[&str]| tokens.iter().find(|(_, token)| names.contains(&token.as_str())).map(|(id, _)| *id as u32);
    GgufVocabulary {
        model: model.into(),
        pre: pre.map(str::to_owned),
        token_types: tokens.iter().map(kind).collect(),
        scores: tokens.iter().map(|(_, token)| rank.get(token).copied().unwrap_or(-1e9)).collect(),
        bos_token_id: begin(&["<s>", "<|begin_of_text|>"]),
        eos_token_id: begin(&["</s>", "<|eot_id|>"]),
        unknown_token_id: begin(&["<unk>"]),
        add_eos_token: Some(pre.is_some()),
        tokens: tokens.into_iter().map(|(_, token)| token).collect(),
        merges: if pre.is_some() { merges } else { Vec::new() },
        ..GgufVocabulary::default()
    }
}

#[test]
fn a_vocabulary_in_gguf_metadata_gives_the_same_ids_and_texts() {
    let goldens = goldens("small_goldens.json");
    for (name, model, pre) in [("spm_small", "llama", None), ("split_small", "gpt2", Some("llama-bpe"))] {
        let path = text_support::golden_path(&format!("{name}.json"));
        let tokenizer = Tokenizer::from_gguf(&path, &as_gguf(&path, model, pre)).expect("opens");
        check(name, &tokenizer, &goldens.texts, &goldens.families[name]);
    }
}

#[test]
fn fetched_vocabularies_in_gguf_metadata_give_the_same_ids_and_texts() {
    let goldens = goldens("goldens.json");
    for (name, model, pre) in [("llama2", "llama", None), ("qwen3", "gpt2", Some("qwen2"))] {
        let Some(path) = text_support::path_of(&goldens, name) else {
            eprintln!("skipped {name}: {SKIPPED}");
            continue;
        };
        let mut vocabulary = as_gguf(&path, model, pre);
        vocabulary.add_eos_token = None;
        let tokenizer = Tokenizer::from_gguf(&path, &vocabulary).expect("opens");
        check(name, &tokenizer, &goldens.texts, &goldens.families[name]);
    }
}
