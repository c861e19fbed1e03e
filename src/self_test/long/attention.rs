//! RoPE, the append and attention at positions past 2^20, against f64 over every key.

use crate::batch::{Batch, StepLimits};
use crate::cost::AdapterClass;
use crate::gpu::{Buffer, Gpu};
use crate::kv_cache::{KvLayer, KvShape, LayerShape};
use crate::ops::{Dtype, Kernels, Ops, Partials, RopeShape, Rows, Types};
use crate::plan::{AttentionShape, KvGroup, Numerics, Planner};
use crate::segments::Segment;
use crate::self_test::data::Random;
use crate::self_test::twins::attention_wanted;
use crate::self_test::{Adapters, runs::dtypes};
use crate::weights;
use half::f16;
use raglan_shaders::attention::{AttentionItem, TwinSequence, merge::AttentionMerge};
use raglan_shaders::rope_append::{self, RopeAppendParams};
use raglan_shaders::{KvType, Tolerance, Wanted};

const HEADS: usize = 4;
const DIM: usize = 16;
const SLOTS: usize = (1 << 20) + (1 << 17);
/// Of the first token that is computed.
const POSITION: usize = (1 << 20) + 4321;
/// Where its sequence lies: the later positions in front.
const SEGMENTS: [Segment; 2] = [
    Segment { first_slot: 131_072, first_position: 0, count: 1_000_000 },
    Segment { first_slot: 16, first_position: 1_000_000, count: 100_000 },
];
/// Keys that head h of the first token sees as large as all others together are, four a head.
const NEEDLES: [usize; 16] = [
    0,
    1,
    1023,
    1024,
    65_535,
    65_536,
    131_071,
    131_072,
    131_073,
    262_147,
    524_288,
    999_999,
    1_000_000,
    1_048_575,
    1_048_576,
    POSITION - 1,
];

/// A token behind 2^20 others, and a few rows: what is turned, appended and attended is what f64 makes of all keys.
pub(super) fn check(adapters: &Adapters) -> Result<String, String> {
    let gpu = &adapters.plain;
    let mut found = Vec::new();
    // The vector form with split keys, and tiles; in the two types where the adapter has both.
    let (first, last) = (Dtype::F32, dtypes(gpu).last().copied().unwrap_or(Dtype::F32));
    for (dtype, class, rows) in [(first, AdapterClass::Hardware, 1), (last, AdapterClass::Software, 5)] {
        let share = Deep::new(gpu, dtype, class, rows).and_then(|deep| deep.check()).map_err(|error| match error {
            Failed::Engine(error) => error.to_string(),
            Failed::Differs(message) => format!("{dtype:?}, {class:?}, {rows} rows: {message}"),
        })?;
        found.push(format!("{dtype:?} {class:?} {share:.2}"));
    }
    Ok(format!("{} keys, of what rounding explains: {}", POSITION + 1, found.join(", ")))
}

enum Failed {
    Engine(crate::Error),
    Differs(String),
}

impl From<crate::Error> for Failed {
    fn from(error: crate::Error) -> Self {
        Failed::Engine(error)
    }
}

/// Arenas with more than a million tokens, and what a step over them needs.
struct Deep<'a> {
    gpu: &'a Gpu,
    kernels: Kernels,
    kv: KvLayer,
    shape: RopeShape,
    batch: Batch,
    inv_freq: Vec<f64>,
    qkv: (Rows, Vec<f32>),
    q: Rows,
    out: Rows,
}

