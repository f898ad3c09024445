//! Data, and one training on them.

use rhumb_core::{
    Algorithm, CheckpointError, EvalError, MemoryReport, Optimizer, StateReader, StateWriter, Status, Step,
};
use rhumb_linalg::dense::haar_orthogonal;
use rhumb_linalg::rng::{Rng, mix};
use rhumb_nn::model::{Mlp, MlpBatch, MlpObjective, Targets};
use rhumb_optim::{Kind, OptimError, OptimizerConfig};

/// Rows of normal inputs with the class that a random linear map gives them.
pub(super) struct Set {
    pub(super) inputs: Vec<f64>,
    pub(super) labels: Vec<u32>,
    dim: usize,
    classes: usize,
}

impl Set {
    /// `x = A z`, `z ~ N(0, I)`, the label the largest of `T z`. `A A^T` has the eigenvalues `k^-decay`, scaled to a mean of
    /// 1, in a random basis; without decay it is the identity. `z` and `T` do not depend on the decay.
    pub(super) fn draw(seed: u64, rows: usize, dim: usize, classes: usize, decay: f64) -> Set {
        let mut rng = Rng::named(seed, "inputs");
        let z: Vec<f64> = (0..rows * dim).map(|_| rng.normal()).collect();
        let mut rng = Rng::named(seed, &format!("teacher/{classes}"));
        let teacher: Vec<f64> = (0..classes * dim).map(|_| rng.normal()).collect();
        let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        let label = |z: &[f64]| {
            let scores: Vec<f64> = teacher.chunks_exact(dim).map(|t| dot(t, z)).collect();
            (0..classes).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap_or(0) as u32
        };
        let labels = z.chunks_exact(dim).map(label).collect();
        let inputs = if decay > 0.0 { correlated(seed, &z, dim, decay) } else { z };
        Set { inputs, labels, dim, classes }
    }

    /// Those rows as a batch, one-hot targets for the squared error.
    pub(super) fn batch(&self, rows: &[usize], squared: bool) -> MlpBatch<f64> {
        let inputs =
            rows.iter().flat_map(|i| &self.inputs[i * self.dim..(i + 1) * self.dim]).copied().collect();
        let labels: Vec<u32> = rows.iter().map(|i| self.labels[*i]).collect();
        let targets = if squared {
            let one_hot = |y: &u32| {
                let y = *y as usize;
                (0..self.classes).map(move |c| f64::from(u8::from(c == y)))
            };
            Targets::Values(labels.iter().flat_map(one_hot).collect())
        } else {
            Targets::Labels(labels)
        };
        MlpBatch { rows: rows.len(), inputs, targets, weight: 0.0 }
    }

    pub(super) fn rows(&self) -> usize {
        self.labels.len()
    }
}

fn correlated(seed: u64, z: &[f64], dim: usize, decay: f64) -> Vec<f64> {
    let basis = haar_orthogonal(dim, &mut Rng::named(seed, "basis"));
    let values: Vec<f64> = (1..=dim).map(|k| (k as f64).powf(-decay)).collect();
    let mean = values.iter().sum::<f64>() / dim as f64;
    let scale: Vec<f64> = values.iter().map(|v| (v / mean).sqrt()).collect();
    let one = |z: &[f64]| -> Vec<f64> {
        let entry = |i: usize| (0..dim).map(|k| basis[i * dim + k] * scale[k] * z[k]).sum();
        (0..dim).map(entry).collect()
    };
    z.chunks_exact(dim).flat_map(one).collect()
}

/// A network in training, which keeps its weights of chosen steps.
pub(super) struct Student<'a> {
    objective: MlpObjective<f64>,
    optimizer: Box<dyn Optimizer<f64>>,
    data: &'a Set,
    squared: bool,
    lr: f64,
    batch: usize,
    seed: u64,
    steps: u64,
    params: Vec<f64>,
    grad: Vec<f64>,
    /// Steps before which the weights are kept.
    stages: Vec<u64>,
    /// The kept weights, one after the other.
    kept: Vec<f64>,
}

impl<'a> Student<'a> {
    pub(super) fn new(
        model: Mlp,
        data: &'a Set,
        squared: bool,
        (lr, batch): (f64, usize),
        seed: u64,
        steps: u64,
        stages: &[u64],
    ) -> Result<Self, OptimError> {
        let config = OptimizerConfig {
            kind: Kind::AdamW,
            lr,
            beta1: 0.9,
            beta2: 0.999,
            weight_decay: 0.0,
            ..OptimizerConfig::default()
        };
        let n = model.layout().len();
        Ok(Student {
            optimizer: config.build(model.layout())?,
            params: model.init(seed),
            grad: vec![0.0; n],
            kept: vec![0.0; n * stages.len()],
            objective: MlpObjective::new(model),
            stages: stages.to_vec(),
            data,
            squared,
            lr,
            batch,
            seed,
            steps,
        })
    }

    /// The objective, and the weights of every stage.
    pub(super) fn finish(self) -> (MlpObjective<f64>, Vec<Vec<f64>>) {
        let n = self.params.len();
        (self.objective, self.kept.chunks_exact(n).map(<[f64]>::to_vec).collect())
    }

    fn keep(&mut self, k: u64) {
        let n = self.params.len();
        for (i, _) in self.stages.iter().enumerate().filter(|(_, s)| **s == k) {
            self.kept[i * n..(i + 1) * n].copy_from_slice(&self.params);
        }
    }

    /// Every pass has an order of its own, made of the seed and the pass alone, so that a resumed run draws the same.
    fn rows(&self, k: u64) -> Vec<usize> {
        let per_pass = self.data.rows().div_ceil(self.batch) as u64;
        let (pass, at) = (k / per_pass, (k % per_pass) as usize * self.batch);
        let mut order: Vec<usize> = (0..self.data.rows()).collect();
        Rng::named(mix(self.seed ^ pass), "order").shuffle(&mut order);
        order[at..(at + self.batch).min(order.len())].to_vec()
    }
}

impl Algorithm for Student<'_> {
    fn name(&self) -> &'static str {
        "hessian-mlp"
    }

    fn step(&mut self, s: &mut Step<'_>) -> Result<Status, EvalError> {
        self.keep(s.k);
        let batch = self.data.batch(&self.rows(s.k), self.squared);
        let report = self.objective.gradient(&self.params, &batch, &mut self.grad, false)?;
        let left = 1.0 - s.k as f64 / self.steps as f64;
        self.optimizer.step(self.lr * left, &mut self.params, &self.grad);
        s.evals.gradients += 1;
        if s.k.is_multiple_of((self.steps / 20).max(1)) || s.k + 1 == self.steps {
            s.record.put("loss", report.loss);
        }
        self.keep(s.k + 1);
        Ok(Status::Continue)
    }

    fn save(&self, out: &mut StateWriter<'_>) -> Result<(), CheckpointError> {
        out.put_reals("params", &self.params)?;
        out.put_reals("kept", &self.kept)?;
        self.optimizer.save(out)
    }

    fn load(&mut self, src: &mut StateReader) -> Result<(), CheckpointError> {
        src.reals("params", &mut self.params)?;
        src.reals("kept", &mut self.kept)?;
        self.optimizer.load(src)
    }

    fn memory(&self) -> MemoryReport {
        MemoryReport {
            parameters: size_of_val(&self.params[..]) as u64,
            gradients: size_of_val(&self.grad[..]) as u64,
            optimizer: self.optimizer.state_bytes() as u64,
            ..MemoryReport::default()
        }
    }
}
