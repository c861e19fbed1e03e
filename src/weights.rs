//! Checkpoint tensors → GPU buffers, in the format in which they are stored.

mod random;

pub use random::{FLOATS, Random};

use crate::error::Error;
use crate::gpu::{Buffer, Gpu, Uploader};
use raglan_models::{Checkpoint, Format, LayerRole, ModelSpec, Role, Tensor};
use raglan_shaders::{BLOCK, WeightFormat, round_up};
use smallvec::SmallVec;

/// The longest row that goes through the upload ring.
const MAX_ROW_BYTES: usize = 2 << 20;

/// One or more projections of the same input, stacked: `[rows, inner]`, rows of each padded with zeros to whole blocks.
#[derive(Debug)]
pub struct Matrix {
    /// In the order of their rows.
    pub pieces: SmallVec<[Piece; 2]>,
    /// Rows with padding: columns of the product.
    pub rows: usize,
    /// Columns.
    pub inner: usize,
    /// Where each stacked projection starts.
    pub starts: SmallVec<[usize; 3]>,
    /// `[rows]` in f32.
    pub bias: Option<Buffer>,
}

/// Rows of one format in one buffer, no larger than a binding.
#[derive(Debug)]
pub struct Piece {
    /// The rows, regrouped as [`WeightFormat::regroup`] says.
    pub buffer: Buffer,
    /// How they are stored.
    pub format: WeightFormat,
    /// The first of them in the matrix.
    pub first_row: usize,
    /// How many.
    pub rows: usize,
}

/// All weights of a model.
#[derive(Debug)]
pub struct Weights {
    /// `[vocab_size, hidden_size]`
    pub embedding: Matrix,
    /// One a layer.
    pub layers: Vec<LayerWeights>,
    /// `[hidden_size]`
    pub final_norm: Buffer,
    /// `[vocab_size, hidden_size]`; `None` where the embedding is used again.
    pub lm_head: Option<Matrix>,
}

/// The weights of one layer.
#[derive(Debug)]
pub struct LayerWeights {
    /// `[hidden_size]`
    pub input_norm: Buffer,
    /// q over k over v.
    pub qkv: Matrix,
    /// `[head_dim]` each, where the family norms queries and keys.
    pub qk_norm: Option<(Buffer, Buffer)>,
    /// `[hidden_size, num_attention_heads * head_dim]`
    pub o: Matrix,
    /// `[hidden_size]`
    pub post_attention_norm: Buffer,
    /// gate over up.
    pub gate_up: Matrix,
    /// `[hidden_size, intermediate_size]`
    pub down: Matrix,
}

impl Weights {
    /// Uploads a checkpoint. `progress` hears the bytes done and those in all.
    ///
    /// # Errors
    /// If a tensor holds NaN or infinities, or the adapter has no room.
    pub fn upload(gpu: &Gpu, checkpoint: &Checkpoint, progress: &mut dyn FnMut(u64, u64)) -> Result<Weights, Error> {
        let total = checkpoint.weight_bytes();
        let random = if checkpoint.is_synthetic() { Some(Random::new(gpu)?) } else { None };
        let mut loader = Loader { gpu, checkpoint, random, uploader: gpu.uploader()?, progress, done: 0, total };
        let spec = checkpoint.spec();
        let embedding = loader.matrix("embedding", &[(Role::Embedding, None)])?;
        let layers = (0..spec.layers.len()).map(|layer| loader.layer(spec, layer)).collect::<Result<_, Error>>()?;
        let final_norm = loader.vector(Role::FinalNorm)?;
        let lm_head = if spec.has.lm_head { Some(loader.matrix("lm_head", &[(Role::LmHead, None)])?) } else { None };
        loader.uploader.finish()?;
        progress(total, total);
        Ok(Weights { embedding, layers, final_norm, lm_head })
    }
}

struct Loader<'a> {
    gpu: &'a Gpu,
    checkpoint: &'a Checkpoint,
    /// Makes the matrices of a synthetic checkpoint.
    random: Option<Random>,
    uploader: Uploader,
    progress: &'a mut dyn FnMut(u64, u64),
    done: u64,
    total: u64,
}

