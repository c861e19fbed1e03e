// Quants of five bits, whose fifth bits lie apart: 32 to a word, of value i at bit i.
// Linked with weight_nibbles.wgsl and a format, whose `WeightUnit` has `word` and `high`.

// The fifth bits of the values 4 i .. 4 i + 3, each at bit 4 of its byte.
fn weight_fifth(high: u32, i: u32) -> u32 {
    let bits = high >> (4u * i);
    return ((bits & 1u) << 4u) | ((bits & 2u) << 11u) | ((bits & 4u) << 18u) | ((bits & 8u) << 25u);
}

fn weight_quants(words: WeightUnit, unit: u32, group: u32, i: u32) -> u32 {
    return weight_nibbles(words.word, i) | weight_fifth(words.high, i);
}
