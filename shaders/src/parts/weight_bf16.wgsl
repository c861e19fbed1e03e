// Weights in bf16, the upper half of an f32, eight to a 16-byte word.
// Linked with weight_plain.wgsl.

const WEIGHT_GROUP_QUADS: u32 = 2u;

fn weight_floats(words: WeightUnit, unit: u32, group: u32, i: u32) -> vec4<f32> {
    let low = words.word[2u * i];
    let high = words.word[2u * i + 1u];
    return bitcast<vec4<f32>>(vec4<u32>(low << 16u, low & 0xffff0000u, high << 16u, high & 0xffff0000u));
}
