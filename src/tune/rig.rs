//! What all measurements on an adapter share: kernels, a clock, and buffers of random numbers.

use super::clock::Clock;
use crate::batch::StepLimits;
use crate::cost::AdapterClass;
use crate::error::Error;
use crate::gpu::{Buffer, Gpu, StepRing, Variant};
use crate::ops::{Dtype, Kernels, Ops, Types};
use crate::plan::{AttentionShape, KvGroup, Numerics, Plan, Planner};
use crate::schedules::Terms;
use raglan_shaders::random_weights::{KERNEL, RandomWeightsParams, workgroups};
use raglan_shaders::{KvType, WeightFormat};
use std::ops::Range;

/// Bytes of results that are compared at most, as whole rows and at least two of them.
pub(super) const COMPARED_BYTES: u64 = 1 << 20;

/// Room for the rows that are compared.
const RING_BYTES: u64 = 8 << 20;

/// Numbers to a row, as random ones are made.
const ARENA_COLS: usize = 256;

/// Keys and values lie between 2^this and twice that, with either sign.
pub(super) const KV_EXPONENT: i32 = -4;

/// What stands where a candidate must write: NaN in f32, and in f16.
const POISON: u8 = 0xff;

/// Windows that are together so many times as long as one must be are enough, however few.
const LONG_WINDOWS: f64 = 3.0;

/// Dispatches of a submission at most: their descriptions take memory on the host.
const MOST_REPEATS: usize = 512;

/// Which types of numbers kernels take.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inputs {
    /// Inputs of products and attention.
    pub dtype: Dtype,
    /// Whether a few rows may meet weights in blocks in 8 bits.
    pub int8_activations: bool,
}

/// Where a problem is measured.
pub(super) struct Rig {
    pub(super) gpu: Gpu,
    pub(super) kernels: Kernels,
    pub(super) clock: Clock,
    pub(super) inputs: Inputs,
    ring: StepRing,
    no_plan: Plan,
    arenas: Option<[Buffer; 2]>,
}

/// A run of one candidate: what it takes, and the rows that were asked for.
pub(super) struct Met {
    /// Of all dispatches.
    pub(super) us: f64,
    /// The rows, one after the other.
    pub(super) bytes: Vec<u8>,
}

/// Rows of a buffer.
#[derive(Debug, Clone)]
pub(super) struct Looked {
    /// Where they lie.
    pub(super) rows: Vec<usize>,
    /// Bytes of each.
    pub(super) row_bytes: u64,
}

impl Rig {
    /// # Errors
    /// If the adapter is lost or has no room for some megabytes.
    pub(super) fn new(gpu: &Gpu, inputs: Inputs) -> Result<Rig, Error> {
        let types = Types::of(gpu, inputs.dtype);
        let heads = AttentionShape {
            num_heads: 1,
            num_kv_heads: 1,
            head_dim: 64,
            groups: vec![KvGroup { window: None, kv: types.kv }],
            numerics: Numerics::Fast,
        };
        let kernels = Kernels::new(gpu, types, planner(gpu, heads, 1).with_int8_activations(inputs.int8_activations))?;
        let ring = gpu.step_ring(1, RING_BYTES, RING_BYTES)?;
        let clock = Clock::new(gpu, &ring)?;
        Ok(Rig { gpu: gpu.clone(), kernels, clock, inputs, ring, no_plan: Plan::default(), arenas: None })
    }

    /// What decides which choices may be made.
    pub(super) fn terms(&self) -> &Terms {
        self.kernels.planner.terms()
    }

    /// Whether inputs are f16.
    pub(super) fn is_f16(&self) -> bool {
        self.kernels.types.act_bytes() == 2
    }

    /// Runs what `record` records, once, with `looked` rows of `out` poisoned before and read after.
    ///
    /// # Errors
    /// If the adapter was lost, or refused something.
    pub(super) fn once<'a>(
        &'a self,
        (out, looked): (&Buffer, &Looked),
        record: &mut dyn FnMut(&mut Ops<'a>),
    ) -> Result<Met, Error> {
        let mut recorder = self.gpu.begin_step(&self.ring);
        self.clock.start(&mut recorder);
        let poison = vec![POISON; looked.row_bytes as usize];
        looked.rows.iter().for_each(|&row| recorder.write(out, row as u64 * looked.row_bytes, &poison));
        let mut ops = Ops { recorder, kernels: &self.kernels, plan: &self.no_plan };
        record(&mut ops);
        for &row in &looked.rows {
            ops.recorder.output(out, row as u64 * looked.row_bytes, looked.row_bytes);
        }
        let (us, bytes) = self.clock.submit(ops.recorder)?;
        Ok(Met { us, bytes })
    }

    /// Microseconds of what `record` records, which is told which repetition it is: the mean of as many as fill a window, given
    /// that one takes about `about_us`, and the least of some windows.
    ///
    /// # Errors
    /// As [`Rig::once`].
    pub(super) fn time<'a>(&'a self, about_us: f64, record: &mut dyn FnMut(&mut Ops<'a>, usize)) -> Result<f64, Error> {
        let window_us = self.clock.window_us();
        let repeats_for = |us: f64| ((1.1 * window_us / us.max(1e-3)).ceil() as usize).clamp(1, MOST_REPEATS);
        let (mut repeats, mut windows, mut least, mut turn) = (repeats_for(about_us), 0, f64::INFINITY, 0);
        let mut spent_us = 0.0;
        while windows < self.clock.windows() && spent_us < LONG_WINDOWS * window_us {
            let mut recorder = self.gpu.begin_step(&self.ring);
            self.clock.start(&mut recorder);
            let mut ops = Ops { recorder, kernels: &self.kernels, plan: &self.no_plan };
            (turn..turn + repeats).for_each(|turn| record(&mut ops, turn));
            turn += repeats;
            let (us, _) = self.clock.submit(ops.recorder)?;
            if us < 0.7 * window_us && repeats < MOST_REPEATS {
                repeats = repeats_for(us / repeats as f64).max(repeats + 1);
                continue;
            }
            least = least.min(us / repeats as f64);
            (windows, spent_us) = (windows + 1, spent_us + us);
        }
        Ok(least)
    }

