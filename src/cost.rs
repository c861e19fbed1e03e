//! Predicted time, as plain data: what decides how finely attention is split.

mod limit;
mod step;

pub use limit::{Limit, Rates};
pub use step::{Load, ModelCost, StepCost};

use raglan_tuner::{Cost, WaveModel};

/// What is known of an adapter before anything was measured on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterClass {
    /// Shaders run on the CPU: few units, dear barriers, no gain from splitting.
    Software,
    /// Anything else.
    Hardware,
}

impl AdapterClass {
    /// Constants that are right within an order of magnitude: they only have to rank splits.
    pub fn wave_model(self) -> WaveModel {
        match self {
            AdapterClass::Software => WaveModel { launch_us: 20.0, bytes_per_us: 2e4, flops_per_us: 2e4, wave: 2.0 },
            AdapterClass::Hardware => WaveModel { launch_us: 3.0, bytes_per_us: 5e5, flops_per_us: 1e7, wave: 256.0 },
        }
    }
}

/// What a form of attention does for one key of a run, and for a part of one.
#[derive(Debug, Clone, Copy)]
pub struct KeyCost {
    /// Workgroups that read the run.
    pub workgroups: usize,
    /// Bytes of the key and its value in one of them.
    pub bytes: usize,
    /// Floating-point operations in one of them.
    pub flops: usize,
    /// Bytes of one workgroup's partial results, written and read.
    pub partial_bytes: usize,
}

/// Keys to a work item, from the runs of keys that its items cover: the power of two, from 256 to the longest run, with
/// the least predicted time.
pub fn attention_chunk(model: &WaveModel, runs: &[u32], cost: &KeyCost) -> usize {
    let longest = runs.iter().copied().max().unwrap_or(0);
    let keys: u64 = runs.iter().map(|&keys| u64::from(keys)).sum();
    let all = (keys as usize * cost.workgroups) as f64;
    // What one workgroup takes for a key, at its share of the adapter's rates.
    let key_us = (cost.bytes as f64 / model.bytes_per_us).max(cost.flops as f64 / model.flops_per_us) * model.wave;
    let mut best = (f64::INFINITY, longest.max(1));
    for shift in 8.. {
        let chunk = 1u32 << shift;
        let parts: u32 = runs.iter().map(|&keys| (keys + (chunk - 1)) >> shift).sum();
        let workgroups = (parts as usize * cost.workgroups) as f64;
        let whole = Cost { bytes: all * cost.bytes as f64, flops: all * cost.flops as f64, workgroups };
        // The slowest workgroup bounds the dispatch from below.
        let mut time = model.predict_us(&whole).max(f64::from(longest.min(chunk)) * key_us);
        if parts as usize > runs.len() {
            time += model.predict_us(&Cost { bytes: workgroups * cost.partial_bytes as f64, flops: 0.0, workgroups });
        }
        if time < best.0 {
            best = (time, chunk);
        }
        if chunk >= longest {
            break;
        }
    }
    best.1 as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const VECTOR: KeyCost = KeyCost { workgroups: 8, bytes: 512, flops: 0, partial_bytes: 1024 };

    #[test]
    fn a_few_tiles_of_a_long_prompt_are_split_and_enough_to_fill_the_adapter_are_not() {
        let model = AdapterClass::Hardware.wave_model();
        let tile = KeyCost { workgroups: 8, bytes: 512, flops: 4 * 128 * 32, partial_bytes: 8 * 128 * 32 };
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
    fn software_splits_only_as_far_as_its_few_units_go() {
        let model = AdapterClass::Software.wave_model();
        assert!(attention_chunk(&model, &[4096], &KeyCost { workgroups: 3, ..VECTOR }) >= 2048);
    }
}
