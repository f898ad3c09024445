use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use super::{io, not_started};
use crate::{Manifest, ObserveError, Observer, Outcome, Record};

/// Writes TensorBoard event files.
///
/// Scalars only: series stay in the JSON lines. A resumed run opens a further file that begins with a session
/// start at its first step, which makes readers forget what an earlier file says about later steps.
///
/// # Reference
/// `event.proto`, `summary.proto` and `record_writer.cc` of TensorFlow: each event is framed by its length and
/// two masked CRC-32C sums.
pub struct TensorboardObserver {
    folder: PathBuf,
    path: PathBuf,
    out: Option<BufWriter<File>>,
    started_s: f64,
    event: Vec<u8>,
    summary: Vec<u8>,
}

impl TensorboardObserver {
    /// Writes into `folder`, which is made when needed.
    pub fn new(folder: PathBuf) -> Self {
        TensorboardObserver {
            path: folder.clone(),
            folder,
            out: None,
            started_s: 0.0,
            event: Vec::new(),
            summary: Vec::new(),
        }
    }

    fn open(&mut self, run: &Manifest, ending: &str) -> Result<(), ObserveError> {
        self.started_s = run.started_unix_s.unwrap_or(0.0);
        fs::create_dir_all(&self.folder).map_err(|e| io("create", &self.folder, e))?;
        self.path = self.folder.join(format!("events.out.tfevents.{:010.0}.rhumb{ending}", self.started_s));
        let file = File::create(&self.path).map_err(|e| io("create", &self.path, e))?;
        self.out = Some(BufWriter::new(file));
        begin(&mut self.event, self.started_s, 0);
        bytes(&mut self.event, 3, b"brain.Event:2");
        self.send()
    }

    fn send(&mut self) -> Result<(), ObserveError> {
        let out = self.out.as_mut().ok_or_else(not_started)?;
        let length = (self.event.len() as u64).to_le_bytes();
        [&length[..], &masked(&length), &self.event, &masked(&self.event)]
            .iter()
            .try_for_each(|part| out.write_all(part))
            .map_err(|e| io("write", &self.path, e))
    }
}

impl Observer for TensorboardObserver {
    fn start(&mut self, run: &Manifest) -> Result<(), ObserveError> {
        self.open(run, "")
    }

    fn resume(&mut self, run: &Manifest, next_step: u64) -> Result<(), ObserveError> {
        self.open(run, &format!(".{next_step:012}"))?;
        begin(&mut self.event, self.started_s, next_step);
        // SessionLog { status: START }
        bytes(&mut self.event, 7, &[0x08, 0x01]);
        self.send()
    }

    fn record(&mut self, r: &Record) -> Result<(), ObserveError> {
        self.summary.clear();
        let mut value = Vec::new();
        for (key, v) in r.values().iter().chain(r.machine_values()) {
            value.clear();
            bytes(&mut value, 1, key.as_bytes());
            value.push(2 << 3 | 5);
            value.extend_from_slice(&(*v as f32).to_le_bytes());
            bytes(&mut self.summary, 1, &value);
        }
        if self.summary.is_empty() {
            return Ok(());
        }
        begin(&mut self.event, self.started_s + r.get("wall_s").unwrap_or(0.0), r.step);
        bytes(&mut self.event, 5, &self.summary);
        self.send()
    }

    fn sync(&mut self) -> Result<(), ObserveError> {
        let Some(out) = self.out.as_mut() else { return Ok(()) };
        out.flush().map_err(|e| io("write", &self.path, e))
    }

    fn finish(&mut self, _: &Outcome) -> Result<(), ObserveError> {
        self.sync()
    }
}

/// Starts an `Event` message: `wall_time` (field 1, double) and `step` (field 2, varint).
fn begin(event: &mut Vec<u8>, wall_time: f64, step: u64) {
    event.clear();
    event.push(1 << 3 | 1);
    event.extend_from_slice(&wall_time.to_le_bytes());
    event.push(2 << 3);
    varint(event, step);
}

/// Appends a length-delimited field of Protocol Buffers; field numbers here stay below 16.
fn bytes(into: &mut Vec<u8>, field: u8, data: &[u8]) {
    into.push(field << 3 | 2);
    varint(into, data.len() as u64);
    into.extend_from_slice(data);
}

fn varint(into: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        into.push(v as u8 | 0x80);
        v >>= 7;
    }
    into.push(v as u8);
}

fn masked(data: &[u8]) -> [u8; 4] {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}
