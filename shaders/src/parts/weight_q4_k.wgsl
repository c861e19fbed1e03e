// Weights in ggml's Q4_K: q of 4 bits. A super-block is nine 16-byte words: its head, then the quants.
// Linked with weight_rows.wgsl, weight_bytes.wgsl, weight_zero.wgsl and weight_k.wgsl.

const WEIGHT_K_QUADS: u32 = 9u;

// The values 16 i .. 16 i + 15 of stretch `sub`, a byte each.
fn weight_k_word(base: u32, sub: u32, i: u32) -> vec4<u32> {
    return (weight[base + 1u + (sub / 2u) * 2u + i] >> vec4<u32>(4u * (sub % 2u))) & vec4<u32>(0x0f0f0f0fu);
}

struct WeightUnit {
    word: vec4<u32>,
    head: vec4<u32>,
}

fn weight_fetch(row: u32, unit: u32) -> WeightUnit {
    let base = row * params.weight_row_quads + (unit / 8u) * WEIGHT_K_QUADS;
    return WeightUnit(weight[base + 1u + unit % 8u], weight[base]);
}

fn weight_quants(words: WeightUnit, unit: u32, group: u32, i: u32) -> u32 {
    return (words.word[i] >> (4u * group)) & 0x0f0f0f0fu;
}
