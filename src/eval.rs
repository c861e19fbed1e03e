//! The judge of formats: how far a model's logits are from its own with f16 keys and values, and whether it still finds
//! what was said long before.
//!
//! [`compare`] computes the reference's logits once, to a temporary file, and holds each format's against them row by row
//! while they stream: see [`Stats`] for what is told. Beside the formats stands the floor, the reference against itself in
//! steps of another size, so that a number can be read against what rounding alone does. [`needle::run`] hides facts in
//! text and asks for them.

mod format;
mod judge;
pub mod needle;
mod rows;
mod spool;
mod stats;
mod table;

pub use format::Format;
pub use stats::{Bucket, CLEAR_MARGIN, Stats};
pub use table::{End, Job, Progress, Report, ReportRow, Text, TextReport, compare, same_steps};
