//! `raglan bench` from outside: what it measures, names and prints, and how it tells what it could not.
#![allow(clippy::unwrap_used, reason = "a test may")]

#[allow(dead_code, reason = "other tests use the rest")]
mod cli_support;

use cli_support::{folder, has_adapter, json, run};
use raglan::EngineOptions;
use raglan::bench::Adapter;
use raglan::bench::models::{self, Options, Test};
use raglan::gpu::{Gpu, GpuOptions};
use raglan::models::{Checkpoint, Synthetic};
use serde_json::Value;

/// A few small tests of the tiny shapes.
const SMALL: [&str; 11] = ["bench", "-m", "synthetic:tiny:q4", "-p", "8", "-n", "4", "-d", "0,100", "-r", "2"];

fn small<'a>(more: &[&'a str]) -> Vec<&'a str> {
    SMALL.iter().chain(more).copied().collect()
}

fn names(report: &Value) -> Vec<&str> {
    report["rows"].as_array().unwrap().iter().map(|row| row["test"].as_str().unwrap()).collect()
}

#[test]
fn every_combination_is_a_row_with_its_time_beside_its_limit() {
    if !has_adapter() {
        return;
    }
    let plot = folder("bench-plot").join("depth.svg");
    let more = ["--batch", "1,3", "--ragged", "5,40x2", "--timed", "-o", "json", "--plot", plot.to_str().unwrap()];
    let report = json(&small(&more));
    let wanted = ["pp8", "tg4", "tg4 b3", "pp8 @ d100", "tg4 @ d100", "tg4 b3 @ d100", "tg4 b3 @ d5,40x2"];
    assert_eq!(names(&report), wanted);
    for key in ["adapter", "driver", "date", "version", "rates", "rows", "ops"] {
        assert!(!report[key].is_null(), "{key}");
    }
    for key in ["read_gb_per_s", "copy_gb_per_s", "f32_tflop_per_s", "int8_top_per_s", "largest_buffer_bytes"] {
        assert!(report["rates"][key].as_f64().unwrap() > 0.0, "{key}");
    }
    for row in report["rows"].as_array().unwrap() {
        let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key} of {row}"));
        assert_eq!(row["model"], "synthetic:tiny:q4_0");
        assert_eq!(row["samples_s"].as_array().unwrap().len(), 2);
        let tokens = number("tokens") * number("batch");
        let seconds = number("ms_per_token") / 1e3 * number("tokens");
        let rate = number("tokens_per_s");
        // Of two samples the median rate is the mean of rates, not the rate of the mean time.
        assert!((rate * seconds / tokens - 1.0).abs() < 1.0, "{row}");
        let ratio = number("ms_per_token") / number("limit_ms_per_token");
        assert!((number("time_over_limit") / ratio - 1.0).abs() < 1e-9, "{row}");
        assert!(number("limit_ms_per_token") > 0.0 && number("dispatches_per_step") > 10.0, "{row}");
        assert!(number("share_of_read") > 0.0 && number("share_of_products") > 0.0, "{row}");
    }
    // A timed test has each kind of dispatch, and their shares are all of the step.
    let timestamps = report["adapter"]["features"]["timestamps"] == true;
    for test in report["ops"].as_array().unwrap() {
        let ops = test["ops"].as_array().unwrap();
        let share: f64 = ops.iter().map(|op| op["share_of_step"].as_f64().unwrap()).sum();
        assert!((share - 1.0).abs() < 1e-6, "{test}");
        for op in ["embedding", "rms_norm", "linear", "attention", "argmax"] {
            assert!(ops.iter().any(|row| row["op"] == op), "{op} in {test}");
        }
    }
    assert_eq!(report["ops"].as_array().unwrap().len(), if timestamps { wanted.len() } else { 0 });
    let svg = std::fs::read_to_string(plot).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("context, tokens"));
}

#[test]
fn a_test_that_does_not_fit_says_so_and_the_others_run() {
    if !has_adapter() {
        return;
    }
    let args =
        ["bench", "-m", "synthetic:tiny", "-p", "0", "-n", "2", "-d", "0,1000", "-r", "1", "--max-context", "256"];
    let met = run(&[&args[..], &["-o", "json"]].concat());
    assert_eq!(met.code, Some(1), "{}", met.stderr);
    let report: Value = serde_json::from_str(&met.stdout).unwrap();
    assert_eq!(names(&report), ["tg2", "tg2 @ d1000"]);
    assert!(report["rows"][0]["error"].is_null() && report["rows"][0]["tokens_per_s"].as_f64().unwrap() > 0.0);
    let error = report["rows"][1]["error"].as_str().unwrap();
    assert!(error.contains("room for") && error.contains("256"), "{error}");
    assert!(met.stderr.contains("1 of 2 rows"), "{}", met.stderr);
    let table = run(&args);
    assert!(table.stdout.contains("| tg2 @ d1000 |") && table.stdout.contains("room for 256"), "{}", table.stdout);
}

