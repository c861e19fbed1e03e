//! What a run of benches has found, as JSON, CSV, tables and pictures.

use super::super::Result;
use super::super::output::{print, print_json};
use super::depth::Curve;
use super::{Output, tables};
use raglan::bench::models::{Row, TestOps};
use raglan::bench::plot::{self, Bar, Line};
use raglan::bench::{Adapter, kernels};
use serde::Serialize;
use serde_json::Value;

/// The least share of a step's time that is worth a bar.
const LEAST_SHARE: f64 = 0.01;

/// Everything that was measured in one run.
pub(super) struct Report {
    pub(super) adapter: Adapter,
    pub(super) rows: Vec<Row>,
    pub(super) ops: Vec<TestOps>,
    pub(super) kernels: Vec<kernels::Row>,
    pub(super) curves: Vec<Curve>,
}

impl Report {
    pub(super) fn new(adapter: Adapter) -> Report {
        Report { adapter, rows: Vec::new(), ops: Vec::new(), kernels: Vec::new(), curves: Vec::new() }
    }

    pub(super) fn print(&self, output: Output) -> Result {
        match output {
            Output::Json => print_json(&self.json()),
            Output::Csv => print(&self.csv()),
            Output::Md => print(&tables::markdown(self)),
        }
    }

    /// `adapter`, `driver`, `date`, `version`, `is_software` and `rates`, then `rows` (of models, or of kernels), `ops`, and `curves` of
    /// `bench depth`.
    fn json(&self) -> Value {
        let mut all = value(&self.adapter);
        all["rows"] = Value::Array(self.row_values());
        all["ops"] = value(&self.ops);
        if !self.curves.is_empty() {
            all["curves"] = value(&self.curves);
        }
        all
    }

    fn row_values(&self) -> Vec<Value> {
        self.rows.iter().map(value).chain(self.kernels.iter().map(value)).collect()
    }

    /// The rows, or the rates where there are none; a head of their keys.
    fn csv(&self) -> String {
        let rows = self.row_values();
        let rows = if rows.is_empty() { vec![value(&self.adapter.rates)] } else { rows };
        let mut keys: Vec<&String> = Vec::new();
        for row in rows.iter().filter_map(Value::as_object) {
            for key in row.keys().filter(|key| !keys.contains(key)).collect::<Vec<_>>() {
                keys.push(key);
            }
        }
        let mut text = keys.iter().map(|key| key.as_str()).collect::<Vec<_>>().join(",") + "\n";
        for row in &rows {
            let cells: Vec<_> = keys.iter().map(|key| cell(&row[key.as_str()])).collect();
            text += &(cells.join(",") + "\n");
        }
        text
    }

    /// Time a token over the depth of each model and batch whose sequences are equally deep, beside the limit.
    pub(super) fn depth_plot(&self) -> String {
        let mut lines: Vec<Line> = Vec::new();
        let decoded = self.rows.iter().filter(|row| row.kind == "decode" && row.depths.iter().all(|d| *d == row.depth));
        for row in decoded {
            let (Some(ms), Some(limit)) = (row.ms_per_token, row.limit_ms_per_token) else { continue };
            let name = match row.batch {
                1 => format!("{}, KV {}", row.model, row.kv_type),
                batch => format!("{}, KV {}, {batch} sequences", row.model, row.kv_type),
            };
            let place = lines.iter().position(|line| line.name == name).unwrap_or_else(|| {
                lines.push(Line { name, points: Vec::new(), limit: Vec::new() });
                lines.len() - 1
            });
            // An answer goes on from its depth: its middle is what was measured.
            let depth = row.depth as f64 + row.tokens as f64 / 2.0;
            lines[place].points.push((depth, ms));
            lines[place].limit.push((depth, limit));
        }
        for line in &mut lines {
            line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
            line.limit.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        let title = format!("Time a token on {}{}", self.adapter.adapter.name, self.caveat());
        plot::lines(&title, "context, tokens", "time a token, ms", &lines)
    }

    /// The share of the limit of each kernel that takes a part of its step worth a bar, by model and step.
    pub(super) fn kernel_plot(&self) -> String {
        let mut groups: Vec<(String, Vec<Bar>)> = Vec::new();
        for row in &self.kernels {
            let Some(op) = row.op.as_ref().filter(|op| op.share_of_step >= LEAST_SHARE) else { continue };
            let model = row.model.trim_start_matches(raglan::models::synthetic::PREFIX);
            let heading = format!("{model}, {} rows at depth {}", row.rows, row.depth);
            if groups.last().is_none_or(|(last, _)| *last != heading) {
                groups.push((heading, Vec::new()));
            }
            let kernel = op.kernel.split('[').next().unwrap_or_default();
            let sizes: Vec<_> = op.shape.split([' ', ',']).filter(|word| word.parse::<u32>().is_ok()).collect();
            let undrained = op.limit_us / (op.us - op.drain_us).max(op.limit_us.max(1e-3));
            let bar = Bar { name: format!("{kernel} {}", sizes.join(" × ")), share: op.share_of_limit, undrained };
            groups.last_mut().expect("a group was opened").1.push(bar);
        }
        plot::bars(&format!("Kernels on {}{}", self.adapter.adapter.name, self.caveat()), &groups)
    }

    fn caveat(&self) -> &'static str {
        if self.adapter.is_software { ": software, which says nothing about a GPU" } else { "" }
    }
}

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).expect("keys are strings")
}

fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    };
    if text.contains([',', '"', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}
