//! Which adapters there are, what they offer, and which one is taken.

use super::GpuOptions;
use super::coop::coop_side;
use super::memory::{MemoryBudget, memory_budget};
use crate::error::Error;
use raglan_shaders::AdapterLimits;
use wgpu::{Backend, DeviceType, Features};

/// An adapter in plain data, as far as this program cares.
#[derive(Debug, Clone, serde::Serialize)]
pub struct AdapterSummary {
    /// Its place in [`super::Gpu::adapters`], by which a user may choose it.
    pub index: usize,
    /// The driver's name for it.
    pub name: String,
    /// `vulkan`, `metal` or `dx12`.
    pub backend: &'static str,
    /// `discrete`, `integrated`, `virtual`, `cpu` or `other`.
    pub device_type: &'static str,
    /// The driver's name.
    pub driver: String,
    /// The driver's version, as it spells it.
    pub driver_info: String,
    /// PCI vendor.
    pub vendor_id: u32,
    /// PCI device.
    pub device_id: u32,
    /// Numbers that bound kernels and buffers.
    pub limits: LimitsSummary,
    /// Optional features that kernels or tools use.
    pub features: FeaturesSummary,
    /// Its memory, where the backend tells.
    pub memory: Option<MemoryBudget>,
}

/// The limits that matter here.
#[derive(Debug, Clone, serde::Serialize)]
#[allow(missing_docs, reason = "the names are wgpu's, with units")]
pub struct LimitsSummary {
    pub max_buffer_bytes: u64,
    pub max_binding_bytes: u64,
    pub binding_alignment_bytes: u32,
    pub max_bindings: u32,
    pub max_immediate_bytes: u32,
    pub max_workgroup_lanes: u32,
    pub max_workgroup_bytes: u32,
    pub max_workgroups: u32,
}

/// The optional features that matter here.
#[derive(Debug, Clone, serde::Serialize)]
pub struct FeaturesSummary {
    /// Per-dispatch parameters; without them nothing runs.
    pub immediates: bool,
    /// WGSL's `f16`.
    pub shader_f16: bool,
    /// Smallest and largest subgroup, where subgroup operations are there.
    pub subgroup_lanes: Option<(u32, u32)>,
    /// Timing of passes.
    pub timestamps: bool,
    /// Timing between dispatches of one pass.
    pub timestamps_inside_passes: bool,
    /// Compiled pipelines can be kept on disk.
    pub pipeline_cache: bool,
    /// Cooperative matrices as `m×n×k input→accumulator`.
    pub cooperative_matrices: Vec<String>,
    /// The side of those that kernels use, f16 in and f32 out: 16, 8, or 0 for none.
    pub coop_side: u32,
}

pub(super) fn instance() -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12,
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    })
}

pub(super) fn enumerate(instance: &wgpu::Instance) -> Vec<(wgpu::Adapter, AdapterSummary)> {
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let summaries = adapters.iter().enumerate().map(|(index, adapter)| summarize(index, adapter)).collect::<Vec<_>>();
    adapters.into_iter().zip(summaries).collect()
}

fn summarize(index: usize, adapter: &wgpu::Adapter) -> AdapterSummary {
    let info = adapter.get_info();
    let limits = adapter.limits();
    let features = adapter.features();
    AdapterSummary {
        index,
        backend: match info.backend {
            Backend::Vulkan => "vulkan",
            Backend::Metal => "metal",
            Backend::Dx12 => "dx12",
            _ => "other",
        },
        device_type: match info.device_type {
            DeviceType::DiscreteGpu => "discrete",
            DeviceType::IntegratedGpu => "integrated",
            DeviceType::VirtualGpu => "virtual",
            DeviceType::Cpu => "cpu",
            DeviceType::Other => "other",
        },
        name: info.name,
        driver: info.driver,
        driver_info: info.driver_info,
        vendor_id: info.vendor,
        device_id: info.device,
        limits: LimitsSummary {
            max_buffer_bytes: limits.max_buffer_size,
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            binding_alignment_bytes: limits.min_storage_buffer_offset_alignment,
            max_bindings: limits.max_storage_buffers_per_shader_stage,
            max_immediate_bytes: limits.max_immediate_size,
            max_workgroup_lanes: limits.max_compute_invocations_per_workgroup,
            max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
            max_workgroups: limits.max_compute_workgroups_per_dimension,
        },
        features: FeaturesSummary {
            immediates: features.contains(Features::IMMEDIATES),
            shader_f16: features.contains(Features::SHADER_F16),
            subgroup_lanes: features
                .contains(Features::SUBGROUP)
                .then_some((info.subgroup_min_size, info.subgroup_max_size)),
            timestamps: features.contains(Features::TIMESTAMP_QUERY),
            timestamps_inside_passes: features.contains(Features::TIMESTAMP_QUERY_INSIDE_PASSES),
            pipeline_cache: features.contains(Features::PIPELINE_CACHE),
            coop_side: coop_side(adapter),
            cooperative_matrices: adapter
                .cooperative_matrix_properties()
                .iter()
                .map(|p| format!("{}×{}×{} {:?}→{:?}", p.m_size, p.n_size, p.k_size, p.ab_type, p.cr_type))
                .collect(),
        },
        memory: memory_budget(adapter),
    }
}

