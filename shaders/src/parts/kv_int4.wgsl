// Rotated keys and values in 4 bits: x = scale * q + minimum, q of 0 to 15; of the eight columns in a word the first four are in
// the low nibbles of its bytes.
// A slot and head has two words of scales, the key's and the value's, each of two bf16: scale and, in the high bits, minimum.

alias kv4 = vec4<f32>;

// What lies in the arenas, and how many columns of a key and of a value one holds.
alias kv_cell = u32;
alias kv_scale = vec2<u32>;
const KV_SCALE_WORDS: u32 = 2u;
const KV_KEY_COLS: u32 = 8u;
const KV_VALUE_COLS: u32 = 8u;

fn kv_key_cell(low: vec4<f32>, high: vec4<f32>) -> kv_cell {
    return pack4xU8(vec4<u32>(low)) | (pack4xU8(vec4<u32>(high)) << 4u);
}

fn kv_value_cell(low: vec4<f32>, high: vec4<f32>) -> kv_cell {
    return pack4xU8(vec4<u32>(low)) | (pack4xU8(vec4<u32>(high)) << 4u);
}

// Four columns at a time, and how many fours a piece of K and of V holds.
alias kv_key_piece = u32;
alias kv_value_piece = u32;
const KV_KEY_QUADS: u32 = 2u;
const KV_VALUE_QUADS: u32 = 2u;

fn kv_load(value: kv4) -> vec4<f32> {
    return value;
}

fn kv_key_quad(piece: kv_key_piece, quad: u32, scale: kv_scale) -> kv4 {
    let quants = vec4<f32>(unpack4xU8((piece >> (4u * (quad % 2u))) & 0x0f0f0f0fu));
    return quants * bitcast<f32>(scale.x << 16u) + bitcast<f32>(scale.x & 0xffff0000u);
}

fn kv_value_quad(piece: kv_value_piece, quad: u32, scale: kv_scale) -> kv4 {
    let quants = vec4<f32>(unpack4xU8((piece >> (4u * (quad % 2u))) & 0x0f0f0f0fu));
    return quants * bitcast<f32>(scale.y << 16u) + bitcast<f32>(scale.y & 0xffff0000u);
}

// 16 of a head's columns as they lie, and how many fours of values they hold.
alias kv_key_word = vec2<u32>;
alias kv_value_word = vec2<u32>;
const KV_QUADS: u32 = 4u;

// A four of a query in two words of signed bytes, x = unit * (256 * high + low); a four of a key; and the sums of their
// products, of the high bytes and of the low ones.
alias kv_query = vec2<u32>;
alias kv_key = u32;
alias kv_product = vec2<i32>;

fn kv_query_of(quad: vec4<f32>, inverse: f32) -> kv_query {
    let whole = vec4<i32>(round(quad * inverse));
    let high = (whole + 128) >> vec4<u32>(8u);
    return vec2<u32>(pack4xI8(high), pack4xI8(whole - high * 256));
}

fn kv_keys(word: kv_key_word) -> array<kv_key, KV_QUADS> {
    let low = word & vec2<u32>(0x0f0f0f0fu);
    let high = (word >> vec2<u32>(4u)) & vec2<u32>(0x0f0f0f0fu);
    return array<kv_key, KV_QUADS>(low.x, high.x, low.y, high.y);
}

fn kv_dot(sum: kv_product, key: kv_key, query: kv_query) -> kv_product {
    return sum + vec2<i32>(dot4I8Packed(query.x, key), dot4I8Packed(query.y, key));
}

// Exact in 32 bits up to 256 columns; `total` is the sum of the query's.
fn kv_score(product: kv_product, unit: f32, total: f32, scale: kv_scale) -> f32 {
    let minimum = total * bitcast<f32>(scale.x & 0xffff0000u);
    return fma(f32(256 * product.x + product.y), unit * bitcast<f32>(scale.x << 16u), minimum);
}

// Without their scale and minimum.
fn kv_values(word: kv_value_word) -> array<vec4<f32>, KV_QUADS> {
    let first = kv_nibbles(word.x);
    let second = kv_nibbles(word.y);
    return array<vec4<f32>, KV_QUADS>(first[0], first[1], second[0], second[1]);
}

fn kv_value_scale(scale: kv_scale) -> vec2<f32> {
    return bitcast<vec2<f32>>(vec2<u32>(scale.y << 16u, scale.y & 0xffff0000u));
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
