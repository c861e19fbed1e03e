//! Sequences whose keys and values stay: what others begin with, and how likely given continuations of them are.

use super::Stepper;
use crate::batch::Batch;
use crate::error::Error;
use crate::segments::Tables;
use std::ops::Range;

/// A sequence whose keys and values stay until [`Stepper::let_go`].
#[must_use = "its slots are given back by `let_go`"]
#[derive(Debug)]
pub struct Held {
    tables: Tables,
    tokens: Vec<u32>,
}

/// What is wanted of a run's last rows.
enum Wanted<'a> {
    Nothing,
    /// The loss of these tokens, each after the one before.
    Losses(&'a [u32]),
    /// The likeliest next token.
    Next,
}

impl Held {
    /// Its tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
}

impl Stepper {
    /// Reads `tokens`, in steps of at most `chunk`, and keeps their keys and values; what it begins with in common with
    /// `like` is not computed again. `progress` hears how many tokens each step computed, and may end it.
    ///
    /// # Errors
    /// As [`Stepper::step`], where the tokens do not fit beside what is held, and what `progress` returns.
    ///
    /// # Panics
    /// If the engine is not idle.
    pub fn hold(
        &mut self,
        tokens: &[u32],
        like: Option<&Held>,
        chunk: usize,
        progress: impl FnMut(usize) -> Result<(), Error>,
    ) -> Result<Held, Error> {
        assert!(self.is_idle(), "an engine reads ahead while it is idle");
        if tokens.is_empty() || tokens.len() > self.longest() {
            let message = format!("{} tokens to read, wanted 1 to {}", tokens.len(), self.longest());
            return Err(Error::Request { message });
        }
        self.forget_prefixes();
        let common = like.map_or(0, |like| like.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count());
        let (tables, shared) = self.begin_like(like, common);
        match self.read_silently(&tables, tokens, shared..tokens.len(), chunk, progress) {
            Ok(()) => Ok(Held { tables, tokens: tokens.to_vec() }),
            Err(error) => {
                self.slots.free(tables);
                Err(error)
            }
        }
    }

    /// Forgets all of it but its first `tokens`.
    ///
    /// # Panics
    /// If it has fewer.
    pub fn shorten(&mut self, held: &mut Held, tokens: usize) {
        assert!(tokens <= held.tokens.len(), "{tokens} of {} tokens", held.tokens.len());
        // What begins like it begins at whole quanta.
        self.slots.truncate(&held.tables, tokens / self.quantum() * self.quantum());
        held.tokens.truncate(tokens);
    }

    /// Gives its slots back.
    pub fn let_go(&mut self, held: Held) {
        self.slots.free(held.tables);
    }

    /// The summed log-probability of `next` after what is held, in nats.
    ///
    /// # Errors
    /// As [`Stepper::hold`], and for a continuation that is empty.
    pub fn likelihood(&mut self, held: &Held, next: &[u32]) -> Result<f64, Error> {
        if next.is_empty() {
            return Err(Error::Request { message: "a continuation of no tokens, wanted 1 or more".to_owned() });
        }
        let tokens = [&held.tokens[..], &next[..next.len() - 1]].concat();
        let (tables, first) = self.begin_like(Some(held), held.tokens.len() - 1);
        let result = self.likelihood_behind(&tables, first, &tokens, next);
        self.slots.free(tables);
        result
    }

    fn likelihood_behind(&mut self, tables: &Tables, first: usize, tokens: &[u32], next: &[u32]) -> Result<f64, Error> {
        let start = tokens.len() - next.len();
        let (mut at, mut end, mut sum) = (first, start, 0.0);
        if tokens.len() - first > self.longest_silent_step() {
            self.read_silently(tables, tokens, first..start, usize::MAX, |_| Ok(()))?;
            at = start;
        }
        for wanted in next.chunks(self.longest_step(usize::MAX)) {
            end += wanted.len();
            let losses = self.read_more(tables, tokens, at..end, Wanted::Losses(wanted))?;
            sum -= losses.into_iter().map(|bits| f64::from(f32::from_bits(bits))).sum::<f64>();
            at = end;
        }
        Ok(sum)
    }

