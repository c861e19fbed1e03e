//! What the MLP sees of a shape.

use crate::numbers::{LARGEST_CEIL, ceil, greater, lesser, ln};
use crate::{DimKind, MOST_DIMS, Space};

/// Edges of tiles whose waste on a size is a feature.
const TILES: [f32; 4] = [8.0, 32.0, 64.0, 128.0];
/// Of the prior: the least logarithm over the candidates, and how far the mean lies above it.
pub(crate) const OF_PRIOR: usize = 2;
/// A shape has no more features than this.
pub(crate) const MOST_FEATURES: usize = MOST_DIMS * (1 + TILES.len()) + OF_PRIOR;
/// Standardised features are bounded by it, so that a shape far from those of training is taken as the farthest of them.
const BOUND: f32 = 4.0;

/// Features of a space's shapes, with the constants that standardise them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Features {
    /// Logarithms come first: the dim, and the tile edge whose waste it is, or 0 for the size's own.
    logs: Vec<(u8, f32)>,
    /// Dims that are taken as they are.
    numbers: Vec<u8>,
    /// Of each feature; what is subtracted.
    pub(crate) mean: Vec<f32>,
    /// Of each feature; what it is then multiplied by.
    pub(crate) scale: Vec<f32>,
}

impl Features {
    /// Features of a space, not yet standardised.
    pub(crate) fn new(space: &Space) -> Features {
        let (mut logs, mut numbers) = (Vec::new(), Vec::new());
        for (at, dim) in space.dims.iter().enumerate() {
            let at = at as u8;
            match dim.kind {
                DimKind::Size => logs.push((at, 0.0)),
                DimKind::Tiled => {
                    logs.push((at, 0.0));
                    logs.extend(TILES.map(|edge| (at, edge)));
                }
                DimKind::Number => numbers.push(at),
            }
        }
        let count = logs.len() + numbers.len() + OF_PRIOR;
        Features { logs, numbers, mean: vec![0.0; count], scale: vec![1.0; count] }
    }

    pub(crate) fn len(&self) -> usize {
        self.mean.len()
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
        let out = &mut out[..self.mean.len()];
        for ((x, mean), scale) in out.iter_mut().zip(&self.mean).zip(&self.scale) {
            *x = lesser(greater((*x - *mean) * *scale, -BOUND), BOUND);
        }
        out
    }

    #[inline(always)]
    fn raw(&self, shape: &[f32], of_prior: [f32; OF_PRIOR], out: &mut [f32; MOST_FEATURES]) {
        let (logs, rest) = out.split_at_mut(self.logs.len());
        for (out, (dim, edge)) in logs.iter_mut().zip(&self.logs) {
            let x = shape[usize::from(*dim)];
            let x = lesser(greater(x, 0.0), 1e30);
            *out = if *edge == 0.0 {
                1.0 + x
            } else {
                let tiles = greater(lesser(x / *edge, LARGEST_CEIL), 1e-6);
                ceil(tiles) / tiles
            };
        }
        for x in logs {
            *x = ln(*x);
        }
        let (numbers, rest) = rest.split_at_mut(self.numbers.len());
        for (out, dim) in numbers.iter_mut().zip(&self.numbers) {
            *out = shape[usize::from(*dim)];
        }
        rest[..OF_PRIOR].copy_from_slice(&of_prior);
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
