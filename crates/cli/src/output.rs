//! Results on standard output, everything else on standard error.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use crate::exit::Code;

/// What a command hands back: the same result for people and for programs.
#[derive(Debug)]
pub(crate) struct Output {
    /// For people; ends with a line break.
    pub(crate) text: String,
    /// For programs, with `--json`.
    pub(crate) json: serde_json::Value,
    /// An exit code other than 0 that belongs to a result, not to an error.
    pub(crate) code: Option<Code>,
}

impl Output {
    /// A successful result.
    pub(crate) fn new(text: impl Into<String>, json: serde_json::Value) -> Self {
        Output { text: text.into(), json, code: None }
    }

    /// A text that is its own JSON string.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        let json = serde_json::Value::String(text.clone());
        Output::new(text, json)
    }

    /// Prints it. A reader that has gone away (`rhumb list | head -1`) ends the program quietly.
    pub(crate) fn print(&self, as_json: bool) -> io::Result<ExitCode> {
        let mut text = if as_json { format!("{:#}", self.json) } else { self.text.clone() };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        stream(&text)?;
        Ok(self.code.map_or(ExitCode::SUCCESS, |c| ExitCode::from(c as u8)))
    }
}

/// Writes a piece of a result at once, for texts that grow while they are made.
pub(crate) fn stream(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let done = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match done {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other,
    }
}

/// What every command is told about its surroundings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Global {
    /// Results as JSON.
    pub(crate) json: bool,
    /// No progress.
    pub(crate) quiet: bool,
}

impl Global {
    /// Whether progress is shown: only to people.
    pub(crate) fn shows_progress(self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }

    /// A remark on standard error that is no part of the result.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            // A closed standard error is no reason to fail.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }
}
