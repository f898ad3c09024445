//! How near the Hessian of a hidden layer is to one block for each neuron, by classes and through training.

mod blocks;
mod student;
#[cfg(test)]
mod tests;

use rhumb_nn::model::{Mlp, MlpConfig, MlpLoss};
use rhumb_nn::ops::Act;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::blocks::{Shares, hidden_hessian};
use self::student::{Set, Student};
use super::{Experiment, Metrics};
use crate::exit::{Code, Failure};
use crate::report::{LinePlot, Section, Series};
use crate::session::Context;
use crate::table::{Table, number};

/// Settings of `hessian-mlp`.
///
/// # Equation
/// `inputs -> hidden ReLU -> classes` without biases, trained by Adam with a rate that falls to zero on a straight line.
/// Measured is the part of the squared Frobenius norm of the Hessian in the hidden weights, over all rows, that lies
/// inside the blocks of one neuron.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BlockSettings {
    /// Width of the input.
    pub(crate) inputs: usize,
    /// Hidden neurons.
    pub(crate) hidden: usize,
    /// Numbers of classes, from few to many.
    pub(crate) classes: Vec<usize>,
    /// Rows of data, to train on and to measure with.
    pub(crate) rows: usize,
    /// Rows of a training batch.
    pub(crate) batch: usize,
    /// First learning rate.
    pub(crate) lr: f64,
    /// Parts of the training after which is measured, in per cent.
    pub(crate) stages: Vec<f64>,
    /// Trainings, each with every number of classes.
    pub(crate) arms: Vec<BlockArm>,
}

/// A loss on inputs of a kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlockArm {
    /// Its name in the results.
    pub(crate) name: String,
    /// Squared error against one-hot targets instead of cross-entropy.
    #[serde(default)]
    pub(crate) squared: bool,
    /// The covariance of the inputs has the eigenvalues `k^-decay` in a random basis; 0 stands for independent inputs.
    #[serde(default)]
    pub(crate) decay: f64,
}

impl Default for BlockSettings {
    fn default() -> Self {
        let arm = |name: &str, squared, decay| BlockArm { name: name.to_owned(), squared, decay };
        BlockSettings {
            inputs: 32,
            hidden: 8,
            classes: vec![10, 30, 100],
            rows: 2000,
            batch: 100,
            lr: 0.01,
            stages: vec![0.0, 1.0, 50.0, 100.0],
            arms: vec![arm("ce", false, 1.0), arm("mse", true, 1.0), arm("ce-independent", false, 0.0)],
        }
    }
}

/// Steps where the recipe names none.
const STEPS: u64 = 1000;

/// What was measured at one stage.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Stage {
    inside: f64,
    random: f64,
    off_inside: f64,
    loss: f64,
    /// Share of rows whose label has the largest score; zero for the squared error.
    accuracy: f64,
}

impl BlockSettings {
    fn check(&self) -> Result<(), String> {
        if self.inputs < 2 || self.hidden < 2 || self.rows == 0 || self.batch == 0 {
            return Err(
                "algorithm: inputs and hidden have to be at least 2, rows and batch at least 1".to_owned()
            );
        }
        if self.classes.is_empty() || self.classes[0] < 2 || !self.classes.is_sorted_by(|a, b| a < b) {
            return Err("algorithm.classes: give numbers from 2 on, each larger than the last".to_owned());
        }
        if !(self.lr > 0.0 && self.lr.is_finite()) {
            return Err(format!("algorithm.lr: {} is no learning rate; give one above 0", self.lr));
        }
        let within = self.stages.iter().all(|s| (0.0..=100.0).contains(s));
        if self.stages.first().is_none_or(|s| *s > 0.0) || !within || !self.stages.is_sorted_by(|a, b| a < b)
        {
            return Err(
                "algorithm.stages: give per cents from 0 to 100, the first one 0, each larger than the last"
                    .to_owned(),
            );
        }
        for (i, arm) in self.arms.iter().enumerate() {
            if self.arms[..i].iter().any(|a| a.name == arm.name) {
                return Err(format!("algorithm.arms: {} is given twice", arm.name));
            }
            if !(arm.decay >= 0.0 && arm.decay.is_finite()) {
                return Err(format!(
                    "algorithm.arms, {}: decay {} is below 0 or not finite",
                    arm.name, arm.decay
                ));
            }
        }
        if self.arms.is_empty() { Err("algorithm.arms: give at least one".to_owned()) } else { Ok(()) }
    }

    fn model(&self, classes: usize, squared: bool) -> Result<Mlp, Failure> {
        let loss = if squared { MlpLoss::Mse } else { MlpLoss::CrossEntropy };
        let sizes = vec![self.inputs, self.hidden, classes];
        let config = MlpConfig { sizes, activation: Act::Relu, bias: false, loss };
        Mlp::new(config).map_err(|e| Failure::new(Code::Usage, e))
    }

