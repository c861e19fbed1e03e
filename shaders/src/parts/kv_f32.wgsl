// Keys and values in f32.
// Linked with kv_floats.wgsl.

alias kv = f32;

fn kv_store(value: f32) -> kv {
    return value;
}

// 16 bytes, and how many fours of columns they hold.
alias kv_word = vec4<f32>;
const KV_QUADS: u32 = 1u;

fn kv_quads(word: kv_word) -> array<vec4<f32>, KV_QUADS> {
    return array<vec4<f32>, KV_QUADS>(word);
}
