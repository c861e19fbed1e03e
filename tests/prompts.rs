//! `raglan generate --prompts`: a file of requests as one batch, from outside.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod cli_support;

use cli_support::{Run, comma_separated, command, folder, golden, has_adapter, json, run, run_with};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

const TINY: [&str; 5] = ["generate", "--model", "tiny", "--prompts", "-"];

/// Runs lines from a pipe.
fn batch(input: impl AsRef<[u8]>, more: &[&str]) -> Run {
    run_with(&[&TINY[..], more].concat(), input)
}

/// What `--json` printed, a value a line.
fn values(run: &Run) -> Vec<Value> {
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// All of a report but its timings.
fn answer(report: &Value) -> Value {
    let mut answer = report.clone();
    assert!(answer.as_object_mut().unwrap().remove("timings").is_some(), "{report}");
    answer
}

#[test]
fn lines_are_answered_in_order_as_each_would_be_alone() {
    if !has_adapter() {
        return;
    }
    let chat = "Tell me a story about a fox and a lantern.";
    let input = [
        r#"{"prompt": "Once upon a time", "max_tokens": 60}"#.to_owned(),
        format!(r#"{{"prompt": "{chat}", "max_tokens": 3}}"#),
        r#"{"token_ids": [517, 769, 260, 770], "max_tokens": 25, "ignore_eos": true}"#.to_owned(),
        format!(r#"{{"messages": [{{"role": "user", "content": "{chat}"}}], "max_tokens": 40}}"#),
        r#"{"prompt": "The fox", "temperature": 1.2, "seed": 7, "top_p": 0.95, "max_tokens": 20}"#.to_owned(),
        r#"{"prompt": "Once upon a time", "stop": "loved to read"}"#.to_owned(),
    ]
    .join("\n");
    let alone = |args: &[&str]| answer(&json(&[&["generate", "--model", "tiny", "--json"], args].concat()));
    let plain = ["--no-chat-template", "--prompt"];
    let sampled = ["--temperature", "1.2", "--seed", "7", "--top-p", "0.95", "--max-tokens", "20"];
    let wanted = [
        alone(&[&plain[..], &["Once upon a time", "--max-tokens", "60"]].concat()),
        alone(&[&plain[..], &[chat, "--max-tokens", "3"]].concat()),
        alone(&["--token-ids", "517,769,260,770", "--max-tokens", "25", "--ignore-eos"]),
        alone(&["--prompt", chat, "--max-tokens", "40"]),
        alone(&[&plain[..], &["The fox"], &sampled[..]].concat()),
        alone(&[&plain[..], &["Once upon a time", "--stop", "loved to read"]].concat()),
    ];
    assert_eq!((&wanted[3]["cached_tokens"], &wanted[5]["finish_reason"]), (&0.into(), &"stop".into()));
    for more in [
        &["--max-context", "2048"][..],
        &["--max-sequences", "1"],
        &["--max-sequences", "3", "--max-batch-tokens", "9"],
    ] {
        let run = batch(&input, &[&["--json", "--no-chat-template"], more].concat());
        run.succeeds(more);
        assert_eq!(run.stderr, "", "{more:?}");
        let mut met: Vec<_> = values(&run).iter().map(answer).collect();
        // How much of a prompt was there already depends on what ran before.
        met.iter_mut().for_each(|report| report["cached_tokens"] = 0.into());
        assert_eq!(met, wanted, "{more:?}");
    }
    let golden = golden("tiny_stories");
    let greedy = golden["items"][1]["greedy_ids"].as_array().unwrap();
    assert_eq!(wanted[3]["token_ids"].as_array().unwrap()[..], greedy[..40]);
}

#[test]
fn text_has_a_header_an_answer_and_the_template_where_it_is_not_switched_off() {
    if !has_adapter() {
        return;
    }
    let path = folder("prompts-text").join("prompts.jsonl");
    let chat = "Tell me a story about a fox and a lantern.";
    let input = format!(
        "{{\"prompt\": \"{chat}\"}}\r\n{{\"prompt\": \"Once upon a time\", \"top_k\": -1}}\n{{\"token_ids\": [517]}}\n\n\n"
    );
    std::fs::write(&path, input).unwrap();
    let file = path.to_str().unwrap();
    let run = run(&["generate", "--model", "tiny", "--prompts", file, "--max-tokens", "12"]);
    let first = json(&["generate", "--model", "tiny", "--prompt", chat, "--max-tokens", "12", "--json"]);
    let third = json(&["generate", "--model", "tiny", "--token-ids", "517", "--max-tokens", "12", "--json"]);
    let (first, third) = (first["text"].as_str().unwrap(), third["text"].as_str().unwrap());
    assert_eq!(run.stdout, format!("==> 0 <==\n{first}\n\n==> 1 failed <==\n\n==> 2 <==\n{third}\n"));
    assert_eq!(run.code, Some(1));
    let told: Vec<_> = run.stderr.lines().collect();
    assert!(told[0].starts_with("raglan: line 2: top_k: ") && told[1].contains("1 of 3 lines of"), "{}", run.stderr);
    assert!(told[1].starts_with("raglan: error: ") && told[1].contains("prompts.jsonl"), "{}", run.stderr);
}

#[test]
fn a_line_that_fails_is_told_in_its_place_and_the_others_run() {
    if !has_adapter() {
        return;
    }
    let good = r#"{"token_ids": [517, 769, 260, 770]}"#;
    let long = format!(r#"{{"token_ids": {:?}}}"#, vec![5; 300]);
    let huge = vec![b' '; (16 << 20) + 10];
    let mut input = Vec::new();
    let lines: [(&[u8], &[&str]); 9] = [
        (good.as_bytes(), &[]),
        (b"\xff\xfe", &["line 2: ", "UTF-8"]),
        (b"", &["line 3: ", "blank"]),
        (br#"{"prompt": "a", "temprature": 1}"#, &["line 4: ", "temprature"]),
        (long.as_bytes(), &["line 5: ", "300 tokens", "room for 256", "--max-context"]),
        (&huge, &["line 6: ", "16 MiB"]),
        (br#"{"token_ids": [99999]}"#, &["line 7: ", "99999", "2048"]),
        (br#"{"prompt": "", "token_ids": []}"#, &["line 8: ", "two of"]),
        (good.as_bytes(), &[]),
    ];
    for (line, _) in lines {
        input.extend_from_slice(line);
        input.push(b'\n');
    }
    let run = batch(&input, &["--json", "--max-tokens", "6", "--max-context", "256"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("7 of 9 lines of - failed"), "{}", run.stderr);
    let values = values(&run);
    assert_eq!(values.len(), lines.len());
    for (index, (value, (_, words))) in values.iter().zip(lines).enumerate() {
        if words.is_empty() {
            assert_eq!(value["token_ids"], values[0]["token_ids"]);
            assert_eq!(value["token_ids"].as_array().unwrap().len(), 6);
            continue;
        }
        assert_eq!((value["index"].as_u64(), value.as_object().unwrap().len()), (Some(index as u64), 2), "{value}");
        let error = value["error"].as_str().unwrap();
        assert!(words.iter().all(|word| error.contains(word)), "wanted {words:?}, met {error}");
    }
}

#[test]
fn more_lines_than_are_in_flight_come_back_in_order() {
    if !has_adapter() {
        return;
    }
    let lines: String =
        (0..30).map(|n| format!("{{\"token_ids\": [517], \"max_tokens\": {}}}\n", 1 + 7 * n % 11)).collect();
    let run = batch(&lines, &["--json", "--max-sequences", "3", "--ignore-eos"]);
    run.succeeds(&TINY);
    let lengths: Vec<_> = values(&run).iter().map(|value| value["token_ids"].as_array().unwrap().len()).collect();
    assert_eq!(lengths, (0..30).map(|n| 1 + 7 * n % 11).collect::<Vec<_>>());
    let empty = batch("", &["--json"]);
    empty.succeeds(&TINY);
    assert_eq!(empty.stdout, "");
}

#[test]
fn an_answer_is_printed_while_the_pipe_is_still_open() {
    if !has_adapter() {
        return;
    }
    let args = [&TINY[..], &["--json", "--max-tokens", "2"]].concat();
    let mut child = command(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for _ in 0..2 {
        stdin.write_all(b"{\"token_ids\": [517]}\n").unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["token_ids"].as_array().unwrap().len(), 2);
    }
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_cannot_be_is_refused_at_once() {
    run(&["generate", "--model", "tiny", "--prompts", "no-such-file.jsonl"]).fails(1, &["no-such-file.jsonl"]);
    for other in [["--prompt", "x"], ["--prompt-file", "x"], ["--token-ids", "1"]] {
        run(&[&["generate", "--prompts", "a"], &other[..]].concat()).fails(2, &["cannot be used with"]);
    }
    run(&["generate", "--kv-memory", "much"]).fails(2, &["\"much\"", "512MiB"]);
    run(&["generate", "--max-delay-ms", "0"]).fails(2, &["--max-delay-ms"]);
    if has_adapter() {
        let args = ["generate", "--model", "tiny", "--token-ids", "1", "--kv-memory", "1KiB"];
        run(&args).fails(1, &["kv_memory is 1024 bytes", "16 tokens"]);
        // 5 layers of keys and values, 64 columns each: 640 numbers a token.
        let long = ["generate", "--model", "tiny", "--token-ids", &["5"; 400].join(","), "--dtype", "f32"];
        run(&[&long[..], &["--kv-memory", "640KiB"]].concat()).fails(1, &["400 tokens", "room for 256"]);
        run(&[&long[..], &["--kv-memory", "1GB", "--max-context", "128"]].concat()).fails(1, &["room for 128"]);
    }
}

#[test]
fn without_a_tokenizer_only_ids_are_answered() {
    if !has_adapter() {
        return;
    }
    let input =
        "{\"token_ids\": [3, 5], \"max_tokens\": 3}\n{\"prompt\": \"a\"}\n{\"token_ids\": [3], \"stop\": \"a\"}\n";
    let args = ["generate", "--model", "tests/golden/llama", "--prompts", "-", "--ignore-eos"];
    let run = run_with(&[&args[..], &["--json"]].concat(), input);
    let values = values(&run);
    assert_eq!((run.code, &values[0]["text"]), (Some(1), &Value::Null));
    assert_eq!(values[0]["token_ids"].as_array().unwrap().len(), 3);
    assert!(values[1]["error"].as_str().unwrap().contains("no tokenizer"), "{}", values[1]);
    assert!(values[2]["error"].as_str().unwrap().contains("stop"), "{}", values[2]);
    let text = run_with(&args, input).stdout;
    let ids = comma_separated(&values[0]["token_ids"]).replace(',', " ");
    assert!(text.starts_with(&format!("==> 0 <==\n{ids}\n\n==> 1 failed <==\n")), "{text}");
}
