//! Reading a buffer back outside of steps: tests, and the rare row that the host must see.

use super::step_ring::MapState;
use super::{Buffer, Gpu};
use crate::error::Error;
use parking_lot::Mutex;

/// The most that one piece brings back, and mapped memory that stays after the first.
pub const READ_BYTES: u64 = 4 << 20;

/// The buffer through which everything is read, made at the first read.
#[derive(Default)]
pub(super) struct Readback(Mutex<Option<wgpu::Buffer>>);

impl Gpu {
    /// `bytes` of `buffer` from `offset` on, after all that was submitted before; blocks.
    ///
    /// # Errors
    /// If the adapter is lost, has no room for the buffer between, or refused earlier work.
    ///
    /// # Panics
    /// If the range is not in whole words or reaches past the end.
    pub fn read(&self, buffer: &Buffer, offset: u64, bytes: u64) -> Result<Vec<u8>, Error> {
        self.read_parts(&[(buffer, offset, bytes)])
    }

    /// As [`Gpu::read`] of several (buffer, offset, bytes), one after another, in as few round trips as their bytes need.
    ///
    /// # Errors
    /// As [`Gpu::read`].
    ///
    /// # Panics
    /// As [`Gpu::read`].
    pub fn read_parts(&self, parts: &[(&Buffer, u64, u64)]) -> Result<Vec<u8>, Error> {
        parts.iter().for_each(|(buffer, offset, bytes)| buffer.assert_copy(*offset, *bytes));
        let mut between = self.0.readback.0.lock();
        let between = match &mut *between {
            Some(between) => between,
            empty => {
                let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
                empty.insert(self.raw_buffer("readback", READ_BYTES, usage, false)?)
            }
        };
        let mut all = Vec::with_capacity(parts.iter().map(|(.., bytes)| *bytes as usize).sum());
        let mut parts = parts.iter().copied().filter(|(.., bytes)| *bytes > 0).peekable();
        let mut done = 0;
        while parts.peek().is_some() {
            let mut encoder = self.0.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut filled = 0;
            while let Some(&(buffer, offset, bytes)) = parts.peek().filter(|_| filled < READ_BYTES) {
                let piece_bytes = (READ_BYTES - filled).min(bytes - done);
                encoder.copy_buffer_to_buffer(buffer.raw(), offset + done, between, filled, piece_bytes);
                filled += piece_bytes;
                done += piece_bytes;
                if done == bytes {
                    parts.next();
                    done = 0;
                }
            }
            let submission = self.0.queue.submit([encoder.finish()]);
            self.0.faults.check()?;
            let mapped = MapState::default();
            between.map_async(wgpu::MapMode::Read, ..filled, mapped.callback());
            self.wait(&submission)?;
            let view = mapped.range(self, || between.get_mapped_range(..filled))?;
            all.extend_from_slice(&view);
            drop(view);
            between.unmap();
        }
        Ok(all)
    }
}
