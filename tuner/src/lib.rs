//! The AutoTuner's mind: what a schedule will cost, from plain numbers. It knows no GPU and no shader text.
//!
//! What is here is the analytical part: a wave model whose constants describe a type of adapter. The learned part corrects
//! it and is not there yet.

mod wave;

pub use wave::{Cost, WaveModel};
