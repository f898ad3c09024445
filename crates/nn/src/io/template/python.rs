//! What templates take from Python: `json.dumps` and `strftime`.

use std::fmt::Write as _;
use std::io;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use minijinja::value::{Kwargs, Value};
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

/// The filter `tojson(indent=none)`: `json.dumps(value, ensure_ascii=False, indent=indent)`, without the escapes
/// for HTML that Jinja's own filter adds.
#[expect(clippy::needless_pass_by_value, reason = "the signature of a filter")]
pub(super) fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
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
    String::from_utf8(out).map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))
}
