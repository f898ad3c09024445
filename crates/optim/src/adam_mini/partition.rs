//! Which parameters share one second moment.

use rhumb_core::{Block, Layout, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::OptimError;

/// A named way of cutting a model into blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Preset {
    /// By what a tensor does ([`Role`]): heads of queries and keys, rows elsewhere, whole norms.
    #[default]
    #[serde(rename = "rhumb")]
    Rhumb,
    /// By substrings of the lower-cased name, as the official package 1.1.1.
    #[serde(rename = "1.1.1")]
    V1_1_1,
}

impl Preset {
    /// As written in a configuration.
    pub fn tag(self) -> &'static str {
        match self {
            Preset::Rhumb => "rhumb",
            Preset::V1_1_1 => "1.1.1",
        }
    }

    /// Whether weight decay acts on a tensor: not on norms and biases, but on embeddings.
    pub fn decays(self, block: &Block) -> bool {
        match self {
            Preset::Rhumb => !matches!(block.role, Role::Norm | Role::Bias),
            Preset::V1_1_1 => !V1_1_1.no_decay.iter().any(|w| block.name.to_lowercase().contains(w)),
        }
    }
}

/// A run of equal blocks inside a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// Scalars in the run.
    pub elements: usize,
    /// Scalars in one block; divides `elements`.
    pub block: usize,
}

/// The blocks of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPlan {
    /// In storage order; together they cover the tensor.
    pub cuts: Vec<Cut>,
    /// Whether weight decay acts on it.
    pub decay: bool,
}

impl TensorPlan {
    /// Second moments of the tensor.
    pub fn blocks(&self) -> usize {
        self.cuts.iter().map(|c| c.elements / c.block.max(1)).sum()
    }
}

/// The blocks of every tensor of a layout, in the order of the layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    tag: String,
    tensors: Vec<TensorPlan>,
}

impl Partition {
    /// Cuts a layout by a preset.
    ///
    /// # Errors
    /// [`OptimError::Partition`] for a tensor whose shape does not allow its class.
    pub fn preset(preset: Preset, layout: &Layout) -> Result<Self, OptimError> {
        let tensors = layout
            .blocks()
            .iter()
            .map(|b| {
                let cuts = match preset {
                    Preset::Rhumb => by_role(b),
                    Preset::V1_1_1 => by_name(&V1_1_1, b),
                }?;
                Ok(TensorPlan { cuts, decay: preset.decays(b) })
            })
            .collect::<Result<_, _>>()?;
        Ok(Partition { tag: preset.tag().to_owned(), tensors })
    }

    /// Every scalar a block of its own: AdamW.
    pub fn per_element(layout: &Layout, preset: Preset) -> Self {
        let tensors = layout
            .blocks()
            .iter()
            .map(|b| TensorPlan {
                cuts: vec![Cut { elements: b.range.len(), block: 1 }],
                decay: preset.decays(b),
            })
            .collect();
        Partition { tag: "per-element".to_owned(), tensors }
    }

    /// A partition of one's own, e.g. from measured curvature.
    ///
    /// # Errors
    /// [`OptimError::Partition`] when a plan does not cover its tensor.
    pub fn custom(
        tag: impl Into<String>,
        layout: &Layout,
        tensors: Vec<TensorPlan>,
    ) -> Result<Self, OptimError> {
        for (i, b) in layout.blocks().iter().enumerate() {
            let plan =
                tensors.get(i).ok_or_else(|| refuse(b, "the partition has no plan for it".to_owned()))?;
            let whole = plan.cuts.iter().all(|c| c.block > 0 && c.elements % c.block == 0);
            if !whole || plan.cuts.iter().map(|c| c.elements).sum::<usize>() != b.range.len() {
                return Err(refuse(b, "its cuts do not cover it in whole blocks".to_owned()));
            }
        }
        Ok(Partition { tag: tag.into(), tensors })
    }

    /// The same blocks with weight decay on every tensor, as PyTorch's AdamW does by default.
    pub fn decay_everywhere(mut self) -> Self {
        self.tensors.iter_mut().for_each(|t| t.decay = true);
        self
    }

    pub(crate) fn copy_decay(&mut self, from: &Partition) {
        for (to, from) in self.tensors.iter_mut().zip(&from.tensors) {
            to.decay = from.decay;
        }
    }

    /// Its name; state of one partition does not load into another.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The plans, in the order of the layout.
    pub fn tensors(&self) -> &[TensorPlan] {
        &self.tensors
    }

    /// Second moments of the whole model.
    pub fn blocks(&self) -> usize {
        self.tensors.iter().map(TensorPlan::blocks).sum()
    }
}

/// How a matching tensor is cut.
#[derive(Clone, Copy)]
enum How {
    PerElement,
    Heads,
    Rows,
    Whole,
}

/// One version of the official package: the first row with a matching word wins.
struct NameTable {
    rows: &'static [(&'static [&'static str], How)],
    otherwise: How,
    no_decay: &'static [&'static str],
}

