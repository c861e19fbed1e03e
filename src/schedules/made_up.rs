//! Weights of the tuner that nothing was measured for: trained on times that a test makes up.

use super::{
    AttentionChoice, AttentionStats, Form, KvHeads, LinearChoice, LinearShape, Terms, all_spaces, attention,
    kernel_hash, linear,
};
use raglan_shaders::WeightFormat;
use raglan_tuner::{Candidate, Cost, Dataset, Header, Row, TrainOptions, Weights, train};

/// The adapter and the driver that made-up weights are of.
pub const ADAPTER: (&str, &str) = ("made-up-8", "driver 1");

/// The time of a candidate of a space for a shape, in microseconds, by its cost.
pub type Time<'a> = &'a dyn Fn(&str, &[f32], &Candidate, &Cost) -> f64;

/// Weights for an adapter of such terms that know `products` and `forms`, whatever is legal of them.
///
/// # Errors
/// If nothing can be learned.
pub fn weights(
    (adapter_type, driver): (&str, &str),
    terms: &Terms,
    heads: &KvHeads,
    (products, forms): (&[LinearChoice], &[AttentionChoice]),
    time: Time<'_>,
) -> Result<Weights, String> {
    let header = Header {
        adapter_type: adapter_type.to_owned(),
        adapter: adapter_type.to_owned(),
        driver: driver.to_owned(),
        kernel_hashes: all_spaces().map(|space| (space.name.clone(), kernel_hash(&space.name))).into(),
        spaces: all_spaces().map(Clone::clone).into(),
        ..Header::default()
    };
    let mut rows = Vec::new();
    let mut add = |space: &str, shape: &[f32], candidate: Candidate, cost: Cost| {
        let us = time(space, shape, &candidate, &cost) as f32;
        let shape = shape.to_vec();
        let space = space.to_owned();
        rows.push(Row { space, shape, candidate, cost, times_us: vec![us; 3], failure: None, by_rules: false });
    };
    for (cols, inner, format) in [
        (576, 192, WeightFormat::F16),
        (192, 512, WeightFormat::F32),
        (1024, 192, WeightFormat::Q8_0),
        (2048, 64, WeightFormat::Q4_0),
        (4096, 4096, WeightFormat::F16),
    ] {
        for rows in [1, 2, 3, 5, 8, 9, 16, 40, 100, 512] {
            for (normed, gated) in [(false, false), (true, false), (true, true)] {
                let shape = LinearShape { rows, cols, inner, format, normed, gated };
                for choice in products.iter().filter(|choice| linear::legal(choice, &shape, terms)) {
                    let cost = linear::cost(choice, &shape, terms);
                    add(&linear::space(rows).name, &linear::descriptor(&shape), choice.candidate(), cost);
                }
            }
        }
    }
    for (runs, keys) in [(1, 10), (1, 300), (2, 4000), (5, 100), (8, 64), (16, 1000), (40, 33), (64, 8000)] {
        let mut counts = vec![keys as u32; runs];
        counts[0] *= 3;
        for choice in forms.iter().filter(|choice| attention::legal(choice, heads, 1, terms)) {
            let of = if choice.form() == Form::Vector { runs } else { 16 * runs };
            let stats = AttentionStats::of(*heads, of, &counts, 256);
            let cost = attention::cost(choice, &stats, terms);
            add(&attention::space(choice.form()).name, &attention::descriptor(&stats), choice.candidate(), cost);
        }
    }
    let options = TrainOptions { epochs: 16, members: 1, ..TrainOptions::default() };
    train(&Dataset { header, rows }, &options, &mut |_, _, _| ()).map_err(|error| error.to_string())
}

/// A number from 0 to 1 that a text and a seed decide.
pub fn chance(seed: u64, text: &str) -> f64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 29;
    (hash.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 11) as f64 / (1u64 << 53) as f64
}
