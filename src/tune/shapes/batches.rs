//! Shapes of attention: ragged batches as they are served.

use super::{Extent, GROUP_SHAPES, log_uniform, random};
use crate::batch::Batch;
use crate::schedules::{Form, KvHeads};
use crate::segments::Segment;
use raglan_shaders::attention::vector::MOST_ROWS;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// Slots of a segment are whole quanta.
const QUANTUM: usize = 16;

/// Heads of known models: kv heads, query heads to each, columns.
///
/// Source: config.json of SmolLM2-135M, Llama-2-7B, Llama-2-13B, and of Llama-3.1-8B and Qwen3-8B.
const MODELS: [[usize; 3]; 4] = [[3, 3, 64], [32, 1, 128], [40, 1, 128], [8, 4, 128]];

/// A ragged batch of one form.
#[derive(Debug, Clone, PartialEq)]
pub struct Ragged {
    /// Heads.
    pub heads: KvHeads,
    /// How many query rows the sequences have: few, or many.
    pub form: Form,
    /// In the order of the batch.
    pub sequences: Vec<Sequence>,
}

/// A sequence of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence {
    /// Query rows, its last tokens.
    pub rows: usize,
    /// Tokens before them.
    pub computed: usize,
    /// Whether its slots are two segments.
    pub is_cut: bool,
}

impl Sequence {
    fn keys(&self) -> usize {
        self.computed + self.rows
    }
}

impl Ragged {
    /// Sequences of one form: the first one's.
    pub fn new(heads: KvHeads, sequences: Vec<Sequence>) -> Ragged {
        let rows = sequences.first().map_or(1, |sequence| sequence.rows);
        let few = rows == 1 || rows * heads.group <= MOST_ROWS as usize;
        Ragged { heads, form: if few { Form::Vector } else { Form::Tile }, sequences }
    }

    /// Keys and values that the sequences have, in bytes.
    pub fn kv_bytes(&self) -> usize {
        let KvHeads { kv_heads, head_stride, kv, .. } = self.heads;
        self.slots() * kv_heads * kv.row_bytes(head_stride)
    }

    /// Slots that they take.
    pub fn slots(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.keys().next_multiple_of(QUANTUM) + QUANTUM).sum()
    }

    /// Query rows.
    pub fn rows(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.rows).sum()
    }

    /// The batch, its slots from `first_slot` on; a sequence's two segments lie with one quantum between.
    pub fn batch(&self, first_slot: usize) -> Batch {
        let mut batch = Batch::new(1);
        let mut next = first_slot;
        for sequence in &self.sequences {
            let keys = sequence.keys();
            let half = keys / 2 / QUANTUM * QUANTUM;
            let cut = if sequence.is_cut && half > 0 { half } else { keys };
            let mut segments = vec![Segment { first_slot: next, first_position: 0, count: cut }];
            if cut < keys {
                segments.push(Segment { first_slot: next + cut + QUANTUM, first_position: cut, count: keys - cut });
            }
            batch.push((0..sequence.rows).map(|_| 0), sequence.computed, &[&segments]);
            next += keys.next_multiple_of(QUANTUM) + QUANTUM;
        }
        batch
    }
}

/// Shape `index` of a form.
pub(super) fn shape(form: Form, index: usize, extent: &Extent) -> Ragged {
    let (kind, group) = (u64::from(form == Form::Vector) + 8, index / GROUP_SHAPES);
    let heads = heads(&mut random(kind + 2, group), group, extent);
    let mut rng = random(kind + 4, index);
    let key_bytes = (heads.kv_heads * heads.kv.row_bytes(heads.head_stride)) as f64;
    let most_keys = (extent.most_kv_bytes / key_bytes).max(64.0);
    let mut sequences = match form {
        Form::Vector => decoding(&mut rng, index, most_keys, extent),
        Form::Tile => reading(&mut rng, index, &heads, most_keys, extent),
    };
    sequences.shuffle(&mut rng);
    Ragged { heads, form, sequences }
}

