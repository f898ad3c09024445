use std::ops::Range;

use rhumb_core::{EvalError, Layout, Role};
use rhumb_linalg::rng::Rng;
use rhumb_linalg::{Real, compiled};
use serde::{Deserialize, Serialize};

use super::config::ModelError;
use crate::loss::{LogitLoss, LossKind, Mse};
use crate::op::IGNORE;
use crate::ops::{Act, Activation, Linear};
use crate::tape::{Graph, Span, Src, Var};

mod objective;

pub use objective::MlpObjective;

/// What a multilayer perceptron is trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MlpLoss {
    /// Cross-entropy of the softmax of the outputs against a label, mean over rows.
    #[default]
    CrossEntropy,
    /// Another loss of the table on the outputs and a label, mean over rows. The noise of `neft` is left to whoever
    /// makes the batches: there are no embeddings here.
    Scores(LossKind),
    /// Squared error, mean over rows and outputs.
    Mse,
}

/// The shape of a multilayer perceptron.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpConfig {
    /// Widths: inputs, hidden layers, outputs. Two numbers make a linear model.
    pub sizes: Vec<usize>,
    /// Activation after every layer but the last.
    pub activation: Act,
    /// Every layer has a bias.
    pub bias: bool,
    /// Loss on the outputs.
    pub loss: MlpLoss,
}

/// The labels or values that a batch asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets<T> {
    /// `[rows]`, one class a row, for [`MlpLoss::CrossEntropy`] and [`MlpLoss::Scores`]; [`IGNORE`] takes no part.
    Labels(Vec<u32>),
    /// `[rows, outputs]`, for [`MlpLoss::Mse`].
    Values(Vec<T>),
}

/// Rows of one evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct MlpBatch<T> {
    /// Rows.
    pub rows: usize,
    /// `[rows, inputs]`.
    pub inputs: Vec<T>,
    /// What they should give.
    pub targets: Targets<T>,
    /// Factor on the sum over rows; zero stands for the mean.
    pub weight: f64,
}

#[derive(Clone, Debug)]
struct Layer {
    inp: usize,
    out: usize,
    w: Range<usize>,
    bias: Option<Range<usize>>,
}

/// A multilayer perceptron: one definition for training, prediction and second derivatives.
///
/// # Equation
/// `h_0 = x`, `h_i = f(h_{i-1} W_i^T + b_i)`, outputs `h_{n-1} W_n^T + b_n` without `f`.
///
/// # Shapes
/// `W_i [out, in]`, `b_i [out]`, named `layers.i.weight` and `layers.i.bias` from 0 on. The last weight has the
/// role of a head, so that block-wise optimizers treat each output by itself.
#[derive(Clone, Debug)]
pub struct Mlp {
    config: MlpConfig,
    layout: Layout,
    layers: Vec<Layer>,
}

compiled!(MakeGraph<'a>, |(model, rows, loss): (&'a Mlp, usize, bool)| -> (Graph<T>, Var) {
    model.built(rows, loss)
});

impl Mlp {
    /// A perceptron of that shape.
    ///
    /// # Errors
    /// [`ModelError::Sizes`] with fewer than two widths, a width of zero, or more parameters than memory can hold.
    pub fn new(config: MlpConfig) -> Result<Self, ModelError> {
        let bad = |what: &str| ModelError::Sizes { sizes: config.sizes.clone(), what: what.into() };
        if config.sizes.len() < 2 {
            return Err(bad("give at least the number of inputs and the number of outputs"));
        }
        if config.sizes.contains(&0) {
            return Err(bad("every width must be at least 1"));
        }
        let weights = config.sizes.windows(2).try_fold(0_usize, |sum, s| {
            s[0].checked_add(1)?.checked_mul(s[1])?.checked_add(sum).filter(|n| *n <= isize::MAX as usize / 8)
        });
        if weights.is_none() {
            return Err(bad("so many parameters fit no memory"));
        }
        let (mut layout, mut layers) = (Layout::new(), Vec::new());
        let last = config.sizes.len() - 2;
        for (i, s) in config.sizes.windows(2).enumerate() {
            let role = if i == last { Role::Head } else { Role::Mlp };
            let w = layout.push(format!("layers.{i}.weight"), &[s[1], s[0]], role);
            let bias = config.bias.then(|| layout.push(format!("layers.{i}.bias"), &[s[1]], Role::Bias));
            layers.push(Layer { inp: s[0], out: s[1], w, bias });
        }
        Ok(Mlp { config, layout, layers })
    }

    /// The configuration.
    pub fn config(&self) -> &MlpConfig {
        &self.config
    }

    /// The trained tensors.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Values in one row of the input.
    pub fn inputs(&self) -> usize {
        self.layers.first().map_or(0, |l| l.inp)
    }

    /// Values in one row of the output.
    pub fn outputs(&self) -> usize {
        self.layers.last().map_or(0, |l| l.out)
    }

