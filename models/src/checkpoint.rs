//! A checkpoint: a Hugging Face folder, a GGUF file, the tiny model inside the program, or just the shapes of a known model.
//! Everything is checked when it is opened, so that nothing can fail later.

mod resolve;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::gguf::{self, Metadata};
use crate::mapped::Mapped;
use crate::names::Naming;
use crate::packed::Schemes;
use crate::tensors::Tensors;
use crate::{Error, Format, ModelSpec, Role, RowOrder, Synthetic, Tensor, families, safetensors};
use resolve::Places;

/// Files that are part of a program: name and bytes.
pub type EmbeddedFiles = &'static [(&'static str, &'static [u8])];

/// The files of the tiny model.
const TINY: EmbeddedFiles = &[
    ("config.json", include_bytes!("../tiny-stories/config.json")),
    ("generation_config.json", include_bytes!("../tiny-stories/generation_config.json")),
    ("model.safetensors", include_bytes!("../tiny-stories/model.safetensors")),
    ("tokenizer.json", include_bytes!("../tiny-stories/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../tiny-stories/tokenizer_config.json")),
];

/// An opened checkpoint. Its weights stay in the mapped files, which must not be changed while it lives.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    kind: Kind,
    spec: ModelSpec,
    tensors: Tensors,
    places: Places,
}

#[derive(Debug)]
enum Kind {
    Folder,
    Gguf(Box<Metadata>),
    Embedded(EmbeddedFiles),
    Synthetic(Box<Synthetic>),
}

/// How much of a checkpoint is stored in one format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormatUse {
    /// The format.
    pub format: Format,
    /// Tensors in it.
    pub tensors: usize,
    /// Numbers in them.
    pub parameters: u64,
    /// Bytes that they take.
    pub bytes: u64,
}

impl Checkpoint {
    /// Opens a folder with `config.json` and safetensors, or a GGUF file. No tokenizer needs to be there.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read; [`Error::Malformed`] for a file that breaks its format or a number
    /// that no model can have; [`Error::Unsupported`] for a family, feature or format that is not built;
    /// [`Error::MissingTensor`], [`Error::UnexpectedTensor`], [`Error::Shape`] and [`Error::NotFinite`] for tensors
    /// that are not what the configuration says.
    pub fn open(path: &Path) -> Result<Checkpoint, Error> {
        let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
        if metadata.is_dir() { Checkpoint::open_folder(path) } else { Checkpoint::open_gguf(path) }
    }

    /// The model of 1.25 million parameters that is part of the program: it tells little stories from nine plots.
    ///
    /// # Errors
    /// None while the program is whole.
    pub fn tiny() -> Result<Checkpoint, Error> {
        Checkpoint::embedded("tiny", TINY)
    }

    /// A folder that is part of the program: `config.json`, `model.safetensors` and what may lie beside them. Messages call
    /// it `name`.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] for a folder.
    pub fn embedded(name: &str, files: EmbeddedFiles) -> Result<Checkpoint, Error> {
        let path = Path::new(name);
        let file = |name: &str| embedded_file(files, name).unwrap_or_default();
        let weights = Mapped::embedded(&format!("{name}/model.safetensors"), file("model.safetensors"));
        let tensors = safetensors::read_mapped(weights)?;
        let config = Config::parse(&path.join("config.json"), file("config.json"), tensors.entries.len())?;
        let spec = families::read(&config)?;
        let older = embedded_file(files, OLDER_GPTQ)
            .map(|bytes| Config::parse(&path.join(OLDER_GPTQ), bytes, 0))
            .transpose()?;
        let schemes = Schemes::read(&config, older.as_ref())?;
        Checkpoint::new(path.into(), Kind::Embedded(files), spec, tensors, Naming::HuggingFace, &schemes)
    }

    /// A checkpoint of such shapes that has no weights: [`Checkpoint::is_synthetic`], and its matrices have no bytes.
    pub fn synthetic(synthetic: Synthetic) -> Checkpoint {
        let (path, spec) = (synthetic.full_name().into(), synthetic.spec.clone());
        let (tensors, places) = (Tensors::default(), Places::default());
        Checkpoint { path, kind: Kind::Synthetic(Box::new(synthetic)), spec, tensors, places }
    }

    /// Whether its weights are to be made up: [`Checkpoint::tensor`] tells shapes and formats, without bytes.
    pub fn is_synthetic(&self) -> bool {
        matches!(self.kind, Kind::Synthetic(_))
    }

    fn open_folder(path: &Path) -> Result<Checkpoint, Error> {
        let config_path = path.join("config.json");
        if !config_path.exists() {
            let wanted = "a folder with config.json, or a .gguf file named on its own";
            return Err(Error::malformed(path, "config.json", "missing", wanted));
        }
        let tensors = safetensors::read_folder(path)?;
        let config = Config::read(&config_path, tensors.entries.len())?;
        let spec = families::read(&config)?;
        let older = path.join(OLDER_GPTQ);
        let older = older.exists().then(|| Config::read_alone(&older)).transpose()?;
        let schemes = Schemes::read(&config, older.as_ref())?;
        Checkpoint::new(path.into(), Kind::Folder, spec, tensors, Naming::HuggingFace, &schemes)
    }

    fn open_gguf(path: &Path) -> Result<Checkpoint, Error> {
        let (metadata, tensors) = gguf::read(Mapped::open(path)?)?;
        let (spec, interleaved) = gguf::spec(path, &metadata, &tensors)?;
        let naming = Naming::Gguf { interleaved };
        Checkpoint::new(path.into(), Kind::Gguf(Box::new(metadata)), spec, tensors, naming, &Schemes::default())
    }

