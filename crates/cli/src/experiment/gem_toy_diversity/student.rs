//! One training of the network that learns.

use rhumb_core::{
    Algorithm, CheckpointError, EvalError, MemoryReport, Optimizer, Role, StateReader, StateWriter, Status,
    Step,
};
use rhumb_linalg::rng::{Rng, mix};
use rhumb_nn::loss::{LossKind, row};
use rhumb_nn::model::{Mlp, MlpBatch, MlpConfig, MlpLoss, MlpObjective, ModelError, Targets};
use rhumb_nn::ops::Act;
use rhumb_optim::{ClipConfig, Kind, OptimizerConfig, Schedule, ScheduleConfig, ScheduleKind};

use super::world::{CLASSES, INPUTS, Set};
use crate::exit::{Code, Failure};

/// Hidden units.
const HIDDEN: usize = 128;
/// The noise of `neft` on the inputs, as a part of what it would be on embeddings.
const INPUT_NOISE: f64 = 0.2;

/// How it is trained.
#[derive(Clone, Copy, Debug)]
pub(super) struct Training {
    pub(super) loss: LossKind,
    pub(super) decay: f64,
    pub(super) lr: f64,
    pub(super) schedule: ScheduleKind,
    pub(super) batch: usize,
    pub(super) epochs: u64,
}

impl Training {
    pub(super) fn steps(&self, data: &Set) -> u64 {
        self.epochs * data.len().div_ceil(self.batch) as u64
    }
}

/// `16 -> 128 tanh -> 64`.
pub(super) fn network(loss: LossKind) -> Result<Mlp, ModelError> {
    let sizes = vec![INPUTS, HIDDEN, CLASSES];
    Mlp::new(MlpConfig { sizes, activation: Act::Tanh, bias: true, loss: MlpLoss::Scores(loss) })
}

/// Normal weights of variance `1 / in`, 2.25 times that in the first layer; biases zero.
pub(super) fn fresh(model: &Mlp, seed: u64) -> Vec<f64> {
    let mut params = vec![0.0; model.layout().len()];
    for block in model.layout().blocks().iter().filter(|b| b.role != Role::Bias) {
        let mut rng = Rng::named(seed, &block.name);
        let gain = if block.role == Role::Head { 1.0 } else { 1.5 };
        let scale = gain / (block.shape[1] as f64).sqrt();
        params[block.range.clone()].iter_mut().for_each(|w| *w = scale * rng.normal());
    }
    params
}

/// A network, its data and its optimizer.
pub(super) struct Student<'a> {
    objective: MlpObjective<f64>,
    optimizer: Box<dyn Optimizer<f64>>,
    schedule: Schedule,
    clip: ClipConfig,
    data: &'a Set,
    training: Training,
    seed: u64,
    steps: u64,
    params: Vec<f64>,
    grad: Vec<f64>,
}

impl<'a> Student<'a> {
    pub(super) fn new(
        training: Training,
        data: &'a Set,
        params: Vec<f64>,
        seed: u64,
    ) -> Result<Self, Failure> {
        let wrong = |e: rhumb_optim::OptimError| Failure::new(Code::Usage, e);
        let model = network(training.loss).map_err(|e| Failure::new(Code::Usage, e))?;
        let optimizer = OptimizerConfig {
            kind: Kind::AdamW,
            lr: training.lr,
            beta1: 0.9,
            beta2: 0.95,
            weight_decay: training.decay,
            decay_everywhere: true,
            ..OptimizerConfig::default()
        };
        let steps = training.steps(data);
        let schedule = ScheduleConfig { kind: training.schedule, ..ScheduleConfig::default() };
        Ok(Student {
            optimizer: optimizer.build(model.layout()).map_err(wrong)?,
            schedule: schedule.build(training.lr, steps).map_err(wrong)?,
            clip: ClipConfig { norm: Some(1.0), ..ClipConfig::default() },
            grad: vec![0.0; model.layout().len()],
            objective: MlpObjective::new(model),
            data,
            training,
            seed,
            steps,
            params,
        })
    }

    pub(super) fn params(self) -> Vec<f64> {
        self.params
    }

    /// The rows of step `k`: every pass has an order of its own, made of the seed and the pass alone, so that a
    /// resumed run draws the same.
    fn rows(&self, k: u64) -> MlpBatch<f64> {
        let per_pass = self.data.len().div_ceil(self.training.batch) as u64;
        let (pass, at) = (k / per_pass, (k % per_pass) as usize * self.training.batch);
        let mut order: Vec<usize> = (0..self.data.len()).collect();
        Rng::named(mix(self.seed ^ pass), "order").shuffle(&mut order);
        let rows = &order[at..(at + self.training.batch).min(order.len())];
        let mut inputs: Vec<f64> =
            rows.iter().flat_map(|i| &self.data.inputs[i * INPUTS..(i + 1) * INPUTS]).copied().collect();
        let noise = INPUT_NOISE * self.training.loss.noise() / (INPUTS as f64).sqrt();
        if noise > 0.0 {
            let mut rng = Rng::named(mix(self.seed ^ k), "noise");
            inputs.iter_mut().for_each(|x| *x += noise * (2.0 * rng.uniform() - 1.0));
        }
        let labels = rows.iter().map(|i| self.data.labels[*i]).collect();
        MlpBatch { rows: rows.len(), inputs, targets: Targets::Labels(labels), weight: 0.0 }
    }
}

