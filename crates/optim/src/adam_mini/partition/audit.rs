//! Cuts by name, and where they are known to go wrong.

use super::finding::{Finding, Pitfall};
use super::names::{How, NameOptions, Version, WordSet, version};
use super::words::stands_alone;
use super::{Cut, Preset, equal, roles, whole};
use crate::OptimError;
use rhumb_core::{Block, Layout, Role};

/// The blocks of one tensor and what is wrong with them.
type Audited = (Vec<Cut>, Vec<Finding>);

/// The cuts of every tensor and what is wrong with them. Cuts of a fatal finding are empty.
pub(super) fn cut(
    preset: Preset,
    options: &NameOptions,
    layout: &Layout,
) -> Result<Vec<Audited>, OptimError> {
    options.check(preset)?;
    let Some(version) = version(preset) else {
        return layout.blocks().iter().map(|b| Ok((roles::by_role(b)?, unknown_role(b)))).collect();
    };
    let model = Model::of(options, layout)?;
    Ok(layout
        .blocks()
        .iter()
        .map(|b| {
            let mut tensor = Tensor { preset, version, options, model, b, findings: Vec::new() };
            let cuts = tensor.cut();
            (cuts, tensor.findings)
        })
        .collect())
}

/// How many tensors each word set decides over; a set without any is worth a warning.
pub(super) fn class_counts(
    preset: Preset,
    options: &NameOptions,
    layout: &Layout,
) -> Result<Vec<(WordSet, usize)>, OptimError> {
    options.check(preset)?;
    let Some(version) = version(preset) else { return Ok(Vec::new()) };
    let mut counts: Vec<(WordSet, usize)> = version.rows.iter().map(|r| (r.set, 0)).collect();
    for b in layout.blocks() {
        if let Some((row, _)) = version.find(b, &options.keywords) {
            counts.iter_mut().filter(|c| c.0 == row.set).for_each(|c| c.1 += 1);
        }
    }
    Ok(counts)
}

fn unknown_role(b: &Block) -> Vec<Finding> {
    let found = b.role == Role::Other && b.shape.len() == 2 && b.shape.iter().all(|n| *n > 1);
    found
        .then(|| Finding {
            pitfall: Pitfall::Unmatched,
            name: b.name.clone(),
            shape: b.shape.clone(),
            what:
                "it has the role \"other\", which is one second moment for the whole matrix: give it its role"
                    .to_owned(),
            fatal: false,
        })
        .into_iter()
        .collect()
}

/// `dim`, `n_heads` and `n_kv_heads` as the official package is told them.
#[derive(Clone, Copy, Debug)]
struct Model {
    dim: Option<usize>,
    heads: Option<usize>,
    kv_heads: Option<usize>,
}

impl NameOptions {
    /// The same with every size that follows from the layout written down.
    pub(crate) fn sized(&self, layout: &Layout) -> Result<Self, OptimError> {
        let Model { dim, heads, kv_heads } = Model::of(self, layout)?;
        Ok(NameOptions { dim, heads, kv_heads, ..self.clone() })
    }
}

impl Model {
    fn of(options: &NameOptions, layout: &Layout) -> Result<Self, OptimError> {
        let first = |wanted: fn(&Role) -> bool| layout.blocks().iter().find(|b| wanted(&b.role));
        let width = |b: &Block| b.shape.last().copied().filter(|_| b.shape.len() > 1);
        let count = |b: &Block, head_dim: usize| b.shape.first().map(|rows| rows / head_dim.max(1));
        let query = first(|r| matches!(r, Role::Query { .. } | Role::Qkv { .. } | Role::QkvGrouped { .. }));
        let key = first(|r| matches!(r, Role::Key { .. }));
        let dim = options
            .dim
            .or_else(|| first(|r| *r == Role::Embed).and_then(width))
            .or_else(|| query.or(key).and_then(width));
        let (heads, fused_kv) = match query.map(|b| (b, b.role)) {
            Some((b, Role::Query { head_dim })) => (count(b, head_dim), None),
            Some((_, Role::Qkv { heads, kv_heads, .. })) => (Some(heads), Some(kv_heads)),
            Some((_, Role::QkvGrouped { groups, queries, .. })) => (Some(groups * queries), Some(groups)),
            _ => match key.map(|b| b.role) {
                Some(Role::Key { head_dim }) => (dim.map(|d| d / head_dim.max(1)), None),
                _ => (None, None),
            },
        };
        let own_kv = key.and_then(|b| match b.role {
            Role::Key { head_dim } => count(b, head_dim),
            _ => None,
        });
        let heads = options.heads.or(heads).filter(|h| *h > 0);
        let kv_heads = options.kv_heads.or(fused_kv).or(own_kv).or(heads).filter(|h| *h > 0);
        if let (Some(h), Some(kv)) = (heads, options.kv_heads)
            && h % kv != 0
        {
            return Err(OptimError::Setting {
                key: "kv_heads",
                value: kv.to_string(),
                want: "a divisor of the number of heads",
            });
        }
        Ok(Model { dim, heads, kv_heads })
    }

