//! What one step reports.

use std::borrow::Cow;

/// A name of a recorded quantity; static in hot loops, owned where it is made at run time.
pub type Key = Cow<'static, str>;

/// Names with a meaning of their own in a record line; no quantity may use them.
pub const RESERVED_KEYS: [&str; 4] = ["step", "series", "nonfinite", "machine"];

/// The values of one step, in the order in which they were put.
///
/// Three kinds are kept apart: *values* and *series* follow from the seed alone and are equal bit for bit
/// between two runs; *machine* values (times, rates, memory) are not, and every comparison leaves them out.
///
/// ```
/// use rhumb_core::Record;
/// let mut r = Record::new(3);
/// r.put("loss", 0.5);
/// r.machine("tokens_per_s", 1200.0);
/// r.series("block_norm", &[1.0, 2.0]);
/// assert_eq!(r.get("loss"), Some(0.5));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// The step, from 0.
    pub step: u64,
    values: Vec<(Key, f64)>,
    series: Vec<(Key, Vec<f64>)>,
    machine: Vec<(Key, f64)>,
}

impl Record {
    /// An empty record of `step`.
    pub fn new(step: u64) -> Self {
        Record { step, ..Record::default() }
    }

    /// Sets a reproducible value; a second put of the same name replaces the first.
    pub fn put(&mut self, key: impl Into<Key>, value: f64) {
        set(&mut self.values, key.into(), value);
    }

    /// Sets a value that depends on the machine or the moment: a time, a rate, a byte count.
    pub fn machine(&mut self, key: impl Into<Key>, value: f64) {
        set(&mut self.machine, key.into(), value);
    }

    /// Sets a reproducible array, e.g. one number per block.
    pub fn series(&mut self, key: impl Into<Key>, values: &[f64]) {
        set(&mut self.series, key.into(), values.to_vec());
    }

    /// The value of that name, reproducible or of the machine.
    pub fn get(&self, key: &str) -> Option<f64> {
        self.values.iter().chain(&self.machine).find(|e| e.0 == key).map(|e| e.1)
    }

    /// The reproducible values in order.
    pub fn values(&self) -> &[(Key, f64)] {
        &self.values
    }

    /// The arrays in order.
    pub fn all_series(&self) -> &[(Key, Vec<f64>)] {
        &self.series
    }

    /// The machine-dependent values in order.
    pub fn machine_values(&self) -> &[(Key, f64)] {
        &self.machine
    }

    /// True when nothing was put; observers are not told about such steps.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.series.is_empty() && self.machine.is_empty()
    }
}

fn set<V>(into: &mut Vec<(Key, V)>, key: Key, value: V) {
    match into.iter_mut().find(|e| e.0 == key) {
        Some(e) => e.1 = value,
        None => into.push((key, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_the_order_in_which_they_were_first_put() {
        let mut r = Record::new(0);
        r.put("b", 1.0);
        r.put("a", 2.0);
        r.put("b", 3.0);
        let names: Vec<_> = r.values().iter().map(|e| (e.0.as_ref(), e.1)).collect();
        assert_eq!(names, [("b", 3.0), ("a", 2.0)]);
    }

    #[test]
    fn a_record_without_values_is_empty_and_a_machine_value_fills_it() {
        let mut r = Record::new(9);
        assert!(r.is_empty());
        r.machine("wall_s", 1.0);
        assert!(!r.is_empty());
        assert!(r.values().is_empty());
    }
}
