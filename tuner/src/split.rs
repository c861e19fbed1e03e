//! Which shapes are trained on, and which are kept unseen.

use sha2::{Digest, Sha256};

use crate::Space;

/// What a shape is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// Seen by training.
    Train,
    /// Unseen, of a group that training sees: another M.
    NewM,
    /// Of a group that training never sees: another (N, K).
    NewNk,
}

/// One group in five is `NewNk`; of the others' shapes, one in five is `NewM`. It depends on the space's name and on
/// the numbers alone, so a shape keeps its place whatever else is measured, and on whatever machine.
///
/// # Panics
/// Where `shape` has not a number for each dim.
pub fn split(space: &Space, shape: &[f32]) -> Split {
    assert_eq!(space.dims.len(), shape.len(), "{}", space.name);
    let group = space.dims.iter().zip(shape).filter(|(dim, _)| dim.grouped).map(|(_, x)| *x);
    let has_groups = space.dims.iter().any(|dim| dim.grouped);
    if has_groups && fifth(&space.name, "group", group) {
        Split::NewNk
    } else if fifth(&space.name, "shape", shape.iter().copied()) {
        Split::NewM
    } else {
        Split::Train
    }
}

fn fifth(space: &str, what: &str, numbers: impl Iterator<Item = f32>) -> bool {
    let mut hasher = Sha256::new();
    hasher.update(space);
    hasher.update([0]);
    hasher.update(what);
    for number in numbers {
        // −0 and 0 are one number.
        hasher.update((number + 0.0).to_bits().to_le_bytes());
    }
    let digest = hasher.finalize();
    u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]) % 5 == 0
}
