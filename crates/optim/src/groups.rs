//! Parameter groups: rule, learning rate, weight decay and freezing by name or role.

use rhumb_core::{Block, CheckpointError, Layout, Optimizer, Role, StateReader, StateWriter};
use rhumb_linalg::Real;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

use crate::adam_mini::NameOptions;
use crate::config::at_least_zero;
use crate::{Kind, OptimError, OptimizerConfig, Preset};

/// What is different for some tensors. A tensor belongs to the first group that matches it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GroupConfig {
    /// Whole names of tensors; `*` stands for any characters, `?` for one.
    pub names: Vec<String>,
    /// Roles, e.g. `"embed"`, `"norm"`, `"query"`.
    pub roles: Vec<String>,
    /// Another optimizer with its default settings, e.g. `"sgd"`; `beta1`, `beta2`, `eps` and decay go on where it has
    /// them, decay not between SGD, whose decay is an L2 term, and the others. Absent: as outside the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Momentum, where the group's optimizer is SGD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
    /// Learning rate divided by that of the run.
    pub lr_ratio: f64,
    /// Weight decay of every tensor of the group, norms and biases included; absent: as outside the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// Never updated; holds no state.
    pub frozen: bool,
}

impl Default for GroupConfig {
    fn default() -> Self {
        GroupConfig {
            names: Vec::new(),
            roles: Vec::new(),
            kind: None,
            momentum: None,
            lr_ratio: 1.0,
            weight_decay: None,
            frozen: false,
        }
    }
}

const ROLES: [&str; 16] = [
    "embed", "head", "position", "query", "key", "value", "qkv", "attn-out", "mlp", "experts", "conv",
    "norm", "bias", "lora-a", "lora-b", "other",
];

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Embed => "embed",
        Role::Head => "head",
        Role::Position => "position",
        Role::Query { .. } => "query",
        Role::Key { .. } => "key",
        Role::Value { .. } => "value",
        Role::Qkv { .. } | Role::QkvGrouped { .. } => "qkv",
        Role::AttnOut => "attn-out",
        Role::Mlp => "mlp",
        Role::Experts => "experts",
        Role::Conv => "conv",
        Role::Norm => "norm",
        Role::Bias => "bias",
        Role::LoraA => "lora-a",
        Role::LoraB => "lora-b",
        Role::Other => "other",
    }
}

impl GroupConfig {
    pub(crate) fn check(&self) -> Result<(), OptimError> {
        at_least_zero("groups.lr_ratio", self.lr_ratio)?;
        self.weight_decay.map_or(Ok(()), |wd| at_least_zero("groups.weight_decay", wd))?;
        if self.names.is_empty() && self.roles.is_empty() {
            return Err(OptimError::Setting {
                key: "groups",
                value: "a group without names and roles".to_owned(),
                want: "give names = [\"*.bias\"] or roles = [\"norm\"]",
            });
        }
        let idle = self.kind.is_some() || self.momentum.is_some() || self.weight_decay.is_some();
        if self.frozen && (idle || self.lr_ratio.to_bits() != 1f64.to_bits()) {
            return Err(OptimError::Setting {
                key: "groups.frozen",
                value: "true, beside a kind, a rate or a decay".to_owned(),
                want: "nothing else: what is frozen is never updated",
            });
        }
        match self.roles.iter().find(|r| !ROLES.contains(&r.as_str())) {
            Some(role) => Err(OptimError::Setting {
                key: "groups.roles",
                value: role.clone(),
                want: "one of embed, head, position, query, key, value, qkv, attn-out, mlp, experts, conv, \
                       norm, bias, lora-a, lora-b, other",
            }),
            None => Ok(()),
        }
    }

    /// The settings of the run with what is different in this group.
    pub(crate) fn settings(&self, run: &OptimizerConfig) -> OptimizerConfig {
        let mut own = OptimizerConfig {
            weight_decay: self.weight_decay.unwrap_or(run.weight_decay),
            decay_everywhere: self.weight_decay.is_some() || run.decay_everywhere,
            groups: Vec::new(),
            ..run.clone()
        };
        if let Some(kind) = self.kind.filter(|k| *k != run.kind) {
            // Decoupled decay and the L2 term of SGD's gradient are different things under one name.
            if self.weight_decay.is_none() && (kind == Kind::Sgd) != (run.kind == Kind::Sgd) {
                own.weight_decay = 0.0;
            }
            own = own.of_kind(kind);
        }
        if let Some(momentum) = self.momentum {
            own.momentum = momentum;
        }
        own
    }

    fn holds(&self, b: &Block) -> bool {
        self.names.iter().any(|n| WildMatch::new(n).matches(&b.name))
            || self.roles.iter().any(|r| r == role_name(b.role))
    }
}

/// The tensors of one group with the settings that hold for them.
pub(crate) struct Group {
    pub(crate) layout: Layout,
    pub(crate) config: OptimizerConfig,
    pub(crate) lr_ratio: f64,
    pub(crate) frozen: bool,
    /// Numbers of its tensors in the whole layout.
    members: Vec<usize>,
}

