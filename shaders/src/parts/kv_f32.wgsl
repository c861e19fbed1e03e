// Keys and values in f32.

alias kv = f32;
alias kv4 = vec4<f32>;

fn kv_load(value: kv4) -> vec4<f32> {
    return value;
}

fn kv_store(value: f32) -> kv {
    return value;
}
