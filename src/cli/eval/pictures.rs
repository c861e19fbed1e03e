//! What was found, as pictures.

use super::tables::{share, small};
use raglan::bench::plot::heat::{Map, heat};
use raglan::bench::plot::panels::{BarChart, LogBar, Panel, Series, Style, panels_and_bars};
use raglan::eval::{Bucket, Report, ReportRow, Stats, needle};

/// Divergence and disagreement by place in the window, and both over all.
pub(super) fn divergence(model: &str, report: &Report) -> String {
    let plain = report.rows.iter().all(|row| row.weights == report.rows[0].weights);
    let name = |row: &ReportRow| {
        let weights = if plain { String::new() } else { format!("{} · ", row.weights) };
        let floor = if row.role == "floor" { " (floor)" } else { "" };
        format!("{weights}{}{floor}", row.kv)
    };
    let rows: Vec<(String, &Stats)> = report
        .rows
        .iter()
        .filter(|row| row.role != "reference")
        .filter_map(|row| Some((name(row), row.all.as_ref()?)))
        .collect();
    let panel = |words: &str, y_words: &str, y: fn(&Bucket) -> f64| Panel {
        name: words.to_owned(),
        x_words: "place in the window".to_owned(),
        y_words: y_words.to_owned(),
        x_is_log: true,
        diagonal: false,
        series: rows
            .iter()
            .map(|(name, stats)| Series {
                name: name.clone(),
                points: stats.by_position.iter().map(|b| ((b.from + b.to + 1) as f64 / 2.0, y(b))).collect(),
                style: Style::Marked,
            })
            .collect(),
    };
    let chart = |words: &str, x_words: &str, of: fn(&Stats) -> (f64, String)| {
        let bar = |(name, stats): &(String, &Stats)| {
            let (value, label) = of(stats);
            LogBar { name: name.clone(), value, label }
        };
        BarChart { name: words.to_owned(), x_words: x_words.to_owned(), bars: rows.iter().map(bar).collect() }
    };
    let title = format!("{model}: formats against its own weights with {} KV", report.rows[0].kv);
    panels_and_bars(
        &title,
        &[
            panel("KL divergence by place", "mean KL, nats", |bucket| bucket.kl_mean),
            panel("Disagreement by place", "share whose largest logit is another", |bucket| {
                1.0 - bucket.top1_agreement
            }),
        ],
        &[
            chart("Mean KL divergence", "nats", |stats| (stats.kl_mean, small(stats.kl_mean))),
            chart("Disagreement (top-1 agreement beside it)", "share whose largest logit is another", |stats| {
                (1.0 - stats.top1_agreement, share(stats.top1_agreement))
            }),
        ],
    )
}

/// A map for each format.
pub(super) fn needle(model: &str, report: &needle::Report) -> String {
    let maps = report.rows.iter().map(|row| {
        let cell = |length: usize, depth: usize| {
            let met = row.cells.iter().find(|cell| (cell.length, cell.depth) == (length, depth))?;
            Some((met.chosen, format!("{:.2} ({:+.1})", met.chosen, met.margin)))
        };
        Map {
            name: format!("{} weights, {} KV", row.weights, row.kv),
            x_words: "tokens of context".to_owned(),
            columns: report.lengths.iter().map(usize::to_string).collect(),
            rows: report.depths.iter().map(|depth| format!("{depth} %")).collect(),
            cells: report
                .depths
                .iter()
                .map(|&depth| report.lengths.iter().map(|&length| cell(length, depth)).collect())
                .collect(),
        }
    });
    let title = format!(
        "{model}: facts found, of 1, by depth; chance is {:.3} (margin in nats)",
        1.0 / report.candidates as f64
    );
    heat(&title, &maps.collect::<Vec<_>>())
}