#[test]
fn the_model_inside_the_program_is_measured_with_contexts_that_were_read() {
    if !has_adapter() {
        return;
    }
    let args = ["bench", "-m", "tiny", "-p", "8", "-n", "4", "-d", "64", "-r", "1", "--real-prefill", "-o", "csv"];
    let met = run(&args);
    met.succeeds(&args);
    let lines: Vec<&str> = met.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{}", met.stdout);
    assert!(lines[0].contains("tokens_per_s,") && lines[1].contains("pp8 @ d64") && lines[2].contains("tg4 @ d64"));
}

#[test]
fn after_a_loss_every_row_is_an_error_that_says_so() {
    if !has_adapter() {
        return;
    }
    let gpu = Gpu::open(&GpuOptions::default()).unwrap();
    let adapter = Adapter::measure(&gpu, &mut |_, _, _| ()).unwrap();
    let checkpoint = Checkpoint::synthetic(Synthetic::parse("synthetic:tiny:q4").unwrap());
    let options = Options {
        tests: Test::all(&[8], &[4], &[0, 40], &[1], &[]),
        repetitions: 1,
        real_prefill: false,
        timed: false,
        deadline: None,
        engine: EngineOptions::default(),
    };
    let mut told = 0;
    let (rows, _) = models::run(&gpu, &checkpoint, &adapter, &options, &mut |_, _, _| (), &mut |_| {
        told += 1;
        if told == 1 {
            gpu.lose();
        }
    });
    assert_eq!((told, rows.len()), (4, 4));
    assert!(rows[0].error.is_none() && rows[0].tokens_per_s.is_some(), "{:?}", rows[0]);
    for row in &rows[1..] {
        let error = row.error.as_deref().unwrap();
        assert!(error.contains("lost") && error == rows[1].error.as_deref().unwrap(), "{error}");
    }
}

#[test]
fn kernels_are_timed_by_model_and_format() {
    if !has_adapter() {
        return;
    }
    let base = ["bench", "kernels", "--models", "tiny", "--rows", "1,70", "--depth", "40", "-r", "1"];
    let plot = folder("bench-kernels").join("kernels.svg");
    let more = ["--formats", "f16,q4_k", "-o", "json", "--plot", plot.to_str().unwrap()];
    let report = json(&[&base[..], &more].concat());
    let rows = report["rows"].as_array().unwrap();
    for (model, rows_of, op) in [
        ("synthetic:tiny:f16", 1, "linear"),
        ("synthetic:tiny:f16", 70, "attention"),
        ("synthetic:tiny:q4_k", 1, "rope_append"),
        ("synthetic:tiny:q4_k", 70, "linear"),
    ] {
        let found = rows.iter().find(|row| row["model"] == model && row["rows"] == rows_of && row["op"] == op);
        let row = found.unwrap_or_else(|| panic!("{model}, {rows_of} rows, {op}"));
        assert!(row["us"].as_f64().unwrap() > 0.0 && row["share_of_limit"].as_f64().unwrap() > 0.0, "{row}");
    }
    assert!(std::fs::read_to_string(plot).unwrap().contains("share of the limit"));
    let filtered = json(&[&base[..], &["--formats", "f16", "--filter", "attention", "-o", "json"]].concat());
    assert!(filtered["rows"].as_array().unwrap().iter().all(|row| row["op"] == "attention"), "{filtered}");
}

#[test]
fn what_cannot_be_measured_is_refused_with_what_there_is() {
    let refused = |args: &[&str], words: &[&str]| run(args).fails(1, &[&["raglan: error: "], words].concat());
    refused(&["bench", "-m", "synthetic:gpt-5"], &["synthetic:gpt-5", "synthetic:llama-2-13b"]);
    refused(&["bench", "-m", "synthetic:tiny:int3"], &["q4_k"]);
    run(&small(&["--kv-type", "q8_0"])).fails(2, &["--kv-type", "q8_0", "f32, f16, int8, k8v4, int4"]);
    refused(&["generate", "-m", "synthetic:tiny", "--prompt", "x"], &["no tokenizer", "--token-ids"]);
    run(&small(&["--ragged", "5x0"])).fails(2, &["5x0"]);
    run(&["bench", "-p", "1,,2"]).fails(2, &["--prompt"]);
    let report = json(&["inspect", "synthetic:llama-2-13b:q4", "--json"]);
    assert_eq!((&report["parameters"], &report["num_hidden_layers"]), (&13_015_864_320u64.into(), &40.into()));
    if has_adapter() {
        refused(&["bench", "-m", "synthetic:tiny", "-p", "0", "-n", "0"], &["nothing to run"]);
        refused(&small(&["--batch", "0,1"]), &["--batch 0"]);
        refused(&["bench", "kernels", "--models", "gpt-5"], &["gpt-5", "synthetic:qwen3-8b"]);
        let adapter = json(&["bench", "adapter", "-o", "json"]);
        assert!(adapter["rates"]["drain_us"].is_number() && adapter["rows"].as_array().unwrap().is_empty());
    }
}
