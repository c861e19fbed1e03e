//! Tensors whose rows make one matrix, and how they come to lie in its pieces.

use super::rewrite::{Scratch, Source};
use super::weight_format;
use raglan_models::quantize::NotFinite;
use raglan_shaders::BLOCK;
use smallvec::SmallVec;
use std::ops::Range;
use std::thread;

/// Rows that are made at once at most: files that keep a column's rows together are read fastest so.
const BAND_ROWS: usize = 128;
/// Values that are made at once at most, where rows are long.
const BAND_VALUES: usize = 1 << 20;
/// Threads that make rows at most: more than a disk has files for.
const MOST_THREADS: usize = 32;

/// Tensors whose rows make a matrix.
pub(super) struct Stacked<'a> {
    pub(super) sources: SmallVec<[Source<'a>; 3]>,
    /// Where each begins, with its padding.
    pub(super) starts: SmallVec<[usize; 3]>,
    pub(super) rows: usize,
    /// Rows of the two are in turn.
    pub(super) interleaved: bool,
}

/// What was no number in which of the tensors.
pub(super) type Refused = (usize, NotFinite);

impl<'a> Stacked<'a> {
    /// The tensor that a row is of, or is padding of.
    pub(super) fn source(&self, row: usize) -> &Source<'a> {
        let index = if self.interleaved { row % 2 } else { self.starts.partition_point(|&start| start <= row) - 1 };
        &self.sources[index]
    }

    /// Rows of one format each, as many as a binding takes.
    pub(super) fn pieces(&self, max_binding_bytes: u64) -> Vec<Range<usize>> {
        let mut pieces: Vec<Range<usize>> = Vec::new();
        for (index, source) in self.sources.iter().enumerate() {
            let end = self.end(index);
            let row_bytes = weight_format(source.format).gpu_row_bytes(source.tensor.cols) as u64;
            let most = ((max_binding_bytes / row_bytes) as usize / BLOCK * BLOCK).max(BLOCK);
            let mut first = self.starts[index];
            let mut room = match pieces.last() {
                Some(piece) if self.sources[index - 1].format == source.format => most - piece.len(),
                _ => 0,
            };
            while first < end {
                if room == 0 {
                    pieces.push(first..first);
                    room = most;
                }
                let taken = room.min(end - first);
                (first, room) = (first + taken, room - taken);
                pieces.last_mut().expect("a piece was opened").end = first;
            }
        }
        pieces
    }

    /// Where a tensor's rows end, with their padding.
    fn end(&self, index: usize) -> usize {
        self.starts.get(index + 1).copied().unwrap_or(self.rows)
    }

    /// Writes rows of one piece as the adapter keeps them, from `first` on, on several threads where they are to be computed.
    ///
    /// # Errors
    /// A number that is not finite.
    pub(super) fn fill(&self, first: usize, row_bytes: usize, part: &mut [u8]) -> Result<(), Refused> {
        let threads = match self.sources.iter().any(Source::takes_work) {
            true => thread::available_parallelism().map_or(1, |threads| threads.get().min(MOST_THREADS)),
            false => 1,
        };
        let stretch = (part.len() / row_bytes).div_ceil(threads);
        if threads == 1 || stretch < BLOCK {
            return self.fill_stretch(first, row_bytes, part);
        }
        thread::scope(|scope| {
            let stretches = part.chunks_mut(stretch * row_bytes).enumerate();
            let makers: Vec<_> = stretches
                .map(|(index, part)| scope.spawn(move || self.fill_stretch(first + index * stretch, row_bytes, part)))
                .collect();
            makers.into_iter().try_for_each(|maker| maker.join().expect("rows are made without a panic"))
        })
    }

    fn fill_stretch(&self, first: usize, row_bytes: usize, part: &mut [u8]) -> Result<(), Refused> {
        let last = first + part.len() / row_bytes;
        let (mut scratch, mut blocks) = (Scratch::default(), Vec::new());
        for (index, source) in self.sources.iter().enumerate() {
            let start = self.starts[index];
            let (rows, step) = match self.interleaved {
                true => ((first + 1 - index) / 2..(last + 1 - index) / 2, 2),
                false => (first.max(start)..last.min(self.end(index)).max(first.max(start)), 1),
            };
            // From rows of the matrix to those of the tensor.
            let rows = if self.interleaved { rows } else { rows.start - start..rows.end - start };
            let place = |row: usize| if self.interleaved { step * row + index } else { start + row } - first;
            let format = weight_format(source.format);
            let cols = source.tensor.cols;
            let band_rows = (BAND_VALUES / cols).clamp(1, BAND_ROWS);
            let there = rows.start.min(source.tensor.rows)..rows.end.min(source.tensor.rows);
            for band in there.clone().step_by(band_rows) {
                let band = band..(band + band_rows).min(there.end);
                blocks.resize(band.len() * source.row_bytes(), 0);
                let made = source.write_rows(band.clone(), &mut scratch, &mut blocks);
                made.map_err(|refused| (index, refused))?;
                for (row, blocks) in band.zip(blocks.chunks_exact(source.row_bytes())) {
                    format.regroup(blocks, &mut part[place(row) * row_bytes..][..row_bytes]);
                }
            }
            for row in there.end.max(rows.start)..rows.end {
                part[place(row) * row_bytes..][..row_bytes].fill(0);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Rewrite;
    use super::*;
    use raglan_models::{Format, LayerRole, QuantizeTo, Role, RowOrder, Tensor};
    use raglan_shaders::round_up;

    fn tensor(format: Format, rows: usize, bytes: &[u8]) -> Tensor<'_> {
        Tensor { name: "t", format, rows, cols: 64, bytes, row_order: RowOrder::Plain, packed: None }
    }

    fn stacked<'a>(tensors: &[Tensor<'a>], interleaved: bool, quantize: Option<QuantizeTo>) -> Stacked<'a> {
        let rewrite = Rewrite { quantize, ..Rewrite::NONE };
        let sources =
            tensors.iter().map(|tensor| Source::new(*tensor, Role::Layer(0, LayerRole::Gate), &rewrite)).collect();
        let mut starts = SmallVec::new();
        let mut rows = 0;
        for tensor in tensors {
            starts.push(rows);
            rows += round_up(tensor.rows, BLOCK);
        }
        Stacked { sources, starts, rows, interleaved }
    }

    #[test]
    fn stacked_tensors_share_a_piece_until_the_format_or_the_binding_ends() {
        let pieces = |tensors: &[Tensor<'static>], binding| stacked(tensors, false, None).pieces(binding);
        let (q4, f16) = (tensor(Format::Q4_0, 33, &[]), tensor(Format::F16, 64, &[]));
        assert_eq!(pieces(&[q4, q4, f16], 1 << 20), [0..128, 128..192]);
        // A row of 64 f16 takes 128 bytes: 32 rows to a binding of 4 KiB.
        assert_eq!(pieces(&[f16], 4096), [0..32, 32..64]);
        assert_eq!(pieces(&[f16, f16], 128 * 96), [0..96, 96..128]);
        // Quantised they are of one format, 48 bytes a row.
        let q8 = tensor(Format::Q8_0, 33, &[]);
        assert_eq!(stacked(&[q8, f16], false, Some(QuantizeTo::Q4)).pieces(48 * 96), [0..96, 96..128]);
    }

    /// The rows of a matrix by the definition, each on its own.
    fn row_by_row(stacked: &Stacked<'_>, row_bytes: usize) -> Vec<u8> {
        let mut want = vec![0; stacked.rows * row_bytes];
        for (row, out) in want.chunks_exact_mut(row_bytes).enumerate() {
            let source = stacked.source(row);
            let index = stacked.sources.iter().position(|other| std::ptr::eq(other, source)).expect("one of them");
            let at = if stacked.interleaved { row / 2 } else { row - stacked.starts[index] };
            if at < source.tensor.rows {
                let mut blocks = vec![0; source.row_bytes()];
                source.write_rows(at..at + 1, &mut Scratch::default(), &mut blocks).expect("finite");
                weight_format(source.format).regroup(&blocks, out);
            }
        }
        want
    }

    #[test]
    fn every_row_comes_to_its_place_whatever_the_parts() {
        let halves = |rows: usize, seed: usize| -> Vec<u8> {
            let number = |index: usize| half::f16::from_f32(((index * 7919 + seed) % 613) as f32 / 100.0 - 3.0);
            (0..rows * 64).flat_map(|index| number(index).to_le_bytes()).collect()
        };
        let bytes = [halves(33, 1), halves(33, 2), halves(70, 3)];
        let tensors: Vec<_> = bytes.iter().map(|bytes| tensor(Format::F16, bytes.len() / 128, bytes)).collect();
        for (tensors, interleaved) in [(&tensors[..], false), (&tensors[..2], true)] {
            for quantize in [None, Some(QuantizeTo::Q4), Some(QuantizeTo::Q8)] {
                let stacked = stacked(tensors, interleaved, quantize);
                let row_bytes = weight_format(stacked.sources[0].format).gpu_row_bytes(64);
                let want = row_by_row(&stacked, row_bytes);
                for step in [1, 3, 64, 100, stacked.rows] {
                    let mut met = vec![0xee; want.len()];
                    for (index, part) in met.chunks_mut(step * row_bytes).enumerate() {
                        stacked.fill(index * step, row_bytes, part).expect("finite");
                    }
                    assert!(met == want, "{interleaved} {quantize:?} {step}");
                }
            }
        }
    }
}
