//! Options that every verb takes.

use super::size;
use clap::ValueEnum;
use raglan::EngineOptions;
use raglan::gpu::GpuOptions;
use raglan::kv_cache::KvTypes;
use raglan::models::hub::Cache;
use raglan::models::{QuantizeTo, RopeOverride};
use raglan::schedules::Mode;
use raglan::tune::Inputs;

const HEADING: &str = "Options of every command";

/// Adapter, memory, logging.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = HEADING)]
pub(super) struct Global {
    /// The adapter: an index or part of a name as `raglan devices` lists them [default: the best]
    #[arg(long, global = true, value_name = "NAME", help_heading = HEADING)]
    adapter: Option<String>,

    /// What activations and the KV cache are kept in; auto is f16 where the adapter computes with it
    #[arg(long, global = true, value_enum, default_value_t = Dtype::Auto, help_heading = HEADING)]
    pub(super) dtype: Dtype,

    /// Quantise weights as they are loaded: q8, q4, int8-g128, int4-g32-sym …; embedding and lm_head stay as they are
    #[arg(long, global = true, value_name = "TO", help_heading = HEADING)]
    pub(super) quantize: Option<QuantizeTo>,

    /// Tokens that the KV cache holds [default: what the model was trained for, or what fits]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(2..), help_heading = HEADING)]
    pub(super) max_context: Option<u32>,

    /// How RoPE is stretched, in place of the checkpoint's own way: yarn=F, dynamic=F, linear=F with F times the positions of the
    /// training, or none
    #[arg(long, global = true, value_name = "SPEC", help_heading = HEADING)]
    rope_scaling: Option<RopeOverride>,

    /// Memory for keys and values, as 512MiB or 8G; with --max-context, whichever is less [default: by --max-context]
    #[arg(long, global = true, value_name = "BYTES", value_parser = size::bytes, help_heading = HEADING)]
    kv_memory: Option<u64>,

    /// What keys and values are kept in: f32, f16, int8, k8v4 or int4, and layers that have another type, as int4,0-1=f16
    /// [default: as --dtype]
    #[arg(long, global = true, value_name = "TYPE", help_heading = HEADING)]
    pub(super) kv_type: Option<KvTypes>,

    /// Requests that run at once at most, as those of `generate --prompts`; more wait
    #[arg(long, global = true, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=8192), help_heading = HEADING)]
    max_sequences: u32,

    /// Tokens of a step at most: a longer prompt is read in several
    #[arg(long, global = true, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=8192), help_heading = HEADING)]
    max_batch_tokens: u32,

    /// Steps in flight; 2 prepares one while the adapter runs the other, and answers are the same
    #[arg(long, global = true, value_name = "1|2", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2), hide_possible_values = true, help_heading = HEADING)]
    pipeline: u8,

    /// Bit-equal logits whatever runs beside it; slower
    #[arg(long, global = true, help_heading = HEADING)]
    deterministic: bool,

    /// Round activations to 8 bits where a few rows meet weights of a block format: less exact, faster on some adapters
    #[arg(long, global = true, conflicts_with = "deterministic", help_heading = HEADING)]
    int8_activations: bool,

    /// How kernels' schedules are chosen: by rules, the best of all measured shapes, by predicted time, or measured at every start
    #[arg(long, global = true, value_enum, default_value_t = Tuner::Predict, value_name = "MODE", help_heading = HEADING)]
    tuner: Tuner,

    /// Time the three best schedules by prediction for the model's products at every start
    #[arg(long, global = true, help_heading = HEADING)]
    calibrate: bool,

    /// Predicted time of one submit to the adapter at most; longer steps are cut
    #[arg(long, global = true, value_name = "MS", value_parser = milliseconds, help_heading = HEADING)]
    max_step_ms: Option<f64>,

    /// How much a prompt that is being read may delay a running answer's next token, by step
    #[arg(long, global = true, value_name = "MS", value_parser = milliseconds, help_heading = HEADING)]
    max_delay_ms: Option<f64>,

