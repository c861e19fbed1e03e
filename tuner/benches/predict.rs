//! How long a pick of 48 candidates takes: from memory, from cold caches of the core, warm, and remembered. `--json` prints a line of JSON.

#[path = "../tests/surface/mod.rs"]
mod surface;

use raglan_tuner::{Header, MOST_CANDIDATES, TrainOptions, latency, train};

fn main() {
    // Many candidates that differ a little, so that the portfolio is full.
    let plain = surface::dataset(140, 0.0, 3);
    let mut rows = Vec::new();
    for row in &plain.rows {
        for twin in 0..3_u32 {
            let mut row = row.clone();
            row.candidate.settings.push(("TWIN".to_owned(), twin));
            let bits = row.shape.iter().map(|x| u64::from(x.to_bits())).fold(u64::from(twin), |a, b| a * 31 + b);
            let text = row.candidate.to_string();
            let draw = surface::draw(&[bits, text.bytes().fold(7, |a, b| a * 131 + u64::from(b))]);
            row.times_us.iter_mut().for_each(|us| *us = (1.0 + 9.0 * draw) as f32);
            rows.push(row);
        }
    }
    let header = Header { spaces: plain.header.spaces.clone(), ..Header::default() };
    let dataset = raglan_tuner::Dataset { header, rows };
    let options = TrainOptions { epochs: 10, on_prior: Some(true), ..TrainOptions::default() };
    let weights = train(&dataset, &options, &mut |_, _, _| ()).expect("a dataset with times can be trained on");
    let model = &weights.models[0];
    let latency = latency(model);
    if std::env::args().any(|arg| arg == "--json") {
        println!("{}", serde_json::to_string(&latency).expect("numbers are JSON"));
        return;
    }
    println!("a pick of {} candidates (at most {MOST_CANDIDATES}), ns: p50, p99", model.candidates().len());
    println!("from memory {:8.0} {:8.0}", latency.memory_p50, latency.memory_p99);
    println!("cold caches {:8.0} {:8.0}", latency.cold_p50, latency.cold_p99);
    println!("warm        {:8.0} {:8.0}", latency.warm_p50, latency.warm_p99);
    println!("remembered  {:8.1} {:8.1}", latency.memo_p50, latency.memo_p99);
}
