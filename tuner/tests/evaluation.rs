//! Scores of a dataset whose scores are known.

use std::collections::BTreeMap;

use raglan_tuner::{
    Candidate, Cost, Dataset, Dim, DimKind, Header, Row, Space, Split, TrainOptions, evaluate, split, train,
};

fn space() -> Space {
    let dim = |name: &str, grouped| Dim { name: name.to_owned(), kind: DimKind::Size, grouped };
    Space { name: "product".to_owned(), dims: vec![dim("rows", false), dim("cols", true)] }
}

fn candidate(text: &str) -> Candidate {
    text.parse().expect("a candidate")
}

/// `few` is twice as slow as `many` from 64 rows on, and twice as fast below; `never` fails; `old` is what rules choose.
/// Set A and set B differ by a constant, so that scores are exact.
fn dataset() -> Dataset {
    let mut rows = Vec::new();
    for cols in 1..=16_u16 {
        for exponent in 0..12_u16 {
            let m = 2_f32.powi(i32::from(exponent));
            let fast = m * f32::from(cols);
            let (few, many) = if m < 64.0 { (fast, 2.0 * fast) } else { (2.0 * fast, fast) };
            for (text, us) in [
                ("few A=1", Some(few)),
                ("many A=1", Some(many)),
                ("never A=1", None),
                ("old A=1", Some(1.25 * few.max(many))),
            ] {
                let work = f64::from(fast);
                rows.push(Row {
                    space: "product".to_owned(),
                    shape: vec![m, f32::from(cols)],
                    candidate: candidate(text),
                    cost: Cost { bytes: work, flops: work, workgroups: work, workgroup_bytes: 0.0 },
                    times_us: us.map_or(vec![], |us| vec![us, us, us, us + us, us + us, us + us]),
                    by_rules: false,
                    failure: us.is_none().then(|| "wrong".to_owned()),
                });
            }
        }
    }
    let header = Header {
        spaces: vec![space()],
        kernel_hashes: BTreeMap::from([("product".to_owned(), "abcd".to_owned())]),
        ..Header::default()
    };
    Dataset { header, rows }
}

fn near(met: f64, wanted: f64) {
    assert!((met - wanted).abs() < 1e-9, "{met}, {wanted}");
}

#[test]
fn every_way_to_choose_scores_what_it_must() {
    let dataset = dataset();
    let weights =
        train(&dataset, &TrainOptions { epochs: 200, ..TrainOptions::default() }, &mut |_, _, _| ()).expect("trained");
    let model = &weights.models[0];
    assert!(!model.candidates().contains(&candidate("never A=1")), "{:?}", model.candidates());
    let report = evaluate(&dataset, &weights, &|space, shape| {
        assert_eq!(space, "product");
        Some(candidate(if shape[0] < 8.0 { "old A=1" } else { "unknown A=1" }))
    });
    let unseen: Vec<&Row> = dataset
        .rows
        .iter()
        .filter(|row| row.candidate.kernel == "few" && split(&space(), &row.shape) != Split::Train)
        .collect();
    let is_few_rows = |row: &&&Row| row.shape[0] < 64.0;
    let kernel = &report.kernels["product"];
    assert_eq!(report.scores.shapes, unseen.len());
    assert_eq!(report.shapes.len(), unseen.len());
    near(report.scores.geometric_mean, 1.0);
    near(report.calibrated, 1.0);
    near(report.noise_floor, 1.0);
    near(kernel.scores.worst, 1.0);
    near(report.methods.nearest.geometric_mean, 1.0);
    near(report.methods.buckets.geometric_mean, 1.0);
    // One candidate for all is at half speed on the other kind of shapes.
    let best_is_few = model.candidates()[model.default_candidate()] == candidate("few A=1");
    let halved = unseen.iter().filter(|row| is_few_rows(row) != best_is_few).count() as f64;
    near(report.methods.single_best.geometric_mean, 0.5_f64.powf(halved / unseen.len() as f64));
    near(report.methods.single_best.worst, 0.5);
    near(report.methods.single_best.p1, 0.5);
    // The rules are scored where what they chose was measured.
    assert_eq!(report.methods.rules.shapes, unseen.iter().filter(|row| row.shape[0] < 8.0).count());
    near(report.methods.rules.geometric_mean, 0.4);
    near(report.methods.rules.slower_than_default, 1.0);
    assert!(report.splits.new_m.shapes > 0 && report.splits.new_nk.shapes > 0);
    assert_eq!(report.splits.new_m.shapes + report.splits.new_nk.shapes, unseen.len());
    for record in &report.shapes {
        assert_eq!(record.picked, record.best);
        near(record.picked_us, record.best_us);
    }
}

#[test]
fn a_shape_that_was_cut_off_counts_for_no_way_to_choose() {
    let whole = dataset();
    let options = TrainOptions { epochs: 10, ..TrainOptions::default() };
    let weights = train(&whole, &options, &mut |_, _, _| ()).expect("trained");
    let is_unseen = |row: &Row| row.candidate.kernel == "old" && split(&space(), &row.shape) != Split::Train;
    let mut cut = dataset();
    let row = cut.rows.iter_mut().find(|row| is_unseen(row)).expect("an unseen shape");
    row.times_us.truncate(3);
    let [whole, cut] = [whole, cut].map(|dataset| evaluate(&dataset, &weights, &|_, _| Some(candidate("many A=1"))));
    assert_eq!(cut.scores.shapes, whole.scores.shapes - 1);
    assert_eq!(cut.methods.rules.shapes, whole.methods.rules.shapes - 1);
    assert_eq!(cut.methods.exhaustive.shapes, whole.methods.exhaustive.shapes - 1);
}

#[test]
fn the_report_has_the_names_that_others_read() {
    let dataset = dataset();
    let weights =
        train(&dataset, &TrainOptions { epochs: 10, ..TrainOptions::default() }, &mut |_, _, _| ()).expect("trained");
    let json = serde_json::to_value(evaluate(&dataset, &weights, &|_, _| None)).expect("JSON");
    for name in ["geometric_mean", "p5", "p1", "worst", "calibrated", "noise_floor"] {
        assert!(json[name].is_f64(), "{name}: {}", json[name]);
    }
    for pointer in [
        "/splits/new_m/geometric_mean",
        "/splits/new_nk/geometric_mean",
        "/latency_ns/cold_p50",
        "/latency_ns/warm_p50",
        "/latency_ns/memo_p50",
    ] {
        assert!(json.pointer(pointer).is_some_and(serde_json::Value::is_f64), "{pointer}");
    }
    assert_eq!(json["kernel_hash"]["product"], "abcd");
    assert_eq!(json["dataset_sha256"], weights.dataset_sha256);
    assert!(json["kernels"]["product"]["geometric_mean"].is_f64());
}
