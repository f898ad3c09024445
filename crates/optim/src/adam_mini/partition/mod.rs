//! Which parameters share one second moment.

mod audit;
mod finding;
mod names;
mod roles;
mod table;
mod units;
mod words;

use rhumb_core::{Block, Layout, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::finding::{Finding, Pitfall};
pub use self::names::{Keywords, NameOptions, WordSet};
pub use self::table::{ParamRow, param_table, param_table_of, param_table_with};
pub use self::units::{Unit, UnitRule};
use crate::OptimError;

/// A named way of cutting a model into blocks.
///
/// | preset | embedding, output | query, key | value, projection, feed-forward | norm | bias | fused qkv |
/// |---|---|---|---|---|---|---|
/// | `v0` | element | head | tensor | tensor | tensor | head and slot |
/// | `1.0.4` | element | head | tensor | tensor | tensor | tensor |
/// | `1.1.0` | row | head | row | tensor | as its layer: a failure | tensor |
/// | `1.1.1` | row | head | row | tensor | element | tensor |
/// | `rhumb` | row | head | row | tensor | element | heads of q and k, rows of v |
///
/// The numbered ones know a tensor by words in its name; `rhumb` goes by its [`Role`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Preset {
    /// By what a tensor does ([`Role`]): heads of queries and keys, rows elsewhere, whole norms.
    ///
    /// The default, because names guess what a layout knows: a head need not have `dim / heads` rows, and
    /// `wo` is also a part of `word`. On Llama it cuts every tensor as `1.1.1` does.
    #[default]
    #[serde(rename = "rhumb")]
    Rhumb,
    /// By names, as the first published file of June 2024.
    #[serde(rename = "v0")]
    V0,
    /// By names, as the official package 1.0.4.
    #[serde(rename = "1.0.4")]
    V1_0_4,
    /// By names, as the official package 1.1.0.
    #[serde(rename = "1.1.0")]
    V1_1_0,
    /// By names in lower case, as the official package 1.1.1.
    #[serde(rename = "1.1.1")]
    V1_1_1,
}

/// The hyper-parameters with which a version starts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PresetDefaults {
    /// Learning rate.
    pub lr: f64,
    /// Decay rate of the first moment.
    pub beta1: f64,
    /// Decay rate of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

impl Preset {
    /// Every preset.
    pub const ALL: [Preset; 5] = [Preset::V0, Preset::V1_0_4, Preset::V1_1_0, Preset::V1_1_1, Preset::Rhumb];

    /// As written in a configuration.
    pub fn tag(self) -> &'static str {
        match self {
            Preset::Rhumb => "rhumb",
            Preset::V0 => "v0",
            Preset::V1_0_4 => "1.0.4",
            Preset::V1_1_0 => "1.1.0",
            Preset::V1_1_1 => "1.1.1",
        }
    }

    /// The version's own defaults. A configuration starts from those of 1.1.1, whatever its preset.
    pub fn defaults(self) -> PresetDefaults {
        let (lr, weight_decay) = if self == Preset::V0 { (1.0, 0.1) } else { (1e-3, 0.0) };
        PresetDefaults { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay }
    }

    /// Whether weight decay acts on a tensor: not on norms, nor on biases in `1.1.1` and `rhumb`, but on
    /// embeddings.
    pub fn decays(self, block: &Block) -> bool {
        match names::version(self) {
            None => !matches!(block.role, Role::Norm | Role::Bias),
            Some(v) => v.decays(block),
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
    /// Cuts a layout by a preset, with the words and the leniency of the official package.
    ///
    /// # Errors
    /// As [`Partition::with`].
    pub fn preset(preset: Preset, layout: &Layout) -> Result<Self, OptimError> {
        Self::with(preset, &NameOptions::default(), layout)
    }

    /// Cuts a layout by a preset with options of one's own.
    ///
    /// # Errors
    /// [`OptimError::Partition`] for the first tensor whose shape does not allow its class, and in strict mode
    /// for the first [`Finding`]; [`OptimError::Setting`] for words or sizes that the preset does not have.
    pub fn with(preset: Preset, options: &NameOptions, layout: &Layout) -> Result<Self, OptimError> {
        let cuts = audit::cut(preset, options, layout)?;
        let mut tensors = Vec::with_capacity(cuts.len());
        for ((cut, findings), b) in cuts.into_iter().zip(layout.blocks()) {
            if let Some(f) = findings.into_iter().find(|f| f.fatal || options.strict) {
                return Err(f.into());
            }
            tensors.push(TensorPlan { cuts: cut, decay: preset.decays(b) });
        }
        let own = if options.keywords == Keywords::default() { "" } else { " with own words" };
        Ok(Partition { tag: format!("{}{own}", preset.tag()), tensors })
    }

    /// What a strict run would refuse, tensor by tensor; a warning to print where the run is lenient.
    ///
    /// # Errors
    /// [`OptimError::Setting`] for words or sizes that the preset does not have.
    pub fn audit(preset: Preset, options: &NameOptions, layout: &Layout) -> Result<Vec<Finding>, OptimError> {
        Ok(audit::cut(preset, options, layout)?.into_iter().flat_map(|(_, f)| f).collect())
    }

    /// How many tensors each word set of a preset decides over, in the order in which they are asked; nothing for
    /// `rhumb`. A Transformer of which no query, key or embedding is found trains with one second moment per tensor,
    /// which is unstable in large models.
    ///
    /// # Errors
    /// [`OptimError::Setting`] for words or sizes that the preset does not have.
    pub fn class_counts(
        preset: Preset,
        options: &NameOptions,
        layout: &Layout,
    ) -> Result<Vec<(WordSet, usize)>, OptimError> {
        audit::class_counts(preset, options, layout)
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

fn whole(b: &Block) -> Vec<Cut> {
    let n = b.range.len();
    if n == 0 { Vec::new() } else { vec![Cut { elements: n, block: n }] }
}

fn equal(b: &Block, block: usize) -> Vec<Cut> {
    let elements = b.range.len();
    if elements == 0 { Vec::new() } else { vec![Cut { elements, block }] }
}

fn refuse(b: &Block, what: String) -> OptimError {
    OptimError::Partition { name: b.name.clone(), shape: b.shape.clone(), what }
}
