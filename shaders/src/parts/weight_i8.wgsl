// Weights in integers of 8 bits, q from 0 to 255: a unit holds 16.
// Linked with weight_bytes.wgsl and weight_integers.wgsl.

const WEIGHT_GROUPS: u32 = 1u;
const WEIGHT_GROUP_QUADS: u32 = 4u;

fn weight_group_quad(unit: u32, group: u32) -> u32 {
    return unit * 4u;
}

fn weight_block(row: u32, block: u32) -> WeightBlock {
    let base = row * params.weight_row_quads + block * 2u;
    let scale = weight_scale_word(row, block * 2u);
    let d = bitcast<f32>(scale & 0xffffff00u);
    let zero = f32(scale & 0xffu);
    var out: WeightBlock;
    for (var i = 0u; i < 2u; i++) {
        let word = weight[base + i];
        out.quads[4u * i] = d * (vec4<f32>(unpack4xU8(word.x)) - zero);
        out.quads[4u * i + 1u] = d * (vec4<f32>(unpack4xU8(word.y)) - zero);
        out.quads[4u * i + 2u] = d * (vec4<f32>(unpack4xU8(word.z)) - zero);
        out.quads[4u * i + 3u] = d * (vec4<f32>(unpack4xU8(word.w)) - zero);
    }
    return out;
}

// Quants meet products of signed bytes, so both count from 128.
fn weight_zero(words: WeightUnit) -> i32 {
    return i32(words.scale & 0xffu) - 128i;
}

fn weight_quants(words: WeightUnit, unit: u32, group: u32, i: u32) -> u32 {
    return words.word[i] ^ 0x80808080u;
}

fn weight_floats(words: WeightUnit, unit: u32, group: u32, i: u32) -> vec4<f32> {
    return weight_bytes(words.word[i], f32(words.scale & 0xffu));
}