/// Two of three groups are a model's.
fn heads(rng: &mut StdRng, group: usize, extent: &Extent) -> KvHeads {
    let strides = &extent.head_strides;
    let [kv_heads, group, head_stride] = match group % 3 {
        0 => MODELS[group / 3 % MODELS.len()],
        _ => [
            [1, 2, 3, 4, 5, 6, 8, 10, 16, 24, 32][rng.random_range(0..11)],
            [1, 2, 3, 4, 5, 6, 7, 8][rng.random_range(0..8)],
            strides[rng.random_range(0..strides.len())],
        ],
    };
    KvHeads { kv_heads, group, head_stride, kv: extent.kv }
}

/// Sequences that each write a token.
fn decoding(rng: &mut StdRng, index: usize, most_keys: f64, extent: &Extent) -> Vec<Sequence> {
    let keys = log_uniform(rng, most_keys / 64.0, most_keys).max(32.0);
    let most = (extent.most_sequences as f64).min(keys / (2 * QUANTUM) as f64).max(1.0);
    let count = log_uniform(rng, 1.0, most).round() as usize;
    let shares = shares(rng, index, count);
    shares
        .into_iter()
        .map(|share| Sequence {
            rows: 1,
            computed: ((share * keys) as usize).max(1) - 1,
            is_cut: rng.random_range(0..12) == 0,
        })
        .collect()
}

/// Sequences that read parts of their prompts.
fn reading(rng: &mut StdRng, index: usize, heads: &KvHeads, most_keys: f64, extent: &Extent) -> Vec<Sequence> {
    let least = 8 / heads.group + 1;
    let rows = log_uniform(rng, 2.0 * least as f64, (most_keys / 2.0).clamp(4.0 * least as f64, 2048.0));
    let count = log_uniform(rng, 1.0, (rows / (2 * least) as f64).clamp(1.0, 16.0)).round() as usize;
    let shares = shares(rng, index, count);
    let mut sequences: Vec<Sequence> = shares
        .into_iter()
        .map(|share| {
            let rows = ((share * rows) as usize).max(least).max(2);
            // Half of them begin, half have read a part before.
            let before =
                if rng.random_range(0..2) == 0 { 0.0 } else { log_uniform(rng, 16.0, most_keys / count as f64) };
            Sequence { rows, computed: before as usize, is_cut: rng.random_range(0..12) == 0 }
        })
        .collect();
    let scores = |sequences: &[Sequence]| -> f64 {
        let pairs: usize = sequences.iter().map(|sequence| sequence.rows * sequence.keys()).sum();
        (pairs * heads.kv_heads * heads.group * heads.head_stride) as f64 / 64.0
    };
    let keys = |sequences: &[Sequence]| sequences.iter().map(Sequence::keys).sum::<usize>() as f64;
    while scores(&sequences) > extent.most_scores || keys(&sequences) > most_keys {
        let count = sequences.len();
        let Some(largest) = sequences.iter_mut().max_by_key(|sequence| sequence.rows * sequence.keys()) else { break };
        if largest.computed > 2 * largest.rows {
            largest.computed /= 2;
        } else if largest.rows > 2 * least && largest.rows > 4 {
            largest.rows /= 2;
        } else if largest.computed > 0 {
            largest.computed /= 2;
        } else if count > 1 {
            sequences.pop();
        } else {
            break;
        }
    }
    sequences
}

/// What each of some sequences has of the whole: log-normal, uniform, one long among short, or equal.
fn shares(rng: &mut StdRng, index: usize, count: usize) -> Vec<f64> {
    let mut one = |place: usize| match index % 4 {
        0 => {
            // The sum of twelve uniform numbers is nearly normal.
            let normal: f64 = (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;
            normal.exp()
        }
        1 => rng.random_range(0.02..1.0),
        2 if place == 0 => 2.0 * count as f64,
        _ => 1.0,
    };
    let shares: Vec<f64> = (0..count).map(&mut one).collect();
    let sum: f64 = shares.iter().sum();
    shares.into_iter().map(|share| share / sum).collect()
}
