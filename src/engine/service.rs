//! The engine as others use it: a handle that any thread may hold, a thread that owns the [`Stepper`], and a stream of
//! events for each request.

mod restarts;
#[cfg(test)]
mod tests;
mod worker;

use super::{EngineOptions, Memory, Stepper};
use crate::error::Error;
use crate::gpu::Gpu;
use crate::plan::TunerStats;
use crate::request::{Event, Request, RequestId};
use parking_lot::Mutex;
use raglan_models::{Checkpoint, ModelSpec};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use worker::{Command, Submitted, Worker};

/// One model on one adapter, answering the requests of many threads at once; clones share it.
///
/// A thread of its own runs the steps; it sleeps where there is nothing to do. It ends with [`Engine::shutdown`], or when
/// the last handle and the last stream are gone.
///
/// Where the adapter is lost, or refuses work, every request that was taken ends with [`Event::Failed`], the adapter is
/// opened again and the model uploaded anew; requests that are submitted meanwhile wait for that. After three such starts
/// within a minute, requests are refused until the minute has passed.
#[derive(Clone)]
pub struct Engine(Arc<Link>);

/// What is loaded when an engine starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loading {
    /// Bytes of weights that were uploaded.
    Weights {
        /// Until now.
        done: u64,
        /// In all.
        total: u64,
    },
    /// Kernels that were compiled.
    Kernels {
        /// Until now.
        done: usize,
        /// In all.
        total: usize,
    },
}

/// What an engine has done and is doing, as of its last step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct EngineStats {
    /// Requests that have slots.
    pub running: usize,
    /// Requests that have none, yet or for a while.
    pub waiting: usize,
    /// Requests that ended with [`Event::Finished`].
    pub finished: u64,
    /// Requests that ended with [`Event::Failed`].
    pub failed: u64,
    /// Slots of the KV cache.
    pub capacity: usize,
    /// Those of them that belong to no request and to no kept prefix.
    pub free_slots: usize,
    /// Steps that were run.
    pub steps: u64,
    /// Tokens of the prompts that were begun.
    pub prompt_tokens: u64,
    /// Those of them whose keys and values were there already.
    pub cached_tokens: u64,
    /// Tokens given out.
    pub generated_tokens: u64,
    /// Requests that lost their slots for a while.
    pub preemptions: u64,
    /// Those of them whose keys and values went to the host.
    pub swaps: u64,
    /// How often the model was loaded anew after a failure.
    pub restarts: u64,
    /// How schedules are chosen, and how often that was asked.
    pub tuner: TunerStats,
}

/// What the handles, the streams and the thread share.
struct Shared {
    gpu: Mutex<Gpu>,
    /// Tokens that one sequence may have.
    longest: AtomicUsize,
    memory: Mutex<Memory>,
    stats: Mutex<EngineStats>,
    down: Mutex<Option<Down>>,
}

/// Why no request is taken, and how long; without an end for good.
#[derive(Clone)]
struct Down {
    reason: String,
    until: Option<Instant>,
}

/// The way to the thread. The last owner, a handle or a stream, ends it.
struct Link {
    commands: Sender<Command>,
    shared: Arc<Shared>,
    checkpoint: Arc<Checkpoint>,
    next_request: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Engine {
    /// Uploads a model, compiles every kernel that its steps ask for, and starts the thread. `progress` hears of both.
    ///
    /// # Errors
    /// As [`Stepper::new`] and [`Stepper::compile`]; [`Error::EngineDown`] where the system has no thread to give.
    pub fn new(
        gpu: &Gpu,
        checkpoint: Arc<Checkpoint>,
        options: &EngineOptions,
        progress: impl Fn(Loading) + Sync,
    ) -> Result<Engine, Error> {
        let stepper = load(gpu, &checkpoint, options, progress)?;
        let shared = Arc::new(Shared {
            gpu: Mutex::new(gpu.clone()),
            longest: AtomicUsize::new(stepper.longest()),
            memory: Mutex::new(stepper.memory().clone()),
            stats: Mutex::default(),
            down: Mutex::new(None),
        });
        let (commands, received) = channel();
        let mut worker = Worker::new(shared.clone(), received, checkpoint.clone(), options.clone(), stepper);
        let thread = std::thread::Builder::new().name("raglan-engine".into()).spawn(move || {
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker.run()));
            worker.close(ended.is_err());
        });
        let thread =
            thread.map_err(|error| Error::EngineDown { reason: format!("its thread cannot be started: {error}") })?;
        let (next_request, thread) = (AtomicU64::new(0), Mutex::new(Some(thread)));
        Ok(Engine(Arc::new(Link { commands, shared, checkpoint, next_request, thread })))
    }

    /// Queues a request; its events come by the stream, which holds them all until they are read: at most a token for
    /// each of `max_tokens` or of the cache's slots, whichever are fewer, and two more.
    ///
    /// # Errors
    /// [`Error::Request`] for a prompt that is empty, names no row of the vocabulary or can never fit, and for sampling
    /// parameters out of range; [`Error::EngineDown`] after a shutdown and where the engine could not be started anew.
    pub fn submit(&self, request: Request) -> Result<EventStream, Error> {
        let checked = request.validate(self.spec().vocab_size, self.longest());
        checked.map_err(|message| Error::Request { message })?;
        self.0.shared.check_up()?;
        let id = RequestId(self.0.next_request.fetch_add(1, Ordering::Relaxed));
        let (sender, events) = channel();
        let computed = Arc::new(AtomicUsize::new(0));
        let command = Command::Submit(Submitted { id, request, events: sender, computed: computed.clone() });
        if self.0.commands.send(command).is_err() {
            self.0.shared.check_up()?;
        }
        Ok(EventStream { request: id, events, link: self.0.clone(), computed, has_ended: false })
    }

    /// Ends the thread and waits for that. Requests that have not ended are cancelled, later ones refused.
    pub fn shutdown(&self) {
        self.0.stop();
    }

    /// Has the thread lose the adapter on purpose before its next step, as a test of what follows.
    #[doc(hidden)]
    pub fn lose(&self) {
        // A thread that is gone has nothing to lose.
        let _ = self.0.commands.send(Command::Lose);
    }

    /// The model.
    pub fn spec(&self) -> &ModelSpec {
        self.0.checkpoint.spec()
    }

    /// The adapter; another opening of it after a loss.
    pub fn gpu(&self) -> Gpu {
        self.0.shared.gpu.lock().clone()
    }

    /// Tokens that all sequences together may have in the cache.
    pub fn capacity(&self) -> usize {
        self.stats().capacity
    }

    /// Tokens that one sequence may have: the slots, or the model's positions where windows let it go on for ever.
    pub fn longest(&self) -> usize {
        self.0.shared.longest.load(Ordering::Relaxed)
    }

    /// What it holds on the adapter.
    pub fn memory(&self) -> Memory {
        self.0.shared.memory.lock().clone()
    }

    /// What it has done and is doing.
    pub fn stats(&self) -> EngineStats {
        *self.0.shared.stats.lock()
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({:?}, {:?})", self.gpu(), self.stats())
    }
}

