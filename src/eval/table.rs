//! Every format against the reference, one engine after another.

use super::format::Format;
use super::judge::{Sink, judge};
use super::rows::{Compared, Reference};
use super::spool::Spool;
use super::stats::{Placed, Stats};
use crate::engine::{EngineOptions, Loading, Stepper};
use crate::error::Error;
use crate::gpu::Gpu;
use parking_lot::Mutex;
use raglan_models::Checkpoint;
use serde::Serialize;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A text, cut into windows of at least two tokens.
#[derive(Debug, Clone)]
pub struct Text {
    /// What it is called.
    pub name: String,
    /// Each is read as a sequence of its own.
    pub windows: Vec<Vec<u32>>,
}

/// What is to be compared.
#[derive(Debug)]
pub struct Job<'a> {
    /// Where.
    pub gpu: &'a Gpu,
    /// The model.
    pub checkpoint: &'a Checkpoint,
    /// On what.
    pub texts: &'a [Text],
    /// Tokens that every window begins with and that are not of the text: nothing is told of the rows after them.
    pub unscored: usize,
    /// In which formats; the reference and the floor come by themselves.
    pub formats: &'a [Format],
    /// Tokens of a step at most.
    pub chunk: usize,
    /// Tokens of a step of the floor's.
    pub floor_chunk: usize,
    /// How engines are started, formats apart.
    pub engine: &'a EngineOptions,
    /// When to read nothing more.
    pub end: End<'a>,
    /// Where the reference's logits go.
    pub temp_dir: &'a Path,
}

/// What ends a comparison before its time.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Nothing more is read after this.
    pub deadline: Option<Instant>,
    /// Nothing more is read once it is set.
    pub stop: &'a AtomicBool,
}

