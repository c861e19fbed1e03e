// Rotated keys in 4 bits: x = scale * q + minimum, q of 0 to 15.
// Linked with kv_quants.wgsl, kv_nibbles.wgsl and kv_scale_pair.wgsl.

// Columns that a cell holds, and fours that a piece does.
const KV_KEY_COLS: u32 = 8u;
const KV_KEY_QUADS: u32 = 2u;

fn kv_key_cell(low: vec4<f32>, high: vec4<f32>) -> kv_cell {
    return kv_nibbles_cell(low, high);
}

fn kv_key_quad(piece: kv_key_piece, quad: u32, scale: kv_scale) -> kv4 {
    return kv_nibbles_quad(piece, quad, kv_key_scale(scale));
}

// 16 of a head's columns as they lie.
alias kv_key_word = vec2<u32>;

fn kv_keys(word: kv_key_word) -> array<kv_key, KV_QUADS> {
    let low = word & vec2<u32>(0x0f0f0f0fu);
    let high = (word >> vec2<u32>(4u)) & vec2<u32>(0x0f0f0f0fu);
    return array<kv_key, KV_QUADS>(low.x, high.x, low.y, high.y);
}

// `total` is the sum of the query's columns.
fn kv_score(product: kv_product, unit: f32, total: f32, scale: kv_scale) -> f32 {
    let key = kv_key_scale(scale);
    return fma(f32(256 * product.x + product.y), unit * key.x, total * key.y);
}
