//! RoPE, the append and attention at positions past 2^20, against f64 over every key.

use crate::batch::{Batch, StepLimits};
use crate::cost::AdapterClass;
use crate::gpu::{Buffer, Gpu};
use crate::kv_cache::{KvLayer, KvShape, LayerShape};
use crate::ops::{Dtype, Kernels, Ops, Partials, RopeShape, Rows, Types};
use crate::plan::{AttentionShape, KvGroup, Numerics, Planner};
use crate::segments::Segment;
use crate::self_test::data::Random;
use crate::self_test::twins::{attention_wanted, attention_wanted_packed, half_step};
use crate::self_test::{Adapters, runs::dtypes};
use crate::weights;
use half::f16;
use raglan_shaders::attention::{AttentionItem, TwinSequence, merge::AttentionMerge};
use raglan_shaders::kv_rows::{Decoded, Scale, Side, rotate};
use raglan_shaders::rope_append::{self, RopeAppendParams};
use raglan_shaders::{KvType, Tolerance, Wanted};

const HEADS: usize = 4;
const DIM: usize = 16;
const SLOTS: usize = (1 << 20) + (1 << 17);
/// Rows that an arena of quantised rows repeats: a prime, so that no power of two leads to an equal row.
const POOL: usize = 4099;

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

/// A token behind 2^20 others, and a few rows, in floats and quantised: what is turned, appended and attended is what f64 makes of
/// all keys.
pub(super) fn check(adapters: &Adapters) -> Result<String, String> {
    let gpu = &adapters.plain;
    let mut found = Vec::new();
    // The vector form with split keys, and tiles; floats in the two types where the adapter has both.
    let (first, last) = (Dtype::F32, dtypes(gpu).last().copied().unwrap_or(Dtype::F32));
    let (hardware, software) = (AdapterClass::Hardware, AdapterClass::Software);
    for (dtype, kv, class, rows) in [
        (first, Types::of(gpu, first).kv, hardware, 1),
        (last, Types::of(gpu, last).kv, software, 5),
        (first, KvType::Int8, hardware, 1),
        (first, KvType::K8V4, software, 5),
        (first, KvType::Int4, hardware, 1),
    ] {
        let share =
            Deep::new(gpu, dtype, kv, class, rows).and_then(|deep| deep.check()).map_err(|error| match error {
                Failed::Engine(error) => error.to_string(),
                Failed::Differs(message) => format!("{kv}, {class:?}, {rows} rows: {message}"),
            })?;
        found.push(format!("{kv} {class:?} {share:.2}"));
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
    /// Keys and values that quantised arenas repeat.
    pool: Vec<[Decoded; 2]>,
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
    fn new(gpu: &'a Gpu, dtype: Dtype, kind: KvType, class: AdapterClass, rows: usize) -> Result<Deep<'a>, Failed> {
        let types = Types::of(gpu, dtype);
        let layer = LayerShape { group: 0, kv: kind };
        let kv_shape = KvShape { layers: vec![layer], num_kv_heads: 1, head_dim: DIM, rotate: true };
        let head_stride = kv_shape.head_stride(kind);
        let unread = gpu.buffer("unread", 256)?;
        let kv = KvLayer::new(gpu, &kv_shape, layer, SLOTS, &unread)?;
        let mut pool = Vec::new();
        if kind.is_quantised() {
            pool = fill_packed(gpu, &kv, head_stride)?;
        } else {
            let mut fill = weights::Random::new(gpu)?;
            let bytes = if kind == KvType::F16 { 2 } else { 4 };
            [&kv.k, &kv.v].into_iter().try_for_each(|arena| fill.fill_floats(arena, bytes))?;
        }

        let groups = vec![KvGroup { window: None, kv: kind }];
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
        let of = |label, width: usize| buffer(label, rows * HEADS * width, types.act_bytes());
        let q = Rows { buffer: of("q", head_stride)?, stride: HEADS * head_stride };
        let out = Rows { buffer: of("attended", DIM)?, stride: HEADS * DIM };
        let inv_freq = (0..DIM / 2).map(|i| 1e4f64.powf(-2.0 * i as f64 / DIM as f64)).collect();
        let qkv = (qkv, values);
        Ok(Deep { gpu, pool, kernels, kv, shape, batch, inv_freq, qkv, q, out })
    }

    /// The largest error as a share of what rounding explains.
    fn check(&self) -> Result<f64, Failed> {
        self.plant_needles()?;
        self.run()?;
        let turned = self.check_turned()?;
        // A key that is quantised is off by up to half a step as it should be, which tells nothing.
        let mut worst = if self.kv.kv.is_quantised() { 0.0 } else { turned };
        let rows = self.batch.tokens();
        let keys = POSITION + rows;
        let [[k, v], [k_terms, v_terms]] = self.arenas(keys)?;
        let (cols, act) = (HEADS * DIM, self.kernels.types.act_bytes());
        let padded = self.read(&self.q.buffer, 0, rows * self.q.stride, act)?;
        let q: Vec<f64> = padded.chunks_exact(self.head_stride()).flat_map(|head| &head[..DIM]).copied().collect();
        let met = self.read(&self.out.buffer, 0, rows * cols, act)?;
        let wanted = |row: usize, v: &[f64]| {
            let seen = (POSITION + row + 1) * DIM;
            let sequence = TwinSequence { q: &q[row * cols..][..cols], k: &k[..seen], v: &v[..seen] };
            match self.kv.kv.is_quantised() {
                true => {
                    let terms = (&k_terms[..seen], &v_terms[..seen]);
                    let is_vector = rows == 1;
                    attention_wanted_packed(&sequence, terms, HEADS, 1, DIM, is_vector)
                }
                false => attention_wanted(&sequence, HEADS, 1, DIM, 0, false),
            }
        };
        let tolerance = self.tolerance(keys);
        for row in [0, rows - 1].into_iter().take(rows) {
            worst = worst.max(share("attention", tolerance, &met[row * cols..][..cols], &wanted(row, &v))?);
        }
        // Without the value of one key past 2^17 it is another result: the comparison bites.
        let mut without = v;
        without[131_073 * DIM..][..DIM].fill(0.0);
        if share("", tolerance, &met[..cols], &wanted(0, &without)).is_ok() {
            return Err(Failed::Differs("the key at 131073 makes no difference".to_owned()));
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
            let mut key: Vec<f64> = q.iter().map(|x| 11.5 * (DIM as f64).sqrt() * x / (length * length)).collect();
            let value: Vec<f64> = random.values(DIM).into_iter().map(f64::from).collect();
            if self.kv.kv.rotates_keys() {
                rotate(&mut key, self.kv.rotation);
            }
            let slot = self.slot(needle);
            let [(k, k_scale), (v, v_scale)] = encoded(self.kv.kv, [&key, &value], self.head_stride());
            for (arena, bytes) in [(&self.kv.k, k), (&self.kv.v, v)] {
                self.gpu.upload(arena, (slot * bytes.len()) as u64, &bytes)?;
            }
            let words = self.kv.kv.scale_words(k_scale, v_scale);
            if !words.is_empty() {
                self.gpu.upload(&self.kv.scales, (slot * 4 * words.len()) as u64, bytemuck::cast_slice(&words))?;
            }
        }
        Ok(())
    }

    fn slot(&self, position: usize) -> usize {
        let segment = SEGMENTS.iter().rfind(|segment| segment.first_position <= position);
        let segment = segment.expect("the first begins at 0");
        segment.first_slot + position - segment.first_position
    }

    /// Columns from a head to the next in q.
    fn head_stride(&self) -> usize {
        self.q.stride / HEADS
    }

    fn run(&self) -> Result<(), Failed> {
        let (gpu, batch, plan) = (self.gpu, &self.batch, self.kernels.planner.plan(&self.batch));
        let capacity = self.kernels.planner.capacity();
        let words = |label, count: usize| gpu.buffer(label, 4 * count.max(4) as u64);
        let partials = Partials {
            items: words("items", capacity.items * size_of::<AttentionItem>() / 4)?,
            merges: words("merges", capacity.merges * size_of::<AttentionMerge>() / 4)?,
            parts: words("parts", capacity.parts)?,
            sums: words("sums", capacity.partials * self.head_stride())?,
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

    /// Queries and keys are turned to their positions within f32's rounding, and not to those 2^17 and 2^20 earlier.
    fn check_turned(&self) -> Result<f64, Failed> {
        let (mut worst, act) = (0.0f64, self.kernels.types.act_bytes());
        for (row, &slot) in self.batch.groups[0].slots.iter().enumerate() {
            let position = POSITION + row;
            for head in 0..=HEADS {
                let col = row * self.qkv.0.stride + head * DIM;
                let (met, half_step) = match head {
                    HEADS => self.row(slot as usize)?,
                    head => {
                        (self.read(&self.q.buffer, row * self.q.stride + head * self.head_stride(), DIM, act)?, 0.0)
                    }
                };
                let wanted = |position: usize| {
                    let mut turned = self.turned(col, position);
                    let mut largest = turned.iter().fold(0.0f64, |most, value| most.max(value.abs()));
                    if self.kv.kv.rotates_keys() {
                        rotate(&mut turned, self.kv.rotation);
                        largest *= (DIM as f64).sqrt();
                    }
                    Wanted { values: turned, scale: vec![largest; DIM], inherited: vec![half_step; DIM] }
                };
                worst = worst.max(share("RoPE", self.tolerance(4), &met, &wanted(position))?);
                for bit in [17, 20] {
                    if share("", self.tolerance(4), &met, &wanted(position - (1 << bit))).is_ok() {
                        return Err(Failed::Differs(format!("a position less 2^{bit} turns alike")));
                    }
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

    /// A slot's key as the adapter has it, and how far rounding to its type may have moved a column.
    fn row(&self, slot: usize) -> Result<(Vec<f64>, f64), Failed> {
        if !self.kv.kv.is_quantised() {
            return Ok((self.read(&self.kv.k, slot * DIM, DIM, self.kv_bytes())?, 0.0));
        }
        let (key, scale) = self.decoded(slot, Side::Key)?;
        Ok((key.values, half_step(scale.step)))
    }

    /// What the adapter holds in a slot of a quantised type.
    fn decoded(&self, slot: usize, side: Side) -> Result<(Decoded, Scale), Failed> {
        let (kv, arena) = (self.kv.kv, if side == Side::Key { &self.kv.k } else { &self.kv.v });
        let (row_bytes, scale_bytes) = (kv.side_bytes(side, self.head_stride()), kv.scale_bytes());
        let bytes = self.gpu.read(arena, (slot * row_bytes) as u64, row_bytes as u64)?;
        let words = self.gpu.read(&self.kv.scales, (slot * scale_bytes) as u64, scale_bytes as u64)?;
        let scale = kv.scale_in(side, &bytemuck::pod_collect_to_vec::<u8, u32>(&words));
        Ok((kv.decode(side, &bytes, scale, DIM), scale))
    }

    /// Keys and values by position, and how large the terms are that they are the sum of, where they are quantised.
    fn arenas(&self, keys: usize) -> Result<[[Vec<f64>; 2]; 2], Failed> {
        if !self.kv.kv.is_quantised() {
            return Ok([[self.arena(&self.kv.k, keys)?, self.arena(&self.kv.v, keys)?], Default::default()]);
        }
        let [mut values, mut terms]: [[Vec<f64>; 2]; 2] = Default::default();
        for (place, side) in [Side::Key, Side::Value].into_iter().enumerate() {
            for position in 0..keys {
                let slot = self.slot(position);
                let read;
                let row = if position >= POSITION || NEEDLES.contains(&position) {
                    read = self.decoded(slot, side)?.0;
                    &read
                } else {
                    &self.pool[slot % POOL][place]
                };
                values[place].extend(&row.values);
                terms[place].extend(&row.magnitudes);
            }
        }
        Ok([values, terms])
    }

    /// The rows of an arena of floats by position.
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

/// A slot's key and value, packed, with their scales.
fn encoded(kv: KvType, [key, value]: [&[f64]; 2], head_stride: usize) -> [(Vec<u8>, Scale); 2] {
    [kv.encode(Side::Key, key, head_stride), kv.encode(Side::Value, value, head_stride)]
}

/// Fills arenas of a quantised type with rows that a host encoded; slot s has row s % POOL.
fn fill_packed(gpu: &Gpu, kv: &KvLayer, head_stride: usize) -> Result<Vec<[Decoded; 2]>, Failed> {
    let (mut random, mut pool) = (Random::new(22), Vec::new());
    let (mut bytes, mut words): ([Vec<u8>; 2], Vec<u32>) = Default::default();
    for _ in 0..POOL {
        let rows =
            [random.values(DIM), random.values(DIM)].map(|row| row.into_iter().map(f64::from).collect::<Vec<_>>());
        let [(k, k_scale), (v, v_scale)] = encoded(kv.kv, [&rows[0], &rows[1]], head_stride);
        pool.push([kv.kv.decode(Side::Key, &k, k_scale, DIM), kv.kv.decode(Side::Value, &v, v_scale, DIM)]);
        words.extend(kv.kv.scale_words(k_scale, v_scale));
        bytes[0].extend(k);
        bytes[1].extend(v);
    }
    let [k, v] = bytes;
    for (arena, bytes) in [(&kv.k, &k[..]), (&kv.v, &v[..]), (&kv.scales, bytemuck::cast_slice(&words))] {
        let mut all = bytes.repeat(SLOTS.div_ceil(POOL));
        all.truncate(bytes.len() / POOL * SLOTS);
        gpu.upload(arena, 0, &all)?;
    }
    Ok(pool)
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
