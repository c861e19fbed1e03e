// What a page table adds to shaders/src/attention/vector.wgsl, for the bench alone: keys lie in pages of 16 slots.

@group(0) @binding(8) var<storage, read> pages: array<u32>; // the first slot of each page, over 16

fn paged_slot(place: u32) -> u32 {
    return pages[place / 16u] * 16u + place % 16u;
}

