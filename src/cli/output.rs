//! What is written where: answers to standard output, notes to standard error.

use super::Result;
use raglan::Error;
use std::error::Error as _;
use std::fmt;
use std::io::{ErrorKind, Write};

const STDOUT: &str = "standard output";

/// Writes text to standard output at once.
///
/// # Errors
/// Where it cannot be written; [`is_closed`] tells a reader that has gone from the rest.
pub(super) fn print(text: &str) -> Result {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|source| Error::Io { path: STDOUT.into(), source })
}

/// Writes one line to standard output.
///
/// # Errors
/// As [`print`].
pub(super) fn print_line(line: impl fmt::Display) -> Result {
    print(&format!("{line}\n"))
}

/// Writes a value as JSON, on a line of its own.
///
/// # Errors
/// As [`print`].
pub(super) fn print_json(value: &impl serde::Serialize) -> Result {
    let text = serde_json::to_string(value).expect("keys are strings");
    print_line(text)
}

/// Writes one line to standard error under the program's name. Nobody is told where that fails.
pub(super) fn note(line: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "raglan: {line}");
}

/// Whether an error says just that nobody reads standard output any more, as after `| head`.
pub(super) fn is_closed(error: &Error) -> bool {
    matches!(error, Error::Io { path, source } if path.as_os_str() == STDOUT && source.kind() == ErrorKind::BrokenPipe)
}

/// An error with its causes, on one line.
pub(super) struct Failure<'a>(pub(super) &'a Error);

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let words = error.to_string();
            if !text.contains(&words) {
                text = format!("{text}: {words}");
            }
            cause = error.source();
        }
        f.write_str(&text.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

/// `1.5 MiB`.
pub(super) fn bytes(count: u64) -> impl fmt::Display {
    indicatif::BinaryBytes(count)
}

/// `1,250,000`.
pub(super) fn number(count: impl TryInto<u64>) -> impl fmt::Display {
    indicatif::HumanCount(count.try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_and_names_each_cause_once() {
        let source = std::io::Error::new(ErrorKind::NotFound, "no\nsuch file");
        let error = Error::Io { path: "a.txt".into(), source };
        assert_eq!(Failure(&error).to_string(), "a.txt: no such file");
        assert!(!is_closed(&error));
        let source = ErrorKind::BrokenPipe.into();
        assert!(is_closed(&Error::Io { path: STDOUT.into(), source }));
    }
}
