//! `raglan generate --prompts`: the lines of a file as one ragged batch, answered in their order.

mod line;
mod lines;

use super::{Args, Report, encode, encode_messages};
use crate::cli::answer::{Answer, Answering};
use crate::cli::global::Global;
use crate::cli::load::{Loaded, Model};
use crate::cli::output::{Failure, note, print, print_json};
use crate::cli::progress::Bar;
use crate::cli::{Error, Result, refused};
use line::{Line, Prompt, Settings};
use raglan::Request;
use raglan::models::ChatTemplate;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Lines in flight for each request that may run at once: enough that one takes the place of another at once.
const AHEAD: usize = 4;

/// Times as many lines are held where the most have ended behind one that has not.
const ENDED_AHEAD: usize = 64;

/// How long a line is waited for while answers are written, and an answer while others are.
const LINE_PATIENCE: Duration = Duration::from_millis(2);
const TOKEN_PATIENCE: Duration = Duration::from_millis(10);

/// Answers every line of `path`.
///
/// # Errors
/// If the model cannot be loaded or the file be read, and, after all lines were answered, if any has failed.
pub(super) fn run(global: &Global, path: &Path, args: &Args) -> Result {
    let settings = Settings {
        sampling: args.sampling.params()?,
        stop: args.sampling.stop.clone(),
        ignore_eos: args.sampling.ignore_eos,
        priority: 0,
    };
    // Before the model: a file that is not there is told at once.
    let lines = lines::open(path)?;
    let start = Instant::now();
    let model = Model::open(args.model.model.as_deref(), args.json)?;
    let template = model.template()?;
    let options = global.engine_options(global.max_sequences());
    let loaded = model.load(global, &options, start, args.json)?;
    let mut batch = PromptBatch {
        loaded,
        template,
        settings,
        as_chat: !args.no_chat_template,
        json: args.json,
        most: AHEAD * global.max_sequences(),
        flying: VecDeque::new(),
        printed: 0,
        failed: 0,
        tokens: 0,
        start: Instant::now(),
        bar: Bar::requests("answering"),
    };
    let read = batch.run(&lines);
    let PromptBatch { printed, failed, .. } = batch;
    match read? {
        Some(source) => Err(Error::Io { path: path.to_owned(), source }),
        None if failed > 0 => refused(format!("{failed} of {printed} lines of {} failed", path.display())),
        None => Ok(()),
    }
}

/// The lines in flight.
struct PromptBatch {
    loaded: Loaded,
    template: Option<ChatTemplate>,
    /// For what a line leaves open.
    settings: Settings,
    as_chat: bool,
    json: bool,
    /// Lines that are answered or wait for that at most; ended ones that wait to be printed may be many more.
    most: usize,
    /// Those that are not printed, in order.
    flying: VecDeque<Flight>,
    /// Lines before them.
    printed: usize,
    failed: usize,
    /// Tokens of the answers that have ended.
    tokens: usize,
    start: Instant,
    bar: Bar,
}

/// A line from its reading to its printing.
enum Flight {
    Running(Box<Answering>),
    Ended(std::result::Result<Answer, String>),
}

/// What `--json` prints for a line that has failed.
#[derive(serde::Serialize)]
struct Failed {
    index: usize,
    error: String,
}

impl PromptBatch {
    /// Answers all lines; the error that ended their reading, if one did.
    fn run(&mut self, lines: &Receiver<std::io::Result<lines::Line>>) -> Result<Option<std::io::Error>> {
        let (mut is_open, mut error) = (true, None);
        while is_open || !self.flying.is_empty() {
            while is_open && self.has_room() {
                let patience = if self.flying.is_empty() { Duration::MAX } else { LINE_PATIENCE };
                match lines.recv_timeout(patience) {
                    Ok(Ok(line)) => {
                        let flight = self.begin(line).map_or_else(|why| Flight::Ended(Err(why)), Flight::Running);
                        self.flying.push_back(flight);
                    }
                    Ok(Err(source)) => (is_open, error) = (false, Some(source)),
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => is_open = false,
                }
            }
            self.poll()?;
            self.print()?;
            self.show_progress();
        }
        Ok(error)
    }

