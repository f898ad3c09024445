//! Trainings of one small decoder from scratch that differ in the optimizer, each at its best learning rate.

mod arm;
mod material;
mod trial;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::arm::Arm;
use self::material::Material;
use self::trial::Trial;
use super::{Experiment, Metrics};
use crate::exit::Failure;
use crate::report::{LinePlot, Section, Series};
use crate::session::Context;
use crate::table::{Table, number};

/// Settings of `pretrain`.
///
/// Of the held-out windows, the first half chooses among learning rates and the second half judges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PretrainSettings {
    /// A text file; prose is generated without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<PathBuf>,
    /// Bytes of generated prose, or of the file that are used at most. Every byte is a token.
    pub(crate) bytes: usize,
    /// Layers of the decoder.
    pub(crate) layers: usize,
    /// Its width.
    pub(crate) width: usize,
    /// Its heads.
    pub(crate) heads: usize,
    /// Windows of a step.
    pub(crate) batch: usize,
    /// Tokens of a window.
    pub(crate) tokens: usize,
    /// Windows held out at the end of the text.
    pub(crate) held_out: usize,
    /// Share of the steps in which the learning rate rises; it falls to zero by half a cosine.
    pub(crate) warmup: f64,
    /// Largest global norm of the gradient.
    pub(crate) clip: f64,
    /// Learning rates to choose from where an arm names none. They are tried with the first seed.
    pub(crate) lrs: Vec<f64>,
    /// What is compared; differences are taken to the first one.
    pub(crate) arms: Vec<Arm>,
}

impl Default for PretrainSettings {
    fn default() -> Self {
        PretrainSettings {
            text: None,
            bytes: 1 << 20,
            layers: 4,
            width: 128,
            heads: 4,
            batch: 8,
            tokens: 128,
            held_out: 128,
            warmup: 0.05,
            clip: 1.0,
            lrs: vec![1e-3],
            arms: Vec::new(),
        }
    }
}

/// Steps where the recipe names none.
const STEPS: u64 = 1000;

impl PretrainSettings {
    fn check(&self) -> Result<(), String> {
        if self.arms.is_empty() {
            return Err("algorithm.arms: name at least one".to_owned());
        }
        for (i, arm) in self.arms.iter().enumerate() {
            if self.arms[..i].iter().any(|a| a.name == arm.name) {
                return Err(format!("algorithm.arms: two are called {:?}", arm.name));
            }
            arm.check(&self.lrs).map_err(|e| format!("algorithm.arms, {:?}: {e}", arm.name))?;
        }
        if self.held_out < 2 {
            return Err("algorithm.held_out: at least 2, half to choose and half to judge".to_owned());
        }
        let fits = (0.0..1.0).contains(&self.warmup) && self.clip > 0.0 && self.clip.is_finite();
        if !fits {
            return Err("algorithm: warmup is a share of the steps below 1, clip a number above 0".to_owned());
        }
        Ok(())
    }
}

impl Experiment for PretrainSettings {
    fn run(&self, ctx: &mut Context<'_>) -> Result<Metrics, Failure> {
        self.check().map_err(Failure::usage)?;
        if ctx.budget.wall_s.is_some() {
            return Err(Failure::usage(
                "budget.wall_s: trainings are judged at the end of their schedule; set budget.steps instead",
            ));
        }
        let material = Material::new(self, ctx.seed)?;
        let mut found = Vec::with_capacity(self.arms.len());
        for arm in &self.arms {
            found.push(self.arm(arm, &material, ctx)?);
        }
        Ok(self.report(&found, &material, ctx))
    }
}

/// All that was tried for one arm.
struct Found {
    trials: Vec<Trial>,
    /// The one with the lowest validation loss; none when all diverged.
    best: Option<usize>,
}

impl Found {
    fn best(&self) -> Option<&Trial> {
        self.best.map(|i| &self.trials[i])
    }

