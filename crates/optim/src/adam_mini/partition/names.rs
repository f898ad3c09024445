//! The words by which each version of the official package knows a tensor.

use rhumb_core::Block;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Preset;
use crate::OptimError;

/// A public word set of the official package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WordSet {
    /// `adam_block_names`.
    Adam,
    /// `embd_names`.
    Embed,
    /// `output_names`.
    Output,
    /// `wqk_names`.
    QueryKey,
    /// `wv_names`.
    Value,
    /// `attn_proj_names`.
    AttnOut,
    /// `mlp_names`.
    Mlp,
    /// Fused attention, which only `v0` knows.
    FusedQkv,
}

impl WordSet {
    fn key(self) -> &'static str {
        match self {
            WordSet::Adam => "keywords.adam",
            WordSet::Embed => "keywords.embed",
            WordSet::Output => "keywords.output",
            WordSet::QueryKey => "keywords.query_key",
            WordSet::Value => "keywords.value",
            WordSet::AttnOut => "keywords.attn_out",
            WordSet::Mlp => "keywords.mlp",
            WordSet::FusedQkv => "keywords.fused_qkv",
        }
    }
}

/// Word sets that replace those of a version; what is left out stays.
///
/// The authors' advice for short runs, one number for each value matrix, is `value = []`.
///
/// ```
/// use rhumb_optim::adam_mini::{Keywords, WordSet};
/// use rhumb_optim::Preset;
/// let mut words = Keywords::default();
/// words.add(Preset::V1_1_1, WordSet::Mlp, "c_attn");
/// assert_eq!(words.mlp.as_deref(), Some(&["feed_forward", "linear", "mlp", "c_attn"].map(String::from)[..]));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keywords {
    /// One second moment per element (1.1.0 and later).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adam: Option<Vec<String>>,
    /// Embeddings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embed: Option<Vec<String>>,
    /// Output heads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Vec<String>>,
    /// Queries and keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_key: Option<Vec<String>>,
    /// Values (1.1.0 and later).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Vec<String>>,
    /// Attention projections (1.1.0 and later).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attn_out: Option<Vec<String>>,
    /// Feed-forward matrices (1.0.4 and later; empty in 1.0.4).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mlp: Option<Vec<String>>,
    /// Fused attention (v0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fused_qkv: Option<Vec<String>>,
}

impl Keywords {
    /// The words of one set, if they are replaced.
    pub fn get(&self, set: WordSet) -> Option<&[String]> {
        match set {
            WordSet::Adam => &self.adam,
            WordSet::Embed => &self.embed,
            WordSet::Output => &self.output,
            WordSet::QueryKey => &self.query_key,
            WordSet::Value => &self.value,
            WordSet::AttnOut => &self.attn_out,
            WordSet::Mlp => &self.mlp,
            WordSet::FusedQkv => &self.fused_qkv,
        }
        .as_deref()
    }

    /// Replaces one set.
    pub fn set(&mut self, set: WordSet, words: Vec<String>) {
        let to = match set {
            WordSet::Adam => &mut self.adam,
            WordSet::Embed => &mut self.embed,
            WordSet::Output => &mut self.output,
            WordSet::QueryKey => &mut self.query_key,
            WordSet::Value => &mut self.value,
            WordSet::AttnOut => &mut self.attn_out,
            WordSet::Mlp => &mut self.mlp,
            WordSet::FusedQkv => &mut self.fused_qkv,
        };
        *to = Some(words);
    }

    /// Adds a word to what a version has, as `optimizer.mlp_names.add(...)` does there.
    pub fn add(&mut self, preset: Preset, set: WordSet, word: impl Into<String>) {
        let mut words = match self.get(set) {
            Some(own) => own.to_vec(),
            None => preset.words(set).iter().map(|w| (*w).to_owned()).collect(),
        };
        words.push(word.into());
        self.set(set, words);
    }
}

/// How the presets by name are to be read. The preset `rhumb` heeds `strict` alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NameOptions {
    /// Refuse what the official package accepts and gets wrong; see [`super::Pitfall`].
    pub strict: bool,
    /// `dim` of the official package; without it, the width of the layout's embedding or query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dim: Option<usize>,
    /// `n_heads` of the official package; without it, that of the layout's first query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<usize>,
    /// `n_kv_heads` of the official package; without it, that of the layout's first key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_heads: Option<usize>,
    /// Words that replace those of the version.
    pub keywords: Keywords,
}

impl NameOptions {
    /// Refuses what the chosen preset would ignore.
    ///
    /// # Errors
    /// [`OptimError::Setting`] naming the key.
    pub fn check(&self, preset: Preset) -> Result<(), OptimError> {
        let has = |set| version(preset).is_some_and(|v| v.rows.iter().any(|r| r.set == set));
        for set in [
            WordSet::Adam,
            WordSet::Embed,
            WordSet::Output,
            WordSet::QueryKey,
            WordSet::Value,
            WordSet::AttnOut,
            WordSet::Mlp,
            WordSet::FusedQkv,
        ] {
            if let (Some(words), false) = (self.keywords.get(set), has(set)) {
                return Err(OptimError::Setting {
                    key: set.key(),
                    value: format!("{words:?} with preset {}", preset.tag()),
                    want: "this preset has no such words; remove them or choose another preset, e.g. 1.1.1",
                });
            }
            // Every name contains the empty word.
            if self.keywords.get(set).is_some_and(|w| w.iter().any(String::is_empty)) {
                return Err(OptimError::Setting {
                    key: set.key(),
                    value: "\"\"".to_owned(),
                    want: "words of at least one letter; an empty list switches the class off",
                });
            }
        }
        for (key, given) in [("dim", self.dim), ("heads", self.heads), ("kv_heads", self.kv_heads)] {
            let Some(n) = given else { continue };
            if n == 0 || preset == Preset::Rhumb {
                return Err(OptimError::Setting {
                    key,
                    value: format!("{n} with preset {}", preset.tag()),
                    want: "a number >= 1, and only for the presets by name; rhumb takes it from the model",
                });
            }
        }
        Ok(())
    }
}

