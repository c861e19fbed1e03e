//! The shapes that are measured: those of known models and others between, spread evenly over the logarithms of their sizes.
//! A shape depends on its number alone, so that a collection that goes on later goes on with the same ones.

mod batches;
mod products;

pub use batches::{Ragged, Sequence};

use crate::schedules::{Form, LinearShape, spaces};
use raglan_shaders::{KvType, WeightFormat};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Shapes of one group in a row: the same matrix with other rows, the same heads with other batches.
pub(super) const GROUP_SHAPES: usize = 3;

/// A problem of some space.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// Of a product.
    Linear(LinearShape),
    /// Of attention.
    Attention(Ragged),
}

/// How large shapes may be, so that one takes milliseconds.
#[derive(Debug, Clone)]
pub struct Extent {
    /// Formats of weights.
    pub formats: Vec<WeightFormat>,
    /// Numbers of a matrix.
    pub most_weights: f64,
    /// Bytes of a matrix: one binding.
    pub most_matrix_bytes: f64,
    /// Multiplications of a product.
    pub most_products: f64,
    /// Bytes of the keys and values of a batch.
    pub most_kv_bytes: f64,
    /// Multiplications of keys and queries, in heads of 64 columns.
    pub most_scores: f64,
    /// Sequences of a batch.
    pub most_sequences: usize,
    /// Columns of heads in the cache.
    pub head_strides: Vec<usize>,
    /// What keys and values are kept in.
    pub kv: KvType,
}

impl Extent {
    /// What a software adapter, which compiles each format and each head anew, does in milliseconds.
    pub fn software(kv: KvType, max_binding_bytes: u64) -> Extent {
        Extent {
            formats: vec![WeightFormat::F16, WeightFormat::Q4_0, WeightFormat::Q8_0, WeightFormat::Q4K],
            most_weights: 2.5e6,
            most_matrix_bytes: max_binding_bytes as f64,
            most_products: 48e6,
            most_kv_bytes: 8e6,
            most_scores: 1.5e5,
            most_sequences: 32,
            head_strides: vec![64, 128],
            kv,
        }
    }

    /// What a GPU does.
    pub fn hardware(kv: KvType, max_binding_bytes: u64) -> Extent {
        Extent {
            formats: WeightFormat::ALL.into(),
            most_weights: 3e8,
            most_matrix_bytes: max_binding_bytes.min(512 << 20) as f64,
            most_products: 1.5e11,
            most_kv_bytes: (max_binding_bytes.min(1 << 30)) as f64,
            most_scores: 2e9,
            most_sequences: 256,
            head_strides: vec![64, 80, 96, 128, 256],
            kv,
        }
    }
}

/// Shape `index` of a space.
///
/// # Panics
/// If there is no such space.
pub fn shape(space: &str, index: usize, extent: &Extent) -> Shape {
    match space {
        spaces::LINEAR_FEW => Shape::Linear(products::shape(true, index, extent)),
        spaces::LINEAR_MANY => Shape::Linear(products::shape(false, index, extent)),
        spaces::ATTENTION_VECTOR => Shape::Attention(batches::shape(Form::Vector, index, extent)),
        spaces::ATTENTION_TILE => Shape::Attention(batches::shape(Form::Tile, index, extent)),
        _ => panic!("a space {space}"),
    }
}

/// Random numbers for `index` of a kind.
fn random(kind: u64, index: usize) -> StdRng {
    StdRng::seed_from_u64(kind << 32 | index as u64)
}

/// A number between two others, evenly over their logarithms.
fn log_uniform(rng: &mut StdRng, low: f64, high: f64) -> f64 {
    low * (high / low).max(1.0).powf(rng.random_range(0.0..1.0))
}

/// The nearest multiple of `unit`, and at least that.
fn multiple(size: f64, unit: usize) -> usize {
    ((size / unit as f64).round() as usize).max(1) * unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn shapes_are_the_same_again_and_within_their_bounds() {
        let extents = [Extent::software(KvType::F16, 128 << 20), Extent::hardware(KvType::F16, 2 << 30)];
        for extent in &extents {
            for space in spaces::ALL {
                let all: Vec<Shape> = (0..400).map(|index| shape(space, index, extent)).collect();
                assert_eq!(all, (0..400).map(|index| shape(space, index, extent)).collect::<Vec<_>>());
                for one in &all {
                    match one {
                        Shape::Linear(shape) => {
                            let few = space == spaces::LINEAR_FEW;
                            assert_eq!((1..=8).contains(&shape.rows), few, "{shape:?}");
                            assert!(shape.rows <= 2048 && shape.cols % 32 == 0, "{shape:?}");
                            assert!(shape.inner.is_multiple_of(shape.format.block_values().max(2)), "{shape:?}");
                            let bytes = shape.cols * shape.format.gpu_row_bytes(shape.inner);
                            assert!(bytes as f64 <= extent.most_matrix_bytes, "{shape:?}");
                            let products = (shape.rows * shape.cols * shape.inner) as f64;
                            assert!(few || shape.rows < 32 || products <= 1.3 * extent.most_products, "{shape:?}");
                        }
                        Shape::Attention(batch) => {
                            let packed = |sequence: &Sequence| sequence.rows * batch.heads.group;
                            let is_few = |s: &Sequence| s.rows == 1 || packed(s) <= 8;
                            let few = space == spaces::ATTENTION_VECTOR;
                            assert!(batch.sequences.iter().all(|sequence| is_few(sequence) == few), "{batch:?}");
                            assert!(batch.kv_bytes() as f64 <= 2.0 * extent.most_kv_bytes + 1e6, "{batch:?}");
                        }
                    }
                }
                let texts: BTreeSet<String> = all.iter().map(|shape| format!("{shape:?}")).collect();
                // Small sizes meet again now and then.
                assert!(texts.len() > 5 * all.len() / 6, "{space}: {} different shapes", texts.len());
            }
        }
    }

    #[test]
    fn every_format_and_every_size_of_rows_comes_early() {
        let extent = Extent::hardware(KvType::F16, 2 << 30);
        let of = |space| (0..60).map(move |index| shape(space, index, &extent.clone()));
        let formats: BTreeSet<_> = of(spaces::LINEAR_MANY)
            .filter_map(|s| if let Shape::Linear(s) = s { Some(s.format) } else { None })
            .collect();
        assert_eq!(formats.len(), WeightFormat::ALL.len());
        let mut decades = BTreeSet::new();
        for one in (0..60).map(|index| shape(spaces::LINEAR_MANY, index, &Extent::hardware(KvType::F16, 2 << 30))) {
            if let Shape::Linear(shape) = one {
                decades.insert(shape.rows.ilog2());
            }
        }
        assert!(decades.len() >= 7, "{decades:?}");
    }
}
