//! Which schedule a kernel takes on this adapter.

use super::picks::Picks;
use super::{AttentionShape, Form, Kind, Numerics, Picked, Planner};
use crate::cost::AdapterClass;
use crate::schedules::linear::FEW_ROWS;
use crate::schedules::{LinearChoice, LinearShape, linear};
use raglan_shaders::attention::{coop, merge, tile, vector};
use raglan_shaders::{AdapterLimits, BLOCK, Kernel, KvType, Schedule, WeightFormat};
use raglan_shaders::{matmul, matvec, matvec_int8, move_rows};

/// Rows that norm their inputs in every workgroup at most: beyond, that costs more than a dispatch of its own.
const MOST_NORMED_ROWS: usize = 4;

/// A kernel for many query rows, as this adapter runs it.
#[derive(Debug, Clone)]
pub struct TileForm {
    /// `attention_tile` or `attention_coop`.
    pub kernel: &'static Kernel,
    /// Its schedule.
    pub schedule: Schedule,
    /// Packed rows to a workgroup.
    pub packed_rows: usize,
    /// How many times the operations of f32 lanes it does at once.
    pub rate: usize,
}

/// Registers of a compute unit, as NVIDIA and AMD make them: 64 Ki of 32 bits.
const UNIT_REGISTERS: u32 = 64 << 10;

/// The shape of an item of attention, as far as it decides which schedules are legal.
fn dims(shape: &AttentionShape, kv: KvType) -> [u32; 4] {
    let head_stride = kv.head_stride(shape.head_dim).expect("the heads' width was checked");
    [1, 1, head_stride as u32, kv.word_values() as u32]
}

/// Schedules of the vector form for 1, 2, 4 and 8 packed rows to a workgroup; of fewer where the adapter allows no more.
///
/// A team as wide as a row of K in the words that a lane loads has one word a lane and key, so that its loads are contiguous and the
/// registers of a lane few; four keys of K and V at once are 128 bytes a lane, and with a dozen subgroups 48 KiB a unit in flight,
/// where 3 TB/s at 700 ns need 16.
pub(super) fn vector_schedules(
    shape: &AttentionShape,
    kv: KvType,
    class: AdapterClass,
    adapter: &AdapterLimits,
) -> [Schedule; 4] {
    let dims = dims(shape, kv);
    let words = dims[2] / kv.word_values() as u32;
    let legal = vector::KERNEL.legal_schedules(adapter, &dims);
    [1, 2, 4, 8].map(|rows| {
        let wanted = match class {
            // Shorter code is compiled sooner, and a software adapter has no latency to hide.
            AdapterClass::Software => [rows, 8, 32, 2],
            AdapterClass::Hardware => [rows, words.min(16), 128, 4],
        };
        let distance = |schedule: &Schedule| {
            let met = ["ROWS", "TEAM", "LANES", "KEYS"].map(|name| vector::KERNEL.value(schedule, name));
            std::array::from_fn::<u32, 4, _>(|i| met[i].ilog2().abs_diff(wanted[i].ilog2()))
        };
        let nearest =
            legal.iter().filter(|schedule| vector::KERNEL.value(schedule, "ROWS") <= rows).min_by_key(|s| distance(s));
        nearest.expect("a row, a key and a lane a team are legal everywhere").clone()
    })
}

/// The kernels for few and for many query rows; one where all rows take the same: in a deterministic run, which adds in one
/// order, and on a software adapter, which computes what idle lanes would.
pub(super) fn tile_forms(
    shape: &AttentionShape,
    kv: KvType,
    class: AdapterClass,
    adapter: &AdapterLimits,
) -> Vec<TileForm> {
    let dims = dims(shape, kv);
    let is_deterministic = shape.numerics != Numerics::Fast;
    match class {
        // A lane a row; a deterministic run takes tiles for single rows too.
        AdapterClass::Software => {
            let lanes = if is_deterministic { 16 } else { 32 };
            vec![tile_form(tile::KERNEL.schedule(&[("LANES", lanes), ("HEAD_STRIDE", dims[2])]))]
        }
        AdapterClass::Hardware if is_deterministic => vec![lane_tile(&dims, adapter, 1)],
        AdapterClass::Hardware => {
            let coop = |subgroups| (kv != KvType::F32).then(|| coop_tile(&dims, adapter, subgroups))?;
            coop(2).zip(coop(4)).map_or_else(|| [1, 2].map(|rows| lane_tile(&dims, adapter, rows)), Into::into).to_vec()
        }
    }
}

fn tile_form(schedule: Schedule) -> TileForm {
    let packed_rows = tile::packed_rows(&schedule) as usize;
    TileForm { kernel: &tile::KERNEL, schedule, packed_rows, rate: 1 }
}

