// Weights in ggml's Q5_K: q of 5 bits. A super-block is eleven 16-byte words: its head; two of fifth bits, bit s for stretch s; then
// the low bits.
// Linked with weight_rows.wgsl, weight_bytes.wgsl, weight_zero.wgsl and weight_k.wgsl.

const WEIGHT_K_QUADS: u32 = 11u;

// The values 16 i .. 16 i + 15 of stretch `sub`, a byte each.
fn weight_k_word(base: u32, sub: u32, i: u32) -> vec4<u32> {
    let low = (weight[base + 3u + (sub / 2u) * 2u + i] >> vec4<u32>(4u * (sub % 2u))) & vec4<u32>(0x0f0f0f0fu);
    let high = (weight[base + 1u + i] >> vec4<u32>(sub)) & vec4<u32>(0x01010101u);
    return low | (high << vec4<u32>(4u));
}

struct WeightUnit {
    word: vec4<u32>,
    high: vec4<u32>,
    head: vec4<u32>,
}

fn weight_fetch(row: u32, unit: u32) -> WeightUnit {
    let base = row * params.weight_row_quads + (unit / 8u) * WEIGHT_K_QUADS;
    return WeightUnit(weight[base + 3u + unit % 8u], weight[base + 1u + unit % 2u], weight[base]);
}

fn weight_quants(words: WeightUnit, unit: u32, group: u32, i: u32) -> u32 {
    let high = (words.high[i] >> (unit % 8u / 2u * 2u + group)) & 0x01010101u;
    return ((words.word[i] >> (4u * group)) & 0x0f0f0f0fu) | (high << 4u);
}
