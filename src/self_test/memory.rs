//! The cache to its last slot: a lone sequence, forks of one prefix, an adapter with too little memory, and ten thousand
//! requests of which many go wrong.

use super::data::Random;
use super::golden::Golden;
use super::runs::{answer, engine, greedy, options, same};
use super::{Adapters, SelfTest, test};
use crate::engine::{EngineOptions, Stepper};
use crate::error::Error;
use crate::gpu::{Gpu, GpuOptions};
use crate::request::{Event, FinishReason, Request, RequestId, SamplingParams};
use rustc_hash::FxHashMap;

pub(super) fn tests() -> Vec<SelfTest> {
    vec![
        test("memory/a_lone_sequence_takes_the_arena", lone),
        test("memory/forks_copy_nothing", forks),
        test("memory/a_second_turn_computes_what_is_new", second_turn),
        test("memory/an_arena_shrinks_until_it_fits", shrinks),
        test("memory/ten_thousand_requests", ten_thousand),
    ]
}

fn text<T: ToString>(error: T) -> String {
    error.to_string()
}

/// A lone sequence grows to the last slot and ends there; a prompt of one token more than there are slots is refused with
/// the number that fits.
fn lone(adapters: &Adapters) -> Result<String, String> {
    let golden = Golden::open("llama")?;
    let vocab = golden.checkpoint.spec().vocab_size;
    let slots = 4096;
    let options = EngineOptions { max_context: Some(slots), pipeline: 2, ..options() };
    let mut engine = engine(&adapters.plain, &golden.checkpoint, &options)?;
    let mut random = Random::new(1);
    let prompt: Vec<u32> = (0..slots * 9 / 10).map(|_| random.index(vocab) as u32).collect();
    let met = answer(&mut engine, &greedy(&prompt, 10_000))?;
    same("why it ended", &met.reason, &Some(FinishReason::Length))?;
    // The last token needs no slot.
    let held = prompt.len() + met.tokens.len() - 1;
    let share = held as f64 / engine.capacity() as f64;
    if share < 0.97 {
        return Err(format!("{held} of {} slots: {share:.4}", engine.capacity()));
    }
    let long: Vec<u32> = (0..=slots).map(|_| random.index(vocab) as u32).collect();
    match engine.submit(greedy(&long, 1)) {
        Err(Error::Request { message }) if message.contains(&slots.to_string()) => {}
        other => return Err(format!("a prompt of {} tokens: {other:?}", long.len())),
    }
    // And the next request finds all of it again.
    same("the answer after it", &answer(&mut engine, &greedy(&prompt, 10_000))?, &met)?;
    Ok(format!("{held} of {} slots ({:.2} %)", engine.capacity(), 100.0 * share))
}

/// 64 samples of one prompt: its keys and values are there once, none is copied, and all answers are what they are alone.
fn forks(adapters: &Adapters) -> Result<String, String> {
    let golden = Golden::open("llama")?;
    let vocab = golden.checkpoint.spec().vocab_size;
    let mut random = Random::new(2);
    let prompt: Vec<u32> = (0..1000).map(|_| random.index(vocab) as u32).collect();
    let request = |seed| {
        let sampling = SamplingParams { max_tokens: 8, temperature: 0.9, seed, ..SamplingParams::default() };
        Request::new(prompt.clone(), sampling)
    };
    let options = EngineOptions { max_context: Some(4096), ..options() };
    let cold = EngineOptions { prefix_cache: false, ..options.clone() };
    let mut alone = engine(&adapters.plain, &golden.checkpoint, &cold)?;
    let want: Vec<_> =
        [0, 31, 63].into_iter().map(|seed| answer(&mut alone, &request(seed))).collect::<Result<_, _>>()?;

    let mut engine = engine(&adapters.plain, &golden.checkpoint, &options)?;
    let ids: Vec<RequestId> =
        (0..64).map(|seed| engine.submit(request(seed)).map_err(text)).collect::<Result<_, _>>()?;
    let mut tokens: FxHashMap<RequestId, Vec<u32>> = FxHashMap::default();
    let mut most_used = 0;
    while !engine.is_idle() {
        for event in engine.step().map_err(text)? {
            if let Event::Token { request, token } = event {
                tokens.entry(request).or_default().push(token);
            }
        }
        most_used = most_used.max(engine.capacity() - engine.free_slots());
    }
    for (index, want) in [0, 31, 63].into_iter().zip(&want) {
        same(&format!("sample {index}"), &tokens[&ids[index]], &want.tokens)?;
    }
    let counters = engine.slots().group(0).counters();
    same("rows copied", &counters.moved, &0)?;
    if counters.forks < 63 || most_used > 1008 + 64 * 32 {
        return Err(format!("{} forks, {most_used} slots in use at most", counters.forks));
    }
    let computed = engine.stats().computed_tokens;
    same("tokens computed", &computed, &(1000 + 63 + 64 * 7))?;
    Ok(format!(
        "{} forks of 1000 tokens, 0 rows copied, {most_used} slots at most, {computed} tokens computed",
        counters.forks
    ))
}