/// Tiles of f32 lanes with so many packed rows to a team: as few columns to a lane as keep its registers below half of those
/// it may have, and as many keys staged as workgroup memory holds.
fn lane_tile(dims: &[u32], adapter: &AdapterLimits, rows: u32) -> TileForm {
    let team = if dims[2] > 128 { 8 } else { 4 };
    let wanted = [128, team, rows, 8, 32];
    let legal = tile::KERNEL.legal_schedules(adapter, dims);
    let distance = |schedule: &&Schedule| {
        let far = |i: usize| schedule.values[i].abs_diff(wanted[i]);
        [far(1), far(2), far(0), far(3), far(4)]
    };
    tile_form(legal.iter().min_by_key(distance).expect("a lane a row is legal everywhere").clone())
}

/// Tiles of cooperative matrices, a subgroup of each workgroup for as many packed rows as a matrix has, with as many keys
/// staged as workgroup memory holds; `None` where the adapter has none.
fn coop_tile(dims: &[u32], adapter: &AdapterLimits, subgroups: u32) -> Option<TileForm> {
    let legal = coop::KERNEL.legal_schedules(adapter, dims);
    let value = |schedule: &Schedule, name| coop::KERNEL.value(schedule, name);
    let few = legal.into_iter().filter(|schedule| value(schedule, "SUBGROUPS") <= subgroups);
    let schedule = few.max_by_key(|schedule| ["SUBGROUPS", "KEYS"].map(|name| value(schedule, name)))?;
    let packed_rows = coop::packed_rows(&schedule, adapter.coop_side) as usize;
    Some(TileForm { kernel: &coop::KERNEL, schedule, packed_rows, rate: 8 })
}

impl Kind {
    /// The kernel for many query rows: of tile `index`, or as it was picked.
    pub(super) fn tile(&self, picked: Picked, index: usize) -> &TileForm {
        self.attention[Form::Tile as usize].tile(picked).unwrap_or(&self.tiles[index.min(self.tiles.len() - 1)])
    }

    /// Packed rows to a tile of each height.
    pub(super) fn heights(&self, picks: Picks) -> [usize; 2] {
        [0, 1].map(|index| self.tile(picks[1 + index], index).packed_rows)
    }

    /// The schedule of the vector form for items of up to `packed_rows` packed rows.
    pub(super) fn vector_schedule(&self, picked: Picked, packed_rows: usize) -> &Schedule {
        if let Some(choice) = self.attention[Form::Vector as usize].choice(picked) {
            return &choice.schedule;
        }
        let wanted = packed_rows.clamp(1, vector::MOST_ROWS as usize).next_power_of_two();
        &self.vector[wanted.ilog2() as usize]
    }

    /// Packed rows to a workgroup of the vector form.
    pub(super) fn vector_rows(&self, picked: Picked, packed_rows: usize) -> usize {
        vector::KERNEL.value(self.vector_schedule(picked, packed_rows), "ROWS") as usize
    }
}

impl Planner {
    /// The kernels for many query rows of a KV group by hand-written rules: for few of them and for more, or one for all.
    pub fn tiles(&self, group: usize) -> &[TileForm] {
        &self.kinds[self.kind_of[group]].tiles
    }

    /// The kernel for many query rows of a KV group: of tile `index`, or as it was picked.
    pub fn tile(&self, group: usize, picked: Picked, index: usize) -> &TileForm {
        self.kinds[self.kind_of[group]].tile(picked, index)
    }

    /// The schedule of the vector form for items of a KV group of up to `packed_rows` packed rows.
    pub fn vector_schedule(&self, group: usize, picked: Picked, packed_rows: usize) -> &Schedule {
        self.kinds[self.kind_of[group]].vector_schedule(picked, packed_rows)
    }

    /// The schedule of the merge.
    pub fn merge_schedule(&self) -> Schedule {
        match self.terms.class {
            AdapterClass::Software => merge::KERNEL.schedule(&[("LANES", 32), ("PARTS", 1)]),
            AdapterClass::Hardware => merge::KERNEL.default_schedule(),
        }
    }

    /// Workgroups of the vector form that run at once: as many as the registers of a unit hold, but no more than four, which
    /// have enough reads in flight.
    pub(super) fn vector_wave(&self, kind: &Kind, packed_rows: usize) -> usize {
        let [lanes, team, rows, keys, head_stride] = kind.vector_schedule(Picked::Rules, packed_rows).values[..] else {
            return 1;
        };
        let resident = match self.terms.class {
            AdapterClass::Software => 1,
            AdapterClass::Hardware => {
                UNIT_REGISTERS
                    / (lanes * vector::registers(team, rows, keys, head_stride, kind.kv.word_values() as u32))
                        .max(UNIT_REGISTERS / 4)
            }
        };
        self.terms.class.units() * resident.max(1) as usize
    }

    /// The schedule of moves: barriers are dear on a software adapter, so it takes few lanes.
    pub fn move_schedule(&self) -> Schedule {
        match self.terms.class {
            AdapterClass::Software => move_rows::KERNEL.schedule(&[("LANES", 32), ("TILE", 4)]),
            AdapterClass::Hardware => move_rows::KERNEL.default_schedule(),
        }
    }

