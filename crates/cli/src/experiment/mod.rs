//! From `algorithm.kind` of a recipe to the code behind it.
//!
//! An experiment is a settings struct that implements [`Experiment`], and one line in the table at the end of
//! this file. The settings are a part of the recipe, of its JSON Schema and of the manifest.

mod adam_mini_conditioning;
mod adam_mini_quadratic;
mod adam_mini_state;
mod gem_fixed_point;
mod gem_toy_diversity;
mod hessian_mlp;
mod hessian_nets;
mod hessian_quadratic;
mod pretrain;
mod sft;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exit::Failure;
use crate::session::Context;

/// Named numbers that an experiment measured with one seed. Claims refer to them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Metrics(#[serde(deserialize_with = "read")] BTreeMap<String, f64>);

/// JSON has no NaN and no infinity: they are written as null, and null reads as NaN.
fn read<'de, D: serde::Deserializer<'de>>(from: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let stored = BTreeMap::<String, Option<f64>>::deserialize(from)?;
    Ok(stored.into_iter().map(|(k, v)| (k, v.unwrap_or(f64::NAN))).collect())
}

impl Metrics {
    /// Adds one, in the form `arm/quantity` where there are arms.
    pub(crate) fn put(&mut self, name: impl Into<String>, value: f64) -> &mut Self {
        self.0.insert(name.into(), value);
        self
    }

    /// The one of that name.
    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// All, sorted by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(k, v)| (k.as_str(), *v))
    }
}

/// What a recipe can run.
pub(crate) trait Experiment {
    /// Runs every arm with the seed of `ctx` and measures. Arms are driven by [`Context::drive`], which owns
    /// records, checkpoints, progress and interruption.
    ///
    /// # Errors
    /// A [`Failure`] with the exit code that fits.
    fn run(&self, ctx: &mut Context<'_>) -> Result<Metrics, Failure>;
}

impl<E: Experiment> Experiment for Box<E> {
    fn run(&self, ctx: &mut Context<'_>) -> Result<Metrics, Failure> {
        (**self).run(ctx)
    }
}

macro_rules! experiments {
    ($($(#[$doc:meta])* $kind:literal => $variant:ident($settings:ty)),* $(,)?) => {
        /// The `[algorithm]` of a recipe: `kind`, and the settings of that kind.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "kind")]
        pub(crate) enum Settings {
            $($(#[$doc])* #[serde(rename = $kind)] $variant($settings)),*
        }

        impl Settings {
            /// The code behind these settings.
            pub(crate) fn experiment(&self) -> &dyn Experiment {
                match self { $(Settings::$variant(s) => s),* }
            }
        }
    };
}

experiments! {
    /// Bytes of optimizer state, Adam-mini beside AdamW.
    "adam-mini-state" => AdamMiniState(adam_mini_state::StateSettings),
    /// Condition numbers under Adam's and Adam-mini's first step sizes on random quadratics.
    "adam-mini-conditioning" => AdamMiniConditioning(adam_mini_conditioning::ConditioningSettings),
    /// Adam-mini beside AdamW on a quadratic with dense Hessian blocks of different scale.
    "adam-mini-quadratic" => AdamMiniQuadratic(adam_mini_quadratic::QuadraticSettings),
    /// Where each loss of fine-tuning comes to rest on given frequencies.
    "gem-fixed-point" => GemFixedPoint(gem_fixed_point::FixedPointSettings),
    /// A small network that knows several right answers, fine-tuned on data that prefer one.
    "gem-toy-diversity" => GemToyDiversity(gem_toy_diversity::ToySettings),
    /// How much the spectra of blocks differ in small nets before training.
    "hessian-heterogeneity" => HessianHeterogeneity(hessian_nets::HeterogeneitySettings),
    /// What SGD loses to Adam on small nets, each at its best learning rate.
    "hessian-gap" => HessianGap(hessian_nets::GapSettings),
    /// A decoder before and after pre-training: its spectra, and what SGD loses from either start.
    "hessian-tuning" => HessianTuning(hessian_nets::TuningSettings),
    "hessian-partition" => HessianPartition(hessian_nets::PartitionSettings),
    /// How much of a decoder's curvature lies inside the blocks of heads and of rows.
    "hessian-structure" => HessianStructure(hessian_nets::StructureSettings),
    /// Gradient descent beside Adam on quadratics whose eigenvalues are dealt out to blocks in different ways.
    "hessian-quadratic" => HessianQuadratic(hessian_quadratic::CasesSettings),
    /// How much of the Hessian of a hidden layer lies in the blocks of its neurons.
    "hessian-mlp" => HessianMlp(hessian_mlp::BlockSettings),
    /// Trainings of a small decoder from scratch that differ in the optimizer.
    "pretrain" => Pretrain(Box<pretrain::PretrainSettings>),
    /// Fine-tunings of a language model that differ in the loss.
    "sft" => Sft(Box<sft::StudySettings>),
}
