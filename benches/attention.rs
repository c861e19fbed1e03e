//! Attention of ragged batches on this adapter: GB/s of keys and values, what a page table costs, what a shared prefix
//! saves, and what bit-equal results cost. All of a row are measured in turns in one run.
//! usage: cargo bench --bench attention [-- --json]

use raglan::batch::{Batch, StepLimits};
use raglan::cost::AdapterClass;
use raglan::gpu::{Buffer, Gpu, GpuOptions, StepRing};
use raglan::ops::{Dtype, Types};
use raglan::plan::{AttentionShape, KvGroup, Numerics, Picked, Plan, Planner, TileForm};
use raglan::segments::Segment;
use raglan::shaders::attention::merge::{self, AttentionMergeParams};
use raglan::shaders::attention::{AttentionParams, vector};
use raglan::shaders::{Access, Kernel, Part, Schedule};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use std::sync::LazyLock;
use std::time::Instant;

/// Turns, of which the median counts.
const TURNS: usize = 9;
const PAGE: usize = 16;
const HEAD_DIM: usize = 128;

/// The vector form over a page table: the same kernel but for the place of a key.
static PAGED: LazyLock<Kernel> = LazyLock::new(|| {
    let place = "item.first_slot + near";
    let source = vector::KERNEL.source;
    assert_eq!(source.matches(place).count(), 2, "vector.wgsl finds the place of a key, and of its scales");
    let paged = source.replace(place, &format!("paged_slot({place})"));
    Kernel {
        source: (include_str!("paged_vector.wgsl").to_owned() + &paged).leak(),
        bindings: &[
            Access::Read,
            Access::Read,
            Access::Read,
            Access::Read,
            Access::ReadWrite,
            Access::ReadWrite,
            Access::ReadWrite,
            Access::Read,
            Access::Read,
        ],
        ..vector::KERNEL
    }
});

/// Sizes that an adapter runs through in seconds.
struct Sizes {
    heads: usize,
    kv_heads: usize,
    longest: usize,
    /// Bytes of keys and values that one measurement reads, over as many layers as that takes.
    turn_bytes: usize,
}

/// The memory of one attention, and how it is dispatched.
struct Bench {
    gpu: Gpu,
    ring: StepRing,
    types: Types,
    class: AdapterClass,
    sizes: Sizes,
    /// Of each layer: keys, values.
    layers: Vec<[Buffer; 2]>,
    slots: usize,
    q: Buffer,
    out: Buffer,
    /// Of keys and values in floats: nobody reads it.
    scales: Buffer,
    pages: Buffer,
}

/// A way to run a batch.
struct Way {
    name: &'static str,
    batch: Batch,
    numerics: Numerics,
    paged: bool,
}

/// What was measured of a way.
#[derive(serde::Serialize)]
struct Row {
    batch: String,
    way: &'static str,
    tokens: usize,
    items: usize,
    /// Of one layer.
    time_us: f64,
    lowest_us: f64,
    /// Keys and values of the contexts, each counted once a sequence.
    context_gb_s: f64,
    /// To the first way of the batch.
    ratio: f64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let json = std::env::args().any(|arg| arg == "--json");
    let gpu = Gpu::open(&GpuOptions::default())?;
    let summary = gpu.summary();
    let adapter = format!("{} · {} {}", summary.name, summary.driver, summary.driver_info);
    let sizes = if gpu.is_software() {
        Sizes { heads: 8, kv_heads: 2, longest: 1024, turn_bytes: 32 << 20 }
    } else {
        Sizes { heads: 32, kv_heads: 8, longest: 8192, turn_bytes: 2 << 30 }
    };
    let longest = sizes.longest;
    let mut rng = StdRng::seed_from_u64(1);
    let log_uniform: Vec<usize> = (0..64).map(|_| (longest as f64).powf(rng.random_range(0.5..1.0)) as usize).collect();
    let bench = Bench::new(gpu, sizes, log_uniform.iter().map(|keys| keys + 256).sum::<usize>().max(65 * longest / 2))?;

