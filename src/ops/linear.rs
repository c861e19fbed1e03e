use super::rms_norm::Norm;
use super::{Ops, Rows};
use crate::schedules::{LinearChoice, LinearShape};
use crate::weights::{Matrix, Piece};
use raglan_models::Activation;
use raglan_shaders::linear::LinearParams;
use raglan_shaders::matvec::{self, MatvecParams};
use raglan_shaders::{BLOCK, Part, Work};

/// What becomes of a product of `[rows, cols]`.
#[derive(Debug, Clone, Copy)]
pub enum Product<'a> {
    /// It is stored.
    Stored(&'a Rows),
    /// It is added to what is there.
    Added(&'a Rows),
    /// Its columns are gates and ups in turn: activation(gate) · up is stored, `[rows, cols / 2]`.
    Gated(&'a Rows, Activation),
}

/// Rows of a product's input: as they are, or normed on the way.
#[derive(Clone, Copy)]
struct Input<'a> {
    x: &'a Rows,
    norm: Option<Norm<'a>>,
    /// Whether they are normed, here or before.
    normed: bool,
}

impl Ops<'_> {
    /// `x · weightᵀ + bias`: `[rows, inner]` → `[rows, weight.rows]`, one dispatch a piece of the matrix.
    pub fn linear(&mut self, x: &Rows, weight: &Matrix, rows: usize, out: Product<'_>) {
        self.product(Input { x, norm: None, normed: false }, weight, rows, out);
    }

    /// `norm(residual) · weightᵀ + bias`, the norm within the product where that is chosen for all of its pieces, else before
    /// it, into `normed`.
    pub fn norm_linear(
        &mut self,
        residual: &Rows,
        norm: Norm<'_>,
        weight: &Matrix,
        rows: usize,
        normed: &Rows,
        out: Product<'_>,
    ) {
        let gated = matches!(out, Product::Gated(..));
        let fused = |piece: &Piece| self.choice(piece, weight, rows, true, gated).fused;
        if weight.pieces.iter().all(fused) {
            self.product(Input { x: residual, norm: Some(norm), normed: true }, weight, rows, out);
        } else {
            self.rms_norm(residual, norm, rows, normed);
            self.product(Input { x: normed, norm: None, normed: true }, weight, rows, out);
        }
    }

    fn choice(&self, piece: &Piece, weight: &Matrix, rows: usize, normed: bool, gated: bool) -> LinearChoice {
        let (cols, inner, format) = (piece.rows, weight.inner, piece.format);
        self.kernels.planner.linear(&LinearShape { rows, cols, inner, format, normed, gated })
    }

    fn product(&mut self, input: Input<'_>, weight: &Matrix, rows: usize, out: Product<'_>) {
        assert_eq!(input.x.stride, weight.inner.next_multiple_of(BLOCK), "columns of a product's input");
        let (out, epilogue, add, activation) = match out {
            Product::Stored(out) => (out, Part::EpiloguePlain, 0, 0),
            Product::Added(out) => (out, Part::EpiloguePlain, 1, 0),
            Product::Gated(out, activation) => (out, Part::EpilogueGated, 0, super::activation_number(activation)),
        };
        let is_gated = epilogue == Part::EpilogueGated;
        assert!(weight.interleaved || !is_gated, "gates and ups in turn");
        assert_eq!(out.stride, if is_gated { weight.rows / 2 } else { weight.rows }, "columns of a product");
        let (types, absent) = (self.kernels.types, &self.kernels.absent);
        let bias = weight.bias.as_ref().unwrap_or(absent);
        for piece in &weight.pieces {
            let params = LinearParams {
                rows: rows as u32,
                cols: piece.rows as u32,
                blocks: (input.x.stride / BLOCK) as u32,
                weight_row_quads: (piece.format.gpu_row_bytes(weight.inner) / 16) as u32,
                weight_blocks: piece.format.row_blocks(weight.inner) as u32,
                first_col: piece.first_row as u32,
                out_stride: out.stride as u32,
                bias: u32::from(weight.bias.is_some()),
                add,
                activation,
            };
            let choice = self.choice(piece, weight, rows, input.normed, is_gated);
            let out_bytes = if is_gated { types.act_bytes() / 2 } else { 4 };
            let x_bytes = if input.norm.is_some() { 4 } else { types.act_bytes() };
            let work = Work::linear([rows, piece.rows, weight.inner], piece.format, x_bytes, out_bytes)
                .and_reading(if add == 1 { 4 * rows * piece.rows } else { 0 });
            let part = Part::Weight(piece.format);
            let buffers = [&piece.buffer, &piece.buffer, &input.x.buffer, bias, &out.buffer].map(Into::into);
            if choice.takes_few_rows() {
                let mut params = MatvecParams::from(&params);
                let (mut weights, mut gather, mut reads) = (absent, absent, Part::InputAct);
                if let Some(norm) = input.norm {
                    (params.norm_cols, params.eps) = (norm.cols as u32, norm.eps as f32);
                    params.gather = u32::from(norm.gather.is_some());
                    (weights, gather, reads) = (norm.weight, norm.gather.unwrap_or(absent), Part::InputNormed);
                }
                let workgroups = matvec::workgroups(&params, &choice.schedule);
                let variant = choice.kernel.variant(&[part, types.act, reads, types.reduce, epilogue], choice.schedule);
                let [weight, words, x, bias, out] = buffers;
                let buffers = [weight, words, x, bias, out, weights.into(), gather.into()];
                self.recorder.work(|| work);
                self.recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), workgroups);
            } else {
                assert!(input.norm.is_none(), "only products of few rows norm their inputs");
                self.recorder.work(|| work);
                self.matmul(&choice, &params, (part, epilogue), &buffers);
            }
        }
    }
}
