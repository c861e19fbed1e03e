//! Shapes one by one: what would be picked for each and why, and what the picks of each mode take.

use super::problem::{Choice, Problem, Subject};
use super::rig::{Inputs, Rig};
use super::shapes::Shape;
use crate::error::Error;
use crate::gpu::Gpu;
use crate::schedules::Mode;
use raglan_tuner::{Candidate, Cost, MOST_CANDIDATES, Model, Space};
use std::time::Instant;

/// Times that what a mode picked is measured, in turn with what the others did.
const ROUNDS: usize = 7;

/// Times that exhaustive search measures what is near the best; once it measures everything.
const SEARCH_ROUNDS: usize = 3;

/// Pipelines that are compiled before the time is looked at again.
const COMPILED: usize = 16;

/// What is near the best: of its time.
const NEAR: f64 = 1.25;

/// An adapter with what measuring on it takes.
pub struct Probe {
    rig: Rig,
}

/// What is known of a shape before it is run.
#[derive(Debug, Clone)]
pub struct Explained {
    /// What is chosen among.
    pub space: &'static Space,
    /// The shape in the space's dims.
    pub shape: Vec<f32>,
    /// What hand-written rules take.
    pub rules: Candidate,
    /// The one that is best over all shapes; none without a model, and where it is illegal here.
    pub default: Option<Candidate>,
    /// The portfolio by predicted time, those that are illegal here last; empty without a model.
    pub candidates: Vec<Predicted>,
}

/// A candidate of a portfolio.
#[derive(Debug, Clone)]
pub struct Predicted {
    /// How it runs.
    pub candidate: Candidate,
    /// What it costs by its own word; illegal where it must not run.
    pub cost: Cost,
    /// Predicted microseconds; infinite where it must not run.
    pub us: f64,
    /// The same by the analytical model alone.
    pub prior_us: f64,
}

/// What a mode picked for a shape, and what that takes.
#[derive(Debug, Clone)]
pub struct Timed {
    /// Who picked.
    pub mode: Mode,
    /// What it picked.
    pub candidate: Candidate,
    /// Microseconds: the median of some.
    pub us: f64,
    /// The least of them.
    pub us_min: f64,
    /// The most of them.
    pub us_max: f64,
}

/// What a mode came to, or a sentence on why it has no time.
pub type ByMode = Result<Timed, (Mode, String)>;

impl Probe {
    /// # Errors
    /// If the adapter is lost or has no room for some megabytes.
    pub fn new(gpu: &Gpu, inputs: Inputs) -> Result<Probe, Error> {
        Ok(Probe { rig: Rig::new(gpu, inputs)? })
    }

