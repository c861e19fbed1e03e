//! The rates of an adapter, by kernels that do nothing else.

use super::Spread;
use crate::cost::Rates;
use crate::error::Error;
use crate::gpu::{Buffer, Gpu, Recorder, StepRing, Timer};
use crate::weights::{FLOATS, Random};
use half::f16;
use raglan_shaders::measure::copy::{self, MeasureCopyParams};
use raglan_shaders::measure::dot::{self, MeasureDotParams};
use raglan_shaders::measure::matrix::{self, MeasureMatrixParams};
use raglan_shaders::measure::multiply::{self, MeasureMultiplyParams};
use raglan_shaders::measure::read::{self, MeasureReadParams};
use raglan_shaders::{Kernel, Part};
use std::time::Instant;

/// Measurements of one rate.
const SAMPLES: usize = 5;
/// Turns of a loop at most: far from any watchdog.
const MOST_STEPS: u32 = 1 << 20;
/// Dispatches of a chain.
const CHAIN: usize = 64;
/// Bytes of a dispatch that does next to nothing.
const LITTLE: u64 = 4096;

/// Buffers to read are filled with rows of so many bytes.
const FILL_ROW_BYTES: u64 = 2 * FLOATS as u64;

/// Measures one adapter.
struct Meter<'a> {
    gpu: &'a Gpu,
    ring: StepRing,
    /// Where the adapter has no clock, the host's is taken.
    timer: Option<Timer>,
    /// Workgroups that fill it several times over.
    workgroups: u32,
    /// Time that a measurement should take at least.
    target_s: f64,
}

/// Measures all rates, some milliseconds each. `progress` hears the name of each and which of how many it is.
///
/// # Errors
/// If the adapter is lost, refuses a kernel, or has no room for 16 MiB.
pub(super) fn measure(gpu: &Gpu, progress: super::Progress<'_>) -> Result<Rates, Error> {
    let software = gpu.is_software();
    let meter = Meter {
        gpu,
        ring: gpu.step_ring(2, LITTLE, 16)?,
        timer: gpu.timer(4)?,
        workgroups: if software { 32 } else { 4096 },
        target_s: if software { 8e-3 } else { 4e-3 },
    };
    let mut turn = 0;
    let mut next = |what: &str| {
        progress(what, turn, 7);
        turn += 1;
    };
    next("reading");
    let buffers = meter.large_buffers(if software { 32 << 20 } else { 1 << 30 })?;
    let read_bytes_per_s = meter.read(&buffers[0])?;
    next("copying");
    let copy_bytes_per_s = meter.copy(&buffers)?;
    drop(buffers);
    next("multiplying in f32");
    let f32_flops_per_s = meter.multiply(Part::ActF32)?;
    next("multiplying in f16");
    let f16_flops_per_s = if gpu.limits().shader_f16 { Some(meter.multiply(Part::ActF16)?) } else { None };
    next("multiplying int8");
    let int8_ops_per_s = meter.dot()?;
    next("multiplying cooperative matrices");
    let matrix_flops_per_s = meter.matrix()?;
    next("launching");
    let (launch_us, drain_us) = (meter.launch_us()?, meter.drain_us()?);
    Ok(Rates {
        read_bytes_per_s,
        copy_bytes_per_s,
        f32_flops_per_s,
        f16_flops_per_s,
        int8_ops_per_s,
        matrix_flops_per_s,
        launch_us,
        drain_us,
    })
}

