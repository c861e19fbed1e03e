//! One request from its prompt to its end: tokens, text as it comes, and how long it took.

use super::Result;
use super::progress::Spinner;
use raglan::models::{StopStrings, TextStream, Tokenizer};
use raglan::{Engine, Event, FinishReason, Request, SamplingParams};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What is asked.
pub(super) struct Question<'a> {
    /// Ids of the prompt.
    pub(super) prompt: Vec<u32>,
    /// How to answer.
    pub(super) sampling: SamplingParams,
    /// Texts that end the answer.
    pub(super) stop: &'a [String],
    /// Set from outside to end it.
    pub(super) interrupted: &'a AtomicBool,
    /// Whether to show that a long prompt is being read.
    pub(super) quiet: bool,
}

/// What came.
pub(super) struct Answer {
    /// Without a stop string, and without what came after it; `None` without a tokenizer.
    pub(super) text: Option<String>,
    /// New ids, up to the one that completed a stop string.
    pub(super) token_ids: Vec<u32>,
    /// Ids of the prompt.
    pub(super) prompt_tokens: usize,
    /// Why it ended.
    pub(super) reason: FinishReason,
    /// From the question to the first choice of a token.
    pub(super) first: Duration,
    /// From there to the last.
    pub(super) rest: Duration,
}

impl Answer {
    /// Tokens of the prompt by the time to the first choice, which is part of that time.
    pub(super) fn prefill_tokens_per_s(&self) -> f64 {
        self.prompt_tokens as f64 / self.first.as_secs_f64()
    }

    /// Tokens after the first by the time since it; `None` where there is none.
    pub(super) fn decode_tokens_per_s(&self) -> Option<f64> {
        let more = self.token_ids.len().saturating_sub(1);
        (more > 0).then(|| more as f64 / self.rest.as_secs_f64())
    }
}

/// `12 tokens read at 60.1 tokens/s, 40 written at 8.2 tokens/s`
impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tokens read at {:.1} tokens/s, ", self.prompt_tokens, self.prefill_tokens_per_s())?;
        write!(f, "{} written", self.token_ids.len())?;
        match self.decode_tokens_per_s() {
            Some(speed) => write!(f, " at {speed:.1} tokens/s"),
            None => Ok(()),
        }
    }
}

/// Asks, and gives every piece of text to `show` as soon as it is certain; ids in words where there is no tokenizer.
///
/// # Errors
/// If the engine refuses the request or fails, or `show` does.
pub(super) fn answer(
    engine: &mut Engine,
    tokenizer: Option<&Tokenizer>,
    question: Question<'_>,
    show: &mut dyn FnMut(&str) -> Result,
) -> Result<Answer> {
    let prompt_tokens = question.prompt.len();
    let start = Instant::now();
    let request = engine.submit(Request { prompt: question.prompt, sampling: question.sampling })?;
    let mut spinner = Some(Spinner::new(format!("reading {prompt_tokens} tokens"), question.quiet));
    let mut writer = Writer::new(tokenizer, question.stop, show);
    let (mut first, mut last) = (None, start);
    let mut ended = None;
    while !engine.is_idle() {
        if ended.is_none() && question.interrupted.load(Ordering::Relaxed) {
            engine.cancel(request);
            ended = Some(FinishReason::Cancelled);
        }
        for event in engine.step()? {
            first.get_or_insert_with(Instant::now);
            spinner = None;
            match event {
                Event::Token { token, .. } if ended.is_none() => {
                    last = Instant::now();
                    if writer.push(token)? {
                        engine.cancel(request);
                        ended = Some(FinishReason::Stop);
                    }
                }
                Event::Finished { reason, .. } if ended.is_none() => ended = Some(reason),
                _ => {}
            }
        }
    }
    drop(spinner);
    let mut reason = ended.unwrap_or(FinishReason::Cancelled);
    if writer.finish()? {
        reason = FinishReason::Stop;
    }
    let first = first.unwrap_or(last);
    Ok(Answer {
        text: tokenizer.map(|_| writer.text),
        token_ids: writer.token_ids,
        prompt_tokens,
        reason,
        first: first - start,
        rest: last.saturating_duration_since(first),
    })
}

/// Ids → shown text.
struct Writer<'a> {
    stream: Option<TextStream>,
    stops: StopStrings,
    stopped: bool,
    text: String,
    token_ids: Vec<u32>,
    show: &'a mut dyn FnMut(&str) -> Result,
}

impl<'a> Writer<'a> {
    fn new(tokenizer: Option<&Tokenizer>, stop: &[String], show: &'a mut dyn FnMut(&str) -> Result) -> Writer<'a> {
        let stream = tokenizer.map(|tokenizer| tokenizer.stream(true));
        let stops = StopStrings::new(stop.to_vec());
        Writer { stream, stops, stopped: false, text: String::new(), token_ids: Vec::new(), show }
    }

    /// Takes an id; whether it completed a stop string.
    fn push(&mut self, token: u32) -> Result<bool> {
        self.token_ids.push(token);
        match &mut self.stream {
            Some(stream) => {
                let piece = stream.push(token);
                self.piece(piece)
            }
            None => {
                let space = if self.token_ids.len() > 1 { " " } else { "" };
                (self.show)(&format!("{space}{token}"))?;
                Ok(false)
            }
        }
    }

    /// Shows what was held back; whether a stop string was completed by it.
    fn finish(&mut self) -> Result<bool> {
        let rest = self.stream.take().and_then(TextStream::finish);
        if !self.stopped && self.piece(rest)? {
            return Ok(true);
        }
        let held = self.stops.finish();
        self.tell(&held)?;
        Ok(false)
    }

    fn piece(&mut self, piece: Option<String>) -> Result<bool> {
        let Some(piece) = piece else { return Ok(false) };
        let watched = self.stops.push(&piece);
        self.tell(&watched.text)?;
        self.stopped = watched.stop.is_some();
        Ok(self.stopped)
    }

    fn tell(&mut self, text: &str) -> Result {
        self.text.push_str(text);
        if text.is_empty() { Ok(()) } else { (self.show)(text) }
    }
}