    let mut rows = Vec::new();
    for (name, contexts) in [("1 × 8K", vec![8192]), ("16 × 1K", vec![1024; 16]), ("64 log-uniform", log_uniform)] {
        let batch = apart(&contexts);
        let way = |name, numerics, paged| Way { name, batch: batch.clone(), numerics, paged };
        let deterministic = Numerics::Deterministic { longest_context: 8192 };
        let ways = [
            way("contiguous", Numerics::Fast, false),
            way("paged, 16", Numerics::Fast, true),
            way("deterministic", deterministic, false),
        ];
        rows.extend(bench.measure(name, &ways)?);
    }
    let prefix = longest / 2;
    let way = |name, batch| Way { name, batch, numerics: Numerics::Fast, paged: false };
    let ways = [way("64 copies", apart(&[prefix + 8; 64])), way("64 forks", forks(prefix, 64))];
    rows.extend(bench.measure(&format!("64 over one prefix of {prefix}"), &ways)?);

    if json {
        println!("{}", serde_json::json!({ "adapter": adapter, "rows": rows }));
        return Ok(());
    }
    println!("{adapter}");
    println!("| batch | way | items | µs, median of {TURNS} | lowest | GB/s of contexts | time to the first |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for row in rows {
        let Row { batch, way, items, time_us, lowest_us, context_gb_s, ratio, .. } = row;
        println!("| {batch} | {way} | {items} | {time_us:.1} | {lowest_us:.1} | {context_gb_s:.1} | {ratio:.2} |");
    }
    Ok(())
}

/// A token for each of some contexts, each in a segment of its own.
fn apart(contexts: &[usize]) -> Batch {
    let mut batch = Batch::new(1);
    let mut first_slot = 0;
    for &count in contexts {
        batch.push([0], count - 1, &[[Segment { first_slot, first_position: 0, count }]]);
        first_slot += count.next_multiple_of(PAGE);
    }
    batch
}

/// A token for each of some forks, eight tokens behind their common prefix.
fn forks(prefix: usize, forks: usize) -> Batch {
    let mut batch = Batch::new(1);
    for fork in 0..forks {
        let shared = Segment { first_slot: 0, first_position: 0, count: prefix };
        let own = Segment { first_slot: prefix + fork * PAGE, first_position: prefix, count: PAGE };
        batch.push([0], prefix + 7, &[[shared, own]]);
    }
    batch
}

impl Bench {
    fn new(gpu: Gpu, sizes: Sizes, slots: usize) -> Result<Bench, raglan::Error> {
        let types = Types::of(&gpu, Dtype::default());
        let class = if gpu.is_software() { AdapterClass::Software } else { AdapterClass::Hardware };
        let slots = slots.max(16 * 1024).next_multiple_of(PAGE);
        let elements = sizes.kv_heads * slots * HEAD_DIM;
        let mut rng = StdRng::seed_from_u64(2);
        let mut numbers = |count: usize, bytes: usize| -> Vec<u8> {
            let value = |rng: &mut StdRng| rng.random_range(-1.0f32..1.0);
            match bytes {
                2 => (0..count).flat_map(|_| half::f16::from_f32(value(&mut rng)).to_le_bytes()).collect(),
                _ => (0..count).flat_map(|_| value(&mut rng).to_le_bytes()).collect(),
            }
        };
        // More than a cache holds, where memory is not small.
        let layers = if gpu.is_software() { 1 } else { 4 };
        let values = numbers(elements, types.kv.k_bits() / 8);
        let layers = (0..layers)
            .map(|_| {
                let arenas = [gpu.buffer("k", values.len() as u64)?, gpu.buffer("v", values.len() as u64)?];
                arenas.iter().try_for_each(|arena| gpu.upload(arena, 0, &values))?;
                Ok(arenas)
            })
            .collect::<Result<_, raglan::Error>>()?;
        let queries = numbers(64 * sizes.heads * HEAD_DIM, types.act_bytes());
        let q = gpu.buffer("q", queries.len() as u64)?;
        gpu.upload(&q, 0, &queries)?;
        // Pages anywhere, as after hours of serving.
        let mut table: Vec<u32> = (0..(slots / PAGE) as u32).collect();
        table.shuffle(&mut rng);
        let pages = gpu.buffer("pages", 4 * table.len() as u64)?;
        gpu.upload(&pages, 0, bytemuck::cast_slice(&table))?;
        let out = gpu.buffer("out", (64 * sizes.heads * HEAD_DIM * types.act_bytes()) as u64)?;
        let scales = gpu.buffer("no scales", 256)?;
        let ring = gpu.step_ring(2, 16, 16)?;
        Ok(Bench { gpu, ring, types, class, sizes, layers, slots, q, out, scales, pages })
    }

