//! A batch → work items for attention, and the schedules of the step's kernels.

mod items;
#[cfg(test)]
mod long_tests;
mod moves;
mod picks;
mod products;
mod schedules;
mod stretches;
#[cfg(test)]
mod tests;
mod tuned;

pub use schedules::TileForm;

use crate::batch::{Batch, StepLimits};
use crate::cost::AdapterClass;
use crate::schedules::{AttentionChoice, Form, LinearChoice, LinearTable, Terms, Tuner};
use crate::segments::MAX_SEGMENTS;
pub use moves::MOST_MOVES;
use moves::{piece_rows, plan_moves};
pub use picks::Picked;
use picks::Picks;
pub use products::split_bytes;
use raglan_shaders::attention::AttentionItem;
pub use raglan_shaders::attention::CHUNK;
use raglan_shaders::attention::merge::AttentionMerge;
use raglan_shaders::move_rows::RowMove;
use raglan_shaders::{AdapterLimits, KvType, Part, Schedule};
use std::ops::Range;
use stretches::{Run, Source, Stretch};
pub use tuned::TunerStats;

/// Workgroups along one dimension that every adapter allows.
const MAX_WORKGROUPS: usize = 65_535;

/// Query rows whose partial results find room beside what a step needs at least: how far long contexts may be split.
const SPARE_ROWS: usize = 2048;

/// The vector form, and two heights of tiles.
const FORMS: usize = 3;

/// No stretch.
const NONE: usize = usize::MAX;

/// Layers with one window and one type of keys and values: they share slots, plans and schedules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvGroup {
    /// How many positions a query sees; `None`: all.
    pub window: Option<usize>,
    /// What keys and values are kept in.
    pub kv: KvType,
}

/// The attention of a model, as far as planning depends on it.
#[derive(Debug, Clone)]
pub struct AttentionShape {
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Columns of a head.
    pub head_dim: usize,
    /// The KV groups.
    pub groups: Vec<KvGroup>,
    /// Whether results may depend on what else runs.
    pub numerics: Numerics,
}

/// Whether a row's result may depend, within rounding, on what else runs and on how its prompt was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Numerics {
    /// It may.
    #[default]
    Fast,
    /// It is the same, bit for bit. Segments must begin at multiples of [`CHUNK`] positions, and so must shared prefixes end.
    Deterministic {
        /// The most positions that a sequence may have.
        longest_context: usize,
    },
}

impl AttentionShape {
    /// Query heads to a kv head.
    pub fn group(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    /// Columns of a head in the cache of a KV group.
    ///
    /// # Panics
    /// If heads are wider than the kernels are made for.
    pub fn head_stride(&self, group: usize) -> usize {
        self.groups[group].kv.head_stride(self.head_dim).expect("the heads' width was checked")
    }

    /// The most of them in any group.
    pub fn widest_stride(&self) -> usize {
        (0..self.groups.len()).map(|group| self.head_stride(group)).max().unwrap_or(0)
    }
}

/// The work items of one step. Layers of a KV group share theirs.
#[derive(Debug, Default)]
pub struct Plan {
    /// Of all passes.
    pub items: Vec<AttentionItem>,
    /// Of all passes.
    pub merges: Vec<AttentionMerge>,
    /// Of all merges: the partial row of a part where the merge's first packed row lies.
    pub parts: Vec<u32>,
    /// Of all KV groups.
    pub passes: Vec<Pass>,
    /// Of all rounds.
    pub moves: Vec<RowMove>,
    /// Of all KV groups: moves that touch nothing of each other's.
    pub rounds: Vec<Range<usize>>,
    /// One a KV group.
    pub groups: Vec<GroupPlan>,
    /// Packed rows of partial results of one kv head that the largest pass needs.
    pub partials: usize,
    /// Rows of one plane of K that workgroups read, in all KV groups.
    pub keys_read: u64,
    scratch: Scratch,
}

/// What the layers of a KV group run.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct GroupPlan {
    /// Of [`Plan::rounds`]: one after the other, before anything is appended.
    pub rounds: Range<usize>,
    /// Of [`Plan::passes`]: one after the other, in the same memory for partial results.
    pub passes: Range<usize>,
    /// How the vector form runs.
    pub vector: Picked,
    /// How the tiles of each height run.
    pub tiles: [Picked; 2],
}

/// A dispatch of each form, and the merge of their results.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Pass {
    /// Items for the vector form, longest first.
    pub vector: Range<usize>,
    /// The most packed rows among them.
    pub vector_packed_rows: usize,
    /// Items for tiles, for few query rows and for more, longest first.
    pub tiles: [Range<usize>; 2],
    /// The most packed rows among them.
    pub tile_packed_rows: [usize; 2],
    /// Merges.
    pub merges: Range<usize>,
    /// The most packed rows among them.
    pub merge_packed_rows: usize,
}

