//! The models and the adapter that the simulated clock stands for.

use raglan::batch::StepLimits;
use raglan::cost::{ModelCost, StepCost};

/// Bytes of the adapter's memory a microsecond: 3.0 TB/s.
const BYTES_A_US: f64 = 3.0e6;
/// Operations of matrix products a microsecond: 112 TFLOP/s, 0.7 of what cooperative matrices reach on an H100.
const FLOPS_A_US: f64 = 1.12e8;
/// Bytes a microsecond between the adapter and the host: 12 GB/s.
const HOST_BYTES_A_US: f64 = 12e3;
/// Microseconds of a step that does nothing.
const STEP_US: f64 = 120.0;

/// A model on the adapter.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Slots.
    pub(crate) capacity: usize,
    /// What steps take.
    pub(crate) cost: StepCost,
}

impl Machine {
    /// Llama-2-13B in f16; a model of 8 B parameters with grouped queries, in f16, for the workloads of long documents.
    pub(crate) fn of(workload: &str) -> Machine {
        let (capacity, model) = match workload {
            "mix" | "vlong" => (
                440_320,
                ModelCost {
                    weight_bytes: 16e9,
                    token_flops: 16e9,
                    slot_bytes: 131_072.0, // 32 layers, 8 heads of 128, keys and values
                    pair_flops: 4.0 * 4096.0 * 32.0,
                    window: None,
                },
            ),
            _ => (
                63_488,
                ModelCost {
                    weight_bytes: 26e9,
                    token_flops: 26e9,
                    slot_bytes: 819_200.0, // 40 layers, 40 heads of 128, keys and values
                    pair_flops: 4.0 * 5120.0 * 40.0,
                    window: None,
                },
            ),
        };
        let rates = (BYTES_A_US, FLOPS_A_US, HOST_BYTES_A_US, STEP_US);
        Machine { capacity, cost: StepCost::with_rates(model, rates) }
    }
}

/// What a step may hold, whatever the policy.
pub(crate) fn limits() -> StepLimits {
    let max_batch_tokens = 512;
    StepLimits { max_batch_tokens, max_sequences: 256, max_adjustments: 4096 }
}
