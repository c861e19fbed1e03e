//! Predicted time, as plain data: what decides how finely attention is split.

mod limit;
mod step;

pub use limit::{Limit, Rates};
pub use step::{Load, ModelCost, Predicted, StepCost};

use raglan_tuner::WaveModel;

/// What is known of an adapter before anything was measured on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterClass {
    /// Shaders run on the CPU: few units, dear barriers, no gain from splitting.
    Software,
    /// Anything else.
    Hardware,
}

impl AdapterClass {
    /// Constants by which work is split, right within an order of magnitude. On hardware an H100's: parts that fill it cost a
    /// smaller adapter little, and too few would leave most of it idle.
    pub fn wave_model(self) -> WaveModel {
        match self {
            AdapterClass::Software => WaveModel { launch_us: 20.0, bytes_per_us: 2e4, flops_per_us: 2e4, wave: 2.0 },
            AdapterClass::Hardware => WaveModel { launch_us: 3.0, bytes_per_us: 3e6, flops_per_us: 3e7, wave: 264.0 },
        }
    }

    /// Bytes and operations a microsecond by which steps are predicted until some were measured: on hardware those of a
    /// middling adapter.
    pub fn step_rates(self) -> (f64, f64) {
        match self {
            AdapterClass::Software => (2e4, 2e4),
            AdapterClass::Hardware => (5e5, 1e7),
        }
    }

    /// Units that each run some workgroups at once: an H100 has 132, and work that fills those fills a smaller adapter.
    pub fn units(self) -> usize {
        match self {
            AdapterClass::Software => 2,
            AdapterClass::Hardware => 132,
        }
    }
}

/// What a form of attention does for one key of a run, and for a part of one.
#[derive(Debug, Clone, Copy)]
pub struct KeyCost {
    /// Workgroups that read the run.
    pub workgroups: usize,
    /// Workgroups that run at once.
    pub wave: usize,
    /// Workgroups that are enough to keep the adapter busy; fewer run no faster than these.
    pub busy: usize,
    /// Bytes of the key and its value in one of them.
    pub bytes: usize,
    /// Floating-point operations in one of them.
    pub flops: usize,
    /// Bytes of one workgroup's partial results, written and read.
    pub partial_bytes: usize,
}

/// What it takes to start a workgroup and to join its lanes, in keys of its share of the adapter.
const START_KEYS: usize = 32;

/// The fewest keys to a work item of a run that is split, and what its keys are a multiple of.
const LEAST_CHUNK: usize = 64;
const CHUNK_STEP: usize = 32;

/// Keys to a work item, from the runs of keys that its items cover: all of the longest run, a power of two, or what fills
/// one, two or three waves of workgroups, whichever has the least predicted time.
pub fn attention_chunk(model: &WaveModel, runs: &[u32], cost: &KeyCost) -> usize {
    let longest = runs.iter().copied().max().unwrap_or(0).max(1) as usize;
    let keys: usize = runs.iter().map(|&keys| keys as usize).sum();
    let mut best = (attention_us(model, runs, cost, longest), longest);
    let mut consider = |chunk: usize| {
        let time = attention_us(model, runs, cost, chunk);
        if time < best.0 {
            best = (time, chunk);
        }
    };
    for waves in 1..=3 {
        // So many parts at most: every run may end with a part that is not whole.
        let parts = waves * cost.wave / cost.workgroups.max(1);
        if parts > runs.len() {
            let chunk = if let [_] = runs { keys.div_ceil(parts) } else { keys.div_ceil(parts - runs.len()) };
            let chunk = chunk.next_multiple_of(CHUNK_STEP).max(LEAST_CHUNK);
            if chunk < longest {
                consider(chunk);
            }
        }
    }
    (8..).map(|shift| 1 << shift).take_while(|&chunk| chunk < longest).for_each(consider);
    best.1
}

