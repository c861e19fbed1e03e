//! One request from its prompt to its end: tokens, text as it comes, and how long it took.

use super::Result;
use super::output::number;
use super::progress::ReadingBar;
use raglan::models::{StopStrings, TextStream, Tokenizer};
use raglan::{Engine, Error, Event, EventStream, FinishReason, Request, SamplingParams};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often it is seen whether an answer was interrupted.
const PATIENCE: Duration = Duration::from_millis(20);

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
    /// Whether not to show how far a long prompt is read.
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
    /// Those of them that have keys and values now; all, unless it was ended before.
    pub(super) computed_tokens: usize,
    /// Those of them whose keys and values were there already.
    pub(super) cached_tokens: usize,
    /// Why it ended.
    pub(super) reason: FinishReason,
    /// From the question to the first choice of a token.
    pub(super) first: Duration,
    /// From there to the last.
    pub(super) rest: Duration,
}

impl Answer {
    /// `stopped after 12,288 of the prompt's 280,000 tokens`; `None` where all of it was read.
    pub(super) fn stopped_reading(&self) -> Option<String> {
        let (computed, all) = (self.computed_tokens, self.prompt_tokens);
        let cut = self.reason == FinishReason::Cancelled && self.token_ids.is_empty();
        cut.then(|| format!("stopped after {} of the prompt's {} tokens", number(computed), number(all)))
    }

    /// Tokens of the prompt by the time to the first choice, which is part of that time.
    pub(super) fn prefill_tokens_per_s(&self) -> f64 {
        self.prompt_tokens as f64 / self.first.as_secs_f64()
    }

    /// Its text, or its ids in words where there is no tokenizer.
    pub(super) fn shown(&self) -> String {
        let ids = || self.token_ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        self.text.clone().unwrap_or_else(ids)
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
    engine: &Engine,
    tokenizer: Option<&Tokenizer>,
    question: Question<'_>,
    show: &mut dyn FnMut(&str) -> Result,
) -> Result<Answer> {
    let prompt_tokens = question.prompt.len();
    let request = Request::new(question.prompt, question.sampling);
    let mut answering = Answering::begin(engine, tokenizer, request, question.stop)?;
    let mut bar = Some(ReadingBar::new(prompt_tokens, question.quiet));
    loop {
        if question.interrupted.load(Ordering::Relaxed) {
            drop(bar);
            return answering.cancel(show);
        }
        let event = answering.stream.next_timeout(PATIENCE);
        if let Some(bar) = &mut bar {
            bar.set(answering.stream.computed().min(prompt_tokens));
        }
        let Some(event) = event else { continue };
        if !matches!(event, Event::Started { .. }) {
            bar = None;
        }
        if let Some(reason) = answering.take(event, show)? {
            drop(bar);
            return answering.end(reason, show);
        }
    }
}

/// An answer that is being written.
pub(super) struct Answering {
    stream: EventStream,
    writer: Writer,
    has_tokenizer: bool,
    prompt_tokens: usize,
    cached_tokens: usize,
    start: Instant,
    first: Option<Instant>,
    last: Instant,
}

impl Answering {
    /// Submits a request whose answer ends at any of `stop` too.
    ///
    /// # Errors
    /// If the engine refuses it.
    pub(super) fn begin(
        engine: &Engine,
        tokenizer: Option<&Tokenizer>,
        request: Request,
        stop: &[String],
    ) -> Result<Answering> {
        let (prompt_tokens, start) = (request.prompt.len(), Instant::now());
        let stream = engine.submit(request)?;
        let writer = Writer::new(tokenizer, stop);
        let has_tokenizer = tokenizer.is_some();
        let (cached_tokens, first, last) = (0, None, start);
        Ok(Answering { stream, writer, has_tokenizer, prompt_tokens, cached_tokens, start, first, last })
    }

    /// Takes the events that are there, waiting up to `patience` for the first; why the answer has ended, once it has.
    ///
    /// # Errors
    /// [`Error::Failed`] where the engine could not go on with it.
    pub(super) fn poll(&mut self, patience: Duration) -> Result<Option<FinishReason>> {
        let mut next = self.stream.next_timeout(patience);
        while let Some(event) = next {
            if let Some(reason) = self.take(event, &mut |_| Ok(()))? {
                return Ok(Some(reason));
            }
            next = self.stream.try_next();
        }
        Ok(None)
    }

