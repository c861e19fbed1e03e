//! What a dispatch must move and compute at least, counted from its shapes: what its time is held against.
//!
//! Every input counts once however often workgroups read it again, since caches may serve that; what is computed twice
//! counts once. So no schedule of a kernel changes these numbers; the plan does where it splits attention, since partial results
//! and their merges are work that it asks for.

use crate::attention::AttentionItem;
use crate::attention::merge::AttentionMerge;
use crate::{KvType, WeightFormat};

/// Bytes and operations of a dispatch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Work {
    /// What it is: `linear`, say.
    pub label: &'static str,
    /// How large, by [`Work::shape_words`]: `rows × columns × inner columns` of a product.
    pub shape: [u32; 3],
    /// Read from memory.
    pub read_bytes: u64,
    /// Written to memory.
    pub write_bytes: u64,
    /// Floating-point operations of its products; what others do (norms, exponentials) is small beside their bytes.
    pub flops: u64,
}

/// The heads of an attention, and the bytes of its numbers.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Columns of a head.
    pub head_dim: usize,
    /// Columns of a head in q and in the cache.
    pub head_stride: usize,
    /// Bytes of one number of q and of the result.
    pub act_bytes: usize,
    /// What keys and values are kept in.
    pub kv: KvType,
    /// A query sees so many positions; 0: all.
    pub window: usize,
}

impl Work {
    /// What the numbers of a label's shape mean.
    pub fn shape_words(label: &str) -> [&'static str; 3] {
        match label {
            "linear" => ["rows", "cols", "inner"],
            "attention" => ["rows", "keys", "heads"],
            "merge" => ["rows", "parts", "heads"],
            _ => ["rows", "cols", ""],
        }
    }

    fn new(label: &'static str, shape: [usize; 3], read: usize, write: usize, flops: usize) -> Work {
        let shape = shape.map(|size| size as u32);
        Work { label, shape, read_bytes: read as u64, write_bytes: write as u64, flops: flops as u64 }
    }

    /// Bytes in both directions.
    pub fn bytes(&self) -> u64 {
        self.read_bytes + self.write_bytes
    }

    /// `[rows, inner] · [cols, inner]ᵀ`, `cols` rows of a weight matrix of such a format; inputs of `act_bytes`, results of
    /// `out_bytes` a number.
    pub fn linear([rows, cols, inner]: [usize; 3], format: WeightFormat, act_bytes: usize, out_bytes: usize) -> Work {
        let weight_bytes = cols * format.gpu_row_bytes(inner);
        let read = weight_bytes + rows * inner * act_bytes;
        Work::new("linear", [rows, cols, inner], read, rows * cols * out_bytes, 2 * rows * cols * inner)
    }

    /// The same and `bytes` read besides: what a product is added to.
    pub fn and_reading(self, bytes: usize) -> Work {
        Work { read_bytes: self.read_bytes + bytes as u64, ..self }
    }

    /// A kernel that reads `read` bytes of every row and writes `write`, and multiplies nothing to speak of.
    pub fn rows(label: &'static str, rows: usize, cols: usize, read: usize, write: usize) -> Work {
        Work::new(label, [rows, cols, 0], rows * read, rows * write, 0)
    }

    /// The residual stream read, the norm written in `act_bytes` a number.
    pub fn rms_norm(rows: usize, cols: usize, act_bytes: usize) -> Work {
        Work::rows("rms_norm", rows, cols, 4 * cols, cols * act_bytes)
    }

    /// Items of one form of attention against one layer's cache: keys and values that several items share count once,
    /// and a product only where the query sees the key.
    pub fn attention(items: &[AttentionItem], heads: &Heads) -> Work {
        let mut runs: Vec<(u32, u32)> =
            items.iter().map(|item| (item.first_slot, item.first_slot + item.count)).collect();
        runs.sort_unstable();
        let (mut keys, mut reach) = (0, 0);
        for (first, end) in runs {
            keys += end.saturating_sub(first.max(reach)) as usize;
            reach = reach.max(end);
        }
        // Rows that several items split have their query read by each and their partial results written in f32.
        let (mut pairs, mut rows, mut partial_rows) = (0, 0, 0);
        for item in items {
            pairs += (0..item.rows).map(|row| seen(item, row, heads.window)).sum::<usize>();
            rows += item.rows as usize;
            partial_rows += if item.partial == crate::attention::DIRECT { 0 } else { item.rows as usize };
        }
        let kv = keys * heads.num_kv_heads * heads.kv.row_bytes(heads.head_stride);
        let row = heads.num_heads * heads.head_stride;
        let write = (rows - partial_rows) * heads.num_heads * heads.head_dim * heads.act_bytes
            + partial_rows * (row + 2 * heads.num_heads) * 4;
        let flops = 4 * pairs * heads.num_heads * heads.head_dim;
        Work::new("attention", [rows, keys, heads.num_heads], kv + rows * row * heads.act_bytes, write, flops)
    }