/// A dialogue: the second turn, which begins with the first and its answer, computes its own tokens alone, and is answered as
/// without anything kept.
fn second_turn(adapters: &Adapters) -> Result<String, String> {
    let mut found = Vec::new();
    for name in ["llama", "mistral_swa", "qwen2_swa"] {
        let golden = Golden::open(name)?;
        let cold = EngineOptions { prefix_cache: false, ..options() };
        let mut cold = engine(&adapters.plain, &golden.checkpoint, &cold)?;
        let mut engine = engine(&adapters.plain, &golden.checkpoint, &EngineOptions { pipeline: 2, ..options() })?;
        let mut dialogue = golden.prompt.clone();
        for turn in 0..3 {
            let before = engine.stats().computed_tokens;
            let request = greedy(&dialogue, 16);
            let id = engine.submit(request.clone()).map_err(text)?;
            let (mut answer, mut cached) = (Vec::new(), 0);
            while !engine.is_idle() {
                for event in engine.step().map_err(text)? {
                    match event {
                        Event::Token { request, token } if request == id => answer.push(token),
                        Event::Started { cached_tokens, .. } => cached = cached_tokens,
                        _ => {}
                    }
                }
            }
            let want = super::runs::answer(&mut cold, &request)?;
            same(&format!("{name}, turn {turn}"), &answer, &want.tokens)?;
            let computed = engine.stats().computed_tokens - before;
            // The last answer's last token was never computed.
            let new = if turn == 0 { dialogue.len() } else { 5 + 1 };
            same(&format!("{name}, turn {turn}: tokens found"), &cached, &(dialogue.len() - new))?;
            // With two steps in flight one more may have begun when the answer ended.
            if computed as usize > new + answer.len() {
                return Err(format!("{name}, turn {turn}: {computed} tokens computed, {new} are new"));
            }
            dialogue.extend(&answer);
            dialogue.extend(&golden.prompt[..5]);
        }
        found.push(format!("{name} {} of {}", dialogue.len() - 21, dialogue.len()));
    }
    Ok(format!("tokens found computed in a third turn: {}", found.join(", ")))
}

/// An adapter with little memory: the arena takes what there is, and the engine answers within it.
fn shrinks(adapters: &Adapters) -> Result<String, String> {
    let golden = Golden::open("llama")?;
    let open = |max_memory_bytes| {
        let (allow_f16, allow_subgroups) = (adapters.plain.limits().shader_f16, adapters.plain.limits().subgroups);
        let adapter = Some(adapters.plain.summary().index.to_string());
        let small = GpuOptions { adapter, max_memory_bytes, allow_f16, allow_subgroups, ..GpuOptions::default() };
        Gpu::open(&small).map_err(text)
    };
    let options = EngineOptions { max_context: Some(1 << 16), ..options() };
    let roomy = open(None)?;
    let whole = engine(&roomy, &golden.checkpoint, &options)?;
    same("slots where there is room", &whole.capacity(), &(1 << 16))?;
    let (all, arenas) = (roomy.held_bytes(), whole.kv_bytes());
    drop(whole);
    let mut last = 1 << 16;
    for percent in [80, 30, 2] {
        let tight = open(Some(all - arenas + arenas * percent / 100))?;
        let mut engine = engine(&tight, &golden.checkpoint, &options)?;
        if engine.capacity() >= last || engine.kv_bytes() > arenas * percent / 100 {
            return Err(format!("{percent} % of the room: {} slots", engine.capacity()));
        }
        last = engine.capacity();
        let met = answer(&mut engine, &greedy(&golden.prompt, golden.greedy().len()))?;
        same(&format!("{percent} % of the room"), &met.tokens[..], golden.greedy())?;
    }
    let none = open(Some(all - arenas))?;
    match Stepper::new(&none, &golden.checkpoint, &options, &mut |_, _| ()) {
        Err(Error::OutOfMemory { .. }) => {}
        Err(error) => return Err(format!("no room for an arena: {error}")),
        Ok(_) => return Err("an arena without room".into()),
    }
    Ok(format!("65536 slots where there is room, {last} in 2 % of it, none is refused"))
}

