// Inputs of matmuls and attention in f16. Needs `enable f16;`.

alias act = f16;
alias act4 = vec4<f16>;

fn act_load(value: act4) -> vec4<f32> {
    return vec4<f32>(value);
}

// The largest f16 stands for what is beyond it: an infinity would turn the whole row into NaN.
fn act_store(value: vec4<f32>) -> act4 {
    return vec4<f16>(clamp(value, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
}
