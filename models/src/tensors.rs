//! Every tensor of a checkpoint by name, whatever container it lies in.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use crate::mapped::Mapped;
use crate::{Error, Format};

/// The files of a checkpoint and what lies where in them.
#[derive(Debug, Default)]
pub(crate) struct Tensors {
    pub(crate) files: Vec<Mapped>,
    pub(crate) entries: BTreeMap<String, Entry>,
}

/// One tensor: its range is inside its file, and as long as shape and format ask (checked by the container's reader).
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Index into [`Tensors::files`].
    pub(crate) file: usize,
    /// Bytes of that file.
    pub(crate) range: Range<usize>,
    /// How the numbers are stored.
    pub(crate) dtype: Dtype,
    /// Rows first.
    pub(crate) shape: Vec<usize>,
}

/// A format that can be run, or the name of one that cannot: it matters only if the tensor is needed.
#[derive(Debug, Clone)]
pub(crate) enum Dtype {
    Known(Format),
    Other(String),
}

impl Entry {
    /// Whether it is the same bytes of the same file.
    pub(crate) fn is(&self, other: &Entry) -> bool {
        self.file == other.file && self.range == other.range
    }
}

impl Tensors {
    pub(crate) fn path(&self, entry: &Entry) -> &Path {
        self.files[entry.file].path()
    }

    pub(crate) fn bytes(&self, entry: &Entry) -> &[u8] {
        &self.files[entry.file].bytes()[entry.range.clone()]
    }

    /// The format of an entry that the model needs.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where it is none of `supported`.
    pub(crate) fn format(&self, name: &str, entry: &Entry, supported: &[Format]) -> Result<Format, Error> {
        let met = match &entry.dtype {
            Dtype::Known(format) if supported.contains(format) => return Ok(*format),
            Dtype::Known(format) => format.name(),
            Dtype::Other(name) => name,
        };
        let names: Vec<&str> = supported.iter().map(|format| format.name()).collect();
        Err(Error::unsupported(self.path(entry), format_args!("the format of tensor {name}"), met, names.join(", ")))
    }
}
