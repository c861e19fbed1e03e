//! Where a conversation's lines come from: an editor in a terminal, else standard input as it is.

use crate::cli::{Error, Result};
use rustyline::config::Configurer;
use rustyline::error::ReadlineError;
use std::io::{BufRead, IsTerminal};

/// Lines, one a turn.
pub(super) enum Lines {
    /// With history and the usual keys.
    Editor(Box<rustyline::DefaultEditor>),
    /// From a pipe or a file.
    Plain,
}

impl Lines {
    /// An editor where standard input is a terminal.
    ///
    /// # Errors
    /// If the terminal cannot be set up.
    pub(super) fn open() -> Result<Lines> {
        if !std::io::stdin().is_terminal() {
            return Ok(Lines::Plain);
        }
        let mut editor = rustyline::DefaultEditor::new().map_err(failed)?;
        editor.set_auto_add_history(true);
        Ok(Lines::Editor(Box::new(editor)))
    }

    /// Whether someone sits before it.
    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Lines::Editor(_))
    }

    /// The next line without its end; `None` after the last.
    ///
    /// # Errors
    /// If standard input cannot be read, or is not UTF-8.
    pub(super) fn next(&mut self) -> Result<Option<String>> {
        match self {
            Lines::Editor(editor) => loop {
                match editor.readline("> ") {
                    Ok(line) => return Ok(Some(line)),
                    Err(ReadlineError::Eof) => return Ok(None),
                    // Ctrl-C empties the line, as shells have it.
                    Err(ReadlineError::Interrupted) => {}
                    Err(error) => return Err(failed(error)),
                }
            },
            Lines::Plain => {
                let mut line = String::new();
                let read = std::io::stdin().lock().read_line(&mut line);
                match read.map_err(|error| failed(ReadlineError::Io(error)))? {
                    0 => Ok(None),
                    _ => Ok(Some(line)),
                }
            }
        }
    }
}

fn failed(error: ReadlineError) -> Error {
    let source = match error {
        ReadlineError::Io(source) => source,
        other => std::io::Error::other(other),
    };
    Error::Io { path: "standard input".into(), source }
}
