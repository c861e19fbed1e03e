//! `raglan tune` from outside: training, scoring, showing, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test may")]

#[allow(dead_code, reason = "other tests use the rest")]
mod cli_support;

use cli_support::{folder, has_adapter, json, run};
use raglan::schedules::{self, linear};
use raglan::tuner::{Candidate, Cost, Dataset, Header, Row, Split, split};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A run for which no weights serve but a test's own.
fn command(args: &[&str]) -> Command {
    let mut command = cli_support::command(args);
    command.env("RAGLAN_NO_SHIPPED_WEIGHTS", "1");
    command
}

/// Tiles of `matmul` that every adapter runs.
const CANDIDATES: [&str; 3] = [
    "matmul LANES_M=1 LANES_N=32 TILE_M=1 TILE_N=4 STAGES=0 DEPTH=32 SPLITS=1",
    "matmul LANES_M=1 LANES_N=32 TILE_M=4 TILE_N=8 STAGES=0 DEPTH=32 SPLITS=1",
    "matmul LANES_M=1 LANES_N=32 TILE_M=8 TILE_N=8 STAGES=0 DEPTH=32 SPLITS=1",
];

/// What a candidate costs and takes on an adapter that is not there: it computes whole tiles.
fn cost(rows: f32, cols: f32, inner: f32, tile_rows: f32) -> (Cost, f32) {
    let tiles = (rows / tile_rows).ceil() * (cols / 128.0).ceil();
    let (bytes, flops) = (tiles * 128.0 * inner, 2.0 * tiles * tile_rows * 128.0 * inner);
    let cost = Cost {
        bytes: bytes.into(),
        flops: flops.into(),
        workgroups: tiles.into(),
        workgroup_bytes: (bytes / tiles).into(),
    };
    (cost, 3.0 + bytes / 2e4 + flops / 3e4)
}

/// Measurements that nobody made, with a little noise, of products of up to eight rows.
fn dataset(adapter_type: &str) -> Dataset {
    let space = linear::space(1);
    let mut rows = Vec::new();
    let mut noise = 1u32;
    for (group, (cols, inner)) in (0..30).flat_map(|g| [(g, (256.0 + 32.0 * g as f32, 128.0 + 96.0 * (g % 7) as f32))])
    {
        for m in [1.0, 2.0, 3.0, 5.0, 8.0] {
            let shape = vec![m, cols, inner, 16.0, 0.0, (group % 2) as f32, 0.0];
            let rounds = if split(space, &shape) == Split::Train { 3 } else { 6 };
            for (name, tile_rows) in CANDIDATES.iter().zip([1.0, 4.0, 8.0]) {
                let (cost, us) = cost(m, cols, inner, tile_rows);
                let mut times_us = Vec::new();
                for _ in 0..rounds {
                    noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    times_us.push(us * (1.0 + 0.01 * (noise >> 8) as f32 / (1 << 24) as f32));
                }
                let candidate: Candidate = name.parse().unwrap();
                let (shape, by_rules) = (shape.clone(), tile_rows == 8.0);
                rows.push(Row { space: space.name.clone(), shape, candidate, cost, times_us, failure: None, by_rules });
            }
        }
    }
    let header = Header {
        adapter_type: adapter_type.to_owned(),
        adapter: "an adapter that is not there".to_owned(),
        driver: "none".to_owned(),
        clock: "made up".to_owned(),
        date: "2026-11-22".to_owned(),
        kernel_hashes: [(space.name.clone(), schedules::kernel_hash(&space.name))].into(),
        spaces: vec![space.clone()],
    };
    Dataset { header, rows }
}

/// A folder with a dataset, and the dataset's path.
fn measured(name: &str, adapter_type: &str) -> (PathBuf, String) {
    let folder = folder(name);
    let path = folder.join("dataset.parquet");
    dataset(adapter_type).write(&path).unwrap();
    (folder, path.to_str().unwrap().to_owned())
}

