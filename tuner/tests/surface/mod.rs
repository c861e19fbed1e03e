//! A made-up space whose every time is known: waves, tails, a cache, efficiencies of candidates and of kernels, and an
//! interaction that no wave model knows.
#![allow(dead_code)] // each test takes what it needs

use raglan_tuner::{Candidate, Cost, Dataset, Dim, DimKind, Header, Row, Space};

/// A stable draw from 0 to 1.
pub(crate) fn draw(numbers: &[u64]) -> f64 {
    let mut hash = 0x9e37_79b9_7f4a_7c15_u64;
    for number in numbers {
        hash = (hash ^ number).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^= hash >> 29;
    }
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// A product: rows × inner by inner × cols.
pub(crate) fn space() -> Space {
    let dim = |name: &str, kind, grouped| Dim { name: name.to_owned(), kind, grouped };
    Space {
        name: "product".to_owned(),
        dims: vec![
            dim("rows", DimKind::Tiled, false),
            dim("cols", DimKind::Tiled, true),
            dim("inner", DimKind::Tiled, true),
            dim("bits", DimKind::Number, true),
        ],
    }
}

/// Two kernels with tiles and splits.
pub(crate) fn candidates() -> Vec<Candidate> {
    let mut all = Vec::new();
    for tile_m in [1_u32, 4, 16, 64, 128] {
        for tile_n in [8_u32, 32, 64, 128] {
            for splits in [1_u32, 4] {
                for kernel in ["plain", "staged"] {
                    if kernel == "plain" && tile_m * tile_n > 2048 || kernel == "staged" && tile_m * tile_n < 128 {
                        continue;
                    }
                    let text = format!("{kernel} TILE_M={tile_m} TILE_N={tile_n} SPLITS={splits}");
                    all.push(text.parse().expect("a candidate"));
                }
            }
        }
    }
    all
}

/// The shapes: `count` of them, over some models' (cols, inner, bits).
pub(crate) fn shapes(count: usize, seed: u64) -> Vec<Vec<f32>> {
    let log_uniform = |low: f64, high: f64, at: f64| (low.ln() + (high.ln() - low.ln()) * at).exp();
    (0..count as u64)
        .map(|at| {
            let group = (draw(&[seed, at, 1]) * 40.0) as u64;
            let rows = log_uniform(1.0, 2048.0, draw(&[seed, at, 2])).round();
            let cols = 64.0 * log_uniform(2.0, 256.0, draw(&[seed, group, 3])).round();
            let inner = 64.0 * log_uniform(4.0, 128.0, draw(&[seed, group, 4])).round();
            let bits = [4.5, 8.5, 16.0][(draw(&[seed, group, 5]) * 3.0) as usize];
            vec![rows as f32, cols as f32, inner as f32, bits]
        })
        .collect()
}

/// What a candidate says of itself: none where it is illegal.
pub(crate) fn cost(candidate: &Candidate, shape: &[f32]) -> Cost {
    let [rows, cols, inner, bits] = [0, 1, 2, 3].map(|at| f64::from(shape[at]));
    let setting = |name: &str| f64::from(candidate.setting(name).expect("a setting"));
    let (tile_m, tile_n, splits) = (setting("TILE_M"), setting("TILE_N"), setting("SPLITS"));
    if splits > 1.0 && inner < 1024.0 {
        return Cost::ILLEGAL;
    }
    let (tiles_m, tiles_n) = ((rows / tile_m).ceil(), (cols / tile_n).ceil());
    let parts = if splits > 1.0 { 2.0 * splits * rows * cols * 4.0 } else { 0.0 };
    Cost {
        bytes: tiles_m * cols * inner * bits / 8.0 + tiles_n * rows * inner * 2.0 + rows * cols * 4.0 + parts,
        flops: 2.0 * tiles_m * tile_m * tiles_n * tile_n * inner,
        workgroups: tiles_m * tiles_n * splits,
        workgroup_bytes: if candidate.kernel == "staged" { (tile_m + tile_n) * 32.0 * 4.0 } else { 0.0 },
    }
}

/// The true time in µs.
pub(crate) fn true_us(candidate: &Candidate, shape: &[f32]) -> f64 {
    let cost = cost(candidate, shape);
    let setting = |name: &str| u64::from(candidate.setting(name).expect("a setting"));
    let (tile_m, tile_n, splits) = (setting("TILE_M"), setting("TILE_N"), setting("SPLITS"));
    let staged = u64::from(candidate.kernel == "staged");
    let [rows, cols, inner, bits] = [0, 1, 2, 3].map(|at| f64::from(shape[at]));
    // Of compute units, and of workgroups that share one.
    let slots = 132.0 * (98_304.0 / cost.workgroup_bytes.max(1.0)).clamp(1.0, 4.0).floor();
    let waves = cost.workgroups / slots;
    // A last wave is waited for in part; few workgroups draw more than their share of the memory's rate.
    let tail = 0.7 * (waves.ceil() / waves) + 0.3;
    let efficiency = 0.55 + 0.4 * draw(&[tile_m, tile_n, staged, 11]);
    // Large weights do not stay in the cache: tiles that read them again pay, by a measure that the cost does not tell.
    let weights = cols * inner * bits / 8.0;
    let spill = 1.0 / (1.0 + (-(weights / 3e7).ln() * 1.5).exp());
    let bytes = cost.bytes * (0.35 + 0.65 * spill);
    // Unpacking of few bits hurts tiles of few rows; deep sums hurt narrow tiles.
    let unpack = 1.0 + 0.5 * (8.0 / bits - 0.5).max(0.0) * (4.0 / (tile_m as f64 + 3.0));
    let deep = 1.0 + 0.12 * (inner / 1024.0).ln().max(0.0) * (16.0 / (tile_n as f64 + 8.0));
    let bytes_us = bytes / 2.4e6 * (1.0 + 0.25 * draw(&[tile_m, tile_n, splits, 12]));
    let flops_us = cost.flops / 3.0e7 / efficiency * unpack * deep * if staged == 1 { 0.7 } else { 1.0 };
    let merge = if splits > 1 { 2.5 + rows * cols * splits as f64 * 8.0 / 2.4e6 } else { 0.0 };
    3.0 + merge + (bytes_us.powi(4) + flops_us.powi(4)).powf(0.25) * tail + waves * 0.3
}

/// Rounds of measurements with a noise of so much, as a share; Train shapes have three, all others six.
pub(crate) fn dataset(count: usize, noise: f64, seed: u64) -> Dataset {
    let space = space();
    let mut rows = Vec::new();
    for shape in shapes(count, seed) {
        for (id, candidate) in candidates().into_iter().enumerate() {
            let cost = cost(&candidate, &shape);
            if !cost.is_legal() {
                continue;
            }
            let us = true_us(&candidate, &shape);
            let bits = shape.iter().map(|x| u64::from(x.to_bits())).fold(seed, |a, b| a.rotate_left(17) ^ b);
            let time = |round: u64| {
                // A sum of four draws is near enough to a bell.
                let bell = (0..4).map(|k| draw(&[bits, id as u64, round, k])).sum::<f64>() - 2.0;
                (us * (1.0 + noise * bell * 1.7)) as f32
            };
            let times_us = (0..6).map(time).collect();
            rows.push(Row {
                space: space.name.clone(),
                shape: shape.clone(),
                candidate,
                cost,
                times_us,
                failure: None,
                by_rules: false,
            });
        }
    }
    let header = Header {
        adapter_type: "surface-32".to_owned(),
        adapter: "A surface".to_owned(),
        kernel_hashes: [(space.name.clone(), "0011223344556677".to_owned())].into(),
        spaces: vec![space],
        ..Header::default()
    };
    Dataset { header, rows }
}
