//! The dataset's file: what is written is read, and what is broken is an error.

use std::collections::BTreeMap;

use raglan_tuner::{Cost, Dataset, Dim, DimKind, Error, Header, Row, Space};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

fn dim(name: &str, kind: DimKind, grouped: bool) -> Dim {
    Dim { name: name.to_owned(), kind, grouped }
}

fn dataset(count: usize) -> Dataset {
    let spaces = vec![
        Space {
            name: "linear".to_owned(),
            dims: vec![dim("rows", DimKind::Tiled, false), dim("cols", DimKind::Tiled, true)],
        },
        Space { name: "attention".to_owned(), dims: vec![dim("keys", DimKind::Size, false)] },
    ];
    let header = Header {
        adapter_type: "test-8".to_owned(),
        adapter: "Test (8 lanes)".to_owned(),
        kernel_hashes: BTreeMap::from([("linear".to_owned(), "0123".to_owned())]),
        spaces,
        ..Header::default()
    };
    let rows = (0..count).map(|at| {
        let x = at as f32;
        let cost = Cost { bytes: 1e9 / 3.0 + at as f64, flops: 7.0, workgroups: 3.0, workgroup_bytes: 0.0 };
        match at % 3 {
            0 => Row {
                space: "attention".to_owned(),
                shape: vec![x],
                candidate: "attention CHUNK=1".parse().expect("a candidate"),
                cost,
                times_us: vec![x + 1.5, 2.0, 3.0, 4.0],
                failure: None,
                by_rules: at % 2 == 0,
            },
            odd => Row {
                space: "linear".to_owned(),
                shape: vec![x, 64.0],
                candidate: format!("matmul TILE_M={odd} SPLITS=4").parse().expect("a candidate"),
                cost,
                times_us: if odd == 1 { vec![] } else { vec![0.1] },
                failure: (odd == 1).then(|| "wrong outputs: ∞".to_owned()),
                by_rules: false,
            },
        }
    });
    Dataset { header, rows: rows.collect() }
}

#[test]
fn what_is_written_is_read() {
    for count in [0, 1, 7, 20_000] {
        let wanted = dataset(count);
        let bytes = wanted.to_bytes().expect("written");
        assert_eq!(Dataset::from_bytes("test", &bytes).expect("read"), wanted);
        assert_eq!(wanted.to_bytes().expect("written again"), bytes, "the same measurements are the same bytes");
    }
}

#[test]
fn a_file_is_replaced_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deep/dataset.parquet");
    dataset(3).write(&path).expect("written");
    dataset(9).write(&path).expect("written over it");
    assert_eq!(Dataset::read(&path).expect("read"), dataset(9));
    assert_eq!(dataset(9).sha256().expect("hashed"), raglan_tuner::sha256_hex(&std::fs::read(&path).expect("bytes")));
    assert_eq!(std::fs::read_dir(path.parent().expect("a folder")).expect("listed").count(), 1);
    assert!(matches!(Dataset::read(&folder.path().join("none")), Err(Error::Io { .. })));
    // What has no end is not read to it.
    for endless in [folder.path(), std::path::Path::new("/dev/zero")] {
        assert!(matches!(Dataset::read(endless), Err(Error::Io { .. })), "{}", endless.display());
    }
}

#[test]
fn rounds_that_were_not_measured_stay_holes() {
    let mut wanted = dataset(1);
    wanted.rows[0].times_us = vec![1.0, f32::NAN, 3.0, f32::NAN];
    let read = Dataset::from_bytes("test", &wanted.to_bytes().expect("written")).expect("read");
    let times = &read.rows[0].times_us;
    assert!(times.len() == 3 && times[0] == 1.0 && times[1].is_nan() && times[2] == 3.0, "{times:?}");
    assert_eq!(read.rows[0].chosen_us(), Some(2.0));
    assert_eq!(read.rows[0].scored_us(), None);
    assert_eq!((read.rows[0].round_us(1), read.rows[0].round_us(2)), (None, Some(3.0)));
}

#[test]
fn a_row_that_breaks_the_rules_is_not_written() {
    let broken = |change: &dyn Fn(&mut Dataset)| {
        let mut dataset = dataset(5);
        change(&mut dataset);
        assert!(matches!(dataset.to_bytes(), Err(Error::Dataset { .. })));
    };
    broken(&|d| d.rows[0].space = "none".to_owned());
    broken(&|d| d.rows[1].shape = vec![1.0]);
    broken(&|d| d.rows[1].shape = vec![1.0, f32::NAN]);
    broken(&|d| d.header.spaces[0].dims[0].name = "no name".to_owned());
    broken(&|d| d.header.spaces[1].name = "linear".to_owned());
}

#[test]
fn broken_files_are_errors() {
    let bytes = dataset(50).to_bytes().expect("written");
    for length in 0..bytes.len() {
        let read = Dataset::from_bytes("test", &bytes[..length]);
        assert!(matches!(read, Err(Error::Dataset { .. })), "cut to {length}");
    }
    // A flip in a value is another value; what counts is that reading ends, without a panic and in little memory.
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
    for _ in 0..3000 {
        let mut hostile = bytes.clone();
        for _ in 0..1 + rng.next_u32() % 3 {
            let at = rng.next_u64() as usize % hostile.len();
            hostile[at] = if rng.next_u32() % 2 == 0 { hostile[at] ^ (1 << (rng.next_u32() % 8)) } else { 0xff };
        }
        if let Err(error) = Dataset::from_bytes("test", &hostile) {
            assert!(matches!(error, Error::Dataset { .. }));
        }
    }
}