/// What planning works in, kept from step to step.
#[derive(Debug, Default)]
struct Scratch {
    stretches: Vec<Stretch>,
    runs: Vec<Run>,
    /// Of each sequence: leading keys in the same slots as the last one's.
    common: Vec<usize>,
    /// The kind of attention that is planned, in [`Planner::kinds`].
    kind: usize,
    /// Keys of every run, by form.
    counts: [Vec<u32>; FORMS],
    /// Query rows, by form.
    rows: [usize; FORMS],
    /// Packed rows to a tile, by height.
    heights: [usize; 2],
    /// Where partial results of shared stretches start.
    blocks: Vec<u32>,
    chain: Vec<usize>,
    /// By form, in the order of the stretches.
    items: [Vec<AttentionItem>; FORMS],
    order: Vec<u64>,
}

/// What a step's plan may hold at most, from what a step may hold: what buffers are made for.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// Work items.
    pub items: usize,
    /// Merges.
    pub merges: usize,
    /// Parts of merges.
    pub parts: usize,
    /// Packed rows of partial results of one kv head.
    pub partials: usize,
    /// Items of moves.
    pub moves: usize,
}

impl Capacity {
    /// What the plan of a step within `limits` may hold.
    pub fn of(shape: &AttentionShape, limits: &StepLimits) -> Capacity {
        let (tokens, groups) = (limits.max_batch_tokens, shape.groups.len());
        let (rows, parts) = match shape.numerics {
            // Long contexts are split as far as one pass has room; what needs more without a split takes further passes.
            Numerics::Fast => {
                let spare = SPARE_ROWS.min(16 * tokens);
                (2 * tokens + spare, MAX_SEGMENTS * tokens + spare)
            }
            Numerics::Deterministic { longest_context } => {
                let chunks = chunks(longest_context, tokens);
                ((2 * tokens + SPARE_ROWS).max(chunks + 1), chunks * tokens)
            }
        };
        Capacity {
            items: groups * (parts + tokens),
            merges: groups * tokens,
            parts: groups * parts,
            partials: rows * shape.group(),
            moves: MOST_MOVES,
        }
    }

    /// Bytes that a plan takes on its way to the adapter.
    pub fn input_bytes(&self) -> usize {
        self.items * size_of::<AttentionItem>()
            + self.merges * size_of::<AttentionMerge>()
            + self.parts * size_of::<u32>()
            + self.moves * size_of::<RowMove>()
    }
}

/// Chunks of the longest context, or of a step alone, and one more where it begins within a chunk.
fn chunks(longest_context: usize, tokens: usize) -> usize {
    longest_context.max(tokens).div_ceil(CHUNK) + 1
}

/// How attention runs over caches of one type.
#[derive(Debug)]
struct Kind {
    kv: KvType,
    /// By height; one where all rows take the same.
    tiles: Vec<TileForm>,
    /// By rows to a workgroup.
    vector: [Schedule; 4],
    /// What attention of few and of many rows is chosen from.
    attention: [picks::Portfolio; 2],
}

/// Plans steps for one model on one adapter.
#[derive(Debug)]
pub struct Planner {
    shape: AttentionShape,
    terms: Terms,
    /// One a type of keys and values.
    kinds: Vec<Kind>,
    /// By KV group, in `kinds`.
    kind_of: Vec<usize>,
    capacity: Capacity,
    /// What every product takes where it may, instead of what would be chosen: for measuring.
    forced_linear: Option<LinearChoice>,
    /// What predicts.
    tuner: Tuner,
    /// The choices of the model's products.
    table: LinearTable,
    counters: tuned::Counters,
    max_batch_tokens: usize,
}

impl Planner {
    /// A planner for a model's attention on a class of adapter, which allows so much.
    pub fn new(shape: AttentionShape, class: AdapterClass, adapter: &AdapterLimits, limits: &StepLimits) -> Self {
        let capacity = Capacity::of(&shape, limits);
        let mut kinds: Vec<Kind> = Vec::new();
        for kv in shape.groups.iter().map(|group| group.kv) {
            if kinds.iter().all(|kind| kind.kv != kv) {
                let vector = schedules::vector_schedules(&shape, kv, class, adapter);
                let tiles = schedules::tile_forms(&shape, kv, class, adapter);
                kinds.push(Kind { kv, tiles, vector, attention: Default::default() });
            }
        }
        let kind_of =
            |group: &KvGroup| kinds.iter().position(|kind| kind.kv == group.kv).expect("every type is listed");
        let kind_of = shape.groups.iter().map(kind_of).collect();
        let split_bytes = products::split_bytes(class, shape.numerics);
        let terms = Terms { limits: adapter.clone(), class, act: Part::ActF32, int8: false, split_bytes };
        Planner {
            shape,
            terms,
            kinds,
            kind_of,
            capacity,
            forced_linear: None,
            tuner: Tuner::off(),
            table: LinearTable::default(),
            counters: tuned::Counters::default(),
            max_batch_tokens: limits.max_batch_tokens,
        }
    }

