//! Histories of the slot allocator against a model of the memory.

#![no_main]

use libfuzzer_sys::fuzz_target;
use raglan_fuzz::raglan::segments::history::History;

fuzz_target!(|bytes: &[u8]| {
    History::run(bytes);
});
