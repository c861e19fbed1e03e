// The rows of the embedding matrix that the tokens name: out[token] = weight[id].
// An id with its top bit set names a row of the last step's samples instead of a vocabulary row.
// One workgroup a token; a lane decodes 32 columns at a time. Of a matrix split over bindings each dispatch writes the
// tokens whose rows it holds.
// Linked with a weight format (weight_*.wgsl).

struct EmbeddingParams {
    first_row: u32,        // of the matrix, in this binding
    rows: u32,             // in this binding
    blocks: u32,           // of 32 columns
    weight_row_quads: u32,
    weight_blocks: u32,
}

var<immediate> params: EmbeddingParams;

@group(0) @binding(2) var<storage, read> token_ids: array<u32>;        // [tokens]
@group(0) @binding(3) var<storage, read> samples: array<u32>;          // [sequences]
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;  // [tokens, blocks * 8]

const LANES: u32 = 64u;
const SAMPLED: u32 = 0x80000000u;

@compute @workgroup_size(LANES)
fn embedding(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let token = group.x;
    var id = token_ids[token];
    if (id & SAMPLED) != 0u {
        id = samples[id & ~SAMPLED];
    }
    if id < params.first_row || id - params.first_row >= params.rows {
        return;
    }
    for (var block = lane; block < params.blocks; block += LANES) {
        let values = weight_block(id - params.first_row, block);
        let base = (token * params.blocks + block) * 8u;
        for (var i = 0u; i < 8u; i++) {
            out[base + i] = values.quads[i];
        }
    }
}