    /// Read every prompt whole, even where an earlier one began as it does
    #[arg(long, global = true, help_heading = HEADING)]
    no_prefix_cache: bool,

    /// Host memory for the keys and values of requests that gave way to others; 0 computes them again
    #[arg(long, global = true, value_name = "BYTES", value_parser = size::bytes, default_value = "2GiB", help_heading = HEADING)]
    swap_memory: u64,

    /// Ask the driver to leave out its checks of buffer accesses (Vulkan): faster or not by adapter; `bench` tells
    #[arg(long, global = true, help_heading = HEADING)]
    no_robust_access: bool,

    /// Log more to standard error; -vv and -vvv still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = HEADING)]
    verbose: u8,
}

/// How schedules are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Tuner {
    Off,
    Default,
    Predict,
    Exhaustive,
}

impl From<Tuner> for Mode {
    fn from(tuner: Tuner) -> Self {
        match tuner {
            Tuner::Off => Mode::Off,
            Tuner::Default => Mode::Default,
            Tuner::Predict => Mode::Predict,
            Tuner::Exhaustive => Mode::Exhaustive,
        }
    }
}

/// The type of activations, keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Dtype {
    Auto,
    F16,
    F32,
}

impl From<Dtype> for raglan::Dtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Auto | Dtype::F16 => raglan::Dtype::F16,
            Dtype::F32 => raglan::Dtype::F32,
        }
    }
}

impl Global {
    /// Sends log lines to standard error: warnings, more with `-v`, and what `RUST_LOG` says above all.
    pub(super) fn start_logging(&self) {
        let filter = match self.verbose {
            // Drivers' layers warn of what is no concern of a user.
            0 => "error,raglan=warn,raglan_models=warn",
            1 => "error,raglan=info,raglan_models=info",
            2 => "warn,raglan=debug,raglan_models=debug",
            _ => "debug,raglan=trace,raglan_models=trace",
        };
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(filter)).init();
    }

    /// How the adapter is opened.
    pub(super) fn gpu_options(&self) -> GpuOptions {
        GpuOptions {
            adapter: self.adapter.clone(),
            allow_f16: self.dtype != Dtype::F32,
            robust_access: !self.no_robust_access,
            cache_dir: Some(Cache::from_env().root().join("pipelines")),
            ..GpuOptions::default()
        }
    }

    /// How an engine is started that runs up to `max_sequences` at once.
    pub(super) fn engine_options(&self, max_sequences: usize) -> EngineOptions {
        EngineOptions {
            max_context: self.max_context.map(|tokens| tokens as usize),
            rope_scaling: self.rope_scaling,
            kv_memory: self.kv_memory,
            max_batch_tokens: self.max_batch_tokens as usize,
            max_sequences,
            dtype: self.dtype.into(),
            kv_types: self.kv_type.clone(),
            quantize: self.quantize,
            pipeline: self.pipeline.into(),
            deterministic: self.deterministic,
            max_step_ms: self.max_step_ms,
            max_delay_ms: self.max_delay_ms,
            prefix_cache: !self.no_prefix_cache,
            swap_memory: self.swap_memory,
            int8_activations: self.int8_activations,
            tuner: self.tuner.into(),
            calibrate: self.calibrate,
            tuner_dir: Some(Cache::from_env().root().join("tuner")),
            ..EngineOptions::default()
        }
    }

    /// Which types of numbers kernels are measured with.
    pub(super) fn inputs(&self) -> Inputs {
        Inputs { dtype: self.dtype.into(), int8_activations: self.int8_activations }
    }

    /// How many requests run at once, where there are many.
    pub(super) fn max_sequences(&self) -> usize {
        self.max_sequences as usize
    }
}

/// A time that is over zero.
fn milliseconds(text: &str) -> Result<f64, String> {
    let ms = text.parse().ok().filter(|ms: &f64| ms.is_finite() && *ms > 0.0);
    ms.ok_or_else(|| format!("{text:?} is no time over 0"))
}
