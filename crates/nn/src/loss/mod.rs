//! Losses: the ends of a graph, value and adjoints in one pass.

mod head;
mod mse;
pub mod row;

pub use head::{LmHead, LogitLoss, TokenScore, score_rows};
pub use mse::Mse;
pub use row::{LossError, LossKind, RowState, RowStats};
