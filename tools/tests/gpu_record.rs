//! `tools/gpu-record` with a program that stands in for raglan: limits, failures in their own words, going on, the report.

#![allow(clippy::unwrap_used, reason = "a test may")]
#![cfg(unix)]

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Answers as raglan does, tells `calls` what it was asked, fails at `kernels` while `broken` is there, fails some rows
/// of a model while `partly` is there, and hangs at a prompt, and at collecting while `slow` is there. A dataset is as many
/// lines as it was collected in calls; weights are the dataset's lines behind another.
const STAND_IN: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$*" >> "$here/calls"
case "$*" in
    --version) echo "raglan 9.9.9" ;;
    devices*)
        driver=$(cat "$here/driver" 2>/dev/null || echo 1)
        echo '{"adapters":[{"index":0,"name":"Stand-in GPU","device_type":"cpu","driver":"none","driver_info":"'"$driver"'"}],"chosen":0}' ;;
    "bench kernels"*)
        if [ -e "$here/broken" ]; then echo "no kernel today: 0x2a" >&2; exit 3; fi
        echo '{"rows":[{"op":"linear","kernel":"matvec weight_f16","shape":"rows 1","us":2.0,"limit_us":1.5,"share_of_limit":0.75}]}' ;;
    *q4_0*--batch*)
        echo '{"rows":[{"test":"tg8","ms":1.5},{"test":"tg9","error":"no room"}]}'
        if [ -e "$here/partly" ]; then echo "1 of 2 rows have no numbers" >&2; exit 1; fi ;;
    *"--prompt 2048"*) sleep 100 & wait ;;
    "tune collect"*)
        echo measured >> dataset.parquet
        if [ -e "$here/slow" ]; then sleep 100 & wait; fi
        echo '{"rows":1}' ;;
    "tune train"*) (echo weights; cat dataset.parquet) > weights.safetensors; echo '{"seed":1}' ;;
    "tune evaluate"*)
        echo '<svg>regret</svg>' > tune-regret.svg
        echo '{"adapter_type":"stand-in-gpu-32","geometric_mean":0.9931,"p5":0.97,"shapes":[{"share":1}],'
        echo '"methods":{"model":{"geometric_mean":0.9931},"rules":{"geometric_mean":0.8123}}}' ;;
    "bench shapes"*)
        case "$*" in *"--weights weights.safetensors"*) cat weights.safetensors >&2 || exit 3 ;; esac
        echo '{"is_software":true,"rows":['
        for shape in 1 2 3; do
            echo '{"op":"linear","shape":"rows='$shape'","tuner":"default","us":4.0},'
            echo '{"op":"linear","shape":"rows='$shape'","tuner":"predict","us":2.0},'
        done
        echo '{"op":"linear","shape":"rows=1","tuner":"exhaustive","us":1.0}]}' ;;
    *) echo '{"rows":[{"test":"tg8","ms":1.5}]}' ;;
esac
"#;

struct Rig {
    folder: tempfile::TempDir,
}

