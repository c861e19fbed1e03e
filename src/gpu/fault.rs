//! Errors that wgpu reports aside, kept until a call that can return them.

use crate::error::Error;
use parking_lot::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The first error since the last look, and whether the device is gone.
#[derive(Debug)]
pub(super) struct Faults {
    adapter: String,
    lost: OnceLock<String>,
    first: Mutex<Option<Error>>,
    any: AtomicBool,
}

impl Faults {
    pub(super) fn new(adapter: &str) -> Self {
        Faults {
            adapter: adapter.to_owned(),
            lost: OnceLock::new(),
            first: Mutex::new(None),
            any: AtomicBool::new(false),
        }
    }

    /// Keeps `error` unless one is kept already: the later ones follow from it.
    pub(super) fn record(&self, error: Error) {
        log::debug!("{error}");
        self.first.lock().get_or_insert(error);
        self.any.store(true, Ordering::Release);
    }

    /// Keeps an error that no scope caught.
    pub(super) fn record_wgpu(&self, error: &wgpu::Error) {
        self.record(self.rejected(error));
    }

    /// The device is gone, for good.
    pub(super) fn lose(&self, reason: impl Into<String>) {
        self.lost.get_or_init(|| reason.into());
        self.any.store(true, Ordering::Release);
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.get().is_some()
    }

    /// The loss of the device, if it is gone.
    pub(super) fn check_lost(&self) -> Result<(), Error> {
        self.lost
            .get()
            .map_or(Ok(()), |reason| Err(Error::DeviceLost { adapter: self.adapter.clone(), reason: reason.clone() }))
    }

    /// The kept error, once; the loss of the device, always.
    pub(super) fn check(&self) -> Result<(), Error> {
        if !self.any.load(Ordering::Acquire) {
            return Ok(());
        }
        self.check_lost()?;
        self.any.store(false, Ordering::Release);
        self.first.lock().take().map_or(Ok(()), Err)
    }

    /// An error for what wgpu refused.
    pub(super) fn rejected(&self, message: impl std::fmt::Display) -> Error {
        Error::Rejected { adapter: self.adapter.clone(), message: message.to_string() }
    }
}

/// Runs `create` and returns what wgpu reported of it on this thread, besides its value.
pub(super) fn scoped<T>(device: &wgpu::Device, create: impl FnOnce() -> T) -> (T, Option<wgpu::Error>) {
    let scopes = [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation]
        .map(|filter| device.push_error_scope(filter));
    let value = create();
    let [memory, internal, validation] = scopes;
    let validation = pollster::block_on(validation.pop());
    let internal = pollster::block_on(internal.pop());
    let memory = pollster::block_on(memory.pop());
    (value, memory.or(internal).or(validation))
}
