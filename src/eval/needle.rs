//! Facts hidden in text, and asked for at its end: whether a format still finds what was said long before.
//!
//! A fact names a number; the question begins the sentence that the number ends. Which of several numbers the model holds for
//! likeliest tells more of a small model than what it writes, so both are told.

mod hay;

use super::format::Format;
use super::table::{End, Hear, Progress, load, told};
use crate::engine::{EngineOptions, Held, Stepper};
use crate::error::Error;
use crate::gpu::Gpu;
use hay::{Hay, Trial};
use raglan_models::{Checkpoint, Tokenizer};
use serde::Serialize;
use std::time::Instant;

pub use hay::CANDIDATES;

/// Slots beside a context's: the ends of what shares its beginning, and the answer.
const SLACK: usize = 64;

/// What is to be found.
#[derive(Debug)]
pub struct Job<'a> {
    /// Where.
    pub gpu: &'a Gpu,
    /// The model.
    pub checkpoint: &'a Checkpoint,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The text that facts are hidden in.
    pub filler: &'a [u32],
    /// Tokens of the contexts, the answer among them.
    pub lengths: &'a [usize],
    /// How far into the text the fact is, in percent.
    pub depths: &'a [usize],
    /// Facts for each length and depth.
    pub samples: usize,
    /// Same seed, same facts and places in the text.
    pub seed: u64,
    /// In which formats.
    pub formats: &'a [Format],
    /// How engines are started, formats apart.
    pub engine: &'a EngineOptions,
    /// When to read nothing more.
    pub end: End<'a>,
}

/// All that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// As in [`Job`].
    pub lengths: Vec<usize>,
    /// As in [`Job`].
    pub depths: Vec<usize>,
    /// As in [`Job`].
    pub samples: usize,
    /// As in [`Job`].
    pub seed: u64,
    /// Numbers to choose from: one in so many is chance.
    pub candidates: usize,
    /// The formats in order.
    pub rows: Vec<ReportRow>,
}

/// What one format found.
#[derive(Debug, Clone, Serialize)]
pub struct ReportRow {
    /// The type of weights.
    pub weights: String,
    /// The type of keys and values.
    pub kv: String,
    /// Loading and reading.
    pub seconds: f64,
    /// Why there are no more cells.
    pub error: Option<String>,
    /// By length, then by depth.
    pub cells: Vec<Cell>,
}

/// What was found at one depth of contexts of one length.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// Tokens of the context, the answer among them.
    pub length: usize,
    /// How far into the text the fact was, in percent.
    pub depth: usize,
    /// Share of facts whose number was the likeliest of the candidates.
    pub chosen: f64,
    /// Share of facts whose number was in what the model wrote.
    pub written: f64,
    /// How much likelier the number was than the best of the others, in nats; mean.
    pub margin: f64,
    /// The number's summed log-probability, in nats; mean.
    pub log_probability: f64,
}

/// What came of one trial.
#[derive(Debug, Clone, Copy)]
struct Outcome {
    chosen: bool,
    written: bool,
    margin: f64,
    log_probability: f64,
}

/// Asks every format. One that fails is a row that says why, with the cells that it had finished.
///
/// # Errors
/// If the text is too short for the longest context, or a context for the question.
pub fn run(job: &Job<'_>, hear: Hear<'_>) -> Result<Report, Error> {
    let hay = Hay::new(job)?;
    // Longest first: what does not fit is told before anything was waited for.
    let mut lengths: Vec<usize> = job.lengths.to_vec();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    lengths.dedup();
    let mut depths: Vec<usize> = job.depths.to_vec();
    depths.sort_unstable_by(|a, b| b.cmp(a));
    depths.dedup();
    let rounds: Vec<(usize, usize)> =
        lengths.iter().flat_map(|&length| (0..job.samples).map(move |sample| (length, sample))).collect();
    let trials = |round: &(usize, usize)| depths.iter().map(|&depth| hay.trial(round.0, depth, round.1)).collect();
    let rounds: Vec<Vec<Trial>> = rounds.iter().map(trials).collect::<Result<_, Error>>()?;
    // What a window has left behind is given back, so that nothing can begin earlier in it.
    let shares = job.checkpoint.spec().layers.iter().all(|layer| layer.sliding_window.is_none());
    let each: usize = rounds.iter().map(|round| tokens(round, shares)).sum();
    let mut hunt = Hunt { job, hear, shares, read: 0, total: (each * job.formats.len()) as u64 };
    let rows = job.formats.iter().map(|format| {
        let (format, start) = (format.on(job.gpu), Instant::now());
        let mut found: Vec<(usize, usize, Outcome)> = Vec::new();
        let error = hunt.all(&format, &rounds, &mut found).err().map(|error| told(&error));
        let cells = lengths.iter().rev().flat_map(|&l| depths.iter().rev().map(move |&d| (l, d)));
        let cells = cells.filter_map(|(length, depth)| Cell::new(length, depth, job.samples, &found));
        let (cells, seconds) = (cells.collect(), start.elapsed().as_secs_f64());
        ReportRow { weights: format.weights, kv: format.kv, seconds, error, cells }
    });
    let rows = rows.collect();
    lengths.reverse();
    depths.reverse();
    Ok(Report { lengths, depths, samples: job.samples, seed: job.seed, candidates: CANDIDATES, rows })
}

