//! A block of shapes: every candidate of each, in shuffled rounds one after the other, so that the samples of one are apart.

use super::Collector;
use crate::error::Error;
use crate::tune::problem::{Choice, Problem, Subject};
use crate::tune::rig::Rig;
use raglan_tuner::{Candidate, Split, split};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use std::time::{Duration, Instant};

/// Shapes of a block at most, so that their inputs find room together.
const BLOCK: usize = 12;

/// Rounds of a shape that scores, and of one that is trained on.
const ROUNDS: usize = 6;
const TRAIN_ROUNDS: usize = 3;

/// Near the best: worth a third sample.
const NEAR: f64 = 1.25;

/// How something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// As it should.
    Done,
    /// With the time, or because somebody stopped it, or with the adapter.
    Over,
}

/// A shape with its inputs on the adapter.
pub(super) struct Opened {
    pub(super) subject: Subject,
    pub(super) problem: Problem,
}

/// A candidate on a shape.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// Place of the shape among the opened ones.
    pub(super) opened: usize,
    pub(super) choice: Choice,
    /// Place in the dataset.
    pub(super) row: usize,
}

impl Collector<'_> {
    /// Measures the next shapes of a course, as many as there is time for.
    pub(super) fn block(&mut self, course: usize) -> Result<Ended, Error> {
        let begun = Instant::now();
        let name = self.courses[course].space.name.clone();
        let (subjects, next) = self.next_subjects(course);
        if subjects.is_empty() {
            let is_over = next == self.courses[course].next;
            self.courses[course].next = next;
            return Ok(if is_over { Ended::Over } else { Ended::Done });
        }
        let mut opened = self.open(&subjects)?;
        let portfolio = self.courses[course].portfolio.clone().unwrap_or_default();
        let defaults: Vec<Candidate> = opened.iter().map(|one| one.subject.default.candidate()).collect();
        let mut candidates = portfolio.clone();
        candidates.extend(defaults.into_iter().filter(|default| !portfolio.contains(default)));
        candidates.dedup();
        let is_wanted =
            |subject: &Subject, choice: &Choice| *choice == subject.default || portfolio.contains(&choice.candidate());
        let items = self.items(&opened, is_wanted, &candidates);
        let first = self.courses[course].shapes;
        self.warm_items(&format!("{name}, shape {first}"), &mut opened, &items);
        for round in 0..ROUNDS {
            let mut now: Vec<&Item> = items.iter().filter(|item| self.is_due(&opened, item, round, &items)).collect();
            now.shuffle(&mut StdRng::seed_from_u64((self.courses[course].next * ROUNDS + round) as u64));
            for (done, item) in now.iter().enumerate() {
                if self.is_over() {
                    return Ok(Ended::Over);
                }
                if done % 32 == 0 {
                    self.say(&format!("{name}, shapes {first} to {}, round {}", first + opened.len(), round + 1));
                    self.write_now_and_then()?;
                }
                self.measure(&mut opened, item, round)?;
            }
        }
        let course = &mut self.courses[course];
        course.next = next;
        course.shapes += opened.len();
        let shape_s = begun.elapsed().as_secs_f64() / opened.len().max(1) as f64;
        course.shape_s = if course.shape_s > 0.0 { 0.5 * (course.shape_s + shape_s) } else { shape_s };
        Ok(Ended::Done)
    }

    /// The next shapes that are not done, and the number after them. Towards the end as many as there is time for.
    fn next_subjects(&self, course: usize) -> (Vec<Subject>, usize) {
        let state = &self.courses[course];
        let count = match state.shape_s {
            met if met > 0.0 => ((0.8 * self.left_s() / met) as usize).min(BLOCK),
            _ => BLOCK / 2,
        };
        let mut subjects: Vec<Subject> = Vec::new();
        let mut next = state.next;
        while subjects.len() < count && next < self.options.most_shapes {
            if let Some(subject) = self.subject(course, next)
                && !subjects.iter().any(|other| other.descriptor == subject.descriptor)
                && !self.is_done(course, &subject)
            {
                subjects.push(subject);
            }
            next += 1;
        }
        (subjects, next)
    }

    /// Whether the portfolio has all rounds of a shape.
    fn is_done(&self, course: usize, subject: &Subject) -> bool {
        let portfolio = self.courses[course].portfolio.iter().flatten();
        let least = match split(subject.space, &subject.descriptor) {
            Split::Train => 2,
            Split::NewM | Split::NewNk => ROUNDS,
        };
        let default = subject.default.candidate();
        portfolio.chain([&default]).filter(|candidate| subject.choice(&self.rig, candidate).is_some()).all(
            |candidate| {
                let at = self.index.get(&super::key(subject.space, &subject.descriptor, candidate));
                at.is_some_and(|&at| {
                    let row = &self.dataset.rows[at];
                    row.failure.is_some() || row.times_us.iter().filter(|us| us.is_finite()).count() >= least
                })
            },
        )
    }

    /// Whether an item has no time of a round in which it should have one.
    fn is_due(&self, opened: &[Opened], item: &Item, round: usize, items: &[Item]) -> bool {
        let row = &self.dataset.rows[item.row];
        if row.failure.is_some() || row.times_us.get(round).is_some_and(|us| us.is_finite()) {
            return false;
        }
        let subject = &opened[item.opened].subject;
        if split(subject.space, &subject.descriptor) != Split::Train || round + 1 < TRAIN_ROUNDS {
            return true;
        }
        let time = |item: &Item| self.dataset.rows[item.row].chosen_us().unwrap_or(f64::INFINITY);
        let same = items.iter().filter(|other| other.opened == item.opened);
        round < TRAIN_ROUNDS && time(item) <= NEAR * same.map(time).fold(f64::INFINITY, f64::min)
    }

    /// Puts shapes on the adapter; those for which it has no room are left out.
    pub(super) fn open(&mut self, subjects: &[Subject]) -> Result<Vec<Opened>, Error> {
        let mut opened = Vec::new();
        let begun = Instant::now();
        for subject in subjects {
            match subject.open(&mut self.rig) {
                Ok(problem) => opened.push(Opened { subject: subject.clone(), problem }),
                Err(error @ (Error::OutOfMemory { .. } | Error::BufferTooLarge { .. })) => {
                    log::warn!("{} {:?} is left out: {error}", subject.space.name, subject.descriptor);
                }
                Err(error) => return Err(error),
            }
        }
        self.spent.opening += begun.elapsed().as_secs_f64();
        Ok(opened)
    }

    /// Compiles what items run.
    pub(super) fn warm_items(&mut self, what: &str, opened: &mut [Opened], items: &[Item]) {
        let jobs = opened.iter_mut().enumerate().map(|(at, one)| {
            let choices = items.iter().filter(|item| item.opened == at).map(|item| item.choice.clone());
            (&one.subject, &mut one.problem, choices.collect())
        });
        let begun = Instant::now();
        self.warm(what, jobs.collect());
        self.spent.compiling += begun.elapsed().as_secs_f64();
    }

    /// Times an item once, after its output was compared in this run; what goes wrong becomes its failure.
    pub(super) fn measure(&mut self, opened: &mut [Opened], item: &Item, round: usize) -> Result<(), Error> {
        let row = &self.dataset.rows[item.row];
        if row.failure.is_some() || row.times_us.get(round).is_some_and(|us| us.is_finite()) {
            return Ok(());
        }
        let begun = Instant::now();
        let problem = &mut opened[item.opened].problem;
        let about = match self.checked.get(&item.row) {
            Some(&about) => Ok(Ok(about)),
            None => problem.check(&mut self.rig, &item.choice),
        };
        let timed = match about {
            Ok(Ok(about)) => problem.time(&mut self.rig, &item.choice, about).map(Ok),
            other => other,
        };
        self.spent.measuring += begun.elapsed().as_secs_f64();
        self.spent.samples += 1;
        let row = &mut self.dataset.rows[item.row];
        match timed {
            Ok(Ok(us)) => {
                self.checked.insert(item.row, us);
                row.times_us.resize(row.times_us.len().max(round + 1), f32::NAN);
                row.times_us[round] = us as f32;
                Ok(())
            }
            Ok(Err(wrong)) => {
                log::warn!("{} on {} {:?}: {wrong}", row.candidate, row.space, row.shape);
                row.failure = Some(wrong);
                Ok(())
            }
            Err(error) => {
                row.failure = Some(error.to_string());
                log::warn!("{} on {} {:?}: {error}", row.candidate, row.space, row.shape);
                match self.rig.gpu.loss(Duration::ZERO) {
                    Some(_) => self.recover(opened),
                    None => Ok(()),
                }
            }
        }
    }

    /// Opens the adapter again after its loss, and the shapes on it.
    fn recover(&mut self, opened: &mut [Opened]) -> Result<(), Error> {
        self.losses += 1;
        if self.is_over() {
            return Ok(());
        }
        self.rig = Rig::new(&self.rig.gpu.reopen()?, self.options.inputs)?;
        self.warmed.clear();
        for one in opened {
            one.problem = one.subject.open(&mut self.rig)?;
        }
        Ok(())
    }
}
