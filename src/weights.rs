//! Checkpoint tensors → GPU buffers, in the format in which they are stored, or quantised on the way.

mod random;
mod rewrite;
mod size;
mod stacked;

pub use random::{FLOATS, Random};
pub use rewrite::Rewrite;
pub use size::GpuWeights;

use crate::error::Error;
use crate::gpu::{Buffer, Gpu, Uploader};
use raglan_models::{Checkpoint, Format, LayerRole, ModelSpec, Role};
use raglan_shaders::{BLOCK, WeightFormat, round_up};
use rewrite::Source;
use smallvec::SmallVec;
use stacked::{Refused, Stacked};
use std::ops::Range;

/// The longest row that goes through the upload ring.
const MAX_ROW_BYTES: usize = 2 << 20;

/// One or more projections of the same input, stacked or in turn: `[rows, inner]`, rows of each padded with zeros to whole blocks.
#[derive(Debug)]
pub struct Matrix {
    /// In the order of their rows.
    pub pieces: SmallVec<[Piece; 2]>,
    /// Rows with padding: columns of the product.
    pub rows: usize,
    /// Columns.
    pub inner: usize,
    /// Where each stacked projection starts, or would were they not in turn.
    pub starts: SmallVec<[usize; 3]>,
    /// Two projections of one format: rows of the first and of the second in turn.
    pub interleaved: bool,
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
    /// Whether `o` takes attention's output as rotated values give it.
    pub o_rotated: bool,
    /// `[hidden_size]`
    pub post_attention_norm: Buffer,
    /// gate and up in turn, or gate over up where their formats differ.
    pub gate_up: Matrix,
    /// `[hidden_size, intermediate_size]`
    pub down: Matrix,
}

impl Weights {
    /// Uploads a checkpoint, its tensors changed as `rewrite` says. `progress` hears the bytes done and those in all.
    ///
    /// # Errors
    /// If a tensor holds NaN or infinities, or the adapter has no room.
    pub fn upload(
        gpu: &Gpu,
        checkpoint: &Checkpoint,
        rewrite: &Rewrite<'_>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Weights, Error> {
        let total = GpuWeights::of(checkpoint, rewrite).bytes;
        let random = if checkpoint.is_synthetic() { Some(Random::new(gpu)?) } else { None };
        let mut loader =
            Loader { gpu, checkpoint, rewrite, random, uploader: gpu.uploader()?, progress, done: 0, total };
        let spec = checkpoint.spec();
        let embedding = loader.matrix("embedding", &[(Role::Embedding, None)], false)?;
        let layers = (0..spec.layers.len()).map(|layer| loader.layer(spec, layer)).collect::<Result<_, Error>>()?;
        let final_norm = loader.vector(Role::FinalNorm)?;
        let lm_head =
            if spec.has.lm_head { Some(loader.matrix("lm_head", &[(Role::LmHead, None)], false)?) } else { None };
        loader.uploader.finish()?;
        progress(total, total);
        Ok(Weights { embedding, layers, final_norm, lm_head })
    }
}

struct Loader<'a> {
    gpu: &'a Gpu,
    checkpoint: &'a Checkpoint,
    rewrite: &'a Rewrite<'a>,
    /// Makes the matrices of a synthetic checkpoint.
    random: Option<Random>,
    uploader: Uploader,
    progress: &'a mut dyn FnMut(u64, u64),
    done: u64,
    total: u64,
}

impl<'a> Loader<'a> {
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
            qkv: self.matrix("qkv", &[with_bias(Q, QBias), with_bias(K, KBias), with_bias(V, VBias)], false)?,
            qk_norm,
            o: self.matrix("o", &[with_bias(O, OBias)], false)?,
            o_rotated: self.source(role(O))?.is_rotated(),
            post_attention_norm: self.vector(role(PostAttentionNorm))?,
            gate_up: self.matrix("gate_up", &[with_bias(Gate, GateBias), with_bias(Up, UpBias)], true)?,
            down: self.matrix("down", &[with_bias(Down, DownBias)], false)?,
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

