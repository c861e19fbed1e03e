//! Greedy decoding and logits of small checkpoints against Hugging Face transformers, all inside the program.

use super::data::{Random, floats};
use super::reference::{Noise, Reference};
use super::runs::{answer, dtypes, engine, greedy, logits, options, same};
use super::{Adapters, SelfTest, test};
use crate::cost::AdapterClass;
use crate::engine::EngineOptions;
use crate::ops::Dtype;
use raglan_models::{Checkpoint, EmbeddedFiles, ModelSpec};

macro_rules! file {
    ($name:literal, $file:literal) => {
        ($file, include_bytes!(concat!("../../tests/golden/", $name, "/", $file)).as_slice())
    };
}

macro_rules! golden {
    ($name:literal) => {
        (
            $name,
            &[
                file!($name, "config.json"),
                file!($name, "model.safetensors"),
                file!($name, "golden.json"),
                file!($name, "golden.safetensors"),
            ],
        )
    };
}

/// Each folder was made by transformers with the versions and the seed that its `golden.json` names.
const GOLDENS: [(&str, EmbeddedFiles); 13] = [
    golden!("llama"),
    golden!("llama_tied_bias"),
    golden!("llama_odd"),
    golden!("llama_yarn"),
    golden!("llama3_rope"),
    golden!("mistral_swa"),
    golden!("qwen2"),
    golden!("qwen2_swa"),
    golden!("qwen3"),
    golden!("smollm3"),
    golden!("awq"),
    golden!("gptq"),
    golden!("compressed_int8"),
];

/// Those whose point is their weights: what else runs is as with any other. Kernels of blocks take long to compile.
const QUANTISED: [&str; 3] = ["awq", "gptq", "compressed_int8"];

/// A checkpoint and what transformers made of it.
pub(super) struct Golden {
    pub(super) checkpoint: Checkpoint,
    pub(super) prompt: Vec<u32>,
    /// The prompt and 24 greedy tokens after it.
    pub(super) generated: Vec<u32>,
    /// `[prompt, vocab_size]`
    logits: Vec<f32>,
    /// `[generated, vocab_size]`
    logits_generated: Vec<f32>,
}

/// How far logits may be from transformers', row by row.
pub(super) struct Allowed {
    f32: Vec<f64>,
    f16: Vec<f64>,
}

/// Runs of the reference with random rounding, to learn how it spreads: each gives a whole row of deviations.
const DRAWS: u64 = 4;

/// One correct run in so many may fail.
const FALSE_ALARMS: f64 = 1e6;

impl Golden {
    pub(super) fn open(name: &str) -> Result<Golden, String> {
        let (name, files) = GOLDENS.into_iter().find(|(golden, _)| *golden == name).ok_or("no golden of that name")?;
        let checkpoint = Checkpoint::embedded(name, files).map_err(|error| error.to_string())?;
        let json: serde_json::Value = serde_json::from_slice(files[2].1).map_err(|error| error.to_string())?;
        let ids = |key: &str| serde_json::from_value(json[key].clone()).map_err(|error| format!("{key}: {error}"));
        let (prompt, generated) = (ids("prompt")?, ids("generated")?);
        let tensor =
            |key: &str| safetensor(files[3].1, key).map(floats).ok_or_else(|| format!("golden.safetensors: no {key}"));
        let (logits, logits_generated) = (tensor("logits")?, tensor("logits_generated")?);
        Ok(Golden { checkpoint, prompt, generated, logits, logits_generated })
    }

    pub(super) fn greedy(&self) -> &[u32] {
        &self.generated[self.prompt.len()..]
    }

