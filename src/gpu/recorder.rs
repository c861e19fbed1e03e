//! Recording a step: inputs, dispatches in one compute pass, outputs.

use super::Gpu;
use super::buffer::{Buffer, BufferSlice};
use super::step_ring::{Slot, StepRing, Submission};
use super::timer::{Recording, Timer};
use crate::error::Error;
use raglan_shaders::{Variant, Work};
use std::ops::Range;

const HELD: &str = "held until submission";

/// Records one step: [`write`](Recorder::write)s first, then [`dispatch`](Recorder::dispatch)es, each of which sees what
/// the earlier ones wrote; [`output`](Recorder::output)s at any time, taken when all have run.
pub struct Recorder<'a> {
    gpu: &'a Gpu,
    ring: &'a StepRing,
    slot: Option<Slot>,
    // Before the encoder, which is locked until the pass is dropped.
    pass: Option<wgpu::ComputePass<'static>>,
    /// `None` after submission.
    encoder: Option<wgpu::CommandEncoder>,
    outputs: Vec<(Buffer, u64, u64, u64)>,
    timing: Option<Recording>,
    pipeline: Option<u32>,
    bind_group: Option<u32>,
    error: Option<Error>,
    /// What a rehearsal would have run; `None` in a step.
    rehearsed: Option<Vec<Variant>>,
    /// What the next dispatch does, where somebody asks.
    work: Option<Work>,
    /// What the dispatches did, where somebody counts.
    counted: Option<Vec<Work>>,
}

impl Gpu {
    /// Begins a step in a free slot of `ring`.
    ///
    /// # Panics
    /// If every slot is in flight: collect one first.
    pub fn begin_step<'a>(&'a self, ring: &'a StepRing) -> Recorder<'a> {
        self.forget_freed_buffers();
        Recorder {
            gpu: self,
            ring,
            slot: Some(ring.take()),
            pass: None,
            encoder: Some(self.0.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default())),
            outputs: Vec::new(),
            timing: None,
            pipeline: None,
            bind_group: None,
            error: None,
            rehearsed: None,
            work: None,
            counted: None,
        }
    }

    /// Begins a step that is never run: it takes a slot of `ring` while it lasts, and lists what would be dispatched.
    ///
    /// # Panics
    /// If every slot is in flight.
    pub fn begin_rehearsal<'a>(&'a self, ring: &'a StepRing) -> Recorder<'a> {
        let mut recorder = self.begin_step(ring);
        recorder.rehearsed = Some(Vec::new());
        recorder
    }
}

