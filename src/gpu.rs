//! The adapter: buffers, kernels in flight, and what comes back. It knows bytes, not transformers, and is the only code
//! that names wgpu.
//!
//! A step is recorded by a [`Recorder`] into one slot of a [`StepRing`], submitted, and collected later. wgpu reports
//! errors after the call that caused them, so recording returns none: they surface at [`Recorder::submit`] and
//! [`Submission::collect`]. After the adapter is lost both return [`Error::DeviceLost`], always.

mod adapter;
mod bind_groups;
mod buffer;
mod coop;
mod disk_cache;
mod fault;
mod memory;
mod open;
mod pipelines;
mod readback;
mod recorder;
mod step_ring;
#[cfg(test)]
mod tests;
mod timer;
mod upload;

pub use adapter::{AdapterSummary, FeaturesSummary, LimitsSummary};
pub use buffer::{Buffer, BufferSlice};
pub use memory::MemoryBudget;
pub use raglan_shaders::{Variant, Work};
pub use readback::READ_BYTES;
pub use recorder::Recorder;
pub use step_ring::{StepRing, Submission};
pub use timer::{Timed, Timer};
pub use upload::{UPLOAD_BYTES, Uploader};

use crate::error::Error;
use parking_lot::Mutex;
use raglan_shaders::AdapterLimits;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use wgpu::Features;

/// How to open an adapter.
#[derive(Debug, Clone)]
pub struct GpuOptions {
    /// An index or a part of a name, in any case of letters; else the variable `RAGLAN_ADAPTER`; else the best.
    pub adapter: Option<String>,
    /// Bounds checks, loop bounds and zeroed workgroup memory in every kernel: slow, for tests.
    pub runtime_checks: bool,
    /// Leave the driver's own checks of buffer accesses on, as wgpu does. Kernels clamp what they read to their buffers; that a
    /// value read from beyond is never used the tests show, that none is read they cannot. Without the driver's checks a kernel
    /// that is wrong there can lose the adapter.
    pub robust_access: bool,
    /// Write loops over a lane's registers out in every kernel; `None` does so but for software adapters, which gain nothing and
    /// compile longer.
    pub unroll: Option<bool>,
    /// Use f16 where the adapter has it.
    pub allow_f16: bool,
    /// Use subgroup operations where the adapter has them.
    pub allow_subgroups: bool,
    /// Use cooperative matrices where the adapter has them, and f16 and subgroups are allowed.
    pub allow_coop: bool,
    /// Where compiled pipelines are kept between runs, if anywhere.
    pub cache_dir: Option<PathBuf>,
    /// Bind no more than this at once, as an adapter with smaller bindings does: for tests.
    pub max_binding_bytes: Option<u64>,
    /// Hold no more than this in buffers at once, as an adapter with less memory does: for tests.
    pub max_memory_bytes: Option<u64>,
}

impl Default for GpuOptions {
    fn default() -> Self {
        GpuOptions {
            adapter: None,
            runtime_checks: false,
            robust_access: true,
            unroll: None,
            allow_f16: true,
            allow_subgroups: true,
            allow_coop: true,
            cache_dir: None,
            max_binding_bytes: None,
            max_memory_bytes: None,
        }
    }
}

/// An open adapter; clones share it.
#[derive(Clone)]
pub struct Gpu(Arc<Inner>);

struct Inner {
    options: GpuOptions,
    summary: AdapterSummary,
    choice_reason: String,
    limits: AdapterLimits,
    robust_access: bool,
    faults: Arc<fault::Faults>,
    pipelines: pipelines::Pipelines,
    bind_groups: bind_groups::BindGroups,
    disk: Option<disk_cache::DiskCache>,
    readback: readback::Readback,
    graveyard: Arc<buffer::Graveyard>,
    buffers: AtomicU32,
    max_memory_bytes: Option<u64>,
    wgpu_buffers: Mutex<BuffersSeen>,
    queue: wgpu::Queue,
    device: wgpu::Device,
}

