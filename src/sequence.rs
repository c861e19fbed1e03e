//! The tokens of one request, and how many of them have keys and values.

use crate::request::{RequestId, SamplingParams};
use crate::segments::Segment;

/// One request on its way. There is no prefill and no decode: a step closes some of the gap from `computed` to the tokens.
#[derive(Debug)]
pub struct Sequence {
    /// Whose.
    pub request: RequestId,
    /// The prompt, then what was generated and is known to the host.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt_len: usize,
    /// Tokens that have keys and values, or will have them when the submitted steps end.
    pub computed: usize,
    /// Its next token, where that was sampled by a step that is not yet collected.
    pub in_flight: Option<InFlightToken>,
    /// Where its keys and values lie, by position.
    pub segments: Vec<Segment>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
}

/// A token that the GPU has, or will have, and the host does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlightToken {
    /// The step that samples it.
    pub step: u64,
    /// Its row of that step's samples.
    pub row: u32,
}

impl Sequence {
    /// A sequence with nothing computed.
    pub fn new(request: RequestId, prompt: Vec<u32>, sampling: SamplingParams) -> Self {
        let prompt_len = prompt.len();
        Sequence { request, tokens: prompt, prompt_len, computed: 0, in_flight: None, segments: Vec::new(), sampling }
    }

    /// Tokens generated and known.
    pub fn generated(&self) -> usize {
        self.tokens.len() - self.prompt_len
    }

    /// Tokens that can be computed now: known ones, and the one in flight where the GPU alone chooses it and one more
    /// may be generated after it.
    pub fn ready(&self) -> usize {
        let feed =
            self.in_flight.is_some() && self.sampling.is_greedy() && self.generated() + 1 < self.sampling.max_tokens;
        self.tokens.len() + usize::from(feed) - self.computed
    }
}
