use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{io, not_started};
use crate::record::RESERVED_KEYS;
use crate::{Manifest, ObserveError, Observer, Outcome, Record};

/// Writes `records.jsonl`.
///
/// Numbers are printed so that reading them back gives the same bits. JSON has no NaN: a value that is not
/// finite is `null`, and the line's `nonfinite` object says what it was. What depends on the machine stands
/// last, under `machine`.
pub struct JsonlObserver {
    path: PathBuf,
    out: Option<BufWriter<File>>,
    flushed_s: f64,
}

impl JsonlObserver {
    /// Writes to `path` from the start of the run on.
    pub fn new(path: PathBuf) -> Self {
        JsonlObserver { path, out: None, flushed_s: 0.0 }
    }
}

impl Observer for JsonlObserver {
    fn start(&mut self, _: &Manifest) -> Result<(), ObserveError> {
        let file = File::create(&self.path).map_err(|e| io("create", &self.path, e))?;
        self.out = Some(BufWriter::new(file));
        Ok(())
    }

    fn resume(&mut self, _: &Manifest, next_step: u64) -> Result<(), ObserveError> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&self.path)
            .map_err(|e| io("open", &self.path, e))?;
        let keep = length_before(&self.path, &file, next_step)?;
        file.set_len(keep).map_err(|e| io("shorten", &self.path, e))?;
        file.seek(SeekFrom::End(0)).map_err(|e| io("write", &self.path, e))?;
        self.out = Some(BufWriter::new(file));
        Ok(())
    }

    fn record(&mut self, r: &Record) -> Result<(), ObserveError> {
        let line = format_record(r)?;
        let out = self.out.as_mut().ok_or_else(not_started)?;
        let now = r.get("wall_s").unwrap_or(0.0);
        out.write_all(line.as_bytes())
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| {
                // About once a second, so that a reader can follow a slow run without a system call per fast step.
                if now - self.flushed_s >= 1.0 {
                    self.flushed_s = now;
                    out.flush()
                } else {
                    Ok(())
                }
            })
            .map_err(|e| io("write", &self.path, e))
    }

    fn sync(&mut self) -> Result<(), ObserveError> {
        let Some(out) = self.out.as_mut() else { return Ok(()) };
        out.flush().and_then(|()| out.get_ref().sync_data()).map_err(|e| io("write", &self.path, e))
    }

    fn finish(&mut self, _: &Outcome) -> Result<(), ObserveError> {
        self.sync()
    }
}

/// Bytes of the whole lines whose step lies before `next_step`. A last line without end is a torn write.
fn length_before(path: &Path, file: &File, next_step: u64) -> Result<u64, ObserveError> {
    let mut reader = BufReader::new(file);
    let (mut keep, mut line, mut number) = (0, Vec::new(), 0);
    loop {
        line.clear();
        number += 1;
        let n = reader.read_until(b'\n', &mut line).map_err(|e| io("read", path, e))?;
        if n == 0 || line.last() != Some(&b'\n') {
            return Ok(keep);
        }
        let record = std::str::from_utf8(&line).map_err(|e| e.to_string()).and_then(parse_record);
        match record {
            Ok(r) if r.step >= next_step => return Ok(keep),
            Ok(_) => keep += n as u64,
            Err(what) => return Err(ObserveError::Content { path: path.to_owned(), line: number, what }),
        }
    }
}

pub(super) fn read_all(path: &Path) -> Result<Vec<Record>, ObserveError> {
    let file = File::open(path).map_err(|e| io("open", path, e))?;
    let mut records = Vec::new();
    for (i, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|e| io("read", path, e))?;
        records.push(parse_record(&line).map_err(|what| ObserveError::Content {
            path: path.to_owned(),
            line: i + 1,
            what,
        })?);
    }
    Ok(records)
}

