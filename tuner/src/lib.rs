//! The AutoTuner's mind: which candidate of a space to run for a shape, from plain numbers. It knows no GPU and no shader
//! text.
//!
//! - A [`Space`] is what is chosen for one kind of dispatch; a [`Candidate`] is one way to run it; a [`Cost`] is what a
//!   candidate does for a shape.
//! - A [`Dataset`] holds measurements; [`split()`] says which of its shapes are trained on.
//! - [`train()`] keeps a [`portfolio()`] of each space, fits the prior of it and an MLP on the prior's residual: a [`Model`].
//! - [`Weights`] are the models of one adapter type, in a file.
//! - [`Model::pick`] chooses, in less than a microsecond; a [`Memo`] remembers.
//! - [`evaluate()`] compares the choices with exhaustive search on shapes that training never saw.

#![forbid(unsafe_code)]

mod dataset;
mod error;
mod evaluate;
mod features;
mod latency;
mod memo;
mod mlp;
mod model;
mod numbers;
mod portfolio;
mod prior;
mod space;
mod split;
mod table;
mod train;
mod wave;
mod weights;

pub use dataset::{CHOOSING, Dataset, Header, Row, SCORING, sha256_hex};
pub use error::Error;
pub use evaluate::{Methods, Report, Rules, Scores, ShapeRecord, SpaceReport, Splits, evaluate};
pub use latency::{Latency, latency};
pub use memo::Memo;
pub use model::{Model, Pick};
pub use portfolio::{go_on, portfolio};
pub use space::{Candidate, Dim, DimKind, MOST_CANDIDATES, MOST_DIMS, Space};
pub use split::{Split, split};
pub use train::{TrainOptions, train};
pub use wave::{Cost, WaveModel};
pub use weights::Weights;