    /// Runs the reference exactly, and again with every kernel's result moved at random within what its twin test allows
    /// (Monte Carlo arithmetic: Parker 1997, UCLA CSD-970002). Deviations of a row's logits, sums of many small ones, are
    /// normal, so that of n logits none exceeds √(2 ln(2 n · 10⁶)) standard deviations but in one run of 10⁶. Transformers
    /// computed in f32, so its own deviation, taken for as large as ours in f32, adds.
    pub(super) fn allowed(&self, reference: &Reference) -> Allowed {
        let exact = reference.forward(&self.generated, None);
        let vocab = reference.spec.vocab_size;
        let variances = |f16: bool| {
            let mut variances = vec![0.0; self.generated.len()];
            for seed in 0..DRAWS {
                let disturbed = reference.forward(&self.generated, Some(Noise { random: Random::new(seed), f16 }));
                for (index, (met, want)) in disturbed.iter().zip(&exact).enumerate() {
                    variances[index / vocab] += (met - want).powi(2) / (DRAWS * vocab as u64) as f64;
                }
            }
            variances
        };
        let reach = (2.0 * (2.0 * exact.len() as f64 * FALSE_ALARMS).ln()).sqrt();
        let (theirs, halves) = (variances(false), variances(true));
        let allowed = |ours: &[f64]| ours.iter().zip(&theirs).map(|(a, b)| reach * (a + b).sqrt()).collect();
        Allowed { f32: allowed(&theirs), f16: allowed(&halves) }
    }

    /// The worst error of logits of the first tokens, and the worst share of what is allowed.
    ///
    /// # Errors
    /// If that is more than the whole.
    pub(super) fn check(&self, what: &str, met: &[f32], allowed: &Allowed, dtype: Dtype) -> Result<(f64, f64), String> {
        let met: Vec<f64> = met.iter().map(|&logit| logit.into()).collect();
        let (error, share) = self.deviation(&met, allowed.of(dtype));
        if share <= 1.0 {
            return Ok((error, share));
        }
        Err(format!("{what}: logits are off by up to {error:.2e}, {share:.2} times what rounding explains"))
    }

    fn deviation(&self, met: &[f64], allowed: &[f64]) -> (f64, f64) {
        let vocab = self.checkpoint.spec().vocab_size;
        let want = if met.len() == self.logits.len() { &self.logits } else { &self.logits_generated };
        assert_eq!(met.len(), want.len(), "logits of the prompt, or of all tokens");
        let mut worst = (0.0f64, 0.0f64);
        for (index, (met, &want)) in met.iter().zip(want).enumerate() {
            let error = (met - f64::from(want)).abs();
            let error = if error.is_nan() { f64::INFINITY } else { error };
            worst = (worst.0.max(error), worst.1.max(error / allowed[index / vocab]));
        }
        worst
    }
}

impl Allowed {
    pub(super) fn f32_row(&self, row: usize) -> f64 {
        self.f32[row]
    }

    fn of(&self, dtype: Dtype) -> &[f64] {
        if dtype == Dtype::F16 { &self.f16 } else { &self.f32 }
    }
}

pub(super) fn tests() -> Vec<SelfTest> {
    let mut tests: Vec<_> = GOLDENS
        .iter()
        .map(|(name, _)| {
            test(format!("golden/{name}"), move |adapters| match QUANTISED.contains(name) {
                true => check_weights(adapters, name),
                false => check(adapters, name, None),
            })
        })
        .collect();
    tests.push(test("golden/tiny", |adapters| tiny(adapters, None)));
    // As hardware runs them, whatever the adapter is: norms and activations within products of few rows, matrices of any form,
    // products split over inner columns.
    const HARDWARE: Option<AdapterClass> = Some(AdapterClass::Hardware);
    for name in ["llama", "llama_odd", "llama_tied_bias", "qwen3"] {
        tests.push(test(format!("golden/hardware/{name}"), move |adapters| check(adapters, name, HARDWARE)));
    }
    tests.push(test("golden/hardware/tiny", |adapters| tiny(adapters, HARDWARE)));
    tests
}

