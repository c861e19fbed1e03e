// Weights in f16, eight to a 16-byte word.
// Linked with weight_plain.wgsl.

const WEIGHT_GROUP_QUADS: u32 = 2u;

fn weight_floats(words: WeightUnit, unit: u32, group: u32, i: u32) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(words.word[2u * i]), unpack2x16float(words.word[2u * i + 1u]));
}
