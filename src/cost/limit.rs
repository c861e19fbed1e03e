//! How fast a dispatch, and a step of them, could be on an adapter whose rates were measured.

use raglan_shaders::Work;

/// What an adapter was measured to do; a rate that it lacks is `None`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Bytes a second, read alone.
    pub read_bytes_per_s: f64,
    /// Bytes a second, read and written.
    pub copy_bytes_per_s: f64,
    /// Products and sums a second of lanes in f32.
    pub f32_flops_per_s: f64,
    /// The same in f16.
    pub f16_flops_per_s: Option<f64>,
    /// Products and sums of packed int8 a second.
    pub int8_ops_per_s: f64,
    /// Products and sums a second of cooperative matrices, f16 in and f32 out.
    pub matrix_flops_per_s: Option<f64>,
    /// What one more dispatch costs the host to record and submit, in microseconds.
    pub launch_us: f64,
    /// What a dispatch takes longer that needs the one before, than one that does not, in microseconds.
    pub drain_us: f64,
}

/// Work of several dispatches and the least time that it needs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limit {
    /// Dispatches.
    pub dispatches: usize,
    /// Read and written.
    pub bytes: f64,
    /// Operations of products.
    pub flops: f64,
    /// Sum over the dispatches of what each needs.
    pub us: f64,
}

impl Rates {
    /// The fastest that products of f16 run, whatever multiplies them.
    pub fn product_flops_per_s(&self) -> f64 {
        let rates = [Some(self.f32_flops_per_s), self.f16_flops_per_s, self.matrix_flops_per_s];
        rates.into_iter().flatten().fold(0.0, f64::max)
    }

    /// The least time of a dispatch, in microseconds: of its bytes or of its operations, whichever is longer. What waits for
    /// the dispatch before it is not in it.
    pub fn limit_us(&self, work: &Work) -> f64 {
        let bytes_s = work.read_bytes as f64 / self.read_bytes_per_s + work.write_bytes as f64 / self.copy_bytes_per_s;
        1e6 * bytes_s.max(work.flops as f64 / self.product_flops_per_s())
    }

    /// The least time of dispatches one after the other.
    pub fn limit<'a>(&self, works: impl IntoIterator<Item = &'a Work>) -> Limit {
        let mut all = Limit::default();
        for work in works {
            all.dispatches += 1;
            all.bytes += work.bytes() as f64;
            all.flops += work.flops as f64;
            all.us += self.limit_us(work);
        }
        all
    }
}

impl Limit {
    /// This work so many times.
    #[must_use]
    pub fn times(self, factor: f64) -> Limit {
        Limit {
            dispatches: (self.dispatches as f64 * factor).round() as usize,
            bytes: self.bytes * factor,
            flops: self.flops * factor,
            us: self.us * factor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raglan_shaders::attention::{AttentionItem, DIRECT};
    use raglan_shaders::{Heads, KvType, WeightFormat};

    /// The rates of DESIGN's table for an H100: 3.0 TB/s and 160 TFLOP/s.
    const H100: Rates = Rates {
        read_bytes_per_s: 3.0e12,
        copy_bytes_per_s: 3.0e12,
        f32_flops_per_s: 60e12,
        f16_flops_per_s: None,
        int8_ops_per_s: 0.0,
        matrix_flops_per_s: Some(160e12),
        launch_us: 0.7,
        drain_us: 2.0,
    };

    /// A decode step of Llama-2-13B in f16 with so many keys, op by op.
    fn llama_2_13b(keys: u32) -> Vec<Work> {
        let heads = Heads {
            num_heads: 40,
            num_kv_heads: 40,
            head_dim: 128,
            head_stride: 128,
            act_bytes: 2,
            kv: KvType::F16,
            window: 0,
        };
        let item = AttentionItem {
            first_row: 0,
            rows: 1,
            first_slot: 0,
            count: keys,
            first_position: 0,
            row_position: keys - 1,
            partial: DIRECT,
        };
        let linear = |cols, inner| Work::linear([1, cols, inner], WeightFormat::F16, 2, 4);
        let layer = [
            Work::rms_norm(1, 5120, 2),
            linear(3 * 5120, 5120),
            Work::attention(&[item], &heads),
            linear(5120, 5120),
            Work::rms_norm(1, 5120, 2),
            linear(2 * 13_824, 5120),
            linear(5120, 13_824),
        ];
        let mut step: Vec<Work> = (0..40).flat_map(|_| layer).collect();
        step.push(linear(32_000, 5120));
        step
    }

    #[test]
    fn llama_2_13b_on_an_h100_needs_what_the_design_says() {
        for (keys, wanted_ms) in [(1024, 8.9), (32_768, 17.5), (70_000, 27.7)] {
            let met_ms = H100.limit(&llama_2_13b(keys)).us / 1e3;
            assert!(
                (met_ms / wanted_ms - 1.0).abs() < 0.01,
                "{keys} keys: {met_ms:.2} ms, the design says {wanted_ms}"
            );
        }
    }

    #[test]
    fn bytes_and_operations_of_that_step_are_those_counted_by_hand() {
        let step = H100.limit(&llama_2_13b(1024));
        // 40 layers of 4 · 5120² + 3 · 5120 · 13824 weights and the vocabulary's 32000 · 5120, at 2 bytes; 819,200 bytes a key.
        let weights = 40.0 * (4.0 * 5120.0 * 5120.0 + 3.0 * 5120.0 * 13_824.0) + 32_000.0 * 5120.0;
        let bytes = 2.0 * weights + 819_200.0 * 1024.0;
        assert!((step.bytes / bytes - 1.0).abs() < 1e-3, "{} of {bytes}", step.bytes);
        assert_eq!(step.flops, 2.0 * weights + 40.0 * 4.0 * 1024.0 * 5120.0);
        assert_eq!(step.dispatches, 281);
    }

    #[test]
    fn a_product_of_many_rows_is_bound_by_the_matrix_rate() {
        let work = Work::linear([4096, 4096, 4096], WeightFormat::F16, 2, 4);
        let same = |met: f64, wanted: f64| assert!((met / wanted - 1.0).abs() < 1e-12, "{met} of {wanted}");
        same(H100.limit_us(&work), 1e6 * 2.0 * 4096f64.powi(3) / 160e12);
        let lanes_alone = Rates { matrix_flops_per_s: None, ..H100 };
        same(lanes_alone.limit_us(&work), 1e6 * 2.0 * 4096f64.powi(3) / 60e12);
        assert_eq!(H100.limit(&[work]).times(3.0).dispatches, 3);
    }
}