fn at(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

#[test]
fn the_same_seed_trains_the_same_bytes() {
    let (folder, dataset) = measured("tune-train", "nowhere-8");
    let train = |out: &str, seed: &str| {
        let report = json(&["tune", "train", &dataset, "--out", &at(&folder, out), "--seed", seed, "--json"]);
        (std::fs::read(folder.join(out)).unwrap(), report)
    };
    let (first, report) = train("a", "7");
    assert_eq!(report["adapter_type"], "nowhere-8");
    assert_eq!((&report["seed"], &report["kernels"]["linear_few"]), (&7.into(), &3.into()));
    assert!(report["scores"]["geometric_mean"].as_f64().unwrap() > 0.9, "{report}");
    assert_eq!(first, train("b", "7").0);
    assert_ne!(first, train("c", "8").0);
    // Where nothing is said, beside the dataset.
    run(&["tune", "train", &dataset]).succeeds(&["tune", "train"]);
    assert!(folder.join("weights.safetensors").is_file());
}

#[test]
fn two_files_are_scored_where_there_is_no_adapter() {
    let (folder, dataset) = measured("tune-evaluate", "nowhere-8");
    let (weights, plots) = (at(&folder, "weights.safetensors"), at(&folder, "plots"));
    json(&["tune", "train", &dataset, "--json"]);
    let args = ["tune", "evaluate", "--dataset", &dataset, "--weights", &weights, "--plot-dir", &plots];
    let score = |more: &[&str]| {
        let output = command(&[&args[..], more].concat()).env("RAGLAN_ADAPTER", "no such adapter").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let report: Value = serde_json::from_str(&score(&["--json"])).unwrap();
    let number =
        |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} in {report}"));
    for path in [
        "/geometric_mean",
        "/p5",
        "/p1",
        "/worst",
        "/splits/new_m/geometric_mean",
        "/splits/new_nk/geometric_mean",
        "/calibrated",
        "/noise_floor",
        "/kernels/linear_few/geometric_mean",
        "/methods/single_best/geometric_mean",
        "/methods/buckets/geometric_mean",
        "/methods/nearest/geometric_mean",
        "/methods/analytical/geometric_mean",
        "/methods/rules/geometric_mean",
    ] {
        assert!((0.3..=1.0).contains(&number(path)), "{path} is {}", number(path));
    }
    for path in ["/latency_ns/cold_p50", "/latency_ns/warm_p50", "/latency_ns/memo_p50"] {
        assert!(number(path) > 0.0, "{path}");
    }
    assert!(number("/worst") <= number("/p1") && number("/p1") <= number("/p5") && number("/geometric_mean") > 0.95);
    assert_eq!(report["dataset_sha256"].as_str().map(str::len), Some(64));
    assert_eq!(report["kernel_hash"]["linear_few"].as_str().map(str::len), Some(16));
    let unseen = |split: Split| {
        let space = linear::space(1);
        let mut shapes: Vec<_> =
            dataset_shapes("nowhere-8").filter(|shape| self::split(space, shape) == split).collect();
        shapes.dedup();
        shapes.len()
    };
    assert_eq!(number("/splits/new_m/shapes") as usize, unseen(Split::NewM));
    assert_eq!(number("/splits/new_nk/shapes") as usize, unseen(Split::NewNk));
    for name in ["tune-regret.svg", "tune-rows.svg", "tune-predicted.svg"] {
        let svg = std::fs::read_to_string(Path::new(&plots).join(name)).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("linear_few") && !svg.contains("NaN"), "{name}: {svg}");
        assert!(svg.contains("an adapter that is not there"), "{name}");
    }
    let table = score(&[]);
    for text in ["| predicted |", "noise floor", "single best", "another (N, K)", "in no cache at all"] {
        assert!(table.contains(text), "{text} in {table}");
    }
}

fn dataset_shapes(adapter_type: &str) -> impl Iterator<Item = Vec<f32>> {
    dataset(adapter_type).rows.into_iter().map(|row| row.shape)
}

