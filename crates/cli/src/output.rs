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

    /// Whether progress is told in lines: standard error is a file or a pipe that somebody may read.
    pub(crate) fn logs_progress(self) -> bool {
        !self.quiet && !io::stderr().is_terminal()
    }

    /// A remark on standard error that is no part of the result.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            say(text);
        }
    }
}

/// Something that changes what the result means; told even when quiet.
pub(crate) fn warn(text: &str) {
    say(&format!("warning: {text}"));
}

/// A line on standard error. A closed one is no reason to fail.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A word for a POSIX shell, quoted where it has to be.
pub(crate) fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// This call of the program as it can be typed, with `more` behind it.
pub(crate) fn command_line(more: &[&str]) -> String {
    let given = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned());
    let words = given.chain(more.iter().map(|m| (*m).to_owned()));
    let words: Vec<String> =
        std::iter::once("rhumb".to_owned()).chain(words.map(|w| shell_word(&w))).collect();
    words.join(" ")
}

/// The command that goes on with the run of this call in the folder `out`; `named` and `resumed` say whether `--out` and
/// `--resume` were given already.
pub(crate) fn resume_line(out: &std::path::Path, named: bool, resumed: bool) -> String {
    let dir = out.to_string_lossy();
    let mut more = Vec::new();
    if !named {
        more.extend(["--out", &*dir]);
    }
    if !resumed {
        more.push("--resume");
    }
    command_line(&more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_with_spaces_quotes_and_nothing_survive_a_shell() {
        let cases = [
            ("runs/a-1.gguf", "runs/a-1.gguf"),
            ("my run", "'my run'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
            ("a;b", "'a;b'"),
        ];
        for (word, want) in cases {
            assert_eq!(shell_word(word), want);
        }
    }
}
