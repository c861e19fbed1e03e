//! Candidates as text, and which shapes are kept unseen.

use std::collections::HashMap;

use proptest::prelude::*;
use raglan_tuner::{Candidate, Dim, DimKind, Space, Split, split};

proptest! {
    #[test]
    fn a_candidate_is_the_same_after_text(
        kernel in "[A-Za-z0-9_]{1,64}",
        names in prop::collection::btree_set("[A-Z_]{1,9}", 0..32),
        values in prop::collection::vec(any::<u32>(), 32),
    ) {
        let candidate = Candidate { kernel, settings: names.into_iter().zip(values).collect() };
        prop_assert_eq!(candidate.to_string().parse::<Candidate>().expect("a candidate"), candidate);
    }

    #[test]
    fn what_is_read_is_written_as_it_was(text in "[ A-Z=0-9]{0,24}") {
        if let Ok(candidate) = text.parse::<Candidate>() {
            prop_assert_eq!(candidate.to_string(), text);
        }
    }
}

#[test]
fn the_text_of_a_candidate() {
    let text = "matmul LANES_M=1 LANES_N=32 SPLITS=4294967295";
    let candidate: Candidate = text.parse().expect("a candidate");
    assert_eq!(candidate.to_string(), text);
    assert_eq!((candidate.setting("LANES_N"), candidate.setting("none")), (Some(32), None));
    let many: String = (0..33).map(|at| format!(" S{at}=1")).collect();
    for wrong in [
        "",
        " ",
        "matmul ",
        " matmul",
        "matmul  A=1",
        "matmul A",
        "matmul A=",
        "matmul A=-1",
        "matmul A=+1",
        "matmul A=01",
        "matmul A=4294967296",
        "matmul A=1 A=2",
        "matmul =1",
        "mat-mul A=1",
        "matmul Ä=1",
        &format!("matmul{many}"),
        &"a".repeat(65),
    ] {
        let error = wrong.parse::<Candidate>().expect_err(wrong).to_string();
        assert!(error.len() < 400, "{error}");
    }
}

fn space(grouped: [bool; 3]) -> Space {
    let dim = |(name, grouped): (&str, bool)| Dim { name: name.to_owned(), kind: DimKind::Size, grouped };
    Space { name: "product".to_owned(), dims: ["rows", "cols", "inner"].into_iter().zip(grouped).map(dim).collect() }
}

#[test]
fn a_shape_keeps_its_place_and_a_group_stays_together() {
    let space = space([false, true, true]);
    let mut by_group: HashMap<[u32; 2], Vec<Split>> = HashMap::new();
    for cols in 1..60_u32 {
        for inner in 1..20_u32 {
            for rows in 1..20_u32 {
                let found = split(&space, &[rows as f32, cols as f32, inner as f32]);
                by_group.entry([cols, inner]).or_default().push(found);
            }
        }
    }
    let unseen =
        by_group.values().filter(|splits| splits.contains(&Split::NewNk)).count() as f64 / by_group.len() as f64;
    assert!((0.16..0.24).contains(&unseen), "{unseen}");
    let (mut shapes, mut new_m) = (0, 0);
    for splits in by_group.values() {
        let whole = splits.iter().all(|split| *split == Split::NewNk);
        assert!(whole || !splits.contains(&Split::NewNk), "a group is whole on one side");
        if !whole {
            shapes += splits.len();
            new_m += splits.iter().filter(|split| **split == Split::NewM).count();
        }
    }
    let share = new_m as f64 / shapes as f64;
    assert!((0.18..0.22).contains(&share), "{share}");
}

#[test]
fn a_space_without_groups_has_no_unseen_ones() {
    let space = space([false; 3]);
    let found: Vec<Split> = (0..1000_u16).map(|at| split(&space, &[f32::from(at), 1.0, 1.0])).collect();
    assert!(!found.contains(&Split::NewNk));
    assert!((150..250).contains(&found.iter().filter(|split| **split == Split::NewM).count()));
}

#[test]
fn places_are_for_good() {
    // Datasets that were written once rely on it.
    let space = space([false, true, true]);
    let found: Vec<u8> = (0..24_u16)
        .map(|at| match split(&space, &[f32::from(at % 5), f32::from(at), 64.0]) {
            Split::Train => 0,
            Split::NewM => 1,
            Split::NewNk => 2,
        })
        .collect();
    assert_eq!(found, [0, 0, 0, 0, 0, 2, 0, 2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(split(&space, &[0.0, 3.0, 1.0]), split(&space, &[-0.0, 3.0, 1.0]));
}