    /// The rates of the best one, and whether better ones may lie outside what was tried.
    fn told(&self, best: &Trial) -> String {
        let label = best.candidate.label();
        let rates = || self.trials.iter().map(|t| t.candidate.optimizer.lr * t.candidate.ratio);
        let own = best.candidate.optimizer.lr * best.candidate.ratio;
        let (below, above) = (rates().any(|r| r < own), rates().any(|r| r > own));
        if self.trials.len() > 1 && !(below && above) { format!("{label} (edge)") } else { label }
    }
}

impl PretrainSettings {
    fn arm(&self, arm: &Arm, material: &Material, ctx: &mut Context<'_>) -> Result<Found, Failure> {
        let mut candidates = arm.candidates(&self.lrs, material.layout(), ctx.seed);
        // What the first seed chose holds for the others, unless an arm is another one with every seed.
        let chosen = ctx.first_of(&format!("{}/choice", arm.name)).filter(|c| c.is_finite());
        if let Some(chosen) = chosen.filter(|_| !arm.is_drawn()) {
            candidates = candidates.into_iter().skip(chosen as usize).take(1).collect();
        }
        let alone = candidates.len() == 1;
        let mut trials = Vec::with_capacity(candidates.len());
        for c in candidates {
            let folder = if alone { arm.name.clone() } else { format!("grid/{}-{}", arm.name, c.label()) };
            trials.push(trial::run(self, c, &folder, material, ctx)?);
        }
        let finite = trials.iter().enumerate().filter(|(_, t)| t.validation.is_finite());
        let best = finite.min_by(|a, b| a.1.validation.total_cmp(&b.1.validation)).map(|(i, _)| i);
        Ok(Found { trials, best })
    }

    fn report(&self, found: &[Found], material: &Material, ctx: &mut Context<'_>) -> Metrics {
        let mut metrics = Metrics::default();
        let first = found.first().and_then(Found::best).map_or(f64::NAN, |t| t.test);
        let versus = format!("minus {}", self.arms.first().map_or("", |a| &a.name));
        let mut table =
            Table::new(["arm", "tried", "best", "validation", "held-out loss", &versus, "state, bytes"]);
        let (mut grid, mut curves) = (Vec::new(), Vec::new());
        for (arm, f) in self.arms.iter().zip(found) {
            let (label, choice, validation, test) = match f.best() {
                Some(t) => (f.told(t), t.candidate.place as f64, t.validation, t.test),
                None => ("diverged".to_owned(), f64::NAN, f64::NAN, f64::NAN),
            };
            for (name, value) in [
                ("choice", choice),
                ("validation", validation),
                ("loss", test),
                ("minus-first", test - first),
                ("lr", f.best().map_or(f64::NAN, |t| t.candidate.optimizer.lr)),
            ] {
                metrics.put(format!("{}/{name}", arm.name), value);
            }
            let bytes = f.best().map_or(0, |t| t.state_bytes);
            table.row([
                arm.name.clone(),
                f.trials.len().to_string(),
                label,
                number(validation),
                number(test),
                number(test - first),
                bytes.to_string(),
            ]);
            let points = f.trials.iter().filter(|t| t.validation.is_finite());
            grid.push(Series::new(
                arm.name.clone(),
                points.map(|t| (t.candidate.optimizer.lr * t.candidate.ratio, t.validation)).collect(),
            ));
            curves.extend(f.best().map(|t| Series::new(arm.name.clone(), t.curve.clone())));
        }
        ctx.show(Section::Table("Loss per token at the end of the schedule".to_owned(), table));
        ctx.show(Section::Text(material.description()));
        let plot = |title: &str, x: &str, log_x, series| {
            Section::Lines(LinePlot {
                title: title.to_owned(),
                x: x.to_owned(),
                y: "nats per token".to_owned(),
                log_x,
                series,
                ..LinePlot::default()
            })
        };
        ctx.show(plot("Validation loss during training, each at its best rate", "step", false, curves));
        if found.iter().any(|f| f.trials.len() > 1) {
            ctx.show(plot("Validation loss at the end", "learning rate", true, grid));
        }
        metrics
    }
}
