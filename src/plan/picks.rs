//! Which schedule the attention of each form takes, and in parts of how many keys.

use super::stretches::Source;
use super::{FORMS, MAX_WORKGROUPS, Planner, Scratch, TileForm};
use crate::batch::Batch;
use crate::cost::{KeyCost, attention_chunk};
use crate::schedules::attention::{self, AUTO, WHOLE};
use crate::schedules::{AttentionChoice, AttentionModel, AttentionStats, Form, KvHeads};
use raglan_shaders::attention::CHUNK;
use raglan_tuner::Memo;
use std::cell::RefCell;

/// How the attention of a form runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Picked {
    /// As hand-written rules say.
    #[default]
    Rules,
    /// As this choice of the planner's portfolio says.
    Choice(u8),
}

/// By form: the vector form, and two heights of tiles.
pub(super) type Picks = [Picked; FORMS];

/// Keys to an item at most, by form.
pub(super) type Chunks = [usize; FORMS];

/// Batches that are remembered with what was picked for them.
const REMEMBERED: usize = 1024;

/// What the attention of some form is chosen from; nothing where rules say it.
#[derive(Debug)]
pub(super) struct Portfolio {
    choices: Vec<Option<AttentionChoice>>,
    /// The same, where they are tiles.
    tiles: Vec<Option<TileForm>>,
    /// What predicts them; without it the first is taken.
    model: Option<AttentionModel>,
    /// The first that may run, where the model says nothing: no other was compiled.
    first: u8,
    memo: RefCell<Memo<u8>>,
}

impl Default for Portfolio {
    fn default() -> Self {
        Portfolio { choices: Vec::new(), tiles: Vec::new(), model: None, first: 0, memo: RefCell::new(Memo::new(1)) }
    }
}

impl Portfolio {
    fn of(choices: Vec<Option<AttentionChoice>>, model: Option<AttentionModel>, coop_side: u32) -> Portfolio {
        let tile = |choice: &AttentionChoice| TileForm {
            kernel: choice.kernel,
            schedule: choice.schedule.clone(),
            packed_rows: choice.packed_rows(coop_side),
            rate: if choice.is_coop() { 8 } else { 1 },
        };
        let tile = |choice: &Option<AttentionChoice>| choice.as_ref().filter(|c| c.form() == Form::Tile).map(tile);
        let tiles = choices.iter().map(tile).collect();
        let first = choices.iter().position(Option::is_some).unwrap_or(0) as u8;
        Portfolio { choices, tiles, model, first, memo: RefCell::new(Memo::new(REMEMBERED)) }
    }

    /// What is always taken.
    pub(super) fn of_one(choice: AttentionChoice, coop_side: u32) -> Portfolio {
        Portfolio::of(vec![Some(choice)], None, coop_side)
    }

    /// What a model picks from.
    pub(super) fn of_model(model: AttentionModel, coop_side: u32) -> Portfolio {
        Portfolio::of(model.choices().to_vec(), Some(model), coop_side)
    }

    pub(super) fn choice(&self, picked: Picked) -> Option<&AttentionChoice> {
        let Picked::Choice(index) = picked else { return None };
        self.choices.get(usize::from(index))?.as_ref()
    }

    pub(super) fn tile(&self, picked: Picked) -> Option<&TileForm> {
        let Picked::Choice(index) = picked else { return None };
        self.tiles.get(usize::from(index))?.as_ref()
    }

    /// What predicts them.
    pub(super) fn model(&self) -> Option<&AttentionModel> {
        self.model.as_ref()
    }

    /// Candidates of the weights that must not run here.
    pub(super) fn refused(&self) -> u64 {
        self.model.as_ref().map_or(0, AttentionModel::refused)
    }

    /// Everything that may be picked.
    pub(super) fn all(&self) -> impl Iterator<Item = &AttentionChoice> {
        self.choices.iter().flatten()
    }
}

/// A batch in steps of a hundredth or so: what is remembered for one serves those that are nearly the same.
fn rounded(descriptor: [f32; 10]) -> [f32; 10] {
    descriptor.map(|number| f32::from_bits(number.to_bits() & !0x1_ffff))
}

