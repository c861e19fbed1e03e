// Rotates a head's columns in workgroup memory, in blocks, by a Hadamard matrix (Sylvester's; normalised, it is its own inverse).
// Needs `params.head_dim`, at most ROTATE_MOST_COLS, `params.rotation`: columns that are rotated together, a power of two that divides it, and
// `const LANES`: the lanes of the workgroup.
// Source: Ashkboos et al. 2024, "QuaRot", arXiv:2404.00456, section 4.

const ROTATE_MOST_COLS: u32 = 256u;

var<workgroup> rotate_row: array<f32, ROTATE_MOST_COLS>;

// Sums and differences of columns whose indices differ in one bit, bit by bit. Returns what they are multiplied by then.
// All lanes of the workgroup must come along, behind a barrier.
fn rotate(lane: u32) -> f32 {
    for (var bit = 1u; bit < params.rotation; bit *= 2u) {
        for (var i = lane; i < params.head_dim / 2u; i += LANES) {
            let at = i / bit * bit + i;
            let sum = rotate_row[at] + rotate_row[at + bit];
            rotate_row[at + bit] = rotate_row[at] - rotate_row[at + bit];
            rotate_row[at] = sum;
        }
        workgroupBarrier();
    }
    return inverseSqrt(f32(params.rotation));
}
