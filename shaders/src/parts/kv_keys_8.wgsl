// Keys in 8 bits: x = scale * q, q of -127 to 127, column c in byte c % 4 of its word.
// Linked with kv_quants.wgsl and kv_bytes.wgsl.

// Columns that a cell holds, and fours that a piece does.
const KV_KEY_COLS: u32 = 4u;
const KV_KEY_QUADS: u32 = 1u;

fn kv_key_cell(low: vec4<f32>, high: vec4<f32>) -> kv_cell {
    return kv_bytes_cell(low);
}

fn kv_key_quad(piece: kv_key_piece, quad: u32, scale: kv_scale) -> kv4 {
    return kv_signed(piece ^ 0x80808080u) * kv_key_scale(scale).x;
}

// 16 of a head's columns as they lie.
alias kv_key_word = vec4<u32>;

fn kv_keys(word: kv_key_word) -> array<kv_key, KV_QUADS> {
    return array<kv_key, KV_QUADS>(word.x, word.y, word.z, word.w);
}

fn kv_score(product: kv_product, unit: f32, total: f32, scale: kv_scale) -> f32 {
    return f32(256 * product.x + product.y) * (unit * kv_key_scale(scale).x);
}
