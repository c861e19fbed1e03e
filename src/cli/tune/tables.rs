//! An evaluation as tables.

use raglan::tuner::{Report, Scores};
use std::fmt::Write;

/// What was scored, the methods, the splits, the spaces, and how long a pick takes.
pub(super) fn markdown(report: &Report, of: &str) -> String {
    let mut text =
        format!("{of}\n\nShare of exhaustive search on unseen shapes; 1 is as fast as the best of the portfolio.\n\n");
    let methods = &report.methods;
    let named = [
        ("predicted", &methods.model),
        ("predicted, the best three timed once", &methods.calibrated),
        ("exhaustive search against itself: the noise floor", &methods.exhaustive),
        ("analytical model", &methods.analytical),
        ("nearest neighbour", &methods.nearest),
        ("power-of-two buckets", &methods.buckets),
        ("single best", &methods.single_best),
        ("hand-written rules", &methods.rules),
    ];
    text += &head("method");
    text.extend(named.iter().map(|(name, scores)| row(name, scores)));
    text += &head("predicted, by space");
    for (name, space) in &report.kernels {
        text += &row(&format!("{name}, {} candidates", space.portfolio), &space.scores);
        for (split, scores) in [("another M", &space.splits.new_m), ("another (N, K)", &space.splits.new_nk)] {
            text += &row(&format!("{name}, {split}"), scores);
        }
    }
    text += &row("all, another M", &report.splits.new_m);
    text += &row("all, another (N, K)", &report.splits.new_nk);
    let latency = &report.latency_ns;
    text += "\n| a pick takes, ns | median | slowest of a hundred |\n| --- | ---: | ---: |\n";
    for (name, p50, p99) in [
        ("in no cache at all", latency.memory_p50, latency.memory_p99),
        ("not in the core's own caches", latency.cold_p50, latency.cold_p99),
        ("again", latency.warm_p50, latency.warm_p99),
        ("remembered", latency.memo_p50, latency.memo_p99),
    ] {
        let _ = writeln!(text, "| {name} | {p50:.0} | {p99:.0} |");
    }
    text
}

fn head(what: &str) -> String {
    format!(
        "\n| {what} | shapes | geometric mean | p5 | p1 | worst | over 2 % slower than the default |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    )
    .trim_start_matches(if what == "method" { "\n" } else { "" })
    .to_owned()
}

/// A line of scores, dashes where there is no shape.
fn row(name: &str, scores: &Scores) -> String {
    if scores.shapes == 0 {
        return format!("| {name} | 0 | – | – | – | – | – |\n");
    }
    let Scores { shapes, geometric_mean, p5, p1, worst, slower_than_default } = *scores;
    let slower = 100.0 * slower_than_default;
    format!("| {name} | {shapes} | {geometric_mean:.4} | {p5:.4} | {p1:.4} | {worst:.4} | {slower:.1} % |\n")
}