#[test]
fn what_is_no_dataset_no_weights_and_no_shape_says_so() {
    let (folder, dataset) = measured("tune-refused", "nowhere-8");
    let broken = at(&folder, "broken");
    json(&["tune", "train", &dataset, "--json"]);
    let weights = at(&folder, "weights.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    let score = ["tune", "evaluate", "--dataset", &dataset, "--weights", &broken];
    for bytes in [&whole[..whole.len() / 2], b"no weights", &[]] {
        std::fs::write(&broken, bytes).unwrap();
        run(&score).fails(1, &["raglan: error: ", "broken", "no weights of the tuner"]);
    }
    let mut measurements = std::fs::read(&dataset).unwrap();
    measurements.truncate(measurements.len() - 9);
    std::fs::write(&broken, measurements).unwrap();
    run(&["tune", "train", &broken]).fails(1, &["raglan: error: ", "broken", "no dataset of the tuner"]);
    run(&["tune", "evaluate", "--dataset", &broken, "--weights", &weights]).fails(1, &["no dataset of the tuner"]);
    run(&["tune", "train", "nowhere.parquet"]).fails(1, &["nowhere.parquet"]);
    let empty = Dataset { rows: Vec::new(), ..self::dataset("nowhere-8") };
    empty.write(Path::new(&broken)).unwrap();
    run(&["tune", "train", &broken]).fails(1, &["nothing to train on"]);

    for (shape, words) in [
        ("rows=1 cols=64", ["has no inner", "inner=4096"]),
        ("rows=1 cols=64 inner=31 format=q4", ["inner=31", "whole blocks"]),
        ("lengths=5 heads=4/3 dim=64", ["4/3", "kv head"]),
        ("gpt-5 rows=1", ["gpt-5", "llama-2-7b"]),
        ("rows 1", ["\"1\"", "NAME=VALUE"]),
    ] {
        run(&["tune", "show", shape]).fails(1, &words);
    }
    run(&["tune", "show"]).fails(2, &["SHAPE"]);
    run(&["tune", "--minutes", "0"]).fails(2, &["--minutes"]);
    let shapes = at(&folder, "shapes.json");
    for (text, words) in [("{}", "missing field"), (r#"{"shapes": ["rows=1", "x"]}"#, "shape 1: ")] {
        std::fs::write(&shapes, text).unwrap();
        run(&["bench", "shapes", "--shapes", &shapes]).fails(1, &["shapes.json", words]);
    }
}

#[test]
fn a_shape_is_shown_with_what_is_picked_why_and_the_portfolio_in_order() {
    if !has_adapter() {
        return;
    }
    // A cache of its own: other tests see no weights.
    let cache = folder("tune-show");
    let show = |args: &[&str]| {
        let args = [&["tune", "show", "rows=3", "cols=416", "inner=416", "format=f16"], args].concat();
        let output = command(&args).env("RAGLAN_CACHE", &cache).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = |args: &[&str]| -> Value { serde_json::from_str(&show(&[args, &["--json"]].concat())).unwrap() };
    let before = shown(&[]);
    let rules = before["shapes"][0]["rules"].as_str().unwrap().to_owned();
    assert!(rules.starts_with("mat"), "{before}");

    let adapter_type = before["adapter_type"].as_str().unwrap();
    let installed = cache.join("tuner").join(adapter_type);
    let (_, dataset) = measured("tune-show-data", adapter_type);
    std::fs::create_dir_all(&installed).unwrap();
    json(&["tune", "train", &dataset, "--out", &at(&installed, "weights.safetensors"), "--json"]);
    let after = shown(&[]);
    let of = &after["shapes"][0];
    assert_eq!((&of["space"], &of["rules"]), (&"linear_few".into(), &rules.into()));
    assert_eq!(of["weights"]["date"], "2026-11-22");
    assert!(of["weights"]["scores"]["geometric_mean"].as_f64().unwrap() > 0.9, "{of}");
    let candidates = of["candidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 3);
    assert_eq!(of["picked"], candidates[0]["candidate"]);
    let us: Vec<f64> = candidates.iter().map(|one| one["predicted_us"].as_f64().unwrap()).collect();
    assert!(us.is_sorted() && candidates.iter().all(|one| one["prior_us"].as_f64().unwrap() > 0.0), "{candidates:?}");
    let words = show(&["--top", "2"]);
    for text in ["linear_few: rows 3, cols 416", "picked: ", "rules: ", "1 more", "2026-11-22"] {
        assert!(words.contains(text), "{text} in {words}");
    }
}

#[test]
fn what_is_scored_where_nothing_is_named_is_what_runs_pick_by() {
    if !has_adapter() {
        return;
    }
    let cache = folder("tune-in-use");
    let output = |args: &[&str]| command(args).env("RAGLAN_CACHE", &cache).output().unwrap();
    let shown = output(&["tune", "show", "rows=3", "cols=416", "inner=416", "format=f16", "--json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let adapter_type = shown["adapter_type"].as_str().unwrap();
    // Weights of a type that is near, and own measurements with other kernels.
    let near = format!("{adapter_type}-1");
    let (_, trained_on) = measured("tune-in-use-data", &near);
    let [near_folder, own_folder] = [&near, adapter_type].map(|name| cache.join("tuner").join(name));
    std::fs::create_dir_all(&near_folder).unwrap();
    std::fs::create_dir_all(&own_folder).unwrap();
    json(&["tune", "train", &trained_on, "--out", &at(&near_folder, "weights.safetensors"), "--json"]);
    let mut own = dataset(adapter_type);
    own.header.kernel_hashes.values_mut().for_each(|hash| *hash = "0123456789abcdef".to_owned());
    own.header.date = "9999-12-31".to_owned(); // newer than what comes with the program
    own.write(&own_folder.join("dataset.parquet")).unwrap();

    let scored = output(&["tune", "evaluate", "--json"]);
    assert!(scored.status.success(), "{}", String::from_utf8_lossy(&scored.stderr));
    let report: Value = serde_json::from_slice(&scored.stdout).unwrap();
    assert_eq!(
        (&report["levels"]["linear_few"], &report["levels"]["linear_many"]),
        (&"nearest".into(), &"defaults".into())
    );
    assert_eq!(report["other_kernels"], serde_json::json!(["linear_few"]));
    assert!(report["weights"].as_str().unwrap().contains(&near) && report["geometric_mean"].as_f64().unwrap() > 0.9);
    let words = String::from_utf8(output(&["tune", "evaluate"]).stdout).unwrap();
    for text in
        ["linear_few: measured on the nearest", "linear_many: hand-written rules", "linear_few: the dataset was"]
    {
        assert!(words.contains(text), "{text} in {words}");
    }
}

#[test]
fn shapes_are_timed_by_what_each_mode_picks() {
    if !has_adapter() {
        return;
    }
    let folder = folder("bench-shapes");
    let path = folder.join("shapes.json");
    std::fs::write(&path, r#"{"shapes": ["rows=2 cols=64 inner=64", "lengths=20,9 heads=2/1 dim=64"]}"#).unwrap();
    let shapes = ["bench", "shapes", "--shapes", path.to_str().unwrap(), "-o", "json", "--modes"];
    // A cache of its own: there are no weights but those that are named.
    let bench = |more: &[&str], code: i32| -> Value {
        let output = command(&[&shapes[..], more].concat()).env("RAGLAN_CACHE", &folder).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let of = |report: &Value, key: &str| -> Vec<String> {
        report["rows"].as_array().unwrap().iter().map(|row| row[key].as_str().unwrap_or("-").to_owned()).collect()
    };
    let rules = bench(&["off"], 0);
    assert_eq!(of(&rules, "op"), ["linear", "attention"]);

    let adapter_type = rules["adapter_type"].as_str().unwrap();
    let (_, dataset) = measured("bench-shapes-data", adapter_type);
    let weights = at(&folder, "weights.safetensors");
    json(&["tune", "train", &dataset, "--out", &weights, "--json"]);
    let report = bench(&["off,predict,exhaustive", "--weights", &weights, "--max-seconds", "40"], 1);
    assert_eq!(report["levels"]["linear_few"], "other_driver");
    let errors = of(&report, "error");
    assert_eq!(of(&report, "tuner")[..3], ["off", "predict", "exhaustive"]);
    assert_eq!(errors[..3], ["-", "-", "-"], "{report}");
    assert!(errors.iter().any(|error| error.contains("no weights serve attention_vector")), "{errors:?}");

    let rows = report["rows"].as_array().unwrap();
    for row in rows.iter().filter(|row| row["error"].is_null()) {
        let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key} in {row}"));
        assert!(
            0.0 < number("us_min") && number("us_min") <= number("us") && number("us") <= number("us_max"),
            "{row}"
        );
    }
    let refused = bench(&["off,default,predict", "--max-seconds", "1000"], 1);
    assert_eq!(of(&refused, "tuner"), ["off", "default", "predict"].repeat(2));
    for row in refused["rows"].as_array().unwrap() {
        let is_refused = row["error"].as_str().is_some_and(|error| error.contains("no weights serve"));
        assert_eq!(is_refused, row["tuner"] != "off", "{row}");
    }
    let elsewhere = at(&folder, "elsewhere");
    let (_, dataset) = measured("bench-shapes-elsewhere", "nowhere-8");
    json(&["tune", "train", &dataset, "--out", &elsewhere, "--json"]);
    run(&[&shapes[..], &["off", "--weights", &elsewhere]].concat()).fails(1, &["nowhere-8", "serve nothing"]);
    let late = run(&[&shapes[..], &["off", "--max-seconds", "0"]].concat());
    assert_eq!(late.code, Some(1), "{}", late.stderr);
    assert!(late.stdout.contains("the time was over") && late.stderr.contains("2 of 2 rows"), "{}", late.stderr);
}
