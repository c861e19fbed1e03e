//! What holds of every group, whatever its weights.

use super::*;
use proptest::prelude::*;

const ALL: [&str; 8] = [
    "int4-g32-zero",
    "int4-g128-zero",
    "int4-g32-sym",
    "int4-g128-sym",
    "int8-g32-zero",
    "int8-g128-zero",
    "int8-g32-sym",
    "int8-g128-sym",
];

fn target(name: &str) -> QuantizeTo {
    name.parse().expect(name)
}

fn row_bytes(cols: usize, to: QuantizeTo) -> usize {
    to.format(cols).and_then(|format| format.row_bytes(cols)).expect("whole groups")
}

fn plain(to: QuantizeTo) -> QuantizeTo {
    QuantizeTo { search: false, ..to }
}

/// What comes back of weights, straight from the meaning of codes and grids.
fn back(values: &[f32], cols: usize, to: QuantizeTo, importance: Option<&[f32]>) -> Vec<f32> {
    let mut back = Vec::new();
    let each = |codes: &[u8], grid: Grid| {
        assert_eq!(half::f16::from_f32(grid.scale).to_f32(), grid.scale, "a scale of f16");
        assert!(grid.scale > 0.0 && codes.iter().all(|code| *code <= to.bits.max()));
        back.extend(codes.iter().map(|&code| grid.scale * (f32::from(code) - f32::from(grid.zero))));
    };
    quantize_rows(values, cols, to, importance, Format::F16, each).expect("finite weights");
    back
}

fn error(values: &[f32], back: &[f32], importance: Option<&[f32]>) -> f64 {
    let weight = |index: usize| importance.map_or(1.0, |importance| f64::from(importance[index % importance.len()]));
    let errors = values.iter().zip(back).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2));
    errors.enumerate().map(|(index, error)| weight(index) * error).sum()
}

/// Numbers that look drawn from a normal distribution, the same for the same seed.
fn normal(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..count).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect()
}

proptest! {
    #[test]
    fn the_search_is_never_worse_than_plain_rounding(
        seed: u64,
        exponent in -30i32..12,
        shift in -3.0f32..3.0,
        name in prop::sample::select(&ALL[..]),
        weighted: bool,
    ) {
        let values: Vec<f32> = normal(seed, 256).iter().map(|x| (x + shift) * 2f32.powi(exponent)).collect();
        let importance: Vec<f32> = normal(seed ^ 1, 128).iter().map(|x| x * x).collect();
        let importance = weighted.then_some(&importance[..]);
        let (to, errs) = (target(name), |to| error(&values, &back(&values, 128, to, importance), importance));
        // Sums are in f32 where it chooses.
        prop_assert!(errs(to) <= errs(plain(to)) * (1.0 + 1e-4), "{} {}", errs(to), errs(plain(to)));
    }

    #[test]
    fn weights_on_a_grid_come_back_exactly(seed: u64, exponent in -14i32..8, name in prop::sample::select(&ALL[..]), zero: u8) {
        let to = target(name);
        let scale = half::f16::from_f32(1.37 * 2f32.powi(exponent)).to_f32();
        let max = i32::from(to.bits.max());
        let zero = if to.symmetric { max / 2 + 1 } else { i32::from(zero) % (max + 1) };
        let mut values: Vec<f32> =
            normal(seed, 128).iter().map(|x| (((x * 40.0) as i32 + zero).clamp(i32::from(to.symmetric), max) - zero) as f32 * scale).collect();
        for group in values.chunks_exact_mut(32) {
            // The ends of the grid, by which it is known.
            (group[3], group[17]) = ((i32::from(to.symmetric) - zero) as f32 * scale, (max - zero) as f32 * scale);
        }
        prop_assert_eq!(back(&values, 128, to, None), values);
    }

    #[test]
    fn blocks_decode_to_what_codes_and_grids_mean(
        seed: u64,
        exponent in -30i32..12,
        shift in -3.0f32..3.0,
        name in prop::sample::select(&ALL[..]),
    ) {
        let values: Vec<f32> = normal(seed, 256).iter().map(|x| (x + shift) * 2f32.powi(exponent)).collect();
        let to = target(name);
        let (mut blocks, mut met) = (vec![0; 2 * row_bytes(128, to)], vec![0.0; 256]);
        encode_rows(&values, 128, to, None, &mut blocks).expect("finite");
        to.format(128).expect("whole groups").decode(&blocks, &mut met);
        prop_assert_eq!(met, back(&values, 128, to, None));
    }

    #[test]
    fn nothing_is_further_than_half_a_step(seed: u64, name in prop::sample::select(&ALL[..])) {
        let (values, to) = (normal(seed, 128), plain(target(name)));
        let group = to.group_of(128).expect("128 columns");
        for (x, y) in values.chunks(group).zip(back(&values, 128, to, None).chunks(group)) {
            let reach = x.iter().map(|x| x.abs()).fold(0.0, f32::max);
            let range = if to.symmetric { 2.0 * reach } else { x.iter().fold(0.0f32, |m, x| m.max(*x)) - x.iter().fold(0.0f32, |m, x| m.min(*x)) };
            let steps = f32::from(to.bits.max()) - f32::from(u8::from(to.symmetric));
            let step = range / steps;
            for (x, y) in x.iter().zip(y) {
                // The zero point is rounded too, and the scale to f16.
                let most = if to.symmetric { 0.5 } else { 1.0 } * step + reach / 2048.0;
                prop_assert!((x - y).abs() <= most * 1.001, "{x} {y} {step}");
            }
        }
    }
}

