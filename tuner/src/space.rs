//! What is chosen among: the shapes of a space, and its candidates.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// A portfolio has no more candidates than this.
pub const MOST_CANDIDATES: usize = 48;
/// A space has no more dims than this.
pub const MOST_DIMS: usize = 16;
/// A candidate has no more settings than this.
const MOST_SETTINGS: usize = 32;
/// A name is no longer than this.
const LONGEST_NAME: usize = 64;

/// How a dim becomes features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DimKind {
    /// A size: its logarithm.
    Size,
    /// A size that tiles cover: its logarithm, and what tiles of usual edges waste on it.
    Tiled,
    /// A number, as it is.
    Number,
}

/// A number of a shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dim {
    /// Unique in its space.
    pub name: String,
    /// How it becomes features.
    pub kind: DimKind,
    /// Shapes that share all grouped dims are one group: what a model fixes, such as the (N, K, format) of a product.
    pub grouped: bool,
}

/// What is chosen for one kind of dispatch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// Unique among the spaces of a program.
    pub name: String,
    /// The numbers of a shape, in order.
    pub dims: Vec<Dim>,
}

impl Space {
    /// What breaks the rules of a space, if anything does: names, and how many dims.
    pub(crate) fn fault(&self) -> Option<String> {
        if !is_name(&self.name) {
            return Some(format!("{:?} is no name of a space", self.name));
        }
        if self.dims.is_empty() || self.dims.len() > MOST_DIMS {
            return Some(format!("{}: {} dims, 1 to {MOST_DIMS} are allowed", self.name, self.dims.len()));
        }
        for (at, dim) in self.dims.iter().enumerate() {
            if !is_name(&dim.name) || self.dims[..at].iter().any(|other| other.name == dim.name) {
                return Some(format!("{}: {:?} is no name of a dim, or there twice", self.name, dim.name));
            }
        }
        None
    }
}

/// One way to run a dispatch: a kernel, a value for each of its tunables, and choices that are no tunable.
///
/// As text `matmul LANES_M=1 LANES_N=32 SPLITS=1`: the kernel, then the settings in order, apart by one space each.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Candidate {
    /// The kernel's name.
    pub kernel: String,
    /// Name and value, in an order that the maker keeps: another order is another candidate.
    pub settings: Vec<(String, u32)>,
}

impl Candidate {
    /// The value of a setting.
    pub fn setting(&self, name: &str) -> Option<u32> {
        self.settings.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kernel)?;
        for (name, value) in &self.settings {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

impl FromStr for Candidate {
    type Err = Error;

    /// # Errors
    /// `Candidate`: a kernel or setting that is no name (1 to 64 of `A–Z a–z 0–9 _`), a value that is no u32, a setting
    /// given twice, or more than 32 of them.
    fn from_str(text: &str) -> Result<Candidate, Error> {
        let bad = |message: &str| Error::Candidate { text: shortened(text), message: message.to_owned() };
        let mut words = text.split(' ');
        let kernel = words.next().unwrap_or_default();
        if !is_name(kernel) {
            return Err(bad("a kernel's name comes first"));
        }
        let mut settings: Vec<(String, u32)> = Vec::new();
        for word in words {
            let (name, value) = word.split_once('=').ok_or_else(|| bad("a setting is NAME=VALUE"))?;
            if !is_name(name) || settings.iter().any(|(other, _)| other == name) {
                return Err(bad("a setting's name is letters, digits and _, and there once"));
            }
            let is_number = value.bytes().all(|b| b.is_ascii_digit()) && (value == "0" || !value.starts_with('0'));
            let value = value.parse().ok().filter(|_| is_number).ok_or_else(|| bad("a value is a whole number"))?;
            if settings.len() == MOST_SETTINGS {
                return Err(bad("at most 32 settings"));
            }
            settings.push((name.to_owned(), value));
        }
        Ok(Candidate { kernel: kernel.to_owned(), settings })
    }
}

/// Whether a text may name a kernel, a setting, a space or a dim.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A text from outside, cut to what an error message should hold.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}
