//! The arenas of every layer: keys, values and their scales, allocated at start, written and read by slot.

mod mean;
mod types;

pub use mean::{Fidelity, Turn, fidelity, spread};
pub use types::KvTypes;

use crate::error::Error;
use crate::gpu::{Buffer, Gpu, Uploader};
use crate::segments::Segment;
use raglan_shaders::{KvType, rotation};
use std::ops::Range;

/// Keys and values of all layers.
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
    /// What it is kept in.
    pub kv: KvType,
    /// Keys, turned by their positions: `[num_kv_heads, slots, head_stride]`, packed.
    pub k: Buffer,
    /// Values, likewise.
    pub v: Buffer,
    /// Scales and minima: `[num_kv_heads, slots]` of one word or two; of floats something that nobody reads, but one a layer,
    /// since what two layers both may write they do one after the other.
    pub scales: Buffer,
    /// What quantised keys lose before they are rounded: `[num_kv_heads, head_stride]` in f32.
    pub k_mean: Buffer,
    /// Columns that are rotated together where the type rotates; 0: none.
    pub rotation: usize,
}

/// Which group a layer is in, and what it is kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerShape {
    /// The KV group.
    pub group: usize,
    /// The type of keys and values.
    pub kv: KvType,
}

/// What one slot takes.
#[derive(Debug, Clone)]
pub struct KvShape {
    /// Every layer.
    pub layers: Vec<LayerShape>,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Columns of a head.
    pub head_dim: usize,
    /// Whether what 4 bits hold is rotated first.
    pub rotate: bool,
}

/// Bytes of a buffer that is bound and not read.
pub const UNREAD_BYTES: u64 = 256;

impl KvShape {
    /// Columns to a head in a cache of type `kv`.
    ///
    /// # Panics
    /// If heads are wider than the kernels are made for.
    pub fn head_stride(&self, kv: KvType) -> usize {
        kv.head_stride(self.head_dim).expect("the heads' width was checked")
    }

    /// Bytes of one head in one slot: key, value, scales.
    fn row_bytes(&self, kv: KvType) -> [usize; 3] {
        let stride = self.head_stride(kv);
        [kv.k_row_bytes(stride), kv.v_row_bytes(stride), kv.scale_bytes()]
    }

    /// Bytes of one slot in a layer of type `kv`.
    fn layer_slot_bytes(&self, kv: KvType) -> u64 {
        (self.num_kv_heads * kv.row_bytes(self.head_stride(kv))) as u64
    }

    /// Bytes of one slot in the largest arena: what bounds the slots by a binding.
    pub fn arena_slot_bytes(&self) -> u64 {
        let widest = self.layers.iter().flat_map(|layer| self.row_bytes(layer.kv)).max();
        (self.num_kv_heads * widest.unwrap_or(0)) as u64
    }

    /// Columns of one slot in the widest arena: kernels count them in 32 bits, also where an adapter's bindings hold more.
    pub fn slot_columns(&self) -> u64 {
        let widest = self.layers.iter().map(|layer| self.head_stride(layer.kv)).max();
        (self.num_kv_heads * widest.unwrap_or(0)) as u64
    }

    /// Bytes of one slot in all arenas: what a token of context takes.
    pub fn slot_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| self.layer_slot_bytes(layer.kv)).sum()
    }

    /// Bytes of all arenas with so many slots in each KV group.
    pub fn bytes(&self, slots: &[usize]) -> u64 {
        self.layers.iter().map(|layer| slots[layer.group] as u64 * self.layer_slot_bytes(layer.kv)).sum()
    }

    /// Bytes of what quantised keys lose in all layers.
    pub fn mean_bytes(&self) -> u64 {
        let quantised = self.layers.iter().filter(|layer| layer.kv.is_quantised());
        quantised.map(|layer| (4 * self.num_kv_heads * self.head_stride(layer.kv)) as u64).sum()
    }

    /// Whether any layer is.
    pub fn is_quantised(&self) -> bool {
        self.layers.iter().any(|layer| layer.kv.is_quantised())
    }

    /// How many layers each KV group has.
    pub fn group_layers(&self) -> Vec<usize> {
        let mut counts = Vec::new();
        for layer in &self.layers {
            counts.resize(counts.len().max(layer.group + 1), 0);
            counts[layer.group] += 1;
        }
        counts
    }

    /// The types of the layers, each once, in order, with how many layers have it.
    pub fn types(&self) -> Vec<(KvType, usize)> {
        let count = |kv: KvType| self.layers.iter().filter(|layer| layer.kv == kv).count();
        KvType::ALL.into_iter().map(|kv| (kv, count(kv))).filter(|(_, layers)| *layers > 0).collect()
    }
}