    /// Runs each way in turns.
    fn measure(&self, name: &str, ways: &[Way]) -> Result<Vec<Row>, raglan::Error> {
        let prepared: Vec<_> = ways.iter().map(|way| self.prepare(way)).collect::<Result<_, _>>()?;
        let context_bytes = |way: &Way| {
            let keys: usize = way.batch.positions.iter().map(|&position| position as usize + 1).sum();
            2 * keys * self.sizes.kv_heads * HEAD_DIM * (self.types.kv.k_bits() / 8)
        };
        let repeats = (self.sizes.turn_bytes / context_bytes(&ways[0])).clamp(1, 64);
        let mut times = vec![Vec::new(); ways.len()];
        for turn in 0..=TURNS {
            for (run, times) in prepared.iter().zip(&mut times) {
                let time = run.time(self, repeats)?;
                // The first turn compiles.
                times.extend((turn > 0).then_some(time));
            }
        }
        times.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
        let row = |((way, run), times): ((&Way, &Prepared), &Vec<f64>)| Row {
            batch: name.to_owned(),
            way: way.name,
            tokens: way.batch.tokens(),
            items: run.plan.items.len(),
            time_us: times[TURNS / 2],
            lowest_us: times[0],
            context_gb_s: context_bytes(way) as f64 / times[TURNS / 2] / 1e3,
            ratio: 0.0,
        };
        let mut rows: Vec<_> = ways.iter().zip(&prepared).zip(&times).map(row).collect();
        let first = rows[0].time_us;
        rows.iter_mut().for_each(|row| row.ratio = row.time_us / first);
        Ok(rows)
    }

    fn prepare(&self, way: &Way) -> Result<Prepared, raglan::Error> {
        let shape = AttentionShape {
            num_heads: self.sizes.heads,
            num_kv_heads: self.sizes.kv_heads,
            head_dim: HEAD_DIM,
            groups: vec![KvGroup { window: None, kv: self.types.kv }],
            numerics: way.numerics,
        };
        let limits = StepLimits { max_batch_tokens: 64, max_sequences: 64, max_adjustments: 1 };
        let planner = Planner::new(shape, self.class, self.gpu.limits(), &limits);
        let plan = planner.plan(&way.batch);
        let list = |bytes: &[u8]| -> Result<Buffer, raglan::Error> {
            let buffer = self.gpu.buffer("list", bytes.len() as u64)?;
            if !bytes.is_empty() {
                self.gpu.upload(&buffer, 0, bytes)?;
            }
            Ok(buffer)
        };
        let partials = (self.sizes.kv_heads * plan.partials.max(1)) as u64;
        Ok(Prepared {
            items: list(bytemuck::cast_slice(&plan.items))?,
            merges: list(bytemuck::cast_slice(&plan.merges))?,
            parts: list(bytemuck::cast_slice(&plan.parts))?,
            sums: self.gpu.buffer("sums", 4 * partials * HEAD_DIM as u64)?,
            weights: self.gpu.buffer("weights", 8 * partials)?,
            vector: plan
                .passes
                .iter()
                .map(|pass| planner.vector_schedule(0, Picked::Rules, pass.vector_packed_rows).clone())
                .collect(),
            merge: planner.merge_schedule(),
            tiles: planner.tiles(0).to_vec(),
            paged: way.paged,
            plan,
        })
    }
}

