//! Fine-tunings of one model that differ in the loss, with cross-entropy at temperature 1 / beta as the control.

mod built_in;
mod files;
mod samples;

use rhumb_core::Algorithm;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::built_in::BuiltIn;
use self::samples::Samples;
use super::{Experiment, Metrics};
use crate::cmd::train::SftSettings;
use crate::cmd::train::loss::{Given, Loss};
use crate::cmd::train::sft::setup;
use crate::exit::Failure;
use crate::report::Section;
use crate::session::Context;
use crate::table::{Table, number};

/// Name of the control among the arms.
const CONTROL: &str = "control";
/// Name of cross-entropy with weight decay among the arms.
const DECAY: &str = "ce+decay";

/// Settings of `sft`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StudySettings {
    /// What all arms share, as in `rhumb train sft`; `loss` and `seed` are set for each arm. Without `model` and
    /// `data` a small decoder is trained first, on a generated language.
    pub(crate) sft: SftSettings,
    /// One arm for each.
    pub(crate) losses: Vec<Loss>,
    /// Weight decay of one more arm, cross-entropy with it; 0 leaves that arm out.
    pub(crate) decay: f64,
    /// Conversations of `sft.data` to train on, drawn by the seed; 0 takes all that are not held out.
    pub(crate) conversations: usize,
    /// Answers to held-out prompts that every arm is measured by, for a model and data from disk.
    pub(crate) samples: Samples,
    /// The generated language and the training on it.
    pub(crate) built_in: BuiltIn,
}

impl Default for StudySettings {
    fn default() -> Self {
        StudySettings {
            sft: SftSettings::default(),
            losses: vec![Loss::CE, Loss::GEM_LINEAR],
            decay: 0.0,
            conversations: 0,
            samples: Samples::default(),
            built_in: BuiltIn::default(),
        }
    }
}

/// What was measured of every arm: its name and its numbers, in the order of the names.
struct Measured {
    names: Vec<&'static str>,
    arms: Vec<(String, Vec<f64>)>,
}

impl StudySettings {
    fn validate(&self) -> Result<(), String> {
        let repeated = self.losses.iter().enumerate().any(|(i, l)| self.losses[..i].contains(l));
        if self.losses.is_empty() || repeated {
            return Err("algorithm.losses: name at least one loss, and none twice".to_owned());
        }
        if self.sft.model.is_some() != self.sft.data.is_some() {
            return Err(
                "algorithm.sft.model and algorithm.sft.data belong together: give both, or none for the generated language"
                    .to_owned(),
            );
        }
        if !(self.decay >= 0.0 && self.decay.is_finite()) {
            return Err(format!("algorithm.decay: {} is no weight decay; give 0 or more", self.decay));
        }
        if self.sft.model.is_none() && (self.conversations > 0 || self.samples.prompts > 0) {
            return Err(
                "algorithm.conversations and algorithm.samples need a model and data from disk: set algorithm.sft.model and \
                 algorithm.sft.data"
                    .to_owned(),
            );
        }
        self.samples.validate()?;
        setup::check(&self.sft).map_err(|e| format!("algorithm.sft: {e}"))?;
        // Beta is the control's too.
        for loss in self.losses.iter().chain([&Loss::GEM_LINEAR]) {
            loss.kind(&self.sft.numbers()).map_err(|e| format!("algorithm.sft: {e}"))?;
        }
        let numbers = self.sft.numbers().into_iter().filter(|(name, _)| *name != "beta");
        Loss::refuse_idle(&self.losses, &numbers.collect::<Vec<_>>(), &Given::default())
            .map_err(|e| format!("algorithm.sft: {e}"))
    }

    /// The settings of one arm.
    fn arm(&self, loss: Loss, ctx: &Context<'_>) -> SftSettings {
        SftSettings { loss, seed: ctx.seed, steps: ctx.budget.steps.or(self.sft.steps), ..self.sft.clone() }
    }

    /// Name and settings of every arm.
    fn arms(&self, ctx: &Context<'_>) -> Vec<(&'static str, SftSettings)> {
        let mut arms: Vec<_> = self.losses.iter().map(|l| (l.name(), self.arm(*l, ctx))).collect();
        if self.decay > 0.0 {
            arms.push((DECAY, SftSettings { weight_decay: self.decay, ..self.arm(Loss::CE, ctx) }));
        }
        arms
    }

    fn report(&self, measured: &Measured, ctx: &mut Context<'_>) -> Metrics {
        let mut metrics = Metrics::default();
        let mut table = Table::new(std::iter::once("held out").chain(measured.names.iter().copied()));
        for (arm, values) in &measured.arms {
            for (name, value) in measured.names.iter().zip(values) {
                metrics.put(format!("{arm}/{name}"), *value);
            }
            table.row(std::iter::once(arm.clone()).chain(values.iter().map(|v| number(*v))));
        }
        ctx.show(Section::Table("Held-out data".to_owned(), table));
        if self.samples.prompts > 0 {
            ctx.show(Section::Text(self.samples.explained()));
        }
        ctx.show(Section::Text(format!(
            "control: the cross-entropy arm at temperature {}. Where the data are fitted, gem-linear at beta {} trains the \
             model that this temperature gives.",
            number(1.0 / self.sft.beta),
            self.sft.beta
        )));
        metrics
    }
}

impl Experiment for StudySettings {
    fn run(&self, ctx: &mut Context<'_>) -> Result<Metrics, Failure> {
        self.validate().map_err(Failure::usage)?;
        let measured = match self.sft.model {
            Some(_) => files::run(self, ctx)?,
            None => built_in::run(self, ctx)?,
        };
        Ok(self.report(&measured, ctx))
    }
}

/// Runs an arm for a number of steps.
fn drive(ctx: &mut Context<'_>, arm: &str, steps: u64, algorithm: &mut dyn Algorithm) -> Result<(), Failure> {
    let budget = ctx.budget;
    ctx.budget.steps = Some(steps);
    let outcome = ctx.drive(arm, algorithm);
    ctx.budget = budget;
    outcome.map(|_| ())
}
