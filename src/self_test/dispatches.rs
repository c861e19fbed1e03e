//! The dispatches of a layer are those that `shaders/README.md` tells.

use super::golden::Golden;
use super::runs::{engine, options};
use super::{Adapters, SelfTest, test};
use crate::batch::Batch;
use crate::cost::AdapterClass;
use crate::engine::EngineOptions;
use crate::segments::Segment;

const README: &str = include_str!("../../shaders/README.md");

pub(super) fn tests() -> Vec<SelfTest> {
    vec![test("dispatches", check)]
}

fn check(adapters: &Adapters) -> Result<String, String> {
    let mut counted = Vec::new();
    for (class, deterministic, rows, line, kv) in [
        (AdapterClass::Hardware, false, 1, "one to four", None),
        (AdapterClass::Hardware, false, 1, "one to four", Some("int8")),
        (AdapterClass::Hardware, false, 5, "more", Some("int4")),
        (AdapterClass::Hardware, false, 5, "more", Some("k8v4:unrotated")),
        (AdapterClass::Hardware, false, 4, "one to four", None),
        (AdapterClass::Hardware, false, 5, "more", None),
        (AdapterClass::Hardware, false, 64, "more", None),
        (AdapterClass::Hardware, true, 1, "more", None),
        (AdapterClass::Software, false, 1, "more", None),
    ] {
        let golden = Golden::open("llama")?;
        let kv_types = kv.map(str::parse).transpose()?;
        let options = EngineOptions { class: Some(class), deterministic, kv_types, ..options() };
        let engine = engine(&adapters.plain, &golden.checkpoint, &options)?;
        // A context in one run of slots, and one in two, whose partial results are merged; a deterministic run merges always.
        let runs: &[usize] = if deterministic { &[2] } else { &[1, 2] };
        for &segments in runs {
            let mut batch = Batch::new(1);
            let first = Segment { first_slot: 0, first_position: 0, count: 256 };
            let second = Segment { first_slot: 512, first_position: 256, count: rows };
            match segments {
                1 => batch.push(0..rows as u32, 0, &[[first]]),
                _ => batch.push(0..rows as u32, 256, &[[first, second]]),
            }
            let wanted = told(line, segments).ok_or_else(|| format!("the README has no line {line:?}"))?;
            // Where values are rotated and the output's projection does not turn them back.
            let wanted = wanted + usize::from(engine.rotates_back());
            let dispatched = engine.rehearse(&batch);
            let appends = dispatched.iter().enumerate().filter(|(_, variant)| variant.kernel.name == "rope_append");
            let places: Vec<usize> = appends.map(|(place, _)| place).collect();
            // Between one layer's and the next's lies all that a layer has.
            if let Some(pair) = places.windows(2).find(|pair| pair[1] - pair[0] != wanted) {
                return Err(format!(
                    "{class:?}, deterministic {deterministic}, {rows} rows, {segments} segments: {:?}, the README says {wanted}",
                    &dispatched[pair[0]..pair[1]],
                ));
            }
            counted.push(wanted.to_string());
        }
    }
    Ok(format!("{} a layer, as told", counted.join(", ")))
}

/// What the README's table says of steps with such rows, a column for each number of segments.
fn told(line: &str, segments: usize) -> Option<usize> {
    let row = README.lines().find(|text| text.starts_with(&format!("| {line} |")))?;
    row.split('|').nth(1 + segments)?.trim().parse().ok()
}
