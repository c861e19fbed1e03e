//! Reading forward through bytes that may end, or lie, anywhere.

use std::fmt::Display;
use std::path::Path;

use crate::Error;

/// A place in a file; every read says what it reads, for messages.
pub(super) struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(path: &'a Path, bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { path, bytes, at: 0 }
    }

    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn file_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(super) fn malformed(&self, field: &dyn Display, met: impl Display, wanted: impl Display) -> Error {
        Error::malformed(self.path, field, met, wanted)
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`Error::Malformed`] where the file has fewer.
    pub(super) fn take(&mut self, count: u64, field: &dyn Display) -> Result<&'a [u8], Error> {
        let taken = usize::try_from(count).ok().and_then(|count| self.bytes[self.at..].get(..count));
        let Some(taken) = taken else {
            let met = format_args!("{count} bytes long, {} bytes before the file's end", self.remaining());
            return Err(self.malformed(field, met, "inside the file; it may be cut off, so fetch it again"));
        };
        self.at += taken.len();
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, field: &dyn Display) -> Result<[u8; N], Error> {
        let bytes = self.take(N as u64, field)?;
        Ok(*bytes.first_chunk().expect("take gives as many bytes as asked for"))
    }

    pub(super) fn u32(&mut self, field: &dyn Display) -> Result<u32, Error> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &dyn Display) -> Result<u64, Error> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A length and so many bytes of UTF-8.
    ///
    /// # Errors
    /// [`Error::Malformed`] where the string goes past the file's end, or is not UTF-8.
    pub(super) fn text(&mut self, field: &dyn Display) -> Result<&'a str, Error> {
        let length = self.u64(field)?;
        let bytes = self.take(length, field)?;
        std::str::from_utf8(bytes).map_err(|error| {
            let start: String = bytes.escape_ascii().take(64).map(char::from).collect();
            self.malformed(field, format_args!("\"{start}\", {error}"), "UTF-8")
        })
    }
}