    /// The same, for such inputs of products instead of f32.
    pub fn with_inputs(self, act: Part) -> Self {
        let mut planner = self;
        planner.terms.act = act;
        if act != Part::ActF16 {
            // Cooperative matrices take f16 alone.
            let adapter = AdapterLimits { coop_side: 0, ..planner.terms.limits.clone() };
            for kind in &mut planner.kinds {
                kind.tiles = schedules::tile_forms(&planner.shape, kind.kv, planner.terms.class, &adapter);
            }
        }
        planner
    }

    /// The same, with x in 8 bits where a few rows meet weights in blocks.
    pub fn with_int8_activations(self, int8_activations: bool) -> Self {
        Planner { terms: Terms { int8: int8_activations, ..self.terms }, ..self }
    }

    /// The same, with every product run so where it may: for measuring.
    pub fn with_linear(self, choice: LinearChoice) -> Self {
        Planner { forced_linear: Some(choice), ..self }
    }

    /// The same, with the attention of the choice's form run so: for measuring. The choice must be legal.
    pub fn with_attention(mut self, choice: AttentionChoice) -> Self {
        self.force_attention(choice);
        self
    }

    /// Has the attention of the choice's form run so: for measuring. The choice must be legal.
    pub fn force_attention(&mut self, choice: AttentionChoice) {
        let form = choice.form();
        for kind in &mut self.kinds {
            kind.attention[form as usize] = picks::Portfolio::of_one(choice.clone(), self.terms.limits.coop_side);
        }
    }

    /// Has every product run so where it may, or as it would be chosen: for measuring.
    pub fn force_linear(&mut self, choice: Option<LinearChoice>) {
        self.forced_linear = choice;
    }

    /// The attention that it plans for.
    pub fn shape(&self) -> &AttentionShape {
        &self.shape
    }

    /// What decides which choices may be made.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// What a plan may hold at most.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// The work items of a batch.
    pub fn plan(&self, batch: &Batch) -> Plan {
        let mut plan = Plan::default();
        self.plan_into(batch, &mut plan);
        plan
    }

    /// As [`Planner::plan`], in the memory of an earlier step's plan.
    ///
    /// # Panics
    /// If the batch passes the limits of a step, or the segments of a deterministic run begin within a chunk.
    pub fn plan_into(&self, batch: &Batch, plan: &mut Plan) {
        plan.clear();
        let piece = piece_rows(batch);
        for ((shape, group), &kind) in self.shape.groups.iter().zip(&batch.groups).zip(&self.kind_of) {
            let rounds = plan_moves(&group.moves, piece, plan);
            let source = Source { batch, group, window: shape.window };
            plan.scratch.kind = kind;
            plan.scratch.heights = self.kinds[kind].heights(Picks::default());
            self.fitting_stretches(source, &mut plan.scratch);
            let (mut picks, mut chunks) = self.pick(&mut plan.scratch);
            while self.kinds[kind].heights(picks) != plan.scratch.heights {
                plan.scratch.heights = self.kinds[kind].heights(picks);
                self.fitting_stretches(source, &mut plan.scratch);
                picks = self.with_new_forms(picks, &mut plan.scratch);
                chunks = self.chunks_of(picks, &mut plan.scratch);
            }
            if self.is_deterministic() {
                let aligned = plan.scratch.runs.iter().all(|run| run.first_position.is_multiple_of(CHUNK));
                assert!(aligned, "segments of a deterministic run begin at multiples of {CHUNK} positions");
            }
            let passes = self.passes(picks, chunks, plan);
            let [vector, tiles @ ..] = picks;
            plan.groups.push(GroupPlan { rounds, passes, vector, tiles });
        }
        let Capacity { items, merges, parts, partials, moves } = self.capacity;
        let met = [plan.items.len(), plan.merges.len(), plan.parts.len(), plan.partials, plan.moves.len()];
        let room = [items, merges, parts, partials, moves];
        assert!(met.iter().zip(room).all(|(&met, room)| met <= room), "a plan within its buffers: {met:?} of {room:?}");
    }

    /// The stretches of a group, those of shared prefixes apart where there is room for their partial results.
    fn fitting_stretches(&self, source: Source<'_>, scratch: &mut Scratch) {
        self.stretches(source, true, scratch);
        if !self.fits(scratch) {
            self.stretches(source, false, scratch);
        }
    }

    fn is_deterministic(&self) -> bool {
        self.shape.numerics != Numerics::Fast
    }
}

impl Plan {
    fn clear(&mut self) {
        let Plan { items, merges, parts, passes, moves, rounds, groups, partials, keys_read, scratch: _ } = self;
        items.clear();
        merges.clear();
        parts.clear();
        passes.clear();
        moves.clear();
        rounds.clear();
        groups.clear();
        (*partials, *keys_read) = (0, 0);
    }
}
