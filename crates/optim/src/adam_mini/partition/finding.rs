//! What cutting by names gets wrong.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::OptimError;

/// A way in which cutting by names goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pitfall {
    /// A vector among the matrices, e.g. `output.LayerNorm.weight`: an index error in the official package.
    VectorAmongMatrices,
    /// A tensor of three or more axes cut by rows, e.g. `patch_embed.proj.weight`: a view error there.
    TooManyAxes,
    /// A word that is only a part of another one, e.g. `wo` in `network`, or that means something else.
    WordInWord,
    /// A matrix that loses its weight decay to a part of a word, e.g. `ln` in `xlnet`.
    LostDecay,
    /// Queries, keys and values in one tensor, treated as if they were one kind.
    Fused,
    /// Blocks of `dim * dim / heads` elements where a head has another size.
    HeadSize,
    /// A flat piece of a matrix, whose rows and heads cannot be seen any more.
    FlatShard,
    /// A matrix that no word matches: one number for all of it.
    Unmatched,
    /// A low-rank factor cut as if it were the full matrix.
    LowRank,
}

/// A tensor that a preset cuts wrongly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of mistake.
    pub pitfall: Pitfall,
    /// The tensor.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What is wrong and what to do.
    pub what: String,
    /// Whether the official package fails here too; otherwise it goes on.
    pub fatal: bool,
}

impl From<Finding> for OptimError {
    fn from(f: Finding) -> Self {
        OptimError::Partition { name: f.name, shape: f.shape, what: f.what }
    }
}
