//! Which ids `tokenizer.json` puts before and after a text.

use std::path::Path;

use serde_json::Value;

use super::Surround;
use crate::error::Error;

const SUPPORTED: &str = "TemplateProcessing, RobertaProcessing, BertProcessing, ByteLevel, Sequence";

/// The ids around a lone text, as the `post_processor` of the file at `path` says.
///
/// # Errors
/// A kind that is not known, a template without the text in it once, a template that names a token it does not define.
pub(super) fn surround(path: &Path, processor: &Value) -> Result<Surround, Error> {
    match processor.get("type").and_then(Value::as_str).unwrap_or("absent") {
        "ByteLevel" => Ok(Surround::default()), // moves offsets, which nothing here asks for
        "TemplateProcessing" => template(path, processor),
        "RobertaProcessing" | "BertProcessing" => {
            let id = |field: &str| {
                let id = processor.get(field).and_then(|pair| pair.get(1));
                one_id(path, &format!("post_processor.{field}"), id)
            };
            Ok(Surround { before: vec![id("cls")?], after: vec![id("sep")?] })
        }
        "Sequence" => {
            let mut all = Surround::default();
            for inner in list(path, "post_processor.processors", processor.get("processors"))? {
                let Surround { mut before, after } = surround(path, inner)?;
                before.append(&mut all.before);
                all.before = before;
                all.after.extend(after);
            }
            Ok(all)
        }
        other => Err(Error::unsupported(path, "post_processor.type", format!("{other:?}"), SUPPORTED)),
    }
}

fn template(path: &Path, processor: &Value) -> Result<Surround, Error> {
    let mut surround = Surround::default();
    let mut texts = 0;
    for piece in list(path, "post_processor.single", processor.get("single"))? {
        if let Some(name) = piece.pointer("/SpecialToken/id").and_then(Value::as_str) {
            let field = format!("post_processor.special_tokens[{name:?}].ids");
            let ids = processor.get("special_tokens").and_then(|tokens| tokens.get(name)).and_then(|t| t.get("ids"));
            let side = if texts == 0 { &mut surround.before } else { &mut surround.after };
            for id in list(path, &field, ids)? {
                side.push(one_id(path, &field, Some(id))?);
            }
        } else if piece.pointer("/Sequence/id").and_then(Value::as_str) == Some("A") {
            texts += 1;
        } else {
            return Err(Error::malformed(path, "post_processor.single", piece, "SpecialToken or Sequence A"));
        }
    }
    if texts != 1 {
        let met = format!("a template with the text {texts} times");
        return Err(Error::malformed(path, "post_processor.single", met, "the text once"));
    }
    Ok(surround)
}

fn list<'a>(path: &Path, field: &str, value: Option<&'a Value>) -> Result<&'a [Value], Error> {
    match value {
        Some(Value::Array(items)) => Ok(items),
        Some(other) => Err(Error::malformed(path, field, other, "a list")),
        None => Err(Error::malformed(path, field, "absent", "a list")),
    }
}

fn one_id(path: &Path, field: &str, value: Option<&Value>) -> Result<u32, Error> {
    let id = value.and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    id.ok_or_else(|| Error::malformed(path, field, value.unwrap_or(&Value::Null), "a token id"))
}
