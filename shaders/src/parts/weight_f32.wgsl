// Weights in f32, four to a 16-byte word.
// Linked with weight_plain.wgsl.

const WEIGHT_GROUP_QUADS: u32 = 1u;

fn weight_floats(words: WeightUnit, unit: u32, group: u32, i: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(words.word);
}