/// What was made since the adapter was opened: equal before and after a step that makes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Created {
    /// Buffers made by this program.
    pub buffers: u64,
    /// Bind groups made.
    pub bind_groups: u64,
    /// Pipelines compiled.
    pub pipelines: u64,
    /// At least so many buffers in all, wgpu's own staging included.
    pub wgpu_buffers: u64,
}

/// wgpu tells how many buffers exist, not how many were made; what it stages exists until the next submission has run, so
/// looking before each submission and after each wait sees it come and go.
#[derive(Default)]
struct BuffersSeen {
    existing: i64,
    made: u64,
}

impl Gpu {
    /// Every adapter, in the order of their indices.
    pub fn adapters() -> Vec<AdapterSummary> {
        adapter::enumerate(&adapter::instance()).into_iter().map(|(_, summary)| summary).collect()
    }

    /// Which of `all` a run with `options` would take, and why.
    ///
    /// # Errors
    /// If there is no adapter, or none that the user asked for.
    pub fn choose(all: &[AdapterSummary], options: &GpuOptions) -> Result<(usize, String), Error> {
        let variable = std::env::var("RAGLAN_ADAPTER").ok().filter(|value| !value.trim().is_empty());
        let wanted = match (&options.adapter, &variable) {
            (Some(wanted), _) => Some((wanted.as_str(), "--adapter")),
            (None, Some(wanted)) => Some((wanted.as_str(), "RAGLAN_ADAPTER")),
            (None, None) => None,
        };
        adapter::choose(all, wanted)
    }

    /// Opens an adapter.
    ///
    /// # Errors
    /// If there is none, none that the user asked for, it lacks immediates, or the driver refuses.
    pub fn open(options: &GpuOptions) -> Result<Gpu, Error> {
        Gpu::open_chosen(options, |all| Gpu::choose(all, options))
    }

    /// Opens the same adapter with the same options once more, as after its loss. What this one made stays with this one.
    ///
    /// # Errors
    /// As [`Gpu::open`], and where the adapter is gone.
    pub fn reopen(&self) -> Result<Gpu, Error> {
        let Inner { options, summary, choice_reason, .. } = &*self.0;
        Gpu::open_chosen(options, |all| Ok((adapter::find_again(all, summary)?, choice_reason.clone())))
    }

    /// Opens the adapter that `choose` takes, an index and a reason.
    fn open_chosen(
        options: &GpuOptions,
        choose: impl FnOnce(&[AdapterSummary]) -> Result<(usize, String), Error>,
    ) -> Result<Gpu, Error> {
        let instance = adapter::instance();
        let (handles, summaries): (Vec<_>, Vec<_>) = adapter::enumerate(&instance).into_iter().unzip();
        let (index, choice_reason) = choose(&summaries)?;
        let (handle, summary) = (&handles[index], summaries[index].clone());
        if !summary.features.immediates {
            let feature = "immediates (push constants)".to_owned();
            return Err(Error::MissingFeature { adapter: summary.name, feature });
        }

        let mut limits = summary.kernel_limits(options);
        limits.max_binding_bytes = limits.max_binding_bytes.min(options.max_binding_bytes.unwrap_or(u64::MAX));
        let wish = Features::IMMEDIATES
            | Features::TIMESTAMP_QUERY
            | Features::TIMESTAMP_QUERY_INSIDE_PASSES
            | Features::PIPELINE_CACHE
            | if limits.shader_f16 { Features::SHADER_F16 } else { Features::empty() }
            | if limits.subgroups { Features::SUBGROUP } else { Features::empty() }
            | if limits.coop_side > 0 { Features::EXPERIMENTAL_COOPERATIVE_MATRIX } else { Features::empty() };
        let experimental_features = match limits.coop_side {
            0 => wgpu::ExperimentalFeatures::disabled(),
            // SAFETY: the one experimental feature asked for is cooperative matrices, and only this program's own kernels use
            // them: within arrays that they fill whole, as their twin tests with and without checks show.
            _ => unsafe { wgpu::ExperimentalFeatures::enabled() },
        };
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("raglan"),
            required_features: wish & handle.features(),
            required_limits: handle.limits(),
            experimental_features,
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            trace: wgpu::Trace::Off,
        };
        let robust_access = options.robust_access || options.runtime_checks;
        let (device, queue, robust_access) = open::request(handle, &descriptor, robust_access)
            .map_err(|error| Error::OpenAdapter { adapter: summary.name.clone(), message: error.to_string() })?;