    /// Elements of a block of queries or keys.
    fn head_numel(self) -> Option<usize> {
        self.dim.zip(self.heads).map(|(d, h)| d * d / h).filter(|n| *n > 0)
    }
}

struct Tensor<'a> {
    preset: Preset,
    version: &'static Version,
    options: &'a NameOptions,
    model: Model,
    b: &'a Block,
    findings: Vec<Finding>,
}

impl Tensor<'_> {
    fn report(&mut self, pitfall: Pitfall, fatal: bool, what: String) {
        let (name, shape) = (self.b.name.clone(), self.b.shape.clone());
        self.findings.push(Finding { pitfall, name, shape, what, fatal });
    }

    fn cut(&mut self) -> Vec<Cut> {
        self.check_decay();
        let found = self.version.find(self.b, &self.options.keywords);
        let how = found.as_ref().map_or(How::Whole, |(row, _)| row.how);
        if let Some((row, word)) = &found {
            self.check_word(row.set, word, how);
        }
        if how != How::Slots {
            self.check_fused(how);
        }
        match how {
            How::PerElement => equal(self.b, 1),
            How::Heads => self.heads(),
            How::Rows => self.rows(),
            How::Slots => self.slots(),
            How::Whole => {
                self.check_unmatched();
                whole(self.b)
            }
        }
    }

    fn rows(&mut self) -> Vec<Cut> {
        match self.b.shape[..] {
            [_, width] => equal(self.b, width),
            [] | [_] => {
                self.report_vector(true);
                Vec::new()
            }
            _ => {
                let n = self.b.shape.len();
                self.report(
                    Pitfall::TooManyAxes,
                    true,
                    format!("its name puts it among the matrices cut by rows, but it has {n} axes: use the preset rhumb"),
                );
                Vec::new()
            }
        }
    }

    /// A vector is either a vector of the model, or what sharding made of a matrix.
    fn report_vector(&mut self, fatal: bool) {
        let name = self.b.name.to_lowercase();
        let vector = matches!(self.b.role, Role::Norm | Role::Bias)
            || ["norm", "bias", "ln"].iter().any(|w| name.contains(w));
        if vector {
            self.report(
                Pitfall::VectorAmongMatrices,
                fatal,
                "its name puts it among the matrices, but it is a vector: use the preset rhumb".to_owned(),
            );
        } else {
            self.report(
                Pitfall::FlatShard,
                fatal,
                "its name puts it among the matrices, but it is flat, so that rows and heads are lost: give the whole \
                 tensor to the layout and shard it as a flat shard"
                    .to_owned(),
            );
        }
    }

    fn heads(&mut self) -> Vec<Cut> {
        let n = self.b.range.len();
        let Some(block) = self.model.head_numel() else {
            self.report(
                Pitfall::HeadSize,
                true,
                "its name puts it among queries and keys, but nothing says how wide the model is and how many heads it \
                 has: set dim and heads, use the preset rhumb, or give the tensor a query or key role"
                    .to_owned(),
            );
            return Vec::new();
        };
        let fits = n.is_multiple_of(block);
        let lower = self.b.name.to_lowercase();
        if matches!(self.b.role, Role::LoraA | Role::LoraB) || lower.contains("lora_") {
            self.report(
                Pitfall::LowRank,
                !fits,
                format!("its name puts a low-rank factor among queries and keys, in blocks of {block} elements of the full matrix: use the preset rhumb"),
            );
        } else if self.b.shape.len() == 1 {
            self.report_vector(!fits);
        } else if let Role::Query { head_dim } | Role::Key { head_dim } = self.b.role {
            let own = n / self.b.shape.first().copied().unwrap_or(1).max(1) * head_dim;
            if own != block {
                self.report(
                    Pitfall::HeadSize,
                    !fits,
                    format!(
                        "a head has {own} elements, but dim * dim / heads = {block}, so that blocks cross heads: use the preset rhumb"
                    ),
                );
            }
        }
        if !fits && !self.findings.iter().any(|f| f.fatal) {
            self.report(
                Pitfall::HeadSize,
                true,
                format!("its {n} elements do not divide into heads of dim * dim / heads = {block}: use the preset rhumb"),
            );
        }
        if fits { equal(self.b, block) } else { Vec::new() }
    }

    /// `view(n_head, n_head / n_query_groups + 2, -1)` of the first version.
    fn slots(&mut self) -> Vec<Cut> {
        let (Some(heads), Some(kv)) = (self.model.heads, self.model.kv_heads) else {
            self.report(
                Pitfall::HeadSize,
                true,
                "its name says fused attention, but nothing says how many heads there are: set heads and kv_heads"
                    .to_owned(),
            );
            return Vec::new();
        };
        let (n, slots) = (self.b.range.len(), heads * (heads / kv + 2));
        if !n.is_multiple_of(slots) {
            self.report(
                Pitfall::HeadSize,
                true,
                format!("its {n} elements do not divide into {slots} slots of heads: use the preset rhumb"),
            );
            return Vec::new();
        }
        if heads != kv {
            self.report(
                Pitfall::HeadSize,
                false,
                format!(
                    "{slots} blocks are more than its {} heads, so that blocks cut heads: use the preset rhumb",
                    heads + 2 * kv
                ),
            );
        }
        equal(self.b, n / slots)
    }

    fn check_word(&mut self, set: WordSet, word: &str, how: How) {
        if !stands_alone(&self.b.name.to_lowercase(), &word.to_lowercase()) {
            self.report(
                Pitfall::WordInWord,
                false,
                format!("the word {word:?} decides how it is cut, but is only a part of another word: use the preset rhumb or change the words"),
            );
            return;
        }
        let attention = matches!(
            self.b.role,
            Role::Query { .. }
                | Role::Key { .. }
                | Role::Qkv { .. }
                | Role::QkvGrouped { .. }
                | Role::Value { .. }
                | Role::Bias
                | Role::LoraA
                | Role::LoraB
        );
        let lower = self.b.name.to_lowercase();
        let feed_forward = ["ffn", "feed_forward", "channel_mix"].iter().any(|w| stands_alone(&lower, w));
        let known = self.b.role != Role::Other;
        if set == WordSet::QueryKey && how == How::Heads && ((known && !attention) || feed_forward) {
            self.report(
                Pitfall::WordInWord,
                false,
                format!("the word {word:?} puts it among queries and keys, but it belongs elsewhere: use the preset rhumb or change the words"),
            );
        }
    }

    fn check_fused(&mut self, how: How) {
        let lower = self.b.name.to_lowercase();
        let by_name = ["qkv", "qkv_proj", "query_key_value", "wqkv", "c_attn", "in_proj", "in_proj_weight"]
            .iter()
            .any(|w| stands_alone(&lower, w));
        let by_role = matches!(self.b.role, Role::Qkv { .. } | Role::QkvGrouped { .. });
        if self.b.shape.len() < 2 || !(by_name && self.b.role == Role::Other || by_role) {
            return;
        }
        let what = match how {
            How::Heads => "its values are cut by heads, too, where they should be cut by rows",
            How::Whole => "one number serves queries, keys and values together",
            _ => "queries, keys and values are cut alike",
        };
        self.report(
            Pitfall::Fused,
            false,
            format!("it holds queries, keys and values: {what}; use the preset rhumb"),
        );
    }

    fn check_unmatched(&mut self) {
        let lower = self.b.name.to_lowercase();
        let table = self.b.role == Role::Position || stands_alone(&lower, "wpe");
        // The old versions meant one number for a matrix.
        let meant = matches!(self.preset, Preset::V0 | Preset::V1_0_4)
            || matches!(self.b.role, Role::Conv | Role::Qkv { .. } | Role::QkvGrouped { .. })
            || self.options.keywords != super::Keywords::default()
            || self.b.shape.len() != 2
            || self.findings.iter().any(|f| f.pitfall == Pitfall::Fused);
        if self.b.shape.len() < 2 || (!table && meant) {
            return;
        }
        let kind = if table { "position table" } else { "matrix" };
        self.report(
            Pitfall::Unmatched,
            false,
            format!("no word matches, so that the whole {kind} has one second moment: add a word of its name, or use the preset rhumb"),
        );
    }

    fn check_decay(&mut self) {
        let Some(word) = self.version.no_decay(self.b) else { return };
        let matrix = self.b.shape.len() > 1 && !matches!(self.b.role, Role::Norm | Role::Bias);
        if matrix && !stands_alone(&self.b.name.to_lowercase(), word) {
            self.report(
                Pitfall::LostDecay,
                false,
                format!("the letters {word:?} inside a word of its name spare it the weight decay: use the preset rhumb"),
            );
        }
    }
}