/// A way with its plan on the adapter.
struct Prepared {
    plan: Plan,
    items: Buffer,
    merges: Buffer,
    parts: Buffer,
    sums: Buffer,
    weights: Buffer,
    /// Of each pass.
    vector: Vec<Schedule>,
    merge: Schedule,
    tiles: Vec<TileForm>,
    paged: bool,
}

impl Prepared {
    /// µs for one layer.
    fn time(&self, bench: &Bench, repeats: usize) -> Result<f64, raglan::Error> {
        let mut recorder = bench.gpu.begin_step(&bench.ring);
        let Bench { types, sizes, .. } = bench;
        let params = AttentionParams {
            num_heads: sizes.heads as u32,
            group: (sizes.heads / sizes.kv_heads) as u32,
            head_dim: HEAD_DIM as u32,
            slots: bench.slots as u32,
            window: 0,
            scale_log2: (std::f64::consts::LOG2_E / (HEAD_DIM as f64).sqrt()) as f32,
            out_stride: (sizes.heads * HEAD_DIM) as u32,
            partials: self.plan.partials as u32,
            first_item: 0,
        };
        let kv_heads = sizes.kv_heads as u32;
        for [k, v] in bench.layers.iter().cycle().take(repeats) {
            let Bench { q, out, scales, pages, .. } = bench;
            let buffers = [q, k, v, &self.items, out, &self.sums, &self.weights, scales, pages];
            for (pass, schedule) in self.plan.passes.iter().zip(&self.vector) {
                let kernel = if self.paged { &*PAGED } else { &vector::KERNEL };
                let rows = vector::KERNEL.value(schedule, "ROWS") as usize;
                let blocks = pass.vector_packed_rows.div_ceil(rows) as u32;
                let vector = kernel.variant(&[types.act, Part::Kv(types.kv), types.team], schedule.clone());
                let mut forms = vec![(&pass.vector, [kv_heads, blocks, pass.vector.len() as u32], vector)];
                for ((items, rows), tile) in pass.tiles.iter().zip(pass.tile_packed_rows).zip(&self.tiles) {
                    let tiles = rows.div_ceil(tile.packed_rows) as u32;
                    forms.push((items, [items.len() as u32, tiles, kv_heads], types.tile_variant(tile, types.kv)));
                }
                for (items, workgroups, variant) in forms {
                    let params = AttentionParams { first_item: items.start as u32, ..params };
                    let buffers = &buffers.map(Into::into)[..variant.kernel.bindings.len()];
                    recorder.dispatch(&variant, buffers, bytemuck::bytes_of(&params), workgroups);
                }
                let params = AttentionMergeParams {
                    group: params.group,
                    head_dim: HEAD_DIM as u32,
                    head_stride: HEAD_DIM as u32,
                    out_stride: params.out_stride,
                    partials: params.partials,
                    first_merge: pass.merges.start as u32,
                };
                let variant = merge::KERNEL.variant(&[types.act, types.reduce], self.merge.clone());
                let buffers = [&self.merges, &self.parts, &self.sums, &self.weights, &bench.out].map(Into::into);
                let workgroups = [pass.merges.len() as u32, pass.merge_packed_rows as u32, kv_heads];
                recorder.dispatch(&variant, &buffers, bytemuck::bytes_of(&params), workgroups);
            }
        }
        let started = Instant::now();
        recorder.submit()?.collect()?;
        Ok(started.elapsed().as_secs_f64() * 1e6 / repeats as f64)
    }
}
