//! Bind groups by what they bind, made once each.

use super::buffer::BufferSlice;
use super::pipelines::LayoutKey;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// What a bind group is known by.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    layout: LayoutKey,
    slices: SmallVec<[SliceKey; 8]>,
}

/// A slice in 12 bytes: buffers stay below 16 GiB, and bindings are in whole words.
#[derive(PartialEq, Eq, Hash, Clone, Copy)]
struct SliceKey {
    buffer: u32,
    offset_words: u32,
    words: u32,
}

#[derive(Default)]
pub(super) struct BindGroups {
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    groups: FxHashMap<Key, (u32, wgpu::BindGroup)>,
    count: u32,
}

impl BindGroups {
    /// The group that binds `slices` in order, with a number that no other group has.
    pub(super) fn get(
        &self,
        device: &wgpu::Device,
        layout: (LayoutKey, &wgpu::BindGroupLayout),
        slices: &[BufferSlice<'_>],
    ) -> (u32, wgpu::BindGroup) {
        let key = Key { layout: layout.0, slices: slices.iter().map(SliceKey::from).collect() };
        let mut made = self.made.lock();
        if let Some((id, group)) = made.groups.get(&key) {
            return (*id, group.clone());
        }
        let entries: SmallVec<[wgpu::BindGroupEntry<'_>; 8]> = slices
            .iter()
            .zip(0..)
            .map(|(slice, binding)| wgpu::BindGroupEntry {
                binding,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: slice.buffer.raw(),
                    offset: slice.offset,
                    size: wgpu::BufferSize::new(slice.bytes),
                }),
            })
            .collect();
        let group =
            device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: layout.1, entries: &entries });
        made.count += 1;
        let id = made.count;
        made.groups.insert(key, (id, group.clone()));
        (id, group)
    }

    /// Drops every group that binds one of the freed `buffers`.
    pub(super) fn forget(&self, buffers: &[u32]) {
        let mut made = self.made.lock();
        made.groups.retain(|key, _| !key.slices.iter().any(|slice| buffers.contains(&slice.buffer)));
    }

    /// How many were ever made.
    pub(super) fn count(&self) -> u64 {
        u64::from(self.made.lock().count)
    }
}

impl From<&BufferSlice<'_>> for SliceKey {
    fn from(slice: &BufferSlice<'_>) -> Self {
        SliceKey { buffer: slice.buffer.id(), offset_words: (slice.offset / 4) as u32, words: (slice.bytes / 4) as u32 }
    }
}
