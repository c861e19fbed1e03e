//! GGUF files that are cut, lie or overlap: each a clear error, none a panic, and nothing allocated by a number of theirs.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod checkpoint_support;

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};

use checkpoint_support::{GgufFile, gguf_of, golden, refused};
use raglan_models::{Checkpoint, Error};

fn honest() -> GgufFile {
    let mut file = gguf_of(&Checkpoint::open(&golden("llama")).unwrap());
    file.set(
        "tokenizer.ggml.tokens",
        9,
        list(8, 2, &[&3u64.to_le_bytes()[..], b"one", &1u64.to_le_bytes()[..], b"2"].concat()),
    );
    file
}

fn list(kind: u32, length: u64, data: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &length.to_le_bytes()[..], data].concat()
}

fn check(file: &GgufFile, parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.gguf");
    fs::write(&path, file.bytes().0).unwrap();
    let error = refused(&path, &["broken.gguf"]).to_string();
    for part in parts {
        assert!(error.contains(part), "{error:?} does not hold {part:?}");
    }
}

fn check_change(change: impl Fn(&mut GgufFile), parts: &[&str]) {
    let mut file = honest();
    change(&mut file);
    check(&file, parts);
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.gguf");
    let (bytes, data_start) = honest().bytes();
    fs::write(&path, &bytes).unwrap();
    Checkpoint::open(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let in_data = (data_start..bytes.len() - 32).rev().step_by(4099);
    for cut in in_data.chain((0..data_start).rev()) {
        file.set_len(cut as u64).unwrap();
        refused(&path, &["cut.gguf"]);
    }
}

#[test]
fn any_byte_of_the_header_may_be_wrong_without_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flipped.gguf");
    let (bytes, data_start) = honest().bytes();
    fs::write(&path, &bytes).unwrap();
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    let mut put = |at: usize, byte: u8| {
        file.seek(SeekFrom::Start(at as u64)).unwrap();
        file.write_all(&[byte]).unwrap();
    };
    for (at, kept) in bytes.iter().copied().enumerate().take(data_start) {
        for wrong in [kept ^ 0xff, kept ^ 0x80, kept ^ 1] {
            put(at, wrong);
            let _ = Checkpoint::open(&path); // some bytes matter to nobody
        }
        put(at, kept);
    }
    Checkpoint::open(&path).unwrap();
}

#[test]
fn absurd_counts_and_lengths_are_refused_before_anything_is_allocated() {
    check_change(|file| file.key_count = Some(1 << 60), &["number of keys", "1152921504606846976"]);
    check_change(|file| file.tensor_count = Some(u64::MAX), &["number of tensors", "18446744073709551615"]);
    let long = |length: u64| [&length.to_le_bytes()[..], b"x"].concat();
    check_change(|file| file.set("general.name", 8, long(1 << 63)), &["general.name", "9223372036854775808"]);
    check_change(|file| file.set("general.name", 8, long(u64::MAX)), &["general.name", "18446744073709551615"]);
    check_change(|file| file.set("a.list", 9, list(8, 1 << 60, b"")), &["a.list", "1152921504606846976"]);
    check_change(|file| file.set("a.list", 9, list(12, 1 << 61, b"")), &["a.list", "2305843009213693952"]);
    check_change(|file| file.set("a.list", 9, list(9, 1, &list(9, 1, b""))), &["a.list", "array of arrays"]);
    check_change(|file| file.set("a.list", 9, list(77, 1, b"")), &["a.list", "77"]);
    check_change(|file| file.set("a.key", 13, vec![0; 8]), &["a.key", "13"]);
    check_change(|file| file.set("a.key", 7, vec![2]), &["a.key", "truth value 2"]);
    check_change(|file| file.set("a.list", 9, list(8, 1, &long(1 << 63))), &["a.list[0]"]);
    for (key, value) in [("block_count", u32::MAX), ("block_count", 0), ("embedding_length", u32::MAX)] {
        let key = format!("llama.{key}");
        check_change(|file| file.set(&key, 4, value.to_le_bytes().into()), &[&key, &value.to_string()]);
    }
    check_change(|file| file.set("llama.block_count", 10, u64::MAX.to_le_bytes().into()), &["llama.block_count"]);
    check_change(
        |file| file.set("llama.block_count", 4, 1000u32.to_le_bytes().into()),
        &["llama.block_count", "tensors"],
    );
    check_change(|file| file.set("llama.rope.freq_base", 6, f32::NAN.to_le_bytes().into()), &["llama.rope.freq_base"]);
    check_change(
        |file| file.set("llama.attention.head_count_kv", 4, 3u32.to_le_bytes().into()),
        &["head_count_kv", "3"],
    );
    check_change(|file| file.set("llama.attention.head_count", 4, 0u32.to_le_bytes().into()), &["head_count", "0"]);
}

