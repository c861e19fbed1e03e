//! Causal attention over ragged keys and values: work items, three forms of the kernel, and the merge of partial results.
//!
//! The cache of a layer is two arenas `[num_kv_heads, slots, head_stride]`. A sequence's keys lie in one or more contiguous
//! runs of slots; an item is some query rows against one run, or a part of it, in every kv head.

pub mod coop;
pub mod merge;
pub mod tile;
pub mod vector;

use crate::layout::gpu_struct;
use crate::{DispatchCost, KvType};

/// Keys of an item in a deterministic run, which begins at a multiple of as many positions.
pub const CHUNK: usize = 256;

/// `AttentionItem::partial` of an item whose rows have no other item: its result is written at once.
pub const DIRECT: u32 = u32::MAX;

/// The head strides that kernels are made for; a head is padded with zeros to the next of them.
pub const HEAD_STRIDES: [u32; 11] = [64, 16, 32, 48, 80, 96, 112, 128, 160, 192, 256];

/// The stride for heads of `head_dim` columns; `None` above 256.
pub fn head_stride(head_dim: usize) -> Option<usize> {
    HEAD_STRIDES.iter().map(|&stride| stride as usize).filter(|&stride| stride >= head_dim).min()
}

gpu_struct! {
    /// Query rows against one run of keys. The `num_heads / num_kv_heads` query heads of a kv head are packed: packed row
    /// = row · group + head in group.
    pub struct AttentionItem {
        /// The first query row, a token of the batch.
        pub first_row: u32,
        /// Query rows, consecutive tokens.
        pub rows: u32,
        /// Slot of the first key.
        pub first_slot: u32,
        /// Keys.
        pub count: u32,
        /// Position of the first key.
        pub first_position: u32,
        /// Position of the first query row.
        pub row_position: u32,
        /// Where the partial results of its packed rows start in those of a kv head, or [`DIRECT`].
        pub partial: u32,
    }
}

gpu_struct! {
    /// Immediates of all forms.
    pub struct AttentionParams {
        /// Query heads.
        pub num_heads: u32,
        /// Query heads to a kv head.
        pub group: u32,
        /// Columns of a head.
        pub head_dim: u32,
        /// Slots of a head's plane.
        pub slots: u32,
        /// A query sees this many positions, its own among them; 0: all.
        pub window: u32,
        /// Softmax scale times log2(e).
        pub scale_log2: f32,
        /// From one row of out to the next.
        pub out_stride: u32,
        /// Rows of partial results of a kv head.
        pub partials: u32,
        /// The first item of this dispatch.
        pub first_item: u32,
    }
}

/// A ragged batch of one form, as far as what it costs depends on it: runs of keys, cut into parts.
#[derive(Debug, Clone, Copy)]
pub struct RaggedWork {
    /// Runs of keys.
    pub runs: usize,
    /// Query rows.
    pub rows: usize,
    /// Keys of all runs.
    pub keys: usize,
    /// What the runs are cut into: an item each.
    pub parts: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Query heads to a kv head.
    pub group: usize,
    /// Columns of a head in the cache.
    pub head_stride: usize,
    /// What they are kept in.
    pub kv: KvType,
    /// Bytes of a column of the queries and of the result.
    pub act_bytes: usize,
}

impl RaggedWork {
    /// Packed rows that read a run, on average.
    fn packed_rows(&self) -> usize {
        self.group * self.rows.div_ceil(self.runs.max(1)).max(1)
    }

    /// What the items do in workgroups of so many packed rows, with the merge of their partial results.
    fn cost(&self, workgroup_rows: u32, workgroup_bytes: u32) -> DispatchCost {
        let &RaggedWork { runs, rows, keys, parts, kv_heads, head_stride, kv, act_bytes, .. } = self;
        let (workgroup_rows, packed_rows) = (workgroup_rows as usize, self.packed_rows());
        let readers = (kv_heads * packed_rows.div_ceil(workgroup_rows)) as f64;
        let workgroups = readers * parts as f64;
        let kv = readers * (keys * kv.row_bytes(head_stride)) as f64;
        let queries = workgroups * (workgroup_rows * head_stride * act_bytes) as f64;
        let out = (rows * self.group * kv_heads * head_stride * act_bytes) as f64;
        // Written, read by the merge, and the result written then.
        let is_merged = parts > runs || runs > rows;
        let partial = (parts * packed_rows * kv_heads * (head_stride + 2) * 8) as f64;
        DispatchCost {
            bytes: kv + queries + out + if is_merged { partial } else { 0.0 },
            flops: readers * (4 * keys * head_stride * workgroup_rows) as f64,
            workgroups,
            workgroup_bytes: f64::from(workgroup_bytes),
        }
    }
}

/// A sequence as the CPU twin sees it.
pub struct TwinSequence<'a> {
    /// Its query rows: `[rows, num_heads, head_dim]`.
    pub q: &'a [f64],
    /// Its keys from position 0, in order: `[keys, num_kv_heads, head_dim]`.
    pub k: &'a [f64],
    /// Its values, likewise.
    pub v: &'a [f64],
}

/// The CPU twin: causal attention of a sequence's last rows over all its keys, with a sliding window where `window` > 0.
///
/// - returns `[rows, num_heads, head_dim]`
///
/// Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1; the window as in Jiang et al. 2023, arXiv:2310.06825, section 2.
pub fn twin(
    sequence: &TwinSequence<'_>,
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
    window: usize,
) -> Vec<f64> {
    let rows = sequence.q.len() / (num_heads * head_dim);
    let keys = sequence.k.len() / (num_kv_heads * head_dim);
    let mut out = vec![0.0; sequence.q.len()];
    for row in 0..rows {
        let position = keys - rows + row;
        let first = if window == 0 { 0 } else { (position + 1).saturating_sub(window) };
        for head in 0..num_heads {
            let kv_head = head / (num_heads / num_kv_heads);
            let q = &sequence.q[(row * num_heads + head) * head_dim..][..head_dim];
            let at = |key: usize| (key * num_kv_heads + kv_head) * head_dim;
            let scores: Vec<f64> = (first..=position)
                .map(|key| {
                    let dot: f64 = q.iter().zip(&sequence.k[at(key)..][..head_dim]).map(|(a, b)| a * b).sum();
                    dot / (head_dim as f64).sqrt()
                })
                .collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
            let out = &mut out[(row * num_heads + head) * head_dim..][..head_dim];
            for (score, key) in scores.iter().zip(first..) {
                let weight = (score - largest).exp() / total;
                out.iter_mut().zip(&sequence.v[at(key)..][..head_dim]).for_each(|(o, v)| *o += weight * v);
            }
        }
    }
    out
}
