//! Matrix products as a run makes them, by whichever choice.

use super::compare::{F16_HALF_STEP, INT8_ROUNDING, Reference, Sums};
use super::rig::{Looked, Rig};
use crate::error::Error;
use crate::gpu::{Buffer, Variant};
use crate::ops::{Norm, Ops, Product, Rows};
use crate::schedules::{LinearChoice, LinearShape};
use crate::weights::{Matrix, Piece};
use raglan_models::Activation;
use raglan_shaders::{BLOCK, WeightFormat};
use smallvec::smallvec;

/// Matrices in turn at most: small models have as many.
const MOST_COPIES: u64 = 64;

/// Epsilon of the norms.
const EPS: f64 = 1e-5;

/// A product with its inputs on the adapter.
pub(super) struct LinearProblem {
    shape: LinearShape,
    /// In turn, so that no cache holds them.
    weights: Vec<Matrix>,
    /// In f32, where it is normed.
    x: Rows,
    norm: Buffer,
    normed: Rows,
    out: Rows,
    /// Results before the gates are closed, where the product is gated.
    sums: Option<Rows>,
    looked: Looked,
    reference: Reference,
}

impl LinearProblem {
    /// Inputs of `shape`, and what `default` makes of them; the matrices take `bytes` together, but are at most as many as a model
    /// has.
    ///
    /// # Errors
    /// If the adapter has no room, was lost, or cannot run the default.
    pub(super) fn new(
        rig: &mut Rig,
        shape: LinearShape,
        default: &LinearChoice,
        bytes: u64,
    ) -> Result<LinearProblem, Error> {
        let LinearShape { rows, cols, inner, format, normed, gated } = shape;
        let stride = inner.next_multiple_of(BLOCK);
        let matrix_bytes = (cols * format.gpu_row_bytes(inner)) as u64;
        let copies = bytes.div_ceil(matrix_bytes.max(1)).clamp(1, MOST_COPIES) as u32;
        let weights = (0..copies)
            .map(|copy| {
                let buffer = rig.random("measured weights", (format, cols, inner), None, copy + 1)?;
                let piece = Piece { buffer, format, first_row: 0, rows: cols };
                let starts = if gated { smallvec![0, cols / 2] } else { smallvec![0] };
                Ok(Matrix { pieces: smallvec![piece], rows: cols, inner, starts, interleaved: gated, bias: None })
            })
            .collect::<Result<_, Error>>()?;
        let x_format = if normed { WeightFormat::F32 } else { rig.act_format() };
        let buffer = |label: &str, bytes: usize| rig.gpu.buffer(label, bytes as u64);
        let act_bytes = rig.kernels.types.act_bytes();
        let (out_cols, out_bytes) = if gated { (cols / 2, act_bytes) } else { (cols, 4) };
        let mut problem = LinearProblem {
            shape,
            weights,
            x: Rows { buffer: rig.random("measured rows", (x_format, rows, inner), Some(-1), 91)?, stride },
            norm: rig.random("measured norm", (WeightFormat::F32, 1, inner), Some(-1), 92)?,
            normed: Rows {
                buffer: buffer("measured rows", if normed { rows * stride * act_bytes } else { 16 })?,
                stride,
            },
            out: Rows { buffer: buffer("measured results", rows * out_cols * out_bytes)?, stride: out_cols },
            sums: match gated {
                true => Some(Rows { buffer: buffer("measured sums", rows * cols * 4)?, stride: cols }),
                false => None,
            },
            looked: Looked::of(rows, out_cols * out_bytes),
            reference: Reference::sums(&[], Sums { terms: 0, rounding: 0.0 }),
        };
        problem.reference = problem.reference(rig, default)?;
        Ok(problem)
    }

    /// What the default computes; where the product is gated, from its sums.
    fn reference(&self, rig: &mut Rig, default: &LinearChoice) -> Result<Reference, Error> {
        rig.kernels.planner.force_linear(Some(default.clone()));
        let (out, product) = match &self.sums {
            Some(sums) => (sums, Product::Stored(sums)),
            None => (&self.out, Product::Stored(&self.out)),
        };
        let looked = Looked { row_bytes: 4 * out.stride as u64, rows: self.looked.rows.clone() };
        let met = rig.once((&out.buffer, &looked), &mut |ops| self.record(ops, 0, product))?;
        let values = Looked::floats(&met.bytes, 0..met.bytes.len(), false);
        let is_int8 = rig.terms().int8 && self.shape.format.has_blocks();
        // Normed inputs, and weights in cooperative matrices, may be rounded to f16 or not.
        let f16 = if rig.is_f16() { 2.0 * F16_HALF_STEP } else { 0.0 };
        let rounding = f16 + if is_int8 { INT8_ROUNDING } else { 0.0 };
        let sums = Sums { terms: self.shape.inner + 2, rounding };
        Ok(match self.shape.gated {
            true => Reference::gated(&values, sums, rig.is_f16()),
            false => Reference::sums(&values, sums),
        })
    }

    fn record<'a>(&self, ops: &mut Ops<'a>, turn: usize, out: Product<'_>) {
        let weight = &self.weights[turn % self.weights.len()];
        match self.shape.normed {
            true => {
                let norm = Norm { weight: &self.norm, cols: self.shape.inner, eps: EPS, gather: None };
                ops.norm_linear(&self.x, norm, weight, self.shape.rows, &self.normed, out);
            }
            false => ops.linear(&self.x, weight, self.shape.rows, out),
        }
    }

    fn product(&self) -> Product<'_> {
        match self.shape.gated {
            true => Product::Gated(&self.out, Activation::Silu),
            false => Product::Stored(&self.out),
        }
    }

    /// The kernels that a choice runs.
    pub(super) fn variants(&self, rig: &mut Rig, choice: &LinearChoice) -> Vec<Variant> {
        rig.kernels.planner.force_linear(Some(choice.clone()));
        rig.rehearse(&mut |ops| self.record(ops, 0, self.product()))
    }

    /// Runs a choice once and compares what it computes with the default's: its microseconds, or what is wrong with it.
    ///
    /// # Errors
    /// If the adapter was lost, or refused something.
    pub(super) fn check(&self, rig: &mut Rig, choice: &LinearChoice) -> Result<Result<f64, String>, Error> {
        rig.kernels.planner.force_linear(Some(choice.clone()));
        let out = (&self.out.buffer, &self.looked);
        let met = rig.once(out, &mut |ops| self.record(ops, 0, self.product()))?;
        let values = Looked::floats(&met.bytes, 0..met.bytes.len(), self.shape.gated && rig.is_f16());
        Ok(self.reference.check(&values).map(|_| met.us))
    }

    /// What a choice computes, bit for bit.
    ///
    /// # Errors
    /// If the adapter was lost, or refused something.
    pub(super) fn bits(&self, rig: &mut Rig, choice: &LinearChoice) -> Result<Vec<u8>, Error> {
        rig.kernels.planner.force_linear(Some(choice.clone()));
        Ok(rig.once((&self.out.buffer, &self.looked), &mut |ops| self.record(ops, 0, self.product()))?.bytes)
    }

    /// Microseconds of a choice that takes about `about_us`.
    ///
    /// # Errors
    /// If the adapter was lost, or refused something.
    pub(super) fn time(&self, rig: &mut Rig, choice: &LinearChoice, about_us: f64) -> Result<f64, Error> {
        rig.kernels.planner.force_linear(Some(choice.clone()));
        rig.time(about_us, &mut |ops, turn| self.record(ops, turn, self.product()))
    }
}