/// One record as one line of JSON, without the line end.
///
/// # Errors
/// [`ObserveError::Record`] when a name is reserved.
pub fn format_record(r: &Record) -> Result<String, ObserveError> {
    let mut line = Map::new();
    let mut odd = Map::new();
    line.insert("step".to_owned(), r.step.into());
    for (key, v) in r.values() {
        check(r, key)?;
        line.insert(key.to_string(), number(*v, || key.to_string(), &mut odd));
    }
    if !r.all_series().is_empty() {
        let mut series = Map::new();
        for (key, values) in r.all_series() {
            let array = values
                .iter()
                .enumerate()
                .map(|(i, v)| number(*v, || format!("{key}[{i}]"), &mut odd))
                .collect();
            series.insert(key.to_string(), Value::Array(array));
        }
        line.insert("series".to_owned(), series.into());
    }
    let mut machine = Map::new();
    let mut odd_machine = Map::new();
    for (key, v) in r.machine_values() {
        check(r, key)?;
        machine.insert(key.to_string(), number(*v, || key.to_string(), &mut odd_machine));
    }
    if !odd.is_empty() {
        line.insert("nonfinite".to_owned(), odd.into());
    }
    if !machine.is_empty() {
        line.insert("machine".to_owned(), machine.into());
    }
    Ok(Value::Object(line).to_string())
}

fn check(r: &Record, key: &str) -> Result<(), ObserveError> {
    if RESERVED_KEYS.contains(&key) {
        return Err(ObserveError::Record {
            step: r.step,
            what: format!("`{key}` is a reserved name in records: give the quantity another one"),
        });
    }
    Ok(())
}

fn number(v: f64, name: impl Fn() -> String, odd: &mut Map<String, Value>) -> Value {
    serde_json::Number::from_f64(v).map_or_else(
        || {
            odd.insert(name(), v.to_string().into());
            Value::Null
        },
        Value::Number,
    )
}

/// Reads a line that [`format_record`] wrote. A machine value that was not finite reads as NaN.
///
/// # Errors
/// A sentence saying what is wrong with the line.
pub fn parse_record(line: &str) -> Result<Record, String> {
    let object: Map<String, Value> = serde_json::from_str(line).map_err(|e| format!("not a record: {e}"))?;
    let step = object.get("step").and_then(Value::as_u64).ok_or("a record without a step")?;
    let mut r = Record::new(step);
    let none = Map::new();
    let odd = object.get("nonfinite").and_then(Value::as_object).unwrap_or(&none);
    let read = |v: &Value, name: &str| match v {
        Value::Null => match odd.get(name).and_then(Value::as_str) {
            Some("inf") => Ok(f64::INFINITY),
            Some("-inf") => Ok(f64::NEG_INFINITY),
            _ => Ok(f64::NAN),
        },
        v => v.as_f64().ok_or_else(|| format!("`{name}` is not a number")),
    };
    for (key, v) in &object {
        match key.as_str() {
            "step" | "nonfinite" => {}
            "series" => {
                for (name, values) in v.as_object().ok_or("`series` is not an object")? {
                    let values = values.as_array().ok_or_else(|| format!("`{name}` is not an array"))?;
                    let numbers: Result<Vec<f64>, String> =
                        values.iter().enumerate().map(|(i, v)| read(v, &format!("{name}[{i}]"))).collect();
                    r.series(name.clone(), &numbers?);
                }
            }
            "machine" => {
                for (name, v) in v.as_object().ok_or("`machine` is not an object")? {
                    r.machine(name.clone(), read(v, name)?);
                }
            }
            name => r.put(Cow::Owned(name.to_owned()), read(v, name)?),
        }
    }
    Ok(r)
}

/// A record line without what depends on the machine: two runs of a seed are equal byte for byte in this form.
pub fn strip_machine(line: &str) -> Cow<'_, str> {
    // Inside a JSON string the quotes would be escaped, so the mark cannot be part of a name.
    match line.rfind(",\"machine\":{") {
        Some(at) => Cow::Owned(format!("{}}}", &line[..at])),
        None => Cow::Borrowed(line),
    }
}
