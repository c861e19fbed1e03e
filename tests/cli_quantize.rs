//! `raglan quantize` from outside, on the model inside the program.
#![allow(clippy::unwrap_used, reason = "a test may")]

#[allow(dead_code, reason = "other tests use the rest")]
mod cli_support;

use cli_support::{folder, has_adapter, json, run};
use serde_json::Value;
use std::path::{Path, PathBuf};

const STORY: &str = "Once upon a time there was a fox who lived near the hare. One day the fox found a lantern.\n";

fn quantize(out: &Path, more: &[&str]) -> Value {
    json(&[&["quantize", "tiny", out.to_str().unwrap(), "--json"], more].concat())
}

fn text(folder: &Path) -> PathBuf {
    let path = folder.join("story.txt");
    std::fs::write(&path, STORY.repeat(8)).unwrap();
    path
}

/// What a model makes of a prompt, the likeliest token every time.
fn tokens(model: &str, more: &[&str]) -> Value {
    let args = ["generate", "--model", model, "--prompt", STORY, "--temperature", "0", "--max-tokens", "24", "--json"];
    json(&[&args[..], more].concat())["token_ids"].clone()
}

/// The formats of a model's matrices as they lie on an adapter.
fn formats(model: &Path) -> Vec<String> {
    let report = json(&["inspect", model.to_str().unwrap(), "--json"]);
    report["gpu_formats"].as_array().unwrap().iter().map(|used| used["format"].as_str().unwrap().to_owned()).collect()
}

fn weights(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("model.safetensors")).unwrap()
}

#[test]
fn a_folder_is_read_back_as_what_quantising_at_load_makes() {
    let folder = folder("quantize");
    let (q8, q4) = (folder.join("q8"), folder.join("q4"));
    let report = quantize(&q8, &[]);
    assert_eq!((&report["to"], &report["group"], &report["quantized"]), (&"q8".into(), &32.into(), &35.into()));
    let file_bytes = std::fs::metadata(q8.join("model.safetensors")).unwrap().len();
    assert!(report["bytes"].as_u64().unwrap() <= file_bytes);
    assert_eq!(formats(&q8), ["F32", "F16", "Q8_0"], "norms, the embedding, all else");
    let smaller = quantize(&q4, &["--to", "q4"])["bytes"].as_u64().unwrap();
    assert!(smaller < report["bytes"].as_u64().unwrap());
    assert_eq!(formats(&q4), ["F32", "F16", "INT4_G32"]);
    if !has_adapter() {
        return;
    }
    let own = tokens("tiny", &[]);
    assert_eq!(tokens(q8.to_str().unwrap(), &[]), own);
    assert_eq!(tokens("tiny", &["--quantize", "q8"]), own);
    let text = text(&folder);
    let nll = |model: &str, more: &[&str]| {
        let args =
            ["perplexity", "--model", model, "--text", text.to_str().unwrap(), "--window", "64", "--windows", "2"];
        json(&[&args[..], &["--json"], more].concat())["nll"].as_f64().unwrap()
    };
    let (folder, load, own) = (nll(q4.to_str().unwrap(), &[]), nll("tiny", &["--quantize", "q4"]), nll("tiny", &[]));
    assert_eq!(folder, load, "the same numbers, the same kernels");
    assert!(folder != own && (folder - own).abs() < 0.1, "{folder}, unquantised {own}");
}