    /// Stacks projections, each with the role of its bias; two of one format go in turn where `in_turn` asks for it.
    fn matrix(&mut self, label: &str, parts: &[(Role, Option<Role>)], in_turn: bool) -> Result<Matrix, Error> {
        let mut sources: SmallVec<[Source<'_>; 3]> = SmallVec::new();
        let mut starts = SmallVec::new();
        let mut bias = Vec::new();
        let mut has_bias = false;
        let mut rows = 0;
        for &(role, bias_role) in parts {
            let source = self.source(role)?;
            self.checkpoint.check_finite(role)?;
            starts.push(rows);
            rows += round_up(source.tensor.rows, BLOCK);
            if let Some(values) = bias_role.map(|role| self.checkpoint.vector(role)).transpose()?.flatten() {
                has_bias = true;
                bias.extend(values);
            }
            bias.resize(rows, 0.0);
            sources.push(source);
        }
        let (inner, interleaved) = (sources[0].tensor.cols, in_turn && sources[0].format == sources[1].format);
        let stacked = Stacked { sources, starts, rows, interleaved };
        let pieces = stacked.pieces(self.gpu.limits().max_binding_bytes);
        let pieces = pieces.into_iter().map(|rows| self.piece(label, &stacked, rows)).collect::<Result<_, Error>>()?;
        if interleaved {
            bias = (0..rows).map(|row| bias[stacked.starts[row % 2] + row / 2]).collect();
        }
        let bias = if has_bias { Some(self.upload_f32(&bias)?) } else { None };
        Ok(Matrix { pieces, rows, inner, starts: stacked.starts, interleaved, bias })
    }

    /// A matrix of the checkpoint, and what becomes of it.
    fn source(&self, role: Role) -> Result<Source<'a>, Error> {
        let tensor = self.checkpoint.tensor(role)?;
        let tensor = tensor.unwrap_or_else(|| panic!("{role:?} was found when the checkpoint opened"));
        Ok(Source::new(tensor, role, self.rewrite))
    }

    fn piece(&mut self, label: &str, stacked: &Stacked<'_>, rows: Range<usize>) -> Result<Piece, Error> {
        let source = stacked.source(rows.start);
        let (format, cols) = (weight_format(source.format), source.tensor.cols);
        let row_bytes = format.gpu_row_bytes(cols);
        if row_bytes > MAX_ROW_BYTES {
            return Err(Error::RowTooLong {
                name: source.tensor.name.to_owned(),
                met: row_bytes,
                limit: MAX_ROW_BYTES,
            });
        }
        let bytes = (rows.len() * row_bytes) as u64;
        let buffer = self.gpu.buffer(label, bytes)?;
        if let Some(random) = &mut self.random {
            // Rows of padding too: nothing reads what they give.
            random.fill(&buffer, format, cols, rows.len())?;
            return Ok(self.uploaded(buffer, format, rows));
        }
        let mut refused: Option<Refused> = None;
        self.uploader.upload(&buffer, 0, bytes, row_bytes as u64, |start, part| {
            if refused.is_none() {
                refused = stacked.fill(rows.start + start as usize / row_bytes, row_bytes, part).err();
            }
        })?;
        if let Some((index, refused)) = refused {
            let (path, name) = (self.checkpoint.path().to_owned(), stacked.sources[index].tensor.name.to_owned());
            let (index, met) = (refused.index, refused.met);
            return Err(raglan_models::Error::NotFinite { path, name, index, met }.into());
        }
        Ok(self.uploaded(buffer, format, rows))
    }

    fn uploaded(&mut self, buffer: Buffer, format: WeightFormat, rows: Range<usize>) -> Piece {
        self.done += buffer.bytes();
        (self.progress)(self.done.min(self.total), self.total);
        Piece { buffer, format, first_row: rows.start, rows: rows.len() }
    }
}

/// Matrices of a checkpoint that `rewrite` would quantise though they are quantised already: what they lost they lose again.
pub fn lossy_twice(checkpoint: &Checkpoint, rewrite: &Rewrite<'_>) -> usize {
    let twice = |role: &Role| match checkpoint.tensor(*role) {
        Ok(Some(tensor)) => Source::new(tensor, *role, rewrite).loses_twice(),
        _ => false,
    };
    checkpoint.spec().roles().filter(twice).count()
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
        Format::I4G32 => WeightFormat::I4G32,
        Format::I4G128 => WeightFormat::I4G128,
        Format::I8G32 => WeightFormat::I8G32,
        Format::I8G128 => WeightFormat::I8G128,
    }
}
