//! `raglan eval` from outside, on the model inside the program.
#![allow(clippy::unwrap_used, reason = "a test may")]

#[allow(dead_code, reason = "other tests use the rest")]
mod cli_support;

use cli_support::{folder, has_adapter, json, run};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A text in the manner of what the model was trained on.
fn text(folder: &Path) -> PathBuf {
    let names = ["fox", "hare", "badger", "owl", "mole"];
    let line = |at: usize| {
        let (one, other) = (names[at % 5], names[(at * at + 1) % 5]);
        format!("Once upon a time there was a {one} who lived near the {other}. One day the {one} found {at} apples.\n")
    };
    let path = folder.join("story.txt");
    std::fs::write(&path, (0..60).map(line).collect::<String>()).unwrap();
    path
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn formats_stand_in_the_order_of_their_bits_and_the_floor_below_them() {
    if !has_adapter() {
        return;
    }
    let folder = folder("eval");
    let (path, picture, temp) = (text(&folder), folder.join("eval.svg"), folder.join("temp"));
    std::fs::create_dir(&temp).unwrap();
    let text = path.to_str().unwrap();
    let common = ["--model", "tiny", "--text", text, "--window", "160", "--json"];
    let more = ["--windows", "2", "--chunk", "64", "--kv", "f16,int8,int4", "--temp-dir", temp.to_str().unwrap()];
    let plot = ["--plot", picture.to_str().unwrap()];
    let report = json(&[&["eval"], &common[..], &more[..], &plot[..]].concat());
    assert_eq!((&report["window"], &report["chunk"], &report["floor_chunk"]), (&160.into(), &64.into(), &8.into()));
    assert_eq!(report["texts"][0]["tokens"], 320);
    let rows = report["rows"].as_array().unwrap();
    let roles: Vec<_> = rows.iter().map(|row| row["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["reference", "floor", "format", "format"], "f16 is the reference");
    for row in rows {
        assert!(row["error"].is_null(), "{row}");
        assert_eq!((&row["all"]["rows"], &row["all"]["scored"]), (&320.into(), &318.into()));
        assert_eq!(row["all"], row["texts"][0], "one text is all");
        let places = row["all"]["by_position"].as_array().unwrap();
        let places: Vec<_> = places.iter().map(|b| (number(&b["from"]), number(&b["rows"]))).collect();
        assert_eq!(places, [(0.0, 128.0), (64.0, 128.0), (128.0, 64.0)]);
    }
    let kl = |row: usize| number(&rows[row]["all"]["kl_mean"]);
    assert_eq!(kl(0), 0.0);
    assert!(kl(1) < kl(2) && kl(2) < kl(3), "floor, int8, int4: {} {} {}", kl(1), kl(2), kl(3));
    let agreement = |row: usize| number(&rows[row]["all"]["top1_agreement"]);
    assert!(agreement(0) == 1.0 && agreement(1) >= agreement(3) && agreement(2) >= agreement(3));
    let bytes = |row: usize| number(&rows[row]["kv_bytes_per_token"]);
    assert!(bytes(0) > bytes(2) && bytes(2) > bytes(3));

    let perplexity = json(&[&["perplexity"], &common[..], &["--windows", "2"]].concat());
    let (met, wanted) = (number(&rows[0]["all"]["nll"]), number(&perplexity["nll"]));
    // Sums in f32 against sums in f64.
    assert!((met / wanted - 1.0).abs() < 1e-4, "{met}, wanted {wanted}");
    assert!(std::fs::read_to_string(&picture).unwrap().contains("int4"));
    assert_eq!(std::fs::read_dir(&temp).unwrap().count(), 0, "the logits are gone");

    let args = [&["eval"], &common[..6], &["--windows", "1", "--kv", "f16"]].concat();
    let table = run(&args);
    table.succeeds(&args);
    assert!(table.stdout.contains("| as-is | ") && table.stdout.contains("(floor)"), "{}", table.stdout);
}

#[test]
fn what_time_leaves_out_says_so() {
    if !has_adapter() {
        return;
    }
    let folder = folder("eval-time");
    let path = text(&folder);
    let args = ["eval", "--model", "tiny", "--text", path.to_str().unwrap(), "--window", "32", "--max-seconds", "0"];
    run(&args).fails(1, &["not measured", "--max-seconds"]);
}

#[test]
fn needles_are_the_same_by_seed_and_every_cell_has_its_numbers() {
    if !has_adapter() {
        return;
    }
    let folder = folder("needle");
    let (path, picture) = (text(&folder), folder.join("needle.svg"));
    let common = ["eval", "needle", "--model", "tiny", "--text", path.to_str().unwrap(), "--json"];
    let of = |more: &[&str]| {
        let mut report = json(&[&common[..], &["--lengths", "320,192", "--kv", "f16"], more].concat());
        for row in report["rows"].as_array_mut().unwrap() {
            row["seconds"] = Value::Null;
        }
        report["rows"].clone()
    };
    let more = ["--depths", "100,0", "--samples", "1", "--plot", picture.to_str().unwrap()];
    let rows = of(&more);
    let cells: Vec<_> = rows[0]["cells"].as_array().unwrap().iter().collect();
    let places: Vec<_> = cells.iter().map(|cell| (number(&cell["length"]), number(&cell["depth"]))).collect();
    assert_eq!(places, [(192.0, 0.0), (192.0, 100.0), (320.0, 0.0), (320.0, 100.0)]);
    assert!(cells.iter().all(|cell| number(&cell["log_probability"]) < 0.0), "{rows}");
    assert_eq!(rows, of(&more));
    assert_ne!(rows, of(&[&more[..4], &["--seed", "2"]].concat()));
    assert!(std::fs::read_to_string(&picture).unwrap().contains("tokens of context"));
}

#[test]
fn what_cannot_be_judged_is_refused_with_what_to_do() {
    let folder = folder("eval-refused");
    let path = text(&folder);
    let text = path.to_str().unwrap();
    let eval = |more: &[&str]| run(&[&["eval", "--model", "tiny"], more].concat());
    let needle = |more: &[&str]| run(&[&["eval", "needle", "--model", "tiny", "--text", text], more].concat());
    eval(&[]).fails(2, &["--text"]);
    eval(&["--text", text, "--kv", "f16,f16"]).fails(2, &["twice"]);
    eval(&["--text", text, "--windows", "0"]).fails(2, &["--windows"]);
    eval(&["--text", text, "--kv", "int3"]).fails(1, &["\"int3\"", "f16"]);
    eval(&["--text", text, "--weights", "q7"]).fails(1, &["\"q7\"", "as-is"]);
    eval(&["--text", text, "--chunk", "8"]).fails(1, &["--floor-chunk"]);
    eval(&["--text", text, "--kv-type", "int8"]).fails(1, &["--kv", "--weights"]);
    eval(&["--text", "/no/such/file"]).fails(1, &["/no/such/file"]);
    eval(&["--text", "models/tiny-stories/model.safetensors"]).fails(1, &["UTF-8"]);
    eval(&["--text", text, "--window", "1000000"]).fails(1, &["1000000", "--max-context"]);
    let short = folder.join("short.txt");
    std::fs::write(&short, "a").unwrap();
    eval(&["--text", text, "--text", short.to_str().unwrap()]).fails(1, &["short.txt", "wanted 2 or more"]);
    needle(&["--depths", "101"]).fails(1, &["--depths 101"]);
    needle(&["--lengths", "x"]).fails(2, &["--lengths"]);
    if has_adapter() {
        eval(&["--text", text, "--temp-dir", "/no/such/folder"]).fails(1, &["/no/such/folder"]);
        needle(&["--lengths", "1M"]).fails(2, &["whole number"]);
        needle(&["--lengths", "100000"]).fails(1, &["100000", "of text"]);
        needle(&["--lengths", "20"]).fails(1, &["no room", "question"]);
    }
}
