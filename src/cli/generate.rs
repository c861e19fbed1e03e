//! `raglan generate`: one prompt, one answer, or a file of them.

mod prompts;

use super::answer::{Answer, Question, answer};
use super::global::Global;
use super::interrupt::{self, Interruptible};
use super::load::{Loaded, Model, ModelArgs};
use super::progress::Spinner;
use super::sampling::SamplingArgs;
use super::{Result, output, refused};
use raglan::models::{ChatOptions, ChatTemplate, Message};
use raglan::{Error, FinishReason};
use serde::Serialize;
use std::fs::File;
use std::io::{BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Answer one prompt, or a file of them.
///
/// The text comes as it is written; Ctrl-C ends it, or the reading of a long prompt, and what there is stays. A model with a chat template gets the prompt as what a user says, any other as
/// the beginning of a text to go on with. The prompt is read from standard input where none is given.
///
/// With --prompts every line of a file is a request, and they run together, up to --max-sequences at once. Answers are
/// printed in the lines' order, each after a line `==> INDEX <==` that counts from 0, or with --json each as an object on a
/// line of its own; a line that fails is {"index", "error"} there, the others still run, and the exit code is 1. Blank lines
/// at the end of the file are passed over; any other is a line that fails.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    prompt: PromptArgs,

    /// Take the prompt as it is, even where the model has a chat template; messages of --prompts go through it all the same
    #[arg(long)]
    no_chat_template: bool,

    /// One JSON object instead of the text: text (null without a tokenizer), token_ids, prompt_tokens, cached_tokens,
    /// finish_reason, timings
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    sampling: SamplingArgs,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct PromptArgs {
    /// The prompt; - reads standard input
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,

    /// A file with the prompt, taken as it is to its last byte; - reads standard input
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,

    /// The prompt as ids of the vocabulary; the one way with a model that has no tokenizer
    #[arg(long, value_name = "1,2,3", value_delimiter = ',', num_args = 1)]
    token_ids: Option<Vec<u32>>,

    /// A file of JSON Lines, a request each; - reads standard input. A line has prompt (text), messages (a list of {role,
    /// content}) or token_ids, and any of max_tokens, temperature, top_k, top_p, min_p, repetition_penalty,
    /// presence_penalty, frequency_penalty, seed, stop (a text or a list) and ignore_eos in place of the options below; and
    /// priority, where a line of a higher one goes first
    #[arg(long, value_name = "FILE.jsonl")]
    prompts: Option<PathBuf>,
}

/// What was given.
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
    /// A large file.
    File(PathBuf),
}

/// A file of so many bytes is split into tokens as it is read.
const LARGE_FILE: u64 = 4 << 20;

/// What no text has: it stands for the text while a template is rendered.
const PLACE: &str = "\u{1}the text\u{1}";

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    text: Option<String>,
    token_ids: Vec<u32>,
    prompt_tokens: usize,
    cached_tokens: usize,
    finish_reason: FinishReason,
    timings: Timings,
}

#[derive(Serialize)]
struct Timings {
    load_ms: f64,
    prefill_tokens_per_s: f64,
    decode_tokens_per_s: Option<f64>,
    time_to_first_token_ms: f64,
}

pub(super) fn run(global: &Global, args: Args) -> Result {
    if let Some(path) = &args.prompt.prompts {
        return prompts::run(global, path, &args);
    }
    let mut sampling = args.sampling.params()?;
    let prompt = args.prompt.read()?;
    let start = Instant::now();
    let model = Model::open(args.model.model.as_deref(), args.json)?;
    let prompt = match prompt {
        Prompt::Ids(ids) => ids,
        Prompt::Text(text) => {
            let template = if args.no_chat_template { None } else { model.template()? };
            encode(&model, template.as_ref(), text)?
        }
        Prompt::File(path) => {
            let template = if args.no_chat_template { None } else { model.template()? };
            let _spinner = Spinner::new("splitting the prompt into tokens".to_owned(), args.json);
            encode_file(&model, template.as_ref(), &path)?
        }
    };
    if !args.sampling.stop.is_empty() {
        model.text(", so there is no text for --stop to be found in")?;
    }
    sampling.eos_token_ids = args.sampling.eos(&model.eos_token_ids);

    let Loaded { model, engine, load_ms } = model.load(global, &global.engine_options(1), start, args.json)?;
    interrupt::listen();
    let interruptible = Interruptible::begin();
    let interrupted = interruptible.flag();
    let question = Question { prompt, sampling, stop: &args.sampling.stop, interrupted, quiet: args.json };
    let mut show = |text: &str| if args.json { Ok(()) } else { output::print(text) };
    let answer = answer(&engine, model.tokenizer.as_ref(), question, &mut show)?;
    drop(interruptible);
    if args.json {
        output::print_json(&Report::new(&answer, load_ms))?;
    } else {
        output::print("\n")?;
        match answer.stopped_reading() {
            Some(stopped) => output::note(stopped),
            None if std::io::stderr().is_terminal() => output::note(&answer),
            None => {}
        }
    }
    if answer.reason == FinishReason::Cancelled {
        engine.shutdown();
        interrupt::exit();
    }
    Ok(())
}

