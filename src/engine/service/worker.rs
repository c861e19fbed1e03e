//! The thread of an engine: commands in, steps, events out, and what follows a failure.

use super::restarts::Restarts;
use super::{Down, EngineStats, Shared, load};
use crate::engine::{EngineOptions, Stepper};
use crate::error::Error;
use crate::request::{Event, FinishReason, Request, RequestId};
use raglan_models::Checkpoint;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// Commands that are taken between two steps at most, so that clients in a hurry stop no answer.
const MOST_COMMANDS: usize = 4096;

/// How long a refusal of work may turn out to be the loss of the adapter.
const LOSS_PATIENCE: Duration = Duration::from_millis(500);

/// What handles and streams ask for.
pub(super) enum Command {
    Submit(Submitted),
    Cancel(RequestId),
    Shutdown,
    Lose,
    #[cfg(test)]
    Panic,
}

/// A request and where its events go.
pub(super) struct Submitted {
    pub(super) id: RequestId,
    pub(super) request: Request,
    pub(super) events: Sender<Event>,
    /// Tokens of the prompt that are computed, for who waits.
    pub(super) computed: Arc<AtomicUsize>,
}

/// A request that the stepper has.
struct Live {
    id: RequestId,
    events: Sender<Event>,
    prompt_tokens: usize,
    computed: Arc<AtomicUsize>,
    has_begun: bool,
    /// Whether the prompt is still being read.
    is_reading: bool,
}

/// What becomes of requests now.
enum State {
    /// They are answered.
    Ready(Box<Stepper>),
    /// They wait for a start of the engine.
    Broken { reopen: bool, at: Instant },
    /// They are refused.
    Down { reopen: bool, reason: String, until: Instant },
}