#[test]
fn zeros_constants_and_extremes_stay_what_they_are() {
    for name in ALL {
        let to = target(name);
        assert_eq!(back(&[0.0; 128], 128, to, None), [0.0; 128], "{name}");
        assert_eq!(back(&[-0.0; 128], 128, to, None), [0.0; 128], "{name}");
        for constant in [1.0, -0.37, 3e-3, -1234.5, 6e4] {
            let values = [constant; 128];
            for y in back(&values, 128, to, None) {
                assert!((y - constant).abs() <= constant.abs() / 1000.0, "{name}: {y} for {constant}");
            }
        }
        // Past the scales of f16: nothing is lost but what they cannot reach.
        for tiny in [f32::MIN_POSITIVE, 1e-45, 1e-9] {
            assert!(back(&[tiny, -tiny].repeat(64), 128, to, None).iter().all(|y| y.abs() <= 2f32.powi(-24)), "{name}");
        }
        for huge in [1e30, f32::MAX] {
            let back = back(&[huge, -huge, 0.0, 1.0].repeat(32), 128, to, None);
            assert!(back.iter().all(|y| y.is_finite() && y.abs() <= 65504.0 * 256.0), "{name}");
            assert!(back[0] - back[1] > 4e5, "{name}: {} {}", back[0], back[1]);
        }
    }
}

#[test]
fn what_is_no_number_is_refused_with_its_place() {
    for met in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = vec![1.0; 4 * 1280];
        (values[3333], values[4444]) = (met, f32::NAN);
        let mut out = vec![0; 4 * row_bytes(1280, QuantizeTo::Q4)];
        let refused = encode_rows(&values, 1280, QuantizeTo::Q4, None, &mut out).expect_err("no number");
        assert_eq!((refused.index, refused.met.to_bits()), (3333, met.to_bits()));
    }
}

#[test]
fn columns_that_count_more_come_back_closer() {
    for name in ALL {
        let (to, values) = (target(name), normal(7, 64 * 128));
        let mut importance = vec![0.01; 128];
        (0..128).step_by(9).for_each(|col| importance[col] = 1.0);
        let of_important = |importance: Option<&[f32]>| {
            let back = back(&values, 128, to, importance);
            let errors = values.iter().zip(&back).enumerate().filter(|(index, _)| index % 128 % 9 == 0);
            errors.map(|(_, (x, y))| f64::from(x - y).powi(2)).sum::<f64>()
        };
        let (with, without) = (of_important(Some(&importance)), of_important(None));
        assert!(with < without, "{name}: {with} {without}");
        if to.bits == Bits::Four {
            assert!(with < 0.8 * without, "{name}: {with} {without}");
        }
    }
}

#[test]
fn the_search_pays_on_weights_as_they_are() {
    let values = normal(3, 256 * 128);
    for name in ALL {
        let to = target(name);
        let errs = |to| error(&values, &back(&values, 128, to, None), None);
        let share = errs(to) / errs(plain(to));
        println!("{name}: {share:.3} of the plain error, rms {:.5}", (errs(to) / values.len() as f64).sqrt());
        assert!(share < if to.bits == Bits::Four { 0.9 } else { 1.0 }, "{name}: {share}");
    }
}

#[test]
fn blocks_hold_codes_scale_and_zero() {
    let values: Vec<f32> = (0..128).map(|index| (index % 16) as f32 * 0.5 - 3.0).collect();
    let to = target("int4-g32-zero");
    let mut out = vec![0; row_bytes(128, to)];
    encode_rows(&values, 128, to, None, &mut out).expect("finite");
    assert_eq!(out.len(), 4 * 20);
    for block in out.chunks_exact(20) {
        let quants: Vec<u8> = (0..16).map(|byte| byte | byte << 4).collect();
        assert_eq!(block[..16], quants);
        assert_eq!(block[16..], (0.5f32.to_bits() | 6).to_le_bytes());
    }
    // ggml's: the scale comes first; zero is 8, or bytes have a sign.
    let half = |scale: f32| half::f16::from_f32(scale).to_le_bytes();
    let values: Vec<f32> = (0..32).map(|index| (index % 15) as f32 * 0.5 - 3.5).collect();
    let mut out = vec![0; 18];
    encode_rows(&values, 32, target("int4-g32-sym"), None, &mut out).expect("finite");
    let quants: Vec<u8> = (0..16).map(|byte| (byte % 15 + 1) | ((byte + 16) % 15 + 1) << 4).collect();
    assert_eq!(out, [&half(0.5)[..], &quants].concat());
    let values: Vec<f32> = (0..32).map(|index| (127 - 8 * index) as f32 * 0.25).collect();
    let mut out = vec![0; 34];
    encode_rows(&values, 32, QuantizeTo::Q8, None, &mut out).expect("finite");
    let quants: Vec<u8> = (0..32).map(|index| (127i8.wrapping_sub_unsigned(8 * index)) as u8).collect();
    assert_eq!(out, [&half(0.25)[..], &quants].concat());
    let to = target("int8-g128-sym");
    let values: Vec<f32> = (0..128).map(|index| index as f32 * -0.25).collect();
    let mut out = vec![0; row_bytes(128, to)];
    encode_rows(&values, 128, to, None, &mut out).expect("finite");
    assert_eq!(out[..128], (0..128).map(|index| 128 - index).collect::<Vec<u8>>());
    assert_eq!(out[128..], (0.25f32.to_bits() | 128).to_le_bytes());
}