    /// Partial results of all merges read, their rows written.
    pub fn merge(merges: &[AttentionMerge], heads: &Heads) -> Work {
        let rows: usize = merges.iter().map(|merge| merge.rows as usize).sum();
        let parts: usize = merges.iter().map(|merge| (merge.rows * merge.parts) as usize).sum();
        let partial = heads.num_heads * (heads.head_stride + 2) * 4;
        let write = rows * heads.num_heads * heads.head_dim * heads.act_bytes;
        Work::new("merge", [rows, parts, heads.num_heads], parts * partial, write, 0)
    }
}

/// Keys of an item that its query row sees.
fn seen(item: &AttentionItem, row: u32, window: usize) -> usize {
    let position = (item.row_position + row) as usize;
    let first = if window == 0 { 0 } else { (position + 1).saturating_sub(window) };
    let (start, end) = (item.first_position as usize, (item.first_position + item.count) as usize);
    (position + 1).min(end).saturating_sub(first.max(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::DIRECT;

    const HEADS: Heads = Heads {
        num_heads: 8,
        num_kv_heads: 2,
        head_dim: 60,
        head_stride: 64,
        act_bytes: 2,
        kv: KvType::F16,
        window: 0,
    };

    fn item(first_row: u32, rows: u32, first_slot: u32, count: u32, row_position: u32, partial: u32) -> AttentionItem {
        AttentionItem { first_row, rows, first_slot, count, first_position: 0, row_position, partial }
    }

    #[test]
    fn a_product_reads_its_weights_once_and_multiplies_twice_a_weight() {
        let work = Work::linear([3, 64, 96], WeightFormat::Q4_0, 2, 4);
        // Three blocks a row: 48 bytes of quants and 6 of scales, padded to 64.
        assert_eq!(work.read_bytes, 64 * 64 + 3 * 96 * 2);
        assert_eq!((work.write_bytes, work.flops), (3 * 64 * 4, 2 * 3 * 64 * 96));
        assert_eq!(work.bytes(), work.read_bytes + work.write_bytes);
    }

    #[test]
    fn keys_that_items_share_count_once_and_pairs_are_causal() {
        // Four rows of a prompt of 100 in two tiles over the same keys: rows at 96 .. 100 see 97 .. 100 keys.
        let work = Work::attention(&[item(0, 2, 32, 100, 96, DIRECT), item(2, 2, 32, 100, 98, DIRECT)], &HEADS);
        assert_eq!(work.read_bytes, 2 * 100 * 2 * 64 * 2 + 4 * 8 * 64 * 2);
        assert_eq!(work.flops, 4 * (97 + 98 + 99 + 100) * 8 * 60);
        assert_eq!(work.write_bytes, 4 * 8 * 60 * 2);
        assert_eq!(work.shape, [4, 100, 8]);
        let items = [item(0, 4, 32, 100, 96, DIRECT)];
        let int4 = Work::attention(&items, &Heads { kv: KvType::Int4, ..HEADS });
        assert_eq!(int4.read_bytes, 2 * 100 * (32 + 32 + 8) + 4 * 8 * 64 * 2);
        // Two sequences side by side; with a window each row sees 10 of its keys.
        let apart = [item(0, 1, 0, 50, 49, DIRECT), item(1, 1, 64, 30, 29, 0)];
        let work = Work::attention(&apart, &Heads { window: 10, ..HEADS });
        assert_eq!((work.shape[1], work.flops), (80, 4 * 20 * 8 * 60));
        assert_eq!(work.write_bytes, 8 * 60 * 2 + (8 * 64 + 16) * 4, "one row direct, one partial");
    }

    #[test]
    fn a_merge_reads_every_part_of_every_row() {
        let merges = [AttentionMerge { first_row: 0, rows: 2, first_part: 0, parts: 3 }];
        let work = Work::merge(&merges, &HEADS);
        assert_eq!((work.read_bytes, work.write_bytes), (6 * 8 * 66 * 4, 2 * 8 * 60 * 2));
    }
}
