// A kernel that no compiler takes: the tests look at how that is told.

@group(0) @binding(0) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(1)
fn broken() {
    y[0] = not_defined;
}
