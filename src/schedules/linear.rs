//! Matrix products: which kernel, which schedule, in how many parts, and whether it norms its inputs itself.

use super::{Terms, spaces, tunables};
use crate::cost::AdapterClass;
use raglan_shaders::linear::Product;
use raglan_shaders::{
    BLOCK, DispatchCost, Kernel, Part, Schedule, WeightFormat, matmul, matmul_coop, matvec, matvec_int8,
};
use raglan_tuner::{Candidate, Cost, Dim, DimKind, Space};
use std::sync::LazyLock;

/// Rows that the kernels for few rows take in one reading of the weights: the two spaces meet here.
pub const FEW_ROWS: usize = 8;

/// Parts that a product may be summed in.
pub const SPLITS: [u32; 4] = [1, 2, 4, 8];

/// Inner columns of a part at least: fewer stages do not pay for filling the first.
const SPLIT_COLS: usize = 128;

/// How a matrix product runs.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearChoice {
    /// `matvec`, `matvec_int8`, `matmul` or `matmul_coop`.
    pub kernel: &'static Kernel,
    /// Its schedule.
    pub schedule: Schedule,
    /// Parts of the inner columns that are summed apart; 1: it is whole.
    pub splits: u32,
    /// Whether it norms its inputs itself, where they are to be normed.
    pub fused: bool,
}

/// A product, as far as its choice depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinearShape {
    /// Rows of x and out.
    pub rows: usize,
    /// Columns of out in one binding.
    pub cols: usize,
    /// Columns of x and of the weights.
    pub inner: usize,
    /// How the weights are stored.
    pub format: WeightFormat,
    /// Whether x is normed, on the way or before.
    pub normed: bool,
    /// Whether pairs of columns are joined to one.
    pub gated: bool,
}

impl LinearChoice {
    /// A product that is not split and whose inputs are as they are.
    pub fn whole(kernel: &'static Kernel, schedule: Schedule) -> LinearChoice {
        LinearChoice { kernel, schedule, splits: 1, fused: false }
    }

    /// Whether it is a kernel for few rows, which can norm its inputs.
    pub fn takes_few_rows(&self) -> bool {
        self.is(&matvec::KERNEL) || self.is(&matvec_int8::KERNEL)
    }

    /// Whether it runs in cooperative matrices.
    pub fn is_coop(&self) -> bool {
        self.is(&matmul_coop::KERNEL)
    }

    fn is(&self, kernel: &'static Kernel) -> bool {
        self.kernel == kernel
    }

    /// Whether it adds in the order that `other` does, as far as the kernels' text says: the same kernel, whole, with or without
    /// stages. Whether a driver keeps that order has to be looked at on the adapter.
    pub fn sums_like(&self, other: &LinearChoice) -> bool {
        let stages = |choice: &LinearChoice| {
            let at = choice.kernel.tunables.iter().position(|tunable| tunable.name == "STAGES");
            at.map(|at| choice.schedule.values[at] > 0)
        };
        self.kernel == other.kernel && self.splits == 1 && other.splits == 1 && stages(self) == stages(other)
    }

    /// Stretches of `inner` columns that each part sums, in whole stages; `None` where the product is whole.
    pub fn split_blocks(&self, inner: usize) -> Option<u32> {
        if self.splits <= 1 {
            return None;
        }
        let stage = self.kernel.value(&self.schedule, "DEPTH") as usize / BLOCK;
        Some(inner.div_ceil(BLOCK).div_ceil(self.splits as usize).next_multiple_of(stage) as u32)
    }

    /// As the tuner writes it.
    pub fn candidate(&self) -> Candidate {
        let mut candidate = tunables(self.kernel, &self.schedule);
        candidate.settings.push(match self.takes_few_rows() {
            true => ("FUSED".to_owned(), u32::from(self.fused)),
            false => ("SPLITS".to_owned(), self.splits),
        });
        candidate
    }

