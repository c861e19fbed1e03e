//! From what the user typed to a model that is ready to answer.

use super::global::{Dtype, Global};
use super::output::{note, number};
use super::progress::{Bar, LoadingBar};
use super::{Result, refused};
use raglan::engine::{Bound, Memory};
use raglan::gpu::Gpu;
use raglan::models::hub::{self, Cache, Hub};
use raglan::models::{ChatTemplate, Checkpoint, GenerationConfig, Tokenizer};
use raglan::{Engine, EngineOptions, Loading, Stepper};
use std::sync::Arc;
use std::time::Instant;

/// What a model reads before it keeps quantised keys: plain prose, some talk, numbers and code, of more tokens than are read.
const CALIBRATION_TEXT: &str = include_str!("calibration.txt");

/// Which model.
#[derive(Debug, clap::Args)]
pub(super) struct ModelArgs {
    /// A folder, a .gguf file, org/name[:file.gguf] of the Hugging Face hub (fetched once), a short name as smollm2-135m, tiny,
    /// the model inside the program, or synthetic:NAME[:FORMAT] [default: SmolLM2-135M-Instruct if it was fetched, else tiny]
    #[arg(short, long, value_name = "M")]
    pub(super) model: Option<String>,
}

/// A checkpoint and what goes with it.
pub(super) struct Model {
    /// Weights and shapes.
    pub(super) checkpoint: Arc<Checkpoint>,
    /// Text ↔ ids; `None` where the checkpoint has none.
    pub(super) tokenizer: Option<Tokenizer>,
    /// Tokens that end an answer.
    pub(super) eos_token_ids: Vec<u32>,
}

/// A model on an adapter.
pub(super) struct Loaded {
    /// The model.
    pub(super) model: Model,
    /// What runs it.
    pub(super) engine: Engine,
    /// From the first look at its files to the last kernel compiled.
    pub(super) load_ms: f64,
}

impl Model {
    /// Opens what the user named, or the default model, or the one inside the program.
    ///
    /// # Errors
    /// If there is no such model, it cannot be fetched, or its files are not sound.
    pub(super) fn open(wanted: Option<&str>, quiet: bool) -> Result<Model> {
        let checkpoint = Arc::new(checkpoint(wanted, quiet)?);
        let tokenizer = Tokenizer::open(&checkpoint)?;
        let eos_token_ids = match &tokenizer {
            Some(tokenizer) => tokenizer.eos_token_ids().to_vec(),
            None => GenerationConfig::open(&checkpoint)?.map(|config| config.eos_token_ids).unwrap_or_default(),
        };
        Ok(Model { checkpoint, tokenizer, eos_token_ids })
    }

    /// Its template, which only instruct models have.
    ///
    /// # Errors
    /// If it does not parse.
    pub(super) fn template(&self) -> Result<Option<ChatTemplate>> {
        Ok(ChatTemplate::open(&self.checkpoint)?)
    }

    /// Its tokenizer.
    ///
    /// # Errors
    /// If it has none, with what to do then.
    pub(super) fn text(&self, instead: &str) -> Result<&Tokenizer> {
        match &self.tokenizer {
            Some(tokenizer) => Ok(tokenizer),
            None => refused(format!("{} has no tokenizer{instead}", self.checkpoint.path().display())),
        }
    }

    /// Puts it on an adapter, with a thread that answers.
    ///
    /// # Errors
    /// If there is no adapter, it has no room, or refuses a kernel.
    pub(super) fn load(self, global: &Global, options: &EngineOptions, start: Instant, quiet: bool) -> Result<Loaded> {
        self.tell_notes();
        let gpu = open_gpu(global)?;
        let options = &self.calibrated(options)?;
        let bar = LoadingBar::new(quiet);
        let engine = Engine::new(&gpu, self.checkpoint.clone(), options, |loading| bar.set(loading))?;
        self.tell_context(&engine.memory(), options);
        let load_ms = self.loaded(start);
        Ok(Loaded { model: self, engine, load_ms })
    }

