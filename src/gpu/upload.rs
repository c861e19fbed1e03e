//! Weights into buffers, through a few mapped buffers of bounded size.

use super::step_ring::MapState;
use super::{Buffer, Gpu};
use crate::error::Error;

const STAGING_BUFFERS: usize = 4;
const STAGING_BYTES: u64 = 8 << 20;

/// Mapped memory of an uploader.
pub const UPLOAD_BYTES: u64 = STAGING_BUFFERS as u64 * STAGING_BYTES;

/// Uploads through a ring of mapped memory: while one part is filled, the adapter copies the others. What is uploaded is
/// there for all that is submitted after [`finish`](Uploader::finish).
#[must_use = "what is left in the ring is sent by `finish`"]
pub struct Uploader {
    gpu: Gpu,
    ring: Vec<Staging>,
    current: usize,
    encoder: Option<wgpu::CommandEncoder>,
}

struct Staging {
    raw: wgpu::Buffer,
    view: Option<wgpu::BufferViewMut>,
    used_bytes: u64,
    mapped: MapState,
    submission: Option<wgpu::SubmissionIndex>,
}

impl Gpu {
    /// A ring to upload through, of 32 MiB.
    ///
    /// # Errors
    /// If there is no room or the adapter is lost.
    pub fn uploader(&self) -> Result<Uploader, Error> {
        let ring = (0..STAGING_BUFFERS).map(|_| {
            let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
            let raw = self.raw_buffer("staging", STAGING_BYTES, usage, true)?;
            let view = raw.get_mapped_range_mut(..).map_err(|error| self.0.faults.rejected(error))?;
            Ok(Staging { raw, view: Some(view), used_bytes: 0, mapped: MapState::default(), submission: None })
        });
        Ok(Uploader { gpu: self.clone(), ring: ring.collect::<Result<_, Error>>()?, current: 0, encoder: None })
    }

    /// One upload and its end: for tests and small things; weights share an [`Uploader`].
    ///
    /// # Errors
    /// As [`Uploader::upload`].
    ///
    /// # Panics
    /// As [`Uploader::upload`].
    pub fn upload(&self, buffer: &Buffer, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let mut uploader = self.uploader()?;
        let fill = |start: u64, part: &mut [u8]| part.copy_from_slice(&bytes[start as usize..][..part.len()]);
        uploader.upload(buffer, offset, bytes.len() as u64, 4, fill)?;
        uploader.finish()
    }
}

impl Uploader {
    /// Fills `bytes` of `buffer` from `offset` on by calls `fill(start, part)`: `part` is the memory for what lies
    /// `start` bytes into the upload. Every part but the last is of whole rows of `row_bytes`. `part` holds what an
    /// earlier upload left there, and may be slow to read.
    ///
    /// # Errors
    /// If the adapter is lost or refused earlier work.
    ///
    /// # Panics
    /// If the range is not in whole words or reaches past the end, or four rows pass the ring's part of 8 MiB.
    pub fn upload(
        &mut self,
        buffer: &Buffer,
        offset: u64,
        bytes: u64,
        row_bytes: u64,
        mut fill: impl FnMut(u64, &mut [u8]),
    ) -> Result<(), Error> {
        buffer.assert_copy(offset, bytes);
        // Copies are in whole words, so some rows go in pairs or fours.
        let unit = [1, 2, 4].map(|rows| rows * row_bytes).into_iter().find(|unit| unit.is_multiple_of(4));
        let unit = unit.expect("four rows are in whole words");
        assert!(unit > 0 && unit <= STAGING_BYTES, "rows of {row_bytes} bytes");
        let mut start = 0;
        while start < bytes {
            let room = STAGING_BYTES - self.ring[self.current].used_bytes;
            let left = bytes - start;
            let part_bytes = if left <= room { left } else { room / unit * unit };
            if part_bytes == 0 {
                self.flush()?;
                continue;
            }
            self.fill_part(part_bytes, |part| fill(start, part))?;
            let staging = &self.ring[self.current];
            let encoder = self.encoder.get_or_insert_with(|| {
                self.gpu.0.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
            });
            let from = staging.used_bytes - part_bytes;
            encoder.copy_buffer_to_buffer(&staging.raw, from, buffer.raw(), offset + start, part_bytes);
            start += part_bytes;
        }
        Ok(())
    }

    /// Hands what was uploaded until now to the adapter, before all that is submitted later.
    ///
    /// # Errors
    /// If the adapter is lost or refused something.
    pub fn send(&mut self) -> Result<(), Error> {
        self.flush()
    }

    /// Sends what is left and waits until the adapter has all.
    ///
    /// # Errors
    /// If the adapter is lost or refused something.
    pub fn finish(mut self) -> Result<(), Error> {
        self.flush()?;
        let submissions: Vec<_> = self.ring.iter().filter_map(|staging| staging.submission.clone()).collect();
        submissions.iter().try_for_each(|submission| self.gpu.wait(submission))
    }

    fn fill_part(&mut self, bytes: u64, fill: impl FnOnce(&mut [u8])) -> Result<(), Error> {
        self.gpu.0.faults.check_lost()?;
        let staging = &mut self.ring[self.current];
        let unmapped = || self.gpu.0.faults.rejected("an upload went on after an error");
        let view = staging.view.as_mut().ok_or_else(unmapped)?;
        let mut part = view.slice(staging.used_bytes as usize..(staging.used_bytes + bytes) as usize);
        // SAFETY: `part` borrows the view alone for as long as the slice lives, and points to as many bytes of mapped
        // memory, which wgpu zeroed when it first mapped them. It stays mapped: only this struct unmaps it, and a lost
        // device gives up its memory only when polled, which `Gpu::poll` never does after a loss.
        fill(unsafe { part.as_raw_ptr().as_mut() });
        staging.used_bytes += bytes;
        Ok(())
    }

    /// Submits the current part of the ring and makes the next one ready.
    fn flush(&mut self) -> Result<(), Error> {
        let Some(encoder) = self.encoder.take() else { return Ok(()) };
        let staging = &mut self.ring[self.current];
        staging.view = None;
        staging.raw.unmap();
        staging.submission = Some(self.gpu.0.queue.submit([encoder.finish()]));
        staging.raw.map_async(wgpu::MapMode::Write, .., staging.mapped.callback());
        self.gpu.0.faults.check()?;

        self.current = (self.current + 1) % self.ring.len();
        let staging = &mut self.ring[self.current];
        if let Some(submission) = staging.submission.take() {
            self.gpu.wait(&submission)?;
            staging.view = Some(staging.mapped.range(&self.gpu, || staging.raw.get_mapped_range_mut(..))?);
        }
        staging.used_bytes = 0;
        Ok(())
    }
}
