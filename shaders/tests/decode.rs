//! Weight formats against blocks worked out by hand from ggml's `ggml-common.h` (the structs) and `ggml-quants.c` (the
//! `dequantize_row_*` functions), and their regrouping for the GPU.

use raglan_shaders::WeightFormat::{self, *};

// Halves, by hand: sign, five bits of exponent with a bias of 15, ten bits of fraction.
const HALF: [u8; 2] = [0x00, 0x38]; // 0.5 = 2^-1
const QUARTER: [u8; 2] = [0x00, 0x34]; // 0.25 = 2^-2
const ONE: [u8; 2] = [0x00, 0x3c];
const MINUS_ONE_AND_A_HALF: [u8; 2] = [0x00, 0xbe];

/// Quants j | (15 - j) << 4: the low nibbles rise, the high nibbles fall.
const NIBBLES: [u8; 16] =
    [0xf0, 0xe1, 0xd2, 0xc3, 0xb4, 0xa5, 0x96, 0x87, 0x78, 0x69, 0x5a, 0x4b, 0x3c, 0x2d, 0x1e, 0x0f];

fn rising() -> impl Iterator<Item = f64> {
    [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.].into_iter()
}

fn falling() -> impl Iterator<Item = f64> {
    [15., 14., 13., 12., 11., 10., 9., 8., 7., 6., 5., 4., 3., 2., 1., 0.].into_iter()
}

#[test]
fn floats_are_their_bits() {
    assert_eq!(F32.decode(&[0x00, 0x00, 0xc0, 0xbf, 0x00, 0x00, 0x80, 0x3f]), [-1.5, 1.0]);
    assert_eq!(F16.decode(&[0x00, 0xbe, 0x00, 0x3c, 0xff, 0x7b, 0x01, 0x00]), [-1.5, 1.0, 65504.0, 2f64.powi(-24)]);
    assert_eq!(Bf16.decode(&[0xc0, 0xbf, 0x80, 0x3f, 0x49, 0x40]), [-1.5, 1.0, 3.140625]);
}

#[test]
fn q8_0_is_a_scale_and_signed_bytes() {
    let mut block = HALF.to_vec();
    block.extend([0, 1, 127, 128, 255, 254].iter().chain(&[2; 26]));
    let mut want = vec![0.0, 0.5, 63.5, -64.0, -0.5, -1.0];
    want.extend([1.0; 26]);
    assert_eq!(Q8_0.decode(&block), want);
}

#[test]
fn q4_0_counts_from_8_with_low_nibbles_first() {
    let block = [&HALF[..], &NIBBLES].concat();
    let want: Vec<f64> = rising().chain(falling()).map(|q| 0.5 * (q - 8.0)).collect();
    assert_eq!((want[0], want[15], want[16], want[31]), (-4.0, 3.5, 3.5, -4.0));
    assert_eq!(Q4_0.decode(&block), want);
}

#[test]
fn q4_1_adds_a_minimum() {
    let block = [&QUARTER[..], &MINUS_ONE_AND_A_HALF, &NIBBLES].concat();
    let want: Vec<f64> = rising().chain(falling()).map(|q| 0.25 * q - 1.5).collect();
    assert_eq!((want[0], want[15], want[16], want[31]), (-1.5, 2.25, 2.25, -1.5));
    assert_eq!(Q4_1.decode(&block), want);
}

#[test]
fn q5_0_takes_bit_i_of_the_high_bits_for_value_i() {
    // Bits 0, 9, 16 and 31.
    let block = [&HALF[..], &[0x01, 0x02, 0x01, 0x80], &NIBBLES].concat();
    let mut want: Vec<f64> = rising().chain(falling()).map(|q| 0.5 * (q - 16.0)).collect();
    for (value, with_high_bit) in [(0, 0.0), (9, 4.5), (16, 7.5), (31, 0.0)] {
        want[value] = with_high_bit;
    }
    assert_eq!(Q5_0.decode(&block), want);
}

#[test]
fn q5_1_has_high_bits_and_a_minimum() {
    let block = [&QUARTER[..], &MINUS_ONE_AND_A_HALF, &[0x01, 0x02, 0x01, 0x80], &NIBBLES].concat();
    let mut want: Vec<f64> = rising().chain(falling()).map(|q| 0.25 * q - 1.5).collect();
    // (16, 25, 31, 16) / 4 - 1.5
    for (value, with_high_bit) in [(0, 2.5), (9, 4.75), (16, 6.25), (31, 2.5)] {
        want[value] = with_high_bit;
    }
    assert_eq!(Q5_1.decode(&block), want);
}

/// Scales 1, 2, 3, 4, 33, 34, 35, 63 and minimums 0, 1, 2, 3, 20, 40, 50, 63 as `get_scale_min_k4` finds them: the first
/// four of each in the low 6 bits of bytes 0..4 and 4..8; of the others the low 4 bits in the nibbles of bytes 8..12
/// (scales low), the high 2 bits at the top of bytes 0..4 (scales) and 4..8 (minimums).
const K_SCALES: [u8; 12] = [0x81, 0x82, 0x83, 0xc4, 0x40, 0x81, 0xc2, 0xc3, 0x41, 0x82, 0x23, 0xff];

/// 32 bytes hold two stretches: quants 0, 1 … 15, 0 … 15 in the low nibbles, 15 … 0, 15 … 0 in the high ones.
fn k_quants() -> Vec<u8> {
    NIBBLES.repeat(8)
}

