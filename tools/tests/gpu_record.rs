//! `tools/gpu-record` with a program that stands in for raglan: limits, failures in their own words, going on, the report.

#![allow(clippy::unwrap_used, reason = "a test may")]
#![cfg(unix)]

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Answers as raglan does, tells `calls` what it was asked, fails at `kernels` while `broken` is there, fails some rows
/// of a model while `partly` is there, and hangs at a prompt.
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
fn all_stages_leave_at_most_eight_files_and_a_run_ends_when_it_was_told_to() {
    let rig = Rig::new();
    let done = rig.run(&["--total-seconds", "6", "--stage-seconds", "3", "--python", "/bin/false"]);
    assert_eq!(done.status.code(), Some(1), "{}", said(&done));
    let files: Vec<_> = fs::read_dir(rig.path("out")).unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(files.len(), 8, "{files:?}");
    assert!(files.iter().all(|file| file.metadata().unwrap().len() < 16 << 20));
    let (record, _) = rig.report();
    let stages = record["stages"].as_array().unwrap();
    let llama = &stages.iter().find(|stage| stage["stage"] == "peer-llama").unwrap()["steps"][0];
    assert_eq!(llama["ended"], "skipped", "no libraries were given: {llama}");
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
