//! How much memory an adapter has and may be given now, where the backend tells.

/// The largest heap that is the adapter's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct MemoryBudget {
    /// The heap's size.
    pub heap_bytes: u64,
    /// What this process may use in all, by the driver's estimate.
    pub budget_bytes: u64,
    /// What this process uses already.
    pub used_bytes: u64,
}

impl MemoryBudget {
    /// What this process may still allocate.
    pub fn available_bytes(&self) -> u64 {
        self.budget_bytes.saturating_sub(self.used_bytes)
    }
}

/// Asks `VK_EXT_memory_budget`; `None` where the backend is not Vulkan or the driver lacks the extension.
#[cfg(not(target_vendor = "apple"))]
pub(super) fn memory_budget(adapter: &wgpu::Adapter) -> Option<MemoryBudget> {
    use ash::vk;
    // SAFETY: the handle is only read, and it is dropped before `adapter`.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let capabilities = adapter.physical_device_capabilities();
    let instance = adapter.shared_instance();
    let core_query = instance.instance_api_version() >= vk::API_VERSION_1_1
        && capabilities.properties().api_version >= vk::API_VERSION_1_1;
    if !core_query || !capabilities.supports_extension(vk::EXT_MEMORY_BUDGET_NAME) {
        return None;
    }
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let mut properties = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
    // SAFETY: instance and device are of Vulkan 1.1, which has this function; the physical device belongs to this
    // instance and has the extension that the chained struct is from; both structs outlive the call.
    unsafe {
        instance.raw_instance().get_physical_device_memory_properties2(adapter.raw_physical_device(), &mut properties);
    }
    let heaps = properties.memory_properties;
    (0..heaps.memory_heap_count as usize)
        .filter(|&heap| heaps.memory_heaps[heap].flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL))
        .max_by_key(|&heap| heaps.memory_heaps[heap].size)
        .map(|heap| MemoryBudget {
            heap_bytes: heaps.memory_heaps[heap].size,
            budget_bytes: budget.heap_budget[heap],
            used_bytes: budget.heap_usage[heap],
        })
}

/// Metal tells through no handle that wgpu gives.
#[cfg(target_vendor = "apple")]
pub(super) fn memory_budget(_: &wgpu::Adapter) -> Option<MemoryBudget> {
    None
}