    /// The `count` likeliest tokens after what is held, each after the one before; fewer where one is of `last`.
    ///
    /// # Errors
    /// As [`Stepper::hold`].
    pub fn continued(&mut self, held: &Held, count: usize, last: &[u32]) -> Result<Vec<u32>, Error> {
        let (tables, mut first) = self.begin_like(Some(held), held.tokens.len() - 1);
        let mut tokens = held.tokens.clone();
        let mut steps = || -> Result<(), Error> {
            if tokens.len() - first > self.longest_silent_step() {
                self.read_silently(&tables, &tokens, first..tokens.len() - 1, usize::MAX, |_| Ok(()))?;
                first = tokens.len() - 1;
            }
            for _ in 0..count {
                let next = self.read_more(&tables, &tokens, first..tokens.len(), Wanted::Next)?[0];
                first = tokens.len();
                if last.contains(&next) || next as usize >= self.spec().vocab_size {
                    break;
                }
                tokens.push(next);
            }
            Ok(())
        };
        let result = steps();
        self.slots.free(tables);
        result.map(|()| tokens.split_off(held.tokens.len()))
    }

    /// Tokens of a step of one sequence that need not give a row of logits each.
    fn longest_silent_step(&self) -> usize {
        self.limits.max_batch_tokens.min(self.slots.longest_chunk()).max(1)
    }

    fn quantum(&self) -> usize {
        self.slots.group(0).policy().quantum
    }

    /// Tables that share what they can of the first `common` positions of `like`, and how many those are.
    fn begin_like(&mut self, like: Option<&Held>, common: usize) -> (Tables, usize) {
        let shared = common / self.quantum() * self.quantum();
        match like.filter(|like| shared > 0 && self.slots.can_fork(&like.tables, shared)) {
            Some(like) => (self.slots.fork(&like.tables, shared), shared),
            None => (self.slots.admit(), 0),
        }
    }

    /// Computes its places `rows` in steps of at most `chunk`, for their keys and values alone.
    fn read_silently(
        &mut self,
        tables: &Tables,
        tokens: &[u32],
        rows: Range<usize>,
        chunk: usize,
        mut progress: impl FnMut(usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let chunk = chunk.clamp(1, self.longest_silent_step());
        for first in rows.clone().step_by(chunk) {
            let rows = first..rows.end.min(first + chunk);
            self.read_more(tables, tokens, rows.clone(), Wanted::Nothing)?;
            progress(rows.len())?;
        }
        Ok(())
    }

    /// One step of one sequence: computes its places `rows`. What came back, a word a row of logits.
    fn read_more(
        &mut self,
        tables: &Tables,
        tokens: &[u32],
        rows: Range<usize>,
        wanted: Wanted<'_>,
    ) -> Result<Vec<u32>, Error> {
        // Who begins like this sequence may begin up to a quantum before its end.
        self.slots.release_unseen(tables, rows.start.saturating_sub(self.quantum()));
        if !self.slots.extend(tables, rows.end) {
            let message = format!("{} tokens to read, and no room for them beside what is held", rows.end);
            return Err(Error::Request { message });
        }
        let mut batch = Batch::new(self.slots.len());
        batch.push(tokens[rows.clone()].iter().copied(), rows.start, &self.slots.segments(tables));
        batch.set_moves(&self.slots.take_moves());
        let count = rows.len() as u32;
        match wanted {
            Wanted::Nothing => {}
            Wanted::Losses(next) => {
                batch.logit_rows = (count - next.len() as u32..count).collect();
                batch.targets = next.to_vec();
            }
            Wanted::Next => batch.logit_rows = vec![count - 1],
        }
        let is_scored = !batch.targets.is_empty();
        let (submission, outputs) = self.run(&batch, 0)?;
        let bytes = submission.collect()?;
        if batch.logit_rows.is_empty() {
            return Ok(Vec::new());
        }
        if is_scored {
            return Ok(self.sampler.losses_of(&outputs, &bytes).into_iter().map(f32::to_bits).collect());
        }
        Ok(self.sampler.samples_of(&outputs, &bytes))
    }
}
