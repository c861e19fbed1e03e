//! Tensors that are stored another way on the adapter than in their file: rows are decoded, rotated and quantised on their way.

use half::f16;
use raglan_models::quantize::{NotFinite, encode_rows};
use raglan_models::{Format, LayerRole, QuantizeTo, Role, Tensor};
use raglan_shaders::kv_rows::rotate_fast;
use std::ops::Range;

/// What becomes of tensors as they are loaded.
#[derive(Clone, Copy)]
pub struct Rewrite<'a> {
    /// What the matrices of layers are quantised to; embedding and `lm_head` stay as they are.
    pub quantize: Option<QuantizeTo>,
    /// By layer: the columns of values that the KV cache rotates together, which divide a head. `o` turns them back where it is
    /// stored as floats or quantised here.
    pub rotation: &'a dyn Fn(usize) -> Option<usize>,
}

/// Columns are rotated as the KV cache rotates values.
fn rotate(values: &mut [f32], columns: usize) {
    rotate_fast(values, columns, (columns as f32).sqrt().recip());
}

impl Rewrite<'_> {
    /// All tensors stay as they are.
    pub const NONE: Rewrite<'static> = Rewrite { quantize: None, rotation: &|_| None };
}

/// A tensor and what becomes of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) tensor: Tensor<'a>,
    /// How its rows are stored on the adapter.
    pub(super) format: Format,
    quantize: Option<QuantizeTo>,
    rotation: Option<usize>,
}

/// Memory for a band of rows.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    stored: Vec<u8>,
    values: Vec<f32>,
}

impl<'a> Source<'a> {
    pub(super) fn new(tensor: Tensor<'a>, role: Role, rewrite: &Rewrite<'_>) -> Source<'a> {
        use LayerRole::{Down, Gate, K, O, Q, Up, V};
        let is_product = matches!(role, Role::Layer(_, Q | K | V | O | Gate | Up | Down));
        let is_new = |to: &QuantizeTo| to.format(tensor.cols).is_some_and(|format| !is_alike(format, tensor.format));
        let quantize = rewrite.quantize.filter(|to| is_product && is_new(to));
        let is_float = tensor.format.block().0 == 1;
        let rotation = match role {
            Role::Layer(layer, O) if is_float || quantize.is_some() => (rewrite.rotation)(layer),
            _ => None,
        };
        let format = match (quantize.and_then(|to| to.format(tensor.cols)), rotation, tensor.format) {
            (Some(format), ..) => format,
            (None, Some(_), Format::Bf16) => Format::F16,
            (None, _, format) => format,
        };
        Source { tensor, format, quantize, rotation }
    }

    /// Whether its columns are rotated.
    pub(super) fn is_rotated(&self) -> bool {
        self.rotation.is_some()
    }

    /// Whether it was quantised before and is quantised again.
    pub(super) fn loses_twice(&self) -> bool {
        self.quantize.is_some() && (self.tensor.format.block().0 > 1 || self.tensor.packed.is_some())
    }

    /// Whether its rows are to be computed and not just copied.
    pub(super) fn takes_work(&self) -> bool {
        self.quantize.is_some() || self.rotation.is_some() || self.tensor.packed.is_some()
    }

    /// Bytes of a row in blocks of its format.
    pub(super) fn row_bytes(&self) -> usize {
        self.format.row_bytes(self.tensor.cols).expect("a tensor's rows are whole blocks")
    }

    /// Writes rows in blocks of its format.
    ///
    /// # Errors
    /// The first number that is not finite, its index that of the tensor.
    pub(super) fn write_rows(
        &self,
        rows: Range<usize>,
        scratch: &mut Scratch,
        out: &mut [u8],
    ) -> Result<(), NotFinite> {
        let (tensor, cols) = (&self.tensor, self.tensor.cols);
        if self.quantize.is_none() && self.rotation.is_none() {
            tensor.write_rows(rows, out);
            return Ok(());
        }
        let stored_row = tensor.format.row_bytes(cols).expect("a tensor's rows are whole blocks");
        scratch.stored.resize(rows.len() * stored_row, 0);
        scratch.values.resize(rows.len() * cols, 0.0);
        let values = &mut scratch.values[..];
        tensor.write_rows(rows.clone(), &mut scratch.stored);
        tensor.format.decode(&scratch.stored, values);
        if let Some(columns) = self.rotation {
            rotate(values, columns);
        }
        let refused = |refused: NotFinite| NotFinite { index: rows.start * cols + refused.index, ..refused };
        match self.quantize {
            Some(to) => encode_rows(values, cols, to, None, out).map_err(refused),
            None => write_floats(values, self.format, out).map_err(refused),
        }
    }
}

