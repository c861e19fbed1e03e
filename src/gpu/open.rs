//! Opening an adapter, with or without the driver's own checks of every buffer access.

use wgpu::{Adapter, Device, DeviceDescriptor, Queue};

/// The adapter as `descriptor` wishes. Without `robust_access` a Vulkan driver is asked to leave out its checks of buffer
/// accesses, which wgpu always enables; where that cannot be, the device has them. Also whether it has them.
///
/// # Errors
/// What the driver says when it refuses.
pub(super) fn request(
    adapter: &Adapter,
    descriptor: &DeviceDescriptor<'_>,
    robust_access: bool,
) -> Result<(Device, Queue, bool), wgpu::RequestDeviceError> {
    if !robust_access {
        match without_checks(adapter, descriptor) {
            Ok((device, queue)) => return Ok((device, queue, false)),
            Err(reason) => log::warn!("the driver keeps its checks of buffer accesses: {reason}"),
        }
    }
    let (device, queue) = pollster::block_on(adapter.request_device(descriptor))?;
    Ok((device, queue, true))
}

#[cfg(not(target_vendor = "apple"))]
fn without_checks(adapter: &Adapter, descriptor: &DeviceDescriptor<'_>) -> Result<(Device, Queue), String> {
    use ash::{ext, vk};
    use wgpu::hal::api::Vulkan;

    // SAFETY: the handle lives no longer than this call, and `adapter` outlives it.
    let hal = unsafe { adapter.as_hal::<Vulkan>() }.ok_or("the backend is not Vulkan")?;
    let mut extensions = hal.required_device_extensions(descriptor.required_features);
    // Of features that belong to an extension, wgpu enables those whose extension is asked for.
    extensions.retain(|&name| name != ext::robustness2::NAME);
    let mut features = hal.physical_device_features(&extensions, descriptor.required_features);
    let core = vk::PhysicalDeviceFeatures { robust_buffer_access: vk::FALSE, ..features.get_core() };
    let names: Vec<_> = extensions.iter().map(|name| name.as_ptr()).collect();
    let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
    let info = vk::DeviceCreateInfo::default().queue_create_infos(&queues).enabled_extension_names(&names);
    let info = features.add_to_device_create(info).enabled_features(&core);
    let instance = hal.shared_instance().raw_instance();
    // SAFETY: the physical device belongs to this instance; extensions and features are those that wgpu found it to have, less
    // two that nothing else depends on; `names`, `queues`, `features` and `core` outlive the call.
    let raw = unsafe { instance.create_device(hal.raw_physical_device(), &info, None) };
    let raw = raw.map_err(|error| format!("vkCreateDevice: {error}"))?;
    let DeviceDescriptor { required_features, required_limits, memory_hints, .. } = descriptor;
    // SAFETY: `raw` was made just now from this adapter with these extensions and features and one queue of family 0, is used
    // nowhere else, and wgpu destroys it, since it is given no callback of ours.
    let opened =
        unsafe { hal.device_from_raw(raw, None, &extensions, *required_features, required_limits, memory_hints, 0, 0) };
    let opened = opened.map_err(|error| error.to_string())?;
    // SAFETY: the device is this adapter's and has the features of the descriptor.
    unsafe { adapter.create_device_from_hal::<Vulkan>(opened, descriptor) }.map_err(|error| error.to_string())
}

#[cfg(target_vendor = "apple")]
fn without_checks(_: &Adapter, _: &DeviceDescriptor<'_>) -> Result<(Device, Queue), String> {
    Err("the backend is not Vulkan".to_owned())
}