impl Planner {
    /// The heads that the attention of a KV group is over.
    pub fn heads(&self, group: usize) -> KvHeads {
        self.heads_of(self.kind_of[group])
    }

    pub(super) fn heads_of(&self, kind: usize) -> KvHeads {
        let (shape, kv) = (&self.shape, self.kinds[kind].kv);
        let head_stride = kv.head_stride(shape.head_dim).expect("the heads' width was checked");
        KvHeads { kv_heads: shape.num_kv_heads, group: shape.group(), head_stride, kv }
    }

    /// What hand-written rules would take for a form in the first KV group, and leave chunks to [`attention_chunk`].
    pub fn usual_attention(&self, form: Form) -> Vec<AttentionChoice> {
        let kind = &self.kinds[self.kind_of[0]];
        let choice = |kernel, schedule| AttentionChoice { kernel, schedule, chunk: AUTO };
        let mut usual: Vec<AttentionChoice> = match form {
            Form::Vector => {
                let kernel = &raglan_shaders::attention::vector::KERNEL;
                kind.vector.iter().map(|schedule| choice(kernel, schedule.clone())).collect()
            }
            Form::Tile => kind.tiles.iter().map(|tile| choice(tile.kernel, tile.schedule.clone())).collect(),
        };
        usual.dedup();
        usual
    }

    /// The schedules with the least predicted time for the stretches in the scratch, and their chunks.
    pub(super) fn pick(&self, scratch: &mut Scratch) -> (Picks, Chunks) {
        if self.is_deterministic() {
            return (Picks::default(), [CHUNK; FORMS]);
        }
        self.count(scratch);
        let auto = self.auto_chunks(scratch);
        let mut picks = Picks::default();
        for (form, pick) in picks.iter_mut().enumerate() {
            if !scratch.counts[form].is_empty() {
                *pick = self.pick_form(form, scratch, auto[form]);
            }
        }
        (picks, self.roomy_chunks(picks, auto, scratch))
    }

    /// Such picks, and one for every form that had no rows when they were made and has some in the scratch now: no other than
    /// those that are compiled.
    pub(super) fn with_new_forms(&self, mut picks: Picks, scratch: &mut Scratch) -> Picks {
        self.count(scratch);
        for (form, pick) in picks.iter_mut().enumerate() {
            let portfolio = &self.kinds[scratch.kind].attention[form.min(1)];
            if *pick == Picked::Rules && !scratch.counts[form].is_empty() && !portfolio.choices.is_empty() {
                *pick = Picked::Choice(portfolio.first);
            }
        }
        picks
    }

    /// The chunks of such picks, for the stretches in the scratch.
    pub(super) fn chunks_of(&self, picks: Picks, scratch: &mut Scratch) -> Chunks {
        self.count(scratch);
        self.roomy_chunks(picks, self.auto_chunks(scratch), scratch)
    }

    fn pick_form(&self, form: usize, scratch: &Scratch, auto: usize) -> Picked {
        let portfolio = &self.kinds[scratch.kind].attention[form.min(1)];
        let Some(model) = &portfolio.model else {
            return if portfolio.choices.is_empty() { Picked::Rules } else { Picked::Choice(0) };
        };
        let stats = self.stats(form, scratch, auto);
        let key = rounded(attention::descriptor(&stats));
        let mut memo = portfolio.memo.borrow_mut();
        let remembered = memo.get(&key);
        self.counters.asked(remembered.is_some());
        let index = remembered.unwrap_or_else(|| {
            let picked = model.pick(&stats, &self.terms).map_or(portfolio.first, |(index, _)| index as u8);
            memo.insert(&key, picked);
            picked
        });
        Picked::Choice(index)
    }

    /// The ragged batches of one KV group as the tuner sees them when it picks, by form: the vector form, and tiles of few and
    /// of more rows; none where a form has no rows.
    pub fn attention_stats(&self, batch: &Batch, group: usize) -> [Option<AttentionStats>; FORMS] {
        let kind = self.kind_of[group];
        let heights = self.kinds[kind].heights(Picks::default());
        let mut scratch = Scratch { kind, heights, ..Scratch::default() };
        let source = Source { batch, group: &batch.groups[group], window: self.shape.groups[group].window };
        self.fitting_stretches(source, &mut scratch);
        self.count(&mut scratch);
        let auto = self.auto_chunks(&scratch);
        std::array::from_fn(|form| (!scratch.counts[form].is_empty()).then(|| self.stats(form, &scratch, auto[form])))
    }