    /// What the tuner wrote; `None` where a kernel, a constant or a value is unknown.
    pub fn of(candidate: &Candidate) -> Option<LinearChoice> {
        let kernels = [&matvec::KERNEL, &matvec_int8::KERNEL, &matmul::KERNEL, &matmul_coop::KERNEL];
        let kernel = kernels.into_iter().find(|kernel| kernel.name == candidate.kernel)?;
        let (schedule, rest) = super::schedule(kernel, candidate, &[])?;
        let choice = LinearChoice::whole(kernel, schedule);
        match (rest.as_slice(), choice.takes_few_rows()) {
            ([], _) => Some(choice),
            ([("FUSED", fused @ 0..=1)], true) => Some(LinearChoice { fused: *fused == 1, ..choice }),
            ([("SPLITS", splits)], false) if SPLITS.contains(splits) => {
                Some(LinearChoice { splits: *splits, ..choice })
            }
            _ => None,
        }
    }
}

/// The space of products of so many rows.
pub fn space(rows: usize) -> &'static Space {
    static SPACES: LazyLock<[Space; 2]> = LazyLock::new(|| {
        [spaces::LINEAR_FEW, spaces::LINEAR_MANY].map(|name| {
            let dim = |name: &str, kind, grouped| Dim { name: name.to_owned(), kind, grouped };
            let dims = vec![
                dim("rows", DimKind::Tiled, false),
                dim("cols", DimKind::Tiled, true),
                dim("inner", DimKind::Size, true),
                dim("weight_bits", DimKind::Size, true),
                dim("blocks", DimKind::Number, true),
                dim("normed", DimKind::Number, false),
                dim("gated", DimKind::Number, false),
            ];
            Space { name: name.to_owned(), dims }
        })
    });
    &SPACES[usize::from(rows > FEW_ROWS)]
}

/// A shape in the dims of its space.
pub fn descriptor(shape: &LinearShape) -> [f32; 7] {
    let format = shape.format;
    let blocks = match format.block_values() {
        // As wide as f16, and another number.
        _ if format == WeightFormat::Bf16 => 0.5,
        1 => 0.0,
        // A zero point beside each scale.
        _ if matches!(
            format,
            WeightFormat::I4G32 | WeightFormat::I4G128 | WeightFormat::I8G32 | WeightFormat::I8G128
        ) =>
        {
            1.5
        }
        32 => 1.0,
        _ => 2.0,
    };
    let bits = 8.0 * format.block_bytes() as f32 / format.block_values() as f32;
    let number = |flag: bool| f32::from(u8::from(flag));
    [shape.rows as f32, shape.cols as f32, shape.inner as f32, bits, blocks, number(shape.normed), number(shape.gated)]
}

/// Whether a product has columns enough for its parts, and room for them.
pub(crate) fn has_room(choice: &LinearChoice, [rows, cols, inner]: [usize; 3], terms: &Terms) -> bool {
    let splits = choice.splits as usize;
    let bytes = || (splits * rows * cols.next_multiple_of(2) * 4) as u64;
    splits <= 1 || inner >= splits * SPLIT_COLS && bytes() <= terms.split_bytes
}

/// Whether a product may run so: by the kernel's own legality, and by what the run allows.
pub fn legal(choice: &LinearChoice, shape: &LinearShape, terms: &Terms) -> bool {
    let &LinearShape { rows, cols, inner, format, normed, .. } = shape;
    let limits = &terms.limits;
    let sizes = [rows, cols, inner].map(|size| u32::try_from(size).unwrap_or(u32::MAX));
    let is_own = if choice.is(&matvec_int8::KERNEL) {
        terms.int8 && format.has_blocks()
    } else if choice.is_coop() {
        limits.min_subgroup_lanes == limits.max_subgroup_lanes && terms.act == Part::ActF16
    } else {
        true
    };
    is_own
        && has_room(choice, [rows, cols, inner], terms)
        && (choice.takes_few_rows() || !choice.fused)
        && (normed || !choice.fused)
        && (choice.kernel.legal)(limits, &sizes, &choice.schedule)
}