impl End<'_> {
    /// # Errors
    /// What has come.
    pub(super) fn check(&self) -> Result<(), Error> {
        let message = match (self.stop.load(Ordering::Relaxed), self.deadline) {
            (true, _) => "not measured: ended by the user",
            (_, Some(deadline)) if Instant::now() >= deadline => "not measured: --max-seconds had passed",
            _ => return Ok(()),
        };
        Err(Error::Failed { message: message.to_owned() })
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// An engine for a format is being started.
    Loading(&'a str, Loading),
    /// Tokens were read: of which run, how many until now and in all runs.
    Read {
        /// The run.
        what: &'a str,
        /// Tokens read in all runs until now.
        done: u64,
        /// Tokens to read in all runs.
        total: u64,
    },
}

/// Hears how far it is.
pub(super) type Hear<'a> = &'a mut (dyn FnMut(Progress<'_>) + Send);

/// All that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Tokens of a step of all runs but the floor's.
    pub chunk: usize,
    /// Tokens of a step of the floor's.
    pub floor_chunk: usize,
    /// Bytes that the reference's logits took on disk.
    pub temp_bytes: u64,
    /// What was read.
    pub texts: Vec<TextReport>,
    /// The reference, the floor, then the formats in order.
    pub rows: Vec<ReportRow>,
}

/// What was read of a text.
#[derive(Debug, Clone, Serialize)]
pub struct TextReport {
    /// What it is called.
    pub name: String,
    /// Windows of it.
    pub windows: usize,
    /// Tokens in them.
    pub tokens: usize,
}

/// One run against the reference.
#[derive(Debug, Clone, Serialize)]
pub struct ReportRow {
    /// `reference`, `floor` or `format`.
    pub role: &'static str,
    /// The type of weights.
    pub weights: String,
    /// The type of keys and values.
    pub kv: String,
    /// Bytes of keys and values a token of context; none where it did not run.
    pub kv_bytes_per_token: Option<u64>,
    /// Loading and reading.
    pub seconds: f64,
    /// Why there are no numbers.
    pub error: Option<String>,
    /// Over all texts.
    pub all: Option<Stats>,
    /// Of each text, in order.
    pub texts: Vec<Stats>,
}

/// Why there is no floor where both read in the same steps.
pub fn same_steps(chunk: usize) -> String {
    format!(
        "the floor in steps of {chunk} tokens would be the reference again, as windows and the adapter have it: give another \
         --floor-chunk or --chunk"
    )
}

/// Runs the reference, the floor and every format. A format that fails is a row that says why; so is one that time or
/// the user left out.
///
/// # Errors
/// If the reference cannot be run to its end, its logits not be kept, or the floor would read in the same steps as it.
///
/// # Panics
/// If a text has no window.
pub fn compare(job: &Job<'_>, hear: Hear<'_>) -> Result<Report, Error> {
    let own = Format::reference(job.gpu);
    let formats: Vec<Format> = job.formats.iter().map(|format| format.on(job.gpu)).collect();
    let formats: Vec<&Format> = formats.iter().filter(|format| !format.is_same(&own)).collect();
    let spec = job.checkpoint.spec();
    let next: Vec<Option<u32>> = job.windows().flat_map(|window| nexts(window)).collect();
    let spool = Spool::new(job.temp_dir, next.len(), spec.vocab_size)?;
    let mut run = Runner { job, hear, read: 0, total: (next.len() * (2 + formats.len())) as u64 };

    let start = Instant::now();
    let mut engine = run.load(&own)?;
    let longest = job.windows().map(Vec::len).max().unwrap_or(0);
    let [chunk, floor_chunk] = [job.chunk, job.floor_chunk].map(|chunk| engine.scoring_chunk(chunk).min(longest));
    if chunk == floor_chunk {
        return Err(Error::Request { message: same_steps(chunk) });
    }
    let keep = |row: usize, logits: &[f32], _: &mut Vec<f32>| {
        let reference = Reference::new(logits, next[row]);
        if !reference.is_sound() {
            return Err(Error::NotANumber);
        }
        spool.write(row, logits)?;
        Ok(reference)
    };
    let references = judge(next.len(), keep, |sink| run.read("reference", &mut engine, chunk, sink))?;
    let against = |row: usize, logits: &[f32], own: &mut Vec<f32>| {
        own.resize(logits.len(), 0.0);
        spool.read(row, own)?;
        let compared = references[row].compare(own, logits, next[row]);
        if !compared.kl.is_finite() {
            return Err(Error::Failed { message: "its logits are not numbers".to_owned() });
        }
        Ok(compared)
    };
    let kv_bytes = |engine: &Stepper| Some(engine.memory().slot_bytes);
    let mut rows = Vec::new();
    let itself: Vec<Compared> = references.iter().map(Reference::itself).collect();
    let bytes = kv_bytes(&engine);
    rows.push(job.row("reference", &own, (bytes, start), Ok((&references[..], itself))));

    let start = Instant::now();
    let floor = judge(next.len(), against, |sink| run.read("floor", &mut engine, floor_chunk, sink));
    rows.push(job.row("floor", &own, (bytes, start), floor.map(|floor| (&references[..], floor))));
    drop(engine);

    for format in formats {
        let (start, mut bytes) = (Instant::now(), None);
        let name = format.to_string();
        let compared = run.load(format).and_then(|mut engine| {
            bytes = kv_bytes(&engine);
            judge(next.len(), against, |sink| run.read(&name, &mut engine, chunk, sink))
        });
        rows.push(job.row("format", format, (bytes, start), compared.map(|compared| (&references[..], compared))));
    }
    let texts = job.texts.iter().map(|text| TextReport {
        name: text.name.clone(),
        windows: text.windows.len(),
        tokens: text.tokens(),
    });
    let temp_bytes = (4 * next.len() * spec.vocab_size) as u64;
    Ok(Report { chunk, floor_chunk, temp_bytes, texts: texts.collect(), rows })
}

/// The token after each of a window's.
fn nexts(window: &[u32]) -> impl Iterator<Item = Option<u32>> {
    window[1..].iter().copied().map(Some).chain([None])
}

impl Text {
    fn tokens(&self) -> usize {
        self.windows.iter().map(Vec::len).sum()
    }
}

impl Job<'_> {
    fn windows(&self) -> impl Iterator<Item = &Vec<u32>> {
        self.texts.iter().flat_map(|text| &text.windows)
    }

    fn row(
        &self,
        role: &'static str,
        format: &Format,
        (kv_bytes_per_token, start): (Option<u64>, Instant),
        compared: Result<(&[Reference], Vec<Compared>), Error>,
    ) -> ReportRow {
        let mut row = ReportRow {
            role,
            weights: format.weights.clone(),
            kv: format.kv.clone(),
            kv_bytes_per_token,
            seconds: start.elapsed().as_secs_f64(),
            error: None,
            all: None,
            texts: Vec::new(),
        };
        let (references, compared) = match compared {
            Ok(compared) => compared,
            Err(error) => return ReportRow { error: Some(told(&error)), ..row },
        };
        let places = self.windows().flat_map(|window| 0..window.len());
        let placed: Vec<_> = places.zip(references.iter().zip(&compared)).map(|(at, (r, c))| (at, r, c)).collect();
        let scored = |placed: &[Placed<'_>]| Stats::new(placed.iter().copied().filter(|(at, ..)| *at >= self.unscored));
        row.all = scored(&placed);
        let mut first = 0;
        for text in self.texts {
            let last = first + text.tokens();
            row.texts.extend(scored(&placed[first..last]));
            first = last;
        }
        row
    }
}

/// An error with its causes, on one line.
pub(super) fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Loads and reads, and says how far it is.
struct Runner<'a, 'h> {
    job: &'a Job<'a>,
    hear: Hear<'h>,
    read: u64,
    total: u64,
}

impl Runner<'_, '_> {
    fn load(&mut self, format: &Format) -> Result<Stepper, Error> {
        self.job.end.check()?;
        // As many rows of logits as tokens.
        let rows = self.job.chunk.max(self.job.floor_chunk);
        let max_batch_tokens = self.job.engine.max_batch_tokens.max(rows);
        let options = EngineOptions { max_sequences: rows, max_batch_tokens, ..format.options(self.job.engine) };
        load((self.job.gpu, self.job.checkpoint), &options, self.job.chunk, format, self.hear)
    }

    fn read(&mut self, what: &str, engine: &mut Stepper, chunk: usize, sink: Sink<'_>) -> Result<(), Error> {
        let mut scorer = engine.scorer(chunk)?;
        let mut before = 0;
        for window in self.job.windows() {
            scorer.score(window, |first, logits| {
                self.job.end.check()?;
                self.read += logits.rows() as u64;
                sink(before + first, logits)?;
                (self.hear)(Progress::Read { what, done: self.read, total: self.total });
                Ok(())
            })?;
            before += window.len();
        }
        Ok(())
    }
}

/// An engine that is ready for steps of `chunk` tokens.
pub(super) fn load(
    (gpu, checkpoint): (&Gpu, &Checkpoint),
    options: &EngineOptions,
    chunk: usize,
    format: &Format,
    hear: Hear<'_>,
) -> Result<Stepper, Error> {
    let name = format.to_string();
    let engine = Stepper::new(gpu, checkpoint, options, &mut |done, total| {
        hear(Progress::Loading(&name, Loading::Weights { done, total }));
    })?;
    let hear = Mutex::new(hear);
    engine.compile_scoring(chunk, |done, total| {
        hear.lock()(Progress::Loading(&name, Loading::Kernels { done, total }));
    })?;
    Ok(engine)
}
