use serde::Serialize;

use super::{DataError, Example};

/// A run of tokens that are all trained or all not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// Their text.
    pub text: String,
    /// Whether they are targets.
    pub trained: bool,
    /// How many.
    pub tokens: usize,
}

/// The text of a document in runs of trained and other tokens.
///
/// Runs are decoded whole, since a character may be spread over several tokens. The first token of a document
/// is never a target.
///
/// # Errors
/// `decode` refuses a run.
pub fn preview(
    example: &Example,
    decode: impl Fn(&[u32]) -> Result<String, String>,
) -> Result<Vec<Piece>, DataError> {
    let trained = example.mask();
    let mut pieces = Vec::new();
    let mut from = 0;
    for run in trained.chunk_by(|a, b| a == b) {
        let to = from + run.len();
        let text = decode(&example.ids[from..to]).map_err(|reason| DataError::Decode {
            line: example.line,
            from,
            to,
            reason,
        })?;
        pieces.push(Piece { text, trained: run[0], tokens: run.len() });
        from = to;
    }
    Ok(pieces)
}
