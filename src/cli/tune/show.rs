//! `raglan tune show`: what would be picked for a shape, and why.

use super::super::global::Global;
use super::super::load::open_gpu;
use super::super::output::{print, print_json};
use super::super::shape::{self, SHAPES};
use super::super::{Result, refused};
use super::files::{self, InUse};
use raglan::tune::{Explained, Predicted, Probe};
use serde_json::{Value, json};
use std::fmt::Write;

/// Say what would be picked for a shape, why, and what each candidate is predicted to take
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[arg(required = true, value_name = "SHAPE", help = SHAPES)]
    shape: Vec<String>,

    /// Candidates that are shown; 0 for all
    #[arg(long, value_name = "N", default_value_t = 8)]
    top: usize,

    /// One JSON object: adapter_type, shapes, each with space, level, weights, picked, default, rules, candidates
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &Global, args: &Args) -> Result {
    let text = args.shape.join(" ");
    let shapes = match shape::parse(&text) {
        Ok(shapes) => shapes,
        Err(message) => return refused(message),
    };
    let gpu = open_gpu(global)?;
    let in_use = files::in_use(&gpu);
    let probe = Probe::new(&gpu, global.inputs())?;
    let mut all = Vec::new();
    let mut page = String::new();
    for (name, shape) in shapes {
        let explained = probe.explain(shape.of(&gpu, global.inputs()), |space| in_use.found.model(space));
        let explained = match explained {
            Ok(explained) => explained,
            Err(message) => return refused(message),
        };
        match args.json {
            true => all.push(value(name, &explained, &in_use)),
            false => page += &words(name, &explained, &in_use, args.top),
        }
    }
    match args.json {
        true => print_json(&json!({ "adapter_type": in_use.adapter_type, "shapes": all })),
        false => print(&page),
    }
}

/// The one of the least predicted time that may run.
fn picked(explained: &Explained) -> Option<&Predicted> {
    explained.candidates.first().filter(|best| best.us.is_finite())
}

fn value(name: Option<&str>, explained: &Explained, in_use: &InUse) -> Value {
    let space = &explained.space.name;
    let finite = |us: f64| us.is_finite().then_some(us);
    let candidates: Vec<_> = explained
        .candidates
        .iter()
        .map(|one| {
            json!({
                "candidate": one.candidate.to_string(),
                "legal": one.us.is_finite(),
                "predicted_us": finite(one.us),
                "prior_us": finite(one.prior_us),
            })
        })
        .collect();
    json!({
        "of": name,
        "space": space,
        "shape": dims(explained).collect::<serde_json::Map<_, _>>(),
        "level": in_use.found.level(space),
        "weights": in_use.found.origin(space),
        "picked": picked(explained).map(|best| best.candidate.to_string()),
        "default": explained.default.as_ref().map(ToString::to_string),
        "rules": explained.rules.to_string(),
        "candidates": candidates,
    })
}

fn dims(explained: &Explained) -> impl Iterator<Item = (String, Value)> {
    explained.space.dims.iter().zip(&explained.shape).map(|(dim, &number)| (dim.name.clone(), number.into()))
}

fn words(name: Option<&str>, explained: &Explained, in_use: &InUse, top: usize) -> String {
    let space = &explained.space.name;
    let mut text = String::new();
    let sizes = explained.space.dims.iter().zip(&explained.shape);
    let shape: Vec<_> =
        sizes.map(|(dim, number)| format!("{} {}", dim.name, (number * 100.0).round() / 100.0)).collect();
    let _ = writeln!(text, "{}{space}: {}", name.map_or(String::new(), |name| format!("{name}, ")), shape.join(", "));
    let _ = writeln!(text, "   level:   {}", in_use.found.level(space));
    if let Some(weights) = in_use.found.origin(space) {
        let mean = weights.scores["geometric_mean"].as_f64();
        let scores = mean.map_or(String::new(), |mean| format!(", {mean:.4} of exhaustive search on unseen shapes"));
        let _ = writeln!(text, "   weights: {}, of {}, {}{scores}", weights.name, weights.adapter, weights.date);
    }
    let Some(best) = picked(explained) else {
        let _ = writeln!(text, "   picked:  {}\n", explained.rules);
        return text;
    };
    let _ = writeln!(text, "   picked:  {}", best.candidate);
    let _ = writeln!(
        text,
        "   default: {}",
        explained.default.as_ref().map_or("illegal here".to_owned(), ToString::to_string)
    );
    let _ = writeln!(text, "   rules:   {}\n", explained.rules);
    let count = if top == 0 { explained.candidates.len() } else { top };
    let _ = writeln!(text, "   | candidate | predicted, µs | analytical alone, µs |\n   | --- | ---: | ---: |");
    for one in explained.candidates.iter().take(count) {
        let us = |us: f64| if us.is_finite() { format!("{us:.2}") } else { "illegal here".to_owned() };
        let _ = writeln!(text, "   | {} | {} | {} |", one.candidate, us(one.us), us(one.prior_us));
    }
    match explained.candidates.len().saturating_sub(count) {
        0 => text += "\n",
        more => text += &format!("   {more} more: --top 0\n\n"),
    }
    text
}
