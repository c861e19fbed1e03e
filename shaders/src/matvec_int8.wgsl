// As matvec.wgsl, with x in 8 bits where it meets the quants of block formats: a lane rounds each group of quads that it
// loads to whole 127ths of the group's largest value, and multiplies four bytes at once. Sums over a group are exact.
// Linked with matvec_forms.wgsl, a weight format of blocks (weight_*.wgsl), one of act_*.wgsl, of input_*.wgsl, of reduce_*.wgsl and
// of epilogue_*.wgsl.

const LANES: u32 = 64u;
const TILE_M: u32 = 1u;
const TILE_N: u32 = 4u;
const UNROLL: u32 = 2u;

// Less is nothing beside any other term, and 127 over it may be infinite.
const LEAST: f32 = 1e-30;

@compute @workgroup_size(LANES)
fn matvec_int8(@builtin(workgroup_id) group: vec3<u32>, reduce: ReduceBuiltins) {
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
                for (var m = 0u; m < TILE_M; m++) {
                    var values: array<vec4<f32>, WEIGHT_GROUP_QUADS>;
                    var most = vec4<f32>();
                    var square = 0.0;
                    for (var i = 0u; i < WEIGHT_GROUP_QUADS; i++) {
                        values[i] = input_load(rows[m], first_quad + i);
                        if INPUT_NORMED == 1u {
                            square += dot(values[i], values[i]);
                            values[i] *= input_gain(first_quad + i);
                        }
                        most = max(most, abs(values[i]));
                    }
                    squares[m] += select(0.0, square, counts);
                    let largest = max(max(most.x, most.y), max(most.z, most.w));
                    var inverse = 0.0;
                    if largest > LEAST {
                        inverse = 127.0 / largest;
                    }
                    var quads: array<u32, WEIGHT_GROUP_QUADS>;
                    var total = 0i;
                    for (var i = 0u; i < WEIGHT_GROUP_QUADS; i++) {
                        quads[i] = pack4xI8(vec4<i32>(round(values[i] * inverse)));
                        total += dot4I8Packed(quads[i], 0x01010101u);
                    }
                    for (var n = 0u; n < TILE_N; n++) {
                        var products = -weight_zero(words[u][n]) * total;
                        for (var i = 0u; i < WEIGHT_GROUP_QUADS; i++) {
                            products += dot4I8Packed(quads[i], weight_quants(words[u][n], unit, g, i));
                        }
                        let scale = weight_scale(words[u][n], unit, g);
                        var sum = scale.x * f32(products);
                        if WEIGHT_TERMS == 2u {
                            sum += scale.y * f32(total);
                        }
                        sums[m][n] += select(0.0, sum * (largest / 127.0), counts);
                    }
                }
            }
        }
    }
    matvec_finish(reduce, first_m, first_n, &sums, &squares);
}