impl KvCache {
    /// Arenas of so many slots in each KV group, or of as many as the adapter has room for, but none under `least`.
    ///
    /// # Errors
    /// If not even those fit.
    pub fn allocate(gpu: &Gpu, shape: &KvShape, slots: &[usize], least: usize) -> Result<KvCache, Error> {
        let mut slots = slots.to_vec();
        let unread = gpu.buffer("unread", UNREAD_BYTES)?;
        let mut part = 128;
        loop {
            let layer = |layer: &LayerShape| KvLayer::new(gpu, shape, *layer, slots[layer.group], &unread);
            match shape.layers.iter().map(layer).collect::<Result<Vec<_>, Error>>() {
                Ok(layers) => return Ok(KvCache { layers, slots, shape: shape.clone() }),
                Err(Error::OutOfMemory { .. }) if slots.iter().any(|&slots| slots > least) => {
                    log::warn!("no room for {slots:?} slots of KV cache; trying with fewer");
                    // Little at first, since what was computed is nearly right, and then in larger steps.
                    slots.iter_mut().for_each(|slots| *slots = ((*slots - *slots / part) / least * least).max(least));
                    part = (part / 2).max(16);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Bytes of all arenas.
    pub fn bytes(&self) -> u64 {
        self.shape.bytes(&self.slots)
    }

    /// What a slot takes.
    pub fn shape(&self) -> &KvShape {
        &self.shape
    }

    /// The rows of a sequence, whose places in each KV group are `segments`, by position: layer by layer, keys, values, then
    /// scales, head by head. Waits for the adapter.
    ///
    /// # Errors
    /// If the adapter is lost or refused earlier work.
    pub fn save(&self, gpu: &Gpu, segments: &[impl AsRef<[Segment]>]) -> Result<Vec<u8>, Error> {
        let parts: Vec<_> = self.layers.iter().flat_map(|layer| self.parts(layer, segments)).collect();
        gpu.read_parts(&parts)
    }

    /// As [`KvCache::save`], of one layer.
    ///
    /// # Errors
    /// As [`KvCache::save`].
    pub fn save_layer(&self, gpu: &Gpu, layer: usize, segments: &[impl AsRef<[Segment]>]) -> Result<Vec<u8>, Error> {
        gpu.read_parts(&self.parts(&self.layers[layer], segments))
    }

    /// Sets what the keys of a quantised layer lose: `[num_kv_heads, head_dim]`. Waits for the adapter.
    ///
    /// # Errors
    /// If the adapter is lost or refused earlier work.
    pub fn set_mean(&self, gpu: &Gpu, layer: usize, mean: &[f64]) -> Result<(), Error> {
        let layer = &self.layers[layer];
        assert_eq!(mean.len(), self.shape.num_kv_heads * self.shape.head_dim, "a mean a column");
        let mut padded = Vec::new();
        for head in mean.chunks_exact(self.shape.head_dim) {
            let columns = head.iter().map(|&value| value as f32).chain(std::iter::repeat(0.0));
            padded.extend(columns.take(self.shape.head_stride(layer.kv)));
        }
        gpu.upload(&layer.k_mean, 0, bytemuck::cast_slice(&padded))
    }

    /// Where the rows of a sequence lie in a layer: (arena, offset, bytes).
    fn parts<'a>(&self, layer: &'a KvLayer, segments: &[impl AsRef<[Segment]>]) -> Vec<(&'a Buffer, u64, u64)> {
        let mut parts = Vec::new();
        for (buffer, row_bytes) in self.arenas(layer) {
            for head in 0..self.shape.num_kv_heads {
                for segment in segments[layer.group].as_ref() {
                    let (offset, bytes) = self.place(layer, head, segment, row_bytes);
                    parts.push((buffer, offset, bytes));
                }
            }
        }
        parts
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
            for (buffer, row_bytes) in self.arenas(layer) {
                for head in 0..self.shape.num_kv_heads {
                    for segment in segments[layer.group].as_ref() {
                        let (offset, part_bytes) = self.place(layer, head, segment, row_bytes);
                        let skipped = segment.first_position - positions.start;
                        let from = plane_start + skipped * row_bytes;
                        uploader.upload(buffer, offset, part_bytes, 4, |start, part| {
                            part.copy_from_slice(&bytes[from + start as usize..][..part.len()]);
                        })?;
                    }
                    plane_start += positions.len() * row_bytes;
                }
            }
        }
        uploader.send()
    }

    /// The arenas of a layer that hold anything, with the bytes of a head in one slot.
    fn arenas<'a>(&self, layer: &'a KvLayer) -> impl Iterator<Item = (&'a Buffer, usize)> {
        let buffers = [&layer.k, &layer.v, &layer.scales];
        buffers.into_iter().zip(self.shape.row_bytes(layer.kv)).filter(|(_, row_bytes)| *row_bytes > 0)
    }

    /// Offset and bytes of a segment's rows in the plane of a head.
    fn place(&self, layer: &KvLayer, head: usize, segment: &Segment, row_bytes: usize) -> (u64, u64) {
        let row = head as u64 * self.slots[layer.group] as u64 + segment.first_slot as u64;
        (row * row_bytes as u64, (segment.count * row_bytes) as u64)
    }
}

impl KvLayer {
    /// Arenas of floats, in the first KV group: for measuring.
    ///
    /// # Panics
    /// If the type is quantised.
    pub fn of_floats(kv: KvType, k: Buffer, v: Buffer) -> KvLayer {
        assert!(!kv.is_quantised(), "{kv} has scales");
        KvLayer { group: 0, kv, scales: k.clone(), k_mean: k.clone(), k, v, rotation: 0 }
    }

