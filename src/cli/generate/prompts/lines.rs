//! The lines of a file or a pipe, read ahead of what wants them by few.

use crate::cli::{Error, Result};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};

/// Bytes of a line at most.
const MOST_BYTES: usize = 16 << 20;

/// Lines that are read and not yet taken at most, each of which may be a long one.
const READ_AHEAD: usize = 4;

/// A line without its end, or what is wrong with it.
pub(super) type Line = std::result::Result<Vec<u8>, String>;

/// Reads `path`, or standard input for `-`, on a thread of its own: one who types, or a program that writes now and then,
/// must not hold up answers that are ready. An error of the system is the last item.
///
/// # Errors
/// If the file cannot be opened.
pub(super) fn open(path: &Path) -> Result<Receiver<std::io::Result<Line>>> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let reader: Box<dyn Read + Send> =
        if path.as_os_str() == "-" { Box::new(std::io::stdin()) } else { Box::new(File::open(path).map_err(failed)?) };
    let (sender, lines) = sync_channel(READ_AHEAD);
    let read = move || {
        for line in Lines::new(BufReader::new(reader)) {
            if sender.send(line).is_err() {
                return; // nobody wants more
            }
        }
    };
    std::thread::Builder::new().name("raglan-lines".into()).spawn(read).map_err(failed)?;
    Ok(lines)
}

/// Every line but blank ones at the end: a blank one before another is one with an error, so that lines and answers keep
/// their numbers.
struct Lines<R> {
    reader: R,
    first: bool,
    /// Blank lines that were met before `next`.
    blank: u64,
    next: Option<std::io::Result<Line>>,
    ended: bool,
}

impl<R: BufRead> Lines<R> {
    fn new(reader: R) -> Lines<R> {
        Lines { reader, first: true, blank: 0, next: None, ended: false }
    }

    fn read(&mut self) -> std::io::Result<Option<Line>> {
        let mut line = Vec::new();
        if self.reader.by_ref().take(MOST_BYTES as u64 + 1).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() > MOST_BYTES {
            self.reader.skip_until(b'\n')?;
            return Ok(Some(Err(format!("it has more than {} MiB", MOST_BYTES >> 20))));
        }
        if std::mem::take(&mut self.first) && line.starts_with(b"\xEF\xBB\xBF") {
            line.drain(..3); // a byte order mark, as some editors write
        }
        Ok(Some(Ok(line)))
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = std::io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.next.is_none() && !self.ended {
            match self.read().transpose() {
                Some(Ok(Ok(line))) if line.iter().all(u8::is_ascii_whitespace) => self.blank += 1,
                next => {
                    self.ended = !matches!(next, Some(Ok(_)));
                    self.next = next;
                }
            }
        }
        if self.blank > 0 && matches!(self.next, Some(Ok(_))) {
            self.blank -= 1;
            return Some(Ok(Err("it is blank, wanted an object".to_owned())));
        }
        self.next.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<Line> {
        Lines::new(bytes).map(|line| line.unwrap()).collect()
    }

    #[test]
    fn blank_lines_count_but_at_the_end() {
        let met = lines(b"\xEF\xBB\xBF{}\r\n\n \t\n[]\n\n\r\n");
        assert_eq!(met.len(), 4);
        assert_eq!((&met[0], &met[3]), (&Ok(b"{}\r".to_vec()), &Ok(b"[]".to_vec())));
        assert!(met[1].is_err() && met[2].is_err());
        assert_eq!(lines(b""), []);
        assert_eq!(lines(b"\n\n"), []);
        assert_eq!(lines(b"a"), [Ok(b"a".to_vec())]);
    }

    #[test]
    fn a_line_that_is_too_long_costs_no_memory_and_the_next_is_read() {
        let long = |more: usize| [vec![b'x'; MOST_BYTES + more], b"\nnext".to_vec()].concat();
        let next = [Ok(b"next".to_vec())];
        let met = lines(&long(0));
        assert_eq!((met[0].as_ref().map(Vec::len), &met[1..]), (Ok(MOST_BYTES), &next[..]));
        for more in [1, 2, 4 << 20] {
            let met = lines(&long(more));
            assert!(met[0].as_ref().is_err_and(|error| error.contains("16 MiB")), "{more}");
            assert_eq!(met[1..], next, "{more}");
        }
    }

    #[test]
    fn an_error_of_the_system_is_the_last_item() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other("unplugged"))
            }
        }
        let met: Vec<_> = Lines::new(BufReader::new(b"a\n\n".chain(Broken))).collect();
        assert!(matches!(met.as_slice(), [Ok(Ok(_)), Err(_)]), "{met:?}");
    }
}
