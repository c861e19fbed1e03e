//! The collector: as many shapes as a time allows, each with a portfolio of candidates, in interleaved rounds.

mod block;
mod header;
mod pilot;
mod warm;

pub use header::header;

use super::problem::Subject;
use super::rig::{Inputs, Rig};
use super::shapes::{Extent, shape};
use crate::error::Error;
use crate::gpu::{Gpu, Variant};
use crate::schedules::{all_spaces, spaces};
use block::Ended;
use raglan_tuner::{Candidate, Dataset, Row, Space, Split, split};
use rustc_hash::{FxHashMap, FxHashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Losses of the adapter after which nothing more is tried.
const MOST_LOSSES: usize = 3;

/// How often what was measured is written.
const WRITE_S: f64 = 20.0;

/// What is collected, and for how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// Of all: compiling, a pilot, measuring.
    pub time: Duration,
    /// Names of spaces; none: all.
    pub spaces: Vec<String>,
    /// Types of numbers.
    pub inputs: Inputs,
    /// Where the dataset is written as it grows, and what is gone on with where it was begun.
    pub out: Option<PathBuf>,
    /// Shapes of a space at most.
    pub most_shapes: usize,
    /// Candidates of a space at most; `None`: as many as suit the adapter.
    pub most_candidates: Option<usize>,
    /// Time for each space's pilot; `None`: a share of its time.
    pub pilot: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            time: Duration::from_secs(600),
            spaces: Vec::new(),
            inputs: Inputs::default(),
            out: None,
            most_shapes: usize::MAX,
            most_candidates: None,
            pilot: None,
        }
    }
}

/// Hears what is under way, and how many seconds of how many have passed.
pub type Progress<'a> = &'a mut dyn FnMut(&str, f64, f64);

/// Collects. What was measured until then is kept when `stop` is set, when the time is over, and when the adapter is lost
/// beyond repair.
///
/// # Errors
/// If there is no such space, the file cannot be read or written, or the adapter is lost before anything was measured.
pub fn collect(gpu: &Gpu, options: &Options, stop: &AtomicBool, progress: Progress<'_>) -> Result<Dataset, Error> {
    let mut collector = Collector::new(gpu, options, stop, progress)?;
    match collector.run() {
        Err(error) if collector.dataset.rows.iter().all(is_empty) => return Err(error),
        Err(error) => log::warn!("the collection ends here: {error}"),
        Ok(()) => {}
    }
    collector.end()
}

/// What is collected of one space.
struct Course {
    space: &'static Space,
    /// Of the time, beside the other spaces' shares.
    share: f64,
    spent_s: f64,
    /// Seconds of a shape, as met.
    shape_s: f64,
    /// Candidates of every shape, once the pilot has found them.
    portfolio: Option<Vec<Candidate>>,
    /// The pilot's shapes.
    pilot: Vec<Vec<f32>>,
    /// The next shape's number.
    next: usize,
    /// Shapes that are done.
    shapes: usize,
}

struct Collector<'a> {
    rig: Rig,
    /// Another opening of a software adapter, to compile at the same time.
    helper: Option<Rig>,
    options: &'a Options,
    extent: Extent,
    dataset: Dataset,
    /// Of the dataset's rows: by space, shape and candidate.
    index: FxHashMap<Key, usize>,
    courses: Vec<Course>,
    /// What was compiled.
    warmed: FxHashSet<Variant>,
    /// Whose outputs were compared in this run; a row of another run is compared again before it is measured on.
    checked: FxHashMap<usize, f64>,
    /// Rows that have no times because they are not worth any.
    given_up: FxHashSet<usize>,
    /// Seconds of putting shapes on the adapter, of compiling, and of measuring.
    spent: Spent,
    losses: usize,
    begun: Instant,
    written: Instant,
    stop: &'a AtomicBool,
    progress: Progress<'a>,
}

/// Where the time goes, in seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    opening: f64,
    compiling: f64,
    measuring: f64,
    samples: usize,
}

