//! `raglan inspect`: what a checkpoint is, and what running it takes.

mod memory;

use super::Result;
use super::global::Global;
use super::load::{Model, checkpoint, longest, open_gpu};
use super::output::{Failure, bytes, number, print_json, print_line};
use memory::Card;
use raglan::EngineOptions;
use raglan::engine::{Memory, Offer};
use raglan::gpu::Gpu;
use raglan::models::{FormatUse, ModelSpec, RopeScaling};
use serde::Serialize;

/// Tell what a model is, how it is stored, and what it needs to run.
///
/// Reads a checkpoint and runs nothing; works without a tokenizer and without an adapter.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A folder, a .gguf file, a name of the hub or a short one, tiny, or synthetic:NAME[:FORMAT] [default: as for generate]
    #[arg(value_name = "M")]
    models: Vec<String>,

    /// The longest contexts on cards of so much memory instead, whatever adapter is here: with weights as they are stored and,
    /// where those are floats, as q8 and q4, by type of keys and values; or for what --quantize and --kv-type say. 80GB is 80 × 10^9 bytes, 80GiB is what a card of "80 GB" has
    #[arg(long, value_name = "SIZE,…", value_delimiter = ',', num_args = 0..=1, require_equals = true, default_missing_value = "8GiB,16GiB,24GiB,48GiB,80GiB")]
    memory: Vec<Card>,

    /// The same as JSON: an object, or an array of them where there are several models
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    path: String,
    family: &'static str,
    num_hidden_layers: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    sliding_window: Option<usize>,
    rope_theta: f64,
    rope_scaling: &'static str,
    tied_embeddings: bool,
    parameters: u64,
    weight_bytes: u64,
    formats: Vec<FormatReport>,
    /// As they lie on an adapter with these options: quantised where `--quantize` says so, with padding, vectors in f32.
    gpu_weight_bytes: u64,
    gpu_formats: Vec<FormatReport>,
    /// Tokens of the vocabulary; `None` without a tokenizer.
    tokenizer: Option<usize>,
    chat_template: bool,
    kv_type: String,
    kv_bytes_per_1k_tokens: u64,
    adapter: Option<AdapterReport>,
    /// Why there is no adapter to speak of.
    no_adapter: Option<String>,
    /// What is done otherwise than the checkpoint asks for.
    notes: Vec<String>,
}

#[derive(Serialize)]
struct FormatReport {
    format: &'static str,
    tensors: usize,
    parameters: u64,
    bytes: u64,
}

impl From<&FormatUse> for FormatReport {
    fn from(used: &FormatUse) -> FormatReport {
        FormatReport {
            format: used.format.name(),
            tensors: used.tensors,
            parameters: used.parameters,
            bytes: used.bytes,
        }
    }
}

/// What an adapter makes of it.
#[derive(Serialize)]
struct AdapterReport {
    name: String,
    max_binding_bytes: u64,
    available_bytes: Option<u64>,
    weights_fit: bool,
    /// Bindings that the largest tensor is split over.
    largest_tensor_bindings: u64,
    /// With these options, and what bounds it; what there is room for; what everything takes.
    #[serde(flatten)]
    memory: Memory,
}

pub(super) fn run(global: &Global, args: Args) -> Result {
    let names: Vec<Option<&str>> = match &args.models[..] {
        [] => vec![None],
        names => names.iter().map(|name| Some(name.as_str())).collect(),
    };
    if !args.memory.is_empty() {
        let checkpoints = names.into_iter().map(|name| checkpoint(name, args.json)).collect::<Result<Vec<_>>>()?;
        return memory::run(global, &checkpoints, &args.memory, args.json);
    }
    let mut reports = Vec::new();
    for name in names {
        let model = Model::open(name, args.json)?;
        let report = Report::new(&model, open_gpu(global), global)?;
        if args.json {
            reports.push(report);
        } else {
            report.print()?;
        }
    }
    match &reports[..] {
        [] => Ok(()),
        [report] => print_json(report),
        _ => print_json(&reports),
    }
}

impl Report {
    fn new(model: &Model, gpu: Result<Gpu>, global: &Global) -> Result<Report> {
        let checkpoint = &model.checkpoint;
        let options = global.engine_options(1);
        let spec = &options.spec(checkpoint);
        // What a token takes is the same on any adapter that computes so.
        let offer = gpu.as_ref().map_or_else(|_| Offer::of_card(0), |gpu| Offer::of(gpu, &options));
        let memory = Memory::of(&offer, checkpoint, &options)?;
        let kv_types = options.kv_types(&offer.limits, spec.layers.len())?;
        let (adapter, no_adapter) = match gpu {
            Ok(gpu) => (Some(AdapterReport::new(&gpu, model, &options, memory.clone())?), None),
            Err(error) => (None, Some(Failure(&error).to_string())),
        };
        Ok(Report {
            path: checkpoint.path().display().to_string(),
            family: spec.family,
            num_hidden_layers: spec.layers.len(),
            hidden_size: spec.hidden_size,
            intermediate_size: spec.intermediate_size,
            num_attention_heads: spec.num_attention_heads,
            num_key_value_heads: spec.num_key_value_heads,
            head_dim: spec.head_dim,
            vocab_size: spec.vocab_size,
            max_position_embeddings: spec.max_position_embeddings,
            sliding_window: spec.layers.iter().filter_map(|layer| layer.sliding_window).max(),
            rope_theta: spec.rope.theta,
            rope_scaling: scaling_name(spec),
            tied_embeddings: !spec.has.lm_head,
            parameters: checkpoint.parameters(),
            weight_bytes: checkpoint.weight_bytes(),
            formats: checkpoint.formats().iter().map(FormatReport::from).collect(),
            gpu_weight_bytes: memory.weight_bytes,
            gpu_formats: memory.weight_formats.iter().map(FormatReport::from).collect(),
            tokenizer: model.tokenizer.as_ref().map(|tokenizer| tokenizer.vocab_size()),
            chat_template: model.template()?.is_some(),
            kv_type: kv_types.to_string(),
            kv_bytes_per_1k_tokens: 1024 * memory.slot_bytes,
            adapter,
            no_adapter,
            notes: checkpoint.notes().to_vec(),
        })
    }

