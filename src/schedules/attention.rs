//! Ragged attention: which kernel, which schedule, and in parts of how many keys.

use super::{Terms, spaces, tunables};
use crate::cost::AdapterClass;
use raglan_shaders::attention::{RaggedWork, coop, tile, vector};
use raglan_shaders::{Kernel, KvType, Part, Schedule};
use raglan_tuner::{Candidate, Cost, Dim, DimKind, Space};
use std::sync::LazyLock;

/// The chunk of a choice that cuts no run.
pub const WHOLE: u32 = 0;

/// The chunk of a choice that leaves it to [`crate::cost::attention_chunk`].
pub const AUTO: u32 = 1;

/// What a choice may say of chunks: [`WHOLE`], [`AUTO`], or keys.
pub const CHUNKS: [u32; 9] = [WHOLE, AUTO, 128, 256, 512, 1024, 2048, 4096, 8192];

/// Which query rows: few of a sequence, or many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// `attention_vector`.
    Vector,
    /// `attention_tile` and `attention_coop`.
    Tile,
}

/// How the attention of one form runs.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionChoice {
    /// `attention_vector`, `attention_tile` or `attention_coop`.
    pub kernel: &'static Kernel,
    /// Its schedule.
    pub schedule: Schedule,
    /// One of [`CHUNKS`].
    pub chunk: u32,
}

/// The heads of a model's attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KvHeads {
    /// Key and value heads.
    pub kv_heads: usize,
    /// Query heads to a kv head.
    pub group: usize,
    /// Columns of a head in the cache.
    pub head_stride: usize,
    /// What keys and values are kept in.
    pub kv: KvType,
}

impl KvHeads {
    /// Bytes of a column of a key or value, on average with its share of the scales.
    pub fn element_bytes(&self) -> f32 {
        self.kv.row_bytes(self.head_stride) as f32 / (2 * self.head_stride) as f32
    }
}

/// A ragged batch of one form.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionStats {
    /// Heads.
    pub heads: KvHeads,
    /// Runs of keys; tiles that read the same run count it for each.
    pub runs: usize,
    /// Query rows.
    pub rows: usize,
    /// Keys of all runs.
    pub keys: usize,
    /// Keys of the longest run.
    pub keys_max: usize,
    /// Standard deviation of the keys of a run over their mean.
    pub variation: f32,
    /// What the runs are cut into, by [`CHUNKS`].
    pub parts: [usize; CHUNKS.len()],
}

impl AttentionStats {
    /// Of runs of so many keys, read by `rows` query rows; `auto` keys to a part are what [`AUTO`] stands for.
    pub fn of(heads: KvHeads, rows: usize, runs: &[u32], auto: usize) -> AttentionStats {
        let (mut keys, mut squares, mut keys_max) = (0u64, 0u128, 0u32);
        for &run in runs {
            keys += u64::from(run);
            squares += u128::from(run) * u128::from(run);
            keys_max = keys_max.max(run);
        }
        let count = runs.len().max(1) as f64;
        let mean = keys as f64 / count;
        let variance = (squares as f64 / count - mean * mean).max(0.0);
        let auto = auto.clamp(1, u32::MAX as usize) as u32;
        let parts = CHUNKS.map(|chunk| match chunk {
            WHOLE => runs.len(),
            AUTO if auto >= keys_max => runs.len(),
            AUTO => runs.iter().map(|run| run.div_ceil(auto) as usize).sum(),
            _ if chunk >= keys_max => runs.len(),
            _ => {
                let shift = chunk.ilog2();
                runs.iter().map(|run| ((u64::from(*run) + u64::from(chunk - 1)) >> shift) as usize).sum()
            }
        });
        let variation = (variance.sqrt() / mean.max(1.0)) as f32;
        AttentionStats {
            heads,
            runs: runs.len(),
            rows,
            keys: keys as usize,
            keys_max: keys_max as usize,
            variation,
            parts,
        }
    }
}

impl AttentionChoice {
    /// Which rows it takes.
    pub fn form(&self) -> Form {
        if self.kernel == &vector::KERNEL { Form::Vector } else { Form::Tile }
    }

    /// Packed rows to a workgroup.
    pub fn packed_rows(&self, coop_side: u32) -> usize {
        let rows = match self.form() {
            Form::Vector => vector::KERNEL.value(&self.schedule, "ROWS"),
            Form::Tile if self.is_coop() => coop::packed_rows(&self.schedule, coop_side),
            Form::Tile => tile::packed_rows(&self.schedule),
        };
        rows as usize
    }

    /// Whether it runs in cooperative matrices.
    pub fn is_coop(&self) -> bool {
        self.kernel == &coop::KERNEL
    }

    /// As the tuner writes it: without the columns of a head, which are the model's.
    pub fn candidate(&self) -> Candidate {
        let mut candidate = tunables(self.kernel, &self.schedule);
        candidate.settings.retain(|(name, _)| name != "HEAD_STRIDE");
        candidate.settings.push(("CHUNK".to_owned(), self.chunk));
        candidate
    }

    /// What the tuner wrote, for heads of such a stride; `None` where a kernel, a constant or a value is unknown.
    pub fn of(candidate: &Candidate, head_stride: usize) -> Option<AttentionChoice> {
        let kernels = [&vector::KERNEL, &tile::KERNEL, &coop::KERNEL];
        let kernel = kernels.into_iter().find(|kernel| kernel.name == candidate.kernel)?;
        let (schedule, rest) = super::schedule(kernel, candidate, &[("HEAD_STRIDE", head_stride as u32)])?;
        let chunk = match rest.as_slice() {
            [] => AUTO,
            [("CHUNK", chunk)] if CHUNKS.contains(chunk) => *chunk,
            _ => return None,
        };
        Some(AttentionChoice { kernel, schedule, chunk })
    }
}