    /// Tokens until now.
    pub(super) fn tokens(&self) -> usize {
        self.writer.token_ids.len()
    }

    fn take(&mut self, event: Event, show: &mut dyn FnMut(&str) -> Result) -> Result<Option<FinishReason>> {
        match event {
            Event::Started { cached_tokens, .. } => {
                self.cached_tokens = cached_tokens;
                Ok(None)
            }
            Event::Token { token, .. } => {
                self.last = Instant::now();
                self.first.get_or_insert(self.last);
                Ok(self.writer.push(token, show)?.then_some(FinishReason::Stop))
            }
            Event::Finished { reason, .. } => {
                self.first.get_or_insert_with(Instant::now);
                Ok(Some(reason))
            }
            Event::Failed { message, .. } => Err(Error::Failed { message }),
        }
    }

    /// Ends it, and waits for the word that it has, for as long as the steps in flight take: until then what is computed may be
    /// more. Ctrl-C again ends the program meanwhile.
    ///
    /// # Errors
    /// If `show` fails.
    fn cancel(mut self, show: &mut dyn FnMut(&str) -> Result) -> Result<Answer> {
        self.stream.cancel();
        // What was on its way belongs to no answer any more.
        self.stream.by_ref().for_each(drop);
        self.end(FinishReason::Cancelled, show)
    }

    /// What came, once it is known why it ended; what still runs is cancelled.
    ///
    /// # Errors
    /// If `show` fails.
    pub(super) fn end(mut self, reason: FinishReason, show: &mut dyn FnMut(&str) -> Result) -> Result<Answer> {
        let stopped = self.writer.finish(show)?;
        let first = self.first.unwrap_or(self.last);
        let is_read = !self.writer.token_ids.is_empty();
        let computed = if is_read { self.prompt_tokens } else { self.stream.computed().min(self.prompt_tokens) };
        Ok(Answer {
            text: self.has_tokenizer.then_some(self.writer.text),
            token_ids: self.writer.token_ids,
            prompt_tokens: self.prompt_tokens,
            computed_tokens: computed,
            cached_tokens: self.cached_tokens,
            reason: if stopped { FinishReason::Stop } else { reason },
            first: first - self.start,
            rest: self.last.saturating_duration_since(first),
        })
    }
}

/// Ids → shown text.
struct Writer {
    stream: Option<TextStream>,
    stops: StopStrings,
    stopped: bool,
    text: String,
    token_ids: Vec<u32>,
}

impl Writer {
    fn new(tokenizer: Option<&Tokenizer>, stop: &[String]) -> Writer {
        let stream = tokenizer.map(|tokenizer| tokenizer.stream(true));
        let stops = StopStrings::new(stop.to_vec());
        Writer { stream, stops, stopped: false, text: String::new(), token_ids: Vec::new() }
    }

    /// Takes an id; whether it completed a stop string.
    fn push(&mut self, token: u32, show: &mut dyn FnMut(&str) -> Result) -> Result<bool> {
        self.token_ids.push(token);
        match &mut self.stream {
            Some(stream) => {
                let piece = stream.push(token);
                self.piece(piece, show)
            }
            None => {
                let space = if self.token_ids.len() > 1 { " " } else { "" };
                show(&format!("{space}{token}"))?;
                Ok(false)
            }
        }
    }

    /// Shows what was held back; whether a stop string was completed by it.
    fn finish(&mut self, show: &mut dyn FnMut(&str) -> Result) -> Result<bool> {
        let rest = self.stream.take().and_then(TextStream::finish);
        if !self.stopped && self.piece(rest, show)? {
            return Ok(true);
        }
        let held = self.stops.finish();
        self.tell(&held, show)?;
        Ok(false)
    }

    fn piece(&mut self, piece: Option<String>, show: &mut dyn FnMut(&str) -> Result) -> Result<bool> {
        let Some(piece) = piece else { return Ok(false) };
        let watched = self.stops.push(&piece);
        self.tell(&watched.text, show)?;
        self.stopped = watched.stop.is_some();
        Ok(self.stopped)
    }

    fn tell(&mut self, text: &str, show: &mut dyn FnMut(&str) -> Result) -> Result {
        self.text.push_str(text);
        if text.is_empty() { Ok(()) } else { show(text) }
    }
}
