//! Measures of texts: words, sentences, BLEU and diversity.

pub mod bleu;
pub mod diversity;
mod sentences;
#[cfg(test)]
mod tests;
mod words;

pub use sentences::sentences;
pub(crate) use words::is_word;
pub use words::{tokenize_13a, word_runs, words};
