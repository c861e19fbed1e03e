//! Tokens → text, one token at a time: every decoder of the `tokenizers` crate that language models use, as a stage that holds back
//! only what a later token could still change.

use std::path::Path;
use std::sync::LazyLock;

use serde_json::Value;
use tokenizers::Decoder;
use tokenizers::normalizers::Replace;

use crate::error::Error;

/// The kinds of decoder that have a [`Stage`].
pub(super) const DECODERS: &[&str] =
    &["ByteLevel", "ByteFallback", "Fuse", "Strip", "Replace", "Metaspace", "Sequence"];

/// One decoder with what it remembers between tokens.
#[derive(Debug, Clone)]
pub(crate) enum Stage {
    /// No decoder: tokens with a space between.
    JoinSpaces,
    /// One token from here on, whatever comes: pieces of it need not be treated each for itself.
    Fuse,
    /// A pattern in each token.
    Replace(Replace),
    /// One character for another, in a token or in a piece of one.
    ReplaceChar(char, String),
    /// `<0x61>` → the byte; a run that is not UTF-8 becomes one replacement character a byte, so a run waits for its end.
    ByteFallback,
    /// Byte-level characters → bytes → text; waits for the end of a character.
    ByteLevel,
    /// Drops up to so many of a character at the start: of each token, or of the text.
    Strip {
        /// The character.
        content: char,
        /// How many.
        start: usize,
        /// Whether tokens have been fused before.
        fused: bool,
    },
    /// A mark → space; in the first token the mark is dropped when `drop_first`.
    Metaspace {
        /// The mark.
        mark: char,
        /// Whether encoding put a mark before the text.
        drop_first: bool,
        /// Whether tokens have been fused before, so that all is the first token.
        fused: bool,
    },
}

impl Stage {
    /// The stages of the decoder of the `tokenizer.json` at `path`.
    ///
    /// # Errors
    /// A decoder that is not in [`DECODERS`] or that could only work on a whole text; a field that is absent or of another type.
    pub(super) fn list(path: &Path, decoder: &Value) -> Result<Vec<Stage>, Error> {
        let mut stages = Vec::new();
        let mut fused = false;
        push_stages(path, decoder, &mut stages, &mut fused)?;
        Ok(stages)
    }
}

fn push_stages(path: &Path, decoder: &Value, stages: &mut Vec<Stage>, fused: &mut bool) -> Result<(), Error> {
    let kind = decoder.get("type").and_then(Value::as_str).unwrap_or("absent");
    let wrong = |field: &str, wanted: &str| {
        let met = decoder.get(field).unwrap_or(&Value::Null);
        Error::malformed(path, format!("decoder.{kind}.{field}"), met, wanted)
    };
    let character = |field: &str| {
        let mut chars = decoder.get(field).and_then(Value::as_str).unwrap_or("").chars();
        chars.next().filter(|_| chars.next().is_none()).ok_or_else(|| wrong(field, "one character"))
    };
    let late = || Error::unsupported(path, "decoder", format!("{kind} after Fuse or ByteLevel"), "it before them");
    match kind {
        "Sequence" => {
            let inner = decoder.get("decoders").and_then(Value::as_array);
            for decoder in inner.ok_or_else(|| wrong("decoders", "a list"))? {
                push_stages(path, decoder, stages, fused)?;
            }
        }
        "Fuse" => {
            stages.push(Stage::Fuse);
            *fused = true;
        }
        "ByteLevel" | "ByteFallback" if *fused => return Err(late()),
        "ByteLevel" => {
            stages.push(Stage::ByteLevel);
            *fused = true;
        }
        "ByteFallback" => stages.push(Stage::ByteFallback),
        "Replace" => {
            let content = decoder.get("content").and_then(Value::as_str).ok_or_else(|| wrong("content", "a text"))?;
            let literal = decoder.pointer("/pattern/String").and_then(Value::as_str).unwrap_or("");
            let mut chars = literal.chars();
            stages.push(match (chars.next(), chars.next()) {
                (Some(only), None) => Stage::ReplaceChar(only, content.to_owned()),
                _ if *fused => return Err(late()),
                _ => {
                    Stage::Replace(serde_json::from_value(decoder.clone()).map_err(|_| wrong("pattern", "a pattern"))?)
                }
            });
        }
        "Strip" => {
            let count =
                |field: &str| decoder.get(field).and_then(Value::as_u64).ok_or_else(|| wrong(field, "a number"));
            if count("stop")? != 0 {
                return Err(Error::unsupported(path, "decoder.Strip.stop", count("stop")?, "0"));
            }
            let start = usize::try_from(count("start")?).unwrap_or(usize::MAX);
            stages.push(Stage::Strip { content: character("content")?, start, fused: *fused });
        }
        "Metaspace" => {
            let never = decoder.get("prepend_scheme").and_then(Value::as_str) == Some("never")
                || decoder.get("add_prefix_space") == Some(&Value::Bool(false));
            stages.push(Stage::Metaspace { mark: character("replacement")?, drop_first: !never, fused: *fused });
        }
        other => {
            return Err(Error::unsupported(path, "decoder.type", format!("{other:?}"), DECODERS.join(", ")));
        }
    }
    Ok(())
}

