//! GGUF files, version 2 and 3: a reader that believes no number before it has held it against the file's length.
//!
//! Source: ggml, docs/gguf.md.

mod config;
mod cursor;
mod metadata;
mod tensors;

pub use metadata::{List, Metadata, Value};

pub(crate) use config::{spec, spelled};

use crate::Error;
use crate::mapped::Mapped;
use crate::tensors::Tensors;
use cursor::Cursor;

/// The fewest bytes of a tensor's entry: name length, dimensions, type and offset.
const LEAST_TENSOR_BYTES: u64 = 24;
/// The fewest bytes of a key and its value: key length, type and one byte.
const LEAST_KEY_BYTES: u64 = 13;

/// The metadata of a file, and where its tensors lie.
///
/// # Errors
/// [`Error::Malformed`] for anything that breaks the format; [`Error::Unsupported`] for version 1, big-endian and split
/// files and for tensors of another format.
pub(crate) fn read(file: Mapped) -> Result<(Metadata, Tensors), Error> {
    let mut cursor = Cursor::new(file.path(), file.bytes());
    read_version(&mut cursor)?;
    let tensor_count = read_count(&mut cursor, "the number of tensors", LEAST_TENSOR_BYTES)?;
    let key_count = read_count(&mut cursor, "the number of keys", LEAST_KEY_BYTES)?;
    let metadata = metadata::read(&mut cursor, key_count)?;
    if metadata.unsigned("split.count")?.is_some_and(|parts| parts > 1) {
        let wanted = "one whole file; join the parts with gguf-split --merge";
        return Err(Error::unsupported(file.path(), "split.count", "more than one part", wanted));
    }
    let entries = tensors::read(&mut cursor, tensor_count, metadata.alignment()?)?;
    Ok((metadata, Tensors { files: vec![file], entries }))
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<(), Error> {
    let magic: [u8; 4] = cursor.array(&"the magic number")?;
    if magic != *b"GGUF" {
        let met = format_args!("{:?}", magic.escape_ascii().to_string());
        let wanted = "\"GGUF\"; a checkpoint is a .gguf file, or a folder with config.json and safetensors";
        return Err(cursor.malformed(&"the magic number", met, wanted));
    }
    let version = cursor.u32(&"the version")?;
    match version {
        2 | 3 => Ok(()),
        _ if matches!(version.swap_bytes(), 1..=3) => {
            Err(Error::unsupported(cursor.path(), "the byte order", "big-endian", "little-endian"))
        }
        _ => Err(Error::unsupported(cursor.path(), "the version of GGUF", version, "2, 3")),
    }
}

fn read_count(cursor: &mut Cursor<'_>, field: &str, least_bytes: u64) -> Result<u64, Error> {
    let count = cursor.u64(&field)?;
    let most = cursor.remaining() as u64 / least_bytes;
    if count > most {
        return Err(cursor.malformed(&field, count, format_args!("at most {most}, all that the file has room for")));
    }
    Ok(count)
}