/// A row's place: the space, the bits of the shape, the candidate.
type Key = (&'static str, Vec<u32>, Candidate);

fn key(space: &'static Space, shape: &[f32], candidate: &Candidate) -> Key {
    (&space.name, shape.iter().map(|number| number.to_bits()).collect(), candidate.clone())
}

impl<'a> Collector<'a> {
    fn new(
        gpu: &Gpu,
        options: &'a Options,
        stop: &'a AtomicBool,
        progress: Progress<'a>,
    ) -> Result<Collector<'a>, Error> {
        let begun = Instant::now();
        let known = |name: &String| spaces::ALL.contains(&name.as_str());
        if let Some(unknown) = options.spaces.iter().find(|name| !known(name)) {
            let message = format!("there is no space {unknown}; there are {}", spaces::ALL.join(", "));
            return Err(Error::Request { message });
        }
        let rig = Rig::new(gpu, options.inputs)?;
        let helper = if gpu.is_software() { Rig::new(&gpu.reopen()?, options.inputs).ok() } else { None };
        let (kv, binding) = (rig.kernels.types.kv, gpu.limits().max_binding_bytes);
        let extent = if gpu.is_software() { Extent::software(kv, binding) } else { Extent::hardware(kv, binding) };
        let header = header(gpu, rig.clock.name());
        let dataset = match options.out.as_ref().filter(|path| path.exists()) {
            Some(path) => {
                let found = Dataset::read(path)?;
                match header::stale(&found.header, &header) {
                    None => Dataset { header: found.header, rows: found.rows },
                    Some(why) => {
                        log::warn!("{}: {why}; it is begun anew", path.display());
                        Dataset { header, rows: Vec::new() }
                    }
                }
            }
            None => Dataset { header, rows: Vec::new() },
        };
        let share = |name: &str| match name {
            spaces::LINEAR_FEW => 0.32,
            spaces::LINEAR_MANY => 0.34,
            spaces::ATTENTION_VECTOR => 0.16,
            _ => 0.18,
        };
        let wanted = |space: &&'static Space| options.spaces.is_empty() || options.spaces.contains(&space.name);
        let courses = all_spaces().into_iter().filter(wanted).map(|space| Course {
            space,
            share: share(&space.name),
            spent_s: 0.0,
            shape_s: 0.0,
            portfolio: None,
            pilot: Vec::new(),
            next: 0,
            shapes: 0,
        });
        let mut collector = Collector {
            rig,
            helper,
            options,
            extent,
            index: FxHashMap::default(),
            courses: courses.collect(),
            dataset,
            warmed: FxHashSet::default(),
            checked: FxHashMap::default(),
            given_up: FxHashSet::default(),
            spent: Spent::default(),
            losses: 0,
            begun,
            written: begun,
            stop,
            progress,
        };
        collector.index_rows();
        let rows = collector.dataset.rows.iter().enumerate();
        collector.given_up = rows.filter(|(_, row)| is_empty(row)).map(|(at, _)| at).collect();
        Ok(collector)
    }

    fn index_rows(&mut self) {
        self.index.clear();
        for (at, row) in self.dataset.rows.iter().enumerate() {
            if let Some(space) = all_spaces().into_iter().find(|space| space.name == row.space) {
                self.index.insert(key(space, &row.shape, &row.candidate), at);
            }
        }
    }

    /// Goes from space to space, to the one that is furthest behind its share.
    fn run(&mut self) -> Result<(), Error> {
        loop {
            let has_more = |course: &Course| course.next < self.options.most_shapes;
            let behind = |course: &Course| course.spent_s / course.share;
            let next = (0..self.courses.len()).filter(|&at| has_more(&self.courses[at]));
            let next = next.min_by(|&a, &b| behind(&self.courses[a]).total_cmp(&behind(&self.courses[b])));
            let Some(at) = next.filter(|_| !self.is_over()) else { return Ok(()) };
            let begun = Instant::now();
            let ended = match self.courses[at].portfolio {
                None => self.pilot(at),
                Some(_) => self.block(at),
            };
            self.courses[at].spent_s += begun.elapsed().as_secs_f64().max(1e-3);
            let Spent { opening, compiling, measuring, samples } = std::mem::take(&mut self.spent);
            let name = &self.courses[at].space.name;
            log::info!(
                "{name}: {opening:.1} s opening shapes, {compiling:.1} s compiling, {measuring:.1} s for {samples} samples"
            );
            match ended? {
                Ended::Done => {}
                Ended::Over => return Ok(()),
            }
        }
    }

    /// What was collected, without shapes that were begun and not ended where the time is over; they stay where somebody stops
    /// the collection, to go on later.
    fn end(mut self) -> Result<Dataset, Error> {
        let mut place = 0..;
        let given_up = std::mem::take(&mut self.given_up);
        self.dataset.rows.retain(|row| place.next().is_some_and(|at| !is_empty(row) || given_up.contains(&at)));
        if !self.stop.load(Ordering::Relaxed) {
            self.drop_unfinished();
        }
        self.write()?;
        Ok(self.dataset)
    }

    /// Drops shapes some of whose candidates lack rounds, but for what the pilot alone measured.
    fn drop_unfinished(&mut self) {
        let mut unfinished: FxHashSet<(String, Vec<u32>)> = FxHashSet::default();
        for course in &self.courses {
            for row in self.dataset.rows.iter().filter(|row| row.space == course.space.name && row.failure.is_none()) {
                let is_kept = course.portfolio.as_ref().is_some_and(|kept| kept.contains(&row.candidate));
                let least = match split(course.space, &row.shape) {
                    Split::Train if is_kept => 2 - usize::from(course.pilot.contains(&row.shape)),
                    Split::Train => 0,
                    Split::NewM | Split::NewNk => 6,
                };
                if row.times_us.iter().filter(|us| us.is_finite()).count() < least {
                    unfinished.insert((row.space.clone(), bits(&row.shape)));
                }
            }
        }
        self.dataset.rows.retain(|row| !unfinished.contains(&(row.space.clone(), bits(&row.shape))));
    }

    fn elapsed_s(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    fn left_s(&self) -> f64 {
        self.options.time.as_secs_f64() - self.elapsed_s()
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.left_s() <= 0.0 || self.losses > MOST_LOSSES
    }

    fn say(&mut self, what: &str) {
        let (elapsed, total) = (self.elapsed_s(), self.options.time.as_secs_f64());
        (self.progress)(what, elapsed.min(total), total);
    }

    fn write(&mut self) -> Result<(), Error> {
        self.written = Instant::now();
        match &self.options.out {
            Some(path) => Ok(self.dataset.write(path)?),
            None => Ok(()),
        }
    }

    fn write_now_and_then(&mut self) -> Result<(), Error> {
        if self.written.elapsed().as_secs_f64() < WRITE_S { Ok(()) } else { self.write() }
    }

    /// Shape `index` of a course; `None` where it is more than one problem.
    fn subject(&self, course: usize, index: usize) -> Option<Subject> {
        let space = self.courses[course].space;
        let subject = Subject::of(&self.rig, shape(&space.name, index, &self.extent))?;
        // Sizes at the edge may belong to the other space.
        (subject.space.name == space.name).then_some(subject)
    }

    /// The row of a candidate on a shape, made where there is none.
    fn row(&mut self, subject: &Subject, choice: &super::problem::Choice) -> usize {
        let candidate = choice.candidate();
        let by_rules = *choice == subject.default;
        let key = key(subject.space, &subject.descriptor, &candidate);
        if let Some(&at) = self.index.get(&key) {
            self.dataset.rows[at].by_rules |= by_rules;
            return at;
        }
        let cost = subject.cost(&self.rig, choice);
        self.dataset.rows.push(Row {
            space: subject.space.name.clone(),
            shape: subject.descriptor.clone(),
            candidate,
            cost,
            times_us: Vec::new(),
            failure: None,
            by_rules,
        });
        self.index.insert(key, self.dataset.rows.len() - 1);
        self.dataset.rows.len() - 1
    }
}

/// Whether a row says nothing.
fn is_empty(row: &Row) -> bool {
    row.failure.is_none() && !row.times_us.iter().any(|us| us.is_finite())
}

fn bits(shape: &[f32]) -> Vec<u32> {
    shape.iter().map(|number| number.to_bits()).collect()
}
