//! The memory through which a step's inputs go to the adapter and its outputs come back, made once.

use super::timer::Recording;
use super::{Gpu, fault::Faults};
use crate::error::Error;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// As many slots as steps may be recorded or in flight at once; clones share them.
#[derive(Debug, Clone)]
pub struct StepRing(Arc<Mutex<Vec<Slot>>>);

/// One step's mapped memory.
#[derive(Debug)]
pub(super) struct Slot {
    input: wgpu::Buffer,
    output: wgpu::Buffer,
    /// The mapped input; `None` from submission until the step has run, and after an error.
    view: Option<wgpu::BufferViewMut>,
    used_bytes: u64,
    output_bytes: u64,
    input_mapped: MapState,
    output_mapped: MapState,
}

/// What became of a `map_async`.
#[derive(Debug, Clone, Default)]
pub(super) struct MapState(Arc<AtomicU8>);

const PENDING: u8 = 0;
const MAPPED: u8 = 1;

impl MapState {
    pub(super) fn callback(&self) -> impl FnOnce(Result<(), wgpu::BufferAsyncError>) + Send + 'static {
        self.0.store(PENDING, Ordering::Release);
        let state = self.0.clone();
        move |result| state.store(if result.is_ok() { MAPPED } else { PENDING }, Ordering::Release)
    }

    /// `range()`, if the buffer was mapped.
    pub(super) fn range<T>(
        &self,
        gpu: &Gpu,
        range: impl FnOnce() -> Result<T, wgpu::MapRangeError>,
    ) -> Result<T, Error> {
        gpu.0.faults.check_lost()?;
        if self.0.load(Ordering::Acquire) != MAPPED {
            return Err(gpu.0.faults.rejected("a buffer could not be mapped"));
        }
        range().map_err(|error| gpu.0.faults.rejected(error))
    }
}

impl Gpu {
    /// A ring of `slots` (steps in flight, and one to record), each for `input_bytes` written and `output_bytes` read.
    ///
    /// # Errors
    /// If the adapter has no room or is lost.
    pub fn step_ring(&self, slots: usize, input_bytes: u64, output_bytes: u64) -> Result<StepRing, Error> {
        use wgpu::BufferUsages as Usage;
        let slots = (0..slots).map(|_| {
            let input_bytes = input_bytes.next_multiple_of(16).max(16);
            let output_bytes = output_bytes.next_multiple_of(16).max(16);
            let input = self.raw_buffer("step input", input_bytes, Usage::MAP_WRITE | Usage::COPY_SRC, true)?;
            let output = self.raw_buffer("step output", output_bytes, Usage::MAP_READ | Usage::COPY_DST, false)?;
            let view = input.get_mapped_range_mut(..).map_err(|error| self.0.faults.rejected(error))?;
            let (input_mapped, output_mapped) = (MapState::default(), MapState::default());
            Ok(Slot { input, output, view: Some(view), used_bytes: 0, output_bytes: 0, input_mapped, output_mapped })
        });
        Ok(StepRing(Arc::new(Mutex::new(slots.collect::<Result<_, Error>>()?))))
    }

    /// As [`Gpu::step_ring`] for the inputs of another ring's steps and more output.
    ///
    /// # Errors
    /// As [`Gpu::step_ring`].
    ///
    /// # Panics
    /// If every slot of `ring` is in flight.
    pub fn ring_like(&self, ring: &StepRing, slots: usize, output_bytes: u64) -> Result<StepRing, Error> {
        let input_bytes = ring.0.lock().first().expect("a slot that is not in flight").input.size();
        self.step_ring(slots, input_bytes, output_bytes)
    }
}

impl StepRing {
    /// # Panics
    /// If every slot is in use.
    pub(super) fn take(&self) -> Slot {
        let mut slot = self.0.lock().pop().expect("a step begins while as many as the ring has slots are in flight");
        (slot.used_bytes, slot.output_bytes) = (0, 0);
        slot
    }

    pub(super) fn put(&self, slot: Slot) {
        self.0.lock().push(slot);
    }
}

impl Slot {
    /// Copies `bytes` to the adapter's side of the slot and says where they lie there.
    ///
    /// # Panics
    /// If the slot is full.
    pub(super) fn write(&mut self, bytes: &[u8], faults: &Faults) -> (&wgpu::Buffer, u64) {
        let start = self.used_bytes;
        self.used_bytes += bytes.len() as u64;
        assert!(self.used_bytes <= self.input.size(), "a step's inputs pass {} bytes", self.input.size());
        match &mut self.view {
            // The memory behind the view of a lost device may be gone.
            Some(view) if !faults.is_lost() => {
                view.slice(start as usize..self.used_bytes as usize).copy_from_slice(bytes);
            }
            _ => faults.record(faults.rejected("a step's memory was not mapped, after an earlier error")),
        }
        (&self.input, start)
    }

    /// Where the next `bytes` of output go.
    ///
    /// # Panics
    /// If the slot is full.
    pub(super) fn reserve_output(&mut self, bytes: u64) -> u64 {
        let start = self.output_bytes;
        self.output_bytes += bytes;
        assert!(self.output_bytes <= self.output.size(), "a step's outputs pass {} bytes", self.output.size());
        start
    }

    pub(super) fn output(&self) -> &wgpu::Buffer {
        &self.output
    }

    /// Gives the inputs to the adapter.
    pub(super) fn release(&mut self) {
        if self.view.take().is_some() {
            self.input.unmap();
        }
    }

    /// Asks for the outputs, and for the inputs' memory again, when the step will have run.
    pub(super) fn request(&self) {
        self.input.map_async(wgpu::MapMode::Write, .., self.input_mapped.callback());
        if self.output_bytes > 0 {
            self.output.map_async(wgpu::MapMode::Read, ..self.output_bytes, self.output_mapped.callback());
        }
    }

    /// The outputs of the step that has run.
    fn retrieve(&mut self, gpu: &Gpu) -> Result<Vec<u8>, Error> {
        self.view = Some(self.input_mapped.range(gpu, || self.input.get_mapped_range_mut(..))?);
        if self.output_bytes == 0 {
            return Ok(Vec::new());
        }
        let view = self.output_mapped.range(gpu, || self.output.get_mapped_range(..self.output_bytes))?;
        let bytes = view.to_vec();
        drop(view);
        self.output.unmap();
        Ok(bytes)
    }
}

/// A step in flight. Dropping it waits for the step, as collecting does.
#[must_use = "a step's outputs come by `collect`"]
pub struct Submission {
    pub(super) gpu: Gpu,
    pub(super) ring: StepRing,
    pub(super) slot: Option<Slot>,
    pub(super) index: wgpu::SubmissionIndex,
    pub(super) timing: Option<Recording>,
}

impl Submission {
    /// Waits until the step has run; its outputs, in the order in which they were asked for.
    ///
    /// # Errors
    /// If the adapter was lost, or refused work since the last look.
    pub fn collect(mut self) -> Result<Vec<u8>, Error> {
        self.finish()
    }

    fn finish(&mut self) -> Result<Vec<u8>, Error> {
        let Some(mut slot) = self.slot.take() else { return Ok(Vec::new()) };
        let outputs = self.gpu.wait(&self.index).and_then(|()| slot.retrieve(&self.gpu));
        self.ring.put(slot);
        self.gpu.count_wgpu_buffers();
        if let Some(timing) = self.timing.take() {
            timing.finish(&self.gpu, outputs.is_ok())?;
        }
        outputs
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            log::debug!("a step that nobody collected: {error}");
        }
    }
}
