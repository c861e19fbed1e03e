//! Models whose schedules the tuner chooses, by made-up weights: what is answered, and what is compiled.

use super::runs::{answer, answers, engine, greedy, options, same};
use super::{Adapters, SelfTest, test};
use crate::cost::AdapterClass;
use crate::decoder::attention_shape;
use crate::engine::{EngineOptions, Stepper};
use crate::gpu::Gpu;
use crate::ops::{Dtype, Types};
use crate::request::Request;
use crate::schedules::made_up::{chance, weights};
use crate::schedules::{Form, KvHeads, Level, LinearChoice, Mode, ProductKey, Terms, adapter_type, attention, linear};
use crate::tune::{Calibration, Inputs};
use raglan_models::Checkpoint;
use raglan_shaders::{Part, WeightFormat, matmul, matvec};
use std::path::{Path, PathBuf};

pub(super) fn tests() -> Vec<SelfTest> {
    vec![
        test("tuned/modes_give_the_same_tokens", modes),
        test("tuned/matmul_sums_in_one_order", one_order),
        test("tuned/nothing_is_compiled_while_it_runs", nothing_compiled),
    ]
}

/// A folder that is gone when its owner is.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of it is a temporary file.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Made-up weights of this adapter in a folder: a few candidates, ranked by their costs and by chance.
fn installed(gpu: &Gpu, checkpoint: &Checkpoint, dtype: Dtype, seed: u64) -> Result<Folder, String> {
    let types = Types::of(gpu, dtype);
    let shape = attention_shape(checkpoint.spec(), &types.kv.into()).map_err(|error| error.to_string())?;
    let class = if gpu.is_software() { AdapterClass::Software } else { AdapterClass::Hardware };
    let act = if types.act_bytes() == 2 { Part::ActF16 } else { Part::ActF32 };
    let split_bytes = if class == AdapterClass::Software { 0 } else { 8 << 20 };
    let terms = Terms { limits: gpu.limits().clone(), class, act, int8: false, split_bytes };
    let heads =
        KvHeads { kv_heads: shape.num_kv_heads, group: shape.group(), head_stride: shape.head_stride(0), kv: types.kv };
    // A few of each, since every one is compiled; those that a deterministic run may choose from among them.
    let some = |count: usize, mut texts: Vec<(f64, usize)>| -> Vec<usize> {
        texts.sort_by(|a, b| a.0.total_cmp(&b.0));
        texts.into_iter().take(count).map(|(_, index)| index).collect()
    };
    let mut products = Vec::new();
    for rows in [1, 100] {
        let all = linear::all(rows, &terms);
        for kernel in ["matvec", "matmul", "matmul_coop"] {
            let of = all.iter().enumerate().filter(|(_, choice)| choice.kernel.name == kernel);
            let ranked = of.map(|(index, choice)| (chance(seed, &choice.candidate().to_string()), index)).collect();
            products.extend(some(2, ranked).into_iter().map(|index| all[index].clone()));
        }
    }
    let mut forms = Vec::new();
    for form in [Form::Vector, Form::Tile] {
        let all = attention::all(form, &heads, &terms, &[]);
        let ranked =
            all.iter().enumerate().map(|(index, choice)| (chance(seed, &choice.candidate().to_string()), index));
        forms.extend(some(4, ranked.collect()).into_iter().map(|index| all[index].clone()));
    }
    let driver = format!("{} {}", gpu.summary().driver, gpu.summary().driver_info);
    let name = adapter_type(&gpu.summary().name, gpu.limits());
    let weights =
        weights((&name, driver.trim()), &terms, &heads, (&products, &forms), &|_, shape, candidate, cost| {
            // What a candidate is good at changes with the rows, so that many are taken.
            let taste = chance(seed, &format!("{candidate} {}", shape[0].log2() as u32));
            (1.0 + cost.bytes / 1e4 + cost.flops / 1e5) * (1.0 + taste)
        })?;
    let folder = Folder(std::env::temp_dir().join(format!("raglan-tuned-{}-{seed}", std::process::id())));
    let file = folder.0.join(&name).join("weights.safetensors");
    weights.write(&file).map_err(|error| error.to_string())?;
    Ok(folder)
}

fn tuned(
    gpu: &Gpu,
    checkpoint: &Checkpoint,
    mode: Mode,
    dir: &Path,
    options: EngineOptions,
) -> Result<Stepper, String> {
    let tuner_dir = Some(dir.to_owned());
    engine(gpu, checkpoint, &EngineOptions { tuner: mode, tuner_dir, max_batch_tokens: 32, ..options })
}

/// Short prompts and answers of a tiny model.
fn requests() -> Vec<Request> {
    [(40, 6), (3, 9), (17, 4)].map(|(prompt, tokens)| greedy(&(1..=prompt).collect::<Vec<u32>>(), tokens)).into()
}

