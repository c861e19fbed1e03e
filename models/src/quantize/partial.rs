//! A folder that is being written: another's work is never deleted, and what a run of this program left is written anew.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::Error;

/// The file that says whose folder it is; whoever writes the folder holds its lock.
const MARKER: &str = ".raglan-partial";

/// A folder beside the one to write, which is removed again unless it takes its name.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) path: PathBuf,
    /// Open as long as the folder is this run's.
    marker: Option<File>,
}

impl Partial {
    /// Makes it, or empties the one that a run which was cut off left.
    ///
    /// # Errors
    /// [`Error::Malformed`] where `out` has no name, its partial folder is being written by another run, or it is there and is not this
    /// program's; [`Error::Io`].
    pub(super) fn create(out: &Path) -> Result<Partial, Error> {
        let name = out
            .file_name()
            .ok_or_else(|| Error::malformed(out, "the folder to write", "no name", "a name that is free"))?;
        let path = out.with_file_name(format!("{}.raglan-partial", name.to_string_lossy()));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
        }
        let is_new = match std::fs::create_dir(&path) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
            Err(error) => return Err(Error::io(path)(error)),
        };
        // A run that has just begun may not have its marker yet: then both open it, and one has the lock.
        if !is_new && !is_of_this_program(&path) {
            let wanted = format!("what a run that was cut off left ({MARKER} in it): move it away");
            return Err(Error::malformed(path, "the folder to write in", "something else", wanted));
        }
        let busy = || {
            let wanted = "one run at a time, or another name";
            Error::malformed(&path, "the folder to write in", "being written by another run", wanted)
        };
        let marker_path = path.join(MARKER);
        let marker = File::options().write(true).create(true).truncate(false).open(&marker_path);
        let marker = marker.map_err(Error::io(&marker_path))?;
        match marker.try_lock() {
            Ok(()) => (),
            // A file system without locks: what is there already may be another's.
            Err(TryLockError::Error(_)) if is_new => (),
            Err(TryLockError::Error(error)) => return Err(Error::io(marker_path)(error)),
            Err(TryLockError::WouldBlock) => return Err(busy()),
        }
        // The one that held the lock may just have finished: then the lock is of a file that is gone.
        if !marker_path.exists() {
            return Err(busy());
        }
        clear(&path)?;
        let partial = Partial { path, marker: Some(marker) };
        match out.symlink_metadata() {
            Ok(_) => Err(Error::malformed(out, "the folder to write", "there already", "a name that is free")),
            Err(_) => Ok(partial),
        }
    }

    /// Removes it. The failure that led here is the one to tell; the marker goes last, since without it no run would begin anew.
    fn remove(&self) {
        let _ = clear(&self.path);
        let _ = std::fs::remove_file(self.path.join(MARKER));
        let _ = std::fs::remove_dir(&self.path);
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn rename(mut self, out: &Path) -> Result<(), Error> {
        let marker = self.path.join(MARKER);
        std::fs::remove_file(&marker).map_err(Error::io(marker))?;
        // Windows renames no folder in which a file is open.
        self.marker = None;
        std::fs::rename(&self.path, out).map_err(|error| {
            self.remove();
            Error::io(out)(error)
        })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.marker.is_some() {
            self.remove();
        }
    }
}

/// Whether it is a folder, and has the marker or nothing in it.
fn is_of_this_program(path: &Path) -> bool {
    let is_folder = path.symlink_metadata().is_ok_and(|about| about.is_dir());
    let has_marker = path.join(MARKER).symlink_metadata().is_ok_and(|about| about.is_file());
    is_folder && (has_marker || std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none()))
}

/// Removes the files but for the marker. Folders are none of this program's and stay, with an error.
fn clear(path: &Path) -> Result<(), Error> {
    for entry in std::fs::read_dir(path).map_err(Error::io(path))? {
        let entry = entry.map_err(Error::io(path))?;
        if entry.file_name() != MARKER {
            std::fs::remove_file(entry.path()).map_err(Error::io(entry.path()))?;
        }
    }
    Ok(())
}
