//! The command line from outside: what it prints, where, and how it ends.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod cli_support;

use cli_support::{comma_separated, command, folder, golden, has_adapter, json, run, run_with};
use serde_json::Value;
use std::process::Stdio;

const STORY: [&str; 6] = ["generate", "--model", "tiny", "--no-chat-template", "--prompt", "Once upon a time"];

fn story<'a>(more: &[&'a str]) -> Vec<&'a str> {
    STORY.iter().chain(more).copied().collect()
}

#[test]
fn greedy_answers_are_the_golden_ones_with_and_without_the_chat_template() {
    if !has_adapter() {
        return;
    }
    let golden = golden("tiny_stories");
    let raw = json(&story(&["--max-tokens", "100", "--json"]));
    let chat_prompt = "Tell me a story about a fox and a lantern.";
    let chat = json(&["generate", "--model", "tiny", "--prompt", chat_prompt, "--max-tokens", "100", "--json"]);
    for (met, wanted) in [(&raw, &golden["items"][0]), (&chat, &golden["items"][1])] {
        assert_eq!(met["token_ids"], wanted["greedy_ids"]);
        assert_eq!(met["text"], wanted["greedy_text"]);
        assert_eq!(met["prompt_tokens"], wanted["prompt_ids"].as_array().unwrap().len());
        assert_eq!(met["finish_reason"], "length");
        let timing = |name: &str| met["timings"][name].as_f64().unwrap();
        for name in ["load_ms", "prefill_tokens_per_s", "decode_tokens_per_s", "time_to_first_token_ms"] {
            assert!(timing(name) > 0.0, "{name}");
        }
        let prefill = 1e3 * met["prompt_tokens"].as_f64().unwrap() / timing("time_to_first_token_ms");
        assert!((prefill / timing("prefill_tokens_per_s") - 1.0).abs() < 1e-6);
    }
}

#[test]
fn streamed_text_is_the_text_of_the_report_whatever_the_pipeline_and_the_step() {
    if !has_adapter() {
        return;
    }
    let text = json(&story(&["--max-tokens", "30", "--json"]))["text"].as_str().unwrap().to_owned() + "\n";
    for more in [["--pipeline", "1"], ["--pipeline", "2"], ["--max-batch-tokens", "3"], ["--dtype", "f32"]] {
        let args = story(&[&["--max-tokens", "30"], &more[..]].concat());
        let run = run(&args);
        run.succeeds(&args);
        assert_eq!(run.stdout, text, "{more:?}");
        assert_eq!(run.stderr, "", "{more:?}");
    }
}

#[test]
fn a_stop_string_ends_the_answer_and_is_not_shown() {
    if !has_adapter() {
        return;
    }
    let stops = ["--stop", "no such words", "--stop", "quiet, and", "--stop", "loved to read"];
    let args = story(&stops);
    let run = run(&args);
    run.succeeds(&args);
    assert_eq!(run.stdout, ", there was a little boy named Hugo. He was \n");
    let report = json(&story(&[&stops[..], &["--json"]].concat()));
    assert_eq!(report["text"], ", there was a little boy named Hugo. He was ");
    assert_eq!(report["finish_reason"], "stop");
    let ids = report["token_ids"].as_array().unwrap();
    let greedy = golden("tiny_stories")["items"][0]["greedy_ids"].clone();
    assert_eq!(ids[..], greedy.as_array().unwrap()[..ids.len()], "the ids up to the stop string's end");
}

#[test]
fn the_same_seed_gives_the_same_answer_and_another_seed_another() {
    if !has_adapter() {
        return;
    }
    let sampled = |seed: &'static str, pipeline: &'static str| {
        let sampling = ["--temperature", "1.2", "--top-p", "0.95", "--presence-penalty", "-0.5", "--max-tokens", "40"];
        let rest = ["--seed", seed, "--pipeline", pipeline, "--json"];
        json(&story(&[&sampling[..], &rest].concat()))["token_ids"].clone()
    };
    let first = sampled("7", "2");
    assert_eq!(first, sampled("7", "2"));
    assert_eq!(first, sampled("7", "1"));
    assert_ne!(first, sampled("8", "2"));
}

