//! Training on a surface whose optimum is known.

mod surface;

use raglan_tuner::{Model, Split, TrainOptions, split, train};
use surface::{candidates, cost, dataset, shapes, space, true_us};

struct Regrets {
    mean: f64,
    worst: f64,
    shapes: usize,
}

/// How much slower picks are than the best there is, over unseen shapes, as a share.
fn regrets(model: &Model, seed: u64, wanted: &dyn Fn(Split) -> bool) -> Regrets {
    let (mut sum, mut worst, mut count) = (0.0, 0.0_f64, 0_u32);
    for shape in shapes(2000, seed) {
        if !wanted(split(&space(), &shape)) {
            continue;
        }
        let costs: Vec<_> = model.candidates().iter().map(|candidate| cost(candidate, &shape)).collect();
        let pick = model.pick(&shape, &costs).expect("a legal candidate");
        let legal = candidates().into_iter().filter(|candidate| cost(candidate, &shape).is_legal());
        let best = legal.map(|candidate| true_us(&candidate, &shape)).fold(f64::INFINITY, f64::min);
        let regret = (true_us(&model.candidates()[pick.index], &shape) / best).ln();
        (sum, worst, count) = (sum + regret, worst.max(regret), count + 1);
    }
    Regrets { mean: (sum / f64::from(count)).exp() - 1.0, worst: worst.exp() - 1.0, shapes: count as usize }
}

#[test]
fn unseen_shapes_of_a_known_surface_are_picked_within_half_a_percent() {
    // 256 shapes of training and those kept unseen beside them.
    let dataset = dataset(430, 0.01, 5);
    let mut seen: Vec<&Vec<f32>> = dataset.rows.iter().map(|row| &row.shape).collect();
    seen.dedup();
    let trained = seen.iter().filter(|shape| split(&space(), shape) == Split::Train).count();
    let start = std::time::Instant::now();
    let weights = train(&dataset, &TrainOptions::default(), &mut |_, _, _| ()).expect("trained");
    let took = start.elapsed();
    let model = &weights.models[0];
    println!(
        "{trained} shapes, {} of {} candidates, prior {}, {took:.2?}",
        model.candidates().len(),
        candidates().len(),
        model.has_prior()
    );
    for (name, wanted) in [("new_m", Split::NewM), ("new_nk", Split::NewNk)] {
        let learned = regrets(model, 5, &|split| split == wanted);
        let prior = regrets(&model.without_mlp(), 5, &|split| split == wanted);
        println!(
            "{name}: {} shapes, {:.3} % (worst {:.1} %), the prior alone {:.3} %",
            learned.shapes,
            learned.mean * 100.0,
            learned.worst * 100.0,
            prior.mean * 100.0
        );
    }
    let all = regrets(model, 5, &|split| split != Split::Train);
    println!("all: {:.3} %, worst {:.1} %", all.mean * 100.0, all.worst * 100.0);
    assert!(all.mean < 0.005, "{}", all.mean);
}
