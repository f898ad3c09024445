//! Evaluation measures: pass@k and votes, numeric answers, diversity of samples, degenerate repetition, checkable
//! instructions, programs as answers, and generated tasks with verifiers.
//!
//! Everything here is a pure function of texts, tokens or vectors: no file is read, nothing is printed, and what is
//! random has a seed. Definitions and traps are listed on the page *Evaluation* of the documentation.
//!
//! ```
//! use rhumb_lm::eval::{sampling, task::{Style, Task}};
//! use rhumb_linalg::rng::Rng;
//!
//! # fn main() -> Result<(), rhumb_lm::eval::MeasureError> {
//! let questions = Task::parse("split")?.questions(1, 20, 5)?;
//! let question = &questions.held_out[0];
//! let answer = question.demonstrate(Style::First, &mut Rng::new(1));
//! assert!(question.verify(&answer) && !question.verify("1"));
//! assert!((sampling::pass_at_k(10, 3, 1)? - 0.3).abs() < 1e-12);
//! # Ok(())
//! # }
//! ```

pub mod code;
mod error;
pub mod gsm8k;
pub mod instruct;
pub mod likelihood;
pub mod number;
pub mod repeat;
mod rows;
pub mod sampling;
pub mod task;
pub mod text;

pub use error::MeasureError;
pub use rows::{json_lines, read};