#[test]
fn a_folder_without_a_tokenizer_runs_on_token_ids() {
    if !has_adapter() {
        return;
    }
    let golden = golden("llama");
    let ids = comma_separated(&golden["prompt"]);
    let prompt_len = golden["prompt"].as_array().unwrap().len();
    let wanted = &golden["generated"].as_array().unwrap()[prompt_len..];
    let count = wanted.len().to_string();
    let args =
        ["generate", "--model", "tests/golden/llama", "--token-ids", &ids, "--max-tokens", &count, "--ignore-eos"];
    let report = json(&[&args[..], &["--json"]].concat());
    assert_eq!(report["token_ids"].as_array().unwrap()[..], *wanted);
    assert_eq!(report["text"], Value::Null);
    let run = run(&args);
    run.succeeds(&args);
    let words: Vec<String> = wanted.iter().map(Value::to_string).collect();
    assert_eq!(run.stdout, words.join(" ") + "\n");
}

#[test]
fn the_prompt_may_come_from_a_file_or_a_pipe() {
    if !has_adapter() {
        return;
    }
    let path = folder("prompt-file").join("prompt.txt");
    std::fs::write(&path, "Once upon a time").unwrap();
    let base = ["generate", "--model", "tiny", "--no-chat-template", "--max-tokens", "8"];
    let from_file = run(&[&base[..], &["--prompt-file", path.to_str().unwrap()]].concat());
    let from_pipe = run_with(&base, "Once upon a time\n");
    let from_dash = run_with(&[&base[..], &["--prompt", "-"]].concat(), "Once upon a time\n");
    assert_eq!(from_file.stdout, ", there was a little boy named Hugo\n", "{}", from_file.stderr);
    assert_eq!((&from_pipe.stdout, &from_dash.stdout), (&from_file.stdout, &from_file.stdout));
}

#[test]
fn without_a_model_the_one_inside_answers_and_says_so() {
    if !has_adapter() {
        return;
    }
    let args = ["generate", "--prompt", "Tell me a story.", "--max-tokens", "5", "--json"];
    let run = run(&args);
    run.succeeds(&args);
    assert!(serde_json::from_str::<Value>(&run.stdout).is_ok(), "{}", run.stdout);
    for words in ["SmolLM2-135M-Instruct", "tiny", "nine story plots", "tools/fetch-model"] {
        assert!(run.stderr.contains(words), "{words:?} in {}", run.stderr);
    }
}

#[test]
fn nobody_reading_any_more_is_no_error() {
    if !has_adapter() {
        return;
    }
    let mut child = command(&story(&["--max-tokens", "200", "--ignore-eos"]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &[][..]));
}

#[test]
fn a_conversation_through_a_pipe_obeys_its_commands() {
    if !has_adapter() {
        return;
    }
    let folder = folder("chat");
    let saved = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (first, second, third) = (saved("first.json"), saved("second.json"), saved("third.json"));
    let question = "Tell me a story about a fox and a lantern.";
    let input = format!(
        "{question}\n\n/save {first}\n/system Be brief.\nAnd then?\n/save {second}\n/reset\n/save {third}\n/what\n/help\n/quit\nnot read\n"
    );
    let args = ["chat", "--model", "tiny", "--max-tokens", "12"];
    let run = run_with(&args, &input);
    run.succeeds(&args);
    let messages = |path: &str| -> Vec<(String, String)> {
        let messages: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let text = |message: &Value, key: &str| message[key].as_str().unwrap().to_owned();
        messages.iter().map(|message| (text(message, "role"), text(message, "content"))).collect()
    };
    let roles = |path: &str| messages(path).into_iter().map(|(role, _)| role).collect::<Vec<_>>();
    assert_eq!(roles(&first), ["user", "assistant"]);
    assert_eq!(roles(&second), ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!(messages(&third), [("system".to_owned(), "Be brief.".to_owned())]);
    let answer = &messages(&first)[1].1;
    let golden = golden("tiny_stories")["items"][1]["greedy_text"].as_str().unwrap().to_owned();
    assert!(!answer.is_empty() && golden.starts_with(answer), "{answer:?}");
    let later = &messages(&second)[4].1;
    assert!(run.stdout.starts_with(&format!("{answer}\n{later}\n/reset ")), "{}", run.stdout);
    assert!(run.stderr.contains("/what is no command"), "{}", run.stderr);
}

#[test]
fn perplexity_scores_every_token_but_a_windows_first_and_reads_all_line_ends_alike() {
    if !has_adapter() {
        return;
    }
    let folder = folder("perplexity");
    let measure = |name: &str, text: &str, more: &[&str]| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        json(&[&["perplexity", "--model", "tiny", "--json", "--text", path.to_str().unwrap()], more].concat())
    };
    let golden = &golden("tiny_stories")["items"][0];
    let met = measure("golden.txt", "Once upon a time", &["--dtype", "f32"]);
    let losses: Vec<f64> = golden["prompt_nll"].as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap()).collect();
    let wanted = losses.iter().sum::<f64>() / losses.len() as f64;
    assert_eq!(met["tokens"], losses.len());
    // Sums in f32 against sums in f32 in another order.
    assert!((met["nll"].as_f64().unwrap() - wanted).abs() < 1e-3 * wanted, "{met}, wanted {wanted}");
    assert!((met["perplexity"].as_f64().unwrap() / met["nll"].as_f64().unwrap().exp() - 1.0).abs() < 1e-9);

    let text = "Once upon a time there was a fox.\nHe had a lantern.\nIt was red.\n";
    let unix = measure("unix.txt", text, &["--window", "8"]);
    assert_eq!(unix, measure("dos.txt", &text.replace('\n', "\r\n"), &["--window", "8"]));
    assert_eq!(unix, measure("mac.txt", &text.replace('\n', "\r"), &["--window", "8"]));
    let two = measure("two.txt", text, &["--window", "8", "--windows", "2"]);
    assert_eq!((&two["tokens"], &two["windows"]), (&14.into(), &2.into()));
}