#[test]
fn what_is_there_is_not_touched_and_what_was_cut_off_is_begun_anew() {
    let folder = folder("quantize-there");
    let out = folder.join("out");
    let cut = folder.join("out.raglan-partial");
    std::fs::create_dir(&cut).unwrap();
    std::fs::write(cut.join("model.safetensors"), "half").unwrap();
    // What has no mark of this program is not its to remove.
    run(&["quantize", "tiny", out.to_str().unwrap(), "--to", "q8"]).fails(1, &["out.raglan-partial", "move it away"]);
    std::fs::write(cut.join(".raglan-partial"), "").unwrap();
    let kept = quantize(&out, &["--to", "int4-g32-sym", "--keep", "lm_head,embed,down_proj"]);
    assert_eq!((&kept["to"], &kept["quantized"]), (&"int4-g32-sym".into(), &30.into()));
    assert_eq!(formats(&out), ["F32", "F16", "Q4_0"]);
    assert!(!cut.exists());
    let before = weights(&out);
    let refused = |out: &str, more: &[&str], code: i32, words: &[&str]| {
        run(&[&["quantize", "tiny", out], more].concat()).fails(code, words);
    };
    let (there, free) = (out.to_str().unwrap(), folder.join("free"));
    let free = free.to_str().unwrap();
    refused(there, &[], 1, &["out is there already", "another folder"]);
    assert_eq!(weights(&out), before);
    refused(free, &["--to", "q5"], 2, &["q5", "q8, q4"]);
    refused(free, &["--keep", "gate"], 1, &["gate", "down_proj"]);
    refused(free, &["--quantize", "q4"], 1, &["--quantize", "--to"]);
    refused(free, &["--calibration", "/no/such/text"], 1, &["/no/such/text"]);
    let names = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(names, 1, "nothing else is left");
}

/// The model inside the program with feed-forward layers so wide that they take seconds, all zeros, in a file with holes.
#[cfg(target_os = "linux")]
fn wide(folder: &Path) {
    use serde_json::{Map, from_slice, json, to_vec};
    const WIDTH: u64 = 1 << 18;
    let narrow = Path::new("models/tiny-stories");
    let mut config: Value = from_slice(&std::fs::read(narrow.join("config.json")).unwrap()).unwrap();
    let old = std::mem::replace(&mut config["intermediate_size"], WIDTH.into());
    std::fs::create_dir(folder).unwrap();
    std::fs::write(folder.join("config.json"), to_vec(&config).unwrap()).unwrap();
    let file = std::fs::read(narrow.join("model.safetensors")).unwrap();
    let (length, rest) = file.split_at(8);
    let header: Map<String, Value> =
        from_slice(&rest[..u64::from_le_bytes(length.try_into().unwrap()) as usize]).unwrap();
    let mut end = 0;
    let place = |(name, tensor): (&String, &Value)| {
        let shape: Vec<_> = tensor["shape"]
            .as_array()
            .unwrap()
            .iter()
            .map(|d| if *d == old { WIDTH } else { d.as_u64().unwrap() })
            .collect();
        let first = end;
        end += 2 * shape.iter().product::<u64>();
        (name.clone(), json!({"dtype": "F16", "shape": shape, "data_offsets": [first, end]}))
    };
    let tensors = header.iter().filter(|(name, _)| *name != "__metadata__");
    let header = to_vec(&tensors.map(place).collect::<Map<_, _>>()).unwrap();
    let path = folder.join("model.safetensors");
    std::fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], &header].concat()).unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_len(8 + header.len() as u64 + end).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn an_interrupt_leaves_nothing_of_what_was_half_written() {
    use std::process::{Command, Stdio};
    let folder = folder("quantize-interrupt");
    let (model, out) = (folder.join("wide"), folder.join("out"));
    wide(&model);
    let args = ["quantize", model.to_str().unwrap(), out.to_str().unwrap()];
    let mut child = cli_support::command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let start = std::time::Instant::now();
    while !folder.join("out.raglan-partial/model.safetensors").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before");
        assert!(start.elapsed().as_secs() < 100, "nothing is written");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{told}");
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["wide"]);
    assert_eq!(quantize(&out, &[])["quantized"], 35, "the name is free");
}

#[test]
fn a_text_to_read_changes_what_is_lost() {
    if !has_adapter() {
        return;
    }
    let folder = folder("quantize-calibrated");
    let (plain, calibrated) = (folder.join("plain"), folder.join("calibrated"));
    let text = text(&folder);
    let more = ["--calibration", text.to_str().unwrap(), "--calibration-tokens", "64"];
    let reports = [quantize(&plain, &["--to", "q4"]), quantize(&calibrated, &[&["--to", "q4"], &more[..]].concat())];
    assert_eq!(reports[0]["bytes"], reports[1]["bytes"]);
    assert_ne!(weights(&plain), weights(&calibrated));
    assert_eq!(formats(&calibrated), ["F32", "F16", "INT4_G32"]);
}
