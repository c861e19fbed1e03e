//! The K and V arenas of every layer: allocated at start, written and read by slot.

use crate::error::Error;
use crate::gpu::{Buffer, Gpu};

/// Keys and values of all layers; each arena is `[num_kv_heads, slots, head_stride]`.
#[derive(Debug)]
pub struct KvCache {
    /// One a layer.
    pub layers: Vec<KvLayer>,
    /// Slots of every arena.
    pub slots: usize,
}

/// The arenas of one layer.
#[derive(Debug)]
pub struct KvLayer {
    /// Keys, turned by their positions.
    pub k: Buffer,
    /// Values.
    pub v: Buffer,
}

/// What one slot takes.
#[derive(Debug, Clone, Copy)]
pub struct KvShape {
    /// Layers.
    pub layers: usize,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Columns of a head, padded.
    pub head_stride: usize,
    /// Bytes of one of them.
    pub element_bytes: usize,
}

impl KvShape {
    /// Bytes of one slot in one arena.
    pub fn arena_slot_bytes(&self) -> u64 {
        (self.num_kv_heads * self.head_stride * self.element_bytes) as u64
    }

    /// Bytes of one slot in all arenas: what a token of context takes.
    pub fn slot_bytes(&self) -> u64 {
        2 * self.layers as u64 * self.arena_slot_bytes()
    }
}

impl KvCache {
    /// Arenas of `slots` slots, or of as many as the adapter has room for, but not under `least`.
    ///
    /// # Errors
    /// If not even `least` slots fit.
    pub fn allocate(gpu: &Gpu, shape: &KvShape, slots: usize, least: usize) -> Result<KvCache, Error> {
        let mut slots = slots;
        loop {
            let bytes = slots as u64 * shape.arena_slot_bytes();
            let layer = |_| Ok(KvLayer { k: gpu.buffer("k arena", bytes)?, v: gpu.buffer("v arena", bytes)? });
            match (0..shape.layers).map(layer).collect::<Result<Vec<_>, Error>>() {
                Ok(layers) => return Ok(KvCache { layers, slots }),
                Err(Error::OutOfMemory { .. }) if slots > least => {
                    log::warn!("no room for {slots} slots of KV cache; trying with fewer");
                    slots = (slots * 7 / 8).max(least);
                }
                Err(error) => return Err(error),
            }
        }
    }
}
