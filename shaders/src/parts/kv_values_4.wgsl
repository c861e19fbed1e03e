// Rotated values in 4 bits: x = scale * q + minimum, q of 0 to 15.
// Linked with kv_quants.wgsl, kv_nibbles.wgsl and kv_scale_pair.wgsl.

// Columns that a cell holds, and fours that a piece does.
const KV_VALUE_COLS: u32 = 8u;
const KV_VALUE_QUADS: u32 = 2u;

fn kv_value_cell(low: vec4<f32>, high: vec4<f32>) -> kv_cell {
    return kv_nibbles_cell(low, high);
}

fn kv_value_quad(piece: kv_value_piece, quad: u32, scale: kv_scale) -> kv4 {
    return kv_nibbles_quad(piece, quad, kv_value_scale(scale));
}

// 16 of a head's columns as they lie.
alias kv_value_word = vec2<u32>;

// Without their scale and minimum.
fn kv_values(word: kv_value_word) -> array<vec4<f32>, KV_QUADS> {
    let first = kv_nibbles(word.x);
    let second = kv_nibbles(word.y);
    return array<vec4<f32>, KV_QUADS>(first[0], first[1], second[0], second[1]);
}
