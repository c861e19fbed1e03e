//! A checkpoint as a Hugging Face folder of group-wise integers, in the layout of compressed-tensors (`pack-quantized`).
//!
//! A quantised matrix `name.weight` `[rows, cols]` becomes
//!
//! - `name.weight_packed`: I32 `[rows, cols · bits / 32]`; a word holds 8 quants of 4 bits or 4 of 8, the first column lowest, each with
//!   half its range added so that none is negative;
//! - `name.weight_scale`: F16, or BF16 where the weights were, `[rows, cols / group]`;
//! - `name.weight_zero_point`, where it is not symmetric: I32 `[rows · bits / 32, cols / group]`, rows rounded up: zero points of 8 or 4
//!   rows to a word, the first row lowest, half the range added to each;
//! - `name.weight_shape`: I64 `[2]`.
//!
//! A weight is `scale * (q - zero)`, the zero point of a symmetric matrix half the range. All else stays as it was, but for blocks of
//! GGUF, which become F16. Source: compressed-tensors 0.20, `pack_quantized`.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use half::{bf16, f16};

use super::config::{quantization_config, write_small_files};
use super::pack::{Packed, decode_rows, pack_rows, zero_rows};
use super::partial::Partial;
use super::shards::{Planned, Shards};
use super::{NotFinite, QuantizeTo};
use crate::{Checkpoint, Error, Format, Naming, Role, Tensor};

/// Rows of a matrix that one thread works on at once at most, a multiple of those whose zero points share a word.
const BAND_ROWS: usize = 128;
/// Numbers of a band at most, where rows are long.
const BAND_VALUES: usize = 1 << 20;
/// Bytes of a file, as the hub's own tools cut them.
const SHARD_BYTES: u64 = 5_000_000_000;

/// What is written.
pub struct FolderOptions<'a> {
    /// Bits, groups, zero points.
    pub to: QuantizeTo,
    /// Modules that stay as they are: whole names, as `model.layers.0.mlp.down_proj`, or their ends.
    pub keep: &'a [String],
    /// The mean squares of a matrix's input columns, where they are known.
    pub importance: &'a dyn Fn(Role) -> Option<&'a [f32]>,
    /// Bytes of a file at most; `None` is 5 GB.
    pub shard_bytes: Option<u64>,
    /// Set from outside to stop.
    pub interrupted: Option<&'a AtomicBool>,
}

impl FolderOptions<'_> {
    fn go_on(&self, out: &Path) -> Result<(), Error> {
        match self.interrupted {
            Some(flag) if flag.load(Ordering::Relaxed) => Err(Error::Interrupted { path: out.into() }),
            _ => Ok(()),
        }
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// Bytes of the files of weights.
    pub bytes: u64,
    /// Matrices that were quantised.
    pub quantized: usize,
    /// Columns of a group.
    pub group: usize,
    /// What a user should know, each a sentence that ends without a stop.
    pub notes: Vec<String>,
}

/// Writes `checkpoint` to the folder `out`, which must not be there yet, by way of one beside it that takes its name at the end.
/// `progress` hears the numbers done and those in all.
///
/// # Errors
/// [`Error::Malformed`] where `out` is there or is being written, the folder beside it is not this program's, a name of `keep` is no
/// module, a zero point cannot be, or there is nothing to quantise; [`Error::NotFinite`]; [`Error::Io`], a full disk for one;
/// [`Error::Unsupported`] for a GGUF file of a model that `config.json` has no words for; [`Error::Interrupted`]. Whatever the error,
/// nothing of what was written stays.
pub fn write_folder(
    checkpoint: &Checkpoint,
    out: &Path,
    options: &FolderOptions<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Written, Error> {
    // A link to nothing is there too.
    if out.symlink_metadata().is_ok() {
        return Err(Error::malformed(out, "the folder to write", "there already", "a name that is free"));
    }
    let plan = Plan::new(checkpoint, options)?;
    let partial = Partial::create(out)?;
    let mut notes = plan.notes(checkpoint);
    let quantization = quantization_config(plan.to, plan.quantizes(Role::Embedding), &plan.ignore);
    notes.extend(write_small_files(checkpoint, &partial.path, quantization)?);
    let planned: Vec<_> = plan.items.iter().map(|item| item.planned(plan.to)).collect();
    let mut shards = Shards::create(&partial.path, &planned, options.shard_bytes.unwrap_or(SHARD_BYTES))?;
    let total = plan.items.iter().map(|item| item.numbers()).sum();
    let mut done = 0;
    for item in &plan.items {
        item.write(checkpoint, &plan, options, &mut shards, &mut |numbers| {
            done += numbers;
            progress(done, total);
            options.go_on(out)
        })?;
    }
    let bytes = shards.total;
    shards.finish()?;
    partial.rename(out)?;
    let quantized = plan.items.iter().filter(|item| item.scales.is_some()).count();
    Ok(Written { bytes, quantized, group: plan.to.group, notes })
}

/// What becomes of every tensor.
struct Plan<'a> {
    /// With the group that all quantised rows have.
    to: QuantizeTo,
    items: Vec<Item<'a>>,
    /// Modules that stay.
    ignore: Vec<String>,
}