impl Recorder<'_> {
    /// The adapter that will run the step.
    pub fn gpu(&self) -> &Gpu {
        self.gpu
    }

    /// Times each dispatch of this step; `timer` has the times when the step is collected.
    ///
    /// # Panics
    /// If `timer` is in use by another step, or this step has begun to dispatch.
    pub fn with_timer(&mut self, timer: &Timer) {
        assert!(self.pass.is_none(), "a timer is set before the first dispatch");
        self.timing = Some(timer.begin());
    }

    /// Times all dispatches of this step as one, from the start of the first to the end of the last.
    ///
    /// # Panics
    /// As [`Recorder::with_timer`].
    pub fn with_stopwatch(&mut self, timer: &Timer) {
        assert!(self.pass.is_none(), "a timer is set before the first dispatch");
        self.timing = Some(timer.begin_whole());
    }

    /// Counts the work of each dispatch from now on.
    pub fn count_work(&mut self) {
        self.counted = Some(Vec::new());
    }

    /// What the dispatches did since [`Recorder::count_work`], one each.
    pub fn take_counted(&mut self) -> Vec<Work> {
        self.counted.take().unwrap_or_default()
    }

    /// Says what the next dispatch does; `work` is asked only where it is counted or timed.
    pub fn work(&mut self, work: impl FnOnce() -> Work) {
        if self.counted.is_some() || self.timing.is_some() {
            self.work = Some(work());
        }
    }

    /// Puts `bytes` at `offset` of `buffer` before the step's first dispatch.
    ///
    /// # Panics
    /// If a dispatch was recorded already, the range is not in whole words or outside of `buffer`, or the slot is full.
    pub fn write(&mut self, buffer: &Buffer, offset: u64, bytes: &[u8]) {
        assert!(self.pipeline.is_none(), "a step's inputs are written before its first dispatch");
        if bytes.is_empty() {
            return;
        }
        buffer.assert_copy(offset, bytes.len() as u64);
        let slot = self.slot.as_mut().expect(HELD);
        let (staging, start) = slot.write(bytes, &self.gpu.0.faults);
        let encoder = self.encoder.as_mut().expect(HELD);
        encoder.copy_buffer_to_buffer(staging, start, buffer.raw(), offset, bytes.len() as u64);
    }

    /// Runs `variant` with `buffers` as its bindings, `immediates` as its parameters.
    ///
    /// A kernel that cannot be compiled, and whatever wgpu finds wrong, is told by [`submit`](Recorder::submit).
    ///
    /// # Panics
    /// If `buffers` or `immediates` do not fit the kernel, or `workgroups` pass the adapter's limit.
    pub fn dispatch(
        &mut self,
        variant: &Variant,
        buffers: &[BufferSlice<'_>],
        immediates: &[u8],
        workgroups: [u32; 3],
    ) {
        let kernel = variant.kernel;
        assert_eq!(buffers.len(), kernel.bindings.len(), "{kernel:?}: bindings");
        assert_eq!(immediates.len(), kernel.immediates.bytes, "{kernel:?}: bytes of immediates");
        let limit = self.gpu.0.limits.max_workgroups;
        assert!(workgroups.iter().all(|&n| n <= limit), "{kernel:?}: workgroups {workgroups:?} pass {limit}");
        let work = self.work.take();
        if workgroups.contains(&0) || self.error.is_some() {
            return;
        }
        let unknown = Work { label: kernel.name, ..Work::default() };
        if let Some(counted) = &mut self.counted {
            counted.push(work.unwrap_or(unknown));
        }
        if let Some(rehearsed) = &mut self.rehearsed {
            rehearsed.push(variant.clone());
            return;
        }
        let pipeline = match self.gpu.pipeline(variant) {
            Ok(pipeline) => pipeline,
            Err(error) => {
                self.error = Some(error);
                return;
            }
        };
        let inner = &self.gpu.0;
        let (group_id, group) = inner.bind_groups.get(&inner.device, (pipeline.layout_key, &pipeline.layout), buffers);

        let encoder = self.encoder.as_mut().expect(HELD);
        if self.pass.is_none() {
            (self.pipeline, self.bind_group) = (None, None);
            if let Some(timing) = &mut self.timing {
                self.pass = timing.begin_pass(encoder);
            }
        }
        let pass = self.pass.get_or_insert_with(|| {
            encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()).forget_lifetime()
        });
        if self.pipeline != Some(pipeline.id) {
            pass.set_pipeline(&pipeline.raw);
            self.pipeline = Some(pipeline.id);
        }
        if self.bind_group != Some(group_id) {
            pass.set_bind_group(0, &group, &[]);
            self.bind_group = Some(group_id);
        }
        if !immediates.is_empty() {
            pass.set_immediates(0, immediates);
        }
        pass.dispatch_workgroups(workgroups[0], workgroups[1], workgroups[2]);
        if let Some(timing) = &mut self.timing {
            timing.after(&mut self.pass, variant, workgroups, work.unwrap_or(unknown));
        }
    }

    /// Brings `bytes` of `buffer` from `offset` back when every dispatch has run; the range says where they will lie in
    /// what [`Submission::collect`] returns.
    ///
    /// # Panics
    /// If the range is not in whole words or outside of `buffer`, or the slot is full.
    pub fn output(&mut self, buffer: &Buffer, offset: u64, bytes: u64) -> Range<usize> {
        buffer.assert_copy(offset, bytes);
        let start = self.slot.as_mut().expect(HELD).reserve_output(bytes);
        if bytes > 0 {
            self.outputs.push((buffer.clone(), offset, start, bytes));
        }
        start as usize..(start + bytes) as usize
    }

    /// What a rehearsal would have run, in order; nothing where this is a step.
    pub fn into_rehearsed(mut self) -> Vec<Variant> {
        self.rehearsed.take().unwrap_or_default()
    }

    /// Hands the step to the adapter.
    ///
    /// # Errors
    /// If a kernel could not be compiled, wgpu refused something since the last look, or the adapter was lost.
    pub fn submit(mut self) -> Result<Submission, Error> {
        drop(self.pass.take());
        let slot = self.slot.as_mut().expect(HELD);
        let mut encoder = self.encoder.take().expect(HELD);
        for (buffer, offset, start, bytes) in self.outputs.drain(..) {
            encoder.copy_buffer_to_buffer(buffer.raw(), offset, slot.output(), start, bytes);
        }
        if let Some(timing) = &mut self.timing {
            timing.resolve(&mut encoder);
        }
        let inner = &self.gpu.0;
        let commands = encoder.finish();
        // The device's loss first: what else went wrong followed from it.
        inner.faults.check_lost()?;
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        inner.faults.check()?;

        slot.release();
        self.gpu.count_wgpu_buffers();
        let index = inner.queue.submit([commands]);
        slot.request();
        if let Some(timing) = &self.timing {
            timing.request();
        }
        let (slot, timing) = (self.slot.take(), self.timing.take());
        let submission = Submission { gpu: self.gpu.clone(), ring: self.ring.clone(), slot, index, timing };
        // Dropping the submission on an error waits for what was accepted and gives the slot back.
        inner.faults.check().map(|()| submission)
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.ring.put(slot);
        }
    }
}
