//! Adam-mini beside AdamW on a quadratic whose Hessian is block-diagonal with dense blocks.

use rhumb_core::{
    Algorithm, CheckpointError, EvalError, Layout, MemoryReport, Optimizer, Role, StateReader, StateWriter,
    Status, Step,
};
use rhumb_linalg::rng::Rng;
use rhumb_optim::adam_mini::{Cut, TensorPlan};
use rhumb_optim::{AdamMini, AdamParams, AdamW, Partition};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Experiment, Metrics};
use crate::exit::Failure;
use crate::report::Section;
use crate::session::Context;
use crate::table::{Table, number};

/// Settings of `adam-mini-quadratic`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct QuadraticSettings {
    /// Rows of a Hessian block.
    pub(crate) block: usize,
    /// Eigenvalues of each block; a block draws its own from its list.
    pub(crate) eigenvalues: Vec<Vec<f64>>,
    /// Learning rates at the first step; they fall to zero on a straight line. The best one counts.
    pub(crate) lrs: Vec<f64>,
    /// Decay of the first moment.
    pub(crate) beta1: f64,
    /// Decay of the second moment.
    pub(crate) beta2: f64,
    /// Steps between two records.
    pub(crate) record_every: u64,
}

impl Default for QuadraticSettings {
    fn default() -> Self {
        QuadraticSettings {
            block: 30,
            eigenvalues: vec![vec![1.0, 2.0, 3.0], vec![99.0, 100.0, 101.0], vec![4998.0, 4999.0, 5000.0]],
            lrs: vec![0.0003, 0.001, 0.002, 0.003, 0.005, 0.01, 0.03, 0.1],
            beta1: 0.9,
            beta2: 0.95,
            record_every: 20,
        }
    }
}

/// Steps where the recipe names none.
const STEPS: u64 = 1000;

/// `x -> x^T H x / 2` and an optimizer on it.
struct Descent {
    name: &'static str,
    hessian: Vec<Vec<f64>>,
    block: usize,
    x: Vec<f64>,
    grad: Vec<f64>,
    loss: f64,
    optimizer: Box<dyn Optimizer<f64>>,
    lr: f64,
    steps: u64,
    record_every: u64,
}

impl Descent {
    fn evaluate(&mut self) -> f64 {
        let n = self.block;
        self.loss = 0.0;
        for (b, h) in self.hessian.iter().enumerate() {
            let x = &self.x[b * n..(b + 1) * n];
            for i in 0..n {
                let row: f64 = h[i * n..(i + 1) * n].iter().zip(x).map(|(h, x)| h * x).sum();
                self.grad[b * n + i] = row;
                self.loss += 0.5 * row * x[i];
            }
        }
        self.loss
    }
}

impl Algorithm for Descent {
    fn name(&self) -> &'static str {
        self.name
    }

    fn step(&mut self, s: &mut Step<'_>) -> Result<Status, EvalError> {
        let loss = self.evaluate();
        s.evals.gradients += 1;
        if !loss.is_finite() {
            return Err(EvalError::NonFinite { what: "the loss", block: None });
        }
        if s.k.is_multiple_of(self.record_every) || s.k + 1 == self.steps {
            s.record.put("loss", loss);
        }
        let left = 1.0 - s.k as f64 / self.steps as f64;
        self.optimizer.step(self.lr * left, &mut self.x, &self.grad);
        Ok(Status::Continue)
    }

    fn save(&self, out: &mut StateWriter<'_>) -> Result<(), CheckpointError> {
        out.put_reals("x", &self.x)?;
        self.optimizer.save(out)
    }

    fn load(&mut self, src: &mut StateReader) -> Result<(), CheckpointError> {
        src.reals("x", &mut self.x)?;
        self.optimizer.load(src)
    }

    fn memory(&self) -> MemoryReport {
        let bytes = |v: &[f64]| size_of_val(v) as u64;
        MemoryReport {
            parameters: bytes(&self.x),
            gradients: bytes(&self.grad),
            optimizer: self.optimizer.state_bytes() as u64,
            ..MemoryReport::default()
        }
    }
}

/// `Q diag(values) Q^T` with a random orthogonal `Q`: the values drawn from the list, `Q` a product of
/// reflections in normal directions, applied from both sides.
fn dense_block(n: usize, values: &[f64], rng: &mut Rng) -> Vec<f64> {
    let mut h = vec![0.0; n * n];
    for i in 0..n {
        h[i * n + i] = values[rng.below(values.len())];
    }
    for _ in 0..n {
        let v: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
        let vv: f64 = v.iter().map(|a| a * a).sum();
        reflect(&mut h, &v, vv, n, 1);
        reflect(&mut h, &v, vv, 1, n);
    }
    h
}

