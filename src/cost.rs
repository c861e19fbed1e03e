//! Predicted time, as plain data: what decides how finely attention is split.

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

/// Keys to a work item for the vector form, from the runs of keys that its items cover: the power of two, from 256 to
/// `longest`, with the least predicted time. `key_bytes` is what one key and its value take in the cache.
pub fn attention_chunk(
    model: &WaveModel,
    runs: &[usize],
    workgroups_a_run: usize,
    key_bytes: usize,
    partial_bytes: usize,
) -> usize {
    let longest = runs.iter().copied().max().unwrap_or(0);
    let bytes: f64 = runs.iter().map(|&keys| (keys * key_bytes * workgroups_a_run) as f64).sum();
    let mut best = (f64::INFINITY, longest.max(1));
    let mut chunk = 256;
    loop {
        let items: usize = runs.iter().map(|&keys| keys.div_ceil(chunk)).sum::<usize>() * workgroups_a_run;
        // The slowest workgroup bounds the dispatch from below: `longest` keys at one workgroup's share of the rate.
        let slowest_us = (longest.min(chunk) * key_bytes) as f64 * model.wave / model.bytes_per_us;
        let whole = Cost { bytes, flops: 0.0, workgroups: items as f64 };
        let mut time = model.predict_us(&whole).max(slowest_us);
        if items > runs.len() * workgroups_a_run {
            time +=
                model.predict_us(&Cost { bytes: (items * partial_bytes) as f64, flops: 0.0, workgroups: items as f64 });
        }
        if time < best.0 {
            best = (time, chunk);
        }
        if chunk >= longest {
            return best.1;
        }
        chunk *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_long_context_is_split_over_the_adapter_and_many_short_ones_are_not() {
        let model = AdapterClass::Hardware.wave_model();
        let chunk = attention_chunk(&model, &[65_536], 8, 512, 1024);
        assert!(chunk <= 4096, "{chunk}");
        assert_eq!(attention_chunk(&model, &[256; 512], 8, 512, 1024), 256);
    }

    #[test]
    fn software_splits_only_as_far_as_its_few_units_go() {
        let model = AdapterClass::Software.wave_model();
        assert!(attention_chunk(&model, &[4096], 3, 256, 1024) >= 2048);
    }
}