    /// Trains and measures at every stage.
    fn study(
        &self,
        name: &str,
        arm: &BlockArm,
        classes: usize,
        ctx: &mut Context<'_>,
    ) -> Result<Vec<Stage>, Failure> {
        let steps = ctx.budget.steps.unwrap_or(STEPS);
        ctx.budget.steps = Some(steps);
        let data = Set::draw(ctx.seed, self.rows, self.inputs, classes, arm.decay);
        let model = self.model(classes, arm.squared)?;
        let at: Vec<u64> = self.stages.iter().map(|s| (s / 100.0 * steps as f64).round() as u64).collect();
        let how = (self.lr, self.batch);
        let mut student = Student::new(model, &data, arm.squared, how, ctx.seed, steps, &at)
            .map_err(|e| Failure::new(Code::Usage, e))?;
        ctx.drive(name, &mut student)?;
        let (mut objective, kept) = student.finish();
        let whole = data.batch(&(0..self.rows).collect::<Vec<_>>(), arm.squared);
        let mut out = Vec::new();
        for params in kept {
            let numerical = |e| Failure::new(Code::Numerical, e);
            let hessian = hidden_hessian(&mut objective, &params, &whole).map_err(numerical)?;
            let s = Shares::of(&hessian, self.hidden * self.inputs, self.inputs);
            let report = objective.report(&params, &whole).map_err(numerical)?;
            out.push(Stage {
                inside: s.inside,
                random: s.random,
                off_inside: s.off_inside,
                loss: report.loss,
                accuracy: report.correct as f64 / self.rows as f64,
            });
        }
        Ok(out)
    }
}

fn least(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(f64::INFINITY, f64::min)
}

/// Numbers over all classes (outer) and stages of an arm.
fn summary(arm: &str, all: &[Vec<Stage>], metrics: &mut Metrics) {
    let flat = || all.iter().flatten();
    let rise = |at: usize| least(all.windows(2).map(|w| w[1][at].inside - w[0][at].inside));
    let kept = all.iter().flat_map(|s| s.iter().map(|t| t.inside / s[0].inside));
    let stages = all.first().map_or(0, Vec::len);
    metrics
        .put(format!("{arm}/rise"), least((0..stages).map(rise)))
        .put(format!("{arm}/first_rise"), rise(0))
        .put(format!("{arm}/last_rise"), rise(stages.saturating_sub(1)))
        .put(format!("{arm}/kept"), least(kept))
        .put(format!("{arm}/least"), least(flat().map(|s| s.inside)))
        .put(format!("{arm}/above_random"), least(flat().map(|s| s.inside - s.random)))
        .put(format!("{arm}/off_inside"), least(flat().map(|s| s.off_inside)));
}

impl Experiment for BlockSettings {
    fn run(&self, ctx: &mut Context<'_>) -> Result<Metrics, Failure> {
        self.check().map_err(Failure::usage)?;
        let n = (self.hidden * self.inputs) as f64;
        let mut metrics = Metrics::default();
        metrics
            .put("blank/inside", 1.0 / self.hidden as f64)
            .put("blank/off_inside", (self.inputs as f64 - 1.0) / (n - 1.0));
        let header = [
            "arm",
            "classes",
            "training",
            "loss",
            "accuracy",
            "inside",
            "random groups",
            "beside the diagonal",
        ];
        let mut table = Table::new(header);
        let mut curves = Vec::new();
        for arm in &self.arms {
            let mut all = Vec::new();
            for &classes in &self.classes {
                let name = format!("{}-c{classes}", arm.name);
                let stages = ctx.once(&name, |ctx| self.study(&name, arm, classes, ctx))?;
                for (percent, s) in self.stages.iter().zip(&stages) {
                    let key = format!("{}/c{classes}/{percent}", arm.name);
                    metrics
                        .put(format!("{key}/inside"), s.inside)
                        .put(format!("{key}/random"), s.random)
                        .put(format!("{key}/off_inside"), s.off_inside)
                        .put(format!("{key}/loss"), s.loss);
                    let values = [s.inside, s.random, s.off_inside].map(number);
                    let accuracy = if arm.squared { String::new() } else { number(s.accuracy) };
                    let cells = [
                        arm.name.clone(),
                        classes.to_string(),
                        format!("{percent} %"),
                        number(s.loss),
                        accuracy,
                    ];
                    table.row(cells.into_iter().chain(values));
                }
                let points = self.stages.iter().zip(&stages).map(|(p, s)| (*p, s.inside)).collect();
                curves.push(Series::new(format!("{}, {classes} classes", arm.name), points));
                all.push(stages);
            }
            summary(&arm.name, &all, &mut metrics);
        }
        ctx.show(Section::Table(
            "Squared norm of the hidden Hessian inside the blocks of neurons".to_owned(),
            table,
        ));
        ctx.show(Section::Text(format!(
            "A Hessian without structure would have {} inside, and {} of what lies beside the diagonal. Random groups \
             have the size of the blocks; the diagonal lies inside of any.",
            number(1.0 / self.hidden as f64),
            number((self.inputs as f64 - 1.0) / (n - 1.0))
        )));
        ctx.show(Section::Lines(LinePlot {
            title: "Inside the blocks".to_owned(),
            x: "per cent of the training".to_owned(),
            y: "part of the squared norm".to_owned(),
            series: curves.into_iter().take(6).collect(),
            ..LinePlot::default()
        }));
        Ok(metrics)
    }
}
