//! Weights into group-wise integers: pure functions from floats to the blocks of [`Format`], and folders of such weights.

mod blocks;
mod config;
mod folder;
mod pack;
mod partial;
mod search;
mod shards;
mod target;

pub use folder::{FolderOptions, Written, write_folder};
pub use target::{Bits, QuantizeTo};

use crate::Format;
use search::Grid;

/// A weight that is no number, and where it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NotFinite {
    /// Its place in the values.
    pub index: usize,
    /// What it is.
    pub met: f32,
}

/// Quantises `values`, rows of `cols` columns, into blocks of `to`'s format, a row after another. `importance` `[cols]` says how much the
/// squared error of each column counts: the mean square of what it is multiplied by. Scales are numbers of f16.
///
/// # Errors
/// The first value that is NaN or infinite; `out` is undefined then.
///
/// # Panics
/// If `cols` is no multiple of 32 or does not divide the values, `out` or `importance` is of another length than they ask for, or an
/// importance is negative or no number.
pub fn encode_rows(
    values: &[f32],
    cols: usize,
    to: QuantizeTo,
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> Result<(), NotFinite> {
    let format = to.format(cols).unwrap_or_else(|| panic!("rows of {cols} columns"));
    let (group, block_bytes) = format.block();
    assert_eq!(out.len(), values.len() / group * block_bytes, "bytes of the blocks");
    let mut blocks = out.chunks_exact_mut(block_bytes);
    quantize_rows(values, cols, to, importance, Format::F16, |codes, grid| {
        let block = blocks.next().expect("the length was checked");
        blocks::write_block(format, codes, grid, block);
    })
}

/// Gives the codes and the grid of every group to `each`, in order; `scales` says which numbers scales are.
fn quantize_rows(
    values: &[f32],
    cols: usize,
    to: QuantizeTo,
    importance: Option<&[f32]>,
    scales: Format,
    mut each: impl FnMut(&[u8], Grid),
) -> Result<(), NotFinite> {
    let group = to.group_of(cols).unwrap_or_else(|| panic!("rows of {cols} columns"));
    assert!(values.len().is_multiple_of(cols), "{} values in rows of {cols}", values.len());
    if let Some(index) = first_not_finite(values) {
        return Err(NotFinite { index, met: values[index] });
    }
    let weights = weights(cols, group, importance);
    let mut codes = [0; 128];
    for row in values.chunks_exact(cols) {
        for (x, weight) in row.chunks_exact(group).zip(weights.chunks_exact(group)) {
            let grid = search::quantize_group(x, weight, to, scales, &mut codes[..group]);
            each(&codes[..group], grid);
        }
    }
    Ok(())
}

/// How much each column's error counts: the largest 1 in every group, and all 1 where nothing counts.
fn weights(cols: usize, group: usize, importance: Option<&[f32]>) -> Vec<f32> {
    let Some(importance) = importance else { return vec![1.0; cols] };
    assert_eq!(importance.len(), cols, "an importance a column");
    assert!(importance.iter().all(|value| value.is_finite() && *value >= 0.0), "importance of at least 0");
    let mut weights = importance.to_vec();
    for group in weights.chunks_exact_mut(group) {
        let largest = group.iter().copied().fold(0.0, f32::max);
        group.iter_mut().for_each(|weight| *weight = if largest > 0.0 { *weight / largest } else { 1.0 });
    }
    weights
}

/// Whole stretches without a branch, so that it runs at the memory's speed.
fn first_not_finite(values: &[f32]) -> Option<usize> {
    let bad = |value: &f32| value.to_bits() & 0x7f80_0000 == 0x7f80_0000;
    let mut stretches = values.chunks(1024).enumerate();
    let (index, stretch) = stretches.find(|(_, stretch)| stretch.iter().fold(false, |any, value| any | bad(value)))?;
    Some(index * 1024 + stretch.iter().position(bad)?)
}

#[cfg(test)]
mod tests;
