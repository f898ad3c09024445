use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{from_checkpoint, jsonl};
use crate::{ObserveError, Observer, Outcome, Record, checkpoint};

/// Writes `records.csv` from `records.jsonl` at the end of the run.
///
/// The columns are `step` and every value in the order of first appearance, the machine's last; a record
/// without a value leaves its cell empty. Series are in the JSON lines only.
pub struct CsvObserver {
    from: PathBuf,
    to: PathBuf,
}

impl CsvObserver {
    /// Reads the records of `from`, which another observer has finished before, and writes `to`.
    pub fn new(from: PathBuf, to: PathBuf) -> Self {
        CsvObserver { from, to }
    }
}

impl Observer for CsvObserver {
    fn record(&mut self, _: &Record) -> Result<(), ObserveError> {
        Ok(())
    }

    fn finish(&mut self, _: &Outcome) -> Result<(), ObserveError> {
        let table = table(&jsonl::read_all(&self.from)?).map_err(ObserveError::Other)?;
        checkpoint::write_atomic(&self.to, &table).map_err(from_checkpoint)
    }
}

fn table(records: &[Record]) -> Result<Vec<u8>, String> {
    let mut columns: Vec<&str> = Vec::new();
    let mut place: BTreeMap<&str, usize> = BTreeMap::new();
    for part in [Record::values, Record::machine_values] {
        for (key, _) in records.iter().flat_map(part) {
            place.entry(key).or_insert_with(|| {
                columns.push(key);
                columns.len() - 1
            });
        }
    }
    let fail = |e: csv::Error| format!("the table cannot be written: {e}");
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record(std::iter::once("step").chain(columns.iter().copied())).map_err(fail)?;
    let mut row = vec![String::new(); columns.len() + 1];
    for r in records {
        row.iter_mut().for_each(String::clear);
        row[0] = r.step.to_string();
        for (key, v) in r.values().iter().chain(r.machine_values()) {
            row[place[key.as_ref()] + 1] = v.to_string();
        }
        out.write_record(&row).map_err(fail)?;
    }
    out.into_inner().map_err(|e| format!("the table cannot be written: {e}"))
}