/// The same tokens whichever way schedules are chosen, deterministic and not: of the first bit for bit.
fn modes(adapters: &Adapters) -> Result<String, String> {
    let gpu = &adapters.plain;
    let checkpoint = Checkpoint::tiny().map_err(|error| error.to_string())?;
    let folder = installed(gpu, &checkpoint, Dtype::F32, 1)?;
    let mut found = Vec::new();
    for deterministic in [true, false] {
        let mut first = None;
        for mode in [Mode::Off, Mode::Default, Mode::Predict, Mode::Exhaustive] {
            let mut engine = tuned(gpu, &checkpoint, mode, &folder.0, EngineOptions { deterministic, ..options() })?;
            let request = greedy(&(1..=40).collect::<Vec<u32>>(), 8);
            let _ = engine.take_logits();
            let answer = answer(&mut engine, &request)?;
            let logits: Vec<Vec<f32>> = engine.take_logits().into_values().flatten().collect();
            let stats = engine.tuner_stats();
            if !deterministic && mode == Mode::Predict {
                found.push(format!("{} products in the table", engine.tuner_stats().table_hits));
                let levels = stats.levels;
                // Weights are of the inputs that an adapter takes by itself, f16 where it has it.
                let wanted = if gpu.limits().shader_f16 { Level::Analytical } else { Level::Exact };
                same("levels", &levels.linear_few, &wanted)?;
                same("levels", &levels.attention_tile, &wanted)?;
            }
            let (want, want_logits) = first.get_or_insert((answer.tokens.clone(), logits.clone()));
            same(&format!("tokens, {mode:?}, deterministic {deterministic}"), &answer.tokens, want)?;
            if deterministic && logits != *want_logits {
                return Err(format!("{mode:?}: other logits than without a tuner"));
            }
        }
    }
    Ok(found.join(", "))
}

/// Schedules of `matmul` compute the same bits whatever their tiles, those with stages and those without: a deterministic run
/// may choose among either, and looks for itself. Where a CPU plays the adapter, all of them do; `matvec` sums in another order.
fn one_order(adapters: &Adapters) -> Result<String, String> {
    let gpu = &adapters.plain;
    let inputs = Inputs { dtype: Dtype::F32, int8_activations: false };
    let mut calibration = Calibration::new(gpu, inputs).map_err(|error| error.to_string())?;
    let class = if gpu.is_software() { AdapterClass::Software } else { AdapterClass::Hardware };
    let terms = Terms { limits: gpu.limits().clone(), class, act: Part::ActF32, int8: false, split_bytes: 0 };
    let unstaged = [("LANES_M", 1), ("LANES_N", 32), ("TILE_M", 8), ("TILE_N", 8), ("STAGES", 0)];
    let usual = [matmul::KERNEL.schedule(&unstaged), matmul::KERNEL.default_schedule()]
        .map(|schedule| LinearChoice::whole(&matmul::KERNEL, schedule));
    let (mut same_bits, mut other_bits) = (0, Vec::new());
    for (format, gated, step) in [(WeightFormat::F32, false, 2), (WeightFormat::Q4_0, true, 3)] {
        let product = ProductKey { cols: 320, inner: 512, format, normed: false, gated };
        let all = linear::all(100, &terms);
        for usual in &usual {
            let alike = all.iter().filter(|choice| choice.sums_like(usual));
            for choice in alike.step_by(if class == AdapterClass::Software { step } else { 10 * step }) {
                if calibration.same_bits(product, choice, usual).map_err(|error| error.to_string())? {
                    same_bits += 1;
                } else {
                    other_bits.push(choice.candidate().to_string());
                }
            }
        }
        let other = LinearChoice::whole(&matvec::KERNEL, matvec::KERNEL.schedule(&[("LANES", 32), ("TILE_M", 1)]));
        if calibration.same_bits(product, &other, &usual[0]).map_err(|error| error.to_string())? {
            return Err(format!("{format:?}: matvec has the bits of matmul, so that nothing was compared"));
        }
    }
    match other_bits.first() {
        Some(_) if gpu.is_software() => Err(format!("{} sum in another order", other_bits.join("; "))),
        _ => Ok(format!("{same_bits} of {} schedules have the same bits", same_bits + other_bits.len())),
    }
}

/// Whatever the tuner picks while rows and contexts grow was compiled before.
fn nothing_compiled(adapters: &Adapters) -> Result<String, String> {
    let gpu = &adapters.plain;
    let checkpoint = Checkpoint::tiny().map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    for (dtype, seed) in [(Dtype::F32, 2), (Dtype::F16, 3)] {
        let folder = installed(gpu, &checkpoint, dtype, seed)?;
        let options = EngineOptions { dtype, ..options() };
        let mut engine = tuned(gpu, &checkpoint, Mode::Predict, &folder.0, options)?;
        engine.compile(|_, _| ()).map_err(|error| error.to_string())?;
        let before = gpu.created().pipelines;
        let first = requests();
        for count in 1..=first.len() {
            answers(&mut engine, &first[..count])?;
        }
        same("pipelines after generating", &gpu.created().pipelines, &before)?;
        let stats = engine.tuner_stats();
        if stats.table_hits == 0 || stats.asked <= stats.table_hits {
            return Err(format!("the tuner was not asked: {stats:?}"));
        }
        found.push(format!("{dtype:?}: {} asked, {} remembered", stats.asked, stats.memo_hits));
    }
    Ok(found.join("; "))
}