    fn print(&self) -> Result {
        let line = |label: &str, text: String| print_line(format_args!("{label:<12} {text}"));
        print_line(&self.path)?;
        line("family", format!("{}, {} parameters", self.family, number(self.parameters)))?;
        line(
            "shape",
            format!(
                "{} layers, hidden {}, intermediate {}, {} heads of {} over {} key and value heads",
                self.num_hidden_layers,
                number(self.hidden_size),
                number(self.intermediate_size),
                self.num_attention_heads,
                self.head_dim,
                self.num_key_value_heads
            ),
        )?;
        let tied = if self.tied_embeddings { ", embedding used again for the logits" } else { "" };
        line("vocabulary", format!("{}{tied}", number(self.vocab_size)))?;
        let window = self.sliding_window.map(|window| format!(", sliding window {}", number(window)));
        line(
            "positions",
            format!(
                "{}, RoPE base {} ({}){}",
                number(self.max_position_embeddings),
                self.rope_theta,
                self.rope_scaling,
                window.unwrap_or_default()
            ),
        )?;
        let text = match (self.tokenizer, self.chat_template) {
            (None, _) => "no tokenizer: runs on token ids".to_owned(),
            (Some(tokens), true) => format!("tokenizer of {} tokens, with a chat template", number(tokens)),
            (Some(tokens), false) => format!("tokenizer of {} tokens, no chat template", number(tokens)),
        };
        line("text", text)?;
        line(
            "weights",
            format!("{} in the file, {} on an adapter", bytes(self.weight_bytes), bytes(self.gpu_weight_bytes)),
        )?;
        for (place, formats) in [("file", &self.formats), ("adapter", &self.gpu_formats)] {
            for used in formats {
                line("", format!("{place:<8} {:<9} {} in {} tensors", used.format, bytes(used.bytes), used.tensors))?;
            }
        }
        for note in &self.notes {
            line("note", note.clone())?;
        }
        line("KV cache", format!("{} per 1K tokens in {}", bytes(self.kv_bytes_per_1k_tokens), self.kv_type))?;
        match &self.adapter {
            Some(adapter) => adapter.print(),
            None => line("adapter", format!("none: {}", self.no_adapter.as_deref().unwrap_or_default())),
        }
    }
}

impl AdapterReport {
    fn new(gpu: &Gpu, model: &Model, options: &EngineOptions, memory: Memory) -> Result<AdapterReport> {
        let checkpoint = &model.checkpoint;
        let mut largest = 0;
        for role in options.spec(checkpoint).roles() {
            largest = largest.max(checkpoint.tensor(role)?.map_or(0, |tensor| tensor.stored_bytes()));
        }
        let binding = gpu.limits().max_binding_bytes;
        let available_bytes = memory.budget_bytes;
        Ok(AdapterReport {
            name: gpu.summary().to_string(),
            max_binding_bytes: binding,
            available_bytes,
            weights_fit: available_bytes.is_none_or(|bytes| memory.weight_bytes <= bytes),
            largest_tensor_bindings: largest.div_ceil(binding),
            memory,
        })
    }

    fn print(&self) -> Result {
        let line = |label: &str, text: String| print_line(format_args!("{label:<12} {text}"));
        line("adapter", self.name.clone())?;
        if !self.weights_fit {
            line("", "has too little memory for the weights".to_owned())?;
        }
        let pieces = self.largest_tensor_bindings;
        if pieces > 1 {
            let binding = bytes(self.max_binding_bytes);
            line("", format!("splits the largest tensor over {pieces} bindings of {binding}"))?;
        }
        let memory = &self.memory;
        let of = self.available_bytes.map_or("memory it does not tell".to_owned(), |all| bytes(all).to_string());
        line(
            "memory",
            format!(
                "of {of}: weights {}, cache {}, all else {}, kept free {}",
                bytes(memory.weight_bytes),
                bytes(memory.kv_bytes),
                bytes(memory.other_bytes()),
                bytes(memory.free_bytes)
            ),
        )?;
        line("context", longest(memory))
    }
}

fn scaling_name(spec: &ModelSpec) -> &'static str {
    match spec.rope.scaling {
        RopeScaling::Default => "not scaled",
        RopeScaling::Linear { .. } => "linear scaling",
        RopeScaling::Dynamic { .. } => "dynamic scaling",
        RopeScaling::Llama3 { .. } => "llama3 scaling",
        RopeScaling::Yarn { .. } => "yarn scaling",
        RopeScaling::Factors(_) => "scaled by factors in the file",
    }
}
