//! Text as its tokens come: whole characters only, and nothing that a later token could still change.

use crate::tokenizer::Tokenizer;
use crate::tokenizer::decoding::{Running, Stage};

/// Decodes one answer token by token, in time independent of what came before.
///
/// The pieces, joined, equal [`Tokenizer::decode`] of all ids. A piece is held back while a later token may belong to its last
/// character; with byte fallback, while the run of byte tokens goes on, since it is one bad byte that spoils a run.
#[derive(Debug, Clone)]
pub struct TextStream {
    tokenizer: Tokenizer,
    stages: Vec<Running>,
    skip_special: bool,
}

impl TextStream {
    pub(crate) fn new(tokenizer: Tokenizer, stages: &[Stage], skip_special: bool) -> TextStream {
        let stages = stages.iter().cloned().map(Running::new).collect();
        TextStream { tokenizer, stages, skip_special }
    }

    /// Takes the next id; returns the text that has become certain, if any.
    pub fn push(&mut self, id: u32) -> Option<String> {
        let token = self.tokenizer.token_of(id)?;
        if self.skip_special && self.tokenizer.is_special(id) {
            return None;
        }
        let mut text = String::new();
        run(&mut self.stages, Some(token), &mut text);
        (!text.is_empty()).then_some(text)
    }

    /// Ends the stream; returns the text that was held back, if any. A character without its end is a replacement character.
    pub fn finish(mut self) -> Option<String> {
        let mut text = String::new();
        for first in 0..self.stages.len() {
            run(&mut self.stages[first..], None, &mut text);
        }
        (!text.is_empty()).then_some(text)
    }
}

/// Sends a token through the stages; without one, the first stage is finished and what it held goes through the others.
fn run(stages: &mut [Running], token: Option<String>, text: &mut String) {
    let mut pieces = Vec::from_iter(token);
    for (index, stage) in stages.iter_mut().enumerate() {
        let mut next = Vec::new();
        if index == 0 && pieces.is_empty() {
            stage.finish(&mut |piece| next.push(piece));
        }
        for piece in pieces {
            stage.push(piece, &mut |piece| next.push(piece));
        }
        pieces = next;
    }
    text.extend(pieces);
}
