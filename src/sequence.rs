//! The tokens of one request, and how many of them have keys and values.

use crate::request::{Request, RequestId, SamplingParams};
use crate::segments::Tables;
use rustc_hash::FxHashMap;
use std::sync::{Arc, OnceLock};

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
    /// Tokens whose keys and values count as there when it is admitted, whatever lies in its slots: for benches.
    pub assumed: usize,
    /// Its next token, where that was sampled by a step that is not yet collected.
    pub in_flight: Option<InFlightToken>,
    /// Where its keys and values lie; `None` while it waits.
    pub tables: Option<Tables>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Larger goes first.
    pub priority: i32,
    /// Its place among the others, which the scheduler gives it: smaller goes first.
    pub rank: i64,
    /// Its keys and values on the host, while it waits after a preemption.
    pub saved: Option<Saved>,
    /// Tokens that its first admission found computed; `None` before.
    pub cached_tokens: Option<usize>,
    /// The last step that had some of its tokens.
    pub last_step: u64,
    /// The hash of each whole block of its prompt with all before it, where prefixes are shared.
    pub blocks: Vec<u64>,
    /// The positions that it could not reach alone, though there were slots: it gave way to be placed anew.
    pub gave_way_for: usize,
    /// Sequences that came later and were admitted earlier.
    pub overtaken: usize,
    /// How often each of its tokens was generated, those of the prompt at 0; empty without penalties.
    occurrences: FxHashMap<u32, u32>,
}

/// A token that the GPU has, or will have, and the host does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlightToken {
    /// The step that samples it.
    pub step: u64,
    /// Its row of that step's samples.
    pub row: u32,
}

/// Keys and values on the host.
#[derive(Debug, Default, Clone)]
pub struct Saved {
    /// One past the last position.
    pub end: usize,
    /// The first position of every KV group.
    pub first_positions: Vec<usize>,
    /// What the cache gave; empty until it was read.
    pub bytes: Arc<OnceLock<Vec<u8>>>,
    /// What it counts against the host's memory.
    pub host_bytes: u64,
}

impl Sequence {
    /// A sequence with nothing computed.
    pub fn new(id: RequestId, request: Request) -> Self {
        let Request { prompt, sampling, priority } = request;
        let counted = if sampling.has_penalties() { &prompt[..] } else { &[] };
        Sequence {
            request: id,
            prompt_len: prompt.len(),
            occurrences: counted.iter().map(|&token| (token, 0)).collect(),
            tokens: prompt,
            computed: 0,
            assumed: 0,
            in_flight: None,
            tables: None,
            sampling,
            priority,
            rank: 0,
            saved: None,
            cached_tokens: None,
            last_step: 0,
            blocks: Vec::new(),
            gave_way_for: 0,
            overtaken: 0,
        }
    }

    /// Appends a token that was generated.
    pub fn push(&mut self, token: u32) {
        self.tokens.push(token);
        if self.sampling.has_penalties() {
            *self.occurrences.entry(token).or_insert(0) += 1;
        }
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

    /// Tokens with keys and values that the host knows.
    pub fn known(&self) -> usize {
        self.computed.min(self.tokens.len())
    }

    /// Every token that it holds with how often that was generated, where there are penalties; in no order.
    pub fn occurrences(&self) -> &FxHashMap<u32, u32> {
        &self.occurrences
    }
}
