use rhumb_core::{Layout, Optimizer};
use rhumb_linalg::{Real, compiled};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::adam_mini::{NameOptions, UnitRule};
use crate::groups::{self, GroupConfig, Grouped};
use crate::moments::runs;
use crate::{
    Adafactor, AdafactorConfig, AdamMini, AdamW, Lion, LionConfig, Muon, MuonConfig, OptimError, Partition,
    Preset, Sgd, SlimAdam, SlimAdamConfig, StateFormat,
};

/// Which optimizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// [`AdamMini`]: 4 (P + blocks) bytes of state.
    #[default]
    AdamMini,
    /// [`AdamW`]: 8 P bytes of state.
    #[serde(rename = "adamw")]
    AdamW,
    /// [`Sgd`]: 4 P bytes of state with momentum, none without.
    Sgd,
    /// [`Lion`]: 4 P bytes of state.
    Lion,
    /// [`Adafactor`]: 4 (m + n) bytes of state per matrix.
    Adafactor,
    /// [`Muon`]: 4 bytes of state per scalar of a hidden matrix, 8 elsewhere.
    Muon,
    /// [`SlimAdam`]: 4 P bytes of state and 4 per second moment left.
    SlimAdam,
}

impl Kind {
    /// As written in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Kind::AdamMini => "adam-mini",
            Kind::AdamW => "adamw",
            Kind::Sgd => "sgd",
            Kind::Lion => "lion",
            Kind::Adafactor => "adafactor",
            Kind::Muon => "muon",
            Kind::SlimAdam => "slim-adam",
        }
    }
}

/// Settings of an optimizer; betas, epsilon and momentum are those of the papers by default. Unlike in PyTorch there
/// is no weight decay unless asked for, norms and biases never decay unless asked for, and `lr` is 1e-3 for every kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Which optimizer.
    pub kind: Kind,
    /// Peak learning rate.
    pub lr: f64,
    /// Decay rate of the first moment (the Adam family and Muon's AdamW).
    pub beta1: f64,
    /// Decay rate of the second moment (the Adam family and Muon's AdamW).
    pub beta2: f64,
    /// Added to the root of the second moment (the Adam family and Muon's AdamW).
    pub eps: f64,
    /// Decoupled weight decay; for SGD an L2 term of the gradient.
    pub weight_decay: f64,
    /// Whether norms and biases decay too, as in PyTorch without parameter groups.
    pub decay_everywhere: bool,
    /// Momentum (SGD).
    pub momentum: f64,
    /// Nesterov's form of momentum (SGD).
    pub nesterov: bool,
    /// How Adam-mini cuts the model into blocks; every kind takes from it which tensors decay.
    pub preset: Preset,
    /// How the presets by name are read: strict mode, sizes, words (Adam-mini).
    #[serde(skip_serializing_if = "is_default")]
    pub names: NameOptions,
    /// Blocks of one's own choice in place of the preset's, e.g. measured ones (Adam-mini).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<UnitRule>,
    /// In which form moments are kept (Adam-mini, AdamW).
    pub state: StateFormat,
    /// Seed of the stochastic roundings of `state = "bf16"`.
    #[serde(skip_serializing_if = "is_default")]
    pub seed: u64,
    /// Settings of Lion alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lion: Option<LionConfig>,
    /// Settings of Adafactor alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adafactor: Option<AdafactorConfig>,
    /// Settings of Muon alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub muon: Option<MuonConfig>,
    /// Settings of SlimAdam alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slim_adam: Option<SlimAdamConfig>,
    /// What is different for some tensors; the first group that matches a tensor holds it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupConfig>,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        OptimizerConfig {
            kind: Kind::default(),
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            decay_everywhere: false,
            momentum: 0.0,
            nesterov: false,
            preset: Preset::default(),
            names: NameOptions::default(),
            units: Vec::new(),
            state: StateFormat::default(),
            seed: 0,
            lion: None,
            adafactor: None,
            muon: None,
            slim_adam: None,
            groups: Vec::new(),
        }
    }
}

compiled!(
    Build<'a>,
    |(config, layout): (&'a OptimizerConfig, &'a Layout)| -> Result<Box<dyn Optimizer<T>>, OptimError> {
        config.built(layout)
    }
);

