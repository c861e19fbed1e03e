//! Benches: how fast this adapter is, how fast models and their kernels run on it, and how far that is from the limit.
//!
//! [`Adapter::measure`] finds the adapter's own rates. [`models::run`] runs a model as a user does, with contexts that nobody
//! had to read; [`kernels::run`] times each dispatch of a few layers of it. Every dispatch says what it must move and compute,
//! so that each row has the time which that needs at the measured rates beside the time that was met.

mod adapter;
pub mod depth;
pub mod kernels;
pub mod models;
mod ops;
pub mod plot;
mod rates;
mod spread;

pub use adapter::{Adapter, RatesReport};
pub use ops::OpRow;
pub use spread::Spread;

use crate::error::Error;
use std::error::Error as _;

/// Hears how far a bench is: what runs now, and which of how many it is.
pub type Progress<'a> = &'a mut dyn FnMut(&str, usize, usize);

/// An error with its causes, as a row tells it.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