/// Whether both have so many bits and such groups: to quantise from one to the other would only lose.
fn is_alike(a: Format, b: Format) -> bool {
    let bits_and_group = |format| match format {
        Format::Q4_0 | Format::I4G32 => Some((4, 32)),
        Format::Q8_0 | Format::I8G32 => Some((8, 32)),
        _ => None,
    };
    a == b || bits_and_group(a).is_some_and(|met| bits_and_group(b) == Some(met))
}

/// Rotated floats as they are stored; those past f16 become its largest.
fn write_floats(values: &[f32], format: Format, out: &mut [u8]) -> Result<(), NotFinite> {
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(NotFinite { index, met: values[index] });
    }
    match format {
        Format::F16 => {
            let half = |value: f32| f16::from_f32(value.clamp(-65504.0, 65504.0)).to_le_bytes();
            out.as_chunks_mut().0.iter_mut().zip(values).for_each(|(out, value)| *out = half(*value));
        }
        _ => out.as_chunks_mut().0.iter_mut().zip(values).for_each(|(out, value)| *out = value.to_le_bytes()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use raglan_models::RowOrder;

    fn values(count: usize) -> Vec<f32> {
        (0..count).map(|index| ((index * 2_654_435_761) % 1009) as f32 / 504.5 - 1.0).collect()
    }

    fn tensor(format: Format, rows: usize, cols: usize, bytes: &[u8]) -> Tensor<'_> {
        Tensor { name: "o", format, rows, cols, bytes, row_order: RowOrder::Plain, packed: None }
    }

    fn stored(values: &[f32], format: Format) -> Vec<u8> {
        match format {
            Format::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Format::F16 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect(),
        }
    }

    const O: Role = Role::Layer(3, LayerRole::O);

    #[test]
    fn a_rotation_is_its_own_inverse_and_keeps_lengths() {
        for columns in [1, 2, 16, 64, 128] {
            let before = values(256);
            let mut after = before.clone();
            rotate(&mut after, columns);
            let square = |values: &[f32]| values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
            assert!((square(&after) / square(&before) - 1.0).abs() < 1e-5, "{columns}");
            assert_eq!(after == before, columns == 1);
            rotate(&mut after, columns);
            assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-5), "{columns}");
        }
    }

    #[test]
    fn a_rotated_o_times_a_rotated_row_is_o_times_the_row() {
        let (rows, cols, columns) = (5, 160, 16);
        for (format, kept, step) in [
            (Format::F32, Format::F32, f64::from(f32::EPSILON)),
            (Format::F16, Format::F16, 2f64.powi(-11)),
            (Format::Bf16, Format::F16, 2f64.powi(-11)),
        ] {
            let bytes = stored(&values(rows * cols), format);
            let tensor = tensor(format, rows, cols, &bytes);
            let source =
                Source::new(tensor, O, &Rewrite { quantize: None, rotation: &|layer| (layer == 3).then_some(columns) });
            assert!(source.is_rotated() && source.format == kept);
            let mut out = vec![0; rows * source.row_bytes()];
            source.write_rows(0..rows, &mut Scratch::default(), &mut out).expect("finite");
            let (mut plain, mut rotated) = (vec![0.0; rows * cols], vec![0.0; rows * cols]);
            format.decode(&bytes, &mut plain);
            kept.decode(&out, &mut rotated);
            let x: Vec<f32> = values(cols + 7)[7..].to_vec();
            let mut turned = x.clone();
            rotate(&mut turned, columns);
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            let length = dot(&x, &x).sqrt();
            for (plain, rotated) in plain.chunks(cols).zip(rotated.chunks(cols)) {
                // Each weight was rounded once; the sums of the rotations round log2(16) times more.
                let bound = step * length * dot(plain, plain).sqrt()
                    + 8.0 * f64::from(f32::EPSILON) * length * (cols as f64).sqrt();
                assert!((dot(plain, &x) - dot(rotated, &turned)).abs() <= bound, "{format}");
            }
        }
    }

    #[test]
    fn what_is_stored_in_blocks_is_rotated_only_where_it_is_quantised_anew() {
        let blocks = vec![0; 4 * 34];
        let rotation = |_| Some(32);
        let tensor = tensor(Format::Q8_0, 4, 32, &blocks);
        let with = |quantize, role| Source::new(tensor, role, &Rewrite { quantize, rotation: &rotation });
        let kept = with(None, O);
        assert!(!kept.is_rotated() && !kept.takes_work() && kept.format == Format::Q8_0);
        let quantised = with(Some(QuantizeTo::Q4), O);
        assert!(quantised.is_rotated() && quantised.loses_twice() && quantised.format == Format::I4G32);
        let down = with(Some("int8-g128".parse().expect("a name")), Role::Layer(3, LayerRole::Down));
        assert!(!down.is_rotated() && down.format == Format::Q8_0, "32 columns");
        for role in [Role::Embedding, Role::LmHead] {
            assert_eq!(with(Some(QuantizeTo::Q8), role).format, Format::Q8_0);
        }
    }

    #[test]
    fn rows_that_no_group_divides_and_those_that_are_there_already_stay() {
        let bytes = stored(&values(40), Format::F16);
        let rewrite = Rewrite { quantize: Some(QuantizeTo::Q8), ..Rewrite::NONE };
        let down = Role::Layer(0, LayerRole::Down);
        assert!(!Source::new(tensor(Format::F16, 1, 40, &bytes), down, &rewrite).takes_work());
        let blocks = [0; 144];
        for (format, bytes) in [(Format::Q8_0, 136), (Format::I8G32, 144)] {
            let source = Source::new(tensor(format, 1, 128, &blocks[..bytes]), down, &rewrite);
            assert!(!source.takes_work() && source.format == format);
        }
        let coarser = Source::new(tensor(Format::I8G128, 1, 128, &blocks[..132]), down, &rewrite);
        assert!(coarser.loses_twice() && coarser.format == Format::Q8_0);
    }

    #[test]
    fn bands_of_any_rows_are_the_same_and_a_bad_number_has_its_place() {
        let (rows, cols) = (9, 64);
        let mut numbers = values(rows * cols);
        let bytes = stored(&numbers, Format::F32);
        let rewrite = Rewrite { quantize: Some(QuantizeTo::Q4), rotation: &|_| Some(16) };
        let source = Source::new(tensor(Format::F32, rows, cols, &bytes), O, &rewrite);
        let (mut whole, mut bands) = (vec![0; rows * source.row_bytes()], Vec::new());
        let mut scratch = Scratch::default();
        source.write_rows(0..rows, &mut scratch, &mut whole).expect("finite");
        for band in [0..4, 4..5, 5..5, 5..9] {
            let mut out = vec![0; band.len() * source.row_bytes()];
            source.write_rows(band, &mut scratch, &mut out).expect("finite");
            bands.extend(out);
        }
        assert_eq!(whole, bands);
        numbers[7 * cols + 48] = f32::MAX;
        numbers[7 * cols + 49] = f32::MAX;
        let bytes = stored(&numbers, Format::F32);
        for quantize in [None, Some(QuantizeTo::Q4)] {
            let source =
                Source::new(tensor(Format::F32, rows, cols, &bytes), O, &Rewrite { quantize, rotation: &|_| Some(16) });
            let mut out = vec![0; 3 * source.row_bytes()];
            let refused = source.write_rows(6..9, &mut scratch, &mut out).expect_err("no number");
            assert_eq!((refused.index, refused.met), (7 * cols + 48, f32::INFINITY));
        }
    }
}