    /// Fresh parameters.
    ///
    /// # Equation
    /// Weights and biases uniform in `+-1/sqrt(in)`, one stream per tensor name: the default of PyTorch's
    /// `nn.Linear` (Kaiming uniform with `a = sqrt 5`; LeCun et al. 1998).
    pub fn init<T: Real>(&self, seed: u64) -> Vec<T> {
        let mut out = vec![T::ZERO; self.layout.len()];
        for layer in &self.layers {
            let bound = 1.0 / (layer.inp as f64).sqrt();
            for range in [Some(&layer.w), layer.bias.as_ref()].into_iter().flatten() {
                let name = self.layout.blocks().iter().find(|b| b.range == *range).map_or("", |b| &b.name);
                let mut rng = Rng::named(seed, name);
                out[range.clone()].iter_mut().for_each(|v| *v = T::of((2.0 * rng.uniform() - 1.0) * bound));
            }
        }
        out
    }

    /// The computation for batches of `rows` rows, with or without its loss; returns the outputs as well.
    ///
    /// The first outside input is `[rows, inputs]`; the squared error has a second one, `[rows, outputs]`.
    pub fn graph<T: Real>(&self, rows: usize, loss: bool) -> (Graph<T>, Var) {
        T::compiled::<MakeGraph<'_>>((self, rows, loss))
    }

    fn built<T: Real>(&self, rows: usize, loss: bool) -> (Graph<T>, Var) {
        let mut g = Graph::new();
        let mut x = g.input(rows * self.inputs(), false);
        for (i, l) in self.layers.iter().enumerate() {
            if i > 0 {
                x = g.push(Activation { len: rows * l.inp, act: self.config.activation }, &[x.into()]);
            }
            let op = Linear { rows, inp: l.inp, out: l.out, bias: l.bias.is_some(), residual: false };
            let mut inputs = vec![x.into(), trained(&l.w)];
            inputs.extend(l.bias.as_ref().map(trained));
            x = g.push(op, &inputs);
        }
        match (loss, self.config.loss) {
            (false, _) => {}
            (true, MlpLoss::CrossEntropy) => {
                g.finish(LogitLoss::new(rows, self.outputs(), LossKind::Ce), &[x.into()]);
            }
            (true, MlpLoss::Scores(kind)) => {
                g.finish(LogitLoss::new(rows, self.outputs(), kind), &[x.into()]);
            }
            (true, MlpLoss::Mse) => {
                let len = rows * self.outputs();
                let target = g.input(len, false);
                g.finish(Mse { len }, &[x.into(), target.into()]);
            }
        }
        (g, x)
    }

    /// Checks that a batch fits, so that no later loop can run out of a slice.
    fn check<T: Real>(&self, batch: &MlpBatch<T>) -> Result<(), EvalError> {
        let rows = batch.rows;
        check_rows("inputs", &batch.inputs, rows, self.inputs())?;
        match (&batch.targets, self.config.loss) {
            // Labels are checked where they are read.
            (Targets::Labels(_), MlpLoss::CrossEntropy | MlpLoss::Scores(_)) => Ok(()),
            (Targets::Values(v), MlpLoss::Mse) => check_rows("target values", v, rows, self.outputs()),
            (Targets::Values(_), MlpLoss::CrossEntropy | MlpLoss::Scores(_)) => {
                Err(EvalError::Unsupported(
                    "the batch holds target values, but the loss needs labels: choose the loss mse".into(),
                ))
            }
            (Targets::Labels(_), MlpLoss::Mse) => Err(EvalError::Unsupported(
                "the batch holds labels, but the squared error needs target values: choose the loss cross-entropy"
                    .into(),
            )),
        }
    }

    /// The factor that the tape puts on its loss.
    fn tape_weight<T>(&self, batch: &MlpBatch<T>) -> f64 {
        let live = match &batch.targets {
            Targets::Labels(l) => l.iter().filter(|t| **t != IGNORE).count(),
            Targets::Values(_) => batch.rows,
        };
        let row = if batch.weight > 0.0 { batch.weight } else { 1.0 / live.max(1) as f64 };
        match self.config.loss {
            MlpLoss::CrossEntropy | MlpLoss::Scores(_) => row,
            // The operation halves the sum of squares, and a row's loss is the mean over its outputs.
            MlpLoss::Mse => 2.0 * row / self.outputs() as f64,
        }
    }
}

fn trained(range: &Range<usize>) -> Src {
    Src::Param(Span { range: range.clone(), trainable: true })
}

fn check_rows<T: Real>(what: &'static str, x: &[T], rows: usize, width: usize) -> Result<(), EvalError> {
    if rows == 0 {
        return Err(EvalError::Unsupported("the batch is empty: give it at least one row".into()));
    }
    match rows.checked_mul(width) {
        Some(want) if want == x.len() => {}
        want => return Err(EvalError::Shape { what, want: want.unwrap_or(usize::MAX), got: x.len() }),
    }
    match x.iter().position(|v| !v.is_finite()) {
        Some(i) => Err(EvalError::NonFinite {
            what: "a value of the batch",
            block: Some(format!("{what}, row {}, column {}", i / width, i % width)),
        }),
        None => Ok(()),
    }
}
