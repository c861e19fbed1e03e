//! Pictures of an evaluation: regret by shape and over a size, and predicted over measured time.

use raglan::bench::plot::panels::{Panel, Series, Style, panels};
use raglan::tuner::{Dataset, Report, ShapeRecord};
use std::collections::BTreeMap;

/// Regret below this, in percent, is drawn as this: the axis is logarithmic.
const LEAST_REGRET: f64 = 0.1;

/// Draws what a picture shows of one space.
type Draw = fn(&[&ShapeRecord], &Dataset) -> Panel;

/// File names and SVG texts.
pub(super) fn all(report: &Report, dataset: &Dataset) -> Vec<(&'static str, String)> {
    let of = &dataset.header.adapter;
    let pictures: [(&str, &str, Draw); 3] = [
        ("tune-regret.svg", "Time lost against exhaustive search, unseen shapes in order", regret),
        ("tune-rows.svg", "Time lost against exhaustive search over size, unseen shapes", over_size),
        ("tune-predicted.svg", "Predicted over measured time of what was picked, unseen shapes", predicted),
    ];
    let mut spaces: BTreeMap<&str, Vec<&ShapeRecord>> = BTreeMap::new();
    for shape in &report.shapes {
        spaces.entry(&shape.space).or_default().push(shape);
    }
    let drawn = pictures.map(|(name, title, panel)| {
        let each: Vec<_> = spaces.values().map(|shapes| panel(shapes, dataset)).collect();
        (name, panels(&format!("{title}: {of}"), &each))
    });
    drawn.into()
}

/// What a method lost on a shape, in percent.
fn lost(share: f64) -> f64 {
    (100.0 / share - 100.0).max(LEAST_REGRET)
}

/// A method's name in a legend.
fn named(method: &str) -> String {
    match method {
        "model" => "predicted".to_owned(),
        "exhaustive" => "noise floor".to_owned(),
        other => other.replace('_', " "),
    }
}

/// Names of the methods, the model's first.
fn methods(shapes: &[&ShapeRecord]) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = shapes.iter().flat_map(|shape| shape.shares.keys().copied()).collect();
    names.sort_by_key(|name| (*name != "model", *name));
    names.dedup();
    names
}

fn regret(shapes: &[&ShapeRecord], _: &Dataset) -> Panel {
    let series = methods(shapes).into_iter().map(|method| {
        let mut lost: Vec<f64> =
            shapes.iter().filter_map(|shape| shape.shares.get(method)).map(|&share| lost(share)).collect();
        lost.sort_by(f64::total_cmp);
        let last = (lost.len() as f64 - 1.0).max(1.0);
        let points = lost.iter().enumerate().map(|(place, &lost)| (100.0 * place as f64 / last, lost)).collect();
        Series { name: named(method), points, style: Style::Line }
    });
    Panel {
        name: shapes[0].space.clone(),
        x_words: "of the shapes, %".into(),
        y_words: "time lost, % (the foot: 0.1 or less)".into(),
        x_is_log: false,
        diagonal: false,
        series: series.collect(),
    }
}

/// The geometric mean of what each method lost, by octave of rows, or of keys where rows say nothing.
fn over_size(shapes: &[&ShapeRecord], dataset: &Dataset) -> Panel {
    let dims = dataset.space(&shapes[0].space).map(|space| &space.dims[..]).unwrap_or_default();
    let place = |name: &str| dims.iter().position(|dim| dim.name == name);
    let (axis, words) = match (place("keys"), place("rows")) {
        (Some(keys), _) => (keys, "keys"),
        (None, Some(rows)) => (rows, "rows"),
        (None, None) => (0, "size"),
    };
    let series = methods(shapes).into_iter().map(|method| {
        let mut octaves: BTreeMap<i32, Vec<f64>> = BTreeMap::new();
        for shape in shapes {
            if let Some(&share) = shape.shares.get(method) {
                let octave = f64::from(shape.shape[axis].max(1.0)).log2().round() as i32;
                octaves.entry(octave).or_default().push(share.ln());
            }
        }
        let mean = |logs: &[f64]| lost((logs.iter().sum::<f64>() / logs.len() as f64).exp());
        let points = octaves.iter().map(|(&octave, logs)| (2f64.powi(octave), mean(logs))).collect();
        Series { name: named(method), points, style: Style::Marked }
    });
    Panel {
        name: shapes[0].space.clone(),
        x_words: format!("{words}, by octave"),
        y_words: "time lost, % (the foot: 0.1 or less)".into(),
        x_is_log: true,
        diagonal: false,
        series: series.collect(),
    }
}

fn predicted(shapes: &[&ShapeRecord], _: &Dataset) -> Panel {
    let of = |split: &str, name: &str| Series {
        name: name.to_owned(),
        points: shapes.iter().filter(|shape| shape.split == split).map(|s| (s.picked_us, s.predicted_us)).collect(),
        style: Style::Dots,
    };
    Panel {
        name: shapes[0].space.clone(),
        x_words: "measured, µs".into(),
        y_words: "predicted, µs".into(),
        x_is_log: true,
        diagonal: true,
        series: vec![of("new_m", "another M"), of("new_nk", "another (N, K)")],
    }
}