struct Item<'a> {
    role: Role,
    /// The module's name and what follows it, `weight` or `bias`.
    module: String,
    last: String,
    tensor: Tensor<'a>,
    is_matrix: bool,
    /// The format of scales, where it is quantised.
    scales: Option<Format>,
}

impl<'a> Plan<'a> {
    fn new(checkpoint: &'a Checkpoint, options: &FolderOptions<'_>) -> Result<Plan<'a>, Error> {
        if checkpoint.is_synthetic() {
            return Err(Error::unsupported(
                checkpoint.path(),
                "the model",
                "synthetic, which has no weights",
                "a folder or a GGUF file",
            ));
        }
        let spec = checkpoint.spec();
        let mut items = Vec::new();
        for role in spec.roles() {
            let tensor = checkpoint.tensor(role)?.expect("the model has the tensor, and the open found it");
            let name = Naming::HuggingFace.name(role);
            let (module, last) = name.rsplit_once('.').expect("every name has a module");
            let (module, last) = (module.to_owned(), last.to_owned());
            items.push(Item { role, module, last, tensor, is_matrix: spec.shape(role).len() == 2, scales: None });
        }
        let keeps = |module: &str, kept: &str| module == kept || module.ends_with(&format!(".{kept}"));
        for kept in options.keep {
            let known = items.iter().any(|item| item.is_matrix && keeps(&item.module, kept));
            // A tied lm_head is no module of its own.
            if !known && kept != "lm_head" {
                return Err(Error::malformed(
                    checkpoint.path(),
                    "keep",
                    kept,
                    "a module as lm_head, embed_tokens, down_proj or model.layers.0.mlp.down_proj",
                ));
            }
        }
        let stays = |item: &Item<'_>| {
            !item.is_matrix
                || options.keep.iter().any(|kept| keeps(&item.module, kept))
                || options.to.group_of(item.tensor.cols).is_none()
        };
        let quantized = |item: &&mut Item<'_>| !stays(item);
        // One group for all: tools that read the folder know one.
        let groups = items.iter().filter(|item| !stays(item)).filter_map(|item| options.to.group_of(item.tensor.cols));
        let Some(group) = groups.min() else {
            return Err(Error::malformed(
                checkpoint.path(),
                "what to quantise",
                "nothing",
                "a matrix with a multiple of 32 columns that is not kept",
            ));
        };
        for item in items.iter_mut().filter(quantized) {
            item.scales = Some(if item.tensor.format == Format::Bf16 { Format::Bf16 } else { Format::F16 });
        }
        let is_linear = |item: &&Item<'_>| item.is_matrix && item.role != Role::Embedding && item.scales.is_none();
        let mut ignore: Vec<_> = items.iter().filter(is_linear).map(|item| item.module.clone()).collect();
        if !spec.has.lm_head {
            ignore.push("lm_head".into());
        }
        Ok(Plan { to: QuantizeTo { group, ..options.to }, items, ignore })
    }

    fn quantizes(&self, role: Role) -> bool {
        self.items.iter().any(|item| item.role == role && item.scales.is_some())
    }

    fn notes(&self, checkpoint: &Checkpoint) -> Vec<String> {
        let quantized = || self.items.iter().filter(|item| item.scales.is_some());
        // Packed integers whose columns are in no order come as floats.
        let is_lossy = |tensor: &Tensor<'_>| tensor.format.block().0 > 1 || tensor.packed.is_some();
        let again = quantized().filter(|item| is_lossy(&item.tensor)).count();
        let mut notes = Vec::new();
        if again > 0 {
            let path = checkpoint.path().display();
            notes.push(format!(
                "{again} matrices of {path} are quantised already, and lose twice: a checkpoint of floats gives a better result"
            ));
        }
        notes
    }
}

