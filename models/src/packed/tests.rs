//! Scales as words. (Layouts are tested against what other programs wrote, in `tests/quantised.rs`.)

use super::*;

#[test]
fn every_half_of_both_kinds_is_a_scale_as_it_is() {
    for bits in 0..=u16::MAX {
        for scale in [f16::from_bits(bits).to_f32(), bf16::from_bits(bits).to_f32()] {
            let word = scale_word(scale, 200);
            let met = f32::from_bits(word & 0xffff_ff00);
            assert_eq!(word & 0xff, 200);
            assert!(
                met == scale && met.is_sign_negative() == scale.is_sign_negative() || met.is_nan() && scale.is_nan()
            );
        }
    }
}

#[test]
fn scales_of_more_bits_are_rounded_to_the_nearest_and_past_the_largest_to_infinity() {
    let rounded = |bits: u32| scale_word(f32::from_bits(bits), 0);
    assert_eq!(rounded(0x3f80_0080), 0x3f80_0000, "a tie goes to the even one");
    assert_eq!(rounded(0x3f80_0180), 0x3f80_0200);
    assert_eq!(rounded(0x3f80_0081), 0x3f80_0100);
    assert_eq!(rounded(0xbf80_01ff), 0xbf80_0200);
    assert_eq!(rounded(0x7f7f_ffff), 0x7f80_0000);
    assert!(f32::from_bits(rounded(0x7f80_0001)).is_nan());
}
