//! One line of a file of prompts: a prompt, and the sampling fields that it sets for itself.

use raglan::SamplingParams;
use raglan::models::Message;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use std::fmt;

/// What a line asks.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) prompt: Prompt,
    pub(super) settings: Settings,
}

/// The three ways to give a prompt.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Prompt {
    Text(String),
    Messages(Vec<Message>),
    Ids(Vec<u32>),
}

/// How it is answered: from the command line, and over that from the line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) sampling: SamplingParams,
    pub(super) stop: Vec<String>,
    pub(super) ignore_eos: bool,
    pub(super) priority: i32,
}

/// Characters of a message that are shown, at either end: it may quote a whole line.
const SHOWN: usize = 120;

/// Reads a line; what it does not set is taken from `defaults`.
///
/// # Errors
/// Where it is not UTF-8, no JSON object, has a field that is unknown, given twice or of the wrong type, has not just one of
/// the three prompts, or sets a sampling field out of its range.
pub(super) fn parse(bytes: &[u8], defaults: &Settings) -> Result<Line, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("no UTF-8 after byte {}", error.valid_up_to()))?;
    let mut json = serde_json::Deserializer::from_str(text);
    let draft = Draft { prompt: None, settings: defaults.clone() };
    let line = draft.deserialize(&mut json).and_then(|line| json.end().map(|()| line));
    let line = line.map_err(|error| told(&error))?;
    line.settings.sampling.validate()?;
    Ok(line)
}

/// An error with the column, without the line that is always the first, and shortened where it quotes too much.
fn told(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let text = match text.strip_suffix(&place) {
        Some(text) => format!("{text}, at column {}", error.column()),
        None => text,
    };
    let length = text.chars().count();
    if length <= 2 * SHOWN {
        return text;
    }
    let head: String = text.chars().take(SHOWN).collect();
    let tail: String = text.chars().skip(length - SHOWN).collect();
    format!("{head} … {tail}")
}

/// A line that is being read.
struct Draft {
    prompt: Option<Prompt>,
    settings: Settings,
}

/// One text or several.
#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "wanted a text or a list of texts")]
enum Stop {
    One(String),
    Many(Vec<String>),
}

/// A message; a field that would be lost is an error.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    role: String,
    content: String,
}

impl<'de> DeserializeSeed<'de> for Draft {
    type Value = Line;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Line, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Draft {
    type Value = Line;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Line, A::Error> {
        let mut seen = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if seen.contains(&name) {
                return Err(A::Error::custom(format!("{name} is given twice")));
            }
            let Settings { sampling, stop, ignore_eos, priority } = &mut self.settings;
            let mut prompt = None;
            match name.as_str() {
                "prompt" => prompt = Some(Prompt::Text(value(&mut map, &name)?)),
                "messages" => {
                    let turns: Vec<Turn> = value(&mut map, &name)?;
                    let messages = turns.into_iter().map(|turn| Message::new(turn.role, turn.content));
                    prompt = Some(Prompt::Messages(messages.collect()));
                }
                "token_ids" => prompt = Some(Prompt::Ids(value(&mut map, &name)?)),
                "max_tokens" => sampling.max_tokens = value(&mut map, &name)?,
                "temperature" => sampling.temperature = value(&mut map, &name)?,
                "top_k" => sampling.top_k = value(&mut map, &name)?,
                "top_p" => sampling.top_p = value(&mut map, &name)?,
                "min_p" => sampling.min_p = value(&mut map, &name)?,
                "repetition_penalty" => sampling.repetition_penalty = value(&mut map, &name)?,
                "presence_penalty" => sampling.presence_penalty = value(&mut map, &name)?,
                "frequency_penalty" => sampling.frequency_penalty = value(&mut map, &name)?,
                "seed" => sampling.seed = value(&mut map, &name)?,
                "stop" => {
                    *stop = match value(&mut map, &name)? {
                        Stop::One(text) => vec![text],
                        Stop::Many(texts) => texts,
                    }
                }
                "ignore_eos" => *ignore_eos = value(&mut map, &name)?,
                "priority" => *priority = value(&mut map, &name)?,
                _ => return Err(A::Error::custom(format!("the field {name:?} is unknown"))),
            }
            if prompt.is_some() && self.prompt.is_some() {
                return Err(A::Error::custom("it has two of prompt, messages and token_ids, wanted one"));
            }
            self.prompt = self.prompt.or(prompt);
            seen.push(name);
        }
        let prompt = self.prompt.ok_or_else(|| A::Error::custom("it has none of prompt, messages and token_ids"))?;
        Ok(Line { prompt, settings: self.settings })
    }
}

