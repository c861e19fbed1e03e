//! Folders of quantised weights: what is written is read back to the number, whatever the checkpoint, the bits and the cut of the files.

use raglan_models::quantize::{FolderOptions, encode_rows, write_folder};
use raglan_models::{Checkpoint, Error, LayerRole, QuantizeTo, Role, Tensor, Tokenizer};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

fn options<'a>(to: &str, keep: &'a [String]) -> FolderOptions<'a> {
    FolderOptions { to: to.parse().expect(to), keep, importance: &|_| None, shard_bytes: None, interrupted: None }
}

fn decoded(tensor: &Tensor<'_>) -> Vec<f32> {
    let mut stored = vec![0; tensor.format.row_bytes(tensor.cols).expect("whole blocks") * tensor.rows];
    let mut values = vec![0.0; tensor.rows * tensor.cols];
    tensor.write_rows(0..tensor.rows, &mut stored);
    tensor.format.decode(&stored, &mut values);
    values
}

/// What quantising at load makes of a tensor.
fn loaded(tensor: &Tensor<'_>, to: QuantizeTo) -> Vec<f32> {
    let format = to.format(tensor.cols).expect("whole groups");
    let mut blocks = vec![0; format.row_bytes(tensor.cols).expect("whole blocks") * tensor.rows];
    encode_rows(&decoded(tensor), tensor.cols, to, None, &mut blocks).expect("finite");
    let mut values = vec![0.0; tensor.rows * tensor.cols];
    format.decode(&blocks, &mut values);
    values
}

fn tensor(checkpoint: &Checkpoint, role: Role) -> Tensor<'_> {
    checkpoint.tensor(role).expect("opened").expect("the model has it")
}

#[test]
fn what_is_written_is_what_quantising_at_load_makes() {
    let source = Checkpoint::tiny().expect("the program's own model");
    let folder = tempfile::tempdir().expect("a folder");
    let keep = ["lm_head".to_owned(), "embed_tokens".to_owned()];
    for (to, shard_bytes) in
        [("int8-g32-sym", None), ("int4-g32-zero", Some(100_000)), ("int8-g32-zero", Some(1)), ("int4-g32-sym", None)]
    {
        let out = folder.path().join(to);
        let mut heard = Vec::new();
        let options = FolderOptions { shard_bytes, ..options(to, &keep) };
        let written = write_folder(&source, &out, &options, &mut |done, total| heard.push((done, total))).expect(to);
        assert!(heard.is_sorted() && heard.last().is_some_and(|(done, total)| done == total), "{to}");
        assert_eq!(out.join("model.safetensors.index.json").exists(), shard_bytes.is_some(), "{to}");
        assert_eq!(written.quantized, 7 * source.spec().layers.len());
        let back = Checkpoint::open(&out).expect(to);
        assert_eq!(back.spec(), source.spec());
        assert!(Tokenizer::open(&back).expect("a tokenizer").is_some());
        for role in source.spec().roles() {
            let (before, after) = (tensor(&source, role), tensor(&back, role));
            let is_quantized = after.format.block().0 > 1;
            assert_eq!(
                is_quantized,
                source.spec().shape(role).len() == 2 && !matches!(role, Role::Embedding | Role::LmHead)
            );
            if is_quantized {
                assert_eq!(after.format, options.to.format(after.cols).expect("whole groups"));
                assert!(decoded(&after) == loaded(&before, options.to), "{to} {role:?}");
            } else {
                assert!(decoded(&after) == decoded(&before), "{to} {role:?}");
            }
        }
    }
}

#[test]
fn what_is_kept_stays_and_names_that_are_none_are_refused() {
    let source = Checkpoint::tiny().expect("the program's own model");
    let folder = tempfile::tempdir().expect("a folder");
    let keep = ["embed_tokens", "lm_head", "down_proj", "model.layers.0.self_attn.q_proj"].map(str::to_owned);
    let out = folder.path().join("kept");
    let written = write_folder(&source, &out, &options("q8", &keep), &mut |_, _| ()).expect("written");
    assert_eq!(written.quantized, 6 * source.spec().layers.len() - 1);
    let back = Checkpoint::open(&out).expect("a folder that is whole");
    for role in source.spec().roles() {
        let name = raglan_models::Naming::HuggingFace.name(role);
        if name.contains("down_proj") || name == "model.layers.0.self_attn.q_proj.weight" {
            assert_eq!(tensor(&back, role).format, tensor(&source, role).format, "{name}");
        }
    }
    let met = write_folder(&source, &out, &options("q8", &keep), &mut |_, _| ());
    assert!(met.is_err_and(|error| error.to_string().contains("there already")));
    let none = ["up".to_owned()];
    let met = write_folder(&source, &folder.path().join("none"), &options("q8", &none), &mut |_, _| ());
    assert!(met.is_err_and(|error| error.to_string().contains("down_proj")));
    left(folder.path(), &["kept"]);
}

fn left(folder: &Path, wanted: &[&str]) {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    assert_eq!(names, wanted);
}