#[test]
fn inspect_tells_what_a_checkpoint_is_with_or_without_an_adapter() {
    let report = json(&["inspect", "tiny", "--json"]);
    assert_eq!(report["family"], "llama");
    assert_eq!((&report["hidden_size"], &report["num_hidden_layers"]), (&128.into(), &5.into()));
    assert_eq!(report["parameters"], 1_246_592);
    assert_eq!((&report["formats"][0]["format"], &report["weight_bytes"]), (&"F16".into(), &2_493_184.into()));
    assert!(report["adapter"].is_null() != report["no_adapter"].is_null(), "{report}");
    let kv_bytes = if report["kv_type"] == "f16" { 2 } else { 4 };
    assert_eq!(report["kv_bytes_per_1k_tokens"], 1024 * 5 * 2 * 2 * 32 * kv_bytes);
    let on_adapter = |args: &[&str]| {
        let report = json(&[&["inspect", "tiny", "--json"], args].concat());
        let formats = report["gpu_formats"].as_array().unwrap().clone();
        let bytes = |used: &Value| used["bytes"].as_u64().unwrap();
        assert_eq!(report["gpu_weight_bytes"], formats.iter().map(bytes).sum::<u64>());
        assert_eq!(report["weight_bytes"], 2_493_184, "the file's own");
        let of = |name: &str| formats.iter().find(|used| used["format"] == name).map_or(0, bytes);
        (of("F16"), of("Q8_0"), of("INT4_G32"))
    };
    let (all, q8) = (on_adapter(&[]), on_adapter(&["--quantize", "q8", "--kv-type", "int4"]));
    assert_eq!((all.1, all.2, q8.2), (0, 0, 0));
    // The embedding of 2,048 tokens stays; the rest takes 34 bytes in place of 64, or 20, and rows are padded to 16 bytes.
    let rest = (all.0 - 2048 * 128 * 2) as f64;
    let is = |met: u64, share: f64| (1.0..1.1).contains(&(met as f64 / (rest * share)));
    assert!(q8.0 == 2048 * 128 * 2 && is(q8.1, 34.0 / 64.0), "{all:?} {q8:?}");
    let q4 = on_adapter(&["--quantize", "q4"]);
    assert!(is(q4.2, 20.0 / 64.0), "{q4:?}");
    let bare = json(&["inspect", "tests/golden/qwen3", "--json"]);
    assert_eq!(
        (&bare["family"], &bare["tokenizer"], &bare["chat_template"]),
        (&"qwen3".into(), &Value::Null, &false.into())
    );
    assert_eq!(run(&["inspect", "tiny"]).code, Some(0));
}

