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
    assert_eq!((&report["window"], &report["chunk"], &report["floor_chunk"]), (&160.into(), &64.into(), &4.into()));
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
    assert!(kl(1) > 0.0, "the floor is another computation");
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

/// The model inside the program in a folder, its `config.json` and its tokenizer's with other values.
fn altered(name: &str, config: &Value, tokenizer: &Value) -> PathBuf {
    let (from, to) = (Path::new("models/tiny-stories"), folder(name));
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let path = to.join(file.file_name());
        let other = match file.file_name().to_str().unwrap() {
            "config.json" => config,
            "tokenizer_config.json" => tokenizer,
            _ => {
                std::fs::copy(file.path(), &path).unwrap();
                continue;
            }
        };
        let mut all: Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
        all.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
        std::fs::write(&path, all.to_string()).unwrap();
    }
    to
}

#[test]
fn needles_are_found_out_behind_windows_and_in_steps_of_few_tokens() {
    if !has_adapter() {
        return;
    }
    let path = text(&folder("needle-windows"));
    let windows =
        serde_json::json!({ "model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 64 });
    let kinds: Vec<String> = (0..5).map(|at| ["full_attention", "sliding_attention"][at % 2].to_owned()).collect();
    let mixed = serde_json::json!({ "model_type": "smollm3", "architectures": ["SmolLM3ForCausalLM"], "layer_types": kinds,
        "use_sliding_window": true, "sliding_window": 64 });
    let same = serde_json::json!({});
    let bos = serde_json::json!({ "add_bos_token": true });
    for (name, config, tokenizer) in [("eval-windows", &windows, &same), ("eval-mixed", &mixed, &bos)] {
        let model = altered(name, config, tokenizer);
        let model = ["--model", model.to_str().unwrap(), "--text", path.to_str().unwrap(), "--kv", "f16", "--json"];
        let more = ["--lengths", "224", "--depths", "0,50", "--samples", "1"];
        let of = |steps: &[&str]| -> Vec<f64> {
            let report = json(&[&["eval", "needle"], &model[..], &more[..], steps].concat());
            let cells = report["rows"][0]["cells"].as_array().unwrap().clone();
            cells.iter().map(|cell| number(&cell["log_probability"])).collect()
        };
        let (whole, steps) = (of(&[]), of(&["--max-batch-tokens", "8"]));
        assert_eq!((whole.len(), steps.len()), (2, 2));
        // What rounding in f16 makes of a sum of some nats.
        assert!(whole.iter().zip(&steps).all(|(a, b)| (a - b).abs() < 2e-3 * a.abs()), "{name}: {whole:?} {steps:?}");
        if config == &mixed {
            let report = json(&[&["eval"], &model[..], &["--window", "40", "--windows", "2"]].concat());
            assert_eq!(report["texts"][0]["tokens"], 80);
            for row in report["rows"].as_array().unwrap() {
                assert_eq!((&row["all"]["rows"], &row["all"]["scored"]), (&78.into(), &76.into()), "but for BOS");
            }
        }
    }
    let tiny = ["eval", "needle", "--model", "tiny", "--text", path.to_str().unwrap(), "--kv", "f16", "--json"];
    json(
        &[
            &tiny[..],
            &["--lengths", "224", "--depths", "50", "--samples", "1", "--deterministic", "--max-batch-tokens", "64"],
        ]
        .concat(),
    );
}

#[cfg(target_os = "linux")]
#[test]
fn an_interrupt_keeps_what_was_measured_and_says_what_was_not() {
    use std::process::{Command, Stdio};
    if !has_adapter() {
        return;
    }
    let path = text(&folder("eval-interrupt"));
    let args =
        ["eval", "needle", "--model", "tiny", "--text", path.to_str().unwrap(), "--kv", "f16,int8", "--samples", "50"];
    let mut child = cli_support::command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Once the program itself hears of interrupts, the system says that it catches signal 2.
    let status = format!("/proc/{}/status", child.id());
    let catches = || {
        let status = std::fs::read_to_string(&status).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & 1 << 1 != 0
    };
    while !catches() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let [table, told] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("ending after this step"), "{told}");
    assert_eq!(table.matches("not measured: ended by the user").count(), 2, "{table}");
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
    eval(&["--text", text, "--chunk", "4"]).fails(1, &["steps of 4", "--floor-chunk"]);
    eval(&["--text", text, "--window", "30", "--floor-chunk", "40"]).fails(1, &["steps of 30", "--floor-chunk"]);
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
