//! Random ragged batches: what a sequence is answered does not depend on what runs beside it, in which chunks it is
//! computed, whether it shares its beginning, is moved, gives way to others or goes to the host and back.

use super::data::Random;
use super::golden::Golden;
use super::reference::{Noise, Reference};
use super::runs::{Answer, engine, greedy, options};
use super::{Adapters, SelfTest, test};
use crate::engine::{EngineOptions, Stepper};
use crate::kv_cache::KvTypes;
use crate::request::{Event, Request, RequestId};

pub(super) fn tests() -> Vec<SelfTest> {
    let mut tests = Vec::new();
    for golden in ["llama", "mistral_swa", "qwen2_swa"] {
        for (name, deterministic) in [("batched", false), ("deterministic", true)] {
            tests.push(test(format!("{name}/{golden}"), move |adapters| {
                random_batches(adapters, &Golden::open(golden)?, deterministic, None)
            }));
        }
    }
    // Where keys are rounded, logits within rounding of each other may round apart: what is compared is bits.
    for (golden, kv) in
        [("llama", "int8"), ("mistral_swa", "k8v4"), ("qwen2_swa", "int4,1=f32"), ("llama", "int4,2=int8")]
    {
        tests.push(test(format!("deterministic/{golden}/{kv}"), move |adapters| {
            random_batches(adapters, &Golden::open(golden)?, true, Some(kv.parse()?))
        }));
    }
    tests.push(test("batched/8k_context", |adapters| long_context(adapters, false)));
    tests.push(test("deterministic/8k_context", |adapters| long_context(adapters, true)));
    tests
}

/// A request's answer and the logits that each of its tokens was chosen from.
#[derive(Debug, Default, Clone)]
struct Written {
    answer: Answer,
    logits: Vec<Vec<f32>>,
}

/// How a batch is run.
#[derive(Debug, Clone)]
struct Way {
    options: EngineOptions,
    /// Requests that come at once; the others follow, one a step.
    at_once: usize,
    /// Whether the allocator moves whatever it may.
    restless: bool,
}

/// Unequal prompts, log-uniform, some of which begin as an earlier one does. Where slots come in large quanta, many end
/// just before one, so that answers need another.
fn prompts(random: &mut Random, vocab: usize, count: usize, longest: usize, quantum: usize) -> Vec<Request> {
    let mut requests: Vec<Request> = Vec::new();
    for index in 0..count {
        let length = ((longest as f32).powf(random.index(1000) as f32 / 999.0)).round().max(1.0) as usize;
        let mut prompt = Vec::new();
        if index > 0 && random.index(3) == 0 {
            let earlier = &requests[random.index(index)].prompt;
            let cut = random.index(earlier.len() + 1);
            prompt.extend_from_slice(&earlier[..if quantum > 16 { earlier.len() } else { cut }]);
        }
        let length = if quantum > 16 && index % 2 == 0 {
            ((prompt.len() + length).next_multiple_of(quantum) - prompt.len()).saturating_sub(random.index(30)).max(1)
        } else {
            length
        };
        prompt.extend((0..length).map(|_| random.index(vocab) as u32));
        requests.push(greedy(&prompt, 1 + random.index(longest.min(50))));
    }
    requests
}

fn run(engine: &mut Stepper, requests: &[Request], at_once: usize) -> Result<Vec<Written>, String> {
    engine.take_logits();
    let mut ids: Vec<RequestId> = Vec::new();
    let mut written = vec![Written::default(); requests.len()];
    while ids.len() < requests.len() || !engine.is_idle() {
        let more = if ids.is_empty() { at_once } else { 1 };
        for request in requests.iter().skip(ids.len()).take(more) {
            ids.push(engine.submit(request.clone()).map_err(|error| error.to_string())?);
        }
        for event in engine.step().map_err(|error| error.to_string())? {
            let place = ids.iter().position(|id| *id == event.request()).ok_or("an event of no request")?;
            match event {
                Event::Token { token, .. } => written[place].answer.tokens.push(token),
                Event::Finished { reason, .. } => written[place].answer.reason = Some(reason),
                _ => {}
            }
        }
    }
    let mut logits = engine.take_logits();
    for (id, written) in ids.iter().zip(&mut written) {
        written.logits = logits.remove(id).unwrap_or_default();
        written.logits.truncate(written.answer.tokens.len());
    }
    engine.forget_prefixes();
    let slots = engine.slots();
    for group in 0..slots.len() {
        let (free, all) = (slots.group(group).free_slots(), slots.group(group).capacity());
        if free != all {
            return Err(format!("{} of {all} slots of group {group} are lost", all - free));
        }
    }
    Ok(written)
}

