// Keys and values in f16. Needs `enable f16;`.
// Linked with kv_floats.wgsl.

alias kv = f16;

// The largest f16 stands for what is beyond it: an infinity would turn the whole row into NaN.
fn kv_store(value: f32) -> kv {
    return f16(clamp(value, -65504.0, 65504.0));
}

// 16 bytes, and how many fours of columns they hold.
alias kv_word = vec4<u32>;
const KV_QUADS: u32 = 2u;

fn kv_quads(word: kv_word) -> array<vec4<f32>, KV_QUADS> {
    return array<vec4<f32>, KV_QUADS>(
        vec4<f32>(unpack2x16float(word.x), unpack2x16float(word.y)),
        vec4<f32>(unpack2x16float(word.z), unpack2x16float(word.w)),
    );
}