/// How a matching tensor is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    PerElement,
    Heads,
    Rows,
    /// One block per head and per query, key or value slot.
    Slots,
    Whole,
}

pub(super) struct Row {
    pub(super) set: WordSet,
    words: &'static [&'static str],
    pub(super) how: How,
}

const fn row(set: WordSet, words: &'static [&'static str], how: How) -> Row {
    Row { set, words, how }
}

/// One version of the official package: the first row with a matching word wins.
pub(super) struct Version {
    pub(super) rows: &'static [Row],
    no_decay: &'static [&'static str],
    lower_case: bool,
}

impl Version {
    fn spelling(&self, b: &Block) -> String {
        if self.lower_case { b.name.to_lowercase() } else { b.name.clone() }
    }

    /// The row and the word that decide over a tensor.
    pub(super) fn find(&self, b: &Block, own: &Keywords) -> Option<(&Row, String)> {
        let name = self.spelling(b);
        self.rows.iter().find_map(|r| {
            let word = match own.get(r.set) {
                Some(words) => words.iter().find(|w| name.contains(w.as_str())).cloned(),
                None => r.words.iter().find(|w| name.contains(**w)).map(|w| (*w).to_owned()),
            };
            word.map(|w| (r, w))
        })
    }

    /// The word that spares a tensor the decay.
    pub(super) fn no_decay(&self, b: &Block) -> Option<&'static str> {
        let name = self.spelling(b);
        self.no_decay.iter().find(|w| name.contains(**w)).copied()
    }

    pub(super) fn decays(&self, b: &Block) -> bool {
        self.no_decay(b).is_none()
    }
}

const V0: Version = Version {
    rows: &[
        row(WordSet::Embed, &["embed_tokens", "wte"], How::PerElement),
        row(WordSet::Output, &["lm_head"], How::PerElement),
        row(
            WordSet::QueryKey,
            &["self_attn.k_proj.weight", "self_attn.q_proj.weight", "attn.wq.weight", "attn.wk.weight"],
            How::Heads,
        ),
        row(WordSet::FusedQkv, &["attn.attn.weight", "attn.qkv.weight"], How::Slots),
    ],
    no_decay: &["norm", "ln_f"],
    lower_case: false,
};

const V1_0_4: Version = Version {
    rows: &[
        row(WordSet::Embed, &["embed", "embd", "wte"], How::PerElement),
        row(WordSet::Output, &["lm_head.weight", "output.weight"], How::PerElement),
        row(WordSet::QueryKey, &["k_proj.weight", "q_proj.weight", "wq.weight", "wk.weight"], How::Heads),
        row(WordSet::Mlp, &[], How::Rows),
    ],
    no_decay: &["norm", "ln_f"],
    lower_case: false,
};

const V1_1_0: Version = Version {
    rows: &[
        row(WordSet::Adam, &[], How::PerElement),
        row(WordSet::QueryKey, &["k_proj.weight", "q_proj.weight", "wq.weight", "wk.weight"], How::Heads),
        row(WordSet::Embed, &["embed", "embd", "wte"], How::Rows),
        row(WordSet::Output, &["lm_head.weight", "output.weight"], How::Rows),
        row(WordSet::Value, &["v_proj.weight", "wv.weight"], How::Rows),
        row(WordSet::Mlp, &["feed_forward", "linear", "mlp"], How::Rows),
        row(WordSet::AttnOut, &["o_proj.weight", "wo.weight", "attn.proj.weight"], How::Rows),
    ],
    no_decay: &["norm", "ln_f"],
    lower_case: false,
};

const V1_1_1: Version = Version {
    rows: &[
        row(WordSet::Adam, &["bias"], How::PerElement),
        row(WordSet::QueryKey, &["k_proj", "q_proj", "wq", "wk", "query", "key"], How::Heads),
        row(WordSet::Embed, &["embed", "embd", "wte"], How::Rows),
        row(WordSet::Output, &["lm_head", "output", "final_layer"], How::Rows),
        row(WordSet::Value, &["v_proj", "wv", "value"], How::Rows),
        row(WordSet::Mlp, &["feed_forward", "linear", "mlp"], How::Rows),
        row(WordSet::AttnOut, &["o_proj", "wo", "attn.proj"], How::Rows),
    ],
    no_decay: &["norm", "ln", "bias"],
    lower_case: true,
};

/// The table of a preset by name.
pub(super) fn version(preset: Preset) -> Option<&'static Version> {
    match preset {
        Preset::Rhumb => None,
        Preset::V0 => Some(&V0),
        Preset::V1_0_4 => Some(&V1_0_4),
        Preset::V1_1_0 => Some(&V1_1_0),
        Preset::V1_1_1 => Some(&V1_1_1),
    }
}

impl Preset {
    /// The words of one set; empty where the version has none, and for `rhumb`.
    pub fn words(self, set: WordSet) -> &'static [&'static str] {
        version(self).and_then(|v| v.rows.iter().find(|r| r.set == set)).map_or(&[], |r| r.words)
    }
}