#[test]
fn q4_k_has_a_scale_and_a_minimum_to_32_values() {
    let block = [&ONE[..], &HALF, &K_SCALES, &k_quants()].concat();
    let values = Q4K.decode(&block);
    // scale · q - minimum / 2, with q 0 and 15 in even stretches, 15 and 0 in odd ones.
    let first_and_last = [
        (0.0, 15.0),
        (29.5, -0.5),
        (-1.0, 44.0),
        (58.5, -1.5),
        (-10.0, 485.0),
        (490.0, -20.0),
        (-25.0, 500.0),
        (913.5, -31.5),
    ];
    for (stretch, (first, last)) in first_and_last.into_iter().enumerate() {
        assert_eq!((values[32 * stretch], values[32 * stretch + 31]), (first, last), "stretch {stretch}");
    }
    assert_eq!((values.len(), values[3], values[18], values[67]), (256, 3.0, 2.0, 8.0));
}

#[test]
fn q5_k_takes_bit_s_of_a_high_byte_for_stretch_s() {
    let mut high = [0u8; 32];
    high[0] = 0xff;
    high[1] = 0x04;
    let block = [&ONE[..], &HALF, &K_SCALES, &high, &k_quants()].concat();
    let values = Q5K.decode(&block);
    // q is 16 in even stretches, 31 in odd ones.
    let first = [16.0, 61.5, 47.0, 122.5, 518.0, 1034.0, 535.0, 1921.5];
    assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(|stretch| values[32 * stretch]), first);
    // Only stretch 2 has the high bit of its second value: 3 · 17 - 1.
    assert_eq!((values[1], values[33], values[65], values[97]), (1.0, 27.5, 50.0, 54.5));
}

#[test]
fn q6_k_spreads_a_value_over_two_arrays_and_has_a_signed_scale_to_16() {
    let (mut low, mut high, mut scales) = ([0u8; 128], [0u8; 64], [0u8; 16]);
    (low[0], low[32], high[0]) = (0x21, 0x43, 0b1110_0100);
    // Scales 2, 1, -3, 0, 4, 0, -5 of the first half; 7 for values 16..32 of the second.
    (scales[0], scales[1], scales[2], scales[4], scales[6]) = (2, 1, 0xfd, 4, 0xfb);
    (low[64 + 16], high[32 + 16], scales[8 + 1]) = (0x0f, 0x03, 7);
    let block = [&low[..], &high, &scales, &HALF].concat();
    let values = Q6K.decode(&block);
    // q - 32: 1, 3 | 16, 2 | 32, 4 | 48 less 32.
    assert_eq!((values[0], values[32], values[64], values[96]), (-31.0, 19.5, 4.0, -50.0));
    assert_eq!(values[128 + 16], 0.5 * 7.0 * 31.0);
    // Nothing but zeros is -32 times its scale.
    assert_eq!((values[1], values[17], values[33], values[200]), (-32.0, -16.0, 48.0, 0.0));
    assert_eq!(values.len(), 256);
}

/// `blocks` blocks of bytes that all differ from their neighbours.
fn row(format: WeightFormat, blocks: usize) -> Vec<u8> {
    (0..blocks * format.block_bytes()).map(|i| (i * 37 % 251) as u8).collect()
}

#[test]
fn regrouping_keeps_every_bit() {
    for format in WeightFormat::ALL {
        for blocks in [1, 2, 7] {
            let row = row(format, blocks);
            let mut grouped = vec![0xee; row.len() + 16];
            format.regroup(&row, &mut grouped);
            assert_eq!(grouped[row.len()..], [0; 16], "{format:?}: padding");
            // Back again, plane by plane.
            let mut back = vec![0; row.len()];
            let mut filled = 0;
            for &(start, bytes) in format.planes() {
                for block in back.chunks_exact_mut(format.block_bytes()) {
                    block[start..start + bytes].copy_from_slice(&grouped[filled..filled + bytes]);
                    filled += bytes;
                }
            }
            assert_eq!(back, row, "{format:?}, {blocks} blocks");
        }
    }
}

#[test]
fn planes_cover_a_block_once() {
    for format in WeightFormat::ALL {
        let mut covered = vec![0; format.block_bytes()];
        for &(start, bytes) in format.planes() {
            covered[start..start + bytes].iter_mut().for_each(|count| *count += 1);
        }
        assert!(covered.iter().all(|&count| count == 1), "{format:?}: {covered:?}");
    }
}

#[test]
fn a_row_lies_as_its_part_reads_it() {
    let row = row(Q5_1, 2);
    let mut grouped = vec![0xee; Q5_1.gpu_row_bytes(64)];
    Q5_1.regroup(&row, &mut grouped);
    // Low bits of both blocks, high bits of both, then scale and minimum of both.
    let want = [&row[8..24], &row[32..48], &row[4..8], &row[28..32], &row[0..4], &row[24..28]].concat();
    assert_eq!(grouped, want);
    // 1 block of 18 bytes is padded to 32; floats are padded to whole stretches of 32 values.
    assert_eq!(
        (Q4_0.gpu_row_bytes(32), F16.gpu_row_bytes(33), F32.gpu_row_bytes(1), Q6K.gpu_row_bytes(256)),
        (32, 128, 128, 224)
    );
}