fn alone(engine: &mut Stepper, requests: &[Request]) -> Result<Vec<Written>, String> {
    requests.iter().map(|request| Ok(run(engine, std::slice::from_ref(request), 1)?.remove(0))).collect()
}

/// The largest of several, and by how much.
fn margin(logits: &[f32]) -> f64 {
    let mut sorted = logits.to_vec();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    f64::from(sorted[0]) - f64::from(sorted[1])
}

/// Logits bit for bit, or tokens wherever the margin of the two largest logits passes `allowed`, and logits within it. The
/// worst deviation as a share of `allowed`.
fn compare(what: &str, met: &[Written], want: &[Written], allowed: Option<f64>) -> Result<f64, String> {
    let mut worst = 0.0f64;
    for (index, (met, want)) in met.iter().zip(want).enumerate() {
        let what = format!("{what}, request {index}");
        let mut tied = false;
        for (place, (ours, theirs)) in met.logits.iter().zip(&want.logits).enumerate() {
            let Some(allowed) = allowed else {
                let bits = |logits: &[f32]| logits.iter().map(|logit| logit.to_bits()).collect::<Vec<_>>();
                if bits(ours) != bits(theirs) {
                    let off = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    return Err(format!("{what}, token {place}: logits differ by up to {off:e}"));
                }
                continue;
            };
            let off = ours.iter().zip(theirs).map(|(a, b)| f64::from(a - b).abs()).fold(0.0, f64::max);
            worst = worst.max(off / allowed);
            if off.is_nan() || off > allowed {
                return Err(format!("{what}, token {place}: logits differ by up to {off:e}, allowed {allowed:e}"));
            }
            if met.answer.tokens[place] != want.answer.tokens[place] {
                // A tie: from here on they are two texts.
                if margin(theirs) > allowed {
                    return Err(format!(
                        "{what}, token {place}: another token, though the margin is {}",
                        margin(theirs)
                    ));
                }
                tied = true;
                break;
            }
        }
        if (met.answer != want.answer && !tied) || met.logits.len() != met.answer.tokens.len() {
            return Err(format!("{what}: met {:?}, alone {:?}", met.answer, want.answer));
        }
    }
    Ok(worst)
}

/// How far two f32 runs may lie from each other: see [`Golden::allowed`]; each has the deviation that random rounding of
/// the reference shows.
fn allowed(golden: &Golden, longest: usize) -> Result<f64, String> {
    let reference = Reference::new(&golden.checkpoint).map_err(|error| error.to_string())?;
    let vocab = reference.spec.vocab_size;
    let mut random = Random::new(3);
    // Rounding of longer sums grows with the root of their length at most.
    let length = longest.min(256);
    let tokens: Vec<u32> = (0..length).map(|_| random.index(vocab) as u32).collect();
    let exact = reference.forward(&tokens, None);
    let disturbed = reference.forward(&tokens, Some(Noise { random: Random::new(4), f16: false }));
    let squares: Vec<f64> = exact.iter().zip(&disturbed).map(|(a, b)| (a - b).powi(2)).collect();
    let variance = squares.chunks(vocab).map(|row| row.iter().sum::<f64>() / vocab as f64).fold(0.0, f64::max);
    let reach = (2.0 * (2.0 * (longest * vocab) as f64 * 1e6).ln()).sqrt();
    Ok(reach * (2.0 * variance * (longest as f64 / length as f64)).sqrt())
}

/// One wrong key must be more than rounding explains: what changes where a prompt has another token before its last, as
/// the least share of `allowed` that the worst logit of an answer shows.
fn bite(lone: &mut Stepper, requests: &[Request], want: &[Written], allowed: f64) -> Result<f64, String> {
    let mut least = f64::INFINITY;
    for (request, want) in requests.iter().zip(want).filter(|(request, _)| request.prompt.len() > 1) {
        let mut other = request.clone();
        let place = other.prompt.len() - 2;
        other.prompt[place] = (other.prompt[place] + 1) % lone.spec().vocab_size as u32;
        let met = run(lone, &[other], 1)?.remove(0);
        let off = met.logits[0].iter().zip(&want.logits[0]).map(|(a, b)| f64::from(a - b).abs()).fold(0.0, f64::max);
        if off <= allowed {
            return Err(format!("one wrong key changes logits by {off:e}, allowed are {allowed:e}"));
        }
        least = least.min(off / allowed);
    }
    Ok(least)
}