/// All that the thread owns.
pub(super) struct Worker {
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    checkpoint: Arc<Checkpoint>,
    options: EngineOptions,
    state: State,
    /// By the stepper's names, which begin anew with every stepper.
    live: FxHashMap<RequestId, Live>,
    /// A client's name → the stepper's.
    names: FxHashMap<RequestId, RequestId>,
    /// Those that came while there was no stepper.
    pending: Vec<Submitted>,
    restarts: Restarts,
    stats: EngineStats,
    /// Preemptions and swaps of the steppers before this one.
    past: (u64, u64),
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        commands: Receiver<Command>,
        checkpoint: Arc<Checkpoint>,
        options: EngineOptions,
        stepper: Stepper,
    ) -> Worker {
        let mut worker = Worker {
            shared,
            commands,
            checkpoint,
            options,
            state: State::Ready(Box::new(stepper)),
            live: FxHashMap::default(),
            names: FxHashMap::default(),
            pending: Vec::new(),
            restarts: Restarts::default(),
            stats: EngineStats::default(),
            past: (0, 0),
        };
        worker.publish();
        worker
    }

    /// Works until it is told to end.
    pub(super) fn run(&mut self) {
        while self.take_commands() {
            match &mut self.state {
                State::Ready(stepper) if stepper.is_idle() => {}
                State::Ready(stepper) => match stepper.step() {
                    Ok(events) => self.give(events),
                    Err(error @ Error::Rejected { .. }) => {
                        let lost = stepper.gpu().loss(LOSS_PATIENCE);
                        self.fail(&lost.unwrap_or(error));
                    }
                    Err(error) => self.fail(&error),
                },
                State::Broken { .. } => self.restart(),
                State::Down { .. } => {}
            }
        }
    }

    /// Ends what is left, and tells why no more is taken: what was shut down is cancelled, what was left by a panic fails.
    pub(super) fn close(mut self, has_panicked: bool) {
        let reason = if has_panicked { "a bug made its thread panic" } else { "it was shut down" }.to_owned();
        let failure = Error::EngineDown { reason: reason.clone() }.to_string();
        *self.shared.down.lock() = Some(Down { reason, until: None });
        for command in self.commands.try_iter() {
            if let Command::Submit(submitted) = command {
                self.pending.push(submitted);
            }
        }
        let live: Vec<_> = self.live.drain().map(|(_, live)| (live.id, live.events)).collect();
        let waiting = self.pending.drain(..).map(|waiting| (waiting.id, waiting.events));
        let ended: Vec<_> = live.into_iter().chain(waiting).collect();
        let count = if has_panicked { &mut self.stats.failed } else { &mut self.stats.finished };
        *count += ended.len() as u64;
        (self.stats.running, self.stats.waiting) = (0, 0);
        *self.shared.stats.lock() = self.stats;
        for (request, events) in ended {
            let _ = events.send(match has_panicked {
                true => Event::Failed { request, message: failure.clone() },
                false => Event::Finished { request, reason: FinishReason::Cancelled },
            });
        }
    }

    /// Takes the commands that are there; waits for one where there is nothing else to do. Whether to go on.
    fn take_commands(&mut self) -> bool {
        for _ in 0..MOST_COMMANDS {
            let command = match self.patience() {
                Some(until) => self.commands.recv_timeout(until.saturating_duration_since(Instant::now())),
                None => self.commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match command {
                Ok(Command::Submit(submitted)) => self.submit(submitted),
                Ok(Command::Cancel(request)) => self.cancel(request),
                Ok(Command::Shutdown) | Err(RecvTimeoutError::Disconnected) => return false,
                Ok(Command::Lose) => self.shared.gpu.lock().lose(),
                #[cfg(test)]
                Ok(Command::Panic) => panic!("a test asked for it"),
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        true
    }

    /// Until when a command is waited for; without an end where only a command gives something to do.
    fn patience(&self) -> Option<Instant> {
        match &self.state {
            State::Ready(stepper) if stepper.is_idle() => None,
            State::Ready(_) => Some(Instant::now()),
            State::Broken { at, .. } => Some(*at),
            State::Down { .. } => None,
        }
    }

    fn submit(&mut self, submitted: Submitted) {
        let now = Instant::now();
        match &mut self.state {
            State::Ready(stepper) => {
                let Submitted { id, request, events, computed } = submitted;
                let prompt_tokens = request.prompt.len();
                match stepper.submit(request) {
                    Ok(name) => {
                        let live = Live { id, events, prompt_tokens, computed, has_begun: false, is_reading: true };
                        self.live.insert(name, live);
                        self.names.insert(id, name);
                    }
                    Err(error) => self.refuse(id, &events, error.to_string()),
                }
                self.publish();
            }
            State::Broken { .. } => self.pending.push(submitted),
            State::Down { reason, until, .. } if now < *until => {
                let message = Error::EngineDown { reason: reason.clone() }.to_string();
                self.refuse(submitted.id, &submitted.events, message);
            }
            State::Down { reopen, reason, .. } => {
                let (reopen, reason) = (*reopen, reason.clone());
                self.pending.push(submitted);
                self.plan_restart(reopen, reason);
            }
        }
    }

    fn refuse(&mut self, request: RequestId, events: &Sender<Event>, message: String) {
        self.stats.failed += 1;
        self.publish();
        // A client that has gone needs no word.
        let _ = events.send(Event::Failed { request, message });
    }

    fn cancel(&mut self, request: RequestId) {
        if let (State::Ready(stepper), Some(&name)) = (&mut self.state, self.names.get(&request)) {
            stepper.cancel(name);
        }
        for waiting in self.pending.extract_if(.., |waiting| waiting.id == request) {
            let _ = waiting.events.send(Event::Finished { request, reason: FinishReason::Cancelled });
        }
    }

    /// Gives events out under their clients' names.
    fn give(&mut self, events: Vec<Event>) {
        self.stats.steps += 1;
        if let State::Ready(stepper) = &self.state {
            for (name, live) in self.live.iter().filter(|(_, live)| live.is_reading) {
                // What has ended keeps its last word.
                if let Some(computed) = stepper.computed(*name) {
                    live.computed.store(computed.min(live.prompt_tokens), Ordering::Relaxed);
                }
            }
        }
        let mut given = Vec::with_capacity(events.len());
        for mut event in events {
            let name = event.request();
            let Some(live) = self.live.get_mut(&name) else { continue };
            if !std::mem::replace(&mut live.has_begun, true) {
                self.stats.prompt_tokens += live.prompt_tokens as u64;
            }
            let id = live.id;
            match &mut event {
                Event::Started { request, cached_tokens } => {
                    self.stats.cached_tokens += *cached_tokens as u64;
                    *request = id;
                }
                Event::Token { request, .. } => {
                    live.is_reading = false;
                    self.stats.generated_tokens += 1;
                    *request = id;
                }
                Event::Finished { request, .. } => {
                    self.stats.finished += 1;
                    *request = id;
                }
                Event::Failed { request, .. } => {
                    self.stats.failed += 1;
                    *request = id;
                }
            }
            given.push((live.events.clone(), event));
            if given.last().is_some_and(|(_, event)| event.is_last()) {
                self.live.remove(&name);
                self.names.remove(&id);
            }
        }
        // Before the events, so that a client that has an event finds it counted.
        self.publish();
        for (events, event) in given {
            let _ = events.send(event);
        }
    }

    /// Ends every request that the stepper has, and the stepper.
    fn fail(&mut self, error: &Error) {
        let reason = error.to_string();
        log::error!("{reason}; {} requests end by it", self.live.len());
        let live = std::mem::take(&mut self.live);
        self.names.clear();
        self.past = (self.stats.preemptions, self.stats.swaps);
        self.stats.failed += live.len() as u64;
        // The stepper goes first: what it holds is wanted by the next.
        self.plan_restart(matches!(error, Error::DeviceLost { .. }), reason.clone());
        self.publish();
        for live in live.into_values() {
            let _ = live.events.send(Event::Failed { request: live.id, message: reason.clone() });
        }
    }

    /// Says when the engine starts anew; where it has done so too often, ends what waits for it.
    fn plan_restart(&mut self, reopen: bool, reason: String) {
        match self.restarts.next(Instant::now()) {
            Ok(at) => {
                self.state = State::Broken { reopen, at };
                *self.shared.down.lock() = None;
            }
            Err(until) => {
                log::error!("the engine is not started anew for a while: {reason}");
                *self.shared.down.lock() = Some(Down { reason: reason.clone(), until: Some(until) });
                let message = Error::EngineDown { reason: reason.clone() }.to_string();
                self.state = State::Down { reopen, reason, until };
                for waiting in std::mem::take(&mut self.pending) {
                    self.refuse(waiting.id, &waiting.events, message.clone());
                }
            }
        }
    }

    /// Opens the adapter again where it was lost, loads the model, and submits what has waited.
    fn restart(&mut self) {
        let State::Broken { reopen, .. } = self.state else { return };
        let loaded = self.reload(reopen);
        match loaded {
            Ok(stepper) => {
                log::info!("the engine has started anew");
                self.shared.longest.store(stepper.longest(), Ordering::Relaxed);
                *self.shared.memory.lock() = stepper.memory().clone();
                self.state = State::Ready(Box::new(stepper));
                self.stats.restarts += 1;
                self.publish();
                for waiting in std::mem::take(&mut self.pending) {
                    self.submit(waiting);
                }
            }
            Err(error) => {
                log::error!("the engine cannot start anew: {error}");
                self.plan_restart(reopen || matches!(error, Error::DeviceLost { .. }), error.to_string());
            }
        }
    }

    fn reload(&self, reopen: bool) -> Result<Stepper, Error> {
        let mut gpu = self.shared.gpu.lock().clone();
        if reopen {
            gpu = gpu.reopen()?;
            *self.shared.gpu.lock() = gpu.clone();
        }
        load(&gpu, &self.checkpoint, &self.options, |_| ())
    }

    fn publish(&mut self) {
        let stats = &mut self.stats;
        (stats.running, stats.waiting) = (0, self.pending.len());
        if let State::Ready(stepper) = &self.state {
            let scheduler = stepper.stats();
            (stats.running, stats.waiting) = (scheduler.running, scheduler.waiting + self.pending.len());
            (stats.capacity, stats.free_slots) = (stepper.capacity(), stepper.free_slots());
            stats.preemptions = self.past.0 + scheduler.preemptions;
            stats.swaps = self.past.1 + scheduler.swaps;
            stats.tuner = stepper.tuner_stats();
        }
        *self.shared.stats.lock() = *stats;
    }
}
