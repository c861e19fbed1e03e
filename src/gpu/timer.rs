//! How long each dispatch of a step takes, by the adapter's own clock.

use super::Gpu;
use super::step_ring::MapState;
use crate::error::Error;
use parking_lot::Mutex;
use raglan_shaders::{Variant, Work};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Room for the times of one step at a time; clones share it.
///
/// Where the adapter can stamp the time inside a pass, a dispatch's time runs from the end of the one before to its own
/// end, so that the times of a step add up. Elsewhere each dispatch gets a pass of its own, whose cost is in its time.
#[derive(Debug, Clone)]
pub struct Timer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sets: Vec<wgpu::QuerySet>,
    resolved: wgpu::Buffer,
    readback: wgpu::Buffer,
    mapped: MapState,
    ns_per_tick: f64,
    inside_passes: bool,
    busy: AtomicBool,
    times: Mutex<Vec<Timed>>,
}

/// One dispatch and its time.
#[derive(Debug, Clone)]
pub struct Timed {
    /// What ran.
    pub variant: Variant,
    /// Of how many workgroups.
    pub workgroups: [u32; 3],
    /// What it did, as its op counts it; a label alone where none does.
    pub work: Work,
    /// For how long.
    pub ns: u64,
}

/// A timer at work on a step.
#[derive(Debug)]
pub(super) struct Recording {
    timer: Arc<Inner>,
    dispatches: Vec<(Variant, [u32; 3], Work)>,
    stamps: u32,
    /// All dispatches are one.
    whole: bool,
}

const SET_STAMPS: u32 = wgpu::QUERY_SET_MAX_QUERIES;
const STAMP_BYTES: u64 = wgpu::QUERY_SIZE as u64;

impl Gpu {
    /// A timer for steps of up to `dispatches`; later ones are not timed. `None` where the adapter has no clock to ask.
    ///
    /// # Errors
    /// If the adapter has no room or is lost.
    pub fn timer(&self, dispatches: u32) -> Result<Option<Timer>, Error> {
        let features = self.0.device.features();
        let inside_passes = features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES);
        let has_clock = features.contains(wgpu::Features::TIMESTAMP_QUERY);
        has_clock.then(|| self.timer_of(dispatches, inside_passes)).transpose()
    }

    pub(super) fn timer_of(&self, dispatches: u32, inside_passes: bool) -> Result<Timer, Error> {
        use wgpu::BufferUsages as Usage;
        let device = &self.0.device;
        let sets = (2 * dispatches + 1).div_ceil(SET_STAMPS);
        let bytes = u64::from(sets) * u64::from(SET_STAMPS) * STAMP_BYTES;
        let descriptor = wgpu::QuerySetDescriptor { label: None, ty: wgpu::QueryType::Timestamp, count: SET_STAMPS };
        Ok(Timer(Arc::new(Inner {
            resolved: self.raw_buffer("timestamps", bytes, Usage::QUERY_RESOLVE | Usage::COPY_SRC, false)?,
            readback: self.raw_buffer("timestamps", bytes, Usage::MAP_READ | Usage::COPY_DST, false)?,
            sets: (0..sets).map(|_| device.create_query_set(&descriptor)).collect(),
            mapped: MapState::default(),
            ns_per_tick: f64::from(self.0.queue.get_timestamp_period()),
            inside_passes,
            busy: AtomicBool::new(false),
            times: Mutex::default(),
        })))
    }
}

impl Timer {
    /// The times of the last collected step, in the order of its dispatches; empty when taken already.
    pub fn take(&self) -> Vec<Timed> {
        std::mem::take(&mut *self.0.times.lock())
    }

    /// # Panics
    /// If the timer is in use.
    pub(super) fn begin(&self) -> Recording {
        assert!(!self.0.busy.swap(true, Ordering::AcqRel), "a timer times one step at a time");
        Recording { timer: self.0.clone(), dispatches: Vec::new(), stamps: 0, whole: false }
    }

    /// # Panics
    /// If the timer is in use.
    pub(super) fn begin_whole(&self) -> Recording {
        let mut recording = self.begin();
        recording.whole = true;
        recording
    }
}

impl Inner {
    fn capacity(&self) -> u32 {
        self.sets.len() as u32 * SET_STAMPS
    }
}