impl AdapterSummary {
    /// Whether it is a CPU that plays a GPU.
    pub fn is_software(&self) -> bool {
        self.device_type == "cpu"
    }

    /// What kernels may count on, with f16 and subgroups only where both the adapter and the caller allow them.
    pub(super) fn kernel_limits(&self, options: &GpuOptions) -> AdapterLimits {
        let subgroup_lanes = self.features.subgroup_lanes.filter(|_| options.allow_subgroups);
        let shader_f16 = self.features.shader_f16 && options.allow_f16;
        // A kernel lays its fragments out over subgroups of a known size. lavapipe lists matrices whatever its subgroups are: in
        // those of 4 lanes no device has them, in those of 16 its compiler crashes (Mesa 26.1).
        let side = self.features.coop_side;
        let is_known = |(min, max)| min == max && if self.is_software() { min == side } else { min >= side };
        let is_coop_allowed = options.allow_coop && shader_f16 && subgroup_lanes.is_some_and(is_known);
        AdapterLimits {
            max_workgroup_lanes: self.limits.max_workgroup_lanes,
            max_workgroup_bytes: self.limits.max_workgroup_bytes,
            max_workgroups: self.limits.max_workgroups,
            max_binding_bytes: self.limits.max_binding_bytes.min(self.limits.max_buffer_bytes),
            shader_f16,
            subgroups: subgroup_lanes.is_some(),
            min_subgroup_lanes: subgroup_lanes.map_or(1, |(min, _)| min),
            max_subgroup_lanes: subgroup_lanes.map_or(1, |(_, max)| max),
            coop_side: if is_coop_allowed { self.features.coop_side } else { 0 },
        }
    }

    /// Smaller is better: what a user without a wish gets first.
    fn rank(&self) -> (usize, usize, usize) {
        let place = |list: &[&str], item: &str| list.iter().position(|&other| other == item).unwrap_or(list.len());
        (
            place(&["discrete", "integrated", "virtual", "other", "cpu"], self.device_type),
            place(&["metal", "vulkan", "dx12"], self.backend),
            self.index,
        )
    }
}

/// `0: NVIDIA H100 PCIe (vulkan, discrete)`
impl std::fmt::Display for AdapterSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} ({}, {})", self.index, self.name, self.backend, self.device_type)
    }
}

/// The place in `all` of the adapter that `wanted` names, else of the best, and why it is that one.
///
/// `wanted` is an index, or a part of what [`AdapterSummary`] displays in any case of letters; of several that match,
/// the best. `source` says where the wish came from.
///
/// # Errors
/// If there is no adapter, or none matches.
pub(super) fn choose(all: &[AdapterSummary], wanted: Option<(&str, &str)>) -> Result<(usize, String), Error> {
    let best = |matching: &mut dyn Iterator<Item = &AdapterSummary>| matching.min_by_key(|a| a.rank()).map(|a| a.index);
    let Some((wanted, source)) = wanted else {
        let index = best(&mut all.iter()).ok_or(Error::NoAdapter)?;
        let reason = match all.len() {
            1 => "the only adapter".to_owned(),
            n => format!("the best of {n} adapters: discrete before integrated, virtual and cpu"),
        };
        return Ok((index, reason));
    };
    if all.is_empty() {
        return Err(Error::NoAdapter);
    }
    let by_index = wanted.trim().parse::<usize>().ok().filter(|&index| index < all.len());
    let needle = wanted.trim().to_lowercase();
    by_index
        .or_else(|| best(&mut all.iter().filter(|a| a.to_string().to_lowercase().contains(&needle))))
        .map(|index| (index, format!("asked for as {wanted:?} by {source}")))
        .ok_or_else(|| Error::UnknownAdapter {
            wanted: wanted.to_owned(),
            found: all.iter().map(ToString::to_string).collect(),
        })
}

