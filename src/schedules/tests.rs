use super::attention::{AUTO, CHUNKS, WHOLE};
use super::*;
use raglan_shaders::KvType;
use raglan_shaders::WeightFormat;

pub(crate) fn terms(limits: AdapterLimits, class: AdapterClass) -> Terms {
    let act = if limits.shader_f16 { Part::ActF16 } else { Part::ActF32 };
    let split_bytes = if class == AdapterClass::Hardware { 8 << 20 } else { 0 };
    Terms { limits, class, act, int8: true, split_bytes }
}

const HEADS: KvHeads = KvHeads { kv_heads: 8, group: 4, head_stride: 128, kv: KvType::F16 };

fn lavapipe() -> AdapterLimits {
    AdapterLimits {
        max_workgroup_bytes: 32 << 10,
        min_subgroup_lanes: 8,
        max_subgroup_lanes: 8,
        coop_side: 8,
        ..AdapterLimits::most()
    }
}

#[test]
fn every_candidate_is_read_back_from_its_text() {
    for (limits, class) in [
        (AdapterLimits::most(), AdapterClass::Hardware),
        (AdapterLimits::least(), AdapterClass::Hardware),
        (lavapipe(), AdapterClass::Software),
    ] {
        let terms = terms(limits, class);
        for rows in [1, 100] {
            let all = linear::all(rows, &terms);
            assert!(all.len() <= if class == AdapterClass::Software { 80 } else { 1200 }, "{rows} rows: {}", all.len());
            println!("{class:?} {rows} rows: {}", all.len());
            for kernel in ["matvec", "matvec_int8", "matmul", "matmul_coop"] {
                println!("{kernel} {}", all.iter().filter(|c| c.kernel.name == kernel).count());
            }
            for choice in &all {
                let text = choice.candidate().to_string();
                let read = text.parse().ok().and_then(|candidate| LinearChoice::of(&candidate));
                assert_eq!(read.as_ref(), Some(choice), "{text}");
            }
        }
        for form in [Form::Vector, Form::Tile] {
            let all = attention::all(form, &HEADS, &terms, &[]);
            println!("{class:?} {form:?}: {} candidates", all.len());
            for choice in &all {
                let text = choice.candidate().to_string();
                let read = text.parse().ok().and_then(|candidate| AttentionChoice::of(&candidate, 128));
                assert_eq!(read.as_ref(), Some(choice), "{text}");
            }
        }
    }
}

#[test]
fn what_no_kernel_has_is_refused() {
    for text in [
        "matvec LANES=64 TILE_M=1 TILE_N=4 UNROLL=2 FUSED=2",
        "matvec LANES=65 TILE_M=1 TILE_N=4 UNROLL=2 FUSED=0",
        "matvec LANES=64 TILE_M=1 TILE_N=4 FUSED=0",
        "matvec LANES=64 TILE_M=1 TILE_N=4 UNROLL=2 SPLITS=1",
        "matmul LANES_M=8 LANES_N=8 TILE_M=4 TILE_N=4 STAGES=1 DEPTH=32 SPLITS=3",
        "argmax LANES=64",
    ] {
        let candidate = text.parse().expect("a kernel and its settings");
        assert!(LinearChoice::of(&candidate).is_none(), "{text}");
    }
    let vector = |chunk: u32| format!("attention_vector LANES=128 TEAM=8 ROWS=4 KEYS=4 CHUNK={chunk}");
    let read = |text: String, stride| AttentionChoice::of(&text.parse().expect("a candidate"), stride);
    assert!(read(vector(128), 128).is_some() && read(vector(100), 128).is_none());
    assert!(read(vector(128), 100).is_none(), "no kernel has heads of such a stride");
}