/// Cuts a layout into the tensors outside all groups, then those of each group.
///
/// # Errors
/// [`OptimError::Setting`] for a group that holds no tensor: its names are mistyped, or an earlier group has them.
pub(crate) fn cut(config: &OptimizerConfig, layout: &Layout) -> Result<Vec<Group>, OptimError> {
    let base = OptimizerConfig { groups: Vec::new(), ..config.clone() };
    let empty = |config, lr_ratio, frozen| Group {
        layout: Layout::new(),
        config,
        lr_ratio,
        frozen,
        members: Vec::new(),
    };
    let mut groups = vec![empty(base.clone(), 1.0, false)];
    groups.extend(config.groups.iter().map(|g| empty(g.settings(&base), g.lr_ratio, g.frozen)));
    // A version of the package is told the sizes of the model, not those of a part of it.
    let sized = config.preset != Preset::Rhumb && groups.iter().any(|g| g.config.kind == Kind::AdamMini);
    let names = if sized { Some(base.names.sized(layout)?) } else { None };
    for (i, g) in groups.iter_mut().enumerate() {
        // Every group begins at position 0, and no two should round alike.
        g.config.seed ^= (i as u64) << 48;
        if let Some(names) = names.as_ref().filter(|_| g.config.kind == Kind::AdamMini) {
            g.config.names = NameOptions { strict: g.config.names.strict, ..names.clone() };
        }
    }
    for (i, b) in layout.blocks().iter().enumerate() {
        let at = config.groups.iter().position(|g| g.holds(b)).map_or(0, |at| at + 1);
        groups[at].layout.push(b.name.clone(), &b.shape, b.role);
        groups[at].members.push(i);
    }
    match groups.iter().skip(1).zip(&config.groups).find(|(g, _)| g.members.is_empty()) {
        Some((_, c)) => Err(OptimError::Setting {
            key: "groups",
            value: format!("names = {:?}, roles = {:?}", c.names, c.roles),
            want: "no tensor is left for this group: check the spelling, and put it before wider groups",
        }),
        None => Ok(groups),
    }
}

/// One optimizer per group behind the interface of one.
pub(crate) struct Grouped<T> {
    name: &'static str,
    layout: Layout,
    /// Learning-rate ratio and optimizer of each group that is not frozen.
    parts: Vec<(f64, Box<dyn Optimizer<T>>)>,
    /// Group and number within it of every tensor; none for frozen ones.
    places: Vec<Option<(usize, usize)>>,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupsMeta {
    members: Vec<Vec<String>>,
    /// The optimizer of each group; absent in states of a single optimizer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    kinds: Vec<String>,
}

impl<T: Real> Grouped<T> {
    pub(crate) fn new(name: &'static str, layout: &Layout, groups: Vec<Group>) -> Result<Self, OptimError> {
        let mut made = Grouped {
            name,
            layout: layout.clone(),
            parts: Vec::new(),
            places: vec![None; layout.blocks().len()],
        };
        for group in groups.into_iter().filter(|g| !g.frozen && !g.members.is_empty()) {
            for (i, member) in group.members.iter().enumerate() {
                made.places[*member] = Some((made.parts.len(), i));
            }
            made.parts.push((group.lr_ratio, group.config.build(&group.layout)?));
        }
        Ok(made)
    }

    fn meta(&self) -> GroupsMeta {
        let names = |o: &dyn Optimizer<T>| o.layout().blocks().iter().map(|b| b.name.clone()).collect();
        let kinds: Vec<String> = self.parts.iter().map(|(_, o)| o.name().to_owned()).collect();
        let mixed = kinds.iter().any(|k| k != self.name);
        GroupsMeta {
            members: self.parts.iter().map(|(_, o)| names(&**o)).collect(),
            kinds: if mixed { kinds } else { Vec::new() },
        }
    }
}

impl<T: Real> Optimizer<T> for Grouped<T> {
    fn name(&self) -> &'static str {
        self.name
    }
    fn layout(&self) -> &Layout {
        &self.layout
    }
    fn begin(&mut self) {
        self.parts.iter_mut().for_each(|(_, o)| o.begin());
    }
    fn step_block(&mut self, lr: f64, block: usize, params: &mut [T], grad: &[T]) {
        if let Some((part, within)) = self.places[block] {
            let (ratio, o) = &mut self.parts[part];
            o.step_block(lr * *ratio, within, params, grad);
        }
    }
    fn state_bytes(&self) -> usize {
        self.parts.iter().map(|(_, o)| o.state_bytes()).sum()
    }
    fn save(&self, out: &mut StateWriter<'_>) -> Result<(), CheckpointError> {
        out.put_json("groups", &self.meta())?;
        self.parts
            .iter()
            .enumerate()
            .try_for_each(|(i, (_, o))| out.scope(&format!("group-{i}"), |out| o.save(out)))
    }
    fn load(&mut self, src: &mut StateReader) -> Result<(), CheckpointError> {
        if !src.has("groups") {
            return Err(CheckpointError::Mismatch(
                "the saved state has no parameter groups, this run has: use the settings it was saved with"
                    .to_owned(),
            ));
        }
        let found: GroupsMeta = src.json("groups")?;
        if found != self.meta() {
            return Err(CheckpointError::Mismatch(
                "the saved state was cut into other parameter groups: use the groups it was saved with"
                    .to_owned(),
            ));
        }
        self.parts
            .iter_mut()
            .enumerate()
            .try_for_each(|(i, (_, o))| src.scope(&format!("group-{i}"), |src| o.load(src)))
    }
}
