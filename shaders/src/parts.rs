//! The parts that kernels link: one file a weight format, an activation type, a KV type, a way to reduce.

use crate::WeightFormat;

/// What a part defines; parts of one kind define the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartKind {
    /// `weight_block`
    Weight,
    /// `act`, `act4`, `act_load`, `act_store`
    Act,
    /// `kv`, `kv4`, `kv_load`, `kv_store`; `kv_word`, `KV_QUADS`, `kv_decode`
    Kv,
    /// `ReduceBuiltins`, `reduce_sum4`, `reduce_max4`
    Reduce,
    /// `TeamBuiltins`, `team_lane`, `team_sum`
    Team,
    /// `coop_a`, `coop_b`, `coop_c`, `COOP_SIDE`
    Coop,
    /// `epilogue_pair`
    Epilogue,
}

/// A file to link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Decodes a stored weight row.
    Weight(WeightFormat),
    /// Matmul and attention inputs in f32.
    ActF32,
    /// Matmul and attention inputs in f16.
    ActF16,
    /// Keys and values in f32.
    KvF32,
    /// Keys and values in f16.
    KvF16,
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
    /// What it defines.
    pub fn kind(self) -> PartKind {
        match self {
            Part::Weight(_) => PartKind::Weight,
            Part::ActF32 | Part::ActF16 => PartKind::Act,
            Part::KvF32 | Part::KvF16 => PartKind::Kv,
            Part::ReduceShared | Part::ReduceSubgroup => PartKind::Reduce,
            Part::TeamShared | Part::TeamSubgroup => PartKind::Team,
            Part::Coop16 | Part::Coop8 => PartKind::Coop,
            Part::EpiloguePlain | Part::EpilogueGated => PartKind::Epilogue,
        }
    }

    /// The file's name without its ending.
    pub fn name(self) -> &'static str {
        match self {
            Part::Weight(format) => format.part_name(),
            Part::ActF32 => "act_f32",
            Part::ActF16 => "act_f16",
            Part::KvF32 => "kv_f32",
            Part::KvF16 => "kv_f16",
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

    /// The file.
    pub fn source(self) -> &'static str {
        match self {
            Part::Weight(format) => format.part_source(),
            Part::ActF32 => include_str!("parts/act_f32.wgsl"),
            Part::ActF16 => include_str!("parts/act_f16.wgsl"),
            Part::KvF32 => include_str!("parts/kv_f32.wgsl"),
            Part::KvF16 => include_str!("parts/kv_f16.wgsl"),
            Part::ReduceShared => include_str!("parts/reduce_shared.wgsl"),
            Part::ReduceSubgroup => include_str!("parts/reduce_subgroup.wgsl"),
            Part::TeamShared => include_str!("parts/team_shared.wgsl"),
            Part::TeamSubgroup => include_str!("parts/team_subgroup.wgsl"),
            Part::Coop16 => include_str!("parts/coop_16.wgsl"),
            Part::Coop8 => include_str!("parts/coop_8.wgsl"),
            Part::EpiloguePlain => include_str!("parts/epilogue_plain.wgsl"),
            Part::EpilogueGated => include_str!("parts/epilogue_gated.wgsl"),
        }
    }

    /// Whether it needs `enable f16;`.
    pub fn needs_f16(self) -> bool {
        matches!(self, Part::ActF16 | Part::KvF16 | Part::Coop16 | Part::Coop8)
    }

    /// Whether it needs `enable wgpu_cooperative_matrix;`.
    pub fn needs_coop(self) -> bool {
        matches!(self, Part::Coop16 | Part::Coop8)
    }

    /// Every part of a kind.
    pub fn all(kind: PartKind) -> Vec<Part> {
        match kind {
            PartKind::Weight => WeightFormat::ALL.iter().map(|&format| Part::Weight(format)).collect(),
            PartKind::Act => vec![Part::ActF32, Part::ActF16],
            PartKind::Kv => vec![Part::KvF32, Part::KvF16],
            PartKind::Reduce => vec![Part::ReduceShared, Part::ReduceSubgroup],
            PartKind::Team => vec![Part::TeamShared, Part::TeamSubgroup],
            PartKind::Coop => vec![Part::Coop16, Part::Coop8],
            PartKind::Epilogue => vec![Part::EpiloguePlain, Part::EpilogueGated],
        }
    }
}