    /// The schedule of a kernel with one workgroup a row of `cols` columns.
    pub fn row_schedule(&self, kernel: &'static Kernel, cols: usize) -> Schedule {
        let wanted = match self.terms.class {
            AdapterClass::Software => 32,
            AdapterClass::Hardware => 256.min(cols.div_ceil(4).next_power_of_two()),
        };
        let lanes = kernel.tunables[0].values.iter().copied().min_by_key(|&lanes| lanes.abs_diff(wanted as u32));
        kernel.schedule(&[("LANES", lanes.expect("a tunable has values"))])
    }

    /// How a few rows run on hardware: by what of [`matvec`]'s schedules is legal there, if anything.
    ///
    /// Eight words of 16 bytes a lane in flight, in workgroups of 64 lanes of which a multiprocessor holds eight and more, are
    /// 64 KiB, where 3 TB/s over 132 of them at 700 ns need 16. What a lane does with x, and in 8 bits its rounding, serves the
    /// columns of its workgroup: eight where the weights are 4 bits and instructions count. More rows, and the longer units of some
    /// formats, leave registers for four words.
    fn few_rows(&self, rows: usize, cols: usize, inner: usize, format: WeightFormat) -> Option<LinearChoice> {
        use WeightFormat::{I4G32, I4G128, Q4_0, Q4_1, Q4K, Q5K, Q6K};
        if rows > FEW_ROWS || self.terms.class == AdapterClass::Software || self.is_deterministic() {
            return None;
        }
        let is_int8 = self.terms.int8 && format.has_blocks();
        let kernel = if is_int8 { &matvec_int8::KERNEL } else { &matvec::KERNEL };
        let units = (inner.next_multiple_of(BLOCK) / format.unit_values()) as u32;
        // Narrow matrices have few workgroups, so that each takes more lanes.
        let widest = if cols <= 2048 { 128 } else { 64 };
        let lanes = units.next_power_of_two().clamp(32, widest);
        let tile_m = (rows as u32).next_power_of_two();
        let (tile_n, unroll) = match format {
            _ if is_int8 => (if tile_m == 8 { 4 } else { 8 }, 1),
            Q4_0 | Q4_1 | Q4K | I4G32 | I4G128 if cols >= 4096 => (8, 1),
            Q5K | Q6K => (4, 1),
            _ if tile_m <= 2 && units >= 2 * lanes => (4, 2),
            _ => (4, 1),
        };
        let shape = [rows as u32, cols as u32, inner as u32];
        let tiles = [(tile_m, tile_n, unroll), (tile_m, 4, 1), (tile_m, 8, 1), (tile_m.min(4), 8, 1)];
        let schedules = tiles.map(|(tile_m, tile_n, unroll)| {
            kernel.schedule(&[("LANES", lanes), ("TILE_M", tile_m), ("TILE_N", tile_n), ("UNROLL", unroll)])
        });
        let schedule = schedules.into_iter().find(|schedule| (kernel.legal)(&self.terms.limits, &shape, schedule))?;
        Some(LinearChoice::whole(kernel, schedule))
    }

    /// How `[rows, inner] · [cols, inner]ᵀ` runs on this adapter.
    pub fn linear(&self, shape: &LinearShape) -> LinearChoice {
        let forced = self.forced_linear.as_ref().filter(|choice| linear::legal(choice, shape, &self.terms));
        if let Some(choice) = forced {
            return choice.clone();
        }
        self.tabled(shape).cloned().unwrap_or_else(|| self.linear_rules(shape))
    }

    /// The same by hand-written rules. A deterministic run takes one schedule for every number of rows, since another may sum
    /// in another order.
    pub fn linear_rules(&self, shape: &LinearShape) -> LinearChoice {
        let &LinearShape { rows, cols, inner, format, normed, .. } = shape;
        if let Some(choice) = self.few_rows(rows, cols, inner, format) {
            return LinearChoice { fused: normed && rows <= MOST_NORMED_ROWS, ..choice };
        }
        let rows = if self.shape.numerics == Numerics::Fast { rows } else { usize::MAX };
        match self.terms.class {
            // Few tile heights, since a software adapter takes about a second to compile a large tile.
            AdapterClass::Software => {
                let (tile_m, tile_n) = match rows {
                    1 => (1, 4),
                    2..=4 => (4, 8),
                    _ => (8, 8),
                };
                let settings = [("LANES_M", 1), ("LANES_N", 32), ("TILE_M", tile_m), ("TILE_N", tile_n), ("STAGES", 0)];
                LinearChoice::whole(&matmul::KERNEL, matmul::KERNEL.schedule(&settings))
            }
            AdapterClass::Hardware => self.product(rows, cols, inner),
        }
    }
}
