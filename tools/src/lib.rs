//! Makers of test data and plots; nothing imports this package.

pub mod make_checkpoint;
