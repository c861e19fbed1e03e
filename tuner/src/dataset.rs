//! Measurements of one adapter type: in memory, and as one Parquet file that any table tool reads.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Candidate, Cost, Error, Space};

mod columns;

/// Rounds of set A, which chooses.
pub const CHOOSING: std::ops::Range<usize> = 0..3;
/// Rounds of set B, measured apart, which scores.
pub const SCORING: std::ops::Range<usize> = 3..6;

/// What a dataset is of.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// A slug that adapters share which one model serves, such as `llvmpipe-8`.
    pub adapter_type: String,
    /// The adapter's own name.
    pub adapter: String,
    /// Its driver and version.
    pub driver: String,
    /// What the times are of: timestamps of the adapter, or the process's CPU time.
    pub clock: String,
    /// When it was begun.
    pub date: String,
    /// By space: a hash of the kernels' text and tunables.
    pub kernel_hashes: BTreeMap<String, String>,
    /// The spaces that rows may be of.
    pub spaces: Vec<Space>,
}

/// The measurements of one candidate on one shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The space's name.
    pub space: String,
    /// A number for each of the space's dims.
    pub shape: Vec<f32>,
    /// What was run.
    pub candidate: Candidate,
    /// What it costs by its own word.
    pub cost: Cost,
    /// By round, in microseconds; NaN where it was not measured. [`CHOOSING`] and [`SCORING`] say what rounds are for.
    pub times_us: Vec<f32>,
    /// Why it has no time that counts: it did not compile, or its outputs were wrong.
    pub failure: Option<String>,
    /// Whether it is what the runtime's hand-written rules choose for the shape.
    pub by_rules: bool,
}

impl Row {
    /// The median of set A, in microseconds; none where nothing was measured or it failed.
    pub fn chosen_us(&self) -> Option<f64> {
        let mut times: Vec<f64> = self.times(CHOOSING).collect();
        times.sort_by(f64::total_cmp);
        let middle = times.len() / 2;
        match times.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(times[middle]),
            _ => Some((times[middle - 1] + times[middle]) / 2.0),
        }
    }

    /// The mean of set B, in microseconds; none where nothing was measured or it failed.
    pub fn scored_us(&self) -> Option<f64> {
        let (count, sum) = self.times(SCORING).fold((0, 0.0), |(count, sum), us| (count + 1, sum + us));
        (count > 0).then(|| sum / f64::from(count))
    }

    /// The time of one round, in microseconds; none where it was not measured or the candidate failed.
    pub fn round_us(&self, round: usize) -> Option<f64> {
        self.times(round..round + 1).next()
    }

    fn times(&self, rounds: std::ops::Range<usize>) -> impl Iterator<Item = f64> + '_ {
        let measured = if self.failure.is_some() { &[] } else { self.times_us.as_slice() };
        let end = rounds.end.min(measured.len());
        let times = &measured[rounds.start.min(end)..end];
        times.iter().map(|us| f64::from(*us)).filter(|us| us.is_finite() && *us > 0.0)
    }
}

/// The measurements of one adapter type.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Dataset {
    /// What they are of.
    pub header: Header,
    /// In the order in which they were taken up; (space, shape, candidate) is unique.
    pub rows: Vec<Row>,
}

impl Dataset {
    /// Reads a file.
    ///
    /// # Errors
    /// `Io`: it cannot be read. `Dataset`: see [`Dataset::from_bytes`].
    pub fn read(path: &Path) -> Result<Dataset, Error> {
        let bytes = read_bounded(path, columns::MOST_BYTES)?;
        Dataset::from_bytes(&path.display().to_string(), &bytes)
    }

    /// Reads a Parquet file from memory; `name` stands for it in errors.
    ///
    /// # Errors
    /// `Dataset`: no Parquet, a column that is missing or of another type, a header that is no header, a row of an unknown
    /// space or with another number of dims, a candidate that is none, or more rows than a dataset may have.
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<Dataset, Error> {
        columns::read(bytes).map_err(|message| Error::Dataset { name: name.to_owned(), message })
    }

    /// The Parquet file, as bytes: the same for the same measurements.
    ///
    /// # Errors
    /// `Dataset`: a row that [`Dataset::from_bytes`] would refuse.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        columns::write(self).map_err(|message| Error::Dataset { name: self.header.adapter_type.clone(), message })
    }

    /// Writes a file beside `path`, then renames it to `path`: whoever reads sees the old file or the new one, whole.
    ///
    /// # Errors
    /// `Io`: it cannot be written. `Dataset`: see [`Dataset::to_bytes`].
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        write_whole(path, &self.to_bytes()?)
    }

    /// The SHA-256 of the file's bytes, in hexadecimal.
    ///
    /// # Errors
    /// `Dataset`: see [`Dataset::to_bytes`].
    pub fn sha256(&self) -> Result<String, Error> {
        Ok(sha256_hex(&self.to_bytes()?))
    }

    /// What the runtime's hand-written rules choose for its shapes, as [`crate::evaluate()`] asks it; nothing for a shape whose
    /// rules are not known.
    pub fn rules(&self) -> impl Fn(&str, &[f32]) -> Option<Candidate> + '_ {
        let bits = |shape: &[f32]| shape.iter().map(|number| number.to_bits()).collect::<Vec<u32>>();
        let mut known: BTreeMap<(&str, Vec<u32>), &Candidate> = BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.by_rules) {
            known.insert((&row.space, bits(&row.shape)), &row.candidate);
        }
        move |space, shape| known.get(&(space, bits(shape))).map(|&candidate| candidate.clone())
    }

    /// The space of a name.
    pub fn space(&self, name: &str) -> Option<&Space> {
        self.header.spaces.iter().find(|space| space.name == name)
    }
}

/// The bytes of a regular file, of `most` and one more at most: what is longer is refused by whoever parses it.
///
/// # Errors
/// `Io`: it cannot be read, or is no regular file.
pub(crate) fn read_bounded(path: &Path, most: usize) -> Result<Vec<u8>, Error> {
    use std::io::Read;
    let read = || -> std::io::Result<Vec<u8>> {
        if !std::fs::metadata(path)?.is_file() {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(most as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| Error::Io { path: path.to_owned(), source })
}

/// Writes a file beside `path`, then renames it to `path`.
///
/// # Errors
/// `Io`: a folder or the file cannot be made.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let fault = |source| Error::Io { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fault)?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    std::fs::write(&beside, bytes).map_err(fault)?;
    std::fs::rename(&beside, path).map_err(fault)
}

/// The SHA-256 of bytes, in hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