impl Algorithm for Student<'_> {
    fn name(&self) -> &'static str {
        "toy-diversity"
    }

    fn step(&mut self, s: &mut Step<'_>) -> Result<Status, EvalError> {
        let batch = self.rows(s.k);
        let report = self.objective.gradient(&self.params, &batch, &mut self.grad, false)?;
        self.clip.apply(&mut self.grad);
        self.optimizer.step(self.schedule.at(s.k), &mut self.params, &self.grad);
        s.evals.gradients += 1;
        if s.k.is_multiple_of((self.steps / 20).max(1)) || s.k + 1 == self.steps {
            s.record.put("loss", report.loss);
        }
        Ok(Status::Continue)
    }

    fn save(&self, out: &mut StateWriter<'_>) -> Result<(), CheckpointError> {
        out.put_reals("params", &self.params)?;
        self.optimizer.save(out)
    }

    fn load(&mut self, src: &mut StateReader) -> Result<(), CheckpointError> {
        src.reals("params", &mut self.params)?;
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

/// Measures, in this order, of a network whose scores are divided by a temperature.
pub(super) const NAMES: [&str; 10] = [
    "train_ce",
    "test_ce",
    "entropy",
    "valid",
    "greedy",
    "before_ce",
    "pass@1",
    "pass@4",
    "pass@16",
    "pass@64",
];

/// The sets that a network is measured on.
pub(super) struct Judge<'a> {
    pub(super) train: &'a Set,
    pub(super) test: &'a Set,
    /// A part of what was learnt first: what is forgotten shows there.
    pub(super) before: &'a Set,
}

impl Judge<'_> {
    /// [`NAMES`] of a network at a temperature. `valid` is the probability of all right answers, `greedy` the share
    /// of questions whose likeliest answer is right, `pass@k` the chance that `k` samples hold the one right answer
    /// that somebody has in mind.
    pub(super) fn measure(&self, params: &[f64], temperature: f64) -> Result<Vec<f64>, EvalError> {
        let model = network(LossKind::Ce).map_err(|e| EvalError::Unsupported(e.to_string()))?;
        let mut objective = MlpObjective::new(model);
        let mut scores = |set: &Set| {
            let mut out = vec![0.0; set.len() * CLASSES];
            objective.predict(params, set.len(), &set.inputs, &mut out)?;
            out.iter_mut().for_each(|z| *z /= temperature);
            Ok::<_, EvalError>(out)
        };
        let train = mean_ce(&scores(self.train)?, &self.train.labels);
        let before = mean_ce(&scores(self.before)?, &self.before.labels);
        let scores = scores(self.test)?;
        let n = self.test.len() as f64;
        let (mut ce, mut entropy, mut valid, mut greedy, mut pass) = (0.0, 0.0, 0.0, 0.0, [0.0; 4]);
        for (i, z) in scores.chunks_exact(CLASSES).enumerate() {
            let stats = row::row(LossKind::Ce, &mut z.to_vec(), self.test.labels[i] as usize, None);
            (ce, entropy) = (ce + stats.ce / n, entropy + stats.entropy / n);
            // With the cross-entropy of the label as the reference, p_c = exp(z_c - z_y) p_y.
            let label = z[self.test.labels[i] as usize];
            let p = |c: usize| (z[c] - label - stats.ce).exp();
            let right = &self.test.right[i];
            let new = right.iter().enumerate().filter(|(j, c)| !right[..*j].contains(c));
            valid += new.map(|(_, c)| p(*c as usize)).sum::<f64>() / n;
            let top = (0..CLASSES).max_by(|a, b| z[*a].total_cmp(&z[*b])).unwrap_or(0);
            greedy += f64::from(u8::from(right.contains(&(top as u32)))) / n;
            let missed = 1.0 - p(self.test.hidden[i] as usize);
            for (pass, k) in pass.iter_mut().zip([1, 4, 16, 64]) {
                *pass += (1.0 - missed.powi(k)) / n;
            }
        }
        Ok([train, ce, entropy, valid, greedy, before].into_iter().chain(pass).collect())
    }
}

fn mean_ce(scores: &[f64], labels: &[u32]) -> f64 {
    let rows = scores.chunks_exact(CLASSES).zip(labels);
    let sum: f64 = rows.map(|(z, y)| row::row(LossKind::Ce, &mut z.to_vec(), *y as usize, None).ce).sum();
    sum / labels.len() as f64
}