#[test]
fn a_run_that_fails_leaves_nothing_and_one_that_was_cut_is_begun_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("copy");
    std::fs::create_dir(&copy).expect("a folder");
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/tiny-stories");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(Path::new(tiny).join(name), copy.join(name)).expect("a copy");
    }
    let keep = ["lm_head".to_owned(), "embed_tokens".to_owned()];
    let out = folder.path().join("out");
    let cut = folder.path().join("out.raglan-partial");
    std::fs::create_dir(&cut).expect("a folder");
    std::fs::write(cut.join("model.safetensors"), "half").expect("a file");
    // Whose folder that is nobody knows.
    let met = write_folder(&Checkpoint::open(&copy).expect("the copy"), &out, &options("q4", &keep), &mut |_, _| ());
    assert!(met.is_err_and(|error| error.to_string().contains("move it away")));
    left(&cut, &["model.safetensors"]);
    std::fs::write(cut.join(".raglan-partial"), "").expect("a file");
    write_folder(&Checkpoint::open(&copy).expect("the copy"), &out, &options("q4", &keep), &mut |_, _| ())
        .expect("written");
    left(folder.path(), &["copy", "out"]);
    assert!(!out.join("tokenizer.json").exists());

    // A number in the middle of the data becomes NaN: of a matrix that is quantised, and of one that is kept.
    let path = copy.join("model.safetensors");
    let whole = std::fs::read(&path).expect("the copy");
    for role in [Role::Layer(0, LayerRole::Down), Role::Embedding] {
        let mut bytes = whole.clone();
        let checkpoint = Checkpoint::tiny().expect("the program's own model");
        let matrix = tensor(&checkpoint, role);
        let at =
            bytes.windows(matrix.bytes.len()).position(|window| window == matrix.bytes).expect("it is in the file");
        bytes[at + 2000..at + 2002].copy_from_slice(&half::f16::NAN.to_le_bytes());
        std::fs::remove_file(&path).expect("the copy");
        std::fs::write(&path, bytes).expect("the copy");
        let source = Checkpoint::open(&copy).expect("matrices are looked at later");
        let met = write_folder(&source, &folder.path().join("bad"), &options("q4", &keep), &mut |_, _| ());
        assert!(matches!(met, Err(Error::NotFinite { index: 1000, .. })), "{met:?}");
        left(folder.path(), &["copy", "out"]);
    }
}

#[test]
fn a_second_run_is_refused_and_the_first_goes_on() {
    let source = Checkpoint::tiny().expect("the program's own model");
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("deep").join("out");
    let (mut again, mut after) = (None, None);
    let written = write_folder(&source, &out, &options("q8", &[]), &mut |_, _| {
        again.get_or_insert_with(|| write_folder(&source, &out, &options("q8", &[]), &mut |_, _| ()));
        after.get_or_insert_with(|| out.with_file_name("out.raglan-partial").join("model.safetensors").exists());
    });
    let message = again.expect("it was tried").expect_err("it is being written").to_string();
    assert!(message.contains("being written by another run"), "{message}");
    assert_eq!(after, Some(true));
    written.expect("the first is whole");
    Checkpoint::open(&out).expect("a folder that is whole");
    left(out.parent().expect("it has one"), &["out"]);
    assert!(!out.join(".raglan-partial").exists());
}

#[test]
fn a_run_that_is_stopped_leaves_nothing() {
    let source = Checkpoint::tiny().expect("the program's own model");
    let folder = tempfile::tempdir().expect("a folder");
    let flag = AtomicBool::new(false);
    let options = FolderOptions { interrupted: Some(&flag), ..options("q8", &[]) };
    let mut calls = 0;
    let met = write_folder(&source, &folder.path().join("out"), &options, &mut |_, _| {
        calls += 1;
        flag.store(calls == 3, Ordering::Relaxed);
    });
    assert!(matches!(met, Err(Error::Interrupted { .. })), "{met:?}");
    assert_eq!(calls, 3);
    left(folder.path(), &[]);
}

#[cfg(unix)]
#[test]
fn a_link_to_nothing_is_there_already() {
    let source = Checkpoint::tiny().expect("the program's own model");
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    std::os::unix::fs::symlink(folder.path().join("nowhere"), &out).expect("a link");
    let met = write_folder(&source, &out, &options("q8", &[]), &mut |_, _| panic!("it began"));
    assert!(met.is_err_and(|error| error.to_string().contains("there already")));
    // Nor is a link written through that has the partial folder's name.
    let target = folder.path().join("target");
    std::fs::create_dir(&target).expect("a folder");
    std::os::unix::fs::symlink(&target, folder.path().join("new.raglan-partial")).expect("a link");
    let met = write_folder(&source, &folder.path().join("new"), &options("q8", &[]), &mut |_, _| panic!("it began"));
    assert!(met.is_err_and(|error| error.to_string().contains("move it away")));
    left(&target, &[]);
}

#[test]
fn matrices_that_were_quantised_lose_twice_though_they_come_as_floats() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["gptq_act_order", "gptq"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name);
        let source = Checkpoint::open(&path).expect(name);
        let written =
            write_folder(&source, &folder.path().join(name), &options("int8-g32", &[]), &mut |_, _| ()).expect(name);
        let matrices = 7 * source.spec().layers.len();
        let wanted = format!("{matrices} matrices of");
        assert!(
            written.notes.iter().any(|note| note.contains("twice") && note.contains(&wanted)),
            "{:?}",
            written.notes
        );
    }
}
