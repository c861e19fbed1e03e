//! How fast weights become integers on one core, and what that costs: `cargo bench -p raglan-models --bench quantize [-- MODEL]`.
//! With a checkpoint the errors are of its matrices, each beside that of plain rounding.

use raglan_models::quantize::encode_rows;
use raglan_models::{Checkpoint, QuantizeTo};
use std::path::Path;
use std::time::Instant;

const TARGETS: [&str; 8] = [
    "int8-g128-sym",
    "int8-g32-sym",
    "int8-g128-zero",
    "int4-g32-zero",
    "int4-g128-zero",
    "int4-g32-sym",
    "int4-g128-sym",
    "int4-g32-zero-plain",
];
const COLS: usize = 4096;
const ROWS: usize = 128;

/// Encodes rows, and gives the squares of what was lost and the seconds that it took.
fn encode(values: &[f32], cols: usize, to: QuantizeTo) -> (f64, f64) {
    let format = to.format(cols).expect("columns in groups");
    let row_bytes = format.row_bytes(cols).expect("whole blocks");
    let mut blocks = vec![0; values.len() / cols * row_bytes];
    let start = Instant::now();
    encode_rows(values, cols, to, None, &mut blocks).expect("finite weights");
    let seconds = start.elapsed().as_secs_f64();
    let mut back = vec![0.0; values.len()];
    format.decode(&blocks, &mut back);
    (values.iter().zip(&back).map(|(x, y)| f64::from(x - y).powi(2)).sum(), seconds)
}

fn main() {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    let values: Vec<f32> = (0..ROWS * COLS).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect();
    println!("{:<20} {:>9} {:>9}  normal weights, one core", "to", "M/s", "error");
    for to in TARGETS.map(|name| name.parse::<QuantizeTo>().expect("a name")) {
        let (error, seconds) = encode(&values, COLS, to);
        println!(
            "{to:<20} {:>9.1} {:>9.5}",
            1e-6 * values.len() as f64 / seconds,
            (error / values.len() as f64).sqrt()
        );
    }
    let Some(path) = std::env::args().skip(1).find(|arg| !arg.starts_with('-')) else { return };
    let checkpoint = Checkpoint::open(Path::new(&path)).expect("a checkpoint");
    println!("{:<20} {:>9} {:>9}  {path}: error over weights, and over plain rounding's", "to", "error", "plain");
    for to in TARGETS.map(|name| name.parse::<QuantizeTo>().expect("a name")) {
        let (mut lost, mut plain, mut all) = (0.0, 0.0, 0.0);
        let spec = checkpoint.spec();
        for role in spec.roles().filter(|role| spec.shape(*role).len() == 2).step_by(7) {
            let tensor = checkpoint.tensor(role).expect("it was found").expect("the model has it");
            let rows = tensor.rows.min(ROWS);
            let mut stored = vec![0; tensor.format.row_bytes(tensor.cols).expect("whole blocks") * rows];
            let mut values = vec![0.0; rows * tensor.cols];
            tensor.write_rows(0..rows, &mut stored);
            tensor.format.decode(&stored, &mut values);
            lost += encode(&values, tensor.cols, to).0;
            plain += encode(&values, tensor.cols, QuantizeTo { search: false, ..to }).0;
            all += values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        }
        println!("{to:<20} {:>9.5} {:>9.3}", (lost / all).sqrt(), (lost / plain).sqrt());
    }
}
