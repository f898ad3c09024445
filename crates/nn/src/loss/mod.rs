//! Losses: the ends of a graph, value and adjoints in one pass.

mod head;
mod logit;
mod mse;
pub mod row;
mod rows;
mod scan;
mod score;
mod table;

pub use head::LmHead;
pub use logit::LogitLoss;
pub use mse::Mse;
pub use row::{RowState, RowStats};
pub use rows::row_losses;
pub use score::{TokenScore, score_rows};
pub use table::{LOSSES, LossEntry, LossError, LossKind, Parameter};
