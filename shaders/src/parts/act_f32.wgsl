// Inputs of matmuls and attention in f32.

alias act = f32;
alias act4 = vec4<f32>;

fn act_load(value: act4) -> vec4<f32> {
    return value;
}

fn act_store(value: vec4<f32>) -> act4 {
    return value;
}
