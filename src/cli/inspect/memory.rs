//! `raglan inspect --memory`: the longest contexts on cards that are not at hand.

use super::super::Result;
use super::super::global::Global;
use super::super::output::{bytes, number, print_json, print_line};
use super::super::size;
use raglan::EngineOptions;
use raglan::engine::{Bound, LARGEST_BINDING, Memory, Offer};
use raglan::kv_cache::KvTypes;
use raglan::models::Checkpoint;
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

/// The name of a type of keys and values, and how an engine would be started with it.
type Way = (String, EngineOptions);

/// Prints the longest context of every model, weight format, type of keys and values, and card.
pub(super) fn run(global: &Global, checkpoints: &[Checkpoint], cards: &[Card], json: bool) -> Result {
    let mut rows = Vec::new();
    for checkpoint in checkpoints {
        for (kv_type, options) in ways(global) {
            for card in cards {
                let options = EngineOptions { max_context: Some(usize::MAX), ..options.clone() };
                let memory = Memory::of(&Offer::of_card(card.bytes), checkpoint, &options)?;
                // The one that most of them are in, as they lie there.
                let weights = memory.weight_formats.iter().max_by_key(|used| used.bytes);
                let weights = weights.map_or(String::new(), |used| used.format.name().to_ascii_lowercase());
                rows.push(Row {
                    model: checkpoint.path().display().to_string(),
                    weights,
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

/// What the options ask for; where they leave it open, every type of keys and values.
fn ways(global: &Global) -> Vec<Way> {
    let options = global.engine_options(1);
    let kv_types = match &options.kv_types {
        Some(asked) => vec![asked.clone()],
        None => [KvType::F16, KvType::Int8, KvType::Int4].map(KvTypes::from).into(),
    };
    let way = |kv: KvTypes| (kv.to_string(), EngineOptions { kv_types: Some(kv), ..options.clone() });
    kv_types.into_iter().map(way).collect()
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
