// Rotated values in 4 bits: x = scale * q + minimum, q of 0 to 15; of the eight columns in a word the first four are in the low
// nibbles of its bytes.
// Linked with kv_quants.wgsl and kv_scale_pair.wgsl.

// Columns that a cell holds, and fours that a piece does.
const KV_VALUE_COLS: u32 = 8u;
const KV_VALUE_QUADS: u32 = 2u;

fn kv_value_cell(low: vec4<f32>, high: vec4<f32>) -> kv_cell {
    return pack4xU8(vec4<u32>(low)) | (pack4xU8(vec4<u32>(high)) << 4u);
}

fn kv_quad_of(word: u32, quad: u32, scale: vec2<f32>) -> kv4 {
    let quants = vec4<f32>(unpack4xU8((word >> (4u * (quad % 2u))) & 0x0f0f0f0fu));
    return quants * scale.x + scale.y;
}

fn kv_value_quad(piece: kv_value_piece, quad: u32, scale: kv_scale) -> kv4 {
    return kv_quad_of(piece, quad, kv_value_scale(scale));
}

// 16 of a head's columns as they lie.
alias kv_value_word = vec2<u32>;

// Without their scale and minimum.
fn kv_values(word: kv_value_word) -> array<vec4<f32>, KV_QUADS> {
    let first = kv_nibbles(word.x);
    let second = kv_nibbles(word.y);
    return array<vec4<f32>, KV_QUADS>(first[0], first[1], second[0], second[1]);
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
