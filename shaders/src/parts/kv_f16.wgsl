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