/// The space of a form.
pub fn space(form: Form) -> &'static Space {
    static SPACES: LazyLock<[Space; 2]> = LazyLock::new(|| {
        [spaces::ATTENTION_VECTOR, spaces::ATTENTION_TILE].map(|name| {
            let size = |name: &str, grouped| Dim { name: name.to_owned(), kind: DimKind::Size, grouped };
            let dims = vec![
                Dim { kind: DimKind::Tiled, ..size("runs", false) },
                Dim { kind: DimKind::Tiled, ..size("rows", false) },
                size("keys", false),
                size("keys_mean", false),
                size("keys_max", false),
                Dim { kind: DimKind::Number, ..size("variation", false) },
                size("kv_heads", true),
                size("group", true),
                size("head_stride", true),
                size("element_bytes", true),
            ];
            Space { name: name.to_owned(), dims }
        })
    });
    &SPACES[usize::from(form == Form::Tile)]
}

/// A batch in the dims of its space.
pub fn descriptor(stats: &AttentionStats) -> [f32; 10] {
    let KvHeads { kv_heads, group, head_stride, .. } = stats.heads;
    let size = |size: usize| size as f32;
    [
        size(stats.runs),
        size(stats.rows),
        size(stats.keys),
        stats.keys as f32 / stats.runs.max(1) as f32,
        size(stats.keys_max),
        stats.variation,
        size(kv_heads),
        size(group),
        size(head_stride),
        stats.heads.element_bytes(),
    ]
}

/// Whether attention may run so where an item has up to `packed_rows` packed rows: by the kernel's own legality, and by what
/// the run allows. More items than a dispatch may have go in several passes.
pub fn legal(choice: &AttentionChoice, heads: &KvHeads, packed_rows: usize, terms: &Terms) -> bool {
    let is_own = !choice.is_coop()
        || terms.act == Part::ActF16
            && heads.kv != KvType::F32
            && terms.limits.min_subgroup_lanes == terms.limits.max_subgroup_lanes;
    let shape = [1, packed_rows, heads.head_stride, heads.kv.word_values()];
    let shape = shape.map(|size| u32::try_from(size).unwrap_or(u32::MAX));
    is_own && (choice.kernel.legal)(&terms.limits, &shape, &choice.schedule)
}

/// What a batch costs that runs so, with the merge behind it.
pub fn cost(choice: &AttentionChoice, stats: &AttentionStats, terms: &Terms) -> Cost {
    let KvHeads { kv_heads, group, head_stride, kv } = stats.heads;
    let parts = CHUNKS.iter().position(|&chunk| chunk == choice.chunk).map_or(stats.runs, |at| stats.parts[at]);
    let &AttentionStats { runs, rows, keys, .. } = stats;
    let work = RaggedWork { runs, rows, keys, parts, kv_heads, group, head_stride, kv, act_bytes: terms.act_bytes() };
    super::cost(match choice.form() {
        Form::Vector => vector::cost(&work, &choice.schedule, &terms.limits),
        Form::Tile if choice.is_coop() => coop::cost(&work, &choice.schedule, terms.limits.coop_side),
        Form::Tile => tile::cost(&work, &choice.schedule),
    })
}

/// Every candidate of a form for such heads on such an adapter. Chunks of so many keys are tried with the schedules of
/// `usual` alone, the others with whole runs and [`AUTO`].
pub fn all(form: Form, heads: &KvHeads, terms: &Terms, usual: &[AttentionChoice]) -> Vec<AttentionChoice> {
    let is_software = terms.class == AdapterClass::Software;
    let shape = [1, 1, heads.head_stride as u32, heads.kv.word_values() as u32];
    let mut schedules: Vec<(&'static Kernel, Schedule)> = Vec::new();
    let mut add = |kernel: &'static Kernel, keep: &dyn Fn(&[u32]) -> bool| {
        let legal = kernel.legal_schedules(&terms.limits, &shape);
        schedules
            .extend(legal.into_iter().filter(|schedule| keep(&schedule.values)).map(|schedule| (kernel, schedule)));
    };
    match form {
        Form::Vector => add(&vector::KERNEL, &|values| {
            let [lanes, team, _, keys, _] = values[..] else { return false };
            if is_software { lanes == 32 && team >= 4 && (2..=4).contains(&keys) } else { team >= 2 }
        }),
        Form::Tile => {
            add(&tile::KERNEL, &|values| {
                let [lanes, team, rows, keys, stage, _] = values[..] else { return false };
                !is_software || team == 1 || [lanes, team, rows, keys, stage] == [64, 4, 2, 4, 16]
            });
            add(&coop::KERNEL, &|values| !is_software || values[1] < 4);
        }
    }
    let all_chunks = |kernel: &'static Kernel, schedule: &Schedule| {
        usual.iter().any(|choice| choice.kernel == kernel && choice.schedule == *schedule)
    };
    for choice in usual.iter().filter(|choice| choice.form() == form) {
        let schedule = (choice.kernel, choice.schedule.clone());
        if !schedules.contains(&schedule) {
            schedules.push(schedule);
        }
    }
    let choices = schedules.into_iter().flat_map(|(kernel, schedule)| {
        let chunks = if all_chunks(kernel, &schedule) { &CHUNKS[..] } else { &CHUNKS[..2] };
        chunks.iter().map(move |&chunk| AttentionChoice { kernel, schedule: schedule.clone(), chunk })
    });
    choices.filter(|choice| legal(choice, heads, 1, terms)).collect()
}
