use crate::data::is_parquet;

/// Why a measure cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// Counts that belong to no estimate.
    #[error(
        "pass@{k} of {correct} right ones among {samples} samples has no unbiased estimate: 1 <= k <= samples and \
         correct <= samples are needed; draw more samples or lower k"
    )]
    PassAtK {
        /// Samples drawn.
        samples: usize,
        /// Right ones.
        correct: usize,
        /// Samples that are allowed.
        k: usize,
    },
    /// Too few samples.
    #[error("{measure} needs at least {needed} samples and there are {given}")]
    Samples {
        /// What was measured.
        measure: &'static str,
        /// Least number.
        needed: usize,
        /// Number given.
        given: usize,
    },
    /// A score that orders nothing.
    #[error("the score of sample {sample} is not a number, so that no sample is the best one")]
    Score {
        /// Sample, counted from zero.
        sample: usize,
    },
    /// A vector without direction, or of another length.
    #[error("vector {vector} {reason}; embeddings of one encoder have one length and are not zero")]
    Vector {
        /// Vector, counted from zero.
        vector: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A task of no known name.
    #[error("no task is called {name:?}; there are: {known}")]
    Task {
        /// Name given.
        name: String,
        /// Names, separated by commas.
        known: String,
    },
    /// More different questions than a task has.
    #[error(
        "the task {task} gave {found} different questions in {draws} draws and {wanted} were wanted: ask for fewer"
    )]
    Questions {
        /// Task.
        task: &'static str,
        /// Different ones.
        found: usize,
        /// Wanted.
        wanted: usize,
        /// Draws made.
        draws: usize,
    },
    /// A line that holds no prompt with instructions.
    #[error(
        "{reason}; a line is one JSON object {{\"key\": .., \"prompt\": .., \"instruction_id_list\": [..], \
         \"kwargs\": [{{..}}, ..]}}"
    )]
    Instruction {
        /// What is wrong with it.
        reason: String,
    },
    /// A row of a file that is not what the measure asks for.
    #[error("{file}, {unit} {line}: {reason}", unit = unit(.file))]
    Row {
        /// File.
        file: String,
        /// Line or row, counted from one.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A file without a row.
    #[error("{file} is empty: it has no {} to evaluate on", unit(.file))]
    Empty {
        /// File.
        file: String,
    },
}

/// What a file of this name counts.
fn unit(file: &str) -> &'static str {
    if is_parquet(file) { "row" } else { "line" }
}
