//! `raglan inspect --memory`: the longest contexts on cards that are not at hand.

use super::super::Result;
use super::super::global::Global;
use super::super::output::{bytes, number, print_json, print_line};
use super::super::size;
use raglan::EngineOptions;
use raglan::engine::{Bound, LARGEST_BINDING, Memory, Offer};
use raglan::kv_cache::KvTypes;
use raglan::models::{Checkpoint, Format, QuantizeTo};
use raglan::shaders::KvType;
use serde::Serialize;
use std::str::FromStr;

/// A card's memory as it was typed, and its bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Card {
    name: String,
    bytes: u64,
}

impl FromStr for Card {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Card, String> {
        Ok(Card { name: text.trim().to_owned(), bytes: size::bytes(text)? })
    }
}

/// A model in one weight format and one type of keys and values, on one card.
#[derive(Serialize)]
struct Row {
    model: String,
    weights: String,
    kv_type: String,
    /// What the model was trained for, with the scaling that is wanted.
    positions: usize,
    card: String,
    card_bytes: u64,
    weight_bytes: u64,
    other_bytes: u64,
    free_bytes: u64,
    bytes_per_token: u64,
    /// `None` where the weights alone do not fit.
    longest_context: Option<usize>,
    bound_by: Bound,
}

/// How an engine would be started, and what that is called: a format of weights, a type of keys and values.
type Way = ((String, String), EngineOptions);

/// Prints the longest context of every model, weight format, type of keys and values, and card.
pub(super) fn run(global: &Global, checkpoints: &[Checkpoint], cards: &[Card], json: bool) -> Result {
    let mut rows = Vec::new();
    for checkpoint in checkpoints {
        for ((weights, kv_type), options) in ways(global, checkpoint) {
            for card in cards {
                let options = EngineOptions { max_context: Some(EngineOptions::AS_LONG_AS_FITS), ..options.clone() };
                let memory = Memory::of(&Offer::of_card(card.bytes), checkpoint, &options)?;
                rows.push(Row {
                    model: checkpoint.path().display().to_string(),
                    weights: weights.clone(),
                    kv_type: kv_type.clone(),
                    positions: options.spec(checkpoint).max_position_embeddings,
                    card: card.name.clone(),
                    card_bytes: card.bytes,
                    weight_bytes: memory.weight_bytes,
                    other_bytes: memory.other_bytes(),
                    free_bytes: memory.free_bytes,
                    bytes_per_token: memory.slot_bytes,
                    longest_context: Some(memory.fits).filter(|&fits| fits > 0),
                    bound_by: memory.fits_bound_by,
                });
            }
        }
    }
    if json { print_json(&rows) } else { print(&rows, cards) }
}

/// What the options ask for; where they leave it open, the weights as they are stored and, where those are floats, as q8 and
/// q4, and every type of keys and values but f32.
fn ways(global: &Global, checkpoint: &Checkpoint) -> Vec<Way> {
    let options = global.engine_options(1);
    let stored = checkpoint.formats().into_iter().max_by_key(|used| used.bytes);
    let are_floats =
        stored.as_ref().is_some_and(|used| matches!(used.format, Format::F32 | Format::F16 | Format::Bf16));
    let stored = stored.map_or(String::new(), |used| used.format.name().to_ascii_lowercase());
    let kv_types = match &options.kv_types {
        Some(asked) => vec![asked.clone()],
        None => [KvType::F16, KvType::Int8, KvType::K8V4, KvType::Int4].map(KvTypes::from).into(),
    };
    let quantised = match options.quantize {
        Some(asked) => vec![Some(asked)],
        // What is quantised already would lose twice.
        None if !are_floats => vec![None],
        None => vec![None, Some(QuantizeTo::Q8), Some(QuantizeTo::Q4)],
    };
    let mut ways = Vec::new();
    for quantize in quantised {
        let weights = quantize.map_or_else(|| stored.clone(), |to| to.to_string());
        for kv in &kv_types {
            let options = EngineOptions { quantize, kv_types: Some(kv.clone()), ..options.clone() };
            ways.push(((weights.clone(), kv.to_string()), options));
        }
    }
    ways
}

/// A line a model, weight format and type of keys and values; a column a card.
fn print(rows: &[Row], cards: &[Card]) -> Result {
    print_line("Longest context, tokens of one sequence, in what weights, a step's memory and a reserve leave.")?;
    print_line("Memory is as it was typed: GB are 10^9 bytes, GiB and G are 2^30.\n")?;
    let names: Vec<&str> = cards.iter().map(|card| card.name.as_str()).collect();
    print_line(format_args!("| model | trained for | weights | KV | a token | {} |", names.join(" | ")))?;
    print_line(format_args!("| --- | ---: | --- | --- | ---: |{}", " ---: |".repeat(cards.len())))?;
    let mut any = [false; 2];
    for line in rows.chunks(cards.len()) {
        let cell = |row: &Row| match row.longest_context {
            None => "–".to_owned(),
            Some(tokens) if row.bound_by == Bound::Binding => format!("{} ᵇ", number(tokens)),
            Some(tokens) => number(tokens).to_string(),
        };
        any[0] |= line.iter().any(|row| row.longest_context.is_none());
        any[1] |= line.iter().any(|row| row.longest_context.is_some() && row.bound_by == Bound::Binding);
        let cells: Vec<String> = line.iter().map(cell).collect();
        let row = &line[0];
        let (model, positions) =
            (row.model.trim_start_matches(raglan::models::synthetic::PREFIX), number(row.positions));
        let (weights, token) = (bytes(row.weight_bytes), bytes(row.bytes_per_token));
        print_line(format_args!(
            "| {model} | {positions} | {}, {weights} | {} | {token} | {} |",
            row.weights,
            row.kv_type,
            cells.join(" | ")
        ))?;
    }
    if any[0] {
        print_line("\n–: the weights and a step's memory do not fit.")?;
    }
    if any[1] {
        print_line(format_args!(
            "\nᵇ: memory holds more; a layer's keys have to lie within a binding of {LARGEST_BINDING} bytes."
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_a_size() {
        assert_eq!("80GB".parse(), Ok(Card { name: "80GB".into(), bytes: 80_000_000_000 }));
        assert_eq!("80 GiB".parse::<Card>().map(|card| card.bytes), Ok(80 << 30));
        assert!("large".parse::<Card>().is_err());
    }
}