impl Rig {
    fn new() -> Rig {
        let rig = Rig { folder: tempfile::tempdir().unwrap() };
        rig.install(STAND_IN);
        rig
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn install(&self, text: &str) {
        fs::write(self.path("raglan"), text).unwrap();
        fs::set_permissions(self.path("raglan"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// gpu-record with `args`; `out` is the folder of archives.
    fn run(&self, args: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("gpu-record");
        let mut command = Command::new("python3");
        command.arg(script).args(args).arg("--binary").arg(self.path("raglan")).arg("--out").arg(self.path("out"));
        command.env_remove("RAGLAN_RUNNER").env_remove("RAGLAN_LLAMA");
        command.output().expect("python3 runs")
    }

    /// What raglan was asked since the last call, beside its version and the adapters.
    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("calls")).unwrap_or_default();
        let _ = fs::remove_file(self.path("calls"));
        text.lines()
            .filter(|line| !line.starts_with("--version") && !line.starts_with("devices"))
            .map(str::to_owned)
            .collect()
    }

    /// The report's JSON and page.
    fn report(&self) -> (Value, String) {
        let results = self.path("results");
        let out = self.path("out");
        let done = self.run(&["report", out.to_str().unwrap(), "--results", results.to_str().unwrap()]);
        assert!(done.status.success(), "{}", said(&done));
        let written: Vec<_> =
            fs::read_dir(results.join("stand-in-gpu")).unwrap().map(|entry| entry.unwrap().path()).collect();
        let read = |extension: &str| {
            let found = written.iter().find(|path| path.extension().is_some_and(|met| met == extension));
            fs::read_to_string(found.unwrap_or_else(|| panic!("no .{extension} in {written:?}"))).unwrap()
        };
        (serde_json::from_str(&read("json")).unwrap(), read("md"))
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_failure_is_kept_in_its_words_the_rest_runs_and_the_next_run_goes_on() {
    let rig = Rig::new();
    fs::write(rig.path("broken"), "").unwrap();
    let first = rig.run(&["kernels", "models"]);
    assert_eq!(first.status.code(), Some(1), "{}", said(&first));
    assert!(said(&first).contains("no kernel today: 0x2a"), "{}", said(&first));
    let asked = rig.calls();
    let (kernels, models): (Vec<_>, Vec<_>) = asked.iter().partition(|call| call.starts_with("bench kernels"));
    assert!(!kernels.is_empty() && !models.is_empty(), "the models still ran: {asked:?}");
    let (record, page) = rig.report();
    assert_eq!(record["stages"][0]["steps"][0]["ended"], 3);
    assert_eq!(record["stages"][0]["steps"][0]["words"], "no kernel today: 0x2a\n");
    assert!(page.contains("no kernel today: 0x2a") && page.contains("say nothing about a GPU's speed"), "{page}");

    fs::remove_file(rig.path("broken")).unwrap();
    let second = rig.run(&["kernels", "models"]);
    assert!(second.status.success(), "{}", said(&second));
    assert_eq!(rig.calls().iter().collect::<Vec<_>>(), kernels, "only what failed ran again");
    let (record, page) = rig.report();
    assert_eq!(record["stages"][0]["steps"][0]["result"]["rows"][0]["share_of_limit"], 0.75);
    assert!(page.contains("-kernels.svg"), "{page}");

    assert!(rig.run(&["models", "--force"]).status.success());
    assert!(!rig.calls().is_empty(), "--force runs what succeeded");
    rig.install(&STAND_IN.replace("9.9.9", "9.9.10"));
    assert!(rig.run(&["models"]).status.success());
    assert!(!rig.calls().is_empty(), "another program is measured anew");
    fs::write(rig.path("out/models.tar.gz"), "cut short").unwrap();
    assert!(rig.run(&["models"]).status.success());
    assert!(!rig.calls().is_empty(), "a broken archive is as none");
}

#[test]
fn a_command_whose_rows_failed_in_part_is_done() {
    let rig = Rig::new();
    fs::write(rig.path("partly"), "").unwrap();
    let done = rig.run(&["models"]);
    assert!(done.status.success(), "{}", said(&done));
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(told.contains("some rows failed: models/model-tiny-q4_0"), "{told}");
    assert!(!rig.calls().is_empty());
    assert!(rig.run(&["models"]).status.success());
    assert!(rig.calls().is_empty(), "it would fail again");
    let (record, page) = rig.report();
    assert_eq!(record["stages"][0]["steps"][1]["ended"], 1);
    assert!(page.contains("done, some rows failed") && page.contains("no room"), "{page}");
}

#[test]
fn what_another_adapter_did_is_not_gone_on_from_nor_reported_with_it() {
    let rig = Rig::new();
    assert!(rig.run(&["models", "ragged"]).status.success());
    let earlier = rig.path("earlier");
    fs::create_dir(&earlier).unwrap();
    fs::copy(rig.path("out/models.tar.gz"), earlier.join("models.tar.gz")).unwrap();
    let from = ["models", "--from", earlier.to_str().unwrap()];
    rig.calls();
    fs::write(rig.path("out/models.tar.gz"), "cut short").unwrap();
    assert!(rig.run(&from).status.success());
    assert!(rig.calls().is_empty(), "a broken archive hides no good one");

    fs::write(rig.path("driver"), "2").unwrap();
    assert!(rig.run(&from).status.success());
    assert!(!rig.calls().is_empty(), "another driver is measured anew");
    let (out, results) = (rig.path("out"), rig.path("results"));
    let report = ["report", out.to_str().unwrap(), "--results", results.to_str().unwrap()];
    let refused = rig.run(&report);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("not of one adapter, driver and binary"), "{}", said(&refused));
    assert!(!results.exists());
    assert!(rig.run(&[&report[..], &["--mixed"]].concat()).status.success());
}

#[test]
fn a_command_that_hangs_is_ended_at_the_limit_and_so_is_what_it_started() {
    let rig = Rig::new();
    let started = std::time::Instant::now();
    let done = rig.run(&["prefill", "ragged", "--stage-seconds", "3"]);
    assert!(started.elapsed().as_secs() < 20);
    assert_eq!(done.status.code(), Some(1));
    assert!(said(&done).contains("killed after 3 s"), "{}", said(&done));
    let (record, _) = rig.report();
    let ended: Vec<_> = record["stages"].as_array().unwrap().iter().map(|stage| &stage["steps"][0]["ended"]).collect();
    assert_eq!(ended, [&Value::from(0), &Value::from("killed after 3 s")], "ragged, then prefill");
}

#[test]
fn every_stage_leaves_one_file_and_a_run_ends_when_it_was_told_to() {
    let rig = Rig::new();
    let done = rig.run(&["--total-seconds", "6", "--stage-seconds", "3", "--python", "/bin/false"]);
    assert_eq!(done.status.code(), Some(1), "{}", said(&done));
    let files: Vec<_> = fs::read_dir(rig.path("out")).unwrap().map(|entry| entry.unwrap()).collect();
    let mut names: Vec<_> = files.iter().map(|file| file.file_name().into_string().unwrap()).collect();
    names.sort();
    let stages = "depth dynamic kernels long models peer-llama peer-torch prefill ragged self-test tune";
    assert_eq!(names, stages.split(' ').map(|stage| format!("{stage}.tar.gz")).collect::<Vec<_>>());
    assert!(files.iter().all(|file| file.metadata().unwrap().len() < 16 << 20));
    let (record, _) = rig.report();
    let stages = record["stages"].as_array().unwrap();
    let llama = &stages.iter().find(|stage| stage["stage"] == "peer-llama").unwrap()["steps"][0];
    assert_eq!(llama["ended"], "skipped", "no libraries were given: {llama}");
}

#[test]
fn a_collection_that_was_cut_off_goes_on_and_what_was_made_of_it_is_made_again() {
    let rig = Rig::new();
    fs::write(rig.path("slow"), "").unwrap();
    assert_eq!(rig.run(&["tune", "--stage-seconds", "4"]).status.code(), Some(1));
    fs::remove_file(rig.path("slow")).unwrap();
    rig.calls();
    let second = rig.run(&["tune"]);
    assert!(second.status.success(), "{}", said(&second));
    let verbs: Vec<_> = rig.calls().iter().map(|call| call.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(verbs, ["collect", "train", "evaluate"]);
    assert!(rig.run(&["tune"]).status.success());
    assert!(rig.calls().is_empty(), "all is done");

    let (out, results, data) = (rig.path("out"), rig.path("results"), rig.path("data"));
    let [out, results_path, data_path] = [&out, &results, &data].map(|path| path.to_str().unwrap());
    let done = rig.run(&["report", out, "--results", results_path, "--data", data_path]);
    assert!(done.status.success(), "{}", said(&done));
    let kept = |name| fs::read_to_string(data.join("stand-in-gpu-32").join(name)).unwrap();
    assert_eq!(kept("dataset.parquet"), "measured\nmeasured\n", "it went on from what was cut off");
    assert_eq!(kept("weights.safetensors"), "weights\nmeasured\nmeasured\n");
    let (record, page) = rig.report();
    let steps = record["stages"][0]["steps"].as_array().unwrap();
    assert_eq!((&steps[2]["result"]["geometric_mean"], &steps[2]["result"]["shapes"]), (&0.9931.into(), &Value::Null));
    for text in ["-tune-regret.svg", "| model | 0.9931 |", "| rules | 0.8123 |"] {
        assert!(page.contains(text), "{text} in {page}");
    }
}

#[test]
fn dynamic_shapes_are_a_table_of_ratios_and_a_plot() {
    let rig = Rig::new();
    let peer = r#"#!/bin/sh
case "$*" in
    -c*) exit 1 ;;
    *"dynamic_peer.py torch"*)
        echo '{"peer":"PyTorch","device":"CPU","rows":[{"op":"linear","shape":"rows=1","runtime":"eager","us":3.0},'
        echo '{"op":"linear","shape":"rows=2","runtime":"eager","us":12.0}]}' ;;
esac
"#;
    fs::write(rig.path("python"), peer).unwrap();
    fs::set_permissions(rig.path("python"), fs::Permissions::from_mode(0o755)).unwrap();
    let done = rig.run(&["dynamic", "--python", rig.path("python").to_str().unwrap()]);
    assert!(done.status.success(), "{}", said(&done));
    let (record, page) = rig.report();
    assert_eq!(record["stages"][0]["steps"][2]["ended"], "skipped", "that Python has no ONNX Runtime");
    // 3 / 2 and 12 / 2 of what is predicted, 3 / 4 and 12 / 4 of the default.
    assert!(page.contains("| matmul | eager | 2 | 1.500 | 3.000 | 3.000 | 100% |"), "{page}");
    assert!(page.contains("| matmul | raglan, predict | 1 | 2.000 |"), "{page}");
    assert!(page.contains("-dynamic.svg"), "{page}");
}

#[test]
fn dynamic_shapes_are_picked_by_the_weights_that_tune_trained() {
    let rig = Rig::new();
    // Whether the shapes were timed anew, and if so with weights.
    let timed = |more: &[&str]| {
        rig.run(&[&["dynamic", "--python", "/bin/false"], more].concat());
        let calls = rig.calls();
        calls.iter().find(|call| call.starts_with("bench shapes")).map(|call| call.contains("--weights"))
    };
    assert_eq!(timed(&[]), Some(false));
    let (record, page) = rig.report();
    let words = "ran without weights.safetensors of tune/train: there was none";
    assert_eq!(record["stages"][0]["steps"][0]["note"], words);
    assert!(page.contains(words), "{page}");
    assert_eq!(timed(&[]), None, "nothing has changed");

    assert!(rig.run(&["tune"]).status.success());
    rig.calls();
    assert_eq!(timed(&[]), Some(true), "there are weights now");
    let (record, page) = rig.report();
    let stages = record["stages"].as_array().unwrap();
    let ours = &stages.iter().find(|stage| stage["stage"] == "dynamic").unwrap()["steps"][0];
    assert_eq!((ours["ended"].as_i64(), &ours["note"]), (Some(0), &Value::Null), "the file was there: {ours}");
    assert!(!page.contains(words), "{page}");
    assert_eq!(timed(&[]), None);

    let earlier = rig.path("earlier");
    fs::rename(rig.path("out"), &earlier).unwrap();
    let from = ["--from", earlier.to_str().unwrap()];
    assert_eq!(timed(&from), None, "it is done, by the same weights");
    fs::remove_file(earlier.join("dynamic.tar.gz")).unwrap();
    fs::remove_dir_all(rig.path("out")).unwrap();
    assert_eq!(timed(&from), Some(true), "the weights of the earlier run");
    assert!(rig.run(&["tune", "--force"]).status.success());
    rig.calls();
    assert_eq!(timed(&from), None, "the same bytes were trained");
}

#[test]
fn the_dynamic_shapes_are_what_their_seed_makes() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/dynamic_shapes.py");
    let done = Command::new("python3").arg(&script).arg("--check").output().expect("python3 runs");
    assert!(done.status.success(), "{}", said(&done));
    let text = fs::read(script.with_file_name("dynamic.json")).unwrap();
    let shapes = serde_json::from_slice::<Value>(&text).unwrap()["shapes"].as_array().unwrap().len();
    assert!(shapes >= 200, "{shapes}");
}

#[test]
fn what_must_be_carried_is_weighed() {
    let rig = Rig::new();
    assert!(rig.run(&["size"]).status.success());
    fs::File::options().write(true).open(rig.path("raglan")).unwrap().set_len(70 << 20).unwrap();
    let done = rig.run(&["size"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(said(&done).contains("TOO LARGE"), "{}", said(&done));
}

#[test]
fn a_stage_that_is_not_there_is_named_with_those_that_are() {
    let done = Rig::new().run(&["kernel"]);
    assert_eq!(done.status.code(), Some(2));
    assert!(said(&done).contains("no stage kernel: self-test, kernels"), "{}", said(&done));
}

#[test]
fn the_longest_contexts_are_held_against_what_is_wanted_of_them() {
    let rig = Rig::new();
    let stand_in = STAND_IN.replace("\"name\":\"Stand-in GPU\",\"device_type\":\"cpu\"", "\"name\":\"Stand-in GPU\",\"device_type\":\"discrete\"").replace(
        "    *) echo",
        r#"    "bench depth"*)
        case "$*" in *int4*) depth=279900; deepest=9.5 ;; *) depth=72000; deepest=8.8 ;; esac
        reading='"error":null'
        case "$*" in *--real-prefill*) depth=32768; reading='"read_tokens_per_s":3000.0,"read_longest_step_ms":180.0' ;; esac
        echo '{"rows":[{"test":"tg100 @ d1024","depth":1024,"tokens":100,"ms_per_token":2.0,"time_over_limit":1.3},'
        echo '{"test":"deep","depth":'$depth',"tokens":100,"ms_per_token":'$deepest',"time_over_limit":1.125,'$reading'}],'
        echo '"curves":[{"model":"synthetic:llama-2-13b:f16","kv_type":"f16","layers":40,"model_layers":40,"cliff":false,"excess":0.008,"excess_depth":4098.0,'
        echo '"fit":{"ms":2.5,"us_per_1k":88.0,"r2":0.9999,"worst_residual":0.012,"worst_depth":2048.0},'
        echo '"limit_fit":{"ms":2.0,"us_per_1k":80.0},"share_of_room":0.9871,"other_bytes":185692096,'
        echo '"memory":{"longest_context":72320}}]}' ;;
    *) echo"#,
    );
    rig.install(&stand_in);
    let done = rig.run(&["long"]);
    assert!(done.status.success(), "{}", said(&done));
    let asked = rig.calls();
    assert!(asked.iter().any(|call| call.starts_with("self-test --filter twin/attention")), "{asked:?}");
    let (_, page) = rig.report();
    for words in [
        "280,000 tokens: time over the limit | ≤ 1.20 | 1.125 at 280,000, 9.50 ms",
        "70,000 tokens: time over the limit | ≤ 1.15 | 1.125 at 72,100, 8.80 ms",
        "÷ bytes a token | ≥ 0.98 | 0.9871",
        "all other memory at batch 1, MB | ≤ 300 | 186",
        "longest step | ≤ 2000 ms | 32,768 tokens at 3000 a second, 180 ms",
        "- llama-2-13b, KV f16: time 2.500 ms + 88.00 µs a 1K tokens; limit 2.000 ms + 80.00 µs a 1K tokens",
        "worst residual 1.2 % at 2048, no cliff: the fastest time is at most 0.8 % over the line, at 4098",
        "longest context 72,320, 98.71 % of what the weights leave; all other memory 186 MB",
    ] {
        assert!(page.contains(words), "{words:?} in {page}");
    }

    // Deeper rows failed: what is left does not reach the goal.
    rig.install(&stand_in.replace("depth=279900", "depth=139900").replace("depth=72000", "depth=36000"));
    let done = rig.run(&["long", "--force"]);
    assert!(done.status.success(), "{}", said(&done));
    let (_, page) = rig.report();
    for words in [
        "280,000 tokens: time over the limit | ≤ 1.20 | 280,000 not reached; 1.125 at 140,000, 9.50 ms",
        "70,000 tokens: time over the limit | ≤ 1.15 | 70,000 not reached; 1.125 at 36,100, 8.80 ms",
        "÷ bytes a token | ≥ 0.98 | 70,000 not reached; 0.9871",
        "all other memory at batch 1, MB | ≤ 300 | 70,000 not reached; 186",
    ] {
        assert!(page.contains(words), "{words:?} in {page}");
    }
}
