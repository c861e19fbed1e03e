//! The reference's logits on disk, in a file that no name leads to and that the system removes however the program ends.

use crate::error::Error;
use parking_lot::Mutex;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Rows of f32 by number.
#[derive(Debug)]
pub(super) struct Spool {
    file: Mutex<File>,
    folder: PathBuf,
    row_bytes: u64,
}

impl Spool {
    /// A file for `rows` rows of `cols` logits in `folder`.
    ///
    /// # Errors
    /// If nothing can be written there, or the disk has no room for that.
    pub(super) fn new(folder: &Path, rows: usize, cols: usize) -> Result<Spool, Error> {
        let failed = |source| Error::Io { path: folder.to_owned(), source };
        let row_bytes = 4 * cols as u64;
        let bytes = row_bytes * rows as u64;
        let file = tempfile::tempfile_in(folder).map_err(failed)?;
        if let Some(free) = free_bytes(folder).map_err(failed)?.filter(|&free| free < bytes) {
            let message = format!(
                "the reference's logits take {} MB, {} has {} MB free: choose another folder, or fewer or shorter windows",
                bytes.div_ceil(1_000_000),
                folder.display(),
                free / 1_000_000
            );
            return Err(Error::Request { message });
        }
        Ok(Spool { file: Mutex::new(file), folder: folder.to_owned(), row_bytes })
    }

    /// # Errors
    /// Where the system refuses, as on a disk that has been filled meanwhile.
    pub(super) fn write(&self, row: usize, logits: &[f32]) -> Result<(), Error> {
        self.at(row, |file| file.write_all(bytemuck::cast_slice(logits)))
    }

    /// Fills `logits` with a row that was written.
    ///
    /// # Errors
    /// Where the system refuses.
    pub(super) fn read(&self, row: usize, logits: &mut [f32]) -> Result<(), Error> {
        self.at(row, |file| file.read_exact(bytemuck::cast_slice_mut(logits)))
    }

    fn at(&self, row: usize, work: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<(), Error> {
        let mut file = self.file.lock();
        let done = file.seek(SeekFrom::Start(row as u64 * self.row_bytes)).and_then(|_| work(&mut file));
        done.map_err(|source| Error::Io { path: self.folder.clone(), source })
    }
}

/// Bytes that a user may still write in a folder; `None` where the system is not asked.
#[cfg(unix)]
fn free_bytes(folder: &Path) -> std::io::Result<Option<u64>> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(Some(disk.f_bavail.saturating_mul(disk.f_frsize)))
}

/// As on Unix.
#[cfg(not(unix))]
fn free_bytes(_: &Path) -> std::io::Result<Option<u64>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_went_in_whatever_the_order_and_no_file_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path(), 3, 2).unwrap();
        for row in [2, 0, 1] {
            spool.write(row, &[row as f32, -1.5]).unwrap();
        }
        let mut met = [0.0; 2];
        for row in [1, 2, 0] {
            spool.read(row, &mut met).unwrap();
            assert_eq!(met, [row as f32, -1.5]);
        }
        drop(spool);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_written_and_a_disk_without_room_are_told() {
        let told = Spool::new(Path::new("/no/such/folder"), 1, 1).unwrap_err().to_string();
        assert!(told.contains("/no/such/folder"), "{told}");
        let folder = tempfile::tempdir().unwrap();
        if cfg!(unix) {
            let told = Spool::new(folder.path(), 1 << 40, 1 << 17).unwrap_err().to_string();
            assert!(told.contains("MB free") && told.contains("fewer"), "{told}");
        }
    }
}
