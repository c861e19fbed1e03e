// Keys and values in f32.

alias kv = f32;
alias kv4 = vec4<f32>;

fn kv_load(value: kv4) -> vec4<f32> {
    return value;
}

fn kv_store(value: f32) -> kv {
    return value;
}

// 16 bytes of a head's columns as they lie, and how many fours of values they hold.
alias kv_word = vec4<f32>;
const KV_QUADS: u32 = 1u;

fn kv_decode(word: kv_word) -> array<vec4<f32>, KV_QUADS> {
    return array<vec4<f32>, KV_QUADS>(word);
}
