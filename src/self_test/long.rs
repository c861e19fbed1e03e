//! Long contexts: what an engine holds, and attention and positions past 2^17 and 2^20 tokens.

mod attention;

use super::golden::Golden;
use super::runs::{dtypes, engine, options};
use super::{Adapters, SelfTest, test};
use crate::bench::depth::Fit;
use crate::cost::AdapterClass;
use crate::engine::{EngineOptions, Stepper};
use crate::gpu::{Gpu, GpuOptions};
use crate::request::{Event, Request, SamplingParams};
use raglan_models::{Checkpoint, QuantizeTo, Synthetic};
use std::time::Instant;

pub(super) fn tests() -> Vec<SelfTest> {
    vec![
        test("long/an_engine_allocates_what_was_computed", allocates),
        test("long/attention_past_a_million_tokens", attention::check),
        test("long/a_sequence_past_a_million_tokens", sequence),
    ]
}

fn text<T: ToString>(error: T) -> String {
    error.to_string()
}

/// What engines of several shapes, weights, and types of keys and values hold on an adapter of their own is what was computed
/// before: within 2 % with the cache, and without.
fn allocates(adapters: &Adapters) -> Result<String, String> {
    let synthetic = |name: &str| Synthetic::parse(name).map_err(text);
    let mut wide = synthetic("synthetic:tiny:f16")?;
    // Heads that are no power of two: rows of packed keys are padded, rotations go by blocks.
    (wide.spec.head_dim, wide.spec.rope.rotary_dim) = (80, 80);
    let mut models: Vec<_> = ["synthetic:tiny:q4", "synthetic:tiny:f16", "synthetic:tiny:q6_k"]
        .into_iter()
        .map(|name| synthetic(name).map(Checkpoint::synthetic))
        .collect::<Result<_, _>>()?;
    for name in ["llama_odd", "qwen2", "qwen3", "mistral_swa"] {
        models.push(Golden::open(name)?.checkpoint);
    }
    let (plain, wide, swa) = (&models[1], &Checkpoint::synthetic(wide), &models[6]);
    let mut cases: Vec<(&Checkpoint, EngineOptions)> = Vec::new();
    for checkpoint in &models {
        for (place, dtype) in dtypes(&adapters.plain).into_iter().enumerate() {
            let class = (place == 0).then_some(AdapterClass::Hardware);
            let max_context = Some([500, 3000][place % 2]);
            cases.push((checkpoint, EngineOptions { dtype, class, max_context, ..options() }));
        }
    }
    let mixed = if adapters.plain.limits().shader_f16 { "int4,0=f16" } else { "int4,0=f32" };
    let (q4, q8) = (Some(QuantizeTo::Q4), Some(QuantizeTo::Q8));
    for (checkpoint, kv, quantize) in [
        (plain, "int4", q4),
        (plain, "k8v4", None),
        (plain, mixed, q8),
        (wide, "int4", q4),
        (wide, "k8v4", q4),
        (wide, mixed, None),
        (wide, "int8", None),
        (swa, mixed, None),
    ] {
        let kv_types = Some(kv.parse().map_err(text::<String>)?);
        cases.push((checkpoint, EngineOptions { kv_types, quantize, max_context: Some(3000), ..options() }));
    }
    let mut worst = 0.0f64;
    for (checkpoint, options) in &cases {
        let options = EngineOptions { max_sequences: 5, max_batch_tokens: 96, ..options.clone() };
        let adapter = Some(adapters.plain.summary().index.to_string());
        let gpu = Gpu::open(&GpuOptions { adapter, ..GpuOptions::default() }).map_err(text)?;
        let engine = engine(&gpu, checkpoint, &options)?;
        let (memory, held) = (engine.memory(), gpu.held_bytes());
        let apart = |met: u64, wanted: u64| (met as f64 / wanted as f64 - 1.0).abs();
        let whole = apart(held, memory.weight_bytes + memory.step_bytes + memory.kv_bytes);
        let beside = apart(held - engine.kv_bytes(), memory.weight_bytes + memory.step_bytes);
        worst = worst.max(whole).max(beside);
        if worst > 0.02 {
            let (path, dtype) = (checkpoint.path().display(), options.dtype);
            return Err(format!(
                "{path}, {dtype:?}, KV {}, weights to {:?}: {held} bytes, {} of them cache, where {memory:?}",
                engine.kv_type(),
                options.quantize,
                engine.kv_bytes()
            ));
        }
    }
    Ok(format!("{} engines, at most {:.3} % apart", cases.len(), 100.0 * worst))
}

/// Depths at which a token is timed, the last past 2^20.
const DEPTHS: [usize; 6] = [1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 17, (1 << 20) + 100];

/// A time this share off the line through all is a cliff. It is loose because machines of CI are busy: times that scatter by up to
/// half leave a third, while one time of 3 times the line leaves 1.0 to 1.9, wherever it is and though the line bends to it.
const CLIFF: f64 = 0.8;

