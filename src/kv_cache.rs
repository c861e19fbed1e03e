//! The K and V arenas of every layer: allocated at start, written and read by slot.

use crate::error::Error;
use crate::gpu::{Buffer, Gpu, Uploader};
use crate::segments::Segment;
use std::ops::Range;

/// Keys and values of all layers; each arena is `[num_kv_heads, slots, head_stride]`.
#[derive(Debug)]
pub struct KvCache {
    /// One a layer.
    pub layers: Vec<KvLayer>,
    /// Slots of an arena, one a KV group.
    pub slots: Vec<usize>,
    shape: KvShape,
}

/// The arenas of one layer.
#[derive(Debug)]
pub struct KvLayer {
    /// Its KV group: the layers whose sequences lie in the same slots.
    pub group: usize,
    /// Keys, turned by their positions.
    pub k: Buffer,
    /// Values.
    pub v: Buffer,
}

/// What one slot takes.
#[derive(Debug, Clone)]
pub struct KvShape {
    /// The KV group of every layer.
    pub layer_groups: Vec<usize>,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Columns of a head, padded.
    pub head_stride: usize,
    /// Bytes of one of them.
    pub element_bytes: usize,
}

impl KvShape {
    /// Bytes of one head's key, or value.
    pub fn row_bytes(&self) -> usize {
        self.head_stride * self.element_bytes
    }

    /// Bytes of one slot in one arena.
    pub fn arena_slot_bytes(&self) -> u64 {
        (self.num_kv_heads * self.head_stride * self.element_bytes) as u64
    }

    /// Bytes of one slot in all arenas: what a token of context takes.
    pub fn slot_bytes(&self) -> u64 {
        2 * self.layer_groups.len() as u64 * self.arena_slot_bytes()
    }

    /// Bytes of all arenas with so many slots in each KV group.
    pub fn bytes(&self, slots: &[usize]) -> u64 {
        self.layer_groups.iter().map(|&group| 2 * slots[group] as u64 * self.arena_slot_bytes()).sum()
    }
}

impl KvCache {
    /// Arenas of so many slots in each KV group, or of as many as the adapter has room for, but none under `least`.
    ///
    /// # Errors
    /// If not even those fit.
    pub fn allocate(gpu: &Gpu, shape: &KvShape, slots: &[usize], least: usize) -> Result<KvCache, Error> {
        let mut slots = slots.to_vec();
        loop {
            let layer = |&group: &usize| {
                let bytes = slots[group] as u64 * shape.arena_slot_bytes();
                Ok(KvLayer { group, k: gpu.buffer("k arena", bytes)?, v: gpu.buffer("v arena", bytes)? })
            };
            match shape.layer_groups.iter().map(layer).collect::<Result<Vec<_>, Error>>() {
                Ok(layers) => return Ok(KvCache { layers, slots, shape: shape.clone() }),
                Err(Error::OutOfMemory { .. }) if slots.iter().any(|&slots| slots > least) => {
                    log::warn!("no room for {slots:?} slots of KV cache; trying with fewer");
                    slots.iter_mut().for_each(|slots| *slots = (*slots / 16 * 15 / least * least).max(least));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Bytes of all arenas.
    pub fn bytes(&self) -> u64 {
        self.shape.bytes(&self.slots)
    }

    /// The rows of a sequence, whose places in each KV group are `segments`, by position: layer by layer, keys then values,
    /// head by head. Waits for the adapter.
    ///
    /// # Errors
    /// If the adapter is lost or refused earlier work.
    pub fn save(&self, gpu: &Gpu, segments: &[impl AsRef<[Segment]>]) -> Result<Vec<u8>, Error> {
        let mut parts = Vec::new();
        for layer in &self.layers {
            for buffer in [&layer.k, &layer.v] {
                for head in 0..self.shape.num_kv_heads {
                    for segment in segments[layer.group].as_ref() {
                        let (offset, bytes) = self.place(layer, head, segment);
                        parts.push((buffer, offset, bytes));
                    }
                }
            }
        }
        gpu.read_parts(&parts)
    }

    /// Writes back what [`KvCache::save`] gave: `bytes` hold the positions `saved` of each KV group, and what of them lies in
    /// `segments` is written. It is there for all that is submitted later.
    ///
    /// # Errors
    /// If the adapter is lost or refused earlier work.
    pub fn restore(
        &self,
        uploader: &mut Uploader,
        bytes: &[u8],
        saved: &[Range<usize>],
        segments: &[impl AsRef<[Segment]>],
    ) -> Result<(), Error> {
        let mut plane_start = 0;
        for layer in &self.layers {
            let positions = &saved[layer.group];
            for buffer in [&layer.k, &layer.v] {
                for head in 0..self.shape.num_kv_heads {
                    for segment in segments[layer.group].as_ref() {
                        let (offset, part_bytes) = self.place(layer, head, segment);
                        let skipped = segment.first_position - positions.start;
                        let from = plane_start + skipped * self.shape.row_bytes();
                        uploader.upload(buffer, offset, part_bytes, 4, |start, part| {
                            part.copy_from_slice(&bytes[from + start as usize..][..part.len()]);
                        })?;
                    }
                    plane_start += positions.len() * self.shape.row_bytes();
                }
            }
        }
        uploader.send()
    }

    /// Offset and bytes of a segment's rows in the plane of a head.
    fn place(&self, layer: &KvLayer, head: usize, segment: &Segment) -> (u64, u64) {
        let row_bytes = self.shape.row_bytes();
        let row = head * self.slots[layer.group] + segment.first_slot;
        ((row * row_bytes) as u64, (segment.count * row_bytes) as u64)
    }
}
