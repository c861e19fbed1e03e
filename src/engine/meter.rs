//! What benches need of an engine: contexts that nobody had to read, and what a step's dispatches do and take.

use super::Stepper;
use crate::error::Error;
use crate::gpu::{Recorder, Timed, Timer, Work};
use crate::request::{Request, RequestId};
use crate::sequence::Sequence;
use crate::weights::Random;
use raglan_shaders::KvType;
use raglan_shaders::kv_rows::Scale;

/// What was counted and timed of some steps.
#[derive(Debug, Default)]
pub struct Metered {
    /// Steps.
    pub steps: usize,
    /// Of every dispatch, in order.
    pub works: Vec<Work>,
    /// Of every dispatch, in order; empty without a timer.
    pub timed: Vec<Timed>,
}

/// Counts what steps do, and times it where it has a timer.
pub(super) struct Meter {
    timer: Option<Timer>,
    metered: Metered,
    /// What the engine had before, since a timer times one step at a time.
    pipeline: usize,
}

impl Meter {
    pub(super) fn attach(&self, recorder: &mut Recorder<'_>) {
        recorder.count_work();
        if let Some(timer) = &self.timer {
            recorder.with_timer(timer);
        }
    }

    pub(super) fn count(&mut self, recorder: &mut Recorder<'_>) {
        self.metered.steps += 1;
        self.metered.works.extend(recorder.take_counted());
    }

    pub(super) fn collect(&mut self) {
        if let Some(timer) = &self.timer {
            self.metered.timed.extend(timer.take());
        }
    }
}

#[doc(hidden)]
impl Stepper {
    /// Counts what steps do from now on; with a timer they run one at a time, and each dispatch is timed.
    ///
    /// # Panics
    /// If the engine is not idle.
    pub fn start_meter(&mut self, timer: Option<Timer>) {
        assert!(self.is_idle(), "a meter starts while nothing runs");
        let pipeline = if timer.is_some() { std::mem::replace(&mut self.pipeline, 1) } else { self.pipeline };
        self.meter = Some(Meter { timer, metered: Metered::default(), pipeline });
    }

    /// What was counted and timed since the meter was started.
    ///
    /// # Panics
    /// If the engine is not idle.
    pub fn stop_meter(&mut self) -> Metered {
        assert!(self.is_idle(), "a meter stops while nothing runs");
        let Some(meter) = self.meter.take() else { return Metered::default() };
        self.pipeline = meter.pipeline;
        meter.metered
    }

    /// Ends counting and timing, after steps that failed: what they did is forgotten.
    pub fn abandon_meter(&mut self) {
        if let Some(meter) = self.meter.take() {
            self.pipeline = meter.pipeline;
        }
    }

    /// Queues a request whose first `computed` tokens count as read already: their keys and values are what lies in its slots.
    ///
    /// # Errors
    /// As [`Stepper::submit`].
    ///
    /// # Panics
    /// If no token is left to compute.
    pub fn submit_at(&mut self, request: Request, computed: usize) -> Result<RequestId, Error> {
        assert!(computed < request.prompt.len(), "a token is left to compute");
        let checked = request.validate(self.spec().vocab_size, self.longest());
        checked.map_err(|message| Error::Request { message })?;
        let id = RequestId(self.next_request);
        self.next_request += 1;
        let mut sequence = Sequence::new(id, request);
        sequence.assumed = computed;
        self.scheduler.add(sequence);
        Ok(id)
    }

    /// Fills the cache with small random keys and values; those that are quantised all have the same scales.
    ///
    /// # Errors
    /// If the adapter was lost.
    pub fn fill_cache(&mut self) -> Result<(), Error> {
        let mut random = Random::new(&self.gpu)?;
        for layer in &self.kv_cache.layers {
            // The bits of floats are as good as any others for quantised columns.
            let element_bytes = if layer.kv == KvType::F32 { 4 } else { 2 };
            random.fill_floats(&layer.k, element_bytes)?;
            random.fill_floats(&layer.v, element_bytes)?;
            let scale = |bits: usize| match bits {
                // Columns between -1/8 and 7/64, and up to 1/16.
                4 => Scale { step: 1.0 / 64.0, minimum: -1.0 / 8.0 },
                _ => Scale { step: 1.0 / 2048.0, minimum: 0.0 },
            };
            let words = layer.kv.scale_words(scale(layer.kv.k_bits()), scale(layer.kv.v_bits()));
            if !words.is_empty() {
                let row: &[u8] = bytemuck::cast_slice(&words);
                let fill =
                    |_, part: &mut [u8]| part.chunks_exact_mut(row.len()).for_each(|words| words.copy_from_slice(row));
                self.uploader.upload(&layer.scales, 0, layer.scales.bytes(), row.len() as u64, fill)?;
            }
        }
        self.uploader.send()
    }

    /// Whether the first layer turns attention's output back in a dispatch of its own.
    pub fn rotates_back(&self) -> bool {
        self.kv_cache.layers[0].rotates_values() && !self.decoder.weights().layers[0].o_rotated
    }

    /// What keys and values are kept in, as `--kv-type` spells it.
    pub fn kv_type(&self) -> String {
        self.kv_types.to_string()
    }
}