/// How often times are taken, the least of each kept, before a cliff is one: a busy moment passes, a cliff stays.
const ROUNDS: usize = 3;

/// Decoding behind 1K to 128K tokens and past 2^20: logits are numbers, every step reads each key once, and so the bytes of a token
/// grow in a straight line, and its time but for what a busy machine adds.
fn sequence(adapters: &Adapters) -> Result<String, String> {
    let deepest = DEPTHS[DEPTHS.len() - 1];
    let mut synthetic = Synthetic::parse("synthetic:tiny:f16").map_err(text)?;
    // One narrow head of keys, so that a layer's fit the smallest binding.
    (synthetic.spec.num_key_value_heads, synthetic.spec.head_dim, synthetic.spec.rope.rotary_dim) = (1, 16, 16);
    let checkpoint = Checkpoint::synthetic(synthetic);
    let max_context = Some(deepest + 64);
    let options =
        EngineOptions { max_context, max_sequences: 1, max_batch_tokens: 16, prefix_cache: false, ..options() };
    let mut engine = engine(&adapters.plain, &checkpoint, &options)?;
    engine.compile(|_, _| ()).map_err(text)?;
    engine.fill_cache().map_err(text)?;
    let mut points = DEPTHS.map(|depth| (depth as f64, f64::INFINITY));
    for round in 1.. {
        let mut reads = Vec::new();
        for (place, depth) in DEPTHS.into_iter().enumerate() {
            let (ms, read_bytes) = decode(&mut engine, depth)?;
            points[place].1 = points[place].1.min(ms);
            reads.push((depth as f64, read_bytes));
        }
        // Of two tokens, each behind one more than the last, in every layer and for keys and values alike.
        let line = Fit::of(&reads).ok_or("no line through the bytes")?;
        if line.worst_residual > 0.02 {
            return Err(format!("bytes that attention reads a token: {reads:?}, {line:?}"));
        }
        let time = Fit::of(&points).ok_or("no line through the times")?;
        if time.worst_residual <= CLIFF {
            return Ok(format!(
                "to {deepest} tokens in {:.1} ms each; {:.2} ms + {:.1} µs a 1K tokens, worst residual {:.0} % in round {round}",
                points[points.len() - 1].1,
                time.ms,
                time.us_per_1k,
                100.0 * time.worst_residual
            ));
        }
        if round == ROUNDS {
            return Err(format!("milliseconds a token: {points:?}, {time:?}"));
        }
    }
    unreachable!("the last round returns")
}

/// Two tokens behind `depth` others: milliseconds of each, and bytes that attention reads for it.
fn decode(engine: &mut Stepper, depth: usize) -> Result<(f64, f64), String> {
    let prompt = vec![7; depth + 1];
    let sampling = SamplingParams { max_tokens: 2, ..SamplingParams::default() };
    engine.take_logits();
    engine.start_meter(None);
    let id = engine.submit_at(Request::new(prompt, sampling), depth).map_err(text)?;
    let (start, mut tokens) = (Instant::now(), 0);
    while !engine.is_idle() {
        for event in engine.step().map_err(text)? {
            if let Event::Failed { message, .. } = event {
                return Err(format!("depth {depth}: {message}"));
            }
            tokens += usize::from(matches!(event, Event::Token { .. }));
        }
    }
    let ms = 500.0 * start.elapsed().as_secs_f64();
    let metered = engine.stop_meter();
    let rows = engine.take_logits().remove(&id).unwrap_or_default();
    let is_number = rows.iter().flatten().all(|logit| logit.is_finite());
    if tokens != 2 || rows.len() != 2 || !is_number {
        return Err(format!("depth {depth}: {tokens} tokens, {} rows of logits, all numbers: {is_number}", rows.len()));
    }
    let read: u64 = metered.works.iter().filter(|work| work.label == "attention").map(|work| work.read_bytes).sum();
    Ok((ms, read as f64 / 2.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_three_times_the_line_is_a_cliff_wherever_it_is_and_half_more_is_none() {
        for (ms, us_per_1k) in [(2.0, 600.0), (5.0, 100.0), (2.0, 20.0), (10.0, 1000.0)] {
            for place in 0..DEPTHS.len() {
                let times = |factor: f64| {
                    let time = |depth: usize| ms + us_per_1k / 1024e3 * depth as f64;
                    let points = DEPTHS.map(|depth| (depth as f64, time(depth)));
                    let of = |(at, (depth, ms))| (depth, if at == place { factor * ms } else { ms });
                    points.into_iter().enumerate().map(of).collect::<Vec<_>>()
                };
                let worst = |factor: f64| Fit::of(&times(factor)).expect("a line").worst_residual;
                assert!(worst(3.0) > CLIFF, "{ms} ms + {us_per_1k} µs, {place}: {}", worst(3.0));
                assert!(worst(1.5) < CLIFF, "{ms} ms + {us_per_1k} µs, {place}: {}", worst(1.5));
            }
        }
    }
}
