//! What templates take from Python: `json.dumps` and `strftime`.

use std::fmt::Write as _;
use std::io;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{Formatter, PrettyFormatter};

/// Python's `strftime`, in UTC.
pub(super) fn strftime(now: SystemTime, format: &str) -> Result<String, Error> {
    let now: DateTime<Utc> = now.into();
    let mut out = String::new();
    write!(out, "{}", now.format(format)).map_err(|_| {
        let what = format!("strftime_now does not know the format {format:?}");
        Error::new(ErrorKind::InvalidOperation, what)
    })?;
    Ok(out)
}

/// Python's separators `", "` and `": "`, which serde's compact form lacks.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }
    fn begin_object_key<W: ?Sized + io::Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }
    fn begin_object_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(b": ")
    }
}

/// The test `iterable`: Python iterates over strings, and not over `None`.
pub(super) fn is_iterable(value: &Value) -> bool {
    value.kind() == ValueKind::String || !value.is_none() && value.try_iter().is_ok()
}

/// The filter `tojson(indent=none, ensure_ascii=false)`: `json.dumps(value, ensure_ascii, indent)`, without the
/// escapes for HTML that Jinja's own filter adds.
#[expect(clippy::needless_pass_by_value, reason = "the signature of a filter")]
pub(super) fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut out = Vec::new();
    match indent {
        Some(n) => {
            let spaces = " ".repeat(n.min(64));
            let form = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut out, form))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut out, Spaced)),
    }
    .map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    let text = String::from_utf8(out).map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    if !ascii.unwrap_or(false) {
        return Ok(text);
    }
    // Outside of strings JSON is ASCII.
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            escaped.push(c);
        } else {
            escaped.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    Ok(escaped)
}