impl Recording {
    fn set(&self, stamp: u32) -> (&wgpu::QuerySet, u32) {
        (&self.timer.sets[(stamp / SET_STAMPS) as usize], stamp % SET_STAMPS)
    }

    fn is_full(&self) -> bool {
        self.stamps + 2 > self.timer.capacity()
    }

    /// Whether each dispatch is stamped within one pass.
    fn stamps_inside(&self) -> bool {
        self.timer.inside_passes && !self.whole
    }

    /// A pass that stamps the start of its first dispatch; `None` when there is no room for its time.
    pub(super) fn begin_pass(&mut self, encoder: &mut wgpu::CommandEncoder) -> Option<wgpu::ComputePass<'static>> {
        if self.is_full() {
            return None;
        }
        let (query_set, index) = self.set(self.stamps);
        let writes = (!self.stamps_inside()).then_some(wgpu::ComputePassTimestampWrites {
            query_set,
            beginning_of_pass_write_index: Some(index),
            end_of_pass_write_index: Some(index + 1),
        });
        let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes: writes };
        let mut pass = encoder.begin_compute_pass(&descriptor).forget_lifetime();
        if self.stamps_inside() {
            pass.write_timestamp(query_set, index);
            self.stamps += 1;
        }
        Some(pass)
    }

    /// Stamps the end of a dispatch.
    pub(super) fn after(
        &mut self,
        pass: &mut Option<wgpu::ComputePass<'static>>,
        variant: &Variant,
        workgroups: [u32; 3],
        work: Work,
    ) {
        if self.is_full() || (self.whole && self.stamps > 0) {
            return;
        }
        match pass {
            Some(_) if self.whole => self.stamps += 2,
            Some(pass) if self.timer.inside_passes => {
                let (query_set, index) = self.set(self.stamps);
                pass.write_timestamp(query_set, index);
                self.stamps += 1;
            }
            _ => {
                *pass = None;
                self.stamps += 2;
            }
        }
        self.dispatches.push((variant.clone(), workgroups, work));
    }

    /// Has the stamps copied to where they can be read, once the passes are closed.
    pub(super) fn resolve(&mut self, encoder: &mut wgpu::CommandEncoder) {
        for (set, first) in self.timer.sets.iter().zip((0..self.stamps).step_by(SET_STAMPS as usize)) {
            let count = SET_STAMPS.min(self.stamps - first);
            encoder.resolve_query_set(set, 0..count, &self.timer.resolved, u64::from(first) * STAMP_BYTES);
        }
        if self.stamps > 0 {
            let bytes = u64::from(self.stamps) * STAMP_BYTES;
            encoder.copy_buffer_to_buffer(&self.timer.resolved, 0, &self.timer.readback, 0, bytes);
        }
    }

    /// Asks for the stamps when the step will have run.
    pub(super) fn request(&self) {
        if self.stamps > 0 {
            let bytes = u64::from(self.stamps) * STAMP_BYTES;
            self.timer.readback.map_async(wgpu::MapMode::Read, ..bytes, self.timer.mapped.callback());
        }
    }

    /// Turns stamps into times, if the step has run.
    pub(super) fn finish(mut self, gpu: &Gpu, has_run: bool) -> Result<(), Error> {
        let mut times = Vec::new();
        if has_run && self.stamps > 0 {
            let bytes = u64::from(self.stamps) * STAMP_BYTES;
            let view = self.timer.mapped.range(gpu, || self.timer.readback.get_mapped_range(..bytes))?;
            let stamps: Vec<u64> = view.chunks_exact(8).map(bytemuck::pod_read_unaligned).collect();
            drop(view);
            self.timer.readback.unmap();
            let stride = if self.stamps_inside() { 1 } else { 2 };
            for (i, (variant, workgroups, work)) in self.dispatches.drain(..).enumerate() {
                let ticks = stamps[i * stride + 1].saturating_sub(stamps[i * stride]);
                times.push(Timed { variant, workgroups, work, ns: (ticks as f64 * self.timer.ns_per_tick) as u64 });
            }
        }
        *self.timer.times.lock() = times;
        Ok(())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.timer.busy.store(false, Ordering::Release);
    }
}