/// Ten thousand requests: some are cancelled, some can never fit, and the allocator refuses now and then. Nothing is lost:
/// every request ends, every slot comes back, nothing is created, and memory stays flat.
fn ten_thousand(adapters: &Adapters) -> Result<String, String> {
    const REQUESTS: usize = 10_000;
    let checkpoint = Golden::open("llama")?.checkpoint;
    let options = EngineOptions { max_context: Some(1024), pipeline: 2, ..options() };
    let mut engine = engine(&adapters.plain, &checkpoint, &options)?;
    engine.compile(|_, _| ()).map_err(text)?;
    engine.refuse_slots(7, 40);
    let mut random = Random::new(9);
    let mut warm = 0;
    let (mut submitted, mut refused, mut cancelled, mut finished) = (0, 0, 0, 0);
    let mut live: Vec<RequestId> = Vec::new();
    let mut created = None;
    let beginning: Vec<u32> = (0..64).map(|_| random.index(320) as u32).collect();
    while submitted < REQUESTS || !engine.is_idle() {
        while submitted < REQUESTS && live.len() < 100 {
            submitted += 1;
            let long = random.index(50) == 0;
            let mut prompt = beginning[..random.index(64)].to_vec();
            prompt.extend((0..if long { 1025 } else { 1 + random.index(24) }).map(|_| random.index(320) as u32));
            match engine.submit(greedy(&prompt, 1 + random.index(6))) {
                Ok(id) => live.push(id),
                Err(Error::Request { .. }) if prompt.len() > 1024 => refused += 1,
                Err(error) => return Err(error.to_string()),
            }
        }
        if random.index(4) == 0 && !live.is_empty() {
            engine.cancel(live[random.index(live.len())]);
        }
        for event in engine.step().map_err(text)? {
            if let Event::Finished { request, reason } = event {
                let place = live.iter().position(|id| *id == request).ok_or("a request ended twice")?;
                live.swap_remove(place);
                finished += 1;
                cancelled += usize::from(reason == FinishReason::Cancelled);
            }
        }
        if submitted > REQUESTS / 5 && created.is_none() {
            created = Some(adapters.plain.created());
            warm = resident_bytes();
        }
    }
    engine.forget_prefixes();
    same("requests that ended", &(finished + refused), &REQUESTS)?;
    same("free slots", &engine.free_slots(), &engine.capacity())?;
    same("what was created since the first fifth", &Some(adapters.plain.created()), &created)?;
    let grown = resident_bytes().saturating_sub(warm);
    if grown > 16 << 20 {
        return Err(format!("{} MiB more in use than after a fifth of the requests", grown >> 20));
    }
    if cancelled < 100 || refused < 100 {
        return Err(format!("{cancelled} cancelled, {refused} refused: too few to tell"));
    }
    let stats = engine.stats();
    Ok(format!(
        "{finished} ended, {cancelled} of them cancelled, {refused} refused; {} preemptions, {} swaps, {} tokens shared; {} KiB more in use",
        stats.preemptions,
        stats.swaps,
        stats.cached_tokens,
        grown >> 10
    ))
}

/// Memory of this process, where the system tells; else 0.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}