        let faults = Arc::new(fault::Faults::new(&summary.name));
        let sink = faults.clone();
        device.on_uncaptured_error(Arc::new(move |error| sink.record_wgpu(&error)));
        let sink = faults.clone();
        device.set_device_lost_callback(move |reason, message| sink.lose(format!("{reason:?} {message}")));

        let disk = options.cache_dir.as_deref().and_then(|dir| disk_cache::DiskCache::open(&device, handle, dir));
        let form = match options.unroll.unwrap_or(!summary.is_software()) {
            _ if options.runtime_checks => pipelines::Form::Checked,
            true => pipelines::Form::Unrolled,
            false => pipelines::Form::Written,
        };
        let pipelines = pipelines::Pipelines::new(form, disk.as_ref().map(|disk| disk.cache.clone()));
        log::info!("{summary}, driver {} {}: {choice_reason}", summary.driver, summary.driver_info);
        Ok(Gpu(Arc::new(Inner {
            options: options.clone(),
            summary,
            choice_reason,
            limits,
            robust_access,
            faults,
            pipelines,
            bind_groups: bind_groups::BindGroups::default(),
            disk,
            readback: readback::Readback::default(),
            graveyard: Arc::default(),
            buffers: AtomicU32::new(0),
            max_memory_bytes: options.max_memory_bytes,
            wgpu_buffers: Mutex::default(),
            queue,
            device,
        })))
    }

    /// The open adapter.
    pub fn summary(&self) -> &AdapterSummary {
        &self.0.summary
    }

    /// Why it is this adapter.
    pub fn choice_reason(&self) -> &str {
        &self.0.choice_reason
    }

    /// What kernels may count on.
    pub fn limits(&self) -> &AdapterLimits {
        &self.0.limits
    }

    /// Whether the driver checks every buffer access.
    pub fn robust_access(&self) -> bool {
        self.0.robust_access
    }

    /// Bytes of the storage buffers that live.
    pub fn held_bytes(&self) -> u64 {
        self.0.graveyard.held_bytes()
    }

    /// Whether a CPU plays the GPU.
    pub fn is_software(&self) -> bool {
        self.0.summary.is_software()
    }

    /// A zeroed storage buffer of at least `bytes`.
    ///
    /// # Errors
    /// If the adapter has no room for it, allows no buffer so large, or is lost.
    pub fn buffer(&self, label: &str, bytes: u64) -> Result<Buffer, Error> {
        use wgpu::BufferUsages as Usage;
        // Four words: the least that a binding of `array<vec4<f32>>` takes.
        let aligned_bytes = bytes.max(16).checked_next_multiple_of(16).unwrap_or(u64::MAX);
        let (held, most) = (self.0.graveyard.held_bytes(), self.0.max_memory_bytes);
        if most.is_some_and(|most| held.saturating_add(bytes) > most) {
            let (adapter, label) = (self.0.summary.name.clone(), label.to_owned());
            return Err(Error::OutOfMemory { adapter, label, bytes });
        }
        let raw = self.raw_buffer(label, aligned_bytes, Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST, false)?;
        let id = self.0.buffers.fetch_add(1, Ordering::Relaxed);
        Ok(Buffer::new(raw, id, bytes, self.0.graveyard.clone()))
    }

    /// Compiles what is not compiled yet, on several threads, and keeps the result on disk where that is set up.
    /// `progress` hears how many are done and of how many.
    ///
    /// # Errors
    /// The first refusal by naga or the driver.
    pub fn compile(&self, variants: &[Variant], progress: impl Fn(usize, usize) + Sync) -> Result<(), Error> {
        let before = self.0.pipelines.count();
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).clamp(1, 8).min(variants.len());
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = || -> Result<(), Error> {
            while let Some(variant) = variants.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.pipeline(variant)?;
                progress(done.fetch_add(1, Ordering::Relaxed) + 1, variants.len());
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("compiling returns its errors"))
        })?;
        if let Some(disk) = self.0.disk.as_ref().filter(|_| self.0.pipelines.count() > before) {
            disk.save();
        }
        Ok(())
    }

    /// What was made until now.
    pub fn created(&self) -> Created {
        Created {
            buffers: u64::from(self.0.buffers.load(Ordering::Relaxed)),
            bind_groups: self.0.bind_groups.count(),
            pipelines: self.0.pipelines.count(),
            wgpu_buffers: self.count_wgpu_buffers(),
        }
    }

    /// The loss of the adapter, if it was lost or the driver tells of it within `patience`. Work that meets the loss before
    /// the driver's word has come is told as refused.
    pub fn loss(&self, patience: Duration) -> Option<Error> {
        let start = Instant::now();
        loop {
            // What a poll says besides is of the work that has failed already.
            let _ = self.poll(wgpu::PollType::Poll);
            match self.0.faults.check_lost() {
                Err(lost) => return Some(lost),
                Ok(()) if start.elapsed() >= patience => return None,
                Ok(()) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Loses the adapter on purpose, as a test of what follows; no other thread may be in a step meanwhile.
    #[doc(hidden)]
    pub fn lose(&self) {
        self.0.device.destroy();
        // The loss is told at the first poll after the work in flight.
        let _ = self.poll(wgpu::PollType::wait_indefinitely());
        self.0.faults.lose("destroyed by a test");
    }

    fn pipeline(&self, variant: &Variant) -> Result<Arc<pipelines::Pipeline>, Error> {
        self.0.pipelines.get(&self.0.device, &self.0.faults, variant)
    }

    fn count_wgpu_buffers(&self) -> u64 {
        let existing = self.0.device.get_internal_counters().hal.buffers.read() as i64;
        let mut seen = self.0.wgpu_buffers.lock();
        seen.made += (existing - seen.existing).max(0) as u64;
        seen.existing = existing;
        seen.made
    }

    fn raw_buffer(
        &self,
        label: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
        mapped: bool,
    ) -> Result<wgpu::Buffer, Error> {
        self.forget_freed_buffers();
        self.0.faults.check_lost()?;
        let adapter = || self.0.summary.name.clone();
        let limit = self.0.summary.limits.max_buffer_bytes;
        if bytes > limit {
            return Err(Error::BufferTooLarge { adapter: adapter(), label: label.to_owned(), bytes, limit });
        }
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size: bytes, usage, mapped_at_creation: mapped };
        match fault::scoped(&self.0.device, || self.0.device.create_buffer(&descriptor)) {
            (buffer, None) => self.0.faults.check_lost().map(|()| buffer),
            (_, Some(wgpu::Error::OutOfMemory { .. })) => {
                Err(Error::OutOfMemory { adapter: adapter(), label: label.to_owned(), bytes })
            }
            (_, Some(error)) => Err(self.0.faults.rejected(format!("buffer {label} of {bytes} bytes: {error}"))),
        }
    }

    fn forget_freed_buffers(&self) {
        if let Some(freed) = self.0.graveyard.take() {
            self.0.bind_groups.forget(&freed);
        }
    }

    /// Blocks until a submission has run.
    fn wait(&self, submission: &wgpu::SubmissionIndex) -> Result<(), Error> {
        self.poll(wgpu::PollType::Wait { submission_index: Some(submission.clone()), timeout: None })?;
        self.0.faults.check()
    }

    fn poll(&self, poll: wgpu::PollType) -> Result<(), Error> {
        // A lost adapter is not polled: nothing comes of it, and mapped memory could be freed under a view.
        self.0.faults.check_lost()?;
        // wgpu panics where the driver reports the loss of the device to a wait.
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.0.device.poll(poll)));
        match polled {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.0.faults.rejected(error)),
            Err(_) => {
                self.0.faults.lose("the driver reported it while waiting");
                self.0.faults.check()
            }
        }
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({})", self.0.summary)
    }
}
