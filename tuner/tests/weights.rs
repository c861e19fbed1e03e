//! The weights' file: what is written is read, and what is broken is an error and never an illegal choice.

mod surface;

use proptest::prelude::*;
use raglan_tuner::{Cost, Error, Model, TrainOptions, Weights, train};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use std::sync::LazyLock;

static WEIGHTS: LazyLock<Weights> = LazyLock::new(|| {
    let options = TrainOptions { epochs: 20, members: 2, ..TrainOptions::default() };
    train(&surface::dataset(60, 0.01, 3), &options, &mut |_, _, _| ()).expect("trained")
});

fn picks(model: &Model) -> Vec<(usize, u32)> {
    let shapes = surface::shapes(50, 4);
    let pick = |shape: &Vec<f32>| {
        let costs: Vec<_> = model.candidates().iter().map(|candidate| surface::cost(candidate, shape)).collect();
        model.pick(shape, &costs).map(|pick| (pick.index, pick.us.to_bits())).expect("a legal candidate")
    };
    shapes.iter().map(pick).collect()
}

#[test]
fn what_is_written_is_read_and_picks_the_same() {
    let mut weights = WEIGHTS.clone();
    weights.scores = serde_json::json!({ "geometric_mean": 0.99 });
    let bytes = weights.to_bytes();
    let read = Weights::from_bytes("test", &bytes).expect("read");
    assert_eq!(read.to_bytes(), bytes);
    let plain =
        |w: &Weights| (w.adapter_type.clone(), w.dataset_sha256.clone(), w.kernel_hashes.clone(), w.scores.clone());
    assert_eq!(plain(&read), plain(&weights));
    assert_eq!(picks(&read.models[0]), picks(&weights.models[0]));
    let without = read.models[0].without_mlp();
    assert_eq!(picks(&without), picks(&weights.models[0].without_mlp()));
    let alone = Weights { models: vec![without.clone()], ..read };
    let alone = Weights::from_bytes("test", &alone.to_bytes()).expect("read");
    assert_eq!(picks(&alone.models[0]), picks(&without));
}

#[test]
fn a_file_is_replaced_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("type/weights.safetensors");
    for _ in 0..2 {
        WEIGHTS.write(&path).expect("written");
        assert_eq!(Weights::read(&path).expect("read").to_bytes(), WEIGHTS.to_bytes());
    }
    assert!(matches!(Weights::read(folder.path()), Err(Error::Io { .. })));
}

#[test]
fn broken_files_are_errors() {
    let bytes = WEIGHTS.to_bytes();
    for length in (0..bytes.len()).step_by(61).chain(bytes.len() - 8..bytes.len()) {
        assert!(matches!(Weights::from_bytes("test", &bytes[..length]), Err(Error::Weights { .. })), "cut to {length}");
    }
    let head = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
    let mut refused = 0;
    for round in 0..4000 {
        let mut hostile = bytes.clone();
        // The head, above all.
        let end = if round % 4 == 0 { hostile.len() } else { head };
        let at = rng.next_u64() as usize % end;
        hostile[at] = match rng.next_u32() % 3 {
            0 => hostile[at] ^ (1 << (rng.next_u32() % 8)),
            1 => b'9',
            _ => 0xff,
        };
        match Weights::from_bytes("test", &hostile) {
            Ok(weights) => {
                // Another number, or another text: still it chooses, and what is legal.
                for model in weights.models.iter().filter(|model| model.space() == WEIGHTS.models[0].space()) {
                    let costs = vec![Cost { workgroups: 1.0, bytes: 1.0, ..Cost::ILLEGAL }; model.candidates().len()];
                    assert!(model.pick(&[1.0; 4], &costs).is_some());
                }
            }
            Err(error) => {
                assert!(matches!(error, Error::Weights { .. }));
                refused += 1;
            }
        }
    }
    assert!(refused > 500, "{refused}");
}

/// The file with one text of its head changed for another of the same length.
fn changed(from: &str, to: &str) -> Result<Weights, Error> {
    assert_eq!(from.len(), to.len());
    let mut bytes = WEIGHTS.to_bytes();
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect("the text is there");
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    Weights::from_bytes("test", &bytes)
}

#[test]
fn counts_and_names_are_checked() {
    let refused = |from: &str, to: &str, why: &str| {
        let error = changed(from, to).expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    };
    refused(r#"\"members\":2"#, r#"\"members\":9"#, "9 members");
    refused(r#"\"members\":2"#, r#"\"members\":3"#, "no tensor product.2.first");
    refused(r#"\"hidden\":[32,32]"#, r#"\"hidden\":[32,16]"#, "is wanted");
    refused(r#"\"hidden\":[32,32]"#, r#"\"hidden\":[32,31]"#, "widths [32, 31]");
    refused("raglan_tuner_weights_1", "raglan_tuner_weights_2", "raglan_tuner_weights_1");
    refused(r#"\"name\":\"cols\""#, r#"\"name\":\"rows\""#, "there twice");
    refused(r#"\"name\":\"product\""#, r#"\"name\":\"brodukt\""#, "no tensor brodukt.prior");
    refused("TILE_M=", "TILE M=", "names no candidate");
    assert!(changed(r#"\"on_prior\":"#, r#"\"on_prior\":"#).is_ok(), "the change itself breaks nothing");
}

#[test]
fn a_number_that_is_none_is_refused() {
    let bytes = WEIGHTS.to_bytes();
    let head = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
        for at in (head..bytes.len()).step_by(4 * 97) {
            let mut hostile = bytes.clone();
            hostile[at..at + 4].copy_from_slice(&number.to_le_bytes());
            assert!(matches!(Weights::from_bytes("test", &hostile), Err(Error::Weights { .. })), "{number} at {at}");
        }
    }
}

fn any_cost() -> impl Strategy<Value = Cost> {
    let number =
        || prop_oneof![Just(0.0), Just(f64::NAN), Just(f64::INFINITY), Just(-1.0), 0.0..1e300, 0.0..1e6, 1.0..1e12];
    let (some, none) = ((number(), number(), number(), number()), Just(Cost::ILLEGAL));
    let some =
        some.prop_map(|(bytes, flops, workgroups, workgroup_bytes)| Cost { bytes, flops, workgroups, workgroup_bytes });
    prop_oneof![some, none]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn an_illegal_candidate_is_never_picked(
        costs in prop::collection::vec(any_cost(), 48),
        shape in prop::collection::vec(prop_oneof![any::<f32>(), 0.0_f32..1e5], 4),
        prior_alone in any::<bool>(),
    ) {
        let model = &WEIGHTS.models[0];
        let model = if prior_alone { model.without_mlp() } else { model.clone() };
        let costs = &costs[..model.candidates().len()];
        let pick = model.pick(&shape, costs);
        prop_assert_eq!(pick.is_some(), costs.iter().any(Cost::is_legal));
        if let Some(pick) = pick {
            prop_assert!(costs[pick.index].is_legal());
            prop_assert!(pick.us.is_finite() && pick.us > 0.0);
        }
        let mut log_us = vec![0.0; costs.len()];
        model.predict(&shape, costs, &mut log_us);
        for (log_us, cost) in log_us.iter().zip(costs) {
            prop_assert_eq!(log_us.is_finite(), cost.is_legal());
            prop_assert!(!log_us.is_nan());
        }
    }
}
