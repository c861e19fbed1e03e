//! A sequence whose keys and values move between two steps goes on as if they had not.

use super::golden::Golden;
use super::runs::same;
use super::{Adapters, SelfTest, test};
use crate::batch::{Batch, StepLimits};
use crate::cost::AdapterClass;
use crate::decoder::{Decoder, attention_shape, kv_shape};
use crate::error::Error;
use crate::kv_cache::{KvCache, KvTypes};
use crate::ops::{Dtype, Kernels, Ops, Types};
use crate::plan::Planner;
use crate::sampler::Sampler;
use crate::segments::{Move, Segment};
use crate::weights::{Rewrite, Weights};

/// Slots of the arenas.
const SLOTS: usize = 512;
/// Where the sequence lies at first.
const FIRST: usize = 100;

pub(super) fn tests() -> Vec<SelfTest> {
    // One KV group, and two.
    let of = |(golden, kv): (&'static str, Option<&'static str>)| {
        let name = kv.map_or(golden.to_owned(), |kv| format!("{golden}/{kv}"));
        test(format!("ragged/moved_is_not/{name}"), move |adapters| {
            let kv_types = kv.map(str::parse).transpose()?;
            moved_is_not(adapters, golden, kv_types).map_err(|error| error.to_string())?
        })
    };
    let types = [("llama", "int8"), ("llama", "k8v4"), ("qwen2_swa", "int4,0=int8")];
    let plain = ["llama", "qwen2_swa"].map(|golden| (golden, None));
    plain.into_iter().chain(types.map(|(golden, kv)| (golden, Some(kv)))).map(of).collect()
}

/// The rounds of moves that bring `count` slots from [`FIRST`] to another place, and that place.
fn ways(count: usize) -> Vec<(Vec<Vec<Move>>, usize)> {
    let one = |from, to| Move { from, to, count };
    let slide = |to| (vec![vec![one(FIRST, to)]], to);
    // In two rounds: what the first brings, the second takes on. Beside it a move of what nobody reads.
    let on = vec![vec![one(FIRST, 300), Move { from: 0, to: 16, count: 16 }], vec![one(300, 290)]];
    vec![slide(FIRST - 16), slide(FIRST + 1), slide(300), (on, 290)]
}

fn moved_is_not(adapters: &Adapters, golden: &str, kv_types: Option<KvTypes>) -> Result<Result<String, String>, Error> {
    let golden = match Golden::open(golden) {
        Ok(golden) => golden,
        Err(message) => return Ok(Err(message)),
    };
    let (gpu, checkpoint) = (&adapters.plain, &golden.checkpoint);
    let (spec, types) = (checkpoint.spec(), Types::of(gpu, Dtype::default()));
    let kv_types = kv_types.unwrap_or_else(|| types.kv.into());
    let attention = attention_shape(spec, &kv_types)?;
    let shape = kv_shape(spec, &attention, &kv_types);
    let groups = attention.groups.len();
    let limits = StepLimits { max_batch_tokens: 256, max_sequences: 1, max_adjustments: 1 };
    let kernels = Kernels::new(gpu, types, Planner::new(attention, AdapterClass::Hardware, gpu.limits(), &limits))?;
    let weights = Weights::upload(gpu, checkpoint, &Rewrite::NONE, &mut |_, _| ())?;
    let decoder = Decoder::new(gpu, spec, weights, &kernels, &limits, SLOTS)?;
    let sampler = Sampler::new(gpu, spec.vocab_size, &limits)?;
    let kv = KvCache::allocate(gpu, &shape, &vec![SLOTS; groups], SLOTS)?;
    let ring = gpu.step_ring(1, 1 << 20, 16)?;
    let run = |batch: &Batch| -> Result<Vec<u8>, Error> {
        let plan = kernels.planner.plan(batch);
        let mut ops = Ops { recorder: gpu.begin_step(&ring), kernels: &kernels, plan: &plan };
        decoder.write_inputs(&mut ops, batch);
        decoder.forward(&mut ops, batch, &kv, sampler.samples(), 0);
        ops.recorder.submit()?.collect()?;
        gpu.read(&decoder.logits(0).buffer, 0, 4 * spec.vocab_size as u64)
    };
    let tokens = &golden.prompt;
    let count = tokens.len();
    let step = |ids: &[u32], first_position, starts: &[usize]| {
        let mut batch = Batch::new(groups);
        let segment = |&first_slot: &usize| [Segment { first_slot, first_position: 0, count: count + 1 }];
        batch.push(ids.iter().copied(), first_position, &starts.iter().map(segment).collect::<Vec<_>>());
        batch.want_last_logits();
        batch
    };
    let ways = ways(count);
    let mut want = Vec::new();
    for way in 0..=ways.len() {
        run(&step(tokens, 0, &vec![FIRST; groups]))?;
        // The first time nothing moves; then each group in a way of its own.
        let of_group = |group: usize| &ways[(way + group) % ways.len()];
        let starts: Vec<_> = (0..groups).map(|group| if way == 0 { FIRST } else { of_group(group).1 }).collect();
        let mut batch = step(&tokens[..1], count, &starts);
        for (group, moves) in batch.groups.iter_mut().enumerate().filter(|_| way > 0) {
            moves.moves.clone_from(&of_group(group).0);
        }
        let logits = run(&batch)?;
        if way == 0 {
            want = logits;
        } else if let Err(message) = same(&format!("logits after moves to {starts:?}"), &(logits == want), &true) {
            return Ok(Err(message));
        }
    }
    Ok(Ok(format!("{count} rows in {} ways, {groups} KV groups", ways.len())))
}
