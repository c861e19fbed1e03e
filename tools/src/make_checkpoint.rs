//! Checkpoints of random numbers, in any format that can be run: for benches of shapes too large to fetch, and for tests.

mod containers;
mod numbers;

use std::path::{Path, PathBuf};

use raglan_models::{Format, ModelSpec};

/// Why no checkpoint was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is not one that can be run.
    #[error(transparent)]
    Config(#[from] raglan_models::Error),
    /// The file system said no.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A row is no whole number of blocks.
    #[error("tensor {name}: rows of {cols} numbers are no whole blocks of {format}; take another format")]
    Blocks {
        /// The tensor.
        name: String,
        /// Numbers in a row.
        cols: usize,
        /// The format asked for.
        format: Format,
    },
    /// Safetensors keep no blocks.
    #[error("a folder keeps F32, F16 or BF16, not {format}; ask for a .gguf file")]
    NoBlocksInFolder {
        /// The format asked for.
        format: Format,
    },
}

/// What to make.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// A `config.json`: the shapes and the family.
    pub config: PathBuf,
    /// How the matrices are stored. Vectors are F32 in GGUF, and as the matrices in a folder.
    pub format: Format,
    /// The same seed gives the same bytes.
    pub seed: u64,
}

/// Writes a `.gguf` file where `out` ends so, else a folder.
///
/// # Errors
/// Every [`Error`].
pub fn make(recipe: &Recipe, out: &Path) -> Result<(), Error> {
    let spec = ModelSpec::from_config(&recipe.config)?;
    if out.extension().is_some_and(|extension| extension == "gguf") {
        containers::write_gguf(recipe, &spec, out)
    } else {
        containers::write_folder(recipe, &spec, out)
    }
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Io { path: path.into(), source }
}