#[test]
fn inspect_lists_the_longest_contexts_of_every_weight_format_and_kv_type_on_cards() {
    let rows = json(&["inspect", "--memory=8GiB,24GiB", "synthetic:llama-2-7b", "--json"]);
    let rows = rows.as_array().unwrap();
    let ways: Vec<_> = rows.iter().step_by(2).map(|row| (&row["weights"], &row["kv_type"])).collect();
    assert_eq!(ways.len(), 12);
    for (place, weights) in ["f16", "q8", "q4"].into_iter().enumerate() {
        for (column, kv_type) in ["f16", "int8", "k8v4", "int4"].into_iter().enumerate() {
            assert_eq!(ways[4 * place + column], (&weights.into(), &kv_type.into()));
        }
    }
    let bytes = |row: usize| rows[row]["weight_bytes"].as_u64().unwrap();
    assert!(bytes(0) > bytes(8) && bytes(8) > bytes(16), "{rows:?}");
    let asked = json(&[
        "inspect",
        "--memory",
        "tiny",
        "synthetic:llama-2-7b",
        "--quantize",
        "q4",
        "--kv-type",
        "int4",
        "--json",
    ]);
    let asked = asked.as_array().unwrap();
    assert_eq!(asked.len(), 10, "two models on five cards: a model's name is no size");
    assert!(asked.iter().all(|row| row["weights"] == "q4" && row["kv_type"] == "int4"), "{asked:?}");
    assert_eq!(json(&["inspect", "tiny", "tests/golden/qwen3", "--json"]).as_array().map(Vec::len), Some(2));
}

#[test]
fn devices_lists_adapters_and_says_which_is_taken() {
    if !has_adapter() {
        return;
    }
    let report = json(&["devices", "--json"]);
    let chosen = report["chosen"].as_u64().unwrap() as usize;
    assert!(report["adapters"][chosen]["limits"]["max_binding_bytes"].as_u64().unwrap() > 0);
    assert!(run(&["devices"]).stdout.contains("chosen: "));
    let name = "no adapter is called that";
    run(&["generate", "--model", "tiny", "--prompt", "x", "--adapter", name]).fails(1, &["raglan: error: ", name]);
}

#[test]
fn self_test_runs_the_tests_that_the_filter_names() {
    if !has_adapter() {
        return;
    }
    let report = json(&["self-test", "--filter", "twin/gated_activation", "--json"]);
    let tests = report["tests"].as_array().unwrap();
    assert_eq!((&report["passed"], &report["failed"]), (&tests.len().into(), &Value::Array(Vec::new())));
    assert!(!tests.is_empty() && tests.iter().all(|test| test["ok"] == true), "{report}");
    run(&["self-test", "--filter", "no such test"]).fails(1, &["no such test"]);
}

#[test]
fn bad_input_is_refused_with_what_was_met() {
    let refused = |args: &[&str], words: &[&str]| run(args).fails(1, &[&["raglan: error: "], words].concat());
    refused(&["generate", "--model", "./nowhere", "--prompt", "x"], &["./nowhere"]);
    refused(&["generate", "--model", "org/not-here", "--prompt", "x"], &["org/not-here"]);
    refused(&story(&["--temperature", "-1"]), &["temperature is -1", "0 or more"]);
    refused(&story(&["--top-p", "1.5"]), &["top_p is 1.5"]);
    refused(&["generate", "--model", "tiny", "--prompt-file", "no-such-file.txt"], &["no-such-file.txt"]);
    refused(&["generate", "--model", "tests/golden/llama", "--prompt", "x"], &["no tokenizer", "--token-ids"]);
    refused(&["chat", "--model", "tests/golden/llama"], &["no tokenizer"]);
    refused(&["inspect", "Cargo.toml"], &["Cargo.toml"]);
    refused(&["perplexity", "--model", "tiny", "--text", "models/tiny-stories/model.safetensors"], &["UTF-8"]);
    let misunderstood = |args: &[&str], words: &[&str]| run(args).fails(2, words);
    misunderstood(&["generate", "--model", "tiny", "--token-ids", "1,x"], &["'x'", "--token-ids"]);
    misunderstood(&story(&["--token-ids", "1"]), &["cannot be used with"]);
    misunderstood(&["generate", "--pipeline", "3"], &["--pipeline"]);
    misunderstood(&["serve"], &["serve"]);
    if has_adapter() {
        refused(&["generate", "--model", "tiny", "--token-ids", "1,99999"], &["99999", "2048"]);
        let long = ["generate", "--model", "tiny", "--prompt", "a fox, a hare, a badger and a lantern in the valley"];
        refused(&[&long[..], &["--max-context", "16"]].concat(), &["room for 16", "--max-context"]);
    }
}

#[test]
fn help_says_what_is_not_there_yet() {
    let help = run(&["--help"]);
    assert!(help.stdout.contains("Not there yet: serve"), "{}", help.stdout);
    for verb in
        ["generate", "chat", "perplexity", "eval", "quantize", "inspect", "devices", "bench", "tune", "self-test"]
    {
        assert!(help.stdout.contains(verb), "{verb}");
        assert_eq!(run(&[verb, "--help"]).code, Some(0), "{verb}");
    }
}