impl PromptArgs {
    fn read(self) -> Result<Prompt> {
        let stdin = || {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map(|_| text).map_err(|source| Error::Io { path: "standard input".into(), source })
        };
        match (self.token_ids, self.prompt, self.prompt_file) {
            (Some(ids), ..) => Ok(Prompt::Ids(ids)),
            (_, Some(text), _) if text != "-" => Ok(Prompt::Text(text)),
            (.., Some(path)) if path.as_os_str() != "-" => {
                // What is not there is told before the model is looked for.
                match File::open(&path).and_then(|file| file.metadata()) {
                    Ok(about) if about.is_file() && about.len() >= LARGE_FILE => Ok(Prompt::File(path)),
                    _ => std::fs::read_to_string(&path).map(Prompt::Text).map_err(|source| Error::Io { path, source }),
                }
            }
            (_, None, None) if std::io::stdin().is_terminal() => {
                refused("there is no prompt: give --prompt, --prompt-file or --token-ids, or pipe it in")
            }
            // A last line's end is the pipe's, not the prompt's.
            _ => Ok(Prompt::Text(stdin()?.trim_end_matches(['\r', '\n']).to_owned())),
        }
    }
}

/// The ids of a prompt: as a user's turn where there is a template, else as plain text.
fn encode(model: &Model, template: Option<&ChatTemplate>, text: String) -> Result<Vec<u32>> {
    match template {
        Some(_) => encode_messages(model, template, &[Message::new("user", text)]),
        None => Ok(model.text(": give token ids instead of text (--token-ids)")?.encode(&text, true)?),
    }
}

/// The same of a large file, which is not held in memory unless the template changes the text.
fn encode_file(model: &Model, template: Option<&ChatTemplate>, path: &Path) -> Result<Vec<u32>> {
    let tokenizer = model.text(": give token ids instead of text (--token-ids)")?;
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let file = || File::open(path).map(BufReader::new).map_err(failed);
    let Some(template) = template else { return Ok(tokenizer.encode_reader(path, file()?, true)?) };
    // Spaces show whether the template trims.
    let message = Message::new("user", format!(" {PLACE} "));
    let rendered = template.render(&[message], &ChatOptions::default())?;
    match rendered.split(&format!(" {PLACE} ")).collect::<Vec<_>>()[..] {
        [before, after] => {
            let text = before.as_bytes().chain(file()?).chain(after.as_bytes());
            Ok(tokenizer.encode_reader(path, text, false)?)
        }
        _ => encode(model, Some(template), std::fs::read_to_string(path).map_err(failed)?),
    }
}

/// The ids of a conversation that the model is to go on with.
fn encode_messages(model: &Model, template: Option<&ChatTemplate>, messages: &[Message]) -> Result<Vec<u32>> {
    let tokenizer = model.text(": give token ids instead of text (--token-ids)")?;
    let Some(template) = template else {
        return refused(format!("{} has no chat template for messages", model.checkpoint.path().display()));
    };
    let rendered = template.render(messages, &ChatOptions::default())?;
    Ok(tokenizer.encode(&rendered, false)?)
}

impl Report {
    fn new(answer: &Answer, load_ms: f64) -> Report {
        let timings = Timings {
            load_ms,
            prefill_tokens_per_s: answer.prefill_tokens_per_s(),
            decode_tokens_per_s: answer.decode_tokens_per_s(),
            time_to_first_token_ms: 1e3 * answer.first.as_secs_f64(),
        };
        Report {
            text: answer.text.clone(),
            token_ids: answer.token_ids.clone(),
            prompt_tokens: answer.prompt_tokens,
            cached_tokens: answer.cached_tokens,
            finish_reason: answer.reason,
            timings,
        }
    }
}