fn check(adapters: &Adapters, name: &str, class: Option<AdapterClass>) -> Result<String, String> {
    let golden = Golden::open(name)?;
    let mut reference = Reference::new(&golden.checkpoint).map_err(|error| error.to_string())?;
    let mut allowed = golden.allowed(&reference);
    let exact = reference.forward(&golden.generated, None);
    let (_, share) = golden.deviation(&exact, &allowed.f32);
    if class == Some(AdapterClass::Hardware) {
        allowed = allowed_on_hardware(&golden, &mut reference, &exact, allowed);
    }
    if share > 1.0 {
        return Err(format!(
            "the twins of the kernels are {share:.2} times as far from transformers as rounding explains"
        ));
    }
    let mut found = format!("twins {share:.2} of what rounding explains");
    for dtype in dtypes(&adapters.plain) {
        let mut engine = engine(&adapters.plain, &golden.checkpoint, &EngineOptions { dtype, class, ..options() })?;
        let mut worst = (0.0f64, 0.0f64);
        for (tokens, chunk) in [
            (&golden.prompt, 64),
            (&golden.generated, 64),
            (&golden.generated, 7),
            (&golden.generated, 3),
            (&golden.generated, 1),
        ] {
            let met = logits(&mut engine, tokens, chunk)?;
            let (error, share) = golden.check(&format!("{dtype:?}, chunks of {chunk}"), &met, &allowed, dtype)?;
            worst = (worst.0.max(error), worst.1.max(share));
        }
        found += &format!("; {dtype:?} {:.2} ({:.1e})", worst.1, worst.0);
        for pipeline in [1, 2] {
            let options = EngineOptions { dtype, pipeline, class, ..options() };
            let mut engine = self::engine(&adapters.plain, &golden.checkpoint, &options)?;
            let met = answer(&mut engine, &greedy(&golden.prompt, golden.greedy().len()))?;
            same(&format!("{dtype:?}, pipeline {pipeline}"), &met.tokens[..], golden.greedy())?;
        }
    }
    Ok(format!("{} tokens equal; {found}; {}", golden.greedy().len(), bite(&golden, &allowed)?))
}

/// Logits and greedy tokens in f32 alone, where rounding hides least.
fn check_weights(adapters: &Adapters, name: &str) -> Result<String, String> {
    let golden = Golden::open(name)?;
    let reference = Reference::new(&golden.checkpoint).map_err(|error| error.to_string())?;
    let allowed = golden.allowed(&reference);
    let exact = reference.forward(&golden.generated, None);
    let (_, share) = golden.deviation(&exact, &allowed.f32);
    if share > 1.0 {
        return Err(format!("the weights are {share:.2} times as far from transformers' as rounding explains"));
    }
    let mut engine = engine(&adapters.plain, &golden.checkpoint, &options())?;
    let met = logits(&mut engine, &golden.generated, 64)?;
    let (error, met) = golden.check("chunks of 64", &met, &allowed, Dtype::F32)?;
    let answer = answer(&mut engine, &greedy(&golden.prompt, golden.greedy().len()))?;
    same("greedy tokens", &answer.tokens[..], golden.greedy())?;
    let bitten = bite(&golden, &allowed)?;
    Ok(format!("twins {share:.2} of what rounding explains; F32 {met:.2} ({error:.1e}); {bitten}"))
}

/// What is a little wrong with a model must be more than rounding explains: in f16, or in f32 where it is that little.
fn bite(golden: &Golden, allowed: &Allowed) -> Result<String, String> {
    let spec = golden.checkpoint.spec();
    let mut mutants: Vec<(&str, Dtype, ModelSpec)> = Vec::new();
    let mut mutant = |what, dtype, change: &dyn Fn(&mut ModelSpec)| {
        let mut changed = spec.clone();
        change(&mut changed);
        mutants.push((what, dtype, changed));
    };
    mutant("theta a tenth larger", Dtype::F16, &|spec| spec.rope.theta *= 1.1);
    mutant("a hundred times the eps of norms", Dtype::F32, &|spec| spec.rms_norm_eps *= 100.0);
    mutant("RoPE in the wrong layers", Dtype::F16, &|spec| spec.layers[1].rope = !spec.layers[1].rope);
    if spec.layers[0].sliding_window.is_some() {
        mutant("a window one longer", Dtype::F16, &|spec| {
            spec.layers
                .iter_mut()
                .for_each(|layer| layer.sliding_window = layer.sliding_window.map(|window| window + 1));
        });
    }
    let mut least = f64::INFINITY;
    for (what, dtype, spec) in mutants {
        let mut reference = Reference::new(&golden.checkpoint).map_err(|error| error.to_string())?;
        reference.spec = spec;
        let (_, share) = golden.deviation(&reference.forward(&golden.generated, None), allowed.of(dtype));
        if share <= 1.0 {
            return Err(format!("a model with {what} passes: {share:.2} of what rounding explains"));
        }
        least = least.min(share);
    }
    Ok(format!("wrong models {least:.1} times or more"))
}

