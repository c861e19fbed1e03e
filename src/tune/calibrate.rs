//! Timing the products of a model that is being loaded.

use super::linear::LinearProblem;
use super::rig::{Inputs, Rig};
use crate::error::Error;
use crate::gpu::Gpu;
use crate::schedules::{LinearChoice, LinearShape, Measure, ProductKey};

/// Bytes of the matrices that a product reads in turn, so that no cache holds them.
const MATRIX_BYTES: u64 = 128 << 20;

/// Columns and inner columns at most, and rows, of products whose bits are compared: some tiles and no whole one.
const SMALL: usize = 512;
const SMALL_ROWS: usize = 19;

/// Times products on the adapter; the first choice of a shape is what the others' results are compared with.
pub struct Calibration {
    rig: Rig,
    open: Option<(LinearShape, LinearProblem)>,
}

impl Calibration {
    /// # Errors
    /// If the adapter is lost or has no room for some megabytes.
    pub fn new(gpu: &Gpu, inputs: Inputs) -> Result<Calibration, Error> {
        Ok(Calibration { rig: Rig::new(gpu, inputs)?, open: None })
    }

    /// Whether a choice computes the bits that `usual` does, for a product of such a kind but of few rows and columns.
    ///
    /// # Errors
    /// If the adapter was lost, or has no room.
    pub fn same_bits(
        &mut self,
        product: ProductKey,
        choice: &LinearChoice,
        usual: &LinearChoice,
    ) -> Result<bool, Error> {
        let small = ProductKey { cols: product.cols.min(SMALL), inner: product.inner.min(SMALL), ..product };
        let problem = LinearProblem::new(&mut self.rig, small.at(SMALL_ROWS), usual, 0)?;
        Ok(problem.bits(&mut self.rig, choice)? == problem.bits(&mut self.rig, usual)?)
    }

    fn time(&mut self, shape: &LinearShape, choice: &LinearChoice) -> Result<Option<f64>, Error> {
        if self.open.as_ref().is_none_or(|(open, _)| open != shape) {
            // Its memory first, or two would have to fit.
            self.open = None;
            let usual = self.rig.kernels.planner.linear_rules(shape);
            let bytes = if self.rig.gpu.is_software() { 0 } else { MATRIX_BYTES };
            self.open = Some((*shape, LinearProblem::new(&mut self.rig, *shape, &usual, bytes)?));
        }
        let Some((_, problem)) = &self.open else { return Ok(None) };
        match problem.check(&mut self.rig, choice)? {
            Ok(about_us) => problem.time(&mut self.rig, choice, about_us).map(Some),
            Err(message) => {
                log::warn!("{} is not taken for {shape:?}: {message}", choice.candidate());
                Ok(None)
            }
        }
    }
}

impl Measure for Calibration {
    fn time_us(&mut self, shape: &LinearShape, choice: &LinearChoice) -> Option<f64> {
        self.time(shape, choice).unwrap_or_else(|error| {
            log::warn!("{} is not measured for {shape:?}: {error}", choice.candidate());
            None
        })
    }
}
