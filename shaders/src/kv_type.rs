//! What keys and values are kept in.

use crate::attention::HEAD_STRIDES;
use std::fmt;
use std::str::FromStr;

/// The type of the keys and values of a layer. What is quantised has a scale, or a scale and a minimum, a head of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KvType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 8 bits, symmetric.
    Int8,
    /// Keys in 8 bits, symmetric; rotated values in 4 bits with a minimum.
    K8V4,
    /// Rotated keys and values in 4 bits with a minimum.
    Int4,
}

impl KvType {
    /// Every type, from the most exact.
    pub const ALL: [KvType; 5] = [KvType::F32, KvType::F16, KvType::Int8, KvType::K8V4, KvType::Int4];

    /// As options and tables spell it.
    pub fn name(self) -> &'static str {
        match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
            KvType::Int8 => "int8",
            KvType::K8V4 => "k8v4",
            KvType::Int4 => "int4",
        }
    }

    /// Whether it has scales.
    pub fn is_quantised(self) -> bool {
        !matches!(self, KvType::F32 | KvType::F16)
    }

    /// Values in what a lane loads at once of K, and of V.
    pub fn word_values(self) -> usize {
        match self {
            KvType::F32 => 4,
            KvType::F16 => 8,
            KvType::Int8 | KvType::K8V4 | KvType::Int4 => 16,
        }
    }

    /// Bits of a key's column.
    pub fn k_bits(self) -> usize {
        match self {
            KvType::F32 => 32,
            KvType::F16 => 16,
            KvType::Int8 | KvType::K8V4 => 8,
            KvType::Int4 => 4,
        }
    }

    /// Bits of a value's column.
    pub fn v_bits(self) -> usize {
        match self {
            KvType::F32 => 32,
            KvType::F16 => 16,
            KvType::Int8 => 8,
            KvType::K8V4 | KvType::Int4 => 4,
        }
    }

    /// Bytes of a head's key in one slot.
    pub fn k_row_bytes(self, head_stride: usize) -> usize {
        head_stride * self.k_bits() / 8
    }

    /// Bytes of a head's value in one slot.
    pub fn v_row_bytes(self, head_stride: usize) -> usize {
        head_stride * self.v_bits() / 8
    }

    /// Bytes of the scales and minima of a head in one slot.
    pub fn scale_bytes(self) -> usize {
        match self {
            KvType::F32 | KvType::F16 => 0,
            KvType::Int8 => 4,
            KvType::K8V4 | KvType::Int4 => 8,
        }
    }

    /// Bytes of a head in one slot: key, value, and their scales.
    pub fn row_bytes(self, head_stride: usize) -> usize {
        self.k_row_bytes(head_stride) + self.v_row_bytes(head_stride) + self.scale_bytes()
    }

    /// Whether keys are rotated before they are rounded.
    pub fn rotates_keys(self) -> bool {
        self == KvType::Int4
    }

    /// Whether values are rotated before they are rounded.
    pub fn rotates_values(self) -> bool {
        matches!(self, KvType::K8V4 | KvType::Int4)
    }

    /// Columns to a head of `head_dim` in the cache: the least of [`HEAD_STRIDES`] that fits and whose rows are whole 16-byte words;
    /// `None` above 256.
    pub fn head_stride(self, head_dim: usize) -> Option<usize> {
        let strides = HEAD_STRIDES.iter().map(|&stride| stride as usize);
        strides.filter(|&stride| stride >= head_dim && self.v_row_bytes(stride).is_multiple_of(16)).min()
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for KvType {
    type Err = String;

    /// # Errors
    /// If no type has this name: the names that there are.
    fn from_str(name: &str) -> Result<KvType, String> {
        let names = || KvType::ALL.map(KvType::name).join(", ");
        let met = KvType::ALL.into_iter().find(|kv| kv.name() == name);
        met.ok_or_else(|| format!("{name:?} is no type of keys and values; there are {}", names()))
    }
}

/// Columns that are rotated together: the largest power of two that divides `head_dim`.
///
/// # Panics
/// If `head_dim` is 0.
pub fn rotation(head_dim: usize) -> usize {
    1 << head_dim.trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back_and_another_lists_them() {
        for kv in KvType::ALL {
            assert_eq!(kv.to_string().parse(), Ok(kv));
        }
        assert!(KvType::from_str("int3").is_err_and(|error| error.contains("f32, f16, int8, k8v4, int4")));
    }

    #[test]
    fn a_row_is_its_keys_its_values_and_its_scales() {
        let bytes = |kv: KvType| (kv.k_row_bytes(128), kv.v_row_bytes(128), kv.row_bytes(128));
        assert_eq!(
            KvType::ALL.map(bytes),
            [(512, 512, 1024), (256, 256, 512), (128, 128, 260), (128, 64, 200), (64, 64, 136)]
        );
    }

    #[test]
    fn rows_are_whole_words_at_every_width_of_a_head() {
        for (kv, head_dim) in KvType::ALL.into_iter().flat_map(|kv| (1..=256).map(move |head_dim| (kv, head_dim))) {
            let stride = kv.head_stride(head_dim).expect("there is one up to 256");
            assert!(stride >= head_dim, "{kv} {head_dim}");
            for bytes in [kv.k_row_bytes(stride), kv.v_row_bytes(stride)] {
                assert!(bytes.is_multiple_of(16), "{kv} {head_dim}: {bytes}");
            }
            assert!(stride.is_multiple_of(rotation(head_dim).min(32)), "{kv} {head_dim}");
        }
        assert_eq!(KvType::F16.head_stride(80), Some(80));
        assert_eq!(KvType::Int4.head_stride(80), Some(96));
        assert!(KvType::ALL.iter().all(|kv| kv.head_stride(257).is_none()));
    }

    #[test]
    fn rotations_are_powers_of_two() {
        assert_eq!([64, 80, 96, 100, 128, 256].map(rotation), [64, 16, 32, 4, 128, 256]);
    }
}