impl Loader<'_> {
    fn layer(&mut self, spec: &ModelSpec, layer: usize) -> Result<LayerWeights, Error> {
        use LayerRole::*;
        let role = |role| Role::Layer(layer, role);
        let qk_norm = match spec.has.qk_norm {
            true => Some((self.vector(role(QNorm))?, self.vector(role(KNorm))?)),
            false => None,
        };
        let with_bias = |weight, bias| (role(weight), Some(role(bias)));
        Ok(LayerWeights {
            input_norm: self.vector(role(InputNorm))?,
            qkv: self.matrix("qkv", &[with_bias(Q, QBias), with_bias(K, KBias), with_bias(V, VBias)])?,
            qk_norm,
            o: self.matrix("o", &[with_bias(O, OBias)])?,
            post_attention_norm: self.vector(role(PostAttentionNorm))?,
            gate_up: self.matrix("gate_up", &[with_bias(Gate, GateBias), with_bias(Up, UpBias)])?,
            down: self.matrix("down", &[with_bias(Down, DownBias)])?,
        })
    }

    /// A norm's weights in f32, padded with zeros to whole blocks.
    fn vector(&mut self, role: Role) -> Result<Buffer, Error> {
        let values =
            self.checkpoint.vector(role)?.unwrap_or_else(|| panic!("{role:?} was found when the checkpoint opened"));
        self.upload_f32(&values)
    }

    fn upload_f32(&mut self, values: &[f32]) -> Result<Buffer, Error> {
        let mut padded = values.to_vec();
        padded.resize(round_up(values.len(), BLOCK), 0.0);
        let buffer = self.gpu.buffer("vector", 4 * padded.len() as u64)?;
        let bytes: &[u8] = bytemuck::cast_slice(&padded);
        let fill = |start: u64, part: &mut [u8]| part.copy_from_slice(&bytes[start as usize..][..part.len()]);
        self.uploader.upload(&buffer, 0, bytes.len() as u64, 4, fill)?;
        Ok(buffer)
    }

    /// Stacks projections, each with the role of its bias.
    fn matrix(&mut self, label: &str, parts: &[(Role, Option<Role>)]) -> Result<Matrix, Error> {
        let mut tensors: SmallVec<[Tensor<'_>; 3]> = SmallVec::new();
        let mut starts = SmallVec::new();
        let mut bias = Vec::new();
        let mut has_bias = false;
        let mut rows = 0;
        for &(role, bias_role) in parts {
            let tensor = self
                .checkpoint
                .tensor(role)?
                .unwrap_or_else(|| panic!("{role:?} was found when the checkpoint opened"));
            self.checkpoint.check_finite(role)?;
            starts.push(rows);
            rows += round_up(tensor.rows, BLOCK);
            if let Some(values) = bias_role.map(|role| self.checkpoint.vector(role)).transpose()?.flatten() {
                has_bias = true;
                bias.extend(values);
            }
            bias.resize(rows, 0.0);
            tensors.push(tensor);
        }
        let inner = tensors[0].cols;
        let mut pieces = SmallVec::new();
        for spans in piece_spans(&tensors, self.gpu.limits().max_binding_bytes) {
            pieces.push(self.piece(label, &tensors, &starts, &spans)?);
        }
        let bias = if has_bias { Some(self.upload_f32(&bias)?) } else { None };
        Ok(Matrix { pieces, rows, inner, starts, bias })
    }

    fn piece(&mut self, label: &str, tensors: &[Tensor<'_>], starts: &[usize], spans: &[Span]) -> Result<Piece, Error> {
        let format = weight_format(tensors[spans[0].tensor].format);
        let row_bytes = format.gpu_row_bytes(tensors[0].cols);
        if row_bytes > MAX_ROW_BYTES {
            let name = tensors[spans[0].tensor].name.to_owned();
            return Err(Error::RowTooLong { name, met: row_bytes, limit: MAX_ROW_BYTES });
        }
        let rows: usize = spans.iter().map(|span| span.rows).sum();
        let first_row = starts[spans[0].tensor] + spans[0].first_row;
        let bytes = (rows * row_bytes) as u64;
        let buffer = self.gpu.buffer(label, bytes)?;
        if let Some(random) = &mut self.random {
            // Rows of padding too: nothing reads what they give.
            random.fill(&buffer, format, tensors[0].cols, rows)?;
            return Ok(self.uploaded(buffer, format, rows, first_row));
        }
        self.uploader.upload(&buffer, 0, bytes, row_bytes as u64, |start, part| {
            for (index, out) in part.chunks_exact_mut(row_bytes).enumerate() {
                let mut row = start as usize / row_bytes + index;
                let mut spans = spans.iter();
                let span = loop {
                    let span = spans.next().expect("rows of a piece lie in its spans");
                    if row < span.rows {
                        break span;
                    }
                    row -= span.rows;
                };
                let tensor = &tensors[span.tensor];
                match span.first_row + row {
                    row if row < tensor.rows => format.regroup(tensor.row(row), out),
                    _ => out.fill(0),
                }
            }
        })?;
        Ok(self.uploaded(buffer, format, rows, first_row))
    }

    fn uploaded(&mut self, buffer: Buffer, format: WeightFormat, rows: usize, first_row: usize) -> Piece {
        self.done += buffer.bytes();
        (self.progress)(self.done.min(self.total), self.total);
        Piece { buffer, format, first_row, rows }
    }
}

/// Consecutive rows of one tensor, with its padding.
struct Span {
    tensor: usize,
    first_row: usize,
    rows: usize,
}

/// Rows of stacked tensors → pieces of one format, each within a binding.
fn piece_spans(tensors: &[Tensor<'_>], max_binding_bytes: u64) -> Vec<Vec<Span>> {
    let mut pieces: Vec<Vec<Span>> = Vec::new();
    let mut room = 0;
    for (index, tensor) in tensors.iter().enumerate() {
        let row_bytes = weight_format(tensor.format).gpu_row_bytes(tensor.cols) as u64;
        let most = ((max_binding_bytes / row_bytes) as usize / BLOCK * BLOCK).max(BLOCK);
        if index == 0 || tensors[index - 1].format != tensor.format {
            room = 0;
        }
        let rows = round_up(tensor.rows, BLOCK);
        let mut first_row = 0;
        while first_row < rows {
            if room == 0 {
                pieces.push(Vec::new());
                room = most;
            }
            let taken = room.min(rows - first_row);
            pieces.last_mut().expect("a piece was opened").push(Span { tensor: index, first_row, rows: taken });
            first_row += taken;
            room -= taken;
        }
    }
    pieces
}

/// The kernels' name of a checkpoint's format.
pub fn weight_format(format: Format) -> WeightFormat {
    match format {
        Format::F32 => WeightFormat::F32,
        Format::F16 => WeightFormat::F16,
        Format::Bf16 => WeightFormat::Bf16,
        Format::Q8_0 => WeightFormat::Q8_0,
        Format::Q4_0 => WeightFormat::Q4_0,
        Format::Q4_1 => WeightFormat::Q4_1,
        Format::Q5_0 => WeightFormat::Q5_0,
        Format::Q5_1 => WeightFormat::Q5_1,
        Format::Q4K => WeightFormat::Q4K,
        Format::Q5K => WeightFormat::Q5K,
        Format::Q6K => WeightFormat::Q6K,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raglan_models::RowOrder;

    fn tensor(format: Format, rows: usize) -> Tensor<'static> {
        Tensor { name: "t", format, rows, cols: 64, bytes: &[], row_order: RowOrder::Plain }
    }

    #[test]
    fn stacked_tensors_share_a_piece_until_the_format_or_the_binding_ends() {
        let shape = |tensors: &[Tensor<'_>], binding| -> Vec<Vec<(usize, usize, usize)>> {
            let spans = piece_spans(tensors, binding);
            spans.iter().map(|piece| piece.iter().map(|s| (s.tensor, s.first_row, s.rows)).collect()).collect()
        };
        let q4 = tensor(Format::Q4_0, 33);
        let f16 = tensor(Format::F16, 64);
        assert_eq!(shape(&[q4, q4, f16], 1 << 20), [vec![(0, 0, 64), (1, 0, 64)], vec![(2, 0, 64)]]);
        // A row of 64 f16 takes 128 bytes: 32 rows to a binding of 4 KiB.
        assert_eq!(shape(&[f16], 4096), [vec![(0, 0, 32)], vec![(0, 32, 32)]]);
        assert_eq!(shape(&[f16, f16], 128 * 96), [vec![(0, 0, 64), (1, 0, 32)], vec![(1, 32, 32)]]);
    }
}
