//! Which cooperative matrices an adapter really has.

use wgpu::{Adapter, CooperativeScalarType, Features};

/// The side of the square cooperative matrices that take f16 and sum in f32: 16 where there are such, else 8, else 0.
pub(super) fn coop_side(adapter: &Adapter) -> u32 {
    let properties = adapter.cooperative_matrix_properties();
    let has = |side| {
        properties.iter().any(|p| {
            (p.m_size, p.n_size, p.k_size) == (side, side, side)
                && (p.ab_type, p.cr_type) == (CooperativeScalarType::F16, CooperativeScalarType::F32)
        })
    };
    let is_offered =
        adapter.features().contains(Features::EXPERIMENTAL_COOPERATIVE_MATRIX) && is_enabled_by_driver(adapter);
    [16, 8].into_iter().find(|&side| is_offered && has(side)).unwrap_or(0)
}

/// A Vulkan driver may list shapes and yet refuse the feature (lavapipe in some widths); wgpu asks only for the list.
#[cfg(not(target_vendor = "apple"))]
fn is_enabled_by_driver(adapter: &Adapter) -> bool {
    use ash::vk;
    // SAFETY: the handle is only read, and it is dropped before `adapter`.
    let Some(adapter) = (unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }) else { return true };
    let capabilities = adapter.physical_device_capabilities();
    let instance = adapter.shared_instance();
    let core_query = instance.instance_api_version() >= vk::API_VERSION_1_1
        && capabilities.properties().api_version >= vk::API_VERSION_1_1;
    if !core_query || !capabilities.supports_extension(ash::khr::cooperative_matrix::NAME) {
        return false;
    }
    let mut coop = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default();
    let mut features = vk::PhysicalDeviceFeatures2::default().push_next(&mut coop);
    // SAFETY: instance and device are of Vulkan 1.1, which has this function; the physical device belongs to this
    // instance and has the extension that the chained struct is from; both structs outlive the call.
    unsafe {
        instance.raw_instance().get_physical_device_features2(adapter.raw_physical_device(), &mut features);
    }
    coop.cooperative_matrix == vk::TRUE
}

#[cfg(target_vendor = "apple")]
fn is_enabled_by_driver(_: &Adapter) -> bool {
    true
}