#[test]
fn weights_are_read_again_for_every_tile_of_rows_and_a_split_pays_for_its_parts() {
    let terms = terms(AdapterLimits::most(), AdapterClass::Hardware);
    let shape =
        |rows| LinearShape { rows, cols: 4096, inner: 4096, format: WeightFormat::F16, normed: true, gated: false };
    let choice = |text: &str| LinearChoice::of(&text.parse().expect("a candidate")).expect("a choice");
    let few = |tile: u32, fused: u32| choice(&format!("matvec LANES=64 TILE_M={tile} TILE_N=4 UNROLL=1 FUSED={fused}"));
    let cost = |choice: &LinearChoice, rows| linear::cost(choice, &shape(rows), &terms);
    let weights = 4096.0 * 4096.0 * 2.0;
    let (one, eight) = (cost(&few(1, 0), 8), cost(&few(8, 0), 8));
    assert!(one.bytes > 8.0 * weights && eight.bytes < 4.0 * weights);
    assert_eq!((one.workgroups, eight.workgroups), (8192.0, 1024.0));
    assert_eq!(cost(&few(8, 0), 1).flops, eight.flops, "whole tiles");
    assert!(cost(&few(1, 1), 1).flops > cost(&few(1, 0), 1).flops, "every workgroup norms for itself");
    let many = |splits: u32| {
        choice(&format!("matmul LANES_M=8 LANES_N=8 TILE_M=4 TILE_N=4 STAGES=1 DEPTH=32 SPLITS={splits}"))
    };
    let (whole, split) = (cost(&many(1), 32), cost(&many(4), 32));
    assert_eq!(split.workgroups, 4.0 * whole.workgroups);
    assert_eq!(split.bytes - whole.bytes, (2 * 4 * 32 * 4096 * 4) as f64);
    assert!(linear::legal(&many(4), &shape(32), &terms));
    assert!(!linear::legal(&many(4), &LinearShape { inner: 256, ..shape(32) }, &terms), "parts of 64 columns");
    assert!(!linear::legal(&many(8), &shape(512), &terms), "no room for the parts");
    let plain = LinearShape { normed: false, ..shape(1) };
    assert!(!linear::legal(&few(1, 1), &plain, &terms), "nothing to norm");
}

#[test]
fn a_batch_counts_the_parts_of_every_chunk() {
    let stats = AttentionStats::of(HEADS, 3, &[100, 300, 5000], 640);
    assert_eq!((stats.runs, stats.keys, stats.keys_max), (3, 5400, 5000));
    let parts = |chunk: usize| 100usize.div_ceil(chunk) + 300usize.div_ceil(chunk) + 5000usize.div_ceil(chunk);
    for (chunk, met) in CHUNKS.into_iter().zip(stats.parts) {
        let want = match chunk {
            WHOLE => 3,
            AUTO => parts(640),
            chunk => parts(chunk as usize),
        };
        assert_eq!(met, want, "{chunk}");
    }
    let mean = 1800f64;
    let deviation = [100f64, 300.0, 5000.0].map(|keys| (keys - mean).powi(2)).iter().sum::<f64>() / 3.0;
    assert!((f64::from(stats.variation) - deviation.sqrt() / mean).abs() < 1e-6);
    let terms = terms(AdapterLimits::most(), AdapterClass::Hardware);
    let of = |chunk: u32| {
        let text = format!("attention_vector LANES=128 TEAM=8 ROWS=4 KEYS=4 CHUNK={chunk}");
        attention::cost(
            &AttentionChoice::of(&text.parse().expect("a candidate"), 128).expect("a choice"),
            &stats,
            &terms,
        )
    };
    assert_eq!((of(WHOLE).workgroups, of(128).workgroups), (24.0, 8.0 * parts(128) as f64));
    assert!(of(WHOLE).bytes < of(128).bytes, "partial results are written and read");
}

#[test]
fn an_adapter_type_has_no_versions() {
    let limits = |lanes| AdapterLimits { max_subgroup_lanes: lanes, ..AdapterLimits::most() };
    assert_eq!(adapter_type("llvmpipe (LLVM 19.1.7, 256 bits)", &limits(8)), "llvmpipe-8");
    assert_eq!(adapter_type("NVIDIA H100 PCIe", &limits(32)), "nvidia-h100-pcie-32");
    assert_eq!(adapter_type("AMD Radeon RX 7900 XTX (RADV NAVI31)", &limits(64)), "amd-radeon-rx-7900-xtx-64");
    assert_eq!(adapter_type("../..", &limits(8)), "unknown-8", "it names a folder");
}

#[test]
fn every_space_has_a_hash_and_dims_for_its_descriptor() {
    for space in all_spaces() {
        assert_eq!(kernel_hash(&space.name).len(), 16);
        let dims = if space.name.starts_with("linear") { 7 } else { 10 };
        assert_eq!(space.dims.len(), dims, "{}", space.name);
    }
}

#[test]
fn every_format_is_described_by_other_numbers() {
    let shape = |format| LinearShape { rows: 1, cols: 64, inner: 256, format, normed: false, gated: false };
    let all: Vec<_> = WeightFormat::ALL.iter().map(|&format| linear::descriptor(&shape(format))).collect();
    for (index, one) in all.iter().enumerate() {
        assert!(!all[..index].contains(one), "{:?}", WeightFormat::ALL[index]);
    }
}