/// What a model may deviate by where cooperative matrices round its weights to f16.
fn allowed_on_hardware(golden: &Golden, reference: &mut Reference, exact: &[f64], mut allowed: Allowed) -> Allowed {
    reference.round_weights();
    let vocab = golden.checkpoint.spec().vocab_size;
    let rounded = reference.forward(&golden.generated, None);
    for (row, (rounded, exact)) in rounded.chunks_exact(vocab).zip(exact.chunks_exact(vocab)).enumerate() {
        allowed.f16[row] += rounded.iter().zip(exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    }
    allowed
}

/// The embedded model: 100 greedy tokens each of two prompts.
fn tiny(adapters: &Adapters, class: Option<AdapterClass>) -> Result<String, String> {
    let checkpoint = Checkpoint::tiny().map_err(|error| error.to_string())?;
    let json = include_bytes!("../../tests/golden/tiny_stories/golden.json");
    let json: serde_json::Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let ids = |value: &serde_json::Value| serde_json::from_value::<Vec<u32>>(value.clone()).map_err(|e| e.to_string());
    let items = json["items"].as_array().ok_or("golden.json has no items")?;
    for dtype in dtypes(&adapters.plain) {
        for pipeline in [1, 2] {
            let options = EngineOptions { dtype, pipeline, class, ..options() };
            let mut engine = engine(&adapters.plain, &checkpoint, &options)?;
            for item in items {
                let want = ids(&item["greedy_ids"])?;
                let met = answer(&mut engine, &greedy(&ids(&item["prompt_ids"])?, want.len()))?;
                same(&format!("{dtype:?}, pipeline {pipeline}, {}", item["prompt"]), &met.tokens, &want)?;
            }
        }
    }
    Ok(format!("{} answers equal", items.len()))
}

/// The checkpoint of a golden with other weights: `change` is given every tensor by its name. Its files stay in memory.
pub(super) fn altered(name: &str, change: &mut dyn FnMut(&str, &mut [f32])) -> Result<Checkpoint, String> {
    let (name, files) = GOLDENS.into_iter().find(|(golden, _)| *golden == name).ok_or("no golden of that name")?;
    let mut weights = files[1].1.to_vec();
    let (length, rest) = files[1].1.split_first_chunk::<8>().ok_or("no header")?;
    let length = u64::from_le_bytes(*length) as usize;
    let header: serde_json::Value = serde_json::from_slice(&rest[..length]).map_err(|error| error.to_string())?;
    for (tensor, entry) in header.as_object().ok_or("no header")?.iter().filter(|(name, _)| *name != "__metadata__") {
        let offset = |index: usize| entry["data_offsets"][index].as_u64().map(|offset| 8 + length + offset as usize);
        let (Some(start), Some(end), Some("F32")) = (offset(0), offset(1), entry["dtype"].as_str()) else {
            return Err(format!("{tensor} is no tensor of f32"));
        };
        let mut values = floats(&weights[start..end]);
        change(tensor, &mut values);
        weights[start..end].copy_from_slice(bytemuck::cast_slice(&values));
    }
    let files: EmbeddedFiles =
        Box::leak(Box::new([files[0], ("model.safetensors", &*Box::leak(weights.into_boxed_slice()))]));
    Checkpoint::embedded(name, files).map_err(|error| error.to_string())
}

/// The bytes of a tensor in a safetensors file.
pub(super) fn safetensor<'a>(file: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (length, rest) = file.split_first_chunk::<8>()?;
    let (header, data) = rest.split_at_checked(u64::from_le_bytes(*length) as usize)?;
    let header: serde_json::Value = serde_json::from_slice(header).ok()?;
    let offset = |index: usize| header[name]["data_offsets"][index].as_u64();
    data.get(offset(0)? as usize..offset(1)? as usize)
}
