//! How an answer is chosen and where it ends, as `generate` and `chat` are told.

use super::Result;
use raglan::{Error, SamplingParams};

const HEADING: &str = "Sampling";

/// Sampling parameters. What is not given is the same for every model: a model's own wishes would make the same
/// command mean something else with each.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = HEADING)]
pub(super) struct SamplingArgs {
    /// New tokens at most; the context ends an answer too
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,

    /// Divides the logits; 0 always takes the likeliest token, whatever the checkpoint recommends
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f32,

    /// Sample among this many of the likeliest tokens; 0 is all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,

    /// Sample among the likeliest tokens that hold this share of the probability
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    top_p: f32,

    /// Sample among tokens at least this likely, measured against the likeliest
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_negative_numbers = true)]
    min_p: f32,

    /// Makes tokens that are there already less likely, those of the prompt too; 1 does nothing
    #[arg(long, value_name = "R", default_value_t = 1.0, allow_negative_numbers = true)]
    repetition_penalty: f32,

    /// Subtracted from the logits of tokens that were written
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f32,

    /// Subtracted from the logits of tokens that were written, as often as they were
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f32,

    /// Same seed, same answer
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// A text that ends the answer and is not shown; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(super) stop: Vec<String>,

    /// Go on after the token that ends an answer
    #[arg(long)]
    pub(super) ignore_eos: bool,
}

impl SamplingArgs {
    /// The parameters, still without the tokens that end an answer.
    ///
    /// # Errors
    /// A field that is out of range, before a model is loaded for nothing.
    pub(super) fn params(&self) -> Result<SamplingParams> {
        let params = SamplingParams {
            max_tokens: self.max_tokens as usize,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed,
            eos_token_ids: Vec::new(),
        };
        params.validate().map_err(|message| Error::Request { message })?;
        let narrowed = self.top_k != 0 || self.top_p != 1.0 || self.min_p != 0.0;
        if self.temperature == 0.0 && narrowed {
            super::output::note("--top-k, --top-p and --min-p do nothing at temperature 0: give --temperature too");
        }
        Ok(params)
    }

    /// The tokens that end an answer, of those that the model knows.
    pub(super) fn eos(&self, eos_token_ids: &[u32]) -> Vec<u32> {
        if self.ignore_eos { Vec::new() } else { eos_token_ids.to_vec() }
    }
}
