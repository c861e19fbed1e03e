//! `raglan inspect`: what a checkpoint is, and what running it takes.

use super::Result;
use super::global::{Dtype, Global};
use super::load::{Model, open_gpu};
use super::output::{Failure, bytes, number, print_json, print_line};
use raglan::decoder::{attention_shape, kv_shape};
use raglan::engine::longest_context;
use raglan::gpu::Gpu;
use raglan::kv_cache::{KvShape, KvTypes};
use raglan::models::{ModelSpec, RopeScaling};
use raglan::ops::Types;
use raglan::shaders::KvType;
use serde::Serialize;

/// Tell what a model is, how it is stored, and what it needs to run.
///
/// Reads a checkpoint and runs nothing; works without a tokenizer and without an adapter.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A folder, a .gguf file, a name of the hub or a short one, or tiny [default: as for generate]
    #[arg(value_name = "M")]
    model: Option<String>,

    /// The same as one JSON object
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

/// What an adapter makes of it.
#[derive(Serialize)]
struct AdapterReport {
    name: String,
    max_binding_bytes: u64,
    available_bytes: Option<u64>,
    weights_fit: bool,
    /// Bindings that the largest tensor is split over.
    largest_tensor_bindings: u64,
    longest_context: usize,
    longest_context_bound_by: &'static str,
}

pub(super) fn run(global: &Global, args: Args) -> Result {
    let model = Model::open(args.model.as_deref(), args.json)?;
    let gpu = open_gpu(global);
    let report = Report::new(&model, gpu, global)?;
    if args.json { print_json(&report) } else { report.print() }
}

impl Report {
    fn new(model: &Model, gpu: Result<Gpu>, global: &Global) -> Result<Report> {
        let (checkpoint, spec) = (&model.checkpoint, model.checkpoint.spec());
        let kv_types = global.kv_type.clone().unwrap_or_else(|| {
            KvTypes::from(match &gpu {
                Ok(gpu) => Types::of(gpu, global.dtype.into()).kv,
                Err(_) if global.dtype == Dtype::F32 => KvType::F32,
                Err(_) => KvType::F16,
            })
        });
        let kv = kv_shape(spec, &attention_shape(spec, &kv_types)?, &kv_types);
        let formats = checkpoint.formats().into_iter().map(|used| FormatReport {
            format: used.format.name(),
            tensors: used.tensors,
            parameters: used.parameters,
            bytes: used.bytes,
        });
        let (adapter, no_adapter) = match gpu {
            Ok(gpu) => (Some(AdapterReport::new(&gpu, model, &kv)?), None),
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
            formats: formats.collect(),
            tokenizer: model.tokenizer.as_ref().map(|tokenizer| tokenizer.vocab_size()),
            chat_template: model.template()?.is_some(),
            kv_type: kv_types.to_string(),
            kv_bytes_per_1k_tokens: 1024 * kv.slot_bytes(),
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
        line("weights", bytes(self.weight_bytes).to_string())?;
        for used in &self.formats {
            let size = bytes(used.bytes);
            line("", format!("{:<9} {size} in {} tensors", used.format, used.tensors))?;
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
    fn new(gpu: &Gpu, model: &Model, kv: &KvShape) -> Result<AdapterReport> {
        let checkpoint = &model.checkpoint;
        let mut largest = 0;
        for role in checkpoint.spec().roles() {
            largest = largest.max(checkpoint.tensor(role)?.map_or(0, |tensor| tensor.stored_bytes()));
        }
        let binding = gpu.limits().max_binding_bytes;
        let available_bytes = gpu.summary().memory.as_ref().map(|memory| memory.available_bytes());
        let weight_bytes = checkpoint.weight_bytes();
        let longest = longest_context(gpu, kv, weight_bytes);
        let by_binding = longest as u64 >= binding / kv.arena_slot_bytes() / 16 * 16;
        Ok(AdapterReport {
            name: gpu.summary().to_string(),
            max_binding_bytes: binding,
            available_bytes,
            weights_fit: available_bytes.is_none_or(|bytes| weight_bytes <= bytes),
            largest_tensor_bindings: largest.div_ceil(binding),
            longest_context: longest,
            longest_context_bound_by: match (by_binding, available_bytes) {
                (_, None) => "binding, memory unknown",
                (true, _) => "binding",
                (false, _) => "memory",
            },
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
        let bound = match self.longest_context_bound_by {
            "binding, memory unknown" => {
                let binding = bytes(self.max_binding_bytes);
                format!("by a binding of {binding} for a layer's keys; the adapter does not tell its memory")
            }
            "binding" => format!("by a binding of {} for a layer's keys", bytes(self.max_binding_bytes)),
            _ => format!("by {} of memory", self.available_bytes.map_or(String::new(), |n| bytes(n).to_string())),
        };
        line("context", format!("{} tokens fit, bound {bound}", number(self.longest_context)))
    }
}

fn scaling_name(spec: &ModelSpec) -> &'static str {
    match spec.rope.scaling {
        RopeScaling::Default => "not scaled",
        RopeScaling::Linear { .. } => "linear scaling",
        RopeScaling::Llama3 { .. } => "llama3 scaling",
        RopeScaling::Yarn { .. } => "yarn scaling",
        RopeScaling::Factors(_) => "scaled by factors in the file",
    }
}
