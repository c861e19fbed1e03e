//! Attention of ragged batches as a run plans it, by whichever choice.

use super::compare::Reference;
use super::rig::{KV_EXPONENT, Looked, Rig, class};
use super::shapes::Ragged;
use crate::batch::StepLimits;
use crate::error::Error;
use crate::gpu::{Buffer, Variant};
use crate::kv_cache::KvLayer;
use crate::ops::{Ops, Partials, RopeShape, Rows};
use crate::plan::{AttentionShape, KvGroup, Numerics, Plan, Planner};
use crate::schedules::attention::AUTO;
use crate::schedules::{AttentionChoice, AttentionStats, Form, KvHeads};
use raglan_shaders::attention::merge::AttentionMerge;
use raglan_shaders::attention::{AttentionItem, vector};

/// Places in the arenas that a batch takes in turn at most.
const MOST_PLACES: usize = 6;

/// Queries lie between 2^this and twice that: with keys of 2^-4, scores of a batch differ by about two.
const Q_EXPONENT: i32 = 4;

/// A batch with its queries on the adapter.
pub(super) struct AttentionProblem {
    batch: Ragged,
    /// Keys of the longest run.
    keys_max: usize,
    slots: usize,
    rope: RopeShape,
    q: Rows,
    out: Rows,
    kv: KvLayer,
    /// In turn, so that no cache holds what they read.
    places: Vec<Place>,
    planner: Planner,
    /// What the places are planned by.
    planned: Option<AttentionChoice>,
    looked: Looked,
    reference: Reference,
}

/// The batch somewhere in the arenas.
struct Place {
    first_slot: usize,
    plan: Plan,
    partials: Partials,
}

/// What is known of a batch without running it.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) stats: AttentionStats,
    /// What hand-written rules choose.
    pub(super) default: AttentionChoice,
    /// What they choose for batches of the form.
    pub(super) usual: Vec<AttentionChoice>,
    pub(super) packed_rows: usize,
}

/// What is known of a batch; `None` where its rows are of several heights, which are chosen for apart.
pub(super) fn known(rig: &Rig, batch: &Ragged) -> Option<Known> {
    let planner = planner(rig, batch);
    let usual = planner.usual_attention(batch.form);
    let packed_rows = batch.sequences.iter().map(|sequence| sequence.rows).max().unwrap_or(1) * batch.heads.group;
    let by_form = planner.attention_stats(&batch.batch(0), 0);
    let mut met = by_form.into_iter().enumerate().filter_map(|(form, stats)| stats.map(|stats| (form, stats)));
    let (form, stats) = met.next()?;
    if met.next().is_some() || (form == 0) != (batch.form == Form::Vector) {
        return None;
    }
    let default = match form {
        0 => {
            let schedule = planner.vector_schedule(0, Default::default(), packed_rows).clone();
            AttentionChoice { kernel: &vector::KERNEL, schedule, chunk: AUTO }
        }
        _ => {
            let tile = planner.tile(0, Default::default(), form - 1);
            AttentionChoice { kernel: tile.kernel, schedule: tile.schedule.clone(), chunk: AUTO }
        }
    };
    Some(Known { stats, default, usual, packed_rows })
}

fn planner(rig: &Rig, batch: &Ragged) -> Planner {
    let KvHeads { kv_heads, group, head_stride, kv } = batch.heads;
    let shape = AttentionShape {
        num_heads: kv_heads * group,
        num_kv_heads: kv_heads,
        head_dim: head_stride,
        groups: vec![KvGroup { window: None, kv }],
        numerics: Numerics::Fast,
    };
    let (max_batch_tokens, max_sequences) = (batch.rows(), batch.sequences.len());
    let limits = StepLimits { max_batch_tokens, max_sequences, max_adjustments: 1 };
    let planner = Planner::new(shape, class(&rig.gpu), rig.gpu.limits(), &limits);
    planner.with_inputs(rig.kernels.types.act).with_int8_activations(rig.inputs.int8_activations)
}

