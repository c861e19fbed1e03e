//! Which loops are written out, and that what comes of it is sound. That it computes the same, the adapter's tests show: they
//! run every kernel as it is, with checks, and unrolled, without.

use raglan_shaders::unroll;

/// Loops written out of `body`, and loops that are left.
fn unrolled(body: &str) -> (usize, usize) {
    let source = format!(
        "@group(0) @binding(0) var<storage, read_write> out: array<f32>;
        const N: u32 = 4u;
        fn one(values: ptr<function, array<f32, N>>, i: u32) -> f32 {{ return (*values)[i]; }}
        fn step(i: ptr<function, u32>) {{ *i += 2u; }}
        @compute @workgroup_size(1)
        fn kernel(@builtin(local_invocation_index) lane: u32) {{
            var sums: array<f32, N>;
            {body}
            out[lane] = sums[0];
        }}"
    );
    let mut module = naga::front::wgsl::parse_str(&source).unwrap_or_else(|e| panic!("{}", e.emit_to_string(&source)));
    let count = unroll(&mut module);
    let mut validator =
        naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::empty());
    let info = validator.validate(&module).unwrap_or_else(|e| panic!("{body}: {}", e.emit_to_string(&source)));
    let text = naga::back::wgsl::write_string(&module, &info, naga::back::wgsl::WriterFlags::empty());
    (count, text.map_or(0, |text| text.matches("loop {").count()))
}

#[test]
fn loops_over_arrays_of_the_function_are_written_out_with_all_that_is_in_them() {
    for (body, wanted) in [
        ("for (var i = 0u; i < N; i++) { sums[i] = 1.0; }", (1, 0)),
        ("for (var i = 1u; i < N * 2u; i += 3u) { sums[i / 2u] += f32(i); }", (1, 0)),
        ("for (var i = 0u; i < N; i++) { for (var j = 0u; j < 2u; j++) { sums[i] += out[i * 2u + j]; } }", (1, 4)),
        ("for (var i = 0u; i < N; i++) { for (var j = 0u; j < 2u; j++) { sums[(i + j) % N] += 1.0; } }", (2, 0)),
        (
            "for (var i = 0u; i < N; i += 3u) { for (var j = 0u; j < min(3u, N - i); j++) { sums[i + j] += 1.0; } }",
            (3, 0),
        ),
        ("for (var s = lane; s < 100u; s += 8u) { for (var i = 0u; i < N; i++) { sums[i] += out[s + i]; } }", (1, 1)),
        ("for (var i = 0u; i < N; i++) { if lane == i { sums[i] = one(&sums, i); } else { return; } }", (1, 0)),
        (
            "for (var i = 0u; i < N; i++) { switch i { case 1u: { sums[i] = 1.0; break; } default: { sums[i] = 2.0; } } }",
            (1, 0),
        ),
        ("for (var i = 0u; i < 0u; i++) { sums[i] = 1.0; }", (1, 0)),
        ("var i = 2u; for (; i < N; i++) { sums[i] = 1.0; } out[i] = 1.0;", (1, 0)),
    ] {
        assert_eq!(unrolled(body), wanted, "{body}");
    }
}

#[test]
fn other_loops_stay_as_they_are() {
    for body in [
        "for (var i = 0u; i < lane; i++) { sums[i] = 1.0; }",
        "for (var i = 0u; i < N; i++) { out[i] = sums[1]; }",
        "for (var i = 0u; i < N; i++) { if lane == i { break; } sums[i] = 1.0; }",
        "for (var i = 0u; i < N; i++) { if lane == i { continue; } sums[i] = 1.0; }",
        "for (var i = 0u; i < N; i++) { sums[i] = 1.0; i += lane; }",
        "for (var i = 0u; i < N; i++) { sums[i] = 1.0; step(&i); }",
        "var i = 0u; i = lane; out[1] = 1.0; for (; i < N; i++) { sums[i] = 1.0; }",
        "for (var i = 0u; i < 4000u; i++) { sums[i % N] = 1.0; }",
        "for (var i = 3u; i > 0u; i -= 1u) { sums[i] = 1.0; }",
    ] {
        assert_eq!(unrolled(body), (0, 1), "{body}");
    }
}