fn random_batches(
    adapters: &Adapters,
    golden: &Golden,
    deterministic: bool,
    kv_types: Option<KvTypes>,
) -> Result<String, String> {
    let vocab = golden.checkpoint.spec().vocab_size;
    let quantum = if deterministic { 256 } else { 16 };
    let is_quantised = kv_types.is_some();
    let roomy = EngineOptions {
        deterministic,
        kv_types,
        prefix_cache: false,
        max_context: Some(8192),
        swap_memory: 0,
        max_batch_tokens: 512,
        ..options()
    };
    let allowed = if deterministic { None } else { Some(allowed(golden, 1024)?) };
    let mut lone = engine(&adapters.plain, &golden.checkpoint, &roomy)?;
    let (mut worst, mut least, mut sequences, mut stats) = (0.0f64, f64::INFINITY, 0, [0u64; 4]);
    let cases = if deterministic {
        [(1, 12, 300, 64), (2, 8, 600, 33), (3, 5, 900, 200), (4, 24, 20, 512)]
    } else {
        [(1, 12, 300, 64), (2, 40, 60, 33), (3, 5, 900, 200), (4, 64, 20, 512)]
    };
    // What the types change is the same in every batch.
    for &(seed, count, longest, max_batch_tokens) in if is_quantised { &cases[..2] } else { &cases[..] } {
        let mut random = Random::new(seed);
        let requests = prompts(&mut random, vocab, count, longest, quantum);
        let want = alone(&mut lone, &requests)?;
        if let Some(allowed) = allowed {
            least = least.min(bite(&mut lone, &requests, &want, allowed)?);
        }
        let all: usize = requests.iter().map(|r| (r.prompt.len() + 50).next_multiple_of(quantum)).sum();
        let most = requests.iter().map(|r| (r.prompt.len() + 50).next_multiple_of(quantum)).max().unwrap_or(0);
        for (pipeline, tight, swap_memory, at_once) in
            [(1, false, 0, count), (2, true, 0, 1), (2, true, 1 << 30, count)]
        {
            let max_context = Some(if tight { most + (all - most) / 12 } else { 2 * all });
            let options = EngineOptions {
                pipeline,
                swap_memory,
                max_context,
                max_batch_tokens,
                prefix_cache: true,
                ..roomy.clone()
            };
            let way = Way { options, at_once, restless: tight };
            let mut engine = engine(&adapters.plain, &golden.checkpoint, &way.options)?;
            if way.restless {
                engine.set_slot_policy(|policy| {
                    policy.quiet_share = 0.0;
                    policy.segment_price = 1;
                    policy.merges_a_step = 16;
                });
            }
            let met = run(&mut engine, &requests, way.at_once)?;
            let what = format!("seed {seed}, pipeline {pipeline}, {max_context:?} slots, swap {swap_memory}");
            worst = worst.max(compare(&what, &met, &want, allowed)?);
            let (ran, counters) = (engine.stats(), engine.slots().group(0).counters());
            let counts = [ran.preemptions, ran.swaps, ran.cached_tokens, counters.moved];
            stats.iter_mut().zip(counts).for_each(|(all, more)| *all += more);
        }
        sequences += count;
    }
    let [preemptions, swaps, shared, moved] = stats;
    if preemptions == 0 || swaps == 0 || shared == 0 || moved == 0 {
        return Err(format!(
            "not all happened: {preemptions} preemptions, {swaps} swaps, {shared} shared, {moved} moved"
        ));
    }
    let found = if deterministic {
        "bit-equal".to_owned()
    } else {
        format!("logits {worst:.1e} of what rounding explains, a wrong key {least:.0} times or more")
    };
    Ok(format!(
        "{sequences} sequences alone and in 3 batches, {found}; {preemptions} preemptions, {swaps} swaps, {shared} tokens shared, {moved} rows moved"
    ))
}

/// A context of 8,192 tokens beside short ones that come meanwhile.
fn long_context(adapters: &Adapters, deterministic: bool) -> Result<String, String> {
    let golden = Golden::open("llama")?;
    let vocab = golden.checkpoint.spec().vocab_size;
    let mut random = Random::new(8);
    let mut requests = prompts(&mut random, vocab, 12, 200, 16);
    let prompt: Vec<u32> = (0..8192).map(|_| random.index(vocab) as u32).collect();
    requests.insert(3, greedy(&prompt, 3));
    let base = EngineOptions { deterministic, max_context: Some(16_384), ..options() };
    let cold = EngineOptions { prefix_cache: false, ..base.clone() };
    let want = alone(&mut engine(&adapters.plain, &golden.checkpoint, &cold)?, &requests)?;
    let batched = EngineOptions { max_batch_tokens: 300, pipeline: 2, ..base };
    let met = run(&mut engine(&adapters.plain, &golden.checkpoint, &batched)?, &requests, 1)?;
    let allowed = if deterministic { None } else { Some(allowed(&golden, 8192)?) };
    let worst = compare("8,192 tokens", &met, &want, allowed)?;
    Ok(match deterministic {
        true => format!("{} sequences bit-equal", requests.len()),
        false => format!("{} sequences, logits {worst:.1e} of what rounding explains", requests.len()),
    })
}
