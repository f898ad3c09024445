//! How a flat parameter vector is cut into named tensors.

use std::ops::Range;

use rhumb_linalg::Real;
use serde::{Deserialize, Serialize};

/// What a tensor does in its model; optimizers choose blocks by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Token embedding, one row per token.
    Embed,
    /// Output head, one row per token.
    Head,
    /// Learned position table, one row per position.
    Position,
    /// Query projection; `head_dim` rows per head.
    Query {
        /// Rows of one head.
        head_dim: usize,
    },
    /// Key projection; `head_dim` rows per key-value head.
    Key {
        /// Rows of one head.
        head_dim: usize,
    },
    /// Value projection; `head_dim` rows per key-value head.
    Value {
        /// Rows of one head.
        head_dim: usize,
    },
    /// Query, key and value stacked in one tensor, in that order.
    Qkv {
        /// Rows of one head.
        head_dim: usize,
        /// Query heads.
        heads: usize,
        /// Key-value heads.
        kv_heads: usize,
    },
    /// Query, key and value in one tensor, group after group: `queries` query heads, then one key head, then one
    /// value head.
    QkvGrouped {
        /// Rows of one head.
        head_dim: usize,
        /// Groups, which is the number of key-value heads.
        groups: usize,
        /// Query heads of one group.
        queries: usize,
    },
    /// Attention output projection.
    AttnOut,
    /// Feed-forward weight, one row per output neuron.
    Mlp,
    /// Feed-forward weights of all experts of a mixture: (experts, out, in).
    Experts,
    /// Kernel of a convolution: (out, in, ...).
    Conv,
    /// Scale (or shift) of a normalisation.
    Norm,
    /// Bias vector.
    Bias,
    /// Low-rank adapter, the factor that meets the input: (rank, in).
    LoraA,
    /// Low-rank adapter, the factor that meets the output: (out, rank).
    LoraB,
    /// Anything else.
    Other,
}

/// One named tensor of the flat vector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Full name, as the model's checkpoint spells it.
    pub name: String,
    /// Shape, row-major; the product equals `range.len()`.
    pub shape: Vec<usize>,
    /// Position in the flat vector.
    pub range: Range<usize>,
    /// What the tensor does.
    pub role: Role,
}

/// The ordered list of tensors; contiguous, without gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    blocks: Vec<Block>,
}

impl Layout {
    /// An empty layout.
    pub fn new() -> Self {
        Layout::default()
    }

    /// Appends a tensor and returns its position in the flat vector.
    pub fn push(&mut self, name: impl Into<String>, shape: &[usize], role: Role) -> Range<usize> {
        let start = self.len();
        let range = start..start + shape.iter().product::<usize>();
        self.blocks.push(Block { name: name.into(), shape: shape.to_vec(), range: range.clone(), role });
        range
    }

    /// Scalars in all tensors.
    pub fn len(&self) -> usize {
        self.blocks.last().map_or(0, |b| b.range.end)
    }

    /// True without any scalar.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tensors in order.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The tensor of that name.
    pub fn find(&self, name: &str) -> Option<&Block> {
        self.blocks.iter().find(|b| b.name == name)
    }

    /// The first tensor of a flat vector that holds a NaN or an infinity, for error messages.
    pub fn first_non_finite<T: Real>(&self, values: &[T]) -> Option<&Block> {
        let at = values.iter().position(|v| !v.is_finite())?;
        self.blocks.iter().find(|b| b.range.contains(&at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_follow_one_another_without_gaps() {
        let mut l = Layout::new();
        assert_eq!(l.push("a", &[2, 3], Role::Mlp), 0..6);
        assert_eq!(l.push("empty", &[0, 3], Role::Mlp), 6..6);
        assert_eq!(l.push("b", &[4], Role::Norm), 6..10);
        assert_eq!((l.len(), l.find("b").map(|b| b.range.clone())), (10, Some(6..10)));
        assert!(l.find("c").is_none());
    }

    #[test]
    fn a_value_that_is_not_finite_is_traced_to_its_tensor() {
        let mut l = Layout::new();
        l.push("a", &[2], Role::Mlp);
        l.push("b", &[2], Role::Mlp);
        assert_eq!(l.first_non_finite(&[0.0, 1.0, 2.0, f64::NAN]).map(|b| b.name.as_str()), Some("b"));
        assert_eq!(l.first_non_finite(&[0.0_f32; 4]), None);
    }
}
