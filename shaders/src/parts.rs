//! The parts that kernels link: a weight format, an activation type, a KV type, a way to reduce; a file of `parts/` or a few.

use crate::link::wgsl;
use crate::{KvType, WeightFormat};

/// What a part defines; parts of one kind define the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartKind {
    /// `weight_block`, and `weight_fetch` with what decodes a unit of it
    Weight,
    /// The same of block formats, and `weight_quants`
    Quants,
    /// `act`, `act4`, `act_load`, `act_store`
    Act,
    /// What differs by the type of keys and values. For `rope_append`: `kv_cell`, `KV_KEY_COLS`, `KV_VALUE_COLS`, `kv_key_cell`,
    /// `kv_value_cell`. For attention in fours: `kv4`, `kv_key_piece`, `kv_key_quad` and so on. In words: `kv_key_word`,
    /// `KV_QUADS`, `kv_query`, `kv_keys`, `kv_dot`, `kv_score`, `kv_values`, `kv_value_scale`. For all: `kv_scale`, `KV_SCALE_WORDS`
    Kv,
    /// `input_row`, `input_load`, `input_gain`, `INPUT_NORMED`
    Input,
    /// `ReduceBuiltins`, `reduce_sum4`, `reduce_max4`
    Reduce,
    /// `TeamBuiltins`, `team_lane`, `team_sum`
    Team,
    /// `coop_a`, `coop_b`, `coop_c`, `COOP_SIDE`
    Coop,
    /// `epilogue_pair`
    Epilogue,
}

/// One or a few files to link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Decodes a stored weight row.
    Weight(WeightFormat),
    /// Matmul and attention inputs in f32.
    ActF32,
    /// Matmul and attention inputs in f16.
    ActF16,
    /// Rows of activations, as they are.
    InputAct,
    /// Rows of the residual stream, normed on the way.
    InputNormed,
    /// Keys and values of a type.
    Kv(KvType),
    /// Workgroup memory alone.
    ReduceShared,
    /// Subgroups first, then workgroup memory.
    ReduceSubgroup,
    /// Teams of lanes through workgroup memory.
    TeamShared,
    /// Teams of lanes within subgroups.
    TeamSubgroup,
    /// Cooperative matrices of side 16.
    Coop16,
    /// Cooperative matrices of side 8.
    Coop8,
    /// Products in f32, stored or added to what is there.
    EpiloguePlain,
    /// Products of gate and up in neighbouring columns, joined by the activation.
    EpilogueGated,
}

impl Part {
    /// Whether it may be linked where `kind` is wanted.
    pub fn is(self, kind: PartKind) -> bool {
        match (self, kind) {
            (Part::Weight(format), PartKind::Quants) => format.has_blocks(),
            _ => self.kind() == kind,
        }
    }

    /// What it defines.
    pub fn kind(self) -> PartKind {
        match self {
            Part::Weight(_) => PartKind::Weight,
            Part::ActF32 | Part::ActF16 => PartKind::Act,
            Part::InputAct | Part::InputNormed => PartKind::Input,
            Part::Kv(_) => PartKind::Kv,
            Part::ReduceShared | Part::ReduceSubgroup => PartKind::Reduce,
            Part::TeamShared | Part::TeamSubgroup => PartKind::Team,
            Part::Coop16 | Part::Coop8 => PartKind::Coop,
            Part::EpiloguePlain | Part::EpilogueGated => PartKind::Epilogue,
        }
    }

    /// How logs and errors name it.
    pub fn name(self) -> &'static str {
        match self {
            Part::Weight(format) => format.part_name(),
            Part::ActF32 => "act_f32",
            Part::ActF16 => "act_f16",
            Part::InputAct => "input_act",
            Part::InputNormed => "input_normed",
            Part::Kv(KvType::F32) => "kv_f32",
            Part::Kv(KvType::F16) => "kv_f16",
            Part::Kv(KvType::Int8) => "kv_int8",
            Part::Kv(KvType::K8V4) => "kv_k8v4",
            Part::Kv(KvType::Int4) => "kv_int4",
            Part::ReduceShared => "reduce_shared",
            Part::ReduceSubgroup => "reduce_subgroup",
            Part::TeamShared => "team_shared",
            Part::TeamSubgroup => "team_subgroup",
            Part::Coop16 => "coop_16",
            Part::Coop8 => "coop_8",
            Part::EpiloguePlain => "epilogue_plain",
            Part::EpilogueGated => "epilogue_gated",
        }
    }

    /// Its WGSL.
    pub fn source(self) -> &'static str {
        match self {
            Part::Weight(format) => format.part_source(),
            Part::ActF32 => include_str!("parts/act_f32.wgsl"),
            Part::ActF16 => include_str!("parts/act_f16.wgsl"),
            Part::InputAct => include_str!("parts/input_act.wgsl"),
            Part::InputNormed => include_str!("parts/input_normed.wgsl"),
            Part::Kv(KvType::F32) => wgsl!("parts/kv_" => "floats", "f32"),
            Part::Kv(KvType::F16) => wgsl!("parts/kv_" => "floats", "f16"),
            Part::Kv(KvType::Int8) => wgsl!("parts/kv_" => "quants", "scale_word", "bytes", "keys_8", "values_8"),
            Part::Kv(KvType::K8V4) => {
                wgsl!("parts/kv_" => "quants", "scale_pair", "bytes", "nibbles", "keys_8", "values_4")
            }
            Part::Kv(KvType::Int4) => wgsl!("parts/kv_" => "quants", "scale_pair", "nibbles", "keys_4", "values_4"),
            Part::ReduceShared => include_str!("parts/reduce_shared.wgsl"),
            Part::ReduceSubgroup => include_str!("parts/reduce_subgroup.wgsl"),
            Part::TeamShared => include_str!("parts/team_shared.wgsl"),
            Part::TeamSubgroup => include_str!("parts/team_subgroup.wgsl"),
            Part::Coop16 => include_str!("parts/coop_16.wgsl"),
            Part::Coop8 => include_str!("parts/coop_8.wgsl"),
            Part::EpiloguePlain => include_str!("parts/epilogue_plain.wgsl"),
            Part::EpilogueGated => wgsl!("parts/activation", "parts/epilogue_gated"),
        }
    }

    /// Whether it needs `enable f16;`.
    pub fn needs_f16(self) -> bool {
        matches!(self, Part::ActF16 | Part::Kv(KvType::F16) | Part::Coop16 | Part::Coop8)
    }

    /// Whether it needs `enable wgpu_cooperative_matrix;`.
    pub fn needs_coop(self) -> bool {
        matches!(self, Part::Coop16 | Part::Coop8)
    }

    /// Every part of a kind.
    pub fn all(kind: PartKind) -> Vec<Part> {
        match kind {
            PartKind::Weight => WeightFormat::ALL.iter().map(|&format| Part::Weight(format)).collect(),
            PartKind::Quants => Part::all(PartKind::Weight).into_iter().filter(|part| part.is(kind)).collect(),
            PartKind::Act => vec![Part::ActF32, Part::ActF16],
            PartKind::Input => vec![Part::InputAct, Part::InputNormed],
            PartKind::Kv => KvType::ALL.iter().map(|&kv| Part::Kv(kv)).collect(),
            PartKind::Reduce => vec![Part::ReduceShared, Part::ReduceSubgroup],
            PartKind::Team => vec![Part::TeamShared, Part::TeamSubgroup],
            PartKind::Coop => vec![Part::Coop16, Part::Coop8],
            PartKind::Epilogue => vec![Part::EpiloguePlain, Part::EpilogueGated],
        }
    }
}