impl OptimizerConfig {
    /// Checks every setting without building anything.
    ///
    /// # Errors
    /// [`OptimError::Setting`] naming the key, its value and what to write instead.
    pub fn validate(&self) -> Result<(), OptimError> {
        at_least_zero("lr", self.lr)?;
        self.own_settings_only()?;
        for group in &self.groups {
            group.check()?;
            group.settings(self).validate()?;
        }
        match self.kind {
            Kind::Sgd => self.sgd().map(|_| ()),
            Kind::AdamMini => self.names.check(self.preset).and_then(|()| self.adam().map(|_| ())),
            Kind::AdamW => self.adam().map(|_| ()),
            Kind::Lion => self.lion.unwrap_or_default().check(),
            Kind::Adafactor => self.adafactor.unwrap_or_default().check(),
            Kind::Muon => self.muon.unwrap_or_default().check().and_then(|()| self.adam().map(|_| ())),
            Kind::SlimAdam => {
                self.slim_adam.unwrap_or_default().check().and_then(|()| self.adam().map(|_| ()))
            }
        }
    }

    /// Refuses settings that this kind would ignore.
    fn own_settings_only(&self) -> Result<(), OptimError> {
        for (given, owner, key, want) in [
            (self.lion.is_some(), Kind::Lion, "lion", "this table belongs to kind = \"lion\""),
            (
                self.adafactor.is_some(),
                Kind::Adafactor,
                "adafactor",
                "this table belongs to kind = \"adafactor\"",
            ),
            (self.muon.is_some(), Kind::Muon, "muon", "this table belongs to kind = \"muon\""),
            (
                self.slim_adam.is_some(),
                Kind::SlimAdam,
                "slim_adam",
                "this table belongs to kind = \"slim-adam\"",
            ),
        ] {
            if given && self.kind != owner {
                return Err(OptimError::Setting { key, value: "{ ... }".to_owned(), want });
            }
        }
        if self.state != StateFormat::Full && !matches!(self.kind, Kind::AdamMini | Kind::AdamW) {
            return Err(OptimError::Setting {
                key: "state",
                value: self.state.tag().to_owned(),
                want: "bf16 and 8bit belong to adam-mini and adamw; this kind has f32",
            });
        }
        if self.kind != Kind::AdamMini && !is_default(&self.names) {
            return Err(OptimError::Setting {
                key: "names",
                value: "{ ... }".to_owned(),
                want: "this table belongs to kind = \"adam-mini\"",
            });
        }
        if self.kind != Kind::AdamMini && !self.units.is_empty() {
            return Err(OptimError::Setting {
                key: "units",
                value: "[ ... ]".to_owned(),
                want: "these rules belong to kind = \"adam-mini\"",
            });
        }
        if !self.units.is_empty() && !self.groups.is_empty() {
            return Err(OptimError::Setting {
                key: "units",
                value: "[ ... ]".to_owned(),
                want: "units and groups exclude each other: leave one of them out",
            });
        }
        if self.kind != Kind::Sgd && (self.momentum.abs() > 0.0 || self.nesterov) {
            return Err(OptimError::Setting {
                key: "momentum",
                value: format!("{}, nesterov = {}", self.momentum, self.nesterov),
                want: "momentum and nesterov belong to sgd; the Adam family has beta1, muon a table of its own",
            });
        }
        if matches!(self.kind, Kind::Lion | Kind::Adafactor) {
            let d = OptimizerConfig::default();
            for (key, given, default) in
                [("beta1", self.beta1, d.beta1), ("beta2", self.beta2, d.beta2), ("eps", self.eps, d.eps)]
            {
                if given.to_bits() != default.to_bits() {
                    return setting(
                        key,
                        given,
                        "belongs to the Adam family: lion and adafactor have tables of their own",
                    );
                }
            }
        }
        Ok(())
    }

