//! Measuring candidates on the adapter: what the AutoTuner learns from, and what it is compared with.
//!
//! [`shapes`] says which problems are measured. A rig runs one as a run of a model would, by whichever choice, compares what
//! comes out with what the default computes, and times it. [`collect`] does so for as many shapes as its time allows.

mod attention;
mod calibrate;
mod clock;
pub mod collect;
mod compare;
mod linear;
mod probe;
mod problem;
mod rig;
pub mod shapes;
#[cfg(test)]
mod tests;

pub use calibrate::Calibration;
pub use collect::{Options, collect};
pub use probe::{ByMode, Explained, Predicted, Probe, Timed};
pub use rig::Inputs;
