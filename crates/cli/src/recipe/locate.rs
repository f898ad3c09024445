//! From a parser's complaint to the place a user can go to.

use toml::de::{DeTable, DeValue};

use crate::embedded::nearest;

/// What is known about where settings came from.
pub(super) struct Place<'a> {
    /// The file.
    pub(super) file: &'a str,
    /// Its text.
    pub(super) text: &'a str,
    /// The overlay in force.
    pub(super) overlay: &'a str,
    /// Paths given with `-s`.
    pub(super) set: &'a [String],
}

/// The message for a text that is no TOML.
pub(super) fn syntax(file: &str, text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map(|s| format!(", line {}", line_of(text, s.start))).unwrap_or_default();
    format!("{file}{line}: {}", error.message())
}

impl Place<'_> {
    /// Turns path and message of a typed error into a sentence with file, line and nearest key.
    pub(super) fn describe(&self, path: &str, message: &str) -> String {
        let Some((key, known)) = unknown_name(message) else {
            // A key that the whole file lacks has no place of its own.
            let within = if path == "." { String::new() } else { format!("{path}: ") };
            return format!("{}: {within}{message}", self.at(path, None));
        };
        let what = if message.starts_with("unknown variant") { "value" } else { "key" };
        let hint = match nearest(&key, known.iter().map(String::as_str)) {
            Some(k) => format!("did you mean `{k}`?"),
            None if known.is_empty() => "no key is allowed here".to_owned(),
            None => format!("known: {}", known.join(", ")),
        };
        // The path of an unknown key may or may not end with the key itself.
        let parent = path.strip_suffix(key.as_str()).map_or(path, |p| p.trim_end_matches('.'));
        let parent = if parent == "." { "" } else { parent };
        let within = if parent.is_empty() { String::new() } else { format!(" in {parent}") };
        let at = if what == "key" { self.at(parent, Some(&key)) } else { self.at(path, None) };
        format!("{at}: unknown {what} `{key}`{within}: {hint}")
    }

    /// `FILE, line N`, or the override, that set a path.
    fn at(&self, path: &str, key: Option<&str>) -> String {
        let mut keys: Vec<&str> = path.split('.').filter(|k| !k.is_empty()).collect();
        keys.extend(key);
        let full = keys.join(".");
        if let Some(s) = self.set.iter().find(|s| **s == full || s.ends_with(&format!(".{full}"))) {
            return format!("-s {s}");
        }
        let Ok(document) = DeTable::parse(self.text) else { return self.file.to_owned() };
        let mut in_overlay = vec![self.overlay];
        in_overlay.extend(&keys);
        let start = find(document.get_ref(), &in_overlay).or_else(|| find(document.get_ref(), &keys));
        match start {
            Some(start) => format!("{}, line {}", self.file, line_of(self.text, start)),
            None => self.file.to_owned(),
        }
    }
}

/// Start of the key at a path. Inside a tagged table the path ends early, so the last key is searched deeper.
fn find(table: &DeTable<'_>, keys: &[&str]) -> Option<usize> {
    let (first, rest) = keys.split_first()?;
    for (key, value) in table {
        if key.get_ref() == first {
            if rest.is_empty() {
                return Some(key.span().start);
            }
            if let DeValue::Table(inner) = value.get_ref() {
                return find(inner, rest).or_else(|| search(inner, rest[rest.len() - 1]));
            }
        }
    }
    None
}

fn search(table: &DeTable<'_>, wanted: &str) -> Option<usize> {
    table.iter().find_map(|(key, value)| {
        if key.get_ref() == wanted {
            return Some(key.span().start);
        }
        match value.get_ref() {
            DeValue::Table(inner) => search(inner, wanted),
            _ => None,
        }
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|b| **b == b'\n').count() + 1
}

/// The unknown name and the known ones in serde's messages, which quote them with backticks.
fn unknown_name(message: &str) -> Option<(String, Vec<String>)> {
    let is_name = message.starts_with("unknown field") || message.starts_with("unknown variant");
    if !is_name {
        return None;
    }
    let mut quoted = message.split('`').skip(1).step_by(2).map(str::to_owned);
    Some((quoted.next()?, quoted.collect()))
}