/// What a product costs that runs so, its norm before it where it has one.
pub fn cost(choice: &LinearChoice, shape: &LinearShape, terms: &Terms) -> Cost {
    let &LinearShape { rows, cols, inner, format, normed, gated } = shape;
    let act_bytes = terms.act_bytes();
    let product = Product { rows, cols, inner, format, act_bytes, gated, splits: choice.splits as usize };
    let cost = if choice.takes_few_rows() {
        matvec::cost(&product, &choice.schedule, choice.fused)
    } else if choice.is_coop() {
        matmul_coop::cost(&product, &choice.schedule, terms.limits.coop_side)
    } else {
        matmul::cost(&product, &choice.schedule)
    };
    let norm = if normed && !choice.fused { (rows * inner * (4 + act_bytes)) as f64 } else { 0.0 };
    super::cost(cost.and(DispatchCost { bytes: norm, ..DispatchCost::default() }))
}

/// Every candidate for products of so many rows on such an adapter, whatever their sizes. On a software adapter, which takes
/// up to a second to compile one, only what its lanes and barriers may favour, and a little of the rest.
pub fn all(rows: usize, terms: &Terms) -> Vec<LinearChoice> {
    let is_few = rows <= FEW_ROWS;
    let is_software = terms.class == AdapterClass::Software;
    let mut all = Vec::new();
    let mut add = |kernel: &'static Kernel, keep: &dyn Fn(&[u32]) -> bool| {
        for schedule in kernel.legal_schedules(&terms.limits, &[1, 1, 1]) {
            if keep(&schedule.values) {
                all.push(LinearChoice::whole(kernel, schedule));
            }
        }
    };
    let matvec = |values: &[u32]| {
        let [lanes, tile_m, tile_n, _] = values[..] else { return false };
        // More rows than a tile holds are read again for each.
        (is_few || tile_m == 8) && (!is_software || (lanes == 32 && tile_n >= 4))
    };
    add(&matvec::KERNEL, &matvec);
    if terms.int8 {
        add(&matvec_int8::KERNEL, &matvec);
    }
    let has_coop = terms.limits.coop_side > 0
        && terms.act == Part::ActF16
        && terms.limits.min_subgroup_lanes == terms.limits.max_subgroup_lanes;
    add(&matmul::KERNEL, &|values| {
        let [lanes_m, lanes_n, tile_m, tile_n, stages, depth] = values[..] else { return false };
        let (group_m, group_n) = (lanes_m * tile_m, lanes_n * tile_n);
        let few = if is_few { group_m <= 16 } else { group_m >= 4 };
        // Tiles whose sides differ by more read too much for an output.
        let balanced = stages == 0 || group_m.max(group_n) <= if is_few { 16 } else { 4 } * group_m.min(group_n);
        let software = stages == 0 && lanes_n == 32 || stages == 1 && [group_m, group_n] == [32, 32] && depth == 32;
        // Beside cooperative matrices, a few that show how far behind these are.
        let beside = stages > 0 && depth == 32 && tile_m >= 2 && group_n >= 32;
        few && if is_software { software } else { balanced && (!has_coop || beside) }
    });
    if has_coop {
        add(&matmul_coop::KERNEL, &|values| {
            let [_, subgroups_m, subgroups_n, tile_m, tile_n, ..] = values[..] else { return false };
            let (group_m, group_n) = (subgroups_m * tile_m, subgroups_n * tile_n);
            let few = if is_few { group_m <= 16 } else { group_m >= 16 };
            let balanced = group_m.max(group_n) <= 8 * group_m.min(group_n);
            few && balanced && (!is_software || (subgroups_m == 1 && subgroups_n == 2 && tile_m == tile_n))
        });
    }
    let splits: &[u32] = if terms.split_bytes > 0 { &SPLITS } else { &SPLITS[..1] };
    let variants = |choice: LinearChoice| -> Vec<LinearChoice> {
        if choice.takes_few_rows() {
            [false, true].map(|fused| LinearChoice { fused, ..choice.clone() }).into()
        } else {
            // Beside cooperative matrices the others stay whole.
            let splits = if has_coop && !choice.is_coop() { &SPLITS[..1] } else { splits };
            splits.iter().map(|&splits| LinearChoice { splits, ..choice.clone() }).collect()
        }
    };
    all.into_iter().flat_map(variants).collect()
}
