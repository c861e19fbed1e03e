// Keys and values in f16. Needs `enable f16;`.

alias kv = f16;
alias kv4 = vec4<f16>;

fn kv_load(value: kv4) -> vec4<f32> {
    return vec4<f32>(value);
}

// The largest f16 stands for what is beyond it: an infinity would turn the whole row into NaN.
fn kv_store(value: f32) -> kv {
    return f16(clamp(value, -65504.0, 65504.0));
}

// 16 bytes of a head's columns as they lie, and how many fours of values they hold.
alias kv_word = vec4<u32>;
const KV_QUADS: u32 = 2u;

fn kv_decode(word: kv_word) -> array<vec4<f32>, KV_QUADS> {
    return array<vec4<f32>, KV_QUADS>(
        vec4<f32>(unpack2x16float(word.x), unpack2x16float(word.y)),
        vec4<f32>(unpack2x16float(word.z), unpack2x16float(word.w)),
    );
}
