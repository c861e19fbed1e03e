//! What a dataset says of itself.

use crate::gpu::Gpu;
use crate::schedules::{adapter_type, all_spaces, kernel_hash};
use raglan_tuner::Header;

/// Of a collection that begins now, timed by `clock`.
pub fn header(gpu: &Gpu, clock: &str) -> Header {
    let summary = gpu.summary();
    Header {
        adapter_type: adapter_type(&summary.name, gpu.limits()),
        adapter: summary.name.clone(),
        driver: format!("{} {}", summary.driver, summary.driver_info).trim().to_owned(),
        clock: clock.to_owned(),
        date: jiff::Zoned::now().strftime("%Y-%m-%d").to_string(),
        kernel_hashes: all_spaces().map(|space| (space.name.clone(), kernel_hash(&space.name))).into(),
        spaces: all_spaces().map(Clone::clone).into(),
    }
}

/// Why measurements under `found` cannot be gone on with under `now`, if they cannot.
pub(super) fn stale(found: &Header, now: &Header) -> Option<String> {
    let differs = |what: &str, found: &str, now: &str| {
        (found != now).then(|| format!("it was measured with another {what}, {found:?} and not {now:?}"))
    };
    differs("adapter", &found.adapter_type, &now.adapter_type)
        .or_else(|| differs("driver", &found.driver, &now.driver))
        .or_else(|| differs("clock", &found.clock, &now.clock))
        .or_else(|| (found.kernel_hashes != now.kernel_hashes).then(|| "it was measured with other kernels".to_owned()))
        .or_else(|| (found.spaces != now.spaces).then(|| "its shapes are described in other numbers".to_owned()))
}
