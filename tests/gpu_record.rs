//! `tools/gpu-record` with the program itself on this adapter: what `bench` prints is what the report reads.
#![allow(clippy::unwrap_used, reason = "a test may")]

#[allow(dead_code, reason = "this test starts the program through another")]
mod cli_support;

use cli_support::{folder, has_adapter};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs gpu-record to a good end.
fn gpu_record(args: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/gpu-record");
    let mut command = Command::new("python3");
    command.arg(script).args(args).args(["--binary", env!("CARGO_BIN_EXE_raglan")]);
    let done = command.env("RAGLAN_OFFLINE", "1").output().expect("python3 runs");
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
}

#[test]
fn a_run_on_this_adapter_becomes_a_page_with_a_depth_curve_and_shares_of_the_limit() {
    if !has_adapter() {
        return;
    }
    let (out, results) = (folder("gpu-record"), folder("gpu-record-results"));
    gpu_record(&["kernels", "depth", "--sizes", "small", "--out", out.to_str().unwrap()]);
    gpu_record(&["report", out.to_str().unwrap(), "--results", results.to_str().unwrap()]);

    let adapter = std::fs::read_dir(&results).unwrap().next().unwrap().unwrap().path();
    let written: Vec<PathBuf> = std::fs::read_dir(adapter).unwrap().map(|entry| entry.unwrap().path()).collect();
    let read = |end: &str| {
        let found = written.iter().find(|path| path.to_str().unwrap().ends_with(end));
        std::fs::read_to_string(found.unwrap_or_else(|| panic!("no {end} among {written:?}"))).unwrap()
    };
    let record: Value = serde_json::from_str(&read(".json")).unwrap();
    for (stage, numbers) in
        [(0, ["share_of_limit", "limit_us", "us"]), (1, ["ms_per_token", "limit_ms_per_token", "depth"])]
    {
        for step in record["stages"][stage]["steps"].as_array().unwrap() {
            let rows = step["result"]["rows"].as_array().unwrap();
            let complete =
                |row: &Value| numbers.iter().all(|name| row[name].as_f64().is_some_and(|number| number > 0.0));
            assert!(!rows.is_empty() && rows.iter().all(complete), "{numbers:?} in {step}");
        }
    }
    let curve = read("-depth.svg");
    assert!(curve.contains("raglan, tiny</text>") && curve.contains("the limit, tiny</text>"), "{curve}");
    assert!(read("-kernels.svg").contains("tiny attention rows 1"), "the bars name their kernels");
    assert!(read(".md").contains("time_over_limit"), "the page has the bench's tables");
}