    /// Whether values are kept rotated, and attention gives them so.
    pub fn rotates_values(&self) -> bool {
        self.rotation > 1 && self.kv.rotates_values()
    }

    /// Arenas of `slots` slots. `unread` is bound where the type has no mean.
    ///
    /// # Errors
    /// If the adapter has no room.
    pub fn new(
        gpu: &Gpu,
        shape: &KvShape,
        LayerShape { group, kv }: LayerShape,
        slots: usize,
        unread: &Buffer,
    ) -> Result<KvLayer, Error> {
        let [k, v, scales] = shape.row_bytes(kv).map(|bytes| (shape.num_kv_heads * bytes) as u64 * slots as u64);
        let rotates = shape.rotate && (kv.rotates_keys() || kv.rotates_values());
        Ok(KvLayer {
            group,
            kv,
            k: gpu.buffer("k arena", k)?,
            v: gpu.buffer("v arena", v)?,
            scales: gpu.buffer("scale arena", scales.max(UNREAD_BYTES))?,
            k_mean: match kv.is_quantised() {
                true => gpu.buffer("k mean", (4 * shape.num_kv_heads * shape.head_stride(kv)) as u64)?,
                false => unread.clone(),
            },
            rotation: if rotates { rotation(shape.head_dim) } else { 0 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_takes_what_its_layers_types_do() {
        let layers = [(0, KvType::F16), (1, KvType::Int4), (1, KvType::Int4), (2, KvType::K8V4)];
        let layers = layers.map(|(group, kv)| LayerShape { group, kv }).into();
        let shape = KvShape { layers, num_kv_heads: 8, head_dim: 128, rotate: true };
        assert_eq!(shape.slot_bytes(), 8 * (512 + 2 * 136 + 200));
        assert_eq!(shape.bytes(&[100, 10, 1]), 8 * (100 * 512 + 10 * 2 * 136 + 200));
        assert_eq!(shape.arena_slot_bytes(), 8 * 256);
        assert_eq!(shape.group_layers(), [1, 2, 1]);
        assert_eq!(shape.types(), [(KvType::F16, 1), (KvType::K8V4, 1), (KvType::Int4, 2)]);
        assert!(shape.is_quantised());
    }

    #[test]
    fn llama_2_13b_takes_what_the_design_says() {
        let slot = |kv| {
            let layers = vec![LayerShape { group: 0, kv }; 40];
            KvShape { layers, num_kv_heads: 40, head_dim: 128, rotate: true }.slot_bytes()
        };
        assert_eq!([KvType::F16, KvType::Int8, KvType::Int4].map(slot), [819_200, 416_000, 217_600]);
    }
}