fn value<'de, A: MapAccess<'de>, T: serde::Deserialize<'de>>(map: &mut A, name: &str) -> Result<T, A::Error> {
    map.next_value().map_err(|error| A::Error::custom(format!("{name}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Settings {
        let sampling = SamplingParams { max_tokens: 7, ..SamplingParams::default() };
        Settings { sampling, stop: vec!["END".to_owned()], ignore_eos: false, priority: 0 }
    }

    #[test]
    fn a_line_sets_what_it_names_and_leaves_the_rest() {
        let line =
            parse(br#"{"prompt": "a \u00e9", "temperature": 0.5, "seed": 9, "stop": "x"}"#, &defaults()).unwrap();
        assert_eq!(line.prompt, Prompt::Text("a é".to_owned()));
        let sampling = SamplingParams { temperature: 0.5, seed: 9, ..defaults().sampling };
        assert_eq!(line.settings, Settings { sampling, stop: vec!["x".to_owned()], ignore_eos: false, priority: 0 });
        let line = parse(
            br#" {"stop": [], "token_ids": [1, 2], "ignore_eos": true, "top_k": 3, "priority": -2} "#,
            &defaults(),
        )
        .unwrap();
        assert_eq!(line.prompt, Prompt::Ids(vec![1, 2]));
        assert_eq!((line.settings.stop.len(), line.settings.ignore_eos, line.settings.sampling.top_k), (0, true, 3));
        assert_eq!(line.settings.priority, -2);
        let line = parse(br#"{"messages": [{"role": "user", "content": "hi"}]}"#, &defaults()).unwrap();
        assert_eq!(line.prompt, Prompt::Messages(vec![Message::new("user", "hi")]));
        assert_eq!(line.settings, defaults());
    }

    #[test]
    fn a_line_that_is_wrong_says_where() {
        let deep = "[".repeat(100_000);
        let long = format!(r#"{{"prompt": "a", "temperature": "{}"}}"#, "x".repeat(1 << 20));
        let wrong: &[(&[u8], &[&str])] = &[
            (b"\xff", &["no UTF-8 after byte 0"]),
            (b"nonsense", &["column 2"]),
            (b"{", &["EOF", "column 1"]),
            (b"[]", &["expected an object"]),
            (br#"{"prompt": "a"} {}"#, &["trailing", "column 17"]),
            (br#"{"prompt": "a", "prompt": "b"}"#, &["prompt is given twice"]),
            (br#"{"prompt": "a", "token_ids": [1]}"#, &["two of"]),
            (br#"{"max_tokens": 3}"#, &["none of prompt, messages and token_ids"]),
            (br#"{"prompt": "a", "max_token": 3}"#, &["\"max_token\" is unknown", "column 27"]),
            (br#"{"prompt": "a", "temperature": "hot"}"#, &["temperature: ", "\"hot\"", "f32"]),
            (br#"{"prompt": "a", "temperature": -1}"#, &["temperature is -1", "0 or more"]),
            (br#"{"prompt": "a", "temperature": 1e999}"#, &["out of range"]),
            (br#"{"prompt": "a", "max_tokens": 0}"#, &["max_tokens is 0"]),
            (br#"{"prompt": "a", "seed": -1}"#, &["seed: "]),
            (br#"{"prompt": "a", "stop": 3}"#, &["stop: wanted a text or a list of texts"]),
            (br#"{"prompt": "\ud800"}"#, &["prompt: "]),
            (br#"{"token_ids": [4294967296]}"#, &["token_ids: ", "4294967296"]),
            (br#"{"messages": [{"role": "user", "content": "a", "name": "b"}]}"#, &["messages: ", "name"]),
            (deep.as_bytes(), &["expected an object"]),
            (long.as_bytes(), &["temperature: ", " … ", "expected f32"]),
        ];
        for (bytes, words) in wrong {
            let error = parse(bytes, &defaults()).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "wanted {words:?}, met {error:?}");
            assert!(error.chars().count() < 300 && !error.contains("line 1"), "{error}");
        }
    }
}
