//! Texts that are longer than memory should hold: split into tokens window by window.

use std::io::Read;

use super::Tokenizer;
use crate::error::Error;

/// Bytes of a text that are split at once.
const WINDOW: usize = 1 << 20;

/// Places that are tried as the end of a window.
const TRIES: usize = 16;

impl Tokenizer {
    /// As [`Tokenizer::encode`] of all that `text` gives, in memory for the ids and a window of a mebibyte.
    ///
    /// A window ends where the split of what follows is seen to be the same with the window before it and without. Where a
    /// tokenizer has no such place, all that is left is split at once.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; [`Error::Io`] with `path` where the text cannot be read or is not UTF-8.
    pub fn encode_reader(&self, path: &std::path::Path, text: impl Read, add_special: bool) -> Result<Vec<u32>, Error> {
        self.encode_windows(path, text, add_special, WINDOW)
    }

    fn encode_windows(
        &self,
        path: &std::path::Path,
        mut text: impl Read,
        add_special: bool,
        window: usize,
    ) -> Result<Vec<u32>, Error> {
        let surround = &self.inner.surround;
        let mut ids = if add_special { surround.before.to_vec() } else { Vec::new() };
        let (mut pending, mut bytes) = (String::new(), Vec::new());
        let mut room = window;
        loop {
            let wanted = room.saturating_sub(pending.len() + bytes.len());
            let before = bytes.len();
            text.by_ref().take(wanted as u64).read_to_end(&mut bytes).map_err(Error::io(path))?;
            let is_last = bytes.len() - before < wanted;
            take_utf8(&mut bytes, &mut pending, is_last).map_err(Error::io(path))?;
            if is_last {
                ids.extend(self.encode(&pending, false)?);
                break;
            }
            match self.cut(&pending)? {
                Some((mut found, rest)) => {
                    ids.append(&mut found);
                    pending.drain(..rest);
                    room = window;
                }
                None => room = usize::MAX,
            }
        }
        if add_special {
            ids.extend(&surround.after);
        }
        Ok(ids)
    }

    /// The ids of the first three quarters or so of a window, and where the rest of its text begins.
    fn cut(&self, text: &str) -> Result<Option<(Vec<u32>, usize)>, Error> {
        let encoding = self.inner.pipeline.encode(text, false).map_err(|e| self.failed("encoding", &e))?;
        let (ids, offsets) = (encoding.get_ids(), encoding.get_offsets());
        let from = offsets.partition_point(|(start, _)| *start < text.len() / 4 * 3);
        // After a line's end first, then before any token.
        let starts = |place: &usize| text.get(offsets[*place].0..).is_some();
        let after_line = |place: &usize| text[..offsets[*place].0].ends_with('\n');
        let places = || (from..ids.len()).filter(starts);
        for place in places().filter(after_line).take(TRIES).chain(places().take(TRIES)) {
            let start = offsets[place].0;
            // A tokenizer that begins every text with a space wants to be given it without one.
            let without_space = text[start..].strip_prefix(' ').map(|_| start + 1);
            for rest in [Some(start), without_space].into_iter().flatten() {
                if self.encode(&text[rest..], false)? == ids[place..] {
                    return Ok(Some((ids[..place].to_vec(), rest)));
                }
            }
        }
        Ok(None)
    }
}

/// Moves whole characters from `bytes` to `text`; what is left is the beginning of one.
fn take_utf8(bytes: &mut Vec<u8>, text: &mut String, is_last: bool) -> std::io::Result<()> {
    let whole = match std::str::from_utf8(bytes) {
        Ok(whole) => whole.len(),
        Err(error) if error.error_len().is_none() && !is_last => error.valid_up_to(),
        Err(_) => {
            let message = "stream did not contain valid UTF-8";
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, message));
        }
    };
    let part = std::str::from_utf8(&bytes[..whole]).expect("it was looked at");
    text.push_str(part);
    bytes.drain(..whole);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Checkpoint;
    use std::path::Path;

    /// A reader that gives a few bytes at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let count = self.0.len().min(out.len()).min(7);
            out[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn a_text_in_windows_has_the_ids_of_the_whole() {
        let tokenizer =
            Tokenizer::open(&Checkpoint::tiny().expect("it is whole")).expect("it parses").expect("it is there");
        let mut text = String::new();
        for line in 0..400u32 {
            let word = ["fox", "hare", "  badger", "lantern", "\u{e9}t\u{e9}", "\u{4f60}\u{597d}"][line as usize % 6];
            text += &format!(
                "{}the {word} said {}{}",
                " ".repeat(line as usize % 3),
                line * 7919,
                ["\n", "\n\n", " ", ". "][line as usize % 4]
            );
        }
        let whole = tokenizer.encode(&text, false).expect("it has ids");
        for window in [64, 257, 1000, 1 << 20] {
            let met =
                tokenizer.encode_windows(Path::new("text"), Slow(text.as_bytes()), false, window).expect("it has ids");
            assert_eq!(met, whole, "windows of {window} bytes");
        }
        let special = tokenizer.encode_windows(Path::new("text"), text.as_bytes(), true, 300).expect("it has ids");
        assert_eq!(special, tokenizer.encode(&text, true).expect("it has ids"));
        for broken in [&b"ab\xff"[..], b"ab\xe4\xbd"] {
            let error = tokenizer.encode_windows(Path::new("text"), broken, false, 64).expect_err("it is not UTF-8");
            assert!(error.to_string().contains("text"), "{error}");
        }
        assert!(tokenizer.encode_reader(Path::new("text"), std::io::empty(), false).expect("nothing").is_empty());
    }
}
