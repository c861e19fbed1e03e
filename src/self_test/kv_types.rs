//! Types of keys and values: what rounding costs, and what centring and rotating bring back.

use super::golden::{Golden, altered};
use super::runs::{engine, logits, options};
use super::{Adapters, SelfTest, test};
use crate::cost::AdapterClass;
use crate::engine::EngineOptions;
use crate::kv_cache::KvTypes;
use crate::ops::Dtype;
use raglan_models::Checkpoint;

pub(super) fn tests() -> Vec<SelfTest> {
    vec![
        test("kv/every_type_is_nearer_than_the_next", by_type),
        test("kv/centring_brings_back_what_biases_cost", centring),
        test("kv/rotating_brings_back_what_outliers_cost", rotating),
    ]
}

/// Columns of a head of these models.
const HEAD_DIM: usize = 16;

// What is asked for below; numbers met are those that `raglan self-test --filter kv/` told on llvmpipe (LLVM 19.1.7).

/// How many times as far from f32 runs may be that round as hardware's kernels do, which is alike but not the same; the test tells what
/// it met.
const MOST_ON_HARDWARE: f64 = 4.0;

/// How many times nearer to f32 centring brings keys with biases: int8 76.5 times, int4 33.
const LEAST_BY_CENTRING: f64 = 10.0;

/// How many times nearer rotating brings rows with outliers: 2.5, in heads of 16 columns, which spread little.
const LEAST_BY_ROTATING: f64 = 2.0;

/// The mean over all tokens of the divergence of the softmax of `met` from that of `want`, in nats: `[tokens, vocab]`.
///
/// Source: Kullback & Leibler 1951, "On information and sufficiency", eq. 2.4.
fn divergence(met: &[f32], want: &[f32], vocab: usize) -> f64 {
    let log_softmax = |row: &[f32]| -> Vec<f64> {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let shifted: Vec<f64> = row.iter().map(|&logit| f64::from(logit - largest)).collect();
        let total = shifted.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        shifted.into_iter().map(|logit| logit - total).collect()
    };
    let rows = met.chunks_exact(vocab).zip(want.chunks_exact(vocab));
    let of_row = |(met, want): (&[f32], &[f32])| -> f64 {
        log_softmax(want).iter().zip(log_softmax(met)).map(|(want, met)| want.exp() * (want - met)).sum()
    };
    rows.map(of_row).sum::<f64>() / (want.len() / vocab) as f64
}

/// How far the logits of `tokens` with each of `types` are from those with keys and values in f32.
fn divergences(
    adapters: &Adapters,
    checkpoint: &Checkpoint,
    tokens: &[u32],
    types: &[&str],
    class: Option<AdapterClass>,
) -> Result<Vec<f64>, String> {
    let run = |kv: &str, dtype: Dtype| -> Result<Vec<f32>, String> {
        let kv_types = Some(kv.parse::<KvTypes>()?);
        let options = EngineOptions { kv_types, max_context: Some(256), class, dtype, ..options() };
        logits(&mut engine(&adapters.plain, checkpoint, &options)?, tokens, 64)
    };
    let want = run("f32", Dtype::F32)?;
    let dtype = if class.is_some() { Dtype::default() } else { Dtype::F32 };
    let vocab = checkpoint.spec().vocab_size;
    let of = |kv: &&str| run(kv, dtype).map(|met| divergence(&met, &want, vocab));
    types.iter().map(of).collect()
}

fn told(types: &[&str], met: &[f64]) -> String {
    types.iter().zip(met).map(|(kv, met)| format!("{kv} {met:.2e}")).collect::<Vec<_>>().join(", ")
}

