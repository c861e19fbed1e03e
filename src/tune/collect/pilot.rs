//! The pilot: all candidates on a few shapes, and which of them are worth going on with.

use super::Collector;
use super::block::{Ended, Item, Opened};
use crate::error::Error;
use crate::tune::problem::{Choice, Subject};
use raglan_tuner::{Candidate, Dataset, MOST_CANDIDATES, Split, go_on, split};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// A candidate so many times slower than the best of two shapes is not tried on others.
const HOPELESS: f64 = 4.0;

/// Candidates of a portfolio, slow ones among them where there are not as many others.
const LEAST: usize = 16;

/// Of a space's time, for its pilot.
const SHARE: f64 = 0.3;

impl Collector<'_> {
    /// Finds the portfolio of a course.
    pub(super) fn pilot(&mut self, course: usize) -> Result<Ended, Error> {
        let name = self.courses[course].space.name.clone();
        let subjects = self.pilot_subjects(course);
        self.courses[course].pilot = subjects.iter().map(|subject| subject.descriptor.clone()).collect();
        if let Some(known) = self.known_portfolio(course, &subjects) {
            self.courses[course].portfolio = Some(known);
            return Ok(Ended::Done);
        }
        let shares: f64 = self.courses.iter().map(|course| course.share).sum();
        let share_s = SHARE * self.courses[course].share / shares * self.options.time.as_secs_f64();
        let until = self.elapsed_s() + self.options.pilot.map_or(share_s, |time| time.as_secs_f64());
        let mut opened = self.open(&subjects)?;
        let candidates = self.pilot_candidates(course, &opened);
        // A candidate at a time on all shapes; a few of them are compiled together.
        for (turn, group) in candidates.chunks(6).enumerate() {
            if self.is_over() {
                return Ok(Ended::Over);
            }
            // The rules' choices come first, whatever they take.
            if turn > 0 && self.elapsed_s() > until {
                log::info!("{name}: the pilot ends after {} of {} candidates", 6 * turn, candidates.len());
                break;
            }
            let what = format!("{name}, pilot {} of {}", 6 * turn, candidates.len());
            let items = self.items(&opened, |_, choice| group.contains(&choice.candidate()), group);
            // Two shapes first, the others where that gives hope.
            for part in 0..2 {
                let hopeless = if part == 0 { Vec::new() } else { self.hopeless(&opened, group) };
                let is_hopeless = |item: &&Item| hopeless.contains(&item.choice.candidate());
                self.given_up
                    .extend(items.iter().filter(|item| item.opened >= 2).filter(is_hopeless).map(|item| item.row));
                let of_part = |item: &&Item| (item.opened < 2) == (part == 0) && !is_hopeless(item);
                let now: Vec<Item> = items.iter().filter(of_part).cloned().collect();
                self.warm_items(&what, &mut opened, &now);
                self.say(&what);
                for item in &now {
                    if self.is_over() {
                        return Ok(Ended::Over);
                    }
                    self.measure(&mut opened, item, 0)?;
                }
                self.write_now_and_then()?;
            }
        }
        let most =
            self.options.most_candidates.unwrap_or(if self.rig.gpu.is_software() { 22 } else { MOST_CANDIDATES });
        let shapes: Vec<_> = opened.iter().map(|opened| opened.subject.descriptor.clone()).collect();
        let rows = self.dataset.rows.iter().filter(|row| row.space == name && shapes.contains(&row.shape)).cloned();
        let pilot = Dataset { header: self.dataset.header.clone(), rows: rows.collect() };
        // Those that were given up cost time and win nothing; a few of them show what slow is.
        let given_up = |candidate: &Candidate| {
            self.given_up
                .iter()
                .any(|&at| self.dataset.rows[at].space == name && self.dataset.rows[at].candidate == *candidate)
        };
        let (slow, mut kept): (Vec<_>, Vec<_>) = go_on(&pilot, &name, most).into_iter().partition(given_up);
        kept.extend(slow.into_iter().take(LEAST.saturating_sub(kept.len())));
        self.courses[course].portfolio = Some(kept);
        Ok(Ended::Done)
    }

    /// The first Train shapes; on a software adapter, which compiles each format anew, of two formats.
    fn pilot_subjects(&self, course: usize) -> Vec<Subject> {
        let (most, groups) = if self.rig.gpu.is_software() { (10, 3) } else { (24, usize::MAX) };
        let all = (0..self.options.most_shapes.min(400)).filter_map(|index| self.subject(course, index));
        let mut seen: Vec<Vec<u32>> = Vec::new();
        let mut subjects: Vec<Subject> = Vec::new();
        for subject in all.filter(|subject| split(subject.space, &subject.descriptor) == Split::Train) {
            let numbers = subject.space.dims.iter().zip(&subject.descriptor);
            let group: Vec<u32> = numbers.filter(|(dim, _)| dim.grouped).map(|(_, number)| number.to_bits()).collect();
            if !seen.contains(&group) {
                if seen.len() == groups {
                    break;
                }
                seen.push(group);
            }
            if !subjects.iter().any(|other| other.descriptor == subject.descriptor) {
                subjects.push(subject);
            }
            if subjects.len() == most {
                break;
            }
        }
        // The first two differ in more than their rows.
        if subjects.len() > 2 {
            let last = subjects.len() - 1;
            subjects.swap(1, last);
        }
        subjects
    }

    /// Of all that are legal somewhere: the rules' choices first, then the others in a random order.
    fn pilot_candidates(&self, course: usize, opened: &[Opened]) -> Vec<Candidate> {
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut others: Vec<Candidate> = Vec::new();
        for one in opened {
            let default = one.subject.default.candidate();
            if !candidates.contains(&default) {
                candidates.push(default);
            }
            for choice in one.subject.all(&self.rig) {
                let candidate = choice.candidate();
                if !others.contains(&candidate) {
                    others.push(candidate);
                }
            }
        }
        others.shuffle(&mut StdRng::seed_from_u64(course as u64));
        others.retain(|candidate| !candidates.contains(candidate));
        candidates.extend(others);
        candidates
    }

    /// Those that were far from the best on every one of the first two shapes on which they ran.
    fn hopeless(&mut self, opened: &[Opened], group: &[Candidate]) -> Vec<Candidate> {
        let time = |collector: &Self, one: &Opened, candidate: &Candidate| {
            let at = collector.index.get(&super::key(one.subject.space, &one.subject.descriptor, candidate))?;
            collector.dataset.rows[*at].round_us(0)
        };
        let best = |one: &Opened| {
            let rows = self.dataset.rows.iter();
            let same = rows.filter(|row| row.space == one.subject.space.name && row.shape == one.subject.descriptor);
            same.filter_map(|row| row.round_us(0)).fold(f64::INFINITY, f64::min)
        };
        let first: Vec<(&Opened, f64)> = opened.iter().take(2).map(|one| (one, best(one))).collect();
        let is_hopeless = |candidate: &&Candidate| {
            let ratios: Vec<f64> =
                first.iter().filter_map(|(one, best)| Some(time(self, one, candidate)? / best)).collect();
            !ratios.is_empty() && ratios.iter().all(|&ratio| ratio > HOPELESS)
        };
        group.iter().filter(is_hopeless).cloned().collect()
    }

    /// The portfolio of an earlier run: what it measured on shapes that are not the pilot's.
    fn known_portfolio(&self, course: usize, pilot: &[Subject]) -> Option<Vec<Candidate>> {
        let name = &self.courses[course].space.name;
        let is_pilot = |shape: &Vec<f32>| pilot.iter().any(|subject| subject.descriptor == *shape);
        let mut counts: Vec<(Candidate, usize)> = Vec::new();
        for row in self.dataset.rows.iter().filter(|row| row.space == *name && !is_pilot(&row.shape)) {
            match counts.iter_mut().find(|(candidate, _)| *candidate == row.candidate) {
                Some((_, count)) => *count += 1,
                None => counts.push((row.candidate.clone(), 1)),
            }
        }
        // What the rules alone chose was measured on fewer.
        let most = counts.iter().map(|(_, count)| *count).max()?;
        let kept = counts.into_iter().filter(|(_, count)| 4 * count >= most);
        Some(kept.map(|(candidate, _)| candidate).collect())
    }

    /// Items of each opened shape and of each of `candidates` that is legal there and wanted.
    pub(super) fn items(
        &mut self,
        opened: &[Opened],
        is_wanted: impl Fn(&Subject, &Choice) -> bool,
        candidates: &[Candidate],
    ) -> Vec<Item> {
        let mut items = Vec::new();
        for (at, one) in opened.iter().enumerate() {
            for candidate in candidates {
                let choice = one.subject.choice(&self.rig, candidate);
                if let Some(choice) = choice.filter(|choice| is_wanted(&one.subject, choice)) {
                    let row = self.row(&one.subject, &choice);
                    items.push(Item { opened: at, choice, row });
                }
            }
        }
        items
    }
}