    fn new(
        path: PathBuf,
        kind: Kind,
        spec: ModelSpec,
        tensors: Tensors,
        naming: Naming,
        schemes: &Schemes,
    ) -> Result<Checkpoint, Error> {
        let places = resolve::places(&path, &spec, &tensors, naming, schemes)?;
        Ok(Checkpoint { path, kind, spec, tensors, places })
    }

    /// The folder or the file; the name of a model inside the program.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What kind of model it is.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// What a user should know of how it runs: each a sentence that ends without a stop.
    pub fn notes(&self) -> &[String] {
        &self.places.notes
    }

    /// Keys and values of a GGUF file; `None` for a folder.
    pub fn metadata(&self) -> Option<&Metadata> {
        match &self.kind {
            Kind::Gguf(metadata) => Some(metadata),
            Kind::Folder | Kind::Embedded(_) | Kind::Synthetic(_) => None,
        }
    }

    /// A small file beside the weights, `tokenizer.json` say. `None` where there is no such file, and for GGUF.
    ///
    /// # Errors
    /// [`Error::Io`] where it is there and cannot be read; [`Error::Malformed`] where it is over 512 MiB.
    pub fn file(&self, name: &str) -> Result<Option<Cow<'static, [u8]>>, Error> {
        match &self.kind {
            Kind::Gguf(_) | Kind::Synthetic(_) => Ok(None),
            Kind::Embedded(files) => Ok(embedded_file(files, name).map(Cow::Borrowed)),
            Kind::Folder => {
                let path = self.path.join(name);
                match std::fs::metadata(&path) {
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(Error::io(path)(error)),
                    Ok(metadata) if metadata.len() > FILE_LIMIT => {
                        let met = format_args!("{} bytes", metadata.len());
                        Err(Error::malformed(path, "the file", met, format_args!("at most {FILE_LIMIT}")))
                    }
                    Ok(_) => Ok(Some(Cow::Owned(std::fs::read(&path).map_err(Error::io(path))?))),
                }
            }
        }
    }

    /// A tensor where it lies in its file; its shape is that of [`ModelSpec::shape`]. `None` just where
    /// [`ModelSpec::has`] says so.
    ///
    /// # Errors
    /// None after a successful open; the signature leaves room for checkpoints that are read piece by piece.
    pub fn tensor(&self, role: Role) -> Result<Option<Tensor<'_>>, Error> {
        if let Kind::Synthetic(synthetic) = &self.kind {
            return Ok(self.spec.has(role).then(|| synthetic.tensor(role)));
        }
        Ok(self.places.of.get(&role).map(|place| place.tensor(&self.tensors)))
    }

    /// A norm's weights or a bias as f32, in the model's order. `None` just where [`ModelSpec::has`] says so.
    ///
    /// # Errors
    /// [`Error::NotFinite`], which the open has ruled out unless the file was changed since.
    ///
    /// # Panics
    /// If the role is a matrix.
    pub fn vector(&self, role: Role) -> Result<Option<Vec<f32>>, Error> {
        if self.is_synthetic() {
            // Norms of ones, and biases small beside what they are added to.
            return Ok(self
                .spec
                .has(role)
                .then(|| vec![if role.is_bias() { 0.01 } else { 1.0 }; self.spec.shape(role)[0]]));
        }
        self.places.of.get(&role).map(|place| place.vector(&self.tensors)).transpose()
    }

    /// Looks for NaN and infinities in a tensor, in its scales where it is quantised, and for zero points that cannot be: one pass
    /// over its bytes, meant for just before they are uploaded.
    /// (Vectors are looked at by the open; matrices are not, since that would read the whole file.)
    ///
    /// # Errors
    /// [`Error::NotFinite`] with the first; [`Error::Malformed`] for a zero point.
    pub fn check_finite(&self, role: Role) -> Result<(), Error> {
        self.places.of.get(&role).map_or(Ok(()), |place| place.check_finite(&self.tensors))
    }

    /// Numbers in all tensors; an embedding that is used again for the logits counts once.
    pub fn parameters(&self) -> u64 {
        self.formats().iter().map(|used| used.parameters).sum()
    }

    /// Bytes of all tensors.
    pub fn weight_bytes(&self) -> u64 {
        self.formats().iter().map(|used| used.bytes).sum()
    }

    /// What is stored in which format.
    pub fn formats(&self) -> Vec<FormatUse> {
        let mut formats = BTreeMap::new();
        for tensor in self.spec.roles().filter_map(|role| self.tensor(role).ok().flatten()) {
            let fresh = FormatUse { format: tensor.format, tensors: 0, parameters: 0, bytes: 0 };
            let used = formats.entry(tensor.format).or_insert(fresh);
            used.tensors += 1;
            used.parameters += tensor.rows as u64 * tensor.cols as u64;
            used.bytes += tensor.stored_bytes();
        }
        formats.into_values().collect()
    }
}

impl Synthetic {
    /// The shape of a tensor that has no bytes.
    fn tensor(&self, role: Role) -> Tensor<'static> {
        let (rows, cols) = match self.spec.shape(role)[..] {
            [rows, cols] => (rows, cols),
            ref shape => (1, shape[0]),
        };
        let format = self.format_of(role);
        Tensor { name: "a synthetic tensor", format, rows, cols, bytes: &[], row_order: RowOrder::Plain, packed: None }
    }
}

fn embedded_file(files: EmbeddedFiles, name: &str) -> Option<&'static [u8]> {
    files.iter().find(|(file, _)| *file == name).map(|(_, bytes)| *bytes)
}

/// Where older GPTQ folders say how they are quantised.
const OLDER_GPTQ: &str = "quantize_config.json";

/// The largest file beside the weights that is read.
const FILE_LIMIT: u64 = 512 << 20;