    /// Whether another line may be read. One long answer before many short ones leaves the batch full all the same.
    fn has_room(&self) -> bool {
        let running = self.flying.iter().filter(|flight| matches!(flight, Flight::Running(_))).count();
        running < self.most && self.flying.len() < ENDED_AHEAD * self.most
    }

    fn begin(&self, line: lines::Line) -> std::result::Result<Box<Answering>, String> {
        let line = line::parse(&line?, &self.settings)?;
        self.submit(line).map(Box::new).map_err(|error| Failure(&error).to_string())
    }

    fn submit(&self, line: Line) -> Result<Answering> {
        let Loaded { model, engine, .. } = &self.loaded;
        let template = self.template.as_ref();
        let prompt = match line.prompt {
            Prompt::Ids(ids) => ids,
            Prompt::Text(text) => encode(model, template.filter(|_| self.as_chat), text)?,
            Prompt::Messages(messages) => encode_messages(model, template, &messages)?,
        };
        let Settings { mut sampling, stop, ignore_eos, priority } = line.settings;
        if !stop.is_empty() {
            model.text(", so there is no text for stop to be found in")?;
        }
        if !ignore_eos {
            sampling.eos_token_ids = model.eos_token_ids.clone();
        }
        Answering::begin(engine, model.tokenizer.as_ref(), Request { prompt, sampling, priority }, &stop)
    }

    /// Takes what has come for every line; waits for the first that runs, since tokens of all come together.
    fn poll(&mut self) -> Result {
        let mut patience = TOKEN_PATIENCE;
        for _ in 0..self.flying.len() {
            let Some(flight) = self.flying.pop_front() else { break };
            let next = match flight {
                Flight::Running(mut answering) => match answering.poll(std::mem::take(&mut patience)) {
                    Ok(None) => Flight::Running(answering),
                    Ok(Some(reason)) => {
                        let answer = answering.end(reason, &mut |_| Ok(()))?;
                        self.tokens += answer.token_ids.len();
                        Flight::Ended(Ok(answer))
                    }
                    Err(error) => Flight::Ended(Err(Failure(&error).to_string())),
                },
                ended => ended,
            };
            self.flying.push_back(next);
        }
        Ok(())
    }

    /// Prints what is ready and has nothing before it that is not.
    fn print(&mut self) -> Result {
        while let Some(flight) = self.flying.pop_front() {
            match flight {
                Flight::Running(_) => {
                    self.flying.push_front(flight);
                    break;
                }
                Flight::Ended(answer) => {
                    self.bar.aside(|| self.print_one(&answer))?;
                    self.failed += usize::from(answer.is_err());
                    self.printed += 1;
                }
            }
        }
        Ok(())
    }

    fn print_one(&self, answer: &std::result::Result<Answer, String>) -> Result {
        let index = self.printed;
        let line = index + 1;
        match answer {
            Ok(answer) if self.json => print_json(&Report::new(answer, self.loaded.load_ms)),
            Err(why) if self.json => print_json(&Failed { index, error: format!("line {line}: {why}") }),
            Ok(answer) => print(&format!("{}==> {index} <==\n{}\n", self.gap(), answer.shown())),
            Err(why) => {
                note(format_args!("line {line}: {why}"));
                print(&format!("{}==> {index} failed <==\n", self.gap()))
            }
        }
    }

    /// The blank line between two answers.
    fn gap(&self) -> &'static str {
        if self.printed > 0 { "\n" } else { "" }
    }

    fn show_progress(&self) {
        let running = self.flying.iter().map(|flight| match flight {
            Flight::Running(answering) => answering.tokens(),
            Flight::Ended(_) => 0,
        });
        let tokens = self.tokens + running.sum::<usize>();
        let ended = self.flying.iter().filter(|flight| matches!(flight, Flight::Ended(_))).count();
        self.bar.say(format!("answering at {:.1} tokens/s", tokens as f64 / self.start.elapsed().as_secs_f64()));
        self.bar.set((self.printed + ended) as u64, (self.printed + self.flying.len()) as u64);
    }
}
