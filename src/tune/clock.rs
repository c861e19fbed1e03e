//! How long recorded work takes: by the adapter's own clock, or, where a CPU plays the adapter, by the CPU's.

use crate::error::Error;
use crate::gpu::{Gpu, Recorder, StepRing, Timer};
use std::time::Instant;

/// Empty submissions whose median is taken off.
const EMPTIES: usize = 9;

/// Times whole submissions.
#[derive(Debug)]
pub(super) struct Clock {
    source: Source,
    /// What a submission of nothing takes, in microseconds: it is no part of what is timed.
    empty_us: f64,
    is_software: bool,
}

#[derive(Debug)]
enum Source {
    /// Of the adapter, in the submission.
    Timestamps(Timer),
    /// Of all threads of this process. A software adapter shares its cores with whatever else runs, so that a wall clock
    /// would time that too.
    ProcessCpu,
    /// Where there is nothing better.
    Wall,
}

impl Clock {
    /// The best clock there is for `gpu`; `ring` has a free slot.
    ///
    /// # Errors
    /// If the adapter is lost or has no room for a few stamps.
    pub(super) fn new(gpu: &Gpu, ring: &StepRing) -> Result<Clock, Error> {
        let is_software = gpu.is_software();
        let timer = if is_software { None } else { gpu.timer(4)? };
        let source = match timer {
            Some(timer) => Source::Timestamps(timer),
            None if is_software && cpu_us().is_some() => Source::ProcessCpu,
            None => Source::Wall,
        };
        let mut clock = Clock { source, empty_us: 0.0, is_software };
        if !matches!(clock.source, Source::Timestamps(_)) {
            let empties = (0..EMPTIES).map(|_| clock.submit(gpu.begin_step(ring)).map(|(us, _)| us));
            let mut empties = empties.collect::<Result<Vec<_>, Error>>()?;
            empties.sort_by(f64::total_cmp);
            clock.empty_us = empties[EMPTIES / 2];
        }
        Ok(clock)
    }

    /// What the times are of, for people.
    pub(super) fn name(&self) -> &'static str {
        match self.source {
            Source::Timestamps(_) => "timestamps of the adapter",
            Source::ProcessCpu => "CPU time of the process",
            Source::Wall => "wall clock",
        }
    }

    /// The least that a timed window should last, in microseconds.
    pub(super) fn window_us(&self) -> f64 {
        if self.is_software { 3e3 } else { 250.0 }
    }

    /// Windows of a sample, of which the shortest counts. Whatever else runs on the cores of a software adapter only lengthens
    /// what it does; an adapter of its own has no such neighbours.
    pub(super) fn windows(&self) -> usize {
        if self.is_software { 2 } else { 1 }
    }

    /// Times what `recorder` will record, as a whole; before its first dispatch.
    pub(super) fn start(&self, recorder: &mut Recorder<'_>) {
        if let Source::Timestamps(timer) = &self.source {
            recorder.with_stopwatch(timer);
        }
    }

    /// Runs what was recorded since [`Clock::start`]: its microseconds, and its outputs.
    ///
    /// # Errors
    /// If the adapter was lost, or refused something.
    pub(super) fn submit(&self, recorder: Recorder<'_>) -> Result<(f64, Vec<u8>), Error> {
        let (cpu, wall) = (cpu_us(), Instant::now());
        let bytes = recorder.submit()?.collect()?;
        let wall_us = 1e6 * wall.elapsed().as_secs_f64();
        let us = match &self.source {
            Source::Timestamps(timer) => timer.take().iter().map(|timed| timed.ns as f64 * 1e-3).sum(),
            Source::ProcessCpu => cpu.zip(cpu_us()).map_or(wall_us, |(from, to)| to - from) - self.empty_us,
            Source::Wall => wall_us - self.empty_us,
        };
        // A clock of coarse ticks may see nothing pass.
        Ok((us.max(1e-2), bytes))
    }
}

/// CPU time of this process until now, in microseconds, where the system tells.
#[cfg(unix)]
fn cpu_us() -> Option<f64> {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Some(1e6 * time.tv_sec as f64 + 1e-3 * time.tv_nsec as f64)
}

#[cfg(not(unix))]
fn cpu_us() -> Option<f64> {
    None
}
