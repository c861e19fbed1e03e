// Scales of keys and values without minima: a slot and head has one word, two bf16, the key's in the low bits, the value's in the
// high ones.

alias kv_scale = u32;
const KV_SCALE_WORDS: u32 = 1u;

// Scale and minimum.
fn kv_key_scale(scale: kv_scale) -> vec2<f32> {
    return vec2<f32>(bitcast<f32>(scale << 16u), 0.0);
}

fn kv_value_scale(scale: kv_scale) -> vec2<f32> {
    return vec2<f32>(bitcast<f32>(scale & 0xffff0000u), 0.0);
}
