// Values in 8 bits: x = scale * q, q of -127 to 127, column c in byte c % 4 of its word.
// Linked with kv_quants.wgsl and kv_bytes.wgsl.

// Columns that a cell holds, and fours that a piece does.
const KV_VALUE_COLS: u32 = 4u;
const KV_VALUE_QUADS: u32 = 1u;

fn kv_value_cell(low: vec4<f32>, high: vec4<f32>) -> kv_cell {
    return kv_bytes_cell(low);
}

fn kv_value_quad(piece: kv_value_piece, quad: u32, scale: kv_scale) -> kv4 {
    return kv_signed(piece ^ 0x80808080u) * kv_value_scale(scale).x;
}

// 16 of a head's columns as they lie.
alias kv_value_word = vec4<u32>;

// Without their scale.
fn kv_values(word: kv_value_word) -> array<vec4<f32>, KV_QUADS> {
    let bytes = word ^ vec4<u32>(0x80808080u);
    return array<vec4<f32>, KV_QUADS>(kv_signed(bytes.x), kv_signed(bytes.y), kv_signed(bytes.z), kv_signed(bytes.w));
}
