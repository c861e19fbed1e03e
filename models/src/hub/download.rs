//! One file of the hub: taken up where an earlier try was cut, checked, and put in its place in one step.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::client::{Hub, RemoteFile, Trouble};
use super::name::HubName;
use super::{Progress, repository::Wanted};
use crate::error::Error;

/// Tries one after another that bring nothing new.
const FRUITLESS_TRIES: u32 = 3;

const BUFFER_BYTES: usize = 256 << 10;

/// Fetches a file to `target`, by way of a `.part` beside it that outlives a cut.
///
/// # Errors
/// [`Error::Hub`] where the hub does not give the file, gives it up several times, or gives another than it said; [`Error::Io`] where
/// it cannot be written.
pub(super) fn fetch(
    hub: &Hub,
    wanted: &Wanted<'_>,
    target: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), Error> {
    let folder = target.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let part_path = part_path(target, &wanted.remote);
    let mut part = lock(wanted.name, &part_path)?;
    let mut best = length(&mut part, &part_path)?;
    let mut fruitless = 0;
    while wanted.remote.size.is_none_or(|size| best < size) || best == 0 {
        let problem = match receive(hub, wanted, &mut part, &part_path, progress) {
            Ok(()) if wanted.remote.size.is_none() => break,
            Ok(()) => "the connection was closed early".to_owned(),
            Err(Trouble::Passing(problem)) => problem,
            Err(Trouble::Lasting(error)) => return Err(error),
        };
        let here = length(&mut part, &part_path)?;
        if wanted.remote.size.is_some_and(|size| here >= size) {
            break;
        }
        fruitless = if here > best { 0 } else { fruitless + 1 };
        best = best.max(here);
        if fruitless >= FRUITLESS_TRIES {
            return Err(
                wanted.failed(format!("{problem}; {here} bytes are kept, and the same command goes on from there"))
            );
        }
        std::thread::sleep(hub.retry_wait);
    }
    verify(wanted, &mut part, &part_path)?;
    part.sync_all().map_err(Error::io(&part_path))?;
    drop(part);
    std::fs::rename(&part_path, target).map_err(Error::io(target))
}

/// A part belongs to one version of a file: another version starts anew.
fn part_path(target: &Path, remote: &RemoteFile) -> PathBuf {
    let version: String = remote.etag.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{version}.part"));
    target.with_file_name(name)
}

/// Two programs must not write one part; the lock ends with the program.
fn lock(name: &HubName, path: &Path) -> Result<File, Error> {
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let file = options.map_err(Error::io(path))?;
    match file.try_lock() {
        Err(std::fs::TryLockError::WouldBlock) => {
            let reason = "another program is fetching it: wait until it is done".into();
            Err(Error::Hub { name: name.to_string(), url: path.display().to_string(), reason })
        }
        // A file system without locks: the digest is checked all the same.
        Ok(()) | Err(std::fs::TryLockError::Error(_)) => Ok(file),
    }
}

fn length(part: &mut File, path: &Path) -> Result<u64, Error> {
    part.seek(SeekFrom::End(0)).map_err(Error::io(path))
}

/// One connection: appends what comes to the part.
fn receive(
    hub: &Hub,
    wanted: &Wanted<'_>,
    part: &mut File,
    path: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), Trouble> {
    let io = |error| Trouble::Lasting(Error::io(path)(error));
    let mut done = length(part, path).map_err(Trouble::Lasting)?;
    let response = hub.get(wanted.name, &wanted.url, done)?;
    let range = response.headers().get("content-range").and_then(|range| range.to_str().ok());
    let goes_on = response.status().as_u16() == 206 && range.is_some_and(|r| r.starts_with(&format!("bytes {done}-")));
    if done > 0 && !goes_on {
        // The server starts at the front (200), elsewhere, or nowhere (416).
        part.set_len(0).map_err(io)?;
        part.rewind().map_err(io)?;
        done = 0;
        if response.status().as_u16() != 200 {
            return Err(Trouble::Passing("the server cannot go on where it was cut".into()));
        }
    }
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = match body.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) => return Err(Trouble::Passing(error.to_string())),
        };
        done += read as u64;
        if let Some(size) = wanted.remote.size.filter(|size| done > *size) {
            part.set_len(0).map_err(io)?;
            let reason = format!("the server sends more than the {size} bytes that it named");
            return Err(Trouble::Lasting(wanted.failed(reason)));
        }
        part.write_all(&buffer[..read]).map_err(io)?;
        progress(Progress { file: wanted.file, done, total: wanted.remote.size });
    }
}

/// Holds the whole part against the size and, for large files, the digest that the hub named.
fn verify(wanted: &Wanted<'_>, part: &mut File, path: &Path) -> Result<(), Error> {
    let here = length(part, path)?;
    let mut problem =
        wanted.remote.size.filter(|size| *size != here).map(|size| format!("{here} bytes, wanted {size}"));
    let etag = &wanted.remote.etag;
    if problem.is_none() && etag.len() == 64 && etag.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        part.rewind().map_err(Error::io(path))?;
        let mut digest = Sha256::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match part.read(&mut buffer).map_err(Error::io(path))? {
                0 => break,
                read => digest.update(&buffer[..read]),
            }
        }
        let met: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        problem = (!met.eq_ignore_ascii_case(etag)).then(|| format!("sha256 {met}, wanted {etag}"));
    }
    let Some(problem) = problem else { return Ok(()) };
    std::fs::remove_file(path).map_err(Error::io(path))?;
    Err(wanted.failed(format!("what came is damaged ({problem}) and was thrown away: try again")))
}