    /// The ragged batch of a form that was counted, as the tuner sees it; `auto` keys to a part by rules.
    pub(super) fn stats(&self, form: usize, scratch: &Scratch, auto: usize) -> AttentionStats {
        AttentionStats::of(self.heads_of(scratch.kind), scratch.rows[form], &scratch.counts[form], auto)
    }

    /// Runs of keys and query rows, by form.
    fn count(&self, scratch: &mut Scratch) {
        let mut counts = std::mem::take(&mut scratch.counts);
        counts.iter_mut().for_each(Vec::clear);
        scratch.rows = [0; FORMS];
        for stretch in &scratch.stretches {
            let runs = &scratch.runs[stretch.runs.0..stretch.runs.1];
            // The tiles of a shared stretch read the same runs.
            for _ in 0..self.tiles_of(stretch, scratch) {
                counts[stretch.form].extend(runs.iter().map(|run| run.count as u32));
            }
            scratch.rows[stretch.form] += stretch.rows;
        }
        scratch.counts = counts;
    }

    /// The chunks with the least predicted time by the constants of the adapter's class, for the rules' schedules.
    fn auto_chunks(&self, scratch: &Scratch) -> Chunks {
        let model = self.terms.class.wave_model();
        let (shape, kind, heads) = (&self.shape, &self.kinds[scratch.kind], self.heads_of(scratch.kind));
        let chunk = |form: usize| {
            let wave = model.wave as usize;
            let (packed_rows, wave, busy) = match form {
                0 => {
                    let wave = self.vector_wave(kind, shape.group());
                    // Two workgroups a unit have enough reads in flight, even while half of their lanes compute.
                    (kind.vector_rows(Picked::Rules, shape.group()), wave, wave.min(2 * self.terms.class.units()))
                }
                _ => (kind.tiles[form - 1].packed_rows, wave, wave),
            };
            let blocks = if form == 0 { shape.group().div_ceil(packed_rows) } else { 1 };
            let rate = if form == 0 { 1 } else { kind.tiles[form - 1].rate };
            let cost = KeyCost {
                workgroups: shape.num_kv_heads * blocks,
                wave,
                busy,
                bytes: heads.kv.row_bytes(heads.head_stride),
                flops: 4 * heads.head_stride * packed_rows / rate,
                partial_bytes: 8 * heads.head_stride * packed_rows,
            };
            attention_chunk(&model, &scratch.counts[form], &cost)
        };
        let mut chunks = [usize::MAX; FORMS];
        for (form, keys) in chunks.iter_mut().enumerate().take(1 + kind.tiles.len()) {
            *keys = chunk(form);
        }
        chunks
    }

    /// The chunks of such picks, larger where there is no room for all partial results.
    fn roomy_chunks(&self, picks: Picks, auto: Chunks, scratch: &Scratch) -> Chunks {
        let mut chunks = auto;
        for (form, keys) in chunks.iter_mut().enumerate() {
            match self.kinds[scratch.kind].attention[form.min(1)].choice(picks[form]).map(|choice| choice.chunk) {
                Some(WHOLE) => *keys = usize::MAX,
                None | Some(AUTO) => {}
                Some(chunk) => *keys = chunk as usize,
            }
        }
        let longest = [0, 1, 2].map(|form: usize| scratch.counts[form].iter().copied().max().unwrap_or(0) as usize);
        loop {
            let (needed, parts) = self.need(scratch, 0..scratch.stretches.len(), chunks);
            let whole = (0..FORMS).all(|form| chunks[form] >= longest[form]);
            if whole || (needed <= self.capacity.partials && parts <= MAX_WORKGROUPS) {
                return chunks;
            }
            chunks = chunks.map(|chunk| chunk.saturating_mul(2));
        }
    }
}