/// Predicted time of runs in parts of `chunk` keys: whole parts go in waves, and what is left of runs fills the last of them.
fn attention_us(model: &WaveModel, runs: &[u32], cost: &KeyCost, chunk: usize) -> f64 {
    // In 32 bits, since there may be hundreds of runs and a step waits for its plan.
    let chunk_keys = chunk as u32;
    let (mut whole, mut ends, mut rest, mut longest_rest) = (0u32, 0u32, 0u64, 0u32);
    for &keys in runs {
        let left = keys % chunk_keys;
        whole += keys / chunk_keys;
        ends += u32::from(left > 0);
        rest += u64::from(left);
        longest_rest = longest_rest.max(left);
    }
    let (whole, ends) = (whole as usize, ends as usize);
    let (parts, rest) = (whole + ends, rest as usize + ends * START_KEYS);
    let (each, wave) = ((chunk + START_KEYS) as f64, cost.wave as f64);
    let (waves, last) = (whole * cost.workgroups / cost.wave, whole * cost.workgroups % cost.wave);
    let longest = match (last, ends) {
        (0, 0) => 0.0,
        (0, _) => (longest_rest as usize + START_KEYS) as f64,
        _ => each,
    };
    // Keys that the adapter reads meanwhile, were it busy.
    let last_keys = (longest * cost.busy as f64).max(last as f64 * each + (rest * cost.workgroups) as f64);
    let key_us = (cost.bytes as f64 / model.bytes_per_us).max(cost.flops as f64 / model.flops_per_us);
    let split_us = model.launch_us + (parts * cost.workgroups * cost.partial_bytes) as f64 / model.bytes_per_us;
    model.launch_us
        + (waves as f64 * each * wave + last_keys) * key_us
        + if parts > runs.len() { split_us } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VECTOR: KeyCost = KeyCost { workgroups: 8, wave: 396, busy: 264, bytes: 512, flops: 0, partial_bytes: 1024 };

    #[test]
    fn a_few_tiles_of_a_long_prompt_are_split_and_enough_to_fill_the_adapter_are_not() {
        let model = AdapterClass::Hardware.wave_model();
        let tile = KeyCost { flops: 4 * 128 * 32, partial_bytes: 8 * 128 * 32, wave: 264, busy: 264, ..VECTOR };
        assert!(attention_chunk(&model, &[32_768; 4], &tile) <= 4096);
        assert_eq!(attention_chunk(&model, &[4096; 512], &tile), 4096);
    }

    #[test]
    fn a_lone_long_context_is_split_over_the_adapter_and_many_short_ones_are_not() {
        let model = AdapterClass::Hardware.wave_model();
        let chunk = attention_chunk(&model, &[65_536], &VECTOR);
        assert!(chunk <= 4096, "{chunk}");
        assert_eq!(attention_chunk(&model, &[256; 512], &VECTOR), 256);
    }

    #[test]
    fn what_is_split_keeps_the_adapter_busy_and_leaves_no_small_last_wave() {
        let model = AdapterClass::Hardware.wave_model();
        // 40 heads of 128 at f16, four workgroups a unit.
        let cost = KeyCost { workgroups: 40, wave: 528, busy: 264, bytes: 512, flops: 512, partial_bytes: 1024 };
        for keys in [8192usize, 32_768, 70_000] {
            let parts = keys.div_ceil(attention_chunk(&model, &[keys as u32], &cost));
            let workgroups = parts * 40;
            let last = (workgroups - 1) % 528 + 1;
            assert!(last >= if workgroups > 528 { 475 } else { 264 }, "{keys} keys: {workgroups} workgroups");
        }
        assert_eq!(attention_chunk(&model, &[101], &cost), 101, "a merge costs more than a short context");
    }

    #[test]
    fn software_splits_only_as_far_as_its_few_units_go() {
        let model = AdapterClass::Software.wave_model();
        assert!(attention_chunk(&model, &[4096], &KeyCost { workgroups: 3, wave: 2, busy: 2, ..VECTOR }) >= 2048);
    }
}
