// Quants in bytes become floats.

// The four bytes of a word less `zero`, exactly: the f32 of bits 0x4b000000 + n is 2^23 + n.
fn weight_bytes(word: u32, zero: f32) -> vec4<f32> {
    let bytes = vec4<u32>(word, word, word >> 16u, word >> 16u) & vec4<u32>(0xffu, 0xff00u, 0xffu, 0xff00u);
    let large = bitcast<vec4<f32>>(bytes | vec4<u32>(0x4b000000u));
    let base = vec4<f32>(8388608.0, 32768.0, 8388608.0, 32768.0) + zero;
    return large * vec4<f32>(1.0, 0.00390625, 1.0, 0.00390625) - base;
}