    /// What would be picked for a shape; `model` is the space's, of its name.
    ///
    /// # Errors
    /// A sentence where the shape is more than one problem.
    pub fn explain<'m>(&self, shape: Shape, model: impl Fn(&str) -> Option<&'m Model>) -> Result<Explained, String> {
        let subject =
            Subject::of(&self.rig, shape).ok_or("its rows are of several heights, which are picked for apart")?;
        let mut explained = Explained {
            space: subject.space,
            shape: subject.descriptor.clone(),
            rules: subject.default.candidate(),
            default: None,
            candidates: Vec::new(),
        };
        let Some(model) = model(&subject.space.name) else { return Ok(explained) };
        let costs: Vec<Cost> = model.candidates().iter().map(|candidate| self.cost(&subject, candidate)).collect();
        let predicted = |model: &Model| {
            let mut log_us = [f32::INFINITY; MOST_CANDIDATES];
            model.predict(&subject.descriptor, &costs, &mut log_us[..costs.len()]);
            log_us.map(|log_us| f64::from(log_us).exp())
        };
        let (us, prior) = (predicted(model), predicted(&model.without_mlp()));
        let all = model.candidates().iter().zip(&costs).zip(us.iter().zip(prior));
        explained.candidates = all
            .map(|((candidate, &cost), (&us, prior_us))| {
                let us = if cost.is_legal() && us.is_finite() { us } else { f64::INFINITY };
                Predicted { candidate: candidate.clone(), cost, us, prior_us }
            })
            .collect();
        let default = &explained.candidates[model.default_candidate()];
        explained.default = default.us.is_finite().then(|| default.candidate.clone());
        explained.candidates.sort_by(|a, b| a.us.total_cmp(&b.us));
        Ok(explained)
    }

    fn cost(&self, subject: &Subject, candidate: &Candidate) -> Cost {
        subject.choice(&self.rig, candidate).map_or(Cost::ILLEGAL, |choice| subject.cost(&self.rig, &choice))
    }

    /// Times what each mode picks for a shape, in turn, so that nothing that changes with time favours one. Exhaustive search
    /// measures the portfolio and what the rules take, or all candidates where there is no model, and gives up at
    /// `search_until`; what chooses it is not what is told of it.
    ///
    /// # Errors
    /// If the adapter was lost or refused something. The inner errors are sentences on why there is no time. Of the shape: no
    /// room, or candidates that fail. Of one mode: there is no model to ask, or no time left to search.
    pub fn time<'m>(
        &mut self,
        shape: Shape,
        model: impl Fn(&str) -> Option<&'m Model>,
        modes: &[Mode],
        search_until: Option<Instant>,
    ) -> Result<Result<Vec<ByMode>, String>, Error> {
        if let Some(message) = self.lacks_room(&shape)? {
            return Ok(Err(message));
        }
        let explained = match self.explain(shape.clone(), model) {
            Ok(explained) => explained,
            Err(message) => return Ok(Err(message)),
        };
        let Some(subject) = Subject::of(&self.rig, shape) else { return Ok(Err("it is no one problem".to_owned())) };
        let mut problem = subject.open(&mut self.rig)?;
        let space = &explained.space.name;
        let mut picked: Vec<(Mode, Choice)> = Vec::new();
        let mut refused: Vec<ByMode> = Vec::new();
        for &mode in modes {
            let choice = match mode {
                Mode::Off => Ok(subject.default.clone()),
                Mode::Default | Mode::Predict if explained.candidates.is_empty() => {
                    Err(format!("no weights serve {space} here: it would be the hand-written rules, which are `off`"))
                }
                Mode::Default => Ok(self.chosen(&subject, explained.default.as_ref())),
                Mode::Predict => {
                    let best = explained.candidates.first().filter(|best| best.us.is_finite());
                    Ok(self.chosen(&subject, best.map(|best| &best.candidate)))
                }
                Mode::Exhaustive => self.search(&subject, &mut problem, &explained, search_until)?,
            };
            match choice {
                Ok(choice) => picked.push((mode, choice)),
                Err(message) => refused.push(Err((mode, message))),
            }
        }
        let timed = self.time_picked(&mut problem, &picked)?;
        Ok(timed.map(|timed| timed.into_iter().map(Ok).chain(refused).collect()))
    }

    /// A candidate, or what the rules take where there is none.
    fn chosen(&self, subject: &Subject, candidate: Option<&Candidate>) -> Choice {
        candidate.and_then(|candidate| subject.choice(&self.rig, candidate)).unwrap_or_else(|| subject.default.clone())
    }

    /// The fastest by measuring.
    fn search(
        &mut self,
        subject: &Subject,
        problem: &mut Problem,
        explained: &Explained,
        until: Option<Instant>,
    ) -> Result<Result<Choice, String>, Error> {
        let is_over = || until.is_some_and(|until| Instant::now() >= until);
        let too_late = || Ok(Err("the time was over before all candidates were measured".to_owned()));
        if is_over() {
            return too_late();
        }
        let mut all: Vec<Choice> = match explained.candidates.is_empty() {
            true => subject.all(&self.rig),
            false => explained.candidates.iter().filter_map(|c| subject.choice(&self.rig, &c.candidate)).collect(),
        };
        if !all.contains(&subject.default) {
            all.push(subject.default.clone());
        }
        let mut variants = Vec::new();
        for choice in &all {
            variants.extend(problem.variants(&mut self.rig, choice)?);
        }
        for variants in variants.chunks(COMPILED) {
            if is_over() {
                return too_late();
            }
            self.rig.gpu.compile(variants, |_, _| ())?;
        }
        let mut met: Vec<(f64, Choice)> = Vec::new();
        for choice in all {
            if is_over() {
                return too_late();
            }
            if let Ok(about_us) = problem.check(&mut self.rig, &choice)? {
                met.push((problem.time(&mut self.rig, &choice, about_us)?, choice));
            }
        }
        let least = met.iter().map(|(us, _)| *us).fold(f64::INFINITY, f64::min);
        met.retain(|(us, _)| *us <= NEAR * least);
        let mut times: Vec<Vec<f64>> = met.iter().map(|(us, _)| vec![*us]).collect();
        for _ in 1..SEARCH_ROUNDS {
            for (times, (us, choice)) in times.iter_mut().zip(&met) {
                times.push(problem.time(&mut self.rig, choice, *us)?);
            }
        }
        let best = times.into_iter().zip(met).min_by(|a, b| median(&a.0).total_cmp(&median(&b.0)));
        Ok(best.map(|(_, (_, choice))| choice).ok_or_else(|| "every candidate fails".to_owned()))
    }

    fn time_picked(
        &mut self,
        problem: &mut Problem,
        picked: &[(Mode, Choice)],
    ) -> Result<Result<Vec<Timed>, String>, Error> {
        let mut distinct: Vec<&Choice> = Vec::new();
        for (_, choice) in picked {
            if !distinct.contains(&choice) {
                distinct.push(choice);
            }
        }
        let mut abouts = Vec::new();
        for choice in &distinct {
            match problem.check(&mut self.rig, choice)? {
                Ok(us) => abouts.push(us),
                Err(message) => return Ok(Err(format!("{}: {message}", choice.candidate()))),
            }
        }
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); distinct.len()];
        // The first round warms up.
        for round in 0..=ROUNDS {
            for ((choice, about_us), times) in distinct.iter().zip(&mut abouts).zip(&mut times) {
                *about_us = problem.time(&mut self.rig, choice, *about_us)?;
                if round > 0 {
                    times.push(*about_us);
                }
            }
        }
        let timed = picked.iter().map(|(mode, choice)| {
            let index = distinct.iter().position(|other| *other == choice).expect("it is one of them");
            let of = &times[index];
            let (us_min, us_max) =
                of.iter().fold((f64::INFINITY, 0f64), |(low, high), us| (low.min(*us), high.max(*us)));
            Timed { mode: *mode, candidate: choice.candidate(), us: median(of), us_min, us_max }
        });
        Ok(Ok(timed.collect()))
    }

    /// Words, where the arenas or a binding do not hold what the shape reads.
    fn lacks_room(&mut self, shape: &Shape) -> Result<Option<String>, Error> {
        let (what, bytes, most) = match shape {
            Shape::Linear(shape) => {
                let bytes = (shape.cols * shape.format.gpu_row_bytes(shape.inner)) as u64;
                ("its matrix", bytes, self.rig.gpu.limits().max_binding_bytes)
            }
            Shape::Attention(batch) => {
                let [keys, _] = self.rig.arenas()?;
                ("its keys", batch.kv_bytes() as u64 / 2, keys.bytes())
            }
        };
        Ok((bytes > most).then(|| format!("{what} take {bytes} bytes, there is room for {most}")))
    }
}

fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    if times.len() % 2 == 1 { times[middle] } else { (times[middle - 1] + times[middle]) / 2.0 }
}
