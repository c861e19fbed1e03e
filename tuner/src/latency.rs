//! How long a pick takes on this machine.

use std::hint::black_box;
use std::time::Instant;

use serde::Serialize;

use crate::{Cost, Memo, Model, Pick};

/// Nanoseconds of one pick on one core.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Latency {
    /// Nothing of it in the core's own caches: median.
    pub cold_p50: f64,
    /// The same, the 99th percentile.
    pub cold_p99: f64,
    /// Nothing of it in any cache, its pages' addresses neither: median.
    pub memory_p50: f64,
    /// The same, the 99th percentile.
    pub memory_p99: f64,
    /// Again and again: median.
    pub warm_p50: f64,
    /// The same, the 99th percentile.
    pub warm_p99: f64,
    /// Of a shape that is remembered: median.
    pub memo_p50: f64,
    /// The same, the 99th percentile.
    pub memo_p99: f64,
}

/// More than a core's own caches hold, and more than all that it may share.
const COLD_BYTES: usize = 8 << 20;
const MEMORY_BYTES: usize = 128 << 20;
const COLD_SAMPLES: usize = 101;
const WARM_SAMPLES: usize = 2001;
/// Picks of a sample: a clock's tick is as long as a few.
const WARM_PICKS: usize = 8;
const MEMO_PICKS: usize = 64;

/// Times picks of a model, for a second or two: of as many shapes as there are samples, with costs at hand.
pub fn latency(model: &Model) -> Latency {
    let shapes: Vec<Vec<f32>> = (0..64).map(|at| shape(model, at)).collect();
    let costs: Vec<Vec<Cost>> = (0..64).map(|at| costs(model, at)).collect();
    let mut flushed = vec![1_u8; MEMORY_BYTES];
    let mut after_flush = |bytes: usize| {
        let samples = (0..COLD_SAMPLES).map(|at| {
            for byte in flushed[..bytes].iter_mut().step_by(64) {
                *byte = byte.wrapping_add(1);
            }
            black_box(&flushed);
            // What the caller has just made is in its caches; the model and its code are not.
            let (shape, costs) = (shapes[at % 64].clone(), costs[at % 64].clone());
            let start = Instant::now();
            black_box(model.pick(black_box(&shape), black_box(&costs)));
            start.elapsed().as_nanos() as f64
        });
        percentiles(samples.collect())
    };
    let [cold_p50, cold_p99] = after_flush(COLD_BYTES);
    let [memory_p50, memory_p99] = after_flush(MEMORY_BYTES);

    let warm = (0..WARM_SAMPLES).map(|at| {
        let (shape, costs) = (&shapes[at % 64], &costs[at % 64]);
        let start = Instant::now();
        for _ in 0..WARM_PICKS {
            black_box(model.pick(black_box(shape), black_box(costs)));
        }
        start.elapsed().as_nanos() as f64 / WARM_PICKS as f64
    });
    let [warm_p50, warm_p99] = percentiles(warm.collect());

    let mut memo: Memo<Pick> = Memo::new(1024);
    for shape in &shapes {
        memo.insert(shape, Pick { index: 0, us: 1.0 });
    }
    let memo = (0..WARM_SAMPLES).map(|_| {
        let start = Instant::now();
        for shape in &shapes[..MEMO_PICKS] {
            black_box(memo.get(black_box(shape)));
        }
        start.elapsed().as_nanos() as f64 / MEMO_PICKS as f64
    });
    let [memo_p50, memo_p99] = percentiles(memo.collect());
    Latency { cold_p50, cold_p99, memory_p50, memory_p99, warm_p50, warm_p99, memo_p50, memo_p99 }
}

fn shape(model: &Model, at: usize) -> Vec<f32> {
    (0..model.space().dims.len()).map(|dim| (16 * (dim + 1) + at * 37 % 64) as f32).collect()
}

fn costs(model: &Model, at: usize) -> Vec<Cost> {
    let candidate = |candidate: usize| {
        let x = (1 + (at * 31 + candidate * 17) % 97) as f64;
        Cost { bytes: x * 1e5, flops: x * 1e6, workgroups: x * 3.0, workgroup_bytes: (candidate % 3 * 8192) as f64 }
    };
    (0..model.candidates().len()).map(candidate).collect()
}

fn percentiles(mut samples: Vec<f64>) -> [f64; 2] {
    samples.sort_by(f64::total_cmp);
    [50, 99].map(|percent| samples[(samples.len() - 1) * percent / 100])
}