impl Item<'_> {
    fn name(&self, last: &str) -> String {
        format!("{}.{last}", self.module)
    }

    fn numbers(&self) -> u64 {
        (self.tensor.rows * self.tensor.cols) as u64
    }

    /// The format that it keeps.
    fn kept_format(&self) -> Format {
        match self.tensor.format {
            format @ (Format::F32 | Format::F16 | Format::Bf16) => format,
            _ => Format::F16,
        }
    }

    fn planned(&self, to: QuantizeTo) -> Vec<Planned> {
        let (rows, cols) = (self.tensor.rows, self.tensor.cols);
        let planned =
            |last: &str, dtype, shape: &[usize]| Planned { name: self.name(last), dtype, shape: shape.to_vec() };
        let Some(scales) = self.scales else {
            let shape = if self.is_matrix { vec![rows, cols] } else { vec![cols] };
            return vec![planned(&self.last, dtype(self.kept_format()), &shape)];
        };
        let groups = cols / to.group;
        let mut all = vec![
            planned("weight_packed", "I32", &[rows, cols * to.bits.count() / 32]),
            planned("weight_scale", dtype(scales), &[rows, groups]),
            planned("weight_shape", "I64", &[2]),
        ];
        if !to.symmetric {
            all.push(planned("weight_zero_point", "I32", &[rows.div_ceil(zero_rows(to.bits)), groups]));
        }
        all
    }

    /// Writes all of it, band by band; `done` hears how many numbers more are done, and may end it.
    fn write(
        &self,
        checkpoint: &Checkpoint,
        plan: &Plan<'_>,
        options: &FolderOptions<'_>,
        shards: &mut Shards,
        done: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let tensor = &self.tensor;
        if !self.is_matrix {
            let values = checkpoint.vector(self.role)?.expect("the model has the vector");
            shards.write(&self.name(&self.last), 0, &floats(&values, self.kept_format()))?;
            return done(self.numbers());
        }
        // What is kept, and zero points that no block can have, pass through nothing else that looks.
        checkpoint.check_finite(self.role)?;
        let band_rows = (BAND_VALUES / tensor.cols / 8 * 8).clamp(8, BAND_ROWS);
        let bands: Vec<_> =
            (0..tensor.rows).step_by(band_rows).map(|first| first..(first + band_rows).min(tensor.rows)).collect();
        let Some(scales) = self.scales else {
            for band in bands {
                let format = self.kept_format();
                let bytes = floats(&decode_rows(tensor, band.clone()), format);
                shards.write(&self.name(&self.last), (bytes.len() / band.len() * band.start) as u64, &bytes)?;
                done((band.len() * tensor.cols) as u64)?;
            }
            return Ok(());
        };
        let importance = (options.importance)(self.role);
        let threads = thread::available_parallelism().map_or(1, |threads| threads.get());
        for bands in bands.chunks(threads) {
            let packed: Vec<Result<Packed, NotFinite>> = thread::scope(|scope| {
                let pack = |band| scope.spawn(|| pack_rows(tensor, band, plan.to, importance, scales));
                let makers: Vec<_> = bands.iter().cloned().map(pack).collect();
                makers.into_iter().map(|maker| maker.join().expect("rows are packed without a panic")).collect()
            });
            for (band, packed) in bands.iter().zip(packed) {
                let packed = packed.map_err(|NotFinite { index, met }| Error::NotFinite {
                    path: checkpoint.path().into(),
                    name: tensor.name.into(),
                    index,
                    met,
                })?;
                let at = |bytes: &[u8]| (bytes.len() / band.len() * band.start) as u64;
                shards.write(&self.name("weight_packed"), at(&packed.quants), &packed.quants)?;
                shards.write(&self.name("weight_scale"), at(&packed.scales), &packed.scales)?;
                if !plan.to.symmetric {
                    let row_bytes = 4 * tensor.cols / plan.to.group;
                    let first = band.start / zero_rows(plan.to.bits) * row_bytes;
                    shards.write(&self.name("weight_zero_point"), first as u64, &packed.zeros)?;
                }
                done((band.len() * tensor.cols) as u64)?;
            }
        }
        let shape = [tensor.rows, tensor.cols].map(|dim| (dim as i64).to_le_bytes()).concat();
        shards.write(&self.name("weight_shape"), 0, &shape)
    }
}

fn dtype(format: Format) -> &'static str {
    match format {
        Format::F32 => "F32",
        Format::Bf16 => "BF16",
        _ => "F16",
    }
}

fn floats(values: &[f32], format: Format) -> Vec<u8> {
    match format {
        Format::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Format::Bf16 => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
    }
}
