//! Prediction allocates nothing, and readers of hostile files little: every allocation of this program is counted.

mod surface;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use raglan_tuner::{Dataset, Memo, TrainOptions, Weights, train};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(size: usize) {
    COUNT.with(|count| count.set(count.get() + 1));
    LARGEST.with(|largest| largest.set(largest.get().max(size)));
}

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations(run: impl FnOnce()) -> u64 {
    let before = COUNT.with(Cell::get);
    run();
    COUNT.with(Cell::get) - before
}

#[test]
fn a_pick_allocates_nothing() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1_u8; 100]))), 1, "the count counts");
    let options = TrainOptions { epochs: 10, members: 2, ..TrainOptions::default() };
    let weights = train(&surface::dataset(40, 0.01, 3), &options, &mut |_, _, _| ()).expect("trained");
    let model = &weights.models[0];
    let prior = model.without_mlp();
    let shape = surface::shapes(1, 9).remove(0);
    let costs: Vec<_> = model.candidates().iter().map(|candidate| surface::cost(candidate, &shape)).collect();
    let mut log_us = vec![0.0; costs.len()];
    let mut memo = Memo::new(256);
    let count = allocations(|| {
        for _ in 0..3 {
            model.predict(&shape, &costs, &mut log_us);
            let pick = model.pick(&shape, &costs);
            assert!(pick.is_some() && prior.pick(&shape, &costs).is_some());
            memo.insert(&shape, pick);
            assert_eq!(memo.get(&shape), Some(pick));
        }
    });
    assert_eq!(count, 0);
}

#[test]
fn no_number_in_a_file_makes_a_reader_allocate_much() {
    let dataset = surface::dataset(20, 0.01, 3);
    let weights = train(&dataset, &TrainOptions { epochs: 10, ..TrainOptions::default() }, &mut |_, _, _| ());
    let dataset = dataset.to_bytes().expect("written");
    let weights = weights.expect("trained").to_bytes();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(11);
    for (bytes, tail) in [(&dataset, 4000), (&weights, 0)] {
        for round in 0..4000 {
            let mut hostile = bytes.clone();
            // Parquet's head is at its end, that of safetensors at its beginning.
            let begin = if round % 2 == 0 && tail > 0 { hostile.len() - tail } else { 0 };
            let end = if tail == 0 { 4000 } else { hostile.len() };
            for _ in 0..1 + rng.next_u32() % 4 {
                let at = begin + rng.next_u64() as usize % (end - begin);
                hostile[at] = [0xff, 0x7f, 0x80, rng.next_u32() as u8][rng.next_u32() as usize % 4];
            }
            LARGEST.with(|largest| largest.set(0));
            if tail > 0 {
                let _ = Dataset::from_bytes("test", &hostile);
            } else {
                let _ = Weights::from_bytes("test", &hostile);
            }
            let largest = LARGEST.with(Cell::get);
            assert!(largest < 16 << 20, "round {round}: {largest} bytes at once");
        }
    }
}
