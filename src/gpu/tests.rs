//! What only the inside can see: wgpu's own buffers, and the timer's other way.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use super::{Gpu, GpuOptions, Recorder, StepRing};
use crate::error::Error;
use raglan_shaders::{Access, Kernel, StructLayout, Variant};

static MIX: Kernel = Kernel {
    name: "mix",
    source: include_str!("../../tests/shaders/mix.wgsl"),
    parts: &[],
    bindings: &[Access::Read, Access::ReadWrite],
    immediates: StructLayout { name: "MixParams", bytes: 8, fields: &[] },
    structs: &[],
    tunables: &[],
    dims: &["len"],
    legal: |_, _, _| true,
};

fn open() -> Option<(Gpu, StepRing, Variant)> {
    let gpu = match Gpu::open(&GpuOptions::default()) {
        Ok(gpu) => gpu,
        Err(Error::NoAdapter) if std::env::var_os("RAGLAN_REQUIRE_ADAPTER").is_none() => return None,
        Err(error) => panic!("{error}"),
    };
    let ring = gpu.step_ring(1, 64, 64).unwrap();
    Some((gpu, ring, MIX.variant(&[], MIX.default_schedule())))
}

fn step(gpu: &Gpu, ring: &StepRing, record: impl FnOnce(&mut Recorder<'_>)) {
    let mut rec = gpu.begin_step(ring);
    record(&mut rec);
    rec.submit().unwrap().collect().unwrap();
}

#[test]
fn what_wgpu_stages_in_a_step_is_counted() {
    let Some((gpu, ring, variant)) = open() else { return };
    let (x, y) = (gpu.buffer("x", 16).unwrap(), gpu.buffer("y", 16).unwrap());
    let quiet = |rec: &mut Recorder<'_>| rec.dispatch(&variant, &[(&x).into(), (&y).into()], &[0; 8], [1, 1, 1]);
    step(&gpu, &ring, quiet);
    let warm = gpu.created();
    step(&gpu, &ring, quiet);
    assert_eq!(gpu.created(), warm);
    for made in 1..4 {
        step(&gpu, &ring, |rec| {
            gpu.0.queue.write_buffer(x.raw(), 0, &[1; 16]);
            quiet(rec);
        });
        assert_eq!(gpu.created().wgpu_buffers, warm.wgpu_buffers + made);
    }
}

#[test]
fn a_freed_buffer_is_gone_though_a_bind_group_had_it() {
    let Some((gpu, ring, variant)) = open() else { return };
    let existing = || gpu.0.device.get_internal_counters().hal.buffers.read();
    let mut counts = Vec::new();
    for _ in 0..5 {
        let (x, y) = (gpu.buffer("x", 1 << 20).unwrap(), gpu.buffer("y", 1 << 20).unwrap());
        step(&gpu, &ring, |rec| rec.dispatch(&variant, &[(&x).into(), (&y).into()], &[0; 8], [1, 1, 1]));
        counts.push(existing());
    }
    assert!(counts[1..].iter().all(|&count| count <= counts[0] + 2), "{counts:?}");
}

#[test]
fn a_timer_without_stamps_inside_passes_knows_every_dispatch() {
    let Some((gpu, ring, variant)) = open() else { return };
    if !gpu.summary().features.timestamps {
        return;
    }
    let len = 1 << 20;
    let (x, y) = (gpu.buffer("x", 4 * len).unwrap(), gpu.buffer("y", 4 * len).unwrap());
    let (timer, mut best) = (gpu.timer_of(3, false).unwrap(), [u64::MAX; 3]);
    for _ in 0..5 {
        step(&gpu, &ring, |rec| {
            rec.with_timer(&timer);
            for len in [4, len as u32, 4] {
                let params = [len, 1];
                let workgroups = [len.div_ceil(64), 1, 1];
                rec.dispatch(&variant, &[(&x).into(), (&y).into()], bytemuck::bytes_of(&params), workgroups);
            }
        });
        let times = timer.take();
        assert_eq!(times.len(), 3);
        best.iter_mut().zip(&times).for_each(|(best, time)| *best = time.ns.min(*best));
    }
    assert!(best[1] > best[0] && best[1] > best[2], "a million elements take longer than four: {best:?}");
}

#[test]
fn dispatches_past_a_timers_room_run_without_a_time() {
    let Some((gpu, ring, variant)) = open() else { return };
    if !gpu.summary().features.timestamps {
        return;
    }
    let (x, y) = (gpu.buffer("x", 16).unwrap(), gpu.buffer("y", 16).unwrap());
    for (inside_passes, room) in [(true, 4095), (false, 2048)] {
        if inside_passes && !gpu.summary().features.timestamps_inside_passes {
            continue;
        }
        let timer = gpu.timer_of(1, inside_passes).unwrap();
        let before = gpu.read(&y, 0, 4).unwrap();
        step(&gpu, &ring, |rec| {
            rec.with_timer(&timer);
            for _ in 0..4100 {
                let params = [1u32, 1];
                rec.dispatch(&variant, &[(&x).into(), (&y).into()], bytemuck::bytes_of(&params), [1, 1, 1]);
            }
        });
        let want = (0..4100).fold(bytemuck::pod_read_unaligned::<u32>(&before), |y, _| y.wrapping_mul(3) + 1);
        assert_eq!(gpu.read(&y, 0, 4).unwrap(), want.to_le_bytes());
        assert!(timer.take().len().abs_diff(room) <= 1);
    }
}
