//! Prediction allocates nothing: every allocation of this program is counted.

mod surface;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use raglan_tuner::{Memo, TrainOptions, train};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
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
