//! Moves of KV rows on this adapter: GB/s read and written of a copy elsewhere, which is cut for parallelism, and of a slide
//! by a quantum, which is walked in order.
//! usage: cargo bench --bench moves

use raglan::batch::{Batch, StepLimits};
use raglan::cost::AdapterClass;
use raglan::gpu::{Gpu, GpuOptions};
use raglan::plan::{AttentionShape, KvGroup, Numerics, Planner};
use raglan::segments::{Move, QUANTUM, Segment};
use raglan::shaders::KvType;
use raglan::shaders::move_rows::{KERNEL, MoveRowsParams, workgroups};
use std::time::Instant;

/// Rows of a move.
const ROWS: usize = 4096;
const KV_HEADS: usize = 8;
/// Bytes of a row in one head: 128 columns in f16.
const ROW_BYTES: usize = 256;
const TURNS: usize = 9;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpu = Gpu::open(&GpuOptions::default())?;
    let summary = gpu.summary();
    println!("{} · {} {}", summary.name, summary.driver, summary.driver_info);
    let class = if gpu.is_software() { AdapterClass::Software } else { AdapterClass::Hardware };
    let shape = AttentionShape {
        num_heads: KV_HEADS,
        num_kv_heads: KV_HEADS,
        head_dim: ROW_BYTES / 2,
        groups: vec![KvGroup { window: None, kv: KvType::F16 }],
        numerics: Numerics::Fast,
    };
    let limits = StepLimits { max_batch_tokens: 1, max_sequences: 1, max_adjustments: 1 };
    let planner = Planner::new(shape, class, gpu.limits(), &limits);
    let slots = 2 * ROWS + QUANTUM;
    let arena_bytes = (KV_HEADS * slots * ROW_BYTES) as u64;
    let (k, v) = (gpu.buffer("k", arena_bytes)?, gpu.buffer("v", arena_bytes)?);
    let scales = gpu.buffer("no scales", 256)?;
    let ring = gpu.step_ring(2, 1 << 16, 16)?;
    let repeats = if gpu.is_software() { 4 } else { 64 };

    println!("| move of {ROWS} rows | items | µs, median of {TURNS} | lowest | GB/s read and written |");
    println!("| --- | --- | --- | --- | --- |");
    for (name, from, to) in [("elsewhere", 0, ROWS), ("down by 16", QUANTUM, 0), ("up by 16", 0, QUANTUM)] {
        let mut batch = Batch::new(1);
        batch.push([0], 0, &[[Segment { first_slot: 0, first_position: 0, count: 1 }]]);
        batch.groups[0].moves = vec![vec![Move { from, to, count: ROWS }]];
        let plan = planner.plan(&batch);
        let moves = gpu.buffer("moves", size_of_val(&plan.moves[..]) as u64)?;
        let params = MoveRowsParams::of(KvType::F16, KV_HEADS, slots, ROW_BYTES / 2);
        let variant = KERNEL.variant(&[], planner.move_schedule());
        let mut times = Vec::new();
        for _ in 0..=TURNS {
            let mut recorder = gpu.begin_step(&ring);
            recorder.write(&moves, 0, bytemuck::cast_slice(&plan.moves));
            for _ in 0..repeats {
                let workgroups = workgroups(&params, plan.moves.len());
                let buffers = [&moves, &k, &v, &scales].map(Into::into);
                recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), workgroups);
            }
            let started = Instant::now();
            recorder.submit()?.collect()?;
            times.push(started.elapsed().as_secs_f64() * 1e6 / f64::from(repeats));
        }
        // The first turn compiles.
        times.remove(0);
        times.sort_by(f64::total_cmp);
        let (median, lowest) = (times[TURNS / 2], times[0]);
        let bytes = (2 * 2 * KV_HEADS * ROWS * ROW_BYTES) as f64;
        println!("| {name} | {} | {median:.1} | {lowest:.1} | {:.1} |", plan.moves.len(), bytes / median / 1e3);
    }
    Ok(())
}