const V1_1_1: NameTable = NameTable {
    rows: &[
        (&["bias"], How::PerElement),
        (&["k_proj", "q_proj", "wq", "wk", "query", "key"], How::Heads),
        (&["embed", "embd", "wte"], How::Rows),
        (&["lm_head", "output", "final_layer"], How::Rows),
        (&["v_proj", "wv", "value"], How::Rows),
        (&["feed_forward", "linear", "mlp"], How::Rows),
        (&["o_proj", "wo", "attn.proj"], How::Rows),
    ],
    otherwise: How::Whole,
    no_decay: &["norm", "ln", "bias"],
};

fn by_name(table: &NameTable, b: &Block) -> Result<Vec<Cut>, OptimError> {
    let name = b.name.to_lowercase();
    let how = table
        .rows
        .iter()
        .find(|(words, _)| words.iter().any(|w| name.contains(w)))
        .map_or(table.otherwise, |r| r.1);
    match how {
        How::PerElement => Ok(vec![Cut { elements: b.range.len(), block: 1 }]),
        How::Whole => Ok(whole(b)),
        How::Rows if b.shape.len() == 2 => rows(b, 1),
        How::Rows => {
            Err(refuse(b, "its name puts it among the matrices cut by rows: use the preset rhumb".to_owned()))
        }
        How::Heads => match b.role {
            Role::Query { head_dim } | Role::Key { head_dim } | Role::Qkv { head_dim, .. } => {
                rows(b, head_dim)
            }
            _ => Err(refuse(
                b,
                "its name puts it among queries and keys, but the model says nothing about its heads: use the \
                 preset rhumb, or give the tensor a query or key role"
                    .to_owned(),
            )),
        },
    }
}

fn by_role(b: &Block) -> Result<Vec<Cut>, OptimError> {
    match b.role {
        Role::Bias => Ok(vec![Cut { elements: b.range.len(), block: 1 }]),
        Role::Query { head_dim } | Role::Key { head_dim } => rows(b, head_dim),
        Role::Qkv { head_dim, heads, kv_heads } => {
            let want = (heads + 2 * kv_heads) * head_dim;
            if b.shape.first() != Some(&want) || head_dim == 0 {
                return Err(refuse(
                    b,
                    format!(
                        "{heads} query heads and 2 x {kv_heads} key and value heads of {head_dim} rows need {want} rows"
                    ),
                ));
            }
            let width = b.range.len() / want;
            let heads_part = Cut { elements: (heads + kv_heads) * head_dim * width, block: head_dim * width };
            let values = Cut { elements: kv_heads * head_dim * width, block: width };
            Ok([heads_part, values].into_iter().filter(|c| c.elements > 0).collect())
        }
        Role::Embed
        | Role::Head
        | Role::Position
        | Role::Value { .. }
        | Role::AttnOut
        | Role::Mlp
        | Role::LoraA
        | Role::LoraB
            if b.shape.len() >= 2 =>
        {
            rows(b, 1)
        }
        _ => Ok(whole(b)),
    }
}

fn whole(b: &Block) -> Vec<Cut> {
    let n = b.range.len();
    if n == 0 { Vec::new() } else { vec![Cut { elements: n, block: n }] }
}

fn rows(b: &Block, per_block: usize) -> Result<Vec<Cut>, OptimError> {
    let n = b.range.len();
    let rows = b.shape.first().copied().unwrap_or(0);
    if n == 0 {
        return Ok(Vec::new());
    }
    if per_block == 0 || rows % per_block != 0 {
        return Err(refuse(b, format!("its {rows} rows do not divide into heads of {per_block} rows")));
    }
    Ok(vec![Cut { elements: n, block: n / rows * per_block }])
}

fn refuse(b: &Block, what: String) -> OptimError {
    OptimError::Partition { name: b.name.clone(), shape: b.shape.clone(), what }
}

/// One line of the table that shows how a model is cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ParamRow {
    /// Tensor.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What a block is, in words.
    pub class: String,
    /// Second moments.
    pub blocks: usize,
    /// Bytes of optimizer state in `f32`: 4 (elements + blocks).
    pub bytes: usize,
    /// Whether weight decay acts on it.
    pub decay: bool,
}

/// How a preset cuts a layout, tensor by tensor. The bytes add up to 4 (P + blocks).
///
/// # Errors
/// As [`Partition::preset`].
pub fn param_table(layout: &Layout, preset: Preset) -> Result<Vec<ParamRow>, OptimError> {
    let partition = Partition::preset(preset, layout)?;
    Ok(layout
        .blocks()
        .iter()
        .zip(partition.tensors())
        .map(|(b, plan)| ParamRow {
            name: b.name.clone(),
            shape: b.shape.clone(),
            class: plan.cuts.iter().map(|c| class(b, *c)).collect::<Vec<_>>().join(", then "),
            blocks: plan.blocks(),
            bytes: 4 * (b.range.len() + plan.blocks()),
            decay: plan.decay,
        })
        .collect())
}

fn class(b: &Block, c: Cut) -> String {
    let width = b.range.len() / b.shape.first().copied().unwrap_or(1).max(1);
    if c.block == 1 {
        "per element".to_owned()
    } else if c.block == b.range.len() {
        "whole tensor".to_owned()
    } else if c.block == width {
        "per row".to_owned()
    } else {
        format!("per {} rows", c.block / width.max(1))
    }
}
