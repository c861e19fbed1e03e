//! An answer that comes token by token is the answer, however it is cut.

mod text_support;

use std::path::Path;

use proptest::prelude::*;
use raglan_models::{StopStrings, Tokenizer, TokenizerConfig};
use text_support::{goldens, small};

const SMALL: [&str; 3] = ["tiny_stories", "spm_small", "split_small"];

/// The pieces of a stream, and what its end brought.
fn pieces(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> (Vec<String>, Option<String>) {
    let mut stream = tokenizer.stream(skip_special);
    let pieces: Vec<String> = ids.iter().filter_map(|id| stream.push(*id)).collect();
    assert!(pieces.iter().all(|piece| !piece.is_empty()));
    (pieces, stream.finish())
}

fn joined((pieces, last): (Vec<String>, Option<String>)) -> String {
    pieces.concat() + &last.unwrap_or_default()
}

/// `spm_small` with another decoder.
fn with_decoder(decoder: &str) -> Result<Tokenizer, raglan_models::Error> {
    let bytes = std::fs::read(text_support::golden_path("spm_small.json")).expect("is committed");
    let mut file: serde_json::Value = serde_json::from_slice(&bytes).expect("is JSON");
    file["decoder"] = serde_json::from_str(decoder).expect("is JSON");
    Tokenizer::from_json(Path::new("tokenizer.json"), file.to_string().as_bytes(), &TokenizerConfig::default())
}

/// Ids of a small vocabulary, bytes and special tokens more often than they would come; some beyond its end.
fn some_ids() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(prop_oneof![0..300u32, 0..620u32, 0..1400u32], 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_joined_are_the_whole_decode_for_any_ids(ids in some_ids(), skip in any::<bool>()) {
        for name in SMALL {
            let tokenizer = small(name);
            let whole = tokenizer.decode(&ids, skip).expect("decodes");
            prop_assert_eq!(joined(pieces(&tokenizer, &ids, skip)), whole, "{}", name);
        }
    }

    #[test]
    fn a_text_comes_back_in_whole_characters(text in "\\PC{0,40}") {
        for name in SMALL {
            let tokenizer = small(name);
            let ids = tokenizer.encode(&text, true).expect("encodes");
            let (pieces, last) = pieces(&tokenizer, &ids, true);
            let whole = tokenizer.decode(&ids, true).expect("decodes");
            prop_assert_eq!(pieces.concat() + last.as_deref().unwrap_or(""), whole, "{}", name);
            if name != "spm_small" {
                prop_assert_eq!(last, None, "{}", name);
            }
        }
    }

    #[test]
    fn every_decoder_streams_as_it_decodes(ids in some_ids()) {
        let decoders = [
            r#"{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true}"#,
            r#"{"type":"Metaspace","replacement":"▁","prepend_scheme":"never","split":true}"#,
            r#"{"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":true}]}"#,
            r#"{"type":"Sequence","decoders":[{"type":"ByteFallback"},{"type":"Strip","content":"▁","start":2,"stop":0},{"type":"Fuse"},{"type":"Strip","content":"t","start":3,"stop":0}]}"#,
            r#"{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"Regex":"[aeiou]+"},"content":"_"},{"type":"Replace","pattern":{"String":"th"},"content":"T"}]}"#,
            "null",
        ];
        for decoder in decoders {
            let tokenizer = with_decoder(decoder).expect("opens");
            prop_assert_eq!(joined(pieces(&tokenizer, &ids, false)), tokenizer.decode(&ids, false).expect("decodes"), "{}", decoder);
        }
    }

    #[test]
    fn stop_strings_cut_where_a_search_of_the_whole_would(
        text in "[ab é]{0,30}",
        cuts in prop::collection::vec(0..6usize, 0..30),
        stops in prop::collection::vec("[ab é]{0,4}", 0..4),
    ) {
        let mut watcher = StopStrings::new(stops.clone());
        let mut shown = String::new();
        let mut stop = None;
        let mut rest = text.as_str();
        for cut in cuts.into_iter().chain([usize::MAX]) {
            let at = rest.char_indices().nth(cut).map_or(rest.len(), |(at, _)| at);
            let (piece, after) = rest.split_at(at);
            rest = after;
            let watched = watcher.push(piece);
            shown += &watched.text;
            stop = stop.or(watched.stop);
        }
        shown += &watcher.finish();

        let ends = (0..=text.len()).filter(|end| text.is_char_boundary(*end));
        let first = ends.filter_map(|end| {
            let complete = stops.iter().filter(|stop| !stop.is_empty() && text[..end].ends_with(stop.as_str()));
            complete.map(String::len).max().map(|len| (end - len, end))
        }).next();
        prop_assert_eq!(shown.as_str(), &text[..first.map_or(text.len(), |(start, _)| start)]);
        prop_assert_eq!(stop.map(|index| stops[index].as_str()), first.map(|(start, end)| &text[start..end]));
    }
}

#[test]
fn golden_texts_stream_as_they_decode() {
    let goldens = goldens("small_goldens.json");
    for (name, family) in &goldens.families {
        let tokenizer = small(name);
        for (ids, want) in family.with_special.iter().zip(&family.decoded) {
            assert_eq!(&joined(pieces(&tokenizer, ids, true)), want, "{name}");
        }
    }
}

#[test]
fn a_character_of_several_byte_tokens_comes_when_it_is_whole() {
    let tokenizer = small("tiny_stories");
    let ids = tokenizer.encode("é🙂", false).expect("encodes");
    assert!(ids.len() > 2, "the small vocabulary spells them by bytes: {ids:?}");
    let (pieces, last) = pieces(&tokenizer, &ids, false);
    assert_eq!((pieces, last), (vec!["é".to_owned(), "🙂".to_owned()], None));
    let mut cut = tokenizer.stream(false);
    let shown: Vec<Option<String>> = ids[..ids.len() - 1].iter().map(|id| cut.push(*id)).collect();
    assert_eq!(shown.into_iter().flatten().collect::<String>(), "é");
    assert_eq!(cut.finish().as_deref(), Some("\u{FFFD}"));
}

#[test]
fn a_decoder_that_needs_the_whole_text_is_refused_by_name() {
    for (decoder, word) in [
        (r#"{"type":"CTC","pad_token":"x","word_delimiter_token":"|","cleanup":true}"#, "CTC"),
        (r#"{"type":"Strip","content":" ","start":0,"stop":9}"#, "stop"),
        (r#"{"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"ByteFallback"}]}"#, "ByteFallback after Fuse"),
        (
            r#"{"type":"Sequence","decoders":[{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},{"type":"Replace","pattern":{"String":"ab"},"content":""}]}"#,
            "Replace after",
        ),
    ] {
        let refusal = with_decoder(decoder).expect_err("is refused").to_string();
        assert!(refusal.contains(word) && refusal.contains("tokenizer.json: decoder"), "{refusal}");
    }
}