#[test]
fn words_that_are_not_utf8_are_refused() {
    let bad = b"\xff\xfename";
    check_change(|file| file.keys.push((bad.into(), 4, vec![0; 4])), &["key ", "UTF-8"]);
    let text = [&6u64.to_le_bytes()[..], bad].concat();
    check_change(|file| file.set("general.name", 8, text.clone()), &["general.name", "UTF-8"]);
    check_change(|file| file.tensors[3].0 = bad.into(), &["tensor 3 of", "UTF-8"]);
}

#[test]
fn tensors_outside_the_file_or_over_another_are_refused() {
    check_change(|file| file.offset = Some((2, 1 << 40)), &["tensor blk.0.attn_q.weight: the offset", "1099511627776"]);
    check_change(|file| file.offset = Some((2, u64::MAX - 31)), &["tensor blk.0.attn_q.weight: the offset"]);
    check_change(|file| file.offset = Some((2, 33)), &["offset", "33"]);
    check_change(|file| file.offset = Some((2, 32)), &["offset", "inside tensor token_embd.weight"]);
    check_change(|file| file.tensors[2].1 = vec![1 << 40, 1 << 40], &["attn_q.weight: the shape"]);
    check_change(|file| file.tensors[2].1 = vec![1 << 62, 1 << 62], &["attn_q.weight: the shape"]);
    check_change(|file| file.tensors[2].1 = vec![0, 64], &["attn_q.weight: the shape", "at least 1"]);
    check_change(|file| file.tensors[2].1 = vec![], &["attn_q.weight: the shape", "0 dimensions"]);
    check_change(|file| file.tensors[2].1 = vec![1; 5], &["attn_q.weight: the shape", "5 dimensions"]);
    check_change(|file| file.tensors[2].1 = vec![32, 128], &["attn_q.weight", "[128, 32]", "[64, 64]"]);
    check_change(|file| file.tensors[2].2 = 12, &["attn_q.weight: the shape", "Q4_K blocks of 256"]);
    check_change(|file| file.tensors[2].0 = file.tensors[3].0.clone(), &["tensor blk.0.attn_k.weight", "twice"]);
    check_change(|file| file.keys.push(file.keys[1].clone()), &["llama.embedding_length", "twice"]);
    for alignment in [0u32, 24, u32::MAX] {
        let value = alignment.to_le_bytes().to_vec();
        check_change(
            |file| file.set("general.alignment", 4, value.clone()),
            &["general.alignment", &alignment.to_string()],
        );
    }
    check_change(|file| file.set("general.alignment", 10, (1u64 << 63).to_le_bytes().into()), &["tensor"]);
}

#[test]
fn numbers_that_are_not_finite_are_refused_by_name() {
    let nan = f32::NAN.to_le_bytes();
    check_change(
        |file| file.tensor("blk.1.ffn_norm.weight").3[8..12].copy_from_slice(&nan),
        &["blk.1.ffn_norm.weight", "NaN", "index 2"],
    );
    let file = {
        let mut file = honest();
        file.tensor("blk.1.ffn_down.weight").3[20..22].copy_from_slice(&0x7c00u16.to_le_bytes());
        file
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("infinite.gguf");
    fs::write(&path, file.bytes().0).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let errors: Vec<Error> = checkpoint.spec().roles().filter_map(|role| checkpoint.check_finite(role).err()).collect();
    assert_eq!(errors.len(), 1);
    let message = errors[0].to_string();
    assert!(message.contains("infinite.gguf: tensor blk.1.ffn_down.weight holds inf at index 10"), "{message}");
}

#[test]
fn no_gguf_at_all_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("empty.gguf", &b""[..]), ("zip.gguf", b"PK\x03\x04 and more"), ("text.gguf", b"GGU")] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        refused(&path, &[name, "magic number"]);
    }
    refused(&folder.path().join("absent.gguf"), &["absent.gguf"]);
    refused(folder.path(), &["config.json", "missing", ".gguf"]);
}