impl<'a> Deep<'a> {
    fn new(gpu: &'a Gpu, dtype: Dtype, class: AdapterClass, rows: usize) -> Result<Deep<'a>, Failed> {
        let types = Types::of(gpu, dtype);
        let layer = LayerShape { group: 0, kv: types.kv };
        let kv_shape = KvShape { layers: vec![layer], num_kv_heads: 1, head_dim: DIM, rotate: false };
        let unread = gpu.buffer("unread", 256)?;
        let kv = KvLayer::new(gpu, &kv_shape, layer, SLOTS, &unread)?;
        let mut fill = weights::Random::new(gpu)?;
        let bytes = if types.kv == KvType::F16 { 2 } else { 4 };
        [&kv.k, &kv.v].into_iter().try_for_each(|arena| fill.fill_floats(arena, bytes))?;

        let groups = vec![KvGroup { window: None, kv: types.kv }];
        let numerics = Numerics::Fast;
        let attention = AttentionShape { num_heads: HEADS, num_kv_heads: 1, head_dim: DIM, groups, numerics };
        let limits = StepLimits { max_batch_tokens: 16, max_sequences: 1, max_adjustments: 1 };
        let kernels = Kernels::new(gpu, types, Planner::new(attention, class, gpu.limits(), &limits))?;
        let mut batch = Batch::new(1);
        batch.push((0..rows).map(|_| 0), POSITION, &[SEGMENTS]);
        let (k_col, stride) = (HEADS * DIM, (HEADS + 2) * DIM);
        let shape =
            RopeShape { num_heads: HEADS, num_kv_heads: 1, head_dim: DIM, rotary_dim: DIM, k_col, v_col: k_col + DIM };
        let values = Random::new(20).values(rows * stride);
        let buffer = |label, count: usize, bytes: usize| gpu.buffer(label, (count * bytes) as u64);
        let qkv = Rows { buffer: buffer("qkv", rows * stride, 4)?, stride };
        gpu.upload(&qkv.buffer, 0, bytemuck::cast_slice(&values))?;
        let of = |label| buffer(label, rows * HEADS * DIM, types.act_bytes());
        let q = Rows { buffer: of("q")?, stride: HEADS * DIM };
        let out = Rows { buffer: of("attended")?, stride: HEADS * DIM };
        let inv_freq = (0..DIM / 2).map(|i| 1e4f64.powf(-2.0 * i as f64 / DIM as f64)).collect();
        Ok(Deep { gpu, kernels, kv, shape, batch, inv_freq, qkv: (qkv, values), q, out })
    }

    /// The largest error as a share of what rounding explains.
    fn check(&self) -> Result<f64, Failed> {
        self.plant_needles()?;
        self.run()?;
        let mut worst = self.check_turned()?;
        let rows = self.batch.tokens();
        let keys = POSITION + rows;
        let (k, v) = (self.arena(&self.kv.k, keys)?, self.arena(&self.kv.v, keys)?);
        let cols = HEADS * DIM;
        let q = self.read(&self.q.buffer, 0, rows * cols, self.kernels.types.act_bytes())?;
        let met = self.read(&self.out.buffer, 0, rows * cols, self.kernels.types.act_bytes())?;
        let wanted = |row: usize, v: &[f64]| {
            let seen = (POSITION + row + 1) * DIM;
            let sequence = TwinSequence { q: &q[row * cols..][..cols], k: &k[..seen], v: &v[..seen] };
            attention_wanted(&sequence, HEADS, 1, DIM, 0, false)
        };
        let tolerance = self.tolerance(keys);
        for row in [0, rows - 1].into_iter().take(rows) {
            worst = worst.max(share("attention", tolerance, &met[row * cols..][..cols], &wanted(row, &v))?);
        }
        if rows == 1 {
            // Without the value of one key past 2^17 it is another result: the comparison bites.
            let mut without = v;
            without[131_073 * DIM..][..DIM].fill(0.0);
            if share("", tolerance, &met, &wanted(0, &without)).is_ok() {
                return Err(Failed::Differs("the key at 131073 makes no difference".to_owned()));
            }
        }
        Ok(worst)
    }

    /// Writes keys along the first token's queries, and values of their own.
    fn plant_needles(&self) -> Result<(), Failed> {
        let mut random = Random::new(21);
        for (place, needle) in NEEDLES.into_iter().enumerate() {
            let q = self.turned(place / 4 * DIM, POSITION);
            let length = q.iter().map(|x| x * x).sum::<f64>().sqrt();
            // A tenth or so of what a million keys weigh together: e^11.5 each.
            let key: Vec<f32> = q.iter().map(|x| (11.5 * (DIM as f64).sqrt() * x / (length * length)) as f32).collect();
            let segment = SEGMENTS.iter().rfind(|segment| segment.first_position <= needle);
            let segment = segment.expect("the first begins at 0");
            let slot = segment.first_slot + needle - segment.first_position;
            for (arena, values) in [(&self.kv.k, key), (&self.kv.v, random.values(DIM))] {
                let bytes = self.stored(&values);
                self.gpu.upload(arena, (slot * bytes.len()) as u64, &bytes)?;
            }
        }
        Ok(())
    }

    fn run(&self) -> Result<(), Failed> {
        let (gpu, batch, plan) = (self.gpu, &self.batch, self.kernels.planner.plan(&self.batch));
        let capacity = self.kernels.planner.capacity();
        let words = |label, count: usize| gpu.buffer(label, 4 * count.max(4) as u64);
        let partials = Partials {
            items: words("items", capacity.items * size_of::<AttentionItem>() / 4)?,
            merges: words("merges", capacity.merges * size_of::<AttentionMerge>() / 4)?,
            parts: words("parts", capacity.parts)?,
            sums: words("sums", capacity.partials * DIM)?,
            weights: words("weights", 2 * capacity.partials)?,
        };
        let places: Vec<[u32; 2]> = batch.positions.iter().zip(&batch.groups[0].slots).map(|(&p, &s)| [p, s]).collect();
        let places_buffer = words("places", 2 * batch.tokens())?;
        let table = rope_append::table(&self.inv_freq, 1.0, POSITION + batch.tokens());
        let table_buffer = gpu.buffer("rope", size_of_val(&table[..]) as u64)?;
        gpu.upload(&table_buffer, 0, bytemuck::cast_slice(&table))?;
        for (buffer, bytes) in [
            (&places_buffer, bytemuck::cast_slice(&places)),
            (&partials.items, bytemuck::cast_slice(&plan.items)),
            (&partials.merges, bytemuck::cast_slice(&plan.merges)),
            (&partials.parts, bytemuck::cast_slice(&plan.parts)),
        ] {
            if !bytes.is_empty() {
                gpu.upload(buffer, 0, bytes)?;
            }
        }
        let ring = gpu.step_ring(1, 16, 16)?;
        let mut ops = Ops { recorder: gpu.begin_step(&ring), kernels: &self.kernels, plan: &plan };
        let arenas = (&self.kv, SLOTS);
        ops.rope_append(&self.qkv.0, &places_buffer, batch.tokens(), &self.shape, &table_buffer, None, &self.q, arenas);
        ops.attention(&self.q, arenas, &self.shape, None, &partials, &self.out);
        ops.recorder.submit()?.collect()?;
        Ok(())
    }

    /// Queries and keys are turned to their positions within f32's rounding, and not to any 2^20 earlier.
    fn check_turned(&self) -> Result<f64, Failed> {
        let (mut worst, act) = (0.0f64, self.kernels.types.act_bytes());
        for (row, &slot) in self.batch.groups[0].slots.iter().enumerate() {
            let position = POSITION + row;
            for head in 0..=HEADS {
                let col = row * self.qkv.0.stride + head * DIM;
                let met = match head {
                    HEADS => self.read(&self.kv.k, slot as usize * DIM, DIM, self.kv_bytes())?,
                    head => self.read(&self.q.buffer, (row * HEADS + head) * DIM, DIM, act)?,
                };
                let wanted = |position: usize| {
                    let turned = self.turned(col, position);
                    let largest = turned.iter().fold(0.0f64, |most, value| most.max(value.abs()));
                    Wanted::scaled(turned, vec![largest; DIM])
                };
                worst = worst.max(share("RoPE", self.tolerance(4), &met, &wanted(position))?);
                if share("", self.tolerance(4), &met, &wanted(position - (1 << 20))).is_ok() {
                    return Err(Failed::Differs("a position less 2^20 turns alike".to_owned()));
                }
            }
        }
        Ok(worst)
    }

    /// The head whose columns begin at `col` of qkv, turned in f64.
    fn turned(&self, col: usize, position: usize) -> Vec<f64> {
        let head: Vec<f64> = self.qkv.1[col..][..DIM].iter().map(|&value| value.into()).collect();
        rope_append::twin(&RopeAppendParams::default(), &head, &[], &self.inv_freq, 1.0, position as u32)
    }

    fn tolerance(&self, chain: usize) -> Tolerance {
        let tolerance = Tolerance::f32(chain);
        if self.kernels.types.act_bytes() == 2 { tolerance.stored_f16() } else { tolerance }
    }

    fn kv_bytes(&self) -> usize {
        if self.kv.kv == KvType::F16 { 2 } else { 4 }
    }

    fn stored(&self, values: &[f32]) -> Vec<u8> {
        match self.kv.kv {
            KvType::F16 => {
                let halves: Vec<f16> = values.iter().map(|&value| f16::from_f32(value)).collect();
                bytemuck::cast_slice(&halves).to_vec()
            }
            _ => bytemuck::cast_slice(values).to_vec(),
        }
    }

    /// The rows of an arena by position.
    fn arena(&self, arena: &Buffer, keys: usize) -> Result<Vec<f64>, Failed> {
        let mut values = Vec::with_capacity(keys * DIM);
        for segment in SEGMENTS {
            let count = segment.count.min(keys - segment.first_position);
            values.extend(self.read(arena, segment.first_slot * DIM, count * DIM, self.kv_bytes())?);
        }
        Ok(values)
    }

    /// `count` numbers of `bytes` bytes from the number `first` on.
    fn read(&self, buffer: &Buffer, first: usize, count: usize, bytes: usize) -> Result<Vec<f64>, Failed> {
        let read = self.gpu.read(buffer, (first * bytes) as u64, (count * bytes) as u64)?;
        Ok(match bytes {
            2 => bytemuck::pod_collect_to_vec::<u8, f16>(&read).into_iter().map(f64::from).collect(),
            _ => bytemuck::pod_collect_to_vec::<u8, f32>(&read).into_iter().map(f64::from).collect(),
        })
    }
}

/// The largest error as a share of what is allowed.
fn share(what: &str, tolerance: Tolerance, met: &[f64], want: &Wanted) -> Result<f64, Failed> {
    let mut worst = 0.0f64;
    for (place, (allowed, (met, want))) in tolerance.allowed(want).iter().zip(met.iter().zip(&want.values)).enumerate()
    {
        let share = (met - want).abs() / allowed;
        // What is no number is no share either.
        if share.is_nan() || share > 1.0 {
            return Err(Failed::Differs(format!("{what} {place}: {met} for {want}, {share:.2} of what is allowed")));
        }
        worst = worst.max(share);
    }
    Ok(worst)
}