/// A [`Stepper`] that is ready to answer.
fn load(
    gpu: &Gpu,
    checkpoint: &Checkpoint,
    options: &EngineOptions,
    progress: impl Fn(Loading) + Sync,
) -> Result<Stepper, Error> {
    let stepper =
        Stepper::new(gpu, checkpoint, options, &mut |done, total| progress(Loading::Weights { done, total }))?;
    stepper.compile(|done, total| progress(Loading::Kernels { done, total }))?;
    Ok(stepper)
}

impl Shared {
    fn check_up(&self) -> Result<(), Error> {
        match &*self.down.lock() {
            Some(Down { reason, until }) if until.is_none_or(|until| Instant::now() < until) => {
                Err(Error::EngineDown { reason: reason.clone() })
            }
            _ => Ok(()),
        }
    }
}

impl Link {
    fn stop(&self) {
        // Nobody hears it where the thread has ended already.
        let _ = self.commands.send(Command::Shutdown);
        let mut thread = self.thread.lock();
        if let Some(thread) = thread.take() {
            // A panic was told by the thread itself, and its streams tell it again.
            let _ = thread.join();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The events of one request as they come; it ends after [`Event::Finished`] or [`Event::Failed`]. Dropping it before that
/// cancels the request.
pub struct EventStream {
    request: RequestId,
    events: Receiver<Event>,
    link: Arc<Link>,
    computed: Arc<AtomicUsize>,
    has_ended: bool,
}

impl EventStream {
    /// Names the request in its events.
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// Asks for the request's end; [`Event::Finished`] comes as for any, after tokens that were on their way.
    pub fn cancel(&self) {
        // A thread that is gone has ended the request.
        let _ = self.link.commands.send(Command::Cancel(self.request));
    }

    /// Tokens of the prompt that have keys and values as of the last step: how far a long one is.
    pub fn computed(&self) -> usize {
        self.computed.load(Ordering::Relaxed)
    }

    /// Whether the last event was given out.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// The next event, if one is there.
    pub fn try_next(&mut self) -> Option<Event> {
        if self.has_ended {
            return None;
        }
        match self.events.try_recv() {
            Ok(event) => Some(self.take(event)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(self.closed()),
        }
    }

    /// The next event, if it comes in time; [`EventStream::has_ended`] tells an end from a lapse.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Event> {
        if self.has_ended {
            return None;
        }
        match self.events.recv_timeout(timeout) {
            Ok(event) => Some(self.take(event)),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(self.closed()),
        }
    }

    fn take(&mut self, event: Event) -> Event {
        self.has_ended = event.is_last();
        event
    }

    /// The end of a request that the thread left without one.
    fn closed(&mut self) -> Event {
        self.has_ended = true;
        let down = self.link.shared.down.lock();
        let reason = down.as_ref().map_or("its thread is gone", |down| &down.reason);
        let message = Error::EngineDown { reason: reason.to_owned() }.to_string();
        Event::Failed { request: self.request, message }
    }
}

impl Iterator for EventStream {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        if self.has_ended {
            return None;
        }
        Some(match self.events.recv() {
            Ok(event) => self.take(event),
            Err(_) => self.closed(),
        })
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        if !self.has_ended {
            self.cancel();
        }
    }
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EventStream({:?})", self.request)
    }
}
