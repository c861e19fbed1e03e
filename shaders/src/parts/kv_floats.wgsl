// Keys and values that are floats themselves, without scales.
// Linked with kv_f32.wgsl or kv_f16.wgsl.

// What lies in the arenas, and how many columns of a key and of a value one holds.
alias kv_cell = kv;
alias kv_scale = u32;
const KV_SCALE_WORDS: u32 = 0u;
const KV_KEY_COLS: u32 = 1u;
const KV_VALUE_COLS: u32 = 1u;

fn kv_key_cell(low: vec4<f32>, high: vec4<f32>) -> kv_cell {
    return kv_store(low.x);
}

fn kv_value_cell(low: vec4<f32>, high: vec4<f32>) -> kv_cell {
    return kv_store(low.x);
}

// Four columns at a time, and how many fours a piece of K and of V holds.
alias kv4 = vec4<kv>;
alias kv_key_piece = kv4;
alias kv_value_piece = kv4;
const KV_KEY_QUADS: u32 = 1u;
const KV_VALUE_QUADS: u32 = 1u;

fn kv_key_quad(piece: kv_key_piece, quad: u32, scale: kv_scale) -> kv4 {
    return piece;
}

fn kv_value_quad(piece: kv_value_piece, quad: u32, scale: kv_scale) -> kv4 {
    return piece;
}

// 16 bytes of a head's columns as they lie.
alias kv_key_word = kv_word;
alias kv_value_word = kv_word;

// A four of a query, and what becomes of its products with those of a key before they are a score.
alias kv_query = vec4<f32>;
alias kv_product = f32;

fn kv_query_of(quad: vec4<f32>, inverse: f32) -> kv_query {
    return quad;
}

fn kv_keys(word: kv_key_word) -> array<vec4<f32>, KV_QUADS> {
    return kv_quads(word);
}

fn kv_dot(sum: kv_product, key: vec4<f32>, query: kv_query) -> kv_product {
    return fma(key.x, query.x, fma(key.y, query.y, fma(key.z, query.z, fma(key.w, query.w, sum))));
}

fn kv_score(product: kv_product, unit: f32, total: f32, scale: kv_scale) -> f32 {
    return product;
}

fn kv_values(word: kv_value_word) -> array<vec4<f32>, KV_QUADS> {
    return kv_quads(word);
}

fn kv_value_scale(scale: kv_scale) -> vec2<f32> {
    return vec2<f32>(1.0, 0.0);
}
