//! Strings that end an answer, found while it is being written.

/// Watches a text that comes in pieces for the first of some strings, and holds back what may be the beginning of one.
///
/// The string that is complete first counts; of several that end at the same character, the longest. So the cut does not depend on how
/// the text is cut into pieces.
#[derive(Debug, Clone, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

/// What may be shown after a piece.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Watched {
    /// Text that is certain; before the stop string, if one was found.
    pub text: String,
    /// The stop string that was found, as an index into the list; it ends the answer and is not part of `text`.
    pub stop: Option<usize>,
}

impl StopStrings {
    /// Watches for any of `stops`; empty strings are passed over, since they would stop before the first character.
    pub fn new(stops: Vec<String>) -> StopStrings {
        StopStrings { stops, held: String::new(), stopped: false }
    }

    /// Takes the next piece of the answer. After a stop every piece comes back empty.
    pub fn push(&mut self, piece: &str) -> Watched {
        if self.stopped {
            return Watched::default();
        }
        self.held.push_str(piece);
        if let Some((start, index)) = self.first_stop() {
            self.stopped = true;
            self.held.truncate(start);
            return Watched { text: std::mem::take(&mut self.held), stop: Some(index) };
        }
        let rest = self.held.split_off(self.certain());
        Watched { text: std::mem::replace(&mut self.held, rest), stop: None }
    }

    /// What was held back and turned out to be no stop string, once the answer has ended otherwise.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the stop string that is complete first begins, and which it is.
    fn first_stop(&self) -> Option<(usize, usize)> {
        let found = self.stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty()).filter_map(|(index, stop)| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start, index))
        });
        found.min().map(|(_, start, index)| (start, index))
    }

    /// How much of the held text is before anything that may yet become a stop string.
    fn certain(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let text = self.held.as_bytes();
        let first = text.len().saturating_sub(longest.saturating_sub(1));
        // Bytes at the start of both are equal, so the place found is the start of a character.
        (first..text.len())
            .find(|at| self.stops.iter().any(|stop| stop.as_bytes().starts_with(&text[*at..])))
            .unwrap_or(text.len())
    }
}
