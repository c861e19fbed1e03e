// Random rows of a weight format: every word is a hash of its place, with some bits forced so that floats and the scales
// of quantised blocks are finite and of one order of magnitude. Whole numbers alone, so the bits are the same everywhere.
// A lane writes four words at a time; lanes stride over the buffer.
// Source of the mixing: Jarzynski & Olano 2020, JCGT 9(3), "Hash Functions for GPU Rendering", pcg.

struct RandomWeightsParams {
    seed: u32,
    first_quad: u32,   // where the buffer starts in the matrix
    quads: u32,        // 16-byte words to write
    row_words: u32,    // a multiple of 4
    used_words: u32,   // of a row; the others become zeros
    scale_start: u32,  // words of a row from here on are scales
    period: u32,       // the first of so many words is a scale; 0: none
    keep: u32,         // random bits of other words
    force: u32,          // their forced bits
    scale_keep: u32,   // of scales
    scale_force: u32,
}

var<immediate> params: RandomWeightsParams;

@group(0) @binding(0) var<storage, read_write> out: array<vec4<u32>>;  // [quads]

const LANES: u32 = 256u;

fn hash(place: u32) -> u32 {
    let state = (place ^ params.seed) * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

fn random_word(place: u32) -> u32 {
    let word = place % params.row_words;
    if word >= params.used_words {
        return 0u;
    }
    let random = hash(place);
    if word >= params.scale_start || (params.period > 0u && word % params.period == 0u) {
        return (random & params.scale_keep) | params.scale_force;
    }
    return (random & params.keep) | params.force;
}

@compute @workgroup_size(LANES)
fn random_weights(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var quad = id.x; quad < params.quads; quad += groups.x * LANES) {
        let place = (params.first_quad + quad) * 4u;
        out[quad] = vec4<u32>(random_word(place), random_word(place + 1u), random_word(place + 2u), random_word(place + 3u));
    }
}
