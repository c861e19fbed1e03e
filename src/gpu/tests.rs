//! What only the inside can see: wgpu's own buffers, and the timer's other way.

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
    for timed in [2048, 2] {
        let timer = gpu.timer_of(timed, false).unwrap();
        step(&gpu, &ring, |rec| {
            rec.with_timer(&timer);
            for len in [4, len as u32, 4] {
                let params = bytemuck::bytes_of(&[len, 1]).to_vec();
                rec.dispatch(&variant, &[(&x).into(), (&y).into()], &params, [len.div_ceil(64), 1, 1]);
            }
        });
        let ns: Vec<_> = timer.take().iter().map(|time| time.ns).collect();
        assert!(ns.len() == 3 && ns[1] > ns[2], "{ns:?}");
    }
}
