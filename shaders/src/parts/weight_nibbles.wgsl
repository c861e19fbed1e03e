// Quants whose low four bits lie by 32 in a 16-byte word: of the first 16 in the low nibbles of its bytes, of the others in the high
// ones. A unit is one such word, and so a stretch of 32 values.
// Linked with weight_rows.wgsl and a format, which defines `WEIGHT_TERMS` (1: a zero point, 2: a minimum), `weight_fetch`,
// `weight_scale`, `weight_quants` and `weight_zero`, or has the last from weight_zero.wgsl.

const WEIGHT_GROUPS: u32 = 1u;
const WEIGHT_GROUP_QUADS: u32 = 8u;

fn weight_group_quad(unit: u32, group: u32) -> u32 {
    return unit * 8u;
}

// The low bits of the values 4 i .. 4 i + 3, each in its byte.
fn weight_nibbles(word: vec4<u32>, i: u32) -> u32 {
    return (word[i % 4u] >> (4u * (i / 4u))) & 0x0f0f0f0fu;
}

fn weight_block(row: u32, block: u32) -> WeightBlock {
    let words = weight_fetch(row, block);
    let scale = weight_scale(words, block, 0u);
    let zero = f32(weight_zero(words));
    var out: WeightBlock;
    for (var i = 0u; i < 8u; i++) {
        let quants = vec4<f32>(unpack4xU8(weight_quants(words, block, 0u, i)));
        if WEIGHT_TERMS == 2u {
            out.quads[i] = scale.x * quants + scale.y;
        } else {
            out.quads[i] = scale.x * (quants - zero);
        }
    }
    return out;
}
