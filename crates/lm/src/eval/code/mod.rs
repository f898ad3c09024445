//! Programs as answers: HumanEval's problems, the code in a completion, and the program that tests it.
//!
//! Nothing is executed here; whoever runs [`Problem::program`] runs text that a model wrote and needs a sandbox.
//!
//! # Reference
//! Chen et al., "Evaluating Large Language Models Trained on Code", arXiv 2107.03374.

mod extract;
#[cfg(test)]
mod tests;

pub use extract::{answer, continuation};

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{MeasureError, json_lines, read};

/// Texts at which a continuation of a function ends (Chen et al., section 2.1).
pub const STOPS: [&str; 5] = ["\nclass", "\ndef", "\n#", "\nif", "\nprint"];

/// A function to write, and its test. Keys of a line beyond these are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Name, such as `HumanEval/0`.
    pub task_id: String,
    /// Imports, helpers, and the function up to the end of its docstring.
    pub prompt: String,
    /// Name of the function.
    pub entry_point: String,
    /// A body that passes.
    pub canonical_solution: String,
    /// Source that defines `check(candidate)`.
    pub test: String,
}

/// Reads problems from lines of JSON, passing over blank ones; `file` is what errors call it.
///
/// # Errors
/// [`MeasureError::Row`] for what is no JSON object, a field that is missing or blank, a function whose name is none, a
/// name that occurs twice; [`MeasureError::Empty`] without a problem.
pub fn problems(text: &str, file: &str) -> Result<Vec<Problem>, MeasureError> {
    let mut seen = BTreeSet::new();
    read(json_lines(text, file)?, file, |row| {
        let problem = Problem::from_row(row)?;
        if seen.insert(problem.task_id.clone()) {
            Ok(problem)
        } else {
            Err(format!("task_id {:?} occurs a second time", problem.task_id))
        }
    })
}

/// A completion from elsewhere, in the form of the published evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Name of the problem.
    pub task_id: String,
    /// What follows its prompt, as it is.
    pub completion: String,
}

/// Reads completions from lines of JSON, and finds the problem of each: its place in `problems`.
///
/// # Errors
/// [`MeasureError::Row`] for what is no such line and a problem that is not there; [`MeasureError::Empty`] without a
/// line.
pub fn samples(text: &str, file: &str, problems: &[Problem]) -> Result<Vec<(usize, Sample)>, MeasureError> {
    read(json_lines(text, file)?, file, |row| {
        let sample: Sample = serde_json::from_value(row).map_err(|e| e.to_string())?;
        match problems.iter().position(|p| p.task_id == sample.task_id) {
            Some(i) => Ok((i, sample)),
            None => Err(format!("task_id {:?} is none of the problems", sample.task_id)),
        }
    })
}

impl Problem {
    fn from_row(row: Value) -> Result<Self, String> {
        let problem: Problem = serde_json::from_value(row).map_err(|e| e.to_string())?;
        let p = &problem;
        let fields = [("task_id", &p.task_id), ("prompt", &p.prompt), ("test", &p.test)];
        if let Some((field, _)) = fields.iter().find(|(_, v)| v.trim().is_empty()) {
            return Err(format!("{field} is blank"));
        }
        if !is_name(&p.entry_point) {
            return Err(format!("entry_point {:?} is no name of a function", p.entry_point));
        }
        Ok(problem)
    }

    /// What a chat model is asked.
    pub fn request(&self) -> String {
        format!(
            "Complete this Python function. Answer with the whole function in one code block.\n\n\
             ```python\n{}\n```",
            self.prompt.trim_end()
        )
    }

    /// The program whose end is reached when `completion` is right: prompt, completion, test, and its call, joined as
    /// in the published evaluation.
    pub fn program(&self, completion: &str) -> String {
        format!("{}{completion}\n{}\ncheck({})", self.prompt, self.test, self.entry_point)
    }
}

fn is_name(text: &str) -> bool {
    let first = text.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_');
    first && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The test came to its end.
    Passed,
    /// The text is no Python.
    Syntax,
    /// An assertion failed: in nearly all cases one of the test.
    Assertion,
    /// Another exception.
    Exception,
    /// More memory than allowed.
    Memory,
    /// More time than allowed.
    Timeout,
    /// The program ended itself before its test did.
    Exit,
    /// A signal ended it.
    Crash,
}

impl Verdict {
    /// All of them, the pass first.
    pub const ALL: [Verdict; 8] = [
        Verdict::Passed,
        Verdict::Syntax,
        Verdict::Assertion,
        Verdict::Exception,
        Verdict::Memory,
        Verdict::Timeout,
        Verdict::Exit,
        Verdict::Crash,
    ];

    /// Its name, the one it has in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Passed => "passed",
            Verdict::Syntax => "syntax",
            Verdict::Assertion => "assertion",
            Verdict::Exception => "exception",
            Verdict::Memory => "memory",
            Verdict::Timeout => "timeout",
            Verdict::Exit => "exit",
            Verdict::Crash => "crash",
        }
    }
}