    /// Puts it on an adapter, to be stepped by the caller.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub(super) fn load_stepper(
        &self,
        global: &Global,
        options: &EngineOptions,
        start: Instant,
        quiet: bool,
    ) -> Result<Stepper> {
        self.tell_notes();
        let gpu = open_gpu(global)?;
        let options = &self.calibrated(options)?;
        let bar = LoadingBar::new(quiet);
        let mut uploaded = |done, total| bar.set(Loading::Weights { done, total });
        let stepper = Stepper::new(&gpu, &self.checkpoint, options, &mut uploaded)?;
        stepper.compile(|done, total| bar.set(Loading::Kernels { done, total }))?;
        self.tell_context(stepper.memory(), options);
        self.loaded(start);
        Ok(stepper)
    }

    /// Says how long contexts may be, and where one request may have more than the model reaches.
    fn tell_context(&self, memory: &Memory, options: &EngineOptions) {
        log::info!("{}", longest(memory));
        let reached = options.spec(&self.checkpoint).max_position_embeddings;
        if memory.longest_context > reached && options.max_sequences == 1 {
            log::warn!(
                "contexts of up to {} tokens pass the {} that the model reaches; --rope-scaling yarn=F stretches that",
                number(memory.longest_context),
                number(reached)
            );
        }
    }

    /// The options, with a text by which what is quantised may be calibrated.
    ///
    /// # Errors
    /// If the tokenizer cannot read it.
    pub(super) fn calibrated(&self, options: &EngineOptions) -> Result<EngineOptions> {
        let mut options = options.clone();
        if options.kv_types.is_some() && options.kv_calibration.is_none() {
            options.kv_calibration = match &self.tokenizer {
                Some(tokenizer) => Some(tokenizer.encode(CALIBRATION_TEXT, true)?),
                None => None,
            };
        }
        Ok(options)
    }

    /// What its files ask for and do not get, and what that costs.
    pub(super) fn tell_notes(&self) {
        for text in self.checkpoint.notes() {
            log::warn!("{}: {text}", self.checkpoint.path().display());
        }
    }

    /// The time since `start`, told.
    fn loaded(&self, start: Instant) -> f64 {
        let load_ms = 1e3 * start.elapsed().as_secs_f64();
        log::info!("{}: ready after {load_ms:.0} ms", self.checkpoint.path().display());
        load_ms
    }
}

/// `longest context with these settings: 281,344 tokens (by memory)`, and for how many there would be room.
pub(super) fn longest(memory: &Memory) -> String {
    let bound = match memory.bound_by {
        Bound::Memory => "by memory",
        Bound::Binding => "a layer's keys fill a binding",
        Bound::KvMemory => "by --kv-memory",
        Bound::MaxContext => "by --max-context",
        Bound::Positions => "all that the model reaches",
        Bound::MemoryUnknown => "the adapter does not tell its memory: --max-context",
    };
    let more = match memory.fits {
        fits if memory.budget_bytes.is_some() && fits > memory.longest_context => {
            format!("; there is room for {}", number(fits))
        }
        _ => String::new(),
    };
    format!("longest context with these settings: {} tokens ({bound}{more})", number(memory.longest_context))
}

/// Opens the adapter that the user wants.
///
/// # Errors
/// If there is none, or it cannot do what `--dtype` asks for.
pub(super) fn open_gpu(global: &Global) -> Result<Gpu> {
    let gpu = Gpu::open(&global.gpu_options())?;
    if global.dtype == Dtype::F16 && !gpu.limits().shader_f16 {
        return refused(format!("--dtype f16: {} does not compute in f16; auto takes f32 here", gpu.summary()));
    }
    Ok(gpu)
}

/// Finds the model that a name means, fetching it where it is on the hub and not here yet.
///
/// # Errors
/// As [`Model::open`].
pub(super) fn checkpoint(wanted: Option<&str>, quiet: bool) -> Result<Checkpoint> {
    let cache = Cache::from_env();
    let resolved = hub::resolve(wanted, &cache)?;
    if let Some(notice) = &resolved.notice {
        note(notice);
    }
    let bar = Bar::bytes("", quiet);
    let mut file = String::new();
    let checkpoint = resolved.source.open(&Hub::from_env(cache), &mut |progress| {
        if file != progress.file {
            file = progress.file.to_owned();
            bar.say(format!("fetching {file}"));
        }
        bar.set(progress.done, progress.total.unwrap_or(0));
    })?;
    Ok(checkpoint)
}