impl Meter<'_> {
    /// Two buffers of `bytes`, or of as much as a binding and the adapter's memory allow: larger than any cache.
    fn large_buffers(&self, mut bytes: u64) -> Result<[Buffer; 2], Error> {
        bytes = bytes.min(self.gpu.limits().max_binding_bytes / FILL_ROW_BYTES * FILL_ROW_BYTES);
        loop {
            let buffer = || self.gpu.buffer("a measured buffer", bytes);
            match buffer().and_then(|first| Ok([first, buffer()?])) {
                Err(Error::OutOfMemory { .. }) if bytes > 8 << 20 => bytes /= 2,
                Ok(buffers) => {
                    // What is stored may decide how fast it is read: random bits, as weights are.
                    let mut random = Random::new(self.gpu)?;
                    buffers.iter().try_for_each(|buffer| random.fill_floats(buffer, 2))?;
                    return Ok(buffers);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Seconds that what `record` records takes: the median of some.
    fn seconds(&self, record: &dyn Fn(&mut Recorder<'_>)) -> Result<f64, Error> {
        let mut samples = Vec::new();
        for _ in 0..SAMPLES {
            samples.push(self.once(record)?);
        }
        Ok(Spread::of(&samples).median)
    }

    fn once(&self, record: &dyn Fn(&mut Recorder<'_>)) -> Result<f64, Error> {
        let mut recorder = self.gpu.begin_step(&self.ring);
        if let Some(timer) = &self.timer {
            recorder.with_stopwatch(timer);
        }
        record(&mut recorder);
        let start = Instant::now();
        recorder.submit()?.collect()?;
        let wall = start.elapsed().as_secs_f64();
        let stamped = self.timer.iter().flat_map(Timer::take).next().map(|timed| timed.ns as f64 * 1e-9);
        Ok(stamped.filter(|&seconds| seconds > 0.0).unwrap_or(wall))
    }

    /// Seconds for each of the `steps` that `record` is given, as many as take the target's time.
    fn seconds_a_step(&self, most: u32, record: &dyn Fn(&mut Recorder<'_>, u32)) -> Result<f64, Error> {
        let mut steps = 1;
        loop {
            let seconds = self.once(&|recorder| record(recorder, steps))?;
            if seconds >= self.target_s || steps >= most {
                return Ok(self.seconds(&|recorder| record(recorder, steps))? / f64::from(steps));
            }
            // Towards the target, and at most eightfold at once: the first runs are slow.
            let factor = (1.2 * self.target_s / seconds.max(1e-9)).clamp(1.5, 8.0);
            steps = ((f64::from(steps) * factor).ceil() as u32).min(most);
        }
    }

    fn read(&self, x: &Buffer) -> Result<f64, Error> {
        let variant = read::KERNEL.variant(&[], read::KERNEL.default_schedule());
        // Several to write in turn, so that few dispatches wait for the one before.
        let out = || self.gpu.buffer("what was read", 4 * u64::from(self.workgroups * lanes(&read::KERNEL)));
        let outs = [out()?, out()?, out()?, out()?];
        let quads = (x.bytes() / 16) as u32;
        let params = MeasureReadParams { quads, chunk: quads.div_ceil(self.workgroups) };
        let seconds = self.seconds_a_step(64, &|recorder, steps| {
            for step in 0..steps as usize {
                let buffers = [x, &outs[step % outs.len()]].map(Into::into);
                recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), [self.workgroups, 1, 1]);
            }
        })?;
        Ok(x.bytes() as f64 / seconds)
    }

    fn copy(&self, [x, y]: &[Buffer; 2]) -> Result<f64, Error> {
        let variant = copy::KERNEL.variant(&[], copy::KERNEL.default_schedule());
        let quads = (x.bytes() / 16) as u32;
        let params = MeasureCopyParams { quads, chunk: quads.div_ceil(self.workgroups) };
        let seconds = self.seconds_a_step(64, &|recorder, steps| {
            for _ in 0..steps {
                let buffers = [x, y].map(Into::into);
                recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), [self.workgroups, 1, 1]);
            }
        })?;
        Ok(2.0 * x.bytes() as f64 / seconds)
    }

    fn multiply(&self, act: Part) -> Result<f64, Error> {
        let variant = multiply::KERNEL.variant(&[act], multiply::KERNEL.default_schedule());
        let lanes = self.workgroups * lanes(&multiply::KERNEL);
        let out = self.gpu.buffer("products", 16 * u64::from(lanes))?;
        let seconds = self.seconds_a_step(MOST_STEPS, &|recorder, steps| {
            let params = MeasureMultiplyParams { steps, factor: 0.5 };
            recorder.dispatch(&variant, &[(&out).into()], bytemuck::bytes_of(&params), [self.workgroups, 1, 1]);
        })?;
        Ok((u64::from(lanes) * multiply::STEP_FLOPS) as f64 / seconds)
    }

    fn dot(&self) -> Result<f64, Error> {
        let variant = dot::KERNEL.variant(&[], dot::KERNEL.default_schedule());
        let lanes = self.workgroups * lanes(&dot::KERNEL);
        let out = self.gpu.buffer("products", 4 * u64::from(lanes))?;
        let seconds = self.seconds_a_step(MOST_STEPS, &|recorder, steps| {
            let params = MeasureDotParams { steps, factor: 0x7f80_03fd };
            recorder.dispatch(&variant, &[(&out).into()], bytemuck::bytes_of(&params), [self.workgroups, 1, 1]);
        })?;
        Ok((u64::from(lanes) * dot::STEP_OPS) as f64 / seconds)
    }

    /// `None` where there are no cooperative matrices.
    fn matrix(&self) -> Result<Option<f64>, Error> {
        let limits = self.gpu.limits();
        let part = match limits.coop_side {
            16 => Part::Coop16,
            8 => Part::Coop8,
            _ => return Ok(None),
        };
        let side = u64::from(limits.coop_side);
        let variant = matrix::KERNEL.variant(&[part], matrix::KERNEL.default_schedule());
        let workgroups = self.workgroups.min(2048);
        let subgroups = u64::from(workgroups * lanes(&matrix::KERNEL).div_ceil(limits.max_subgroup_lanes));
        let products = subgroups * matrix::ACCUMULATORS as u64;
        let factors = vec![f16::from_f32(0.125); matrix::FACTORS * (side * side) as usize];
        let x = self.gpu.buffer("factors", 2 * factors.len() as u64)?;
        let out = self.gpu.buffer("products", 4 * products * side * side)?;
        self.gpu.upload(&x, 0, bytemuck::cast_slice(&factors))?;
        let seconds = self.seconds_a_step(MOST_STEPS, &|recorder, steps| {
            let buffers = [&x, &out].map(Into::into);
            let params = MeasureMatrixParams { steps };
            recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), [workgroups, 1, 1]);
        })?;
        Ok(Some((products * 2 * side.pow(3)) as f64 / seconds))
    }

    /// Microseconds of the host for one more dispatch: what a longer step takes longer to record and submit.
    fn launch_us(&self) -> Result<f64, Error> {
        let (x, y) = (self.gpu.buffer("little", LITTLE)?, self.gpu.buffer("little", LITTLE)?);
        let lowest = |dispatches: usize| -> Result<f64, Error> {
            let mut best = f64::INFINITY;
            for _ in 0..3 * SAMPLES {
                let start = Instant::now();
                let mut recorder = self.gpu.begin_step(&self.ring);
                (0..dispatches).for_each(|_| little(&mut recorder, &x, &y));
                let submission = recorder.submit()?;
                best = best.min(start.elapsed().as_secs_f64());
                submission.collect()?;
            }
            Ok(1e6 * best)
        };
        Ok(((lowest(4 * CHAIN)? - lowest(CHAIN)?) / (3 * CHAIN) as f64).max(0.0))
    }

    /// Microseconds that a dispatch takes longer when it reads what the last one wrote: a chain of them against as many that
    /// write buffers of their own.
    fn drain_us(&self) -> Result<f64, Error> {
        let buffers = (0..=CHAIN).map(|_| self.gpu.buffer("little", LITTLE)).collect::<Result<Vec<_>, Error>>()?;
        let chain = self.seconds(&|recorder| {
            (0..CHAIN).for_each(|link| little(recorder, &buffers[link % 2], &buffers[(link + 1) % 2]));
        })?;
        let apart = self.seconds(&|recorder| {
            (0..CHAIN).for_each(|link| little(recorder, &buffers[CHAIN], &buffers[link]));
        })?;
        Ok((1e6 * (chain - apart) / (CHAIN - 1) as f64).max(0.0))
    }
}

/// A dispatch that does next to nothing.
fn little(recorder: &mut Recorder<'_>, x: &Buffer, y: &Buffer) {
    let variant = copy::KERNEL.variant(&[], copy::KERNEL.default_schedule());
    let quads = (LITTLE / 16) as u32;
    let params = MeasureCopyParams { quads, chunk: quads };
    recorder.dispatch(&variant, &[x, y].map(Into::into), bytemuck::bytes_of(&params), [1, 1, 1]);
}

/// Lanes of a workgroup of the default schedule.
fn lanes(kernel: &Kernel) -> u32 {
    kernel.default_schedule().values[0]
}
