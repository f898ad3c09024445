/// Why an optimizer or a schedule could not be built.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OptimError {
    /// A setting is out of its range.
    #[error("{key} = {value}: {want}")]
    Setting {
        /// The key.
        key: &'static str,
        /// The given value.
        value: String,
        /// What to write instead.
        want: &'static str,
    },
    /// A tensor does not fit the class that the partition gives it.
    #[error("tensor {name} of shape {shape:?}: {what}")]
    Partition {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// What is wrong and what to try.
        what: String,
    },
}