/// The place in `all` of an adapter that was open before: the same one, though drivers that came or went may have moved it.
///
/// # Errors
/// If there is no adapter, or none like it.
pub(super) fn find_again(all: &[AdapterSummary], lost: &AdapterSummary) -> Result<usize, Error> {
    let key = |a: &AdapterSummary| (a.name.clone(), a.backend, a.vendor_id, a.device_id);
    let same = all.iter().filter(|a| key(a) == key(lost));
    // Of several alike, the one at its place.
    let found = same.min_by_key(|a| a.index.abs_diff(lost.index)).map(|a| a.index);
    found.ok_or_else(|| match all {
        [] => Error::NoAdapter,
        _ => Error::UnknownAdapter { wanted: lost.to_string(), found: all.iter().map(ToString::to_string).collect() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(index: usize, name: &str, backend: &'static str, device_type: &'static str) -> AdapterSummary {
        AdapterSummary {
            index,
            name: name.to_owned(),
            backend,
            device_type,
            driver: String::new(),
            driver_info: String::new(),
            vendor_id: 0,
            device_id: 0,
            limits: LimitsSummary {
                max_buffer_bytes: 0,
                max_binding_bytes: 0,
                binding_alignment_bytes: 0,
                max_bindings: 0,
                max_immediate_bytes: 0,
                max_workgroup_lanes: 0,
                max_workgroup_bytes: 0,
                max_workgroups: 0,
            },
            features: FeaturesSummary {
                immediates: true,
                shader_f16: false,
                subgroup_lanes: None,
                timestamps: false,
                timestamps_inside_passes: false,
                pipeline_cache: false,
                cooperative_matrices: Vec::new(),
                coop_side: 0,
            },
            memory: None,
        }
    }

    #[test]
    fn a_wish_is_an_index_or_part_of_a_name_and_the_best_answers_else() {
        let all = [
            summary(0, "llvmpipe (LLVM 15)", "vulkan", "cpu"),
            summary(1, "GeForce RTX 4090", "dx12", "discrete"),
            summary(2, "GeForce RTX 4090", "vulkan", "discrete"),
            summary(3, "Radeon 780M", "vulkan", "integrated"),
        ];
        let index = |wanted| choose(&all, Some((wanted, "a test"))).map(|(index, _)| index).ok();
        assert_eq!(choose(&all, None).map(|(index, _)| index).ok(), Some(2), "vulkan before dx12, discrete first");
        assert_eq!(index("3"), Some(3));
        assert_eq!(index("LLVMPIPE"), Some(0));
        assert_eq!(index("4090"), Some(2), "4090 is no index, so it is part of a name");
        assert_eq!(index("dx12"), Some(1));
        assert_eq!(index("voodoo"), None);
        let message = choose(&all, Some(("voodoo", "a test"))).map_err(|error| error.to_string());
        assert!(message.is_err_and(|text| text.contains("voodoo") && text.contains("3: Radeon 780M")));
        assert!(matches!(choose(&[], None), Err(Error::NoAdapter)));
    }

    #[test]
    fn a_lost_adapter_is_found_again_among_its_like_and_others() {
        let lost = summary(2, "Radeon 780M", "vulkan", "integrated");
        let at = |index| summary(index, "Radeon 780M", "vulkan", "integrated");
        let other = |index| summary(index, "llvmpipe", "vulkan", "cpu");
        assert_eq!(find_again(&[at(0), at(1), at(2)], &lost).ok(), Some(2));
        assert_eq!(find_again(&[other(0), at(1)], &lost).ok(), Some(1), "it moved");
        assert!(matches!(find_again(&[other(0)], &lost), Err(Error::UnknownAdapter { .. })));
        assert!(matches!(find_again(&[], &lost), Err(Error::NoAdapter)));
    }
}
