// Four columns of a key or value in the signed bytes of a word, the first lowest.
// Linked with kv_quants.wgsl.

fn kv_bytes_cell(columns: vec4<f32>) -> kv_cell {
    return pack4xI8(vec4<i32>(columns));
}

// The bytes of a word as numbers: the f32 of bits 0x4b000000 + n is 2^23 + n, that of 0x47000000 + 256 n is 2^15 + n.
fn kv_signed(word: u32) -> vec4<f32> {
    let high = word >> 16u;
    let bytes = vec4<u32>(word, word, high, high) & vec4<u32>(0xffu, 0xff00u, 0xffu, 0xff00u);
    let large = bitcast<vec4<f32>>(bytes | vec4<u32>(0x4b000000u, 0x47000000u, 0x4b000000u, 0x47000000u));
    return large - vec4<f32>(8388736.0, 32896.0, 8388736.0, 32896.0);
}