/// A stage at work.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    stage: Stage,
    /// Whether a token has come.
    begun: bool,
    /// Bytes that wait for the rest of their character or run.
    held: Vec<u8>,
    /// What [`Stage::Strip`] may still drop of a fused text.
    left: usize,
}

impl Running {
    /// The stage before its first token.
    pub(crate) fn new(stage: Stage) -> Running {
        let left = if let Stage::Strip { start, .. } = stage { start } else { 0 };
        Running { stage, begun: false, held: Vec::new(), left }
    }

    /// Takes a token (after [`Stage::Fuse`]: a piece of the one token) and hands on what is settled.
    pub(crate) fn push(&mut self, token: String, emit: &mut impl FnMut(String)) {
        let first = !std::mem::replace(&mut self.begun, true);
        match &self.stage {
            Stage::JoinSpaces => emit(if first { token } else { format!(" {token}") }),
            Stage::Fuse => emit(token),
            // Only a hostile pattern fails, by backtracking without end; the token then stays as it is.
            Stage::Replace(replace) => emit(match replace.decode_chain(vec![token.clone()]) {
                Ok(replaced) => replaced.concat(),
                Err(_) => token,
            }),
            Stage::ReplaceChar(from, to) => emit(token.replace(*from, to)),
            Stage::ByteFallback => match fallback_byte(&token) {
                Some(byte) => self.held.push(byte),
                None => {
                    self.end_run(emit);
                    emit(token);
                }
            },
            Stage::ByteLevel => {
                push_byte_level(&token, &mut self.held);
                let text = take_whole_characters(&mut self.held);
                if !text.is_empty() {
                    emit(text);
                }
            }
            &Stage::Strip { content, start, fused } => {
                let mut left = if fused { self.left } else { start };
                let mut text = token.as_str();
                while left > 0 && !text.is_empty() {
                    match text.strip_prefix(content) {
                        Some(rest) => (text, left) = (rest, left - 1),
                        None => left = 0,
                    }
                }
                self.left = left;
                emit(text.to_owned());
            }
            &Stage::Metaspace { mark, drop_first, fused } => {
                let to = if drop_first && (first || fused) { "" } else { " " };
                emit(token.replace(mark, to));
            }
        }
    }

    /// Hands on what was held back; nothing comes after.
    pub(crate) fn finish(&mut self, emit: &mut impl FnMut(String)) {
        match self.stage {
            Stage::ByteFallback => self.end_run(emit),
            Stage::ByteLevel if !self.held.is_empty() => {
                emit(String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned());
            }
            _ => {}
        }
    }

    fn end_run(&mut self, emit: &mut impl FnMut(String)) {
        if !self.held.is_empty() {
            let run = String::from_utf8(std::mem::take(&mut self.held));
            emit(run.unwrap_or_else(|e| "\u{FFFD}".repeat(e.as_bytes().len())));
        }
    }
}

/// The byte of a token like `<0x61>`.
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// Takes from `held` all but an unfinished character at its end; what is no UTF-8 becomes replacement characters, as
/// [`String::from_utf8_lossy`] would have it on the whole.
fn take_whole_characters(held: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut rest = held.as_slice();
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                rest = &[];
                break;
            }
            Err(e) => {
                let (valid, after) = rest.split_at(e.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                rest = after;
                let Some(bad) = e.error_len() else { break };
                text.push('\u{FFFD}');
                rest = &after[bad..];
            }
        }
    }
    let kept = rest.len();
    held.drain(..held.len() - kept);
    text
}

/// Appends the bytes that a token of a byte-level vocabulary spells; a token with other characters (an added one) spells itself.
///
/// Source: `bytes_to_unicode` of GPT-2's encoder.py.
fn push_byte_level(token: &str, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    for c in token.chars() {
        match BYTE_OF_CHAR.get(c as usize).copied().flatten() {
            Some(byte) => bytes.push(byte),
            None => {
                bytes.truncate(start);
                bytes.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

/// Printable Latin-1 stands for itself; the other bytes, in order, are the characters from U+0100 on.
static BYTE_OF_CHAR: LazyLock<[Option<u8>; 0x144]> = LazyLock::new(|| {
    let mut table = [None; 0x144];
    let mut next = 0x100;
    for byte in 0..=255u8 {
        let itself = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
        let c = if itself { usize::from(byte) } else { next };
        next += usize::from(!itself);
        table[c] = Some(byte);
    }
    table
});