/// `H - 2 v (v^T H) / v^T v` along rows (`outer = n`, `inner = 1`) or columns.
fn reflect(h: &mut [f64], v: &[f64], vv: f64, outer: usize, inner: usize) {
    for j in 0..v.len() {
        let dot: f64 = v.iter().enumerate().map(|(i, v)| v * h[i * outer + j * inner]).sum();
        for (i, v) in v.iter().enumerate() {
            h[i * outer + j * inner] -= 2.0 * v * dot / vv;
        }
    }
}

impl QuadraticSettings {
    fn validate(&self) -> Result<(), String> {
        let finite = |v: &[f64]| !v.is_empty() && v.iter().all(|x| x.is_finite() && *x > 0.0);
        if self.block == 0 || self.record_every == 0 {
            return Err("algorithm.block and algorithm.record_every: give numbers above 0".to_owned());
        }
        if self.eigenvalues.is_empty() || !self.eigenvalues.iter().all(|e| finite(e)) || !finite(&self.lrs) {
            return Err("algorithm.eigenvalues and algorithm.lrs: give positive numbers".to_owned());
        }
        Ok(())
    }

    fn optimizer(&self, mini: bool) -> Result<Box<dyn Optimizer<f64>>, Failure> {
        let wrong = |e: rhumb_optim::OptimError| Failure::usage(e.to_string());
        let mut layout = Layout::new();
        for i in 0..self.eigenvalues.len() {
            layout.push(format!("block.{i}"), &[self.block], Role::Other);
        }
        let whole = Cut { elements: self.block, block: self.block };
        let plans = vec![TensorPlan { cuts: vec![whole], decay: false }; self.eigenvalues.len()];
        let partition = Partition::custom("hessian-blocks", &layout, plans).map_err(wrong)?;
        let params = AdamParams::new(self.beta1, self.beta2, 1e-12, 0.0).map_err(wrong)?;
        Ok(if mini {
            Box::new(AdamMini::new(&layout, partition, params))
        } else {
            Box::new(AdamW::new(&layout, &partition, params))
        })
    }
}

impl Experiment for QuadraticSettings {
    fn run(&self, ctx: &mut Context<'_>) -> Result<Metrics, Failure> {
        self.validate().map_err(Failure::usage)?;
        let steps = ctx.budget.steps.unwrap_or(STEPS);
        ctx.budget.steps = Some(steps);
        let mut rng = Rng::named(ctx.seed, "quadratic");
        let hessian: Vec<Vec<f64>> =
            self.eigenvalues.iter().map(|e| dense_block(self.block, e, &mut rng)).collect();
        let n = self.block * self.eigenvalues.len();
        let start: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
        let mut metrics = Metrics::default();
        let mut table = Table::new(["learning rate", "AdamW", "Adam-mini"]);
        let mut best = [f64::INFINITY; 2];
        for &lr in &self.lrs {
            let mut row = vec![number(lr)];
            for (i, name) in ["adamw", "adam-mini"].into_iter().enumerate() {
                let mut algorithm = Descent {
                    name,
                    hessian: hessian.clone(),
                    block: self.block,
                    x: start.clone(),
                    grad: vec![0.0; n],
                    loss: 0.0,
                    optimizer: self.optimizer(i == 1)?,
                    lr,
                    steps,
                    record_every: self.record_every,
                };
                ctx.drive(&format!("{name}-lr{lr:e}"), &mut algorithm)?;
                let loss = algorithm.evaluate();
                best[i] = best[i].min(loss);
                row.push(number(loss));
            }
            table.row(row);
        }
        ctx.show(Section::Table("Last loss".to_owned(), table));
        metrics.put("adamw/log10_loss", best[0].log10()).put("adam-mini/log10_loss", best[1].log10());
        Ok(metrics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dense_block_is_symmetric_and_keeps_its_trace_and_norm() {
        let h = dense_block(6, &[2.0], &mut Rng::new(1));
        for i in 0..6 {
            for j in 0..6 {
                // All eigenvalues equal: a rotation leaves the matrix as it is.
                let want = if i == j { 2.0 } else { 0.0 };
                assert!((h[i * 6 + j] - want).abs() < 1e-12);
            }
        }
        let h = dense_block(6, &[1.0, 3.0], &mut Rng::new(2));
        let trace: f64 = (0..6).map(|i| h[i * 7]).sum();
        let square: f64 = h.iter().map(|v| v * v).sum();
        let threes = (trace - 6.0) / 2.0;
        assert!((threes - threes.round()).abs() < 1e-9 && threes > 0.0);
        assert!((square - (6.0 + 8.0 * threes)).abs() < 1e-9);
        assert!((0..6).all(|i| (0..6).all(|j| (h[i * 6 + j] - h[j * 6 + i]).abs() < 1e-12)));
    }
}
