//! Five logits trained on given frequencies: where each loss comes to rest.

use rhumb_core::{
    Algorithm, CheckpointError, EvalError, MemoryReport, StateReader, StateWriter, Status, Step,
};
use rhumb_nn::loss::{LossKind, row};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Experiment, Metrics};
use crate::exit::{Code, Failure};
use crate::report::{BarPlot, Section, Series};
use crate::session::Context;
use crate::table::{Table, number};

/// Settings of `gem-fixed-point`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FixedPointSettings {
    /// Frequency of every token in the data; they add up to 1.
    pub(crate) data: Vec<f64>,
    /// Names of losses, each with its usual parameter.
    pub(crate) losses: Vec<String>,
    /// The temperature inside GEM.
    pub(crate) beta: f64,
    /// Learning rate of gradient descent on the logits, which begin at zero.
    pub(crate) lr: f64,
}

impl Default for FixedPointSettings {
    fn default() -> Self {
        let losses = ["ce", "gem-linear", "gem-logsigmoid", "ce+entropy", "label-smoothing", "dft"];
        FixedPointSettings {
            data: vec![0.5, 0.25, 0.15, 0.07, 0.03],
            losses: losses.map(String::from).to_vec(),
            beta: 0.7,
            lr: 0.5,
        }
    }
}

/// Steps where the recipe names none.
const STEPS: u64 = 20_000;
/// Records of a descent.
const RECORDS: u64 = 50;

/// Gradient descent on the mean loss over the data, `sum_y d_y L(z, y)`.
struct Descent<'a> {
    kind: LossKind,
    data: &'a [f64],
    lr: f64,
    steps: u64,
    z: Vec<f64>,
}

impl Descent<'_> {
    fn distribution(&self) -> Vec<f64> {
        let max = self.z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        normalised(self.z.iter().map(|z| (z - max).exp()))
    }
}

impl Algorithm for Descent<'_> {
    fn name(&self) -> &'static str {
        "fixed-point"
    }

    fn step(&mut self, s: &mut Step<'_>) -> Result<Status, EvalError> {
        let mut total = vec![0.0; self.z.len()];
        for (y, d) in self.data.iter().enumerate() {
            let mut g = self.z.clone();
            row::row(self.kind, &mut g, y, Some(*d));
            total.iter_mut().zip(&g).for_each(|(t, g)| *t += g);
        }
        self.z.iter_mut().zip(&total).for_each(|(z, g)| *z -= self.lr * g);
        if self.z.iter().any(|z| !z.is_finite()) {
            return Err(EvalError::NonFinite { what: "a logit", block: None });
        }
        s.evals.gradients += 1;
        if s.k.is_multiple_of((self.steps / RECORDS).max(1)) || s.k + 1 == self.steps {
            s.record.put("entropy", entropy(&self.distribution()));
            s.record.put("gradient", total.iter().map(|g| g * g).sum::<f64>().sqrt());
        }
        Ok(Status::Continue)
    }

    fn save(&self, out: &mut StateWriter<'_>) -> Result<(), CheckpointError> {
        out.put_reals("z", &self.z)
    }

    fn load(&mut self, src: &mut StateReader) -> Result<(), CheckpointError> {
        src.reals("z", &mut self.z)
    }

    fn memory(&self) -> MemoryReport {
        MemoryReport { parameters: size_of_val(&self.z[..]) as u64, ..MemoryReport::default() }
    }
}

fn normalised(weights: impl Iterator<Item = f64>) -> Vec<f64> {
    let weights: Vec<f64> = weights.collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|w| w / total).collect()
}

fn entropy(p: &[f64]) -> f64 {
    p.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

impl FixedPointSettings {
    fn check(&self) -> Result<(), String> {
        let total: f64 = self.data.iter().sum();
        let positive = self.data.iter().all(|d| *d > 0.0);
        if self.data.len() < 2 || !positive || (total - 1.0).abs() > 1e-9 {
            return Err("algorithm.data: give at least two numbers above 0 that add up to 1".to_owned());
        }
        let fits = !self.losses.is_empty() && self.lr > 0.0 && self.lr.is_finite();
        if !fits {
            return Err("algorithm: name at least one loss, and a learning rate above 0".to_owned());
        }
        Ok(())
    }

    fn kind(&self, name: &str) -> Result<LossKind, Failure> {
        let beta = name.starts_with("gem-").then_some(self.beta);
        let kind = LossKind::parse(name, beta).map_err(|e| Failure::new(Code::Usage, e))?;
        match kind {
            LossKind::Neft { .. } => Err(Failure::usage(
                "algorithm.losses: neft puts noise on embeddings, and there are none here",
            )),
            kind => Ok(kind),
        }
    }

    /// Where theory puts the minimum, for the losses that have a closed form.
    fn predicted(&self, kind: LossKind) -> Option<Vec<f64>> {
        let n = self.data.len() as f64;
        match kind {
            LossKind::Ce => Some(self.data.clone()),
            LossKind::GemLinear { beta } => Some(normalised(self.data.iter().map(|d| d.powf(beta)))),
            LossKind::LabelSmoothing { smoothing } => {
                Some(self.data.iter().map(|d| (1.0 - smoothing) * d + smoothing / n).collect())
            }
            _ => None,
        }
    }
}

impl Experiment for FixedPointSettings {
    fn run(&self, ctx: &mut Context<'_>) -> Result<Metrics, Failure> {
        self.check().map_err(Failure::usage)?;
        let steps = ctx.budget.steps.unwrap_or(STEPS);
        ctx.budget.steps = Some(steps);
        let powers = normalised(self.data.iter().map(|d| d.powf(self.beta)));
        let mut metrics = Metrics::default();
        metrics.put("data/entropy", entropy(&self.data));
        let mut table = Table::new(["loss", "entropy", "from its prediction", "from data^beta"]);
        table.row([
            "(the data)".to_owned(),
            number(entropy(&self.data)),
            String::new(),
            number(distance(&self.data, &powers)),
        ]);
        let mut bars = vec![Series::new("data", self.data.clone())];
        for name in &self.losses {
            let kind = self.kind(name)?;
            let z = vec![0.0; self.data.len()];
            let mut descent = Descent { kind, data: &self.data, lr: self.lr, steps, z };
            ctx.drive(name, &mut descent)?;
            let p = descent.distribution();
            let error = self.predicted(kind).map(|want| distance(&p, &want));
            metrics.put(format!("{name}/entropy"), entropy(&p));
            metrics.put(format!("{name}/from-powers"), distance(&p, &powers));
            if let Some(error) = error {
                metrics.put(format!("{name}/error"), error);
            }
            table.row([
                name.clone(),
                number(entropy(&p)),
                error.map_or_else(String::new, number),
                number(distance(&p, &powers)),
            ]);
            bars.push(Series::new(name.clone(), p));
        }
        ctx.show(Section::Table("Where descent comes to rest".to_owned(), table));
        ctx.show(Section::Bars(BarPlot {
            title: "Probabilities".to_owned(),
            y: "probability".to_owned(),
            groups: (1..=self.data.len()).map(|i| format!("token {i}")).collect(),
            series: bars.into_iter().take(6).collect(),
        }));
        Ok(metrics)
    }
}
