//! What a dispatch moves and computes under a schedule, counted from its shape: what schedules are ranked by before anything
//! is measured. What caches serve of it, and how fast an adapter is, is fitted to measurements elsewhere.

use crate::linear::Product;
use crate::{BLOCK, WeightFormat};

/// What a dispatch, and those that it cannot do without, do under a schedule.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DispatchCost {
    /// Asked of memory: what several workgroups read counts for each of them.
    pub bytes: f64,
    /// Floating-point operations, those of whole tiles; a multiply-add counts two.
    pub flops: f64,
    /// Workgroups.
    pub workgroups: f64,
    /// `var<workgroup>` memory of one of them.
    pub workgroup_bytes: f64,
}

impl DispatchCost {
    /// Both, one after the other: the workgroups of `self` decide how it fills the adapter.
    #[must_use]
    pub fn and(self, other: DispatchCost) -> DispatchCost {
        DispatchCost { bytes: self.bytes + other.bytes, flops: self.flops + other.flops, ..self }
    }

    /// A product in workgroups of `group` outputs, rows and columns, each of which reads and decodes its own weights and
    /// its own rows of x, `x_bytes` a number; with the sum of its parts where it is split.
    pub(crate) fn product(product: &Product, group: [u32; 2], x_bytes: usize, workgroup_bytes: u32) -> DispatchCost {
        let &Product { rows, cols, inner, format, act_bytes, gated, splits } = product;
        let [group_m, group_n] = group.map(|side| side as usize);
        let inner = inner.next_multiple_of(BLOCK);
        let tiles = (rows.div_ceil(group_m) * cols.div_ceil(group_n)) as f64;
        let tile_bytes = group_n * format.gpu_row_bytes(inner) + group_m * inner * x_bytes;
        let decoded = if format == WeightFormat::F32 { 0 } else { group_n * inner };
        let out_bytes = if gated { act_bytes / 2 } else { 4 };
        let parts = if splits > 1 { 2 * splits * rows * cols * 4 } else { 0 };
        DispatchCost {
            bytes: tiles * tile_bytes as f64 + (rows * cols * out_bytes + parts) as f64,
            flops: tiles * 2.0 * (group_m * group_n * inner + decoded) as f64,
            workgroups: tiles * splits.max(1) as f64,
            workgroup_bytes: f64::from(workgroup_bytes),
        }
    }
}
