// Eight columns of a key or value in the nibbles of a word: of its bytes, the first four in the low ones.
// Linked with kv_quants.wgsl.

fn kv_nibbles_cell(low: vec4<f32>, high: vec4<f32>) -> kv_cell {
    return pack4xU8(vec4<u32>(low)) | (pack4xU8(vec4<u32>(high)) << 4u);
}

// The first four (`quad` even) or the others, times a scale, on a minimum.
fn kv_nibbles_quad(word: u32, quad: u32, scale: vec2<f32>) -> kv4 {
    let quants = vec4<f32>(unpack4xU8((word >> (4u * (quad % 2u))) & 0x0f0f0f0fu));
    return quants * scale.x + scale.y;
}

// The nibbles of a word as numbers: the f32 of bits 0x4b000000 + n is 2^23 + n, and likewise for those further up.
fn kv_nibbles(word: u32) -> array<vec4<f32>, 2> {
    let low = vec4<u32>(word, word, word, word >> 12u) & vec4<u32>(0xfu, 0xf00u, 0xf0000u, 0xf000u);
    let high = vec4<u32>(word, word, word >> 12u, word >> 12u) & vec4<u32>(0xf0u, 0xf000u, 0xf00u, 0xf0000u);
    let low_floats = bitcast<vec4<f32>>(low | vec4<u32>(0x4b000000u, 0x47000000u, 0x43000000u, 0x45000000u));
    let high_floats = bitcast<vec4<f32>>(high | vec4<u32>(0x49000000u, 0x45000000u, 0x47000000u, 0x43000000u));
    return array<vec4<f32>, 2>(
        low_floats - vec4<f32>(8388608.0, 32768.0, 128.0, 2048.0),
        high_floats - vec4<f32>(524288.0, 2048.0, 32768.0, 128.0),
    );
}
