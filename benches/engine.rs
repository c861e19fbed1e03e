//! What whole steps of an engine reach: the embedded model with many sequences, forks of one prefix against separate
//! copies, and what bit-equal logits cost.
//! usage: cargo bench --bench engine [-- --json]

use raglan::gpu::{Gpu, GpuOptions};
use raglan::models::Checkpoint;
use raglan::{EngineOptions, Event, Request, SamplingParams, Stepper};
use std::collections::HashSet;
use std::error::Error;
use std::time::Instant;

/// Tokens of each answer: so many that the first answer still runs when the last prompt was read.
const ANSWER: usize = 64;
/// Runs of each case, in turn with what it is compared to.
const RUNS: usize = 3;

/// One measurement.
#[derive(serde::Serialize)]
struct Row {
    case: &'static str,
    sequences: usize,
    prompt: usize,
    /// Tokens a second, median: of prompts until all were read, and of answers from then until the first has ended.
    prefill_tokens_per_s: f64,
    decode_tokens_per_s: f64,
    /// Against the same case without what it is about: `null` where there is none.
    decode_ratio: Option<f64>,
    prefill_ratio: Option<f64>,
    rows_moved: u64,
    slots_used: usize,
}

/// What one run took: seconds until all prompts were read, and seconds a token while all answers ran.
struct Times {
    prefill: f64,
    decode: f64,
    moved: u64,
    slots: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let gpu = Gpu::open(&GpuOptions::default())?;
    let checkpoint = Checkpoint::tiny()?;
    let json = std::env::args().any(|arg| arg == "--json");
    let options = |deterministic, prefix_cache| EngineOptions {
        max_context: Some(80_000),
        deterministic,
        prefix_cache,
        max_batch_tokens: 4096,
        max_step_ms: Some(1e6),
        max_delay_ms: Some(1e6),
        ..EngineOptions::default()
    };
    let open = |deterministic, cache| -> Result<Stepper, raglan::Error> {
        let engine = Stepper::new(&gpu, &checkpoint, &options(deterministic, cache), &mut |_, _| ())?;
        engine.compile(|_, _| ())?;
        Ok(engine)
    };
    let (mut plain, mut shared, mut deterministic) = (open(false, false)?, open(false, true)?, open(true, false)?);
    let mut rows = Vec::new();
    for (sequences, prompt) in [(1, 512), (16, 128), (64, 64)] {
        let [base, exact] = compare([&mut plain, &mut deterministic], sequences, prompt, false)?;
        rows.push(row("default", sequences, prompt, &base, None));
        rows.push(row("deterministic", sequences, prompt, &exact, Some(&base)));
    }
    let [copies, forks] = compare([&mut plain, &mut shared], 64, 1024, true)?;
    rows.push(row("64 copies of one prompt", 64, 1024, &copies, None));
    rows.push(row("64 forks of one prompt", 64, 1024, &forks, Some(&copies)));

    if json {
        println!("{}", serde_json::json!({ "adapter": gpu.summary().name, "rows": rows }));
        return Ok(());
    }
    println!("{} · {} {}\n", gpu.summary().name, gpu.summary().driver, gpu.summary().driver_info);
    println!(
        "| case | sequences | prompt | prefill tokens/s | decode tokens/s | prefill × | decode × | rows moved | slots |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for r in rows {
        let ratio = |ratio: Option<f64>| ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
        let (prefill, decode) = (ratio(r.prefill_ratio), ratio(r.decode_ratio));
        println!(
            "| {} | {} | {} | {:.0} | {:.0} | {prefill} | {decode} | {} | {} |",
            r.case, r.sequences, r.prompt, r.prefill_tokens_per_s, r.decode_tokens_per_s, r.rows_moved, r.slots_used
        );
    }
    Ok(())
}

fn row(case: &'static str, sequences: usize, prompt: usize, times: &Times, base: Option<&Times>) -> Row {
    let tokens = (sequences * prompt) as f64;
    Row {
        case,
        sequences,
        prompt,
        prefill_tokens_per_s: tokens / times.prefill,
        decode_tokens_per_s: 1.0 / times.decode,
        decode_ratio: base.map(|base| base.decode / times.decode),
        prefill_ratio: base.map(|base| base.prefill / times.prefill),
        rows_moved: times.moved,
        slots_used: times.slots,
    }
}

/// The medians of two engines, run in turn.
fn compare(
    engines: [&mut Stepper; 2],
    sequences: usize,
    prompt: usize,
    same: bool,
) -> Result<[Times; 2], Box<dyn Error>> {
    let mut all = [Vec::new(), Vec::new()];
    let [first, second] = engines;
    for turn in 0..RUNS {
        all[0].push(run(first, sequences, prompt, same, turn)?);
        all[1].push(run(second, sequences, prompt, same, turn)?);
    }
    Ok(all.map(|mut times| {
        let median = |times: &mut Vec<Times>, of: fn(&Times) -> f64| {
            times.sort_by(|a, b| of(a).total_cmp(&of(b)));
            of(&times[times.len() / 2])
        };
        let (prefill, decode) = (median(&mut times, |t| t.prefill), median(&mut times, |t| t.decode));
        Times { prefill, decode, moved: times[0].moved, slots: times[0].slots }
    }))
}

fn run(engine: &mut Stepper, sequences: usize, prompt: usize, same: bool, turn: usize) -> Result<Times, raglan::Error> {
    engine.forget_prefixes();
    let moved = engine.slots().group(0).counters().moved;
    let vocab = engine.spec().vocab_size as u32;
    for sequence in 0..sequences as u32 {
        let which = if same { 0 } else { sequence } + 1000 * turn as u32;
        let tokens = (0..prompt as u32).map(|i| (which.wrapping_mul(7919) + i.wrapping_mul(104_729)) % vocab).collect();
        engine.submit(Request::new(tokens, SamplingParams { max_tokens: ANSWER, ..SamplingParams::default() }))?;
    }
    let start = Instant::now();
    let (mut tokens, mut slots) = (0, 0);
    let (mut prefill, mut decode) = (None, None);
    let mut begun = HashSet::new();
    while !engine.is_idle() {
        let all_run = begun.len() == sequences;
        for event in engine.step()? {
            match event {
                Event::Token { request, .. } => {
                    begun.insert(request);
                    tokens += usize::from(all_run && decode.is_none());
                }
                Event::Finished { .. } if decode.is_none() => decode = Some(start.elapsed().as_secs_f64()),
                _ => {}
            }
        }
        slots = slots.max(engine.capacity() - engine.free_slots());
        if begun.len() == sequences {
            prefill.get_or_insert_with(|| start.elapsed().as_secs_f64());
        }
    }
    let (prefill, decode) = (prefill.unwrap_or_default(), decode.unwrap_or_default());
    assert!(tokens > 8 * sequences, "{tokens} tokens were written while all {sequences} answers ran");
    let moved = engine.slots().group(0).counters().moved - moved;
    Ok(Times { prefill, decode: (decode - prefill) / tokens as f64, moved, slots })
}
