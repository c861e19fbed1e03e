//! Rows of the comparison, as a table with its targets and as JSON.

use super::replay::Measured;
use serde::Serialize;

/// One policy on one workload, the mean of the seeds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) workload: String,
    pub(crate) capacity: usize,
    pub(crate) policy: String,
    utilisation: f64,
    computed_utilisation: f64,
    moved_over_read: f64,
    throughput: f64,
    throughput_over_paged16: Option<f64>,
    preemptions: f64,
    swaps: f64,
    added_delay_p50_ms: f64,
    added_delay_p99_ms: f64,
    segments_mean: Option<f64>,
    segments_max: Option<usize>,
    moved_below_half: f64,
    seeds: usize,
}

impl Row {
    /// The mean of what was measured with each seed.
    pub(crate) fn new(workload: &str, capacity: usize, policy: &str, measured: &[Measured]) -> Row {
        let mean = |field: fn(&Measured) -> f64| measured.iter().map(field).sum::<f64>() / measured.len() as f64;
        let ragged = policy == "ragged";
        Row {
            workload: workload.into(),
            capacity,
            policy: policy.into(),
            utilisation: mean(|m| m.utilisation),
            computed_utilisation: mean(|m| m.computed_utilisation),
            moved_over_read: mean(|m| m.moved_over_read),
            throughput: mean(|m| m.throughput),
            throughput_over_paged16: None,
            preemptions: mean(|m| m.preemptions),
            swaps: mean(|m| m.swaps),
            added_delay_p50_ms: mean(|m| m.added_delay_p50_ms),
            added_delay_p99_ms: mean(|m| m.added_delay_p99_ms),
            segments_mean: ragged.then(|| mean(|m| m.segments_mean)),
            segments_max: measured.iter().map(|m| m.segments_max).max().filter(|_| ragged),
            moved_below_half: mean(|m| m.moved_below_half),
            seeds: measured.len(),
        }
    }

    /// What is asked of the library's policy and not reached.
    pub(crate) fn missed(&self) -> Vec<String> {
        if self.policy != "ragged" {
            return Vec::new();
        }
        let named = ["conv", "arxiv", "mix"].contains(&self.workload.as_str());
        let (utilisation, moved) = if named { (0.88, 0.03) } else { (0.79, 0.06) };
        let ratio = self.throughput_over_paged16.unwrap_or(1.0);
        let targets = [
            (self.utilisation < utilisation, format!("utilisation {:.3} < {utilisation}", self.utilisation)),
            (self.moved_over_read > moved, format!("moved / read {:.4} > {moved}", self.moved_over_read)),
            (self.moved_below_half > 0.0, format!("{:.0} rows moved below half", self.moved_below_half)),
            (ratio < 0.98, format!("throughput {ratio:.3} < 0.98 × paged16")),
        ];
        targets.into_iter().filter(|target| target.0).map(|target| target.1).collect()
    }

    fn target(&self) -> String {
        if self.policy != "ragged" {
            return String::new();
        }
        let missed = self.missed();
        if missed.is_empty() { "met".into() } else { format!("**MISSED**: {}", missed.join("; ")) }
    }
}

/// Fills in how every row's throughput compares with that of pages.
pub(crate) fn compare(rows: &mut [Row]) {
    let paged: Vec<(String, f64)> =
        rows.iter().filter(|r| r.policy == "paged16").map(|r| (r.workload.clone(), r.throughput)).collect();
    for row in rows {
        let peer = paged.iter().find(|(workload, _)| *workload == row.workload);
        row.throughput_over_paged16 = peer.map(|(_, throughput)| row.throughput / throughput);
    }
}

/// The whole comparison as one JSON object.
pub(crate) fn json(rows: &[Row]) -> String {
    serde_json::json!({ "rows": rows }).to_string()
}

/// The whole comparison as Markdown.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "| workload | capacity | policy | utilisation | computed | moved / read | tokens/s | ÷ paged16 | preemptions | swaps | \
         delay by moves p50 / p99, ms | segments mean / max | moved below half | targets |\n\
         | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n",
    );
    for row in rows {
        let ratio = row.throughput_over_paged16.map_or("–".into(), |ratio| format!("{ratio:.3}"));
        let segments = match (row.segments_mean, row.segments_max) {
            (Some(mean), Some(max)) => format!("{mean:.2} / {max}"),
            _ => "–".into(),
        };
        text += &format!(
            "| {} | {} | {} | {:.3} | {:.3} | {:.4} | {:.1} | {ratio} | {:.1} | {:.1} | {:.2} / {:.2} | {segments} | {:.0} | {} |\n",
            row.workload,
            row.capacity,
            row.policy,
            row.utilisation,
            row.computed_utilisation,
            row.moved_over_read,
            row.throughput,
            row.preemptions,
            row.swaps,
            row.added_delay_p50_ms,
            row.added_delay_p99_ms,
            row.moved_below_half,
            row.target(),
        );
    }
    text += "\nTargets: utilisation ≥ 0.88 on conv, arxiv and mix, ≥ 0.79 on all; moved / read ≤ 0.03 on those three, ≤ 0.06 on any; \
             nothing moved below half occupancy; throughput ≥ 0.98 × paged16.\n";
    let missed: Vec<String> =
        rows.iter().flat_map(|row| row.missed().into_iter().map(|what| format!("{}: {what}", row.workload))).collect();
    text +=
        &if missed.is_empty() { "All targets are met.\n".into() } else { format!("Missed: {}.\n", missed.join("; ")) };
    text
}
