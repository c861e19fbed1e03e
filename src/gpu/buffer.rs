//! Storage on the adapter.

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A storage buffer; clones share it, and the last one frees it.
#[derive(Debug, Clone)]
pub struct Buffer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    raw: wgpu::Buffer,
    id: u32,
    bytes: u64,
    graveyard: Arc<Graveyard>,
}

/// A part of a buffer, as a dispatch binds it.
#[derive(Debug, Clone, Copy)]
pub struct BufferSlice<'a> {
    pub(super) buffer: &'a Buffer,
    /// From the buffer's start.
    pub(super) offset: u64,
    /// 0 stands for all that follows `offset`.
    pub(super) bytes: u64,
}

/// The ids of freed buffers: what caches must forget, since a cached bind group would keep their memory.
#[derive(Debug, Default)]
pub(super) struct Graveyard {
    any: AtomicBool,
    ids: Mutex<Vec<u32>>,
    /// What is not freed.
    held_bytes: AtomicU64,
}

impl Graveyard {
    /// Bytes of the buffers that live.
    pub(super) fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// The ids freed since the last call.
    pub(super) fn take(&self) -> Option<Vec<u32>> {
        self.any.swap(false, Ordering::AcqRel).then(|| std::mem::take(&mut *self.ids.lock()))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.graveyard.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.graveyard.ids.lock().push(self.id);
        self.graveyard.any.store(true, Ordering::Release);
    }
}

impl Buffer {
    pub(super) fn new(raw: wgpu::Buffer, id: u32, bytes: u64, graveyard: Arc<Graveyard>) -> Self {
        graveyard.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        Buffer(Arc::new(Inner { raw, id, bytes, graveyard }))
    }

    /// The size that was asked for.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// `bytes` from `offset` on; `offset` is a multiple of the adapter's `binding_alignment_bytes`.
    ///
    /// # Panics
    /// If that is empty, not in whole words, or reaches past the end.
    pub fn slice(&self, offset: u64, bytes: u64) -> BufferSlice<'_> {
        assert!(bytes > 0 && bytes.is_multiple_of(4) && offset.is_multiple_of(4), "a slice {offset} + {bytes}");
        assert!(
            offset.checked_add(bytes).is_some_and(|end| end <= self.0.raw.size()),
            "slice {offset} + {bytes} of a buffer of {} bytes",
            self.0.bytes
        );
        BufferSlice { buffer: self, offset, bytes }
    }

    pub(super) fn raw(&self) -> &wgpu::Buffer {
        &self.0.raw
    }

    pub(super) fn id(&self) -> u32 {
        self.0.id
    }

    /// `offset` and `bytes`, checked for a copy.
    ///
    /// # Panics
    /// If they are not in whole words or reach past the end.
    pub(super) fn assert_copy(&self, offset: u64, bytes: u64) {
        assert!(offset.is_multiple_of(4) && bytes.is_multiple_of(4), "a copy of {bytes} bytes at {offset}");
        assert!(
            offset.checked_add(bytes).is_some_and(|end| end <= self.0.raw.size()),
            "a copy of {bytes} bytes at {offset} in a buffer of {}",
            self.0.bytes
        );
    }
}

impl<'a> From<&'a Buffer> for BufferSlice<'a> {
    fn from(buffer: &'a Buffer) -> Self {
        BufferSlice { buffer, offset: 0, bytes: 0 }
    }
}
