//! What the MLP sees of a shape.

use crate::numbers::{LARGEST_CEIL, QUAD, Quad, at_least, at_most, ceil, ln};
use crate::{DimKind, MOST_DIMS, Space};

/// Edges of tiles whose waste on a size is a feature.
const TILES: [f32; 4] = [8.0, 32.0, 64.0, 128.0];
/// Of the prior: the least logarithm over the candidates, and how far the mean lies above it.
pub(crate) const OF_PRIOR: usize = 2;
/// A shape has no more features than this.
pub(crate) const MOST_FEATURES: usize = (MOST_DIMS * (1 + TILES.len()) + OF_PRIOR).next_multiple_of(QUAD);
/// Standardised features are bounded by it, so that a shape far from those of training is taken as the farthest of them.
const BOUND: f32 = 4.0;

/// Features of a space's shapes, with the constants that standardise them. Lists are as long as whole [`Quad`]s need.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Features {
    /// Of each feature its dim; logarithms come first, then numbers as they are.
    dims: Vec<u8>,
    /// Of each logarithm: 0 for a size's own, or one over the edge of the tiles whose waste it is.
    per_edge: Vec<f32>,
    /// How many are logarithms.
    logs: usize,
    /// Of each feature; what is subtracted.
    mean: Vec<f32>,
    /// Of each feature; what it is then multiplied by.
    scale: Vec<f32>,
}

impl Features {
    /// Features of a space, not yet standardised.
    pub(crate) fn new(space: &Space) -> Features {
        let (mut dims, mut numbers, mut per_edge) = (Vec::new(), Vec::new(), Vec::new());
        for (at, dim) in space.dims.iter().enumerate() {
            let at = at as u8;
            let edges: &[f32] = if dim.kind == DimKind::Tiled { &TILES } else { &[] };
            if dim.kind == DimKind::Number {
                numbers.push(at);
                continue;
            }
            dims.extend(std::iter::repeat_n(at, 1 + edges.len()));
            per_edge.push(0.0);
            per_edge.extend(edges.iter().map(|edge| 1.0 / edge));
        }
        let logs = dims.len();
        per_edge.resize(logs.next_multiple_of(QUAD), 0.0);
        dims.extend(numbers);
        let padded = (dims.len() + OF_PRIOR).next_multiple_of(QUAD);
        Features { dims, per_edge, logs, mean: vec![0.0; padded], scale: vec![1.0; padded] }
    }

    pub(crate) fn len(&self) -> usize {
        self.dims.len() + OF_PRIOR
    }

    /// What is subtracted from each feature, then what each is multiplied by.
    pub(crate) fn constants(&self) -> [&[f32]; 2] {
        [&self.mean[..self.len()], &self.scale[..self.len()]]
    }

    /// Sets what [`Features::constants`] gives.
    pub(crate) fn set_constants(&mut self, mean: &[f32], scale: &[f32]) {
        let len = self.len();
        self.mean[..len].copy_from_slice(mean);
        self.scale[..len].copy_from_slice(scale);
    }

    /// The features of a shape, standardised; `of_prior` are the last ones. Returns those that there are.
    #[inline(always)]
    pub(crate) fn fill<'a>(
        &self,
        shape: &[f32],
        of_prior: [f32; OF_PRIOR],
        out: &'a mut [f32; MOST_FEATURES],
    ) -> &'a [f32] {
        self.raw(shape, of_prior, out);
        let (quads, _) = out.as_chunks_mut::<QUAD>();
        let (mean, _) = self.mean.as_chunks::<QUAD>();
        let (scale, _) = self.scale.as_chunks::<QUAD>();
        for ((x, mean), scale) in quads.iter_mut().zip(mean).zip(scale) {
            let standard = (Quad::from(*x) - Quad::from(*mean)) * Quad::from(*scale);
            *x = at_most(at_least(standard, -BOUND), BOUND).to_array();
        }
        &out[..self.len()]
    }

    #[inline(always)]
    fn raw(&self, shape: &[f32], of_prior: [f32; OF_PRIOR], out: &mut [f32; MOST_FEATURES]) {
        for (out, dim) in out.iter_mut().zip(&self.dims[..self.logs]) {
            *out = shape[usize::from(*dim)];
        }
        let (quads, _) = out.as_chunks_mut::<QUAD>();
        let (per_edge, _) = self.per_edge.as_chunks::<QUAD>();
        for (out, per_edge) in quads.iter_mut().zip(per_edge) {
            let (x, per_edge) = (at_most(at_least(Quad::from(*out), 0.0), 1e30), Quad::from(*per_edge));
            let tiles = at_least(at_most(x * per_edge, LARGEST_CEIL), 1e-6);
            let is_size = per_edge.simd_eq(Quad::ZERO);
            *out = ln(is_size.select(x + Quad::splat(1.0), ceil(tiles) / tiles)).to_array();
        }
        for (out, dim) in out[self.logs..].iter_mut().zip(&self.dims[self.logs..]) {
            *out = shape[usize::from(*dim)];
        }
        out[self.dims.len()..][..OF_PRIOR].copy_from_slice(&of_prior);
    }

    /// Sets the constants from the features of all shapes of training. A feature that is always the same becomes 0.
    pub(crate) fn standardise(&mut self, shapes: &[(&[f32], [f32; OF_PRIOR])]) {
        let raw: Vec<[f32; MOST_FEATURES]> = shapes
            .iter()
            .map(|(shape, of_prior)| {
                let mut out = [0.0; MOST_FEATURES];
                self.raw(shape, *of_prior, &mut out);
                out
            })
            .collect();
        let count = raw.len().max(1) as f64;
        for at in 0..self.len() {
            let mean = raw.iter().map(|row| f64::from(row[at])).sum::<f64>() / count;
            let variance = raw.iter().map(|row| (f64::from(row[at]) - mean).powi(2)).sum::<f64>() / count;
            self.mean[at] = mean as f32;
            self.scale[at] = if variance > 1e-10 { (1.0 / variance.sqrt()) as f32 } else { 0.0 };
        }
    }
}
