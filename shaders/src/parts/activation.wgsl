// Activations of gates, four at a time.
// Needs `params.activation`: 0: SiLU, 1: GELU's tanh form.
// Source: Shazeer 2020, arXiv:2002.05202, eq. 5; GELU's tanh form: Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2.

fn activation_silu(x: vec4<f32>) -> vec4<f32> {
    return x / (1.0 + exp(-x));
}

fn activation_gelu_tanh(x: vec4<f32>) -> vec4<f32> {
    let inner = 0.7978845608028654 * (x + 0.044715 * x * x * x);
    // Past 15 tanh is 1 in f32, and some drivers' tanh overflows on large arguments.
    return 0.5 * x * (1.0 + tanh(clamp(inner, vec4<f32>(-15.0), vec4<f32>(15.0))));
}

fn activation(gate: vec4<f32>) -> vec4<f32> {
    var value: vec4<f32>;
    if params.activation == 0u {
        value = activation_silu(gate);
    } else {
        value = activation_gelu_tanh(gate);
    }
    return value;
}
