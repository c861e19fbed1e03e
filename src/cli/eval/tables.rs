//! What was found, as tables in Markdown and as JSON.

use raglan::eval::{CLEAR_MARGIN, Report, ReportRow, Stats, needle};
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write;

/// Adds the keys of a report to an object.
///
/// # Panics
/// If either is no object.
pub(super) fn add(all: &mut Value, report: &impl Serialize) {
    let Ok(Value::Object(keys)) = serde_json::to_value(report) else { panic!("a report is an object") };
    all.as_object_mut().expect("an object").extend(keys);
}

/// A table for each text, and one of divergence by place.
pub(super) fn divergence(report: &Report) -> String {
    let mut text = String::new();
    for (index, read) in report.texts.iter().enumerate() {
        let count = if read.windows == 1 { "1 window".to_owned() } else { format!("{} windows", read.windows) };
        let _ = write!(
            text,
            "\n{}, {count}, {} tokens:\n\n\
             | weights | KV | KV bytes a token | perplexity | change | KL mean | KL 99 % | KL max | top-1 | top-1, margin > {CLEAR_MARGIN} |\n\
             | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
            read.name, read.tokens
        );
        for row in &report.rows {
            let bytes = row.kv_bytes_per_token.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
            let _ = write!(text, "| {} | {} | {bytes} | ", row.weights, kv(row));
            let _ = match (&row.error, row.texts.get(index)) {
                (None, Some(stats)) => writeln!(text, "{} |", cells(stats).join(" | ")),
                (Some(error), _) => writeln!(text, "{error} | | | | | | |"),
                (None, None) => writeln!(text, "no numbers | | | | | | |"),
            };
        }
    }
    text += &notes(report);
    let buckets: Vec<_> = report.rows.iter().filter_map(|row| row.all.as_ref()).map(|all| &all.by_position).collect();
    let Some(places) = buckets.first() else { return text };
    let _ = write!(text, "\nMean KL by place in the window, all texts:\n\n| weights | KV |");
    places.iter().for_each(|bucket| text += &format!(" {}-{} |", bucket.from, bucket.to));
    text += &format!("\n| --- | --- |{}\n", " ---: |".repeat(places.len()));
    for row in report.rows.iter().filter(|row| row.role != "reference") {
        let Some(all) = &row.all else { continue };
        let _ = write!(text, "| {} | {} |", row.weights, kv(row));
        all.by_position.iter().for_each(|bucket| text += &format!(" {} |", small(bucket.kl_mean)));
        text.push('\n');
    }
    text
}

/// What the numbers do not say by themselves, a line each.
fn notes(report: &Report) -> String {
    let mut text = String::new();
    let floor = report.rows.iter().find(|row| row.role == "floor").and_then(|row| row.all.as_ref());
    if floor.is_some_and(|floor| floor.kl_max == 0.0) {
        text += "\nThe floor is the reference bit for bit: no other kernels ran; a smaller --floor-chunk may have others.\n";
    }
    let is_format = |row: &&ReportRow| row.role == "format" && row.error.is_none();
    let turned =
        |row: &ReportRow| ["k8v4", "int4"].iter().any(|kv| row.kv.contains(kv)) && !row.kv.contains(":unrotated");
    let quantised: Vec<bool> =
        report.rows.iter().filter(is_format).filter(|row| row.weights != "as-is").map(turned).collect();
    if quantised.contains(&true) && quantised.contains(&false) {
        text += "\nWhere V has 4 bits and is rotated, o is rotated before it is quantised: such rows have other quantised weights \
                 than those beside them.\n";
    }
    text
}

fn kv(row: &ReportRow) -> String {
    match row.role {
        "format" => row.kv.clone(),
        role => format!("{} ({role})", row.kv),
    }
}

fn cells(stats: &Stats) -> [String; 7] {
    [
        format!("{:.4}", stats.perplexity),
        match stats.perplexity_change_error_percent {
            Some(error) => format!("{:+.3} ± {error:.3} %", stats.perplexity_change_percent),
            None => format!("{:+.3} %", stats.perplexity_change_percent),
        },
        small(stats.kl_mean),
        small(stats.kl_p99),
        small(stats.kl_max),
        share(stats.top1_agreement),
        stats.clear_top1_agreement.map_or_else(|| "-".to_owned(), share),
    ]
}

/// A number of three digits.
pub(super) fn small(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value < 1e-3 => format!("{value:.2e}"),
        value => format!("{value:.*}", (2 - value.log10().floor() as i32).clamp(0, 5) as usize),
    }
}

/// A share of 1 in percent.
pub(super) fn share(value: f64) -> String {
    format!("{:.2} %", 100.0 * value)
}

/// A table for each format: depths by lengths.
pub(super) fn needle(report: &needle::Report) -> String {
    let mut text = String::new();
    for row in &report.rows {
        let _ = write!(text, "\n{} weights, {} KV", row.weights, row.kv);
        let _ = match &row.error {
            Some(error) => writeln!(text, " ({error}):\n"),
            None => writeln!(text, ":\n"),
        };
        text += "| depth |";
        report.lengths.iter().for_each(|length| text += &format!(" {length} |"));
        text += &format!("\n| ---: |{}\n", " ---: |".repeat(report.lengths.len()));
        for &depth in &report.depths {
            let _ = write!(text, "| {depth} % |");
            for &length in &report.lengths {
                let met = row.cells.iter().find(|cell| (cell.length, cell.depth) == (length, depth));
                let _ = match met {
                    Some(cell) => write!(text, " {:.2} / {:.2} ({:+.1}) |", cell.chosen, cell.written, cell.margin),
                    None => write!(text, " - |"),
                };
            }
            text.push('\n');
        }
    }
    text + "\nIn brackets: how much likelier the right number is than the best of the others, in nats.\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_about_three_digits() {
        let met = [0.0, 1.234e-7, 9.99e-4, 0.00123, 0.01234, 1.5].map(small);
        assert_eq!(met, ["0", "1.23e-7", "9.99e-4", "0.00123", "0.0123", "1.50"]);
        assert_eq!(share(0.97654), "97.65 %");
    }
}
