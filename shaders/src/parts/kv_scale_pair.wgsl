// Scales and minima of keys and values: a slot and head has two words, the key's and the value's, each of two bf16: scale and, in the
// high bits, minimum, which is zero for keys in 8 bits.

alias kv_scale = vec2<u32>;
const KV_SCALE_WORDS: u32 = 2u;

// Scale and minimum.
fn kv_scale_of(word: u32) -> vec2<f32> {
    return vec2<f32>(bitcast<f32>(word << 16u), bitcast<f32>(word & 0xffff0000u));
}

fn kv_key_scale(scale: kv_scale) -> vec2<f32> {
    return kv_scale_of(scale.x);
}

fn kv_value_scale(scale: kv_scale) -> vec2<f32> {
    return kv_scale_of(scale.y);
}
