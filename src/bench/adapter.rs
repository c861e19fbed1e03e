//! An adapter with its measured rates, as every report begins.

use super::rates;
use crate::cost::Rates;
use crate::error::Error;
use crate::gpu::{AdapterSummary, Gpu};

/// What was measured, on what, when and by which version.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Adapter {
    /// Name, limits, features, memory.
    pub adapter: AdapterSummary,
    /// The driver's name and version.
    pub driver: String,
    /// When, in UTC.
    pub date: String,
    /// This program's.
    pub version: &'static str,
    /// Whether a CPU plays the GPU: then the times say nothing about a GPU.
    pub is_software: bool,
    /// What it can do.
    pub rates: RatesReport,
}

/// [`Rates`] in the units of a report, and what else is found out once.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct RatesReport {
    /// Read alone, 10⁹ bytes a second.
    pub read_gb_per_s: f64,
    /// Read and written.
    pub copy_gb_per_s: f64,
    /// Lanes in f32, 10¹² operations a second.
    pub f32_tflop_per_s: f64,
    /// Lanes in f16.
    pub f16_tflop_per_s: Option<f64>,
    /// Lanes on packed int8, 10¹² operations a second.
    pub int8_top_per_s: f64,
    /// Cooperative matrices.
    pub matrix_tflop_per_s: Option<f64>,
    /// The side of those.
    pub matrix_side: u32,
    /// One more dispatch, on the host.
    pub launch_us: f64,
    /// What a dispatch takes longer that needs the one before.
    pub drain_us: f64,
    /// The largest buffer that could be allocated, of 4 GiB and less.
    pub largest_buffer_bytes: u64,
    #[serde(skip)]
    rates: Rates,
}

impl Adapter {
    /// Measures an adapter.
    ///
    /// # Errors
    /// If it is lost, refuses a kernel, or has no room for 16 MiB.
    pub fn measure(gpu: &Gpu, progress: super::Progress<'_>) -> Result<Adapter, Error> {
        let rates = rates::measure(gpu, progress)?;
        let summary = gpu.summary().clone();
        Ok(Adapter {
            driver: format!("{} {}", summary.driver, summary.driver_info),
            date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            version: env!("CARGO_PKG_VERSION"),
            is_software: summary.is_software(),
            adapter: summary,
            rates: RatesReport {
                read_gb_per_s: rates.read_bytes_per_s / 1e9,
                copy_gb_per_s: rates.copy_bytes_per_s / 1e9,
                f32_tflop_per_s: rates.f32_flops_per_s / 1e12,
                f16_tflop_per_s: rates.f16_flops_per_s.map(|rate| rate / 1e12),
                int8_top_per_s: rates.int8_ops_per_s / 1e12,
                matrix_tflop_per_s: rates.matrix_flops_per_s.map(|rate| rate / 1e12),
                matrix_side: gpu.limits().coop_side,
                launch_us: rates.launch_us,
                drain_us: rates.drain_us,
                largest_buffer_bytes: largest_buffer(gpu)?,
                rates,
            },
        })
    }
}

impl RatesReport {
    /// The rates themselves.
    pub fn rates(&self) -> &Rates {
        &self.rates
    }
}

/// The largest of 4 GiB, 4 GiB less 2 MiB, 2 GiB and so on that the driver gives.
fn largest_buffer(gpu: &Gpu) -> Result<u64, Error> {
    let full = 4u64 << 30;
    for bytes in [full, full - (2 << 20), full / 2, full / 2 - 16, full / 4, full / 8, full / 16] {
        match gpu.buffer("the largest buffer", bytes) {
            Ok(_) => return Ok(bytes),
            Err(Error::OutOfMemory { .. } | Error::BufferTooLarge { .. } | Error::Rejected { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(0)
}