    /// The variants that `record` would dispatch.
    pub(super) fn rehearse<'a>(&'a self, record: &mut dyn FnMut(&mut Ops<'a>)) -> Vec<Variant> {
        let mut ops =
            Ops { recorder: self.gpu.begin_rehearsal(&self.ring), kernels: &self.kernels, plan: &self.no_plan };
        record(&mut ops);
        ops.recorder.into_rehearsed()
    }

    /// A buffer of random rows; `exponent` is that of floats, which lie between 2^exponent and twice that with either sign,
    /// where it is given, and else about 1 / √cols.
    ///
    /// # Errors
    /// If the adapter has no room or was lost.
    pub(super) fn random(
        &self,
        label: &str,
        (format, rows, cols): (WeightFormat, usize, usize),
        exponent: Option<i32>,
        seed: u32,
    ) -> Result<Buffer, Error> {
        let buffer = self.gpu.buffer(label, (rows * format.gpu_row_bytes(cols)) as u64)?;
        let mut params = RandomWeightsParams::rows(format, cols, 0, rows, seed.wrapping_mul(0x9e37_79b9));
        match (format, exponent) {
            (WeightFormat::F32, Some(exponent)) => params.force = ((exponent + 127) as u32) << 23,
            (WeightFormat::F16, Some(exponent)) => params.force = (((exponent + 15) as u32) << 10) * 0x0001_0001,
            _ => {}
        }
        let mut recorder = self.gpu.begin_step(&self.ring);
        let variant = KERNEL.variant(&[], KERNEL.default_schedule());
        recorder.dispatch(&variant, &[(&buffer).into()], bytemuck::bytes_of(&params), workgroups(&params));
        recorder.submit()?.collect()?;
        Ok(buffer)
    }

    /// Puts lists into their buffers.
    ///
    /// # Errors
    /// As [`Rig::once`].
    ///
    /// # Panics
    /// If they pass the ring.
    pub(super) fn write(&self, lists: &[(&Buffer, &[u8])]) -> Result<(), Error> {
        let mut recorder = self.gpu.begin_step(&self.ring);
        lists.iter().for_each(|(buffer, bytes)| recorder.write(buffer, 0, bytes));
        recorder.submit()?.collect().map(|_| ())
    }

    /// Random keys and values that all batches read, larger than caches; with the bytes of each of the two.
    ///
    /// # Errors
    /// As [`Rig::random`].
    pub(super) fn arenas(&mut self) -> Result<[Buffer; 2], Error> {
        if let Some(arenas) = &self.arenas {
            return Ok(arenas.clone());
        }
        let fits = self.gpu.limits().max_binding_bytes;
        let bytes = if self.gpu.is_software() { fits.min(16 << 20) } else { fits.min(1 << 30) };
        let format = if self.kernels.types.kv == KvType::F16 { WeightFormat::F16 } else { WeightFormat::F32 };
        let rows = (bytes / format.gpu_row_bytes(ARENA_COLS) as u64) as usize;
        let arena = |seed| self.random("measured arena", (format, rows, ARENA_COLS), Some(KV_EXPONENT), seed);
        let arenas = [arena(7)?, arena(8)?];
        Ok(self.arenas.insert(arenas).clone())
    }

    /// The format of inputs, as a row of weights would have it.
    pub(super) fn act_format(&self) -> WeightFormat {
        if self.is_f16() { WeightFormat::F16 } else { WeightFormat::F32 }
    }

    /// Bytes of what a measurement reads, so that no cache holds it; a small part of the adapter's memory, since a block of shapes
    /// is there at once.
    pub(super) fn rotated_bytes(&self) -> u64 {
        let fits = self.gpu.limits().max_binding_bytes;
        if self.gpu.is_software() {
            return fits.min(16 << 20);
        }
        let memory = self.gpu.summary().memory.map_or(8 << 30, |memory| memory.available_bytes());
        fits.min((memory / 64).clamp(64 << 20, 256 << 20))
    }
}

/// A planner for one attention, of so many rows at most.
pub(super) fn planner(gpu: &Gpu, heads: AttentionShape, rows: usize) -> Planner {
    let limits = StepLimits { max_batch_tokens: rows, max_sequences: rows, max_adjustments: 1 };
    Planner::new(heads, class(gpu), gpu.limits(), &limits)
}

/// What the rules know of the adapter.
pub(super) fn class(gpu: &Gpu) -> AdapterClass {
    if gpu.is_software() { AdapterClass::Software } else { AdapterClass::Hardware }
}

impl Looked {
    /// The first, the last and some of `rows` between, evenly.
    pub(super) fn of(rows: usize, row_bytes: usize) -> Looked {
        let most = (COMPARED_BYTES as usize / row_bytes).max(2).min(rows);
        let at = |index: usize| if most > 1 { index * (rows - 1) / (most - 1) } else { 0 };
        Looked { rows: (0..most).map(at).collect(), row_bytes: row_bytes as u64 }
    }

    /// What was read of them, as f32.
    pub(super) fn floats(bytes: &[u8], range: Range<usize>, is_f16: bool) -> Vec<f32> {
        let bytes = &bytes[range];
        match is_f16 {
            true => bytemuck::cast_slice::<u8, half::f16>(bytes).iter().map(|value| value.to_f32()).collect(),
            false => {
                bytes.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
            }
        }
    }
}