    /// The same settings for another optimizer, without those that it does not have.
    pub(crate) fn of_kind(self, kind: Kind) -> Self {
        let d = OptimizerConfig::default();
        let adam = !matches!(kind, Kind::Lion | Kind::Adafactor);
        OptimizerConfig {
            kind,
            beta1: if adam { self.beta1 } else { d.beta1 },
            beta2: if adam { self.beta2 } else { d.beta2 },
            eps: if adam { self.eps } else { d.eps },
            momentum: 0.0,
            nesterov: false,
            names: if kind == Kind::AdamMini { self.names } else { d.names },
            units: if kind == Kind::AdamMini { self.units } else { d.units },
            state: if matches!(kind, Kind::AdamMini | Kind::AdamW) { self.state } else { d.state },
            lion: None,
            adafactor: None,
            muon: None,
            slim_adam: None,
            ..self
        }
    }

    /// Builds the optimizer for a layout.
    ///
    /// # Errors
    /// [`OptimError`] for a setting out of range or a tensor that does not fit the preset.
    pub fn build<T: Real>(&self, layout: &Layout) -> Result<Box<dyn Optimizer<T>>, OptimError> {
        T::compiled::<Build<'_>>((self, layout))
    }

    fn built<T: Real>(&self, layout: &Layout) -> Result<Box<dyn Optimizer<T>>, OptimError> {
        self.validate()?;
        if !self.groups.is_empty() {
            let groups = groups::cut(self, layout)?;
            return Ok(Box::new(Grouped::new(self.kind.name(), layout, groups)?));
        }
        let partition = self.partition(layout)?;
        Ok(match self.kind {
            Kind::AdamMini => {
                let new = AdamMini::with_format(layout, partition, self.adam()?, self.state);
                Box::new(new.with_seed(self.seed))
            }
            Kind::AdamW => {
                let new = AdamW::with_format(layout, &partition, self.adam()?, self.state);
                Box::new(new.with_seed(self.seed))
            }
            Kind::Sgd => Box::new(Sgd::new(layout, &partition, self.sgd()?)),
            Kind::Lion => {
                Box::new(Lion::new(layout, &partition, self.lion.unwrap_or_default(), self.weight_decay)?)
            }
            Kind::Adafactor => Box::new(Adafactor::new(
                layout,
                &partition,
                self.adafactor.unwrap_or_default(),
                self.weight_decay,
            )?),
            Kind::Muon => {
                Box::new(Muon::new(layout, &partition, self.muon.unwrap_or_default(), self.adam()?)?)
            }
            Kind::SlimAdam => Box::new(SlimAdam::configured(
                layout,
                &partition,
                self.slim_adam.unwrap_or_default(),
                self.adam()?,
            )?),
        })
    }

    /// Bytes of state that [`OptimizerConfig::build`] will hold at most, without building; `scalar` is the bytes of one
    /// number (4 for `f32`).
    ///
    /// # Errors
    /// As [`OptimizerConfig::build`].
    pub fn state_bytes(&self, layout: &Layout, scalar: usize) -> Result<usize, OptimError> {
        self.validate()?;
        if !self.groups.is_empty() {
            let groups = groups::cut(self, layout)?;
            return groups
                .iter()
                .filter(|g| !g.frozen)
                .map(|g| g.config.state_bytes(&g.layout, scalar))
                .sum();
        }
        let n = layout.len();
        let moments = |partition: &Partition, bytes: fn(StateFormat, Vec<usize>, usize) -> usize| -> usize {
            (0..layout.blocks().len()).map(|i| bytes(self.state, runs(partition, i).collect(), scalar)).sum()
        };
        let first = |f: StateFormat, runs: Vec<usize>, scalar| f.first_bytes(runs.iter().copied(), scalar);
        let second = |f: StateFormat, runs: Vec<usize>, scalar| f.second_bytes(runs.iter().copied(), scalar);
        Ok(scalar
            * match self.kind {
                Kind::AdamMini => {
                    let partition = self.partition(layout)?;
                    return Ok(moments(&partition, first) + scalar * partition.blocks());
                }
                Kind::AdamW => {
                    let partition = self.partition(layout)?;
                    return Ok(moments(&partition, first) + moments(&partition, second));
                }
                Kind::Sgd if self.momentum > 0.0 => n,
                Kind::Sgd => 0,
                Kind::Lion => n,
                Kind::Adafactor => {
                    let c = self.adafactor.unwrap_or_default();
                    layout.blocks().iter().map(|b| c.state_len(b)).sum()
                }
                Kind::Muon => {
                    let c = self.muon.unwrap_or_default();
                    layout.blocks().iter().map(|b| c.state_len(b)).sum()
                }
                Kind::SlimAdam => {
                    let c = self.slim_adam.unwrap_or_default();
                    layout.blocks().iter().map(|b| c.state_len(b)).sum()
                }
            })
    }

