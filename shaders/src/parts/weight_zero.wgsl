// Quants whose zero point is the same in every block, `WEIGHT_ZERO`.
// Linked with weight_bytes.wgsl and a format, which defines `WEIGHT_ZERO` and `weight_quants`.

fn weight_zero(words: WeightUnit) -> i32 {
    return WEIGHT_ZERO;
}

fn weight_floats(words: WeightUnit, unit: u32, group: u32, i: u32) -> vec4<f32> {
    return weight_bytes(weight_quants(words, unit, group, i), f32(WEIGHT_ZERO));
}