/// Tokens that a round reads: the common beginning once where it is shared, and what each trial has of its own.
fn tokens(round: &[Trial], shares: bool) -> usize {
    if !shares {
        return round.iter().map(|trial| trial.prompt.len()).sum();
    }
    let longest = round.iter().map(|trial| trial.common).max().unwrap_or(0);
    longest + round.iter().map(|trial| trial.prompt.len() - trial.common).sum::<usize>()
}

impl Cell {
    /// `None` where not all samples were found out.
    fn new(length: usize, depth: usize, samples: usize, found: &[(usize, usize, Outcome)]) -> Option<Cell> {
        let own: Vec<&Outcome> =
            found.iter().filter(|(l, d, _)| (*l, *d) == (length, depth)).map(|(.., outcome)| outcome).collect();
        let mean = |of: fn(&Outcome) -> f64| own.iter().map(|outcome| of(outcome)).sum::<f64>() / own.len() as f64;
        (own.len() == samples).then(|| Cell {
            length,
            depth,
            chosen: mean(|outcome| f64::from(u8::from(outcome.chosen))),
            written: mean(|outcome| f64::from(u8::from(outcome.written))),
            margin: mean(|outcome| outcome.margin),
            log_probability: mean(|outcome| outcome.log_probability),
        })
    }
}

/// Loads, reads and asks, and says how far it is.
struct Hunt<'a, 'h> {
    job: &'a Job<'a>,
    hear: Hear<'h>,
    /// Whether trials of a round share their beginning.
    shares: bool,
    read: u64,
    total: u64,
}

impl Hunt<'_, '_> {
    fn all(
        &mut self,
        format: &Format,
        rounds: &[Vec<Trial>],
        found: &mut Vec<(usize, usize, Outcome)>,
    ) -> Result<(), Error> {
        self.job.end.check()?;
        let longest = self.job.lengths.iter().max().copied().unwrap_or(0);
        let base = format.options(self.job.engine);
        let slack = if base.deterministic { 16 * SLACK } else { SLACK };
        let options = EngineOptions { max_context: Some(longest + slack), max_sequences: SLACK, ..base };
        let chunk = options.max_batch_tokens;
        let mut engine = load((self.job.gpu, self.job.checkpoint), &options, chunk, format, self.hear)?;
        if engine.longest() < longest {
            let message =
                format!("a context of {longest} tokens does not fit: the KV cache holds {}", engine.longest());
            return Err(Error::Request { message });
        }
        let name = format.to_string();
        // A round's common beginning is read once, and given up from its end on as the facts come nearer to the start.
        for round in rounds {
            if !self.shares {
                for trial in round {
                    let held = self.hold(&mut engine, &trial.prompt, None, &name)?;
                    self.note(&mut engine, held, trial, found)?;
                }
                continue;
            }
            let Some(last) = round.iter().max_by_key(|trial| trial.common) else { continue };
            let beginning = last.prompt[..last.common].to_vec();
            let mut common = self.hold(&mut engine, &beginning, None, &name)?;
            for trial in round {
                engine.shorten(&mut common, trial.common);
                let held = self.hold(&mut engine, &trial.prompt, Some(&common), &name)?;
                self.note(&mut engine, held, trial, found)?;
            }
            engine.let_go(common);
        }
        Ok(())
    }

    /// Asks behind what is held, and lets it go.
    fn note(
        &self,
        engine: &mut Stepper,
        held: Held,
        trial: &Trial,
        found: &mut Vec<(usize, usize, Outcome)>,
    ) -> Result<(), Error> {
        let outcome = self.ask(engine, &held, trial);
        engine.let_go(held);
        found.push((trial.length, trial.depth, outcome?));
        Ok(())
    }

    fn hold(&mut self, engine: &mut Stepper, tokens: &[u32], like: Option<&Held>, what: &str) -> Result<Held, Error> {
        engine.hold(tokens, like, usize::MAX, |read| {
            self.read = (self.read + read as u64).min(self.total);
            (self.hear)(Progress::Read { what, done: self.read, total: self.total });
            self.job.end.check()
        })
    }

    fn ask(&self, engine: &mut Stepper, held: &Held, trial: &Trial) -> Result<Outcome, Error> {
        let likelihoods: Vec<f64> =
            trial.candidates.iter().map(|next| engine.likelihood(held, next)).collect::<Result<_, Error>>()?;
        let right = likelihoods[0];
        let wrong = likelihoods[1..].iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if likelihoods.iter().any(|likelihood| likelihood.is_nan()) {
            return Err(Error::NotANumber);
        }
        let longest = trial.candidates.iter().map(Vec::len).max().unwrap_or(0);
        let tokenizer = self.job.tokenizer;
        let written = engine.continued(held, longest + 4, tokenizer.eos_token_ids())?;
        let written = tokenizer.decode(&written, true)?.contains(&trial.number);
        Ok(Outcome { chosen: right > wrong, written, margin: right - wrong, log_probability: right })
    }
}
