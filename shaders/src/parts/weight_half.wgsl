// Scales in f16, two to a word.
// Linked with weight_rows.wgsl.

// The one of that index, whose word holds it and a neighbour.
fn weight_half_of(word: u32, index: u32) -> f32 {
    let pair = unpack2x16float(word);
    return select(pair.x, pair.y, index % 2u == 1u);
}

fn weight_half(index: u32) -> f32 {
    return weight_half_of(weight_words[index / 2u], index);
}
