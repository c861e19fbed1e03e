//! What a client asks for and what it hears back: plain data.

/// Names a request for as long as an engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// A prompt and how to go on from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The prompt; not empty.
    pub prompt: Vec<u32>,
    /// How tokens are chosen and when to stop.
    pub sampling: SamplingParams,
    /// Requests of higher priority go first; one level outweighs some time of waiting. 0 for most.
    pub priority: i32,
}

impl Request {
    /// A request of priority 0.
    pub fn new(prompt: Vec<u32>, sampling: SamplingParams) -> Self {
        Request { prompt, sampling, priority: 0 }
    }

    /// Says why an engine with `vocab_size` rows of embedding, and room for `longest` tokens of a sequence, could never answer it.
    ///
    /// # Errors
    /// What is wrong with the prompt or with a sampling field, what was met and what was wanted.
    pub fn validate(&self, vocab_size: usize, longest: usize) -> Result<(), String> {
        self.sampling.validate()?;
        if self.prompt.is_empty() {
            return Err("the prompt has no tokens, wanted at least one".into());
        }
        if let Some(token) = self.prompt.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(format!("token id {token} is not below the vocabulary's size, {vocab_size}"));
        }
        if self.prompt.len() > longest {
            let met = self.prompt.len();
            return Err(format!(
                "the prompt has {met} tokens, the KV cache has room for {longest}: raise --max-context or --kv-memory"
            ));
        }
        Ok(())
    }
}

/// How tokens are chosen and when to stop. The order is Hugging Face's: penalties, temperature, top-k, top-p, min-p.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// New tokens at most.
    pub max_tokens: usize,
    /// 0 takes the largest logit.
    pub temperature: f32,
    /// Keep this many of the likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the likeliest tokens until their probabilities reach this; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this likely against the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides positive logits of tokens that occurred, multiplies negative ones; 1 is none.
    pub repetition_penalty: f32,
    /// Subtracted from logits of tokens that were generated.
    pub presence_penalty: f32,
    /// Subtracted from logits of generated tokens, as often as they were.
    pub frequency_penalty: f32,
    /// Same seed, same tokens.
    pub seed: u64,
    /// Tokens that end the answer; empty to ignore them.
    pub eos_token_ids: Vec<u32>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        SamplingParams {
            max_tokens: 128,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
            eos_token_ids: Vec::new(),
        }
    }
}

impl SamplingParams {
    /// Whether the next token is the largest logit as the model gives it, so that the GPU alone can choose it.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 && !self.has_penalties()
    }

    /// Whether logits change with what was generated.
    pub fn has_penalties(&self) -> bool {
        self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }

    /// Says which field is out of range.
    ///
    /// # Errors
    /// The field's name, what was met and what was wanted.
    pub fn validate(&self) -> Result<(), String> {
        let field = |name: &str, met: f32, good: bool, wanted: &str| {
            if good { Ok(()) } else { Err(format!("{name} is {met}, wanted {wanted}")) }
        };
        if self.max_tokens == 0 {
            return Err("max_tokens is 0, wanted 1 or more".into());
        }
        field("temperature", self.temperature, self.temperature.is_finite() && self.temperature >= 0.0, "0 or more")?;
        field("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "over 0, at most 1")?;
        field("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "0 to 1")?;
        let repetition = self.repetition_penalty;
        field("repetition_penalty", repetition, repetition.is_finite() && repetition > 0.0, "over 0")?;
        field("presence_penalty", self.presence_penalty, self.presence_penalty.abs() <= 1e4, "a number within ±10000")?;
        field(
            "frequency_penalty",
            self.frequency_penalty,
            self.frequency_penalty.abs() <= 1e4,
            "a number within ±10000",
        )
    }
}

/// What a client hears of its request: at most one `Started`, tokens, and one `Finished` or `Failed`.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Its slots are there and its prompt is being computed. Comes once, before its first token.
    Started {
        /// Whose.
        request: RequestId,
        /// Tokens of the prompt whose keys and values were there already.
        cached_tokens: usize,
    },
    /// One more token.
    Token {
        /// Whose.
        request: RequestId,
        /// Its id.
        token: u32,
    },
    /// No more tokens come.
    Finished {
        /// Whose.
        request: RequestId,
        /// Why.
        reason: FinishReason,
    },
    /// No more tokens come, since the engine cannot go on with it. A later request may succeed.
    Failed {
        /// Whose.
        request: RequestId,
        /// What happened.
        message: String,
    },
}

impl Event {
    /// Whose it is.
    pub fn request(&self) -> RequestId {
        match *self {
            Event::Started { request, .. }
            | Event::Token { request, .. }
            | Event::Finished { request, .. }
            | Event::Failed { request, .. } => request,
        }
    }

    /// Whether none follows it.
    pub fn is_last(&self) -> bool {
        matches!(self, Event::Finished { .. } | Event::Failed { .. })
    }
}

/// Why a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended its answer, or a stop string was met.
    Stop,
    /// `max_tokens` were written, or the context is full.
    Length,
    /// The client asked.
    Cancelled,
}
