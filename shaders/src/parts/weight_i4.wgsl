// Weights in integers of 4 bits, q from 0 to 15: a unit holds 32.
// Linked with weight_bytes.wgsl, weight_nibbles.wgsl and weight_integers.wgsl.

fn weight_zero(words: WeightUnit) -> i32 {
    return i32(words.scale & 0xffu);
}

fn weight_quants(words: WeightUnit, unit: u32, group: u32, i: u32) -> u32 {
    return weight_nibbles(words.word, i);
}

fn weight_floats(words: WeightUnit, unit: u32, group: u32, i: u32) -> vec4<f32> {
    return weight_bytes(weight_quants(words, unit, group, i), f32(words.scale & 0xffu));
}
