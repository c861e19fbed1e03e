//! Reading a buffer back outside of steps: tests, and the rare row that the host must see.

use super::step_ring::MapState;
use super::{Buffer, Gpu};
use crate::error::Error;
use parking_lot::Mutex;

/// The most that one piece brings back.
const PIECE_BYTES: u64 = 4 << 20;

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
        buffer.assert_copy(offset, bytes);
        let mut between = self.0.readback.0.lock();
        let between = match &mut *between {
            Some(between) => between,
            empty => {
                let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
                empty.insert(self.raw_buffer("readback", PIECE_BYTES, usage, false)?)
            }
        };
        let mut all = Vec::with_capacity(bytes as usize);
        for start in (0..bytes).step_by(PIECE_BYTES as usize) {
            let piece_bytes = PIECE_BYTES.min(bytes - start);
            let mut encoder = self.0.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.copy_buffer_to_buffer(buffer.raw(), offset + start, between, 0, piece_bytes);
            let submission = self.0.queue.submit([encoder.finish()]);
            self.0.faults.check()?;
            let mapped = MapState::default();
            between.map_async(wgpu::MapMode::Read, ..piece_bytes, mapped.callback());
            self.wait(&submission)?;
            let view = mapped.range(self, || between.get_mapped_range(..piece_bytes))?;
            all.extend_from_slice(&view);
            drop(view);
            between.unmap();
        }
        Ok(all)
    }
}
