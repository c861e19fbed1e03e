//! The bytes of a file, mapped and not read; or bytes that lie in the program itself.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::Error;

/// A file of a checkpoint, for as long as the checkpoint lives.
#[derive(Debug)]
pub(crate) struct Mapped {
    path: PathBuf,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Map(Mmap),
    Static(&'static [u8]),
}

impl Mapped {
    /// Maps a whole file. The file must not be changed or cut while the map lives.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be opened or mapped, or is no plain file.
    pub(crate) fn open(path: &Path) -> Result<Mapped, Error> {
        let file = File::open(path).map_err(Error::io(path))?;
        let metadata = file.metadata().map_err(Error::io(path))?;
        if !metadata.is_file() {
            return Err(Error::malformed(path, "the path", "no plain file", "a file"));
        }
        if metadata.len() == 0 {
            return Ok(Mapped { path: path.into(), bytes: Bytes::Static(&[]) }); // an empty map is an error on some systems
        }
        // SAFETY: the map is read-only and private to this value. The one hazard is another process that writes or cuts
        // the file meanwhile; every offset was checked against the length at open, so a write changes numbers but never
        // what is read, and a cut file ends the process by a signal as any mapped file does.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        Ok(Mapped { path: path.into(), bytes: Bytes::Map(map) })
    }

    /// Bytes that are part of the program, with a name for messages.
    pub(crate) fn embedded(name: &str, bytes: &'static [u8]) -> Mapped {
        Mapped { path: name.into(), bytes: Bytes::Static(bytes) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Map(map) => map,
            Bytes::Static(bytes) => bytes,
        }
    }
}
