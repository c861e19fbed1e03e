//! `raglan chat`: a conversation.

mod lines;

use super::answer::{Question, answer};
use super::global::Global;
use super::interrupt::{self, Interruptible};
use super::load::{Loaded, Model, ModelArgs, longest};
use super::output::{Failure, note, print};
use super::sampling::SamplingArgs;
use super::{Result, refused};
use lines::Lines;
use raglan::models::{ChatOptions, ChatTemplate, Message};
use raglan::{Error, FinishReason, SamplingParams};
use std::io::IsTerminal;
use std::time::Instant;

const HELP: &str = "\
/reset         forget the conversation, but not the system message
/system TEXT   set the system message; without TEXT, remove it
/save FILE     write the conversation to FILE as JSON
/help          show this
/quit          leave, as Ctrl-D does
Ctrl-C stops an answer.";

/// Room that an answer should find in the context before old turns are dropped for it.
const ANSWER_ROOM: usize = 64;

/// Talk with a model that has a chat template.
///
/// Every line is a turn; commands begin with /, and /help lists them: /reset, /system TEXT, /save FILE, /quit. Ctrl-C
/// stops an answer, or the reading of a long question, which goes on from there when it is asked again. Where the context is full, the oldest turns are dropped. Lines may be piped in.
///
/// Keys and values of earlier turns are kept, so a turn reads just what is new, as long as nothing before it changes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// The system message to begin with [default: the template's own, if it has one]
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,

    #[command(flatten)]
    sampling: SamplingArgs,
}

pub(super) fn run(global: &Global, args: Args) -> Result {
    let mut sampling = args.sampling.params()?;
    let start = Instant::now();
    let model = Model::open(args.model.model.as_deref(), false)?;
    model.text(", so there is nothing to talk in")?;
    let Some(template) = model.template()? else {
        let path = model.checkpoint.path().display();
        return refused(format!("{path} has no chat template, so it is no chat model; `raglan generate` runs it"));
    };
    sampling.eos_token_ids = args.sampling.eos(&model.eos_token_ids);
    let options = global.engine_options(1);
    let loaded = model.load(global, &options, start, false)?;
    interrupt::listen();
    let chat = Chat {
        loaded,
        keeps_prefixes: options.prefix_cache,
        template,
        sampling,
        stop: args.sampling.stop,
        system: args.system,
        turns: Vec::new(),
        forgotten: 0,
    };
    chat.talk()
}

struct Chat {
    loaded: Loaded,
    /// Whether what is computed stays in the cache for the next question.
    keeps_prefixes: bool,
    template: ChatTemplate,
    sampling: SamplingParams,
    stop: Vec<String>,
    system: Option<String>,
    /// User and assistant by turns.
    turns: Vec<Message>,
    /// How many of the oldest have left the context.
    forgotten: usize,
}

impl Chat {
    fn talk(mut self) -> Result {
        let mut lines = Lines::open()?;
        if lines.is_terminal() {
            let name = self.loaded.model.checkpoint.path().display();
            let (engine, adapter) = (&self.loaded.engine, self.loaded.engine.gpu().summary().name.clone());
            note(format_args!("{name} on {adapter}; /help lists what else there is"));
            note(longest(&engine.memory()));
        }
        while let Some(line) = lines.next()? {
            match line.trim() {
                "" => {}
                "/quit" | "/exit" => break,
                command if command.starts_with('/') => self.command(command)?,
                words => self.turn(words)?,
            }
        }
        Ok(())
    }

    fn command(&mut self, line: &str) -> Result {
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match name {
            "/reset" => {
                self.turns.clear();
                self.forgotten = 0;
                note("the conversation starts anew");
            }
            "/system" => {
                self.system = Some(rest.to_owned()).filter(|text| !text.is_empty());
                note(if self.system.is_some() { "the system message is set" } else { "there is no system message" });
            }
            "/save" if rest.is_empty() => note("/save needs the name of a file"),
            "/save" => match self.save(rest) {
                Ok(()) => note(format_args!("saved {} messages to {rest}", self.messages(0).len())),
                Err(error) => note(format_args!("error: {}", Failure(&error))),
            },
            "/help" => print(&format!("{HELP}\n"))?,
            _ => note(format_args!("{name} is no command; /help lists them")),
        }
        Ok(())
    }

    fn save(&self, path: &str) -> Result {
        let json = serde_json::to_string_pretty(&self.messages(0)).expect("messages are strings");
        std::fs::write(path, json + "\n").map_err(|source| Error::Io { path: path.into(), source })
    }

    /// One question and its answer. What a user can mend, or the engine by a new start, is told and the question forgotten.
    fn turn(&mut self, words: &str) -> Result {
        self.turns.push(Message::new("user", words));
        match self.answer() {
            Ok(Some(text)) => self.turns.push(Message::new("assistant", text)),
            // The question was not read to its end: it is as if it had not been asked, but for what is computed of it.
            Ok(None) => drop(self.turns.pop()),
            Err(error @ Error::Failed { .. }) => {
                self.turns.pop();
                // After what was written until then.
                print("\n")?;
                note(format_args!("error: {}; the engine starts anew, ask again", Failure(&error)));
            }
            Err(error @ (Error::Request { .. } | Error::Model(_) | Error::EngineDown { .. })) => {
                self.turns.pop();
                note(format_args!("error: {}", Failure(&error)));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The answer to the last turn; `None` where it was stopped before its first word.
    fn answer(&mut self) -> Result<Option<String>> {
        let prompt = self.prompt()?;
        let interruptible = Interruptible::begin();
        let question = Question {
            prompt,
            sampling: self.sampling.clone(),
            stop: &self.stop,
            interrupted: interruptible.flag(),
            quiet: false,
        };
        let Loaded { model, engine, .. } = &self.loaded;
        let answer = answer(engine, model.tokenizer.as_ref(), question, &mut print);
        drop(interruptible);
        let answer = answer?;
        if let Some(stopped) = answer.stopped_reading() {
            let kept =
                if self.keeps_prefixes { "; they stay in the cache: asked again, it goes on from there" } else { "" };
            note(format_args!("{stopped}{kept}"));
            return Ok(None);
        }
        print("\n")?;
        match answer.reason {
            FinishReason::Length => note("the answer was cut: --max-tokens or the context ended it"),
            FinishReason::Cancelled => note("stopped"),
            FinishReason::Stop => {}
        }
        if !answer.token_ids.is_empty() && std::io::stderr().is_terminal() {
            note(&answer);
        }
        Ok(Some(answer.text.unwrap_or_default()))
    }

    /// The conversation in the model's words; the oldest turns are left out until there is room for an answer.
    fn prompt(&mut self) -> Result<Vec<u32>> {
        let tokenizer = self.loaded.model.text("")?;
        let capacity = self.loaded.engine.capacity();
        let room = ANSWER_ROOM.min(self.sampling.max_tokens).min(capacity / 4);
        let before = self.forgotten;
        loop {
            let text = self.template.render(&self.messages(self.forgotten), &ChatOptions::default())?;
            let prompt = tokenizer.encode(&text, false)?;
            if prompt.len() + room <= capacity || self.turns.len() - self.forgotten < 3 {
                if self.forgotten > before {
                    note(format_args!("the context is full: the oldest {} messages are left out", self.forgotten));
                }
                return Ok(prompt);
            }
            self.forgotten += 2;
        }
    }

    /// The system message, if any, and the turns from `first` on.
    fn messages(&self, first: usize) -> Vec<Message> {
        let system = self.system.iter().map(|text| Message::new("system", text.as_str()));
        system.chain(self.turns[first..].iter().cloned()).collect()
    }
}
