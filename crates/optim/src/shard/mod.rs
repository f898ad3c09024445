//! Optimizer state spread over ranks.
//!
//! A [`ShardPlan`] says which part of every tensor a rank holds: whole rows, columns, or a piece of the flat vector
//! cut anywhere, even inside a row or a head. [`ShardedAdamMini`] holds the state of one rank. Blocks that lie on one
//! rank are computed there; of a block that several ranks share, each sums its squares, and one call of [`Reduce`]
//! adds them up for the whole model. Everything else is local, so that the wire carries two numbers of `f64` size per
//! shared block or tensor at most, and nothing where shards end at rows and heads.
//!
//! | sharding | blocks shared |
//! |---|---|
//! | replicated | none: gradients are equal on all ranks |
//! | rows (FSDP2, column-parallel layers) | heads across a boundary, norms |
//! | columns (row-parallel layers) | every row and head |
//! | flat (FSDP1, ZeRO) | the one at each boundary |
//!
//! [`plan()`] estimates memory and traffic per rank.

mod adam_mini;
mod checkpoint;
mod clip;
mod memory;
mod pieces;
mod reduce;

pub use self::adam_mini::ShardedAdamMini;
pub use self::clip::{clip_global_norm, global_norm};
pub use self::memory::{MemoryPlan, Offload, RankMemory, Stage, Wire, plan};
pub use self::pieces::{Piece, ShardKind, ShardPlan};
pub use self::reduce::{Alone, InProcess, Reduce, ReduceError};
use crate::OptimError;

/// Why a sharded optimizer stopped.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ShardError {
    /// A plan that cannot be.
    #[error("{what}")]
    Plan {
        /// What is wrong and what to try.
        what: String,
    },
    /// A slice of another length than the rank's part.
    #[error("rank {rank}: {what} has {have} numbers, its shard has {want}: pass this rank's part only")]
    Length {
        /// The rank.
        rank: usize,
        /// Which slice.
        what: &'static str,
        /// Its length.
        have: usize,
        /// What it should be.
        want: usize,
    },
    /// The ranks did not come together.
    #[error(transparent)]
    Reduce(#[from] ReduceError),
    /// A tensor or a setting that the optimizer refuses.
    #[error(transparent)]
    Optim(#[from] OptimError),
}
