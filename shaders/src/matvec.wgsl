// x * weight^T for a few rows of x: bound by reading the weights, so each is read once.
// A workgroup computes TILE_N columns of out for up to TILE_M rows. Its lanes stride over the units of the weights, the
// finest that a format decodes, so that neighbouring lanes load neighbouring words; a lane has UNROLL units of every column
// in flight before it uses the first. Of a unit's group of quads the products with the quants are summed, then scaled once.
// Linked with matvec_forms.wgsl, a weight format (weight_*.wgsl), one of act_*.wgsl, of input_*.wgsl, of reduce_*.wgsl and of
// epilogue_*.wgsl.

const LANES: u32 = 64u;
const TILE_M: u32 = 1u;
const TILE_N: u32 = 4u;
const UNROLL: u32 = 2u;

fn add_products(sum: f32, a: vec4<f32>, b: vec4<f32>) -> f32 {
    return sum + a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
}

@compute @workgroup_size(LANES)
fn matvec(@builtin(workgroup_id) group: vec3<u32>, reduce: ReduceBuiltins) {
    let first_n = group.x * TILE_N;
    let first_m = group.y * TILE_M;
    let units = params.blocks * 8u / (WEIGHT_GROUPS * WEIGHT_GROUP_QUADS);
    var rows: array<u32, TILE_M>;
    for (var m = 0u; m < TILE_M; m++) {
        rows[m] = input_row(min(first_m + m, params.rows - 1u));
    }
    var sums: array<array<f32, TILE_N>, TILE_M>;
    var squares: array<f32, TILE_M>;
    for (var step = 0u; step < units; step += LANES * UNROLL) {
        let first = step + reduce.lane;
        // Past a row's end its last unit comes again and does not count; past the last row that row, which is not stored. No lane
        // leaves the others for that.
        var words: array<array<WeightUnit, TILE_N>, UNROLL>;
        for (var u = 0u; u < UNROLL; u++) {
            for (var n = 0u; n < TILE_N; n++) {
                words[u][n] = weight_fetch(min(first_n + n, params.cols - 1u), min(first + u * LANES, units - 1u));
            }
        }
        for (var u = 0u; u < UNROLL; u++) {
            let unit = min(first + u * LANES, units - 1u);
            let counts = first + u * LANES < units;
            for (var g = 0u; g < WEIGHT_GROUPS; g++) {
                let first_quad = weight_group_quad(unit, g);
                var partial: array<array<f32, TILE_N>, TILE_M>;
                var totals: array<f32, TILE_M>; // of x, for what a format adds to every value
                var square: array<f32, TILE_M>;
                for (var i = 0u; i < WEIGHT_GROUP_QUADS; i++) {
                    let gain = input_gain(first_quad + i);
                    var values: array<vec4<f32>, TILE_M>;
                    for (var m = 0u; m < TILE_M; m++) {
                        values[m] = input_load(rows[m], first_quad + i);
                        if INPUT_NORMED == 1u {
                            square[m] = add_products(square[m], values[m], values[m]);
                            values[m] *= gain;
                        }
                        if WEIGHT_TERMS == 2u {
                            totals[m] = add_products(totals[m], values[m], vec4<f32>(1.0));
                        }
                    }
                    for (var n = 0u; n < TILE_N; n++) {
                        let weights = weight_floats(words[u][n], unit, g, i);
                        for (var m = 0u; m < TILE_M; m++) {
                            partial[m][n] = add_products(partial[m][n], values[m], weights);
                        }
                    }
                }
                for (var m = 0u; m < TILE_M; m++) {
                    squares[m] += select(0.0, square[m], counts);
                }
                for (var n = 0u; n < TILE_N; n++) {
                    let scale = weight_scale(words[u][n], unit, g);
                    for (var m = 0u; m < TILE_M; m++) {
                        if WEIGHT_TERMS > 0u {
                            partial[m][n] *= scale.x;
                        }
                        if WEIGHT_TERMS == 2u {
                            partial[m][n] += scale.y * totals[m];
                        }
                        sums[m][n] += select(0.0, partial[m][n], counts);
                    }
                }
            }
        }
    }
    matvec_finish(reduce, first_m, first_n, &sums, &squares);
}
