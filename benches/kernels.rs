//! Matrix products on this adapter, by weight format, rows and input type: GFLOP/s with the schedules that a run takes.
//! usage: cargo bench --bench kernels [-- FORMAT …]

use raglan::batch::StepLimits;
use raglan::cost::AdapterClass;
use raglan::gpu::{Gpu, GpuOptions};
use raglan::plan::{AttentionShape, Numerics, Planner};
use raglan::shaders::linear::LinearParams;
use raglan::shaders::matmul::MatmulParams;
use raglan::shaders::{Part, Variant, WeightFormat, matmul, matvec};
use std::time::Instant;

/// Columns and inner columns: SmolLM2-135M's gate over up.
const SHAPE: (usize, usize) = (3072, 576);
/// Work of one measurement.
const FLOPS: f64 = 4e9;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpu = Gpu::open(&GpuOptions::default())?;
    let summary = gpu.summary();
    println!("{} · {} {}", summary.name, summary.driver, summary.driver_info);
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let class = if gpu.is_software() { AdapterClass::Software } else { AdapterClass::Hardware };
    let attention = AttentionShape {
        num_heads: 9,
        num_kv_heads: 3,
        head_stride: 64,
        element_bytes: 4,
        windows: vec![None],
        numerics: Numerics::Fast,
    };
    let limits = StepLimits { max_batch_tokens: 512, max_sequences: 64, max_adjustments: 1 };
    let planner = Planner::new(attention, class, gpu.limits(), &limits);

    println!("| weights | inputs | rows | GFLOP/s, median of 5 | lowest – highest |\n| --- | --- | --- | --- | --- |");
    for format in WeightFormat::ALL {
        let name = format!("{format:?}");
        if !wanted.is_empty() && !wanted.iter().any(|w| w.eq_ignore_ascii_case(&name)) {
            continue;
        }
        for act in [Part::ActF32, Part::ActF16] {
            if act.needs_f16() && !gpu.limits().shader_f16 {
                continue;
            }
            for rows in [1, 512] {
                let mut rates = measure(&gpu, &planner, format, act, rows)?;
                rates.sort_by(f64::total_cmp);
                let (low, median, high) = (rates[0], rates[rates.len() / 2], rates[rates.len() - 1]);
                println!("| {name} | {} | {rows} | {median:.1} | {low:.1} – {high:.1} |", act.name());
            }
        }
    }
    Ok(())
}

fn measure(
    gpu: &Gpu,
    planner: &Planner,
    format: WeightFormat,
    act: Part,
    rows: usize,
) -> Result<Vec<f64>, raglan::Error> {
    let (cols, inner) = SHAPE;
    // A K-quant's row is a whole number of super-blocks.
    let inner = inner.next_multiple_of(format.block_values());
    let row_bytes = format.gpu_row_bytes(inner);
    let weight = gpu.buffer("weight", (cols * row_bytes) as u64)?;
    let x = gpu.buffer("x", (rows * inner * 4) as u64)?;
    let out = gpu.buffer("out", (rows * cols * 4) as u64)?;
    let absent = gpu.buffer("absent", 256)?;
    let params = LinearParams {
        rows: rows as u32,
        cols: cols as u32,
        blocks: (inner / 32) as u32,
        weight_row_quads: (row_bytes / 16) as u32,
        weight_blocks: format.row_blocks(inner) as u32,
        first_col: 0,
        out_stride: cols as u32,
        bias: 0,
        add: 0,
        activation: 0,
    };
    let choice = planner.linear(rows, cols, inner);
    let is_matvec = std::ptr::eq(choice.kernel, &matvec::KERNEL);
    let reduce = if gpu.limits().subgroups { Part::ReduceSubgroup } else { Part::ReduceShared };
    let weight_part = Part::Weight(format);
    let workgroups = if is_matvec {
        matvec::workgroups(&params, &choice.schedule)
    } else {
        matmul::workgroups(&MatmulParams::whole(&params), &choice.schedule)
    };
    let variant: Variant = if is_matvec {
        choice.kernel.variant(&[weight_part, act, reduce, Part::EpiloguePlain], choice.schedule)
    } else {
        choice.kernel.variant(&[weight_part, act, Part::EpiloguePlain], choice.schedule)
    };
    let buffers = [&weight, &weight, &x, &absent, &out];

    let ring = gpu.step_ring(2, 16, 16)?;
    let run = |times: usize| -> Result<f64, raglan::Error> {
        let mut recorder = gpu.begin_step(&ring);
        for _ in 0..times {
            recorder.dispatch(&variant, &buffers.map(Into::into), bytemuck::bytes_of(&params), workgroups);
        }
        let started = Instant::now();
        recorder.submit()?.collect()?;
        Ok(started.elapsed().as_secs_f64())
    };
    let flops = 2.0 * (rows * cols * inner) as f64;
    let times = (FLOPS / flops).ceil() as usize;
    run(1)?;
    (0..5).map(|_| Ok(flops * times as f64 / run(times)? / 1e9)).collect()
}
