//! The rigs and the collector on whatever adapter there is.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use super::problem::{Choice, Subject};
use super::rig::{Inputs, Rig};
use super::shapes::{Ragged, Sequence, Shape};
use super::{Options, collect};
use crate::error::Error;
use crate::gpu::{Gpu, GpuOptions};
use crate::schedules::{AttentionChoice, Form, KvHeads, LinearChoice, LinearShape, all_spaces, spaces};
use raglan_shaders::attention::tile;
use raglan_shaders::{Kernel, WeightFormat, matmul};
use raglan_tuner::{Dataset, Split, split};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn open() -> Option<Gpu> {
    match Gpu::open(&GpuOptions::default()) {
        Ok(gpu) => Some(gpu),
        Err(Error::NoAdapter) if std::env::var_os("RAGLAN_REQUIRE_ADAPTER").is_none() => None,
        Err(error) => panic!("{error}"),
    }
}

/// A kernel with a fault in its text.
fn broken(kernel: &'static Kernel, from: &str, to: &str) -> &'static Kernel {
    assert_eq!(kernel.source.matches(from).count(), 1, "{from}");
    Box::leak(Box::new(Kernel { source: kernel.source.replace(from, to).leak(), ..*kernel }))
}

/// What becomes of a choice on a shape.
fn checked(rig: &mut Rig, shape: &Shape, choice: impl Fn(&Subject) -> Choice) -> Result<f64, String> {
    let subject = Subject::of(rig, shape.clone()).unwrap();
    let mut problem = subject.open(rig).unwrap();
    let choice = choice(&subject);
    problem.check(rig, &choice).unwrap()
}

fn product(rows: usize, format: WeightFormat, normed: bool, gated: bool) -> Shape {
    Shape::Linear(LinearShape { rows, cols: 160, inner: 256, format, normed, gated })
}

#[test]
fn a_product_that_sums_too_little_is_noticed_and_every_right_one_passes() {
    let Some(gpu) = open() else { return };
    let mut rig = Rig::new(&gpu, Inputs::default()).unwrap();
    let settings = [("LANES_M", 1), ("LANES_N", 32), ("TILE_M", 4), ("TILE_N", 4), ("STAGES", 0)];
    let schedule = matmul::KERNEL.schedule(&settings);
    let mutant = broken(&matmul::KERNEL, "block < end; block++", "block + 1u < end; block++");
    for (rows, format, normed, gated) in [
        (5, WeightFormat::F16, false, false),
        (17, WeightFormat::Q4_0, true, true),
        (3, WeightFormat::Q8_0, true, false),
    ] {
        let shape = product(rows, format, normed, gated);
        let right = |kernel| {
            let choice = LinearChoice::whole(kernel, schedule.clone());
            move |_: &Subject| Choice::Linear(choice.clone())
        };
        checked(&mut rig, &shape, right(&matmul::KERNEL)).unwrap();
        let wrong = checked(&mut rig, &shape, right(mutant)).expect_err("a stretch of columns is left out");
        assert!(wrong.contains("not the default's"), "{wrong}");
    }
}

#[test]
fn every_kernel_for_few_rows_agrees_with_the_default() {
    let Some(gpu) = open() else { return };
    let mut rig = Rig::new(&gpu, Inputs::default()).unwrap();
    let subject = Subject::of(&rig, product(3, WeightFormat::F16, true, true)).unwrap();
    let mut problem = subject.open(&mut rig).unwrap();
    // One of each kernel, with and without the norm: compiling takes its time.
    let mut seen = BTreeSet::new();
    for choice in subject.all(&rig) {
        let Choice::Linear(linear) = &choice else { panic!("{choice:?}") };
        if seen.insert((linear.kernel.name, linear.fused, linear.splits)) {
            problem.check(&mut rig, &choice).unwrap().unwrap();
            assert!(subject.cost(&rig, &choice).is_legal());
            assert_eq!(subject.choice(&rig, &choice.candidate()).as_ref(), Some(&choice));
        }
    }
    assert!(seen.len() >= 3, "{seen:?}");
}

#[test]
fn attention_that_masks_its_own_key_is_noticed_whole_and_in_parts() {
    let Some(gpu) = open() else { return };
    let mut rig = Rig::new(&gpu, Inputs::default()).unwrap();
    let heads = KvHeads { kv_heads: 2, group: 2, head_stride: 64, kv: rig.kernels.types.kv };
    let of = |rows, computed, is_cut| Sequence { rows, computed, is_cut };
    let sequences = vec![of(40, 0, false), of(33, 300, true)];
    let shape = Shape::Attention(Ragged { heads, form: Form::Tile, sequences });
    let schedule = tile::KERNEL.schedule(&[("HEAD_STRIDE", 64)]);
    let choice = |kernel, chunk| {
        let choice = AttentionChoice { kernel, schedule: schedule.clone(), chunk };
        move |_: &Subject| Choice::Attention(choice.clone())
    };
    let mutant = broken(&tile::KERNEL, "key_position <= position", "key_position < position");
    for chunk in [0, 128] {
        checked(&mut rig, &shape, choice(&tile::KERNEL, chunk)).unwrap();
        checked(&mut rig, &shape, choice(mutant, chunk)).expect_err("a row's own key is left out");
    }
    let decode = Ragged { heads, form: Form::Vector, sequences: vec![of(1, 700, true), of(1, 15, false)] };
    let subject = Subject::of(&rig, Shape::Attention(decode)).unwrap();
    assert_eq!(subject.space.name, spaces::ATTENTION_VECTOR);
    let mut problem = subject.open(&mut rig).unwrap();
    let default = subject.default.clone();
    problem.check(&mut rig, &default).unwrap().unwrap();
    assert!(problem.time(&mut rig, &default, 100.0).unwrap() > 0.0);
}

/// Few shapes and candidates, for seconds.
fn options(folder: &std::path::Path) -> Options {
    Options {
        time: Duration::from_secs(30),
        spaces: vec![spaces::LINEAR_MANY.to_owned()],
        out: Some(folder.join("dataset.parquet")),
        most_shapes: 8,
        most_candidates: Some(3),
        pilot: Some(Duration::from_secs(2)),
        ..Options::default()
    }
}

fn shapes(dataset: &Dataset) -> BTreeSet<Vec<u32>> {
    dataset.rows.iter().map(|row| row.shape.iter().map(|number| number.to_bits()).collect()).collect()
}

#[test]
fn a_small_collection_reads_back_with_its_rounds_and_an_interrupted_one_goes_on() {
    let Some(gpu) = open() else { return };
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let stop = AtomicBool::new(false);
    // Somebody stops it in the first round behind the pilot, and has it go on.
    let interrupted = collect(&gpu, &options, &stop, &mut |what, _, _| {
        if what.contains(", round ") {
            stop.store(true, Ordering::Relaxed);
        }
    });
    let interrupted = interrupted.unwrap();
    assert!(stop.swap(false, Ordering::Relaxed), "it was stopped");
    assert!(!interrupted.rows.is_empty());
    let resumed = collect(&gpu, &options, &stop, &mut |_, _, _| ()).unwrap();
    let path = options.out.clone().unwrap();
    assert_eq!(Dataset::read(&path).unwrap().rows.len(), resumed.rows.len());
    assert_eq!(Dataset::read(&path).unwrap().header, resumed.header);
    for row in &interrupted.rows {
        let same = |other: &&raglan_tuner::Row| other.shape == row.shape && other.candidate == row.candidate;
        let later = resumed.rows.iter().find(same).unwrap();
        let kept = row.times_us.iter().zip(&later.times_us).filter(|(us, _)| us.is_finite());
        assert!(kept.clone().all(|(us, later)| us == later), "what was measured is kept");
    }

    let other = Options { out: Some(folder.path().join("other.parquet")), ..options.clone() };
    let at_once = collect(&gpu, &other, &stop, &mut |_, _, _| ()).unwrap();
    assert_eq!(shapes(&resumed), shapes(&at_once));

    let space = all_spaces().into_iter().find(|space| space.name == spaces::LINEAR_MANY).unwrap();
    for dataset in [&resumed, &at_once] {
        let mut full = BTreeSet::new();
        for row in &dataset.rows {
            assert!(row.failure.is_none(), "{}: {:?}", row.candidate, row.failure);
            let rounds = row.times_us.iter().filter(|us| us.is_finite() && **us > 0.0).count();
            let least = if split(space, &row.shape) == Split::Train { 2 } else { 6 };
            if rounds >= least {
                full.insert((
                    row.shape.iter().map(|number| number.to_bits()).collect::<Vec<_>>(),
                    row.candidate.clone(),
                ));
            }
            assert!(rounds >= least || split(space, &row.shape) == Split::Train, "{row:?}");
        }
        for shape in shapes(dataset) {
            assert!(full.iter().filter(|(other, _)| *other == shape).count() >= 2, "candidates with all their rounds");
        }
    }
}

#[test]
fn a_file_of_other_kernels_is_begun_anew() {
    let Some(gpu) = open() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dataset.parquet");
    let mut header = super::collect::header(&gpu, "another clock");
    header.kernel_hashes.insert(spaces::LINEAR_FEW.to_owned(), "0".to_owned());
    Dataset { header, rows: Vec::new() }.write(&path).unwrap();
    let options = Options { time: Duration::ZERO, out: Some(path), ..Options::default() };
    let met = collect(&gpu, &options, &AtomicBool::new(false), &mut |_, _, _| ()).unwrap();
    assert_ne!(met.header.kernel_hashes[spaces::LINEAR_FEW], "0");
    let unknown = Options { spaces: vec!["argmax".to_owned()], out: None, ..options };
    assert!(collect(&gpu, &unknown, &AtomicBool::new(false), &mut |_, _, _| ()).is_err());
}