    /// The blocks of second moments and the tensors that decay; blocks of single elements for all kinds but Adam-mini.
    ///
    /// # Errors
    /// As [`Partition::with`].
    pub fn partition(&self, layout: &Layout) -> Result<Partition, OptimError> {
        // The blocks of a preset may not fit a model that only wants AdamW; its decay rule always does.
        let partition = match self.kind {
            Kind::AdamMini => {
                Partition::with(self.preset, &self.names, layout)?.with_units(&self.units, layout)?
            }
            _ => Partition::per_element(layout, self.preset),
        };
        Ok(if self.decay_everywhere { partition.decay_everywhere() } else { partition })
    }

    fn adam(&self) -> Result<AdamParams, OptimError> {
        AdamParams::new(self.beta1, self.beta2, self.eps, self.weight_decay)
    }

    fn sgd(&self) -> Result<SgdParams, OptimError> {
        SgdParams::new(self.momentum, self.nesterov, self.weight_decay)
    }
}

/// Checked settings of [`AdamMini`] and [`AdamW`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamParams {
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
}

impl AdamParams {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`OptimError::Setting`] unless `0 <= beta < 1`, `eps > 0`, `weight_decay >= 0`, all finite.
    pub fn new(beta1: f64, beta2: f64, eps: f64, weight_decay: f64) -> Result<Self, OptimError> {
        below_one("beta1", beta1)?;
        below_one("beta2", beta2)?;
        if !(eps > 0.0 && eps.is_finite()) {
            return setting("eps", eps, "a finite number > 0, e.g. 1e-8");
        }
        at_least_zero("weight_decay", weight_decay)?;
        Ok(AdamParams { beta1, beta2, eps, weight_decay })
    }

    /// Decay rate of the first moment.
    pub fn beta1(&self) -> f64 {
        self.beta1
    }
    /// Decay rate of the second moment.
    pub fn beta2(&self) -> f64 {
        self.beta2
    }
    /// Added to the root of the second moment.
    pub fn eps(&self) -> f64 {
        self.eps
    }
    /// Decoupled weight decay.
    pub fn weight_decay(&self) -> f64 {
        self.weight_decay
    }
}

/// Checked settings of [`Sgd`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdParams {
    momentum: f64,
    nesterov: bool,
    weight_decay: f64,
}

impl SgdParams {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`OptimError::Setting`] unless `0 <= momentum < 1`, `weight_decay >= 0`, and Nesterov has a momentum.
    pub fn new(momentum: f64, nesterov: bool, weight_decay: f64) -> Result<Self, OptimError> {
        below_one("momentum", momentum)?;
        at_least_zero("weight_decay", weight_decay)?;
        if nesterov && momentum <= 0.0 {
            return setting("momentum", momentum, "nesterov needs a momentum > 0, e.g. 0.9");
        }
        Ok(SgdParams { momentum, nesterov, weight_decay })
    }

    /// Momentum.
    pub fn momentum(&self) -> f64 {
        self.momentum
    }
    /// Nesterov's form.
    pub fn nesterov(&self) -> bool {
        self.nesterov
    }
    /// L2 term of the gradient.
    pub fn weight_decay(&self) -> f64 {
        self.weight_decay
    }
}

fn is_default<V: Default + PartialEq>(v: &V) -> bool {
    *v == V::default()
}

pub(crate) fn below_one(key: &'static str, v: f64) -> Result<(), OptimError> {
    if (0.0..1.0).contains(&v) { Ok(()) } else { setting(key, v, "a number >= 0 and < 1") }
}

pub(crate) fn at_least_zero(key: &'static str, v: f64) -> Result<(), OptimError> {
    if v >= 0.0 && v.is_finite() { Ok(()) } else { setting(key, v, "a finite number >= 0") }
}

pub(crate) fn setting<R>(key: &'static str, v: f64, want: &'static str) -> Result<R, OptimError> {
    Err(OptimError::Setting { key, value: v.to_string(), want })
}