impl AttentionProblem {
    /// The queries of `batch`, and what the default makes of them.
    ///
    /// # Errors
    /// If the adapter has no room, was lost, or cannot run the default.
    ///
    /// # Panics
    /// If the arenas have no room for the batch.
    pub(super) fn new(rig: &mut Rig, batch: Ragged, known: &Known) -> Result<AttentionProblem, Error> {
        let KvHeads { kv_heads, group, head_stride, kv } = batch.heads;
        let [k, v] = rig.arenas()?;
        let slots = k.bytes() as usize / (kv_heads * kv.k_row_bytes(head_stride));
        let taken = batch.slots();
        assert!(taken <= slots, "{taken} slots of {slots}");
        let planner = planner(rig, &batch);
        let capacity = planner.capacity();
        let buffer = |label: &str, bytes: usize| rig.gpu.buffer(label, bytes as u64);
        let partials = kv_heads * capacity.partials.max(1);
        let (sums, weights) = (buffer("sums", 4 * partials * head_stride)?, buffer("weights", 8 * partials)?);
        let place = |index: usize| -> Result<Place, Error> {
            let partials = Partials {
                items: buffer("items", size_of::<AttentionItem>() * capacity.items)?,
                merges: buffer("merges", size_of::<AttentionMerge>() * capacity.merges)?,
                parts: buffer("parts", 4 * capacity.parts)?,
                sums: sums.clone(),
                weights: weights.clone(),
            };
            Ok(Place { first_slot: index * taken, plan: Plan::default(), partials })
        };
        let places = (0..(slots / taken).min(MOST_PLACES)).map(place).collect::<Result<_, Error>>()?;
        let (num_heads, rows) = (kv_heads * group, batch.rows());
        let stride = num_heads * head_stride;
        let rope = RopeShape {
            num_heads,
            num_kv_heads: kv_heads,
            head_dim: head_stride,
            rotary_dim: head_stride,
            k_col: 0,
            v_col: 0,
        };
        let q = rig.random("measured queries", (rig.act_format(), rows, stride), Some(Q_EXPONENT), 93)?;
        let act_bytes = rig.kernels.types.act_bytes();
        let mut problem = AttentionProblem {
            keys_max: known.stats.keys_max,
            slots,
            rope,
            q: Rows { buffer: q, stride },
            out: Rows { buffer: buffer("measured results", rows * stride * act_bytes)?, stride },
            kv: KvLayer::of_floats(kv, k, v),
            places,
            planner,
            planned: None,
            looked: Looked::of(rows, stride * act_bytes),
            reference: Reference::means(&[], head_stride, 0, 0.0, 0.0, false),
            batch,
        };
        problem.reference = problem.reference(rig, &known.default)?;
        Ok(problem)
    }

    fn reference(&mut self, rig: &mut Rig, default: &AttentionChoice) -> Result<Reference, Error> {
        let met = self.run(rig, default)?;
        let cols = self.batch.heads.head_stride;
        // Terms of a score: queries and keys of three halves of their least, scaled by 1 / √cols.
        let scores = (cols as f64).sqrt() * 2.25 * 2f64.powi(Q_EXPONENT + KV_EXPONENT);
        let largest = 2f64.powi(KV_EXPONENT + 1);
        Ok(Reference::means(&met.1, cols, self.keys_max, largest, scores, rig.is_f16()))
    }

    /// Plans every place by `choice`, and has `run` run it.
    fn planned<R>(
        &mut self,
        rig: &mut Rig,
        choice: &AttentionChoice,
        run: impl FnOnce(&AttentionProblem, &Rig) -> Result<R, Error>,
    ) -> Result<R, Error> {
        if self.planned.as_ref() != Some(choice) {
            self.planned = None;
            self.planner.force_attention(choice.clone());
            for place in &mut self.places {
                self.planner.plan_into(&self.batch.batch(place.first_slot), &mut place.plan);
            }
            let lists = self.places.iter().flat_map(|Place { plan, partials, .. }| -> [(&Buffer, &[u8]); 3] {
                [
                    (&partials.items, bytemuck::cast_slice(&plan.items)),
                    (&partials.merges, bytemuck::cast_slice(&plan.merges)),
                    (&partials.parts, bytemuck::cast_slice(&plan.parts)),
                ]
            });
            rig.write(&lists.collect::<Vec<_>>())?;
            self.planned = Some(choice.clone());
        }
        // The rig's kernels are asked how what was planned runs.
        std::mem::swap(&mut rig.kernels.planner, &mut self.planner);
        let result = run(self, rig);
        std::mem::swap(&mut rig.kernels.planner, &mut self.planner);
        result
    }

    fn record<'a>(&'a self, ops: &mut Ops<'a>, turn: usize) {
        let place = &self.places[turn % self.places.len()];
        ops.plan = &place.plan;
        ops.attention(&self.q, (&self.kv, self.slots), &self.rope, None, &place.partials, &self.out);
    }

    fn run(&mut self, rig: &mut Rig, choice: &AttentionChoice) -> Result<(f64, Vec<f32>), Error> {
        self.planned(rig, choice, |problem, rig| {
            let met = rig.once((&problem.out.buffer, &problem.looked), &mut |ops| problem.record(ops, 0))?;
            let values = Looked::floats(&met.bytes, 0..met.bytes.len(), rig.is_f16());
            Ok((met.us, values))
        })
    }

    /// The kernels that a choice runs.
    ///
    /// # Errors
    /// If the adapter was lost.
    pub(super) fn variants(&mut self, rig: &mut Rig, choice: &AttentionChoice) -> Result<Vec<Variant>, Error> {
        self.planned(rig, choice, |problem, rig| Ok(rig.rehearse(&mut |ops| problem.record(ops, 0))))
    }

    /// Runs a choice once and compares what it computes with the default's: its microseconds, or what is wrong with it.
    ///
    /// # Errors
    /// If the adapter was lost, or refused something.
    pub(super) fn check(&mut self, rig: &mut Rig, choice: &AttentionChoice) -> Result<Result<f64, String>, Error> {
        let (us, values) = self.run(rig, choice)?;
        Ok(self.reference.check(&values).map(|_| us))
    }

    /// Microseconds of a choice that takes about `about_us`.
    ///
    /// # Errors
    /// If the adapter was lost, or refused something.
    pub(super) fn time(&mut self, rig: &mut Rig, choice: &AttentionChoice, about_us: f64) -> Result<f64, Error> {
        self.planned(rig, choice, |problem, rig| rig.time(about_us, &mut |ops, turn| problem.record(ops, turn)))
    }
}
