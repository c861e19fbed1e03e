// Keys and values in whole numbers: what lies in the arenas are words of them, and queries meet keys in bytes.
// Linked with one of kv_keys_8.wgsl and kv_keys_4.wgsl, one of kv_values_8.wgsl and kv_values_4.wgsl, and one of kv_scale_word.wgsl and
// kv_scale_pair.wgsl.

alias kv_cell = u32;

// Four columns at a time, and what holds some of them.
alias kv4 = vec4<f32>;
alias kv_key_piece = u32;
alias kv_value_piece = u32;

// Fours in a `kv_key_word` and a `kv_value_word`.
const KV_QUADS: u32 = 4u;

// A four of a query in two words of signed bytes, x = unit * (256 * high + low); a four of a key; and the sums of their
// products, of the high bytes and of the low ones: exact in 32 bits up to 256 columns.
alias kv_query = vec2<u32>;
alias kv_key = u32;
alias kv_product = vec2<i32>;

fn kv_query_of(quad: vec4<f32>, inverse: f32) -> kv_query {
    let whole = vec4<i32>(round(quad * inverse));
    let high = (whole + 128) >> vec4<u32>(8u);
    return vec2<u32>(pack4xI8(high), pack4xI8(whole - high * 256));
}

fn kv_dot(sum: kv_product, key: kv_key, query: kv_query) -> kv_product {
    return sum + vec2<i32>(dot4I8Packed(query.x, key), dot4I8Packed(query.y, key));
}