/// The more bits, the nearer to f32; nothing is no number.
fn by_type(adapters: &Adapters) -> Result<String, String> {
    let types = ["int8", "k8v4", "int4", "int4,0-1=int8"];
    let (mut all, mut most) = (Vec::new(), 0.0f64);
    // The last has `o` in blocks, so that attention's output is turned back in a dispatch of its own.
    for name in ["llama", "qwen2", "gptq"] {
        let golden = Golden::open(name)?;
        let met = divergences(adapters, &golden.checkpoint, &golden.generated, &types, None)?;
        let all_told = format!("{name}: {}", told(&types, &met));
        if !(met[0] < met[1] && met[1] < met[2] && met[3] < met[2] && met.iter().all(|met| met.is_finite())) {
            return Err(all_told);
        }
        // The kernels of hardware, matrices among them, round as these do, and what else they round in f16 is less than 8 bits.
        let class = Some(AdapterClass::Hardware);
        let on_hardware = divergences(adapters, &golden.checkpoint, &golden.generated, &types, class)?;
        if on_hardware.iter().zip(&met).any(|(hardware, met)| hardware.is_nan() || *hardware > MOST_ON_HARDWARE * met) {
            return Err(format!("{all_told}; as on hardware {}", told(&types, &on_hardware)));
        }
        most = on_hardware.iter().zip(&met).map(|(hardware, met)| hardware / met).fold(most, f64::max);
        all.push(all_told);
    }
    Ok(format!("as on hardware at most {most:.2} times; {}", all.join("; ")))
}

/// A model whose keys have large biases in the channels that turn slowly, as Qwen2's have: without centring they take the range
/// that the others need.
fn centring(adapters: &Adapters) -> Result<String, String> {
    let golden = Golden::open("qwen2")?;
    let biased = altered("qwen2", &mut |name, values| {
        if name.ends_with("k_proj.bias") {
            for (row, value) in values.iter_mut().enumerate() {
                // Pairs 4..8 turn by less than a quarter of a radian in 256 positions.
                if row % (HEAD_DIM / 2) >= HEAD_DIM / 4 {
                    *value += if row % 3 == 0 { -60.0 } else { 60.0 };
                }
            }
        }
    })?;
    compare(
        adapters,
        &biased,
        &golden.generated,
        &[("int8", "int8:uncentred"), ("int4", "int4:uncentred")],
        LEAST_BY_CENTRING,
    )
}

/// The same model with keys and values that have outlier channels in a layer: queries and the output's projection are as much
/// smaller there. A head of 16 columns has few others to spread two over.
fn rotating(adapters: &Adapters) -> Result<String, String> {
    const OUTLIER: f32 = 8.0;
    let golden = Golden::open("llama")?;
    let spec = golden.checkpoint.spec();
    // Both channels of a pair that RoPE turns together, so that the queries' share can be taken out before it.
    let is_outlier = |row: usize| row % (HEAD_DIM / 2) == 5;
    let attended = spec.num_attention_heads * HEAD_DIM;
    let outliers = altered("llama", &mut |name, values| {
        if !name.starts_with("model.layers.0.") {
            return;
        }
        let rows = |heads: usize| heads * HEAD_DIM;
        let (rows, factor) = match name {
            _ if name.contains("q_proj") => (rows(spec.num_attention_heads), 1.0 / OUTLIER),
            _ if name.contains("k_proj") || name.contains("v_proj") => (rows(spec.num_key_value_heads), OUTLIER),
            _ if name.ends_with("o_proj.weight") => {
                let columns = values.chunks_exact_mut(attended).flat_map(|row| row.iter_mut().enumerate());
                columns.filter(|(col, _)| is_outlier(*col)).for_each(|(_, value)| *value /= OUTLIER);
                return;
            }
            _ => return,
        };
        let cols = values.len() / rows;
        for row in (0..rows).filter(|&row| is_outlier(row)) {
            values[row * cols..][..cols].iter_mut().for_each(|value| *value *= factor);
        }
    })?;
    compare(adapters, &outliers, &golden.generated, &[("int4,1-2=f32", "int4:unrotated,1-2=f32")], LEAST_BY_ROTATING)
}

/// Of each pair of types the first must be nearer to f32 than the second, so many times.
fn compare(
    adapters: &Adapters,
    checkpoint: &Checkpoint,
    tokens: &[u32],
    pairs: &[(&str, &str)],
    times: f64,
) -> Result<String, String> {
    let mut found = Vec::new();
    for &(with, without) in pairs {
        let types = [with, without];
        let met = divergences(adapters, checkpoint, tokens, &types, None)?;
        let ratio = met[1] / met[0];
        let all_told = format!("{} ({ratio:.1} times)", told(&types, &met));
        if ratio.is_nan() || ratio < times {
            return Err(format!("{all_told}, wanted {times} times"));
        }
        found.push(all_told);
    }
    Ok(found.join("; "))
}
