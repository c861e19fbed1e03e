//! Results as Markdown, in the manner of llama-bench: a row a test.

use super::super::output::bytes;
use super::report::Report;
use raglan::bench::models::Row;
use raglan::bench::{OpRow, RatesReport, kernels};
use std::fmt::Write;

/// The adapter, then each table that has rows.
pub(super) fn markdown(report: &Report) -> String {
    let adapter = &report.adapter;
    let mut text =
        format!("{} · {} · raglan {} · {}\n", adapter.adapter.name, adapter.driver, adapter.version, adapter.date);
    if adapter.is_software {
        text += "Software: it proves that all runs, and its times say nothing about a GPU.\n";
    }
    text += &rates(&adapter.rates);
    if !report.rows.is_empty() {
        text += &models(&report.rows);
    }
    for curve in &report.curves {
        text += &curve.words();
    }
    for test in &report.ops {
        let _ = writeln!(text, "\n{} {}, by op:\n", test.model, test.test);
        text += &ops(test.ops.iter());
    }
    if !report.kernels.is_empty() {
        text += &kernel_rows(&report.kernels);
    }
    text
}

fn rates(rates: &RatesReport) -> String {
    let optional = |rate: Option<f64>| rate.map_or("none".to_owned(), |rate| format!("{} TFLOP/s", short(rate)));
    let matrix = match rates.matrix_side {
        0 => "none".to_owned(),
        side => format!("{} of side {side}", optional(rates.matrix_tflop_per_s)),
    };
    format!(
        "\n| this adapter | measured |\n| --- | --- |\n| reads | {} GB/s |\n| copies, read and written | {} GB/s |\n\
         | multiplies and adds in f32 | {} TFLOP/s |\n| in f16 | {} |\n| in packed int8 | {} TOP/s |\n\
         | cooperative matrices, f16 to f32 | {matrix} |\n| one more dispatch, on the host | {} µs |\n\
         | a dispatch that needs the one before waits | {} µs |\n| largest buffer, of 4 GiB tried | {} |\n",
        short(rates.read_gb_per_s),
        short(rates.copy_gb_per_s),
        short(rates.f32_tflop_per_s),
        optional(rates.f16_tflop_per_s),
        short(rates.int8_top_per_s),
        short(rates.launch_us),
        short(rates.drain_us),
        bytes(rates.largest_buffer_bytes),
    )
}

fn models(rows: &[Row]) -> String {
    let mut text = "\n| model | size | params | KV | test | t/s | ms a token | GB/s | of read | TFLOP/s | of products | limit, ms | × limit \
         | waits, ms |\n| --- | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        .to_owned();
    for row in rows {
        let head = format!(
            "| {} | {} | {} | {} | {} |",
            row.model,
            bytes(row.weight_bytes),
            parameters(row.parameters),
            row.kv_type,
            row.test
        );
        if let Some(error) = &row.error {
            let _ = writeln!(text, "{head} {} | | | | | | | | |", line(error));
            continue;
        }
        let number = |value: Option<f64>| value.map_or(String::new(), short);
        let share = |value: Option<f64>| value.map_or(String::new(), |share| format!("{:.1} %", 100.0 * share));
        let _ = writeln!(
            text,
            "{head} {} ± {} | {} ({} – {}) | {} | {} | {} | {} | {} | {} | {} |",
            number(row.tokens_per_s),
            number(row.tokens_per_s_deviation),
            number(row.ms_per_token),
            number(row.ms_per_token_min),
            number(row.ms_per_token_max),
            number(row.gb_per_s),
            share(row.share_of_read),
            number(row.tflop_per_s),
            share(row.share_of_products),
            number(row.limit_ms_per_token),
            number(row.time_over_limit),
            number(row.drain_ms_per_token),
        );
    }
    text
}

const OP_HEAD: &str = "op | kernel | shape | in a step | µs | lowest – highest | of the step | GB/s | TFLOP/s | limit, µs | of limit \
     | with merge, µs | of limit with it | waits in a step, µs |";
const OP_RULE: &str = "--- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |";

fn ops<'a>(ops: impl Iterator<Item = &'a OpRow>) -> String {
    let mut text = format!("| {OP_HEAD}\n| {OP_RULE}\n");
    for op in ops {
        let _ = writeln!(text, "| {}", op_cells(op));
    }
    text
}

fn kernel_rows(rows: &[kernels::Row]) -> String {
    let mut text = format!("\n| model | rows | depth | {OP_HEAD}\n| --- | ---: | ---: | {OP_RULE}\n");
    for row in rows {
        let cells = match (&row.op, &row.error) {
            (Some(op), _) => op_cells(op),
            (None, error) => format!("{} | | | | | | | | | | | | | |", line(error.as_deref().unwrap_or_default())),
        };
        let _ = writeln!(text, "| {} | {} | {} | {cells}", row.model, row.rows, row.depth);
    }
    text
}

fn op_cells(op: &OpRow) -> String {
    format!(
        "{} | {} | {} | {} | {} | {} – {} | {:.1} % | {} | {} | {} | {:.1} % | {} | {} | {} |",
        op.op,
        op.kernel,
        op.shape,
        short(op.dispatches),
        short(op.us),
        short(op.us_min),
        short(op.us_max),
        100.0 * op.share_of_step,
        short(op.gb_per_s),
        short(op.tflop_per_s),
        short(op.limit_us),
        100.0 * op.share_of_limit,
        op.with_merge_us.map_or(String::new(), short),
        op.share_with_merge.map_or(String::new(), |share| format!("{:.1} %", 100.0 * share)),
        short(op.step_drain_us)
    )
}

/// A message within a cell.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// `6.74 B`, `134.52 M`
fn parameters(count: u64) -> String {
    let count = count as f64;
    if count >= 1e9 { format!("{:.2} B", count / 1e9) } else { format!("{:.2} M", count / 1e6) }
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size => {
            let digits = (2 - size.log10().floor() as i32).clamp(3, 9) as usize;
            format!("{value:.digits$}")
        }
    }
}
