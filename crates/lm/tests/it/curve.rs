//! Loss curve of a nano Llama trained by the official package in PyTorch, made by `reference/adam_mini_curve.py`.

use std::sync::Arc;

use rhumb_core::Objective;
use rhumb_linalg::rng::Rng;
use rhumb_nn::loss::LossKind;
use rhumb_nn::model::{Decoder, DecoderConfig, DecoderObjective, TokenBatch};
use rhumb_optim::{Kind, OptimizerConfig};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Curve {
    tolerance: f64,
    seed: u64,
    config: Value,
    batch: usize,
    length: usize,
    warmup: usize,
    optimizer: OptimizerConfig,
    first_tokens: Vec<u32>,
    losses: Vec<f64>,
    adamw: Vec<f64>,
}

impl Curve {
    fn read() -> Self {
        serde_json::from_str(include_str!("../../../../fixtures/adam-mini/curve.json")).unwrap()
    }

    fn model(&self) -> Decoder {
        Decoder::new(DecoderConfig::from_json(&self.config).unwrap()).unwrap()
    }

    fn start(&self, model: &Decoder) -> Vec<f32> {
        let mut out = vec![f32::NAN; model.layout().len()];
        for b in model.layout().blocks() {
            let mut rng = Rng::named(self.seed, &b.name);
            for p in &mut out[b.range.clone()] {
                let u = 2.0 * rng.uniform() - 1.0;
                *p = (if b.shape.len() == 1 { 1.0 + 0.1 * u } else { 0.08 * u }) as f32;
            }
        }
        out
    }

    fn row(&self, vocab: usize, step: usize, number: usize) -> Vec<u32> {
        let mut rng = Rng::named(self.seed, &format!("tokens/{step}/{number}"));
        let mut last = 0;
        let mut next = || {
            let x = rng.below(4 * vocab);
            last = if x < vocab { x } else { (5 * last + 7) % vocab };
            last as u32
        };
        (0..self.length).map(|_| next()).collect()
    }

    /// The loss before each step.
    fn train(&self, optimizer: &OptimizerConfig) -> Vec<f64> {
        let model = self.model();
        let vocab = model.config().vocab;
        let mut p = self.start(&model);
        let mut g = vec![f32::NAN; p.len()];
        let mut opt = optimizer.build::<f32>(model.layout()).unwrap();
        let mut objective = DecoderObjective::new(model, LossKind::Ce, false, Arc::new(Vec::new())).unwrap();
        let step = |k: usize| {
            let ids = (0..self.batch).flat_map(|r| self.row(vocab, k, r)).collect();
            let loss =
                objective.value_grad(&p, &TokenBatch::causal(self.batch, self.length, ids), &mut g).unwrap();
            opt.step(optimizer.lr * ((k + 1) as f64 / self.warmup as f64).min(1.0), &mut p, &g);
            loss
        };
        (0..self.losses.len()).map(step).collect()
    }
}

/// The largest difference among the first fifty losses, that after 200 steps, and the largest of all.
fn apart(a: &[f64], b: &[f64]) -> [f64; 3] {
    assert_eq!(a.len(), b.len());
    let d: Vec<f64> = a.iter().zip(b).map(|(a, b)| (a - b).abs()).collect();
    let most = |d: &[f64]| d.iter().copied().fold(0.0, f64::max);
    [most(&d[..50]), d[200], most(&d)]
}

#[test]
fn two_hundred_steps_in_f32_have_the_losses_of_the_official_package() {
    let f = Curve::read();
    assert_eq!(f.row(f.model().config().vocab, 0, 0), f.first_tokens);
    assert!(f.model().layout().len() > 200_000);
    let own = f.train(&f.optimizer);
    let [early, late, most] = apart(&own, &f.losses);
    eprintln!(
        "losses of the package: differ by {early:.1e} in steps 1 to 50, {late:.1e} after 200, {most:.1e} at most"
    );
    assert!(most <= f.tolerance, "{early:.1e}, {late:.1e}, {most:.1e}");
    // It learns: the losses say more than that of a random model.
    assert!(own[200] < own[0] / 2.0, "{} to {}", own[0], own[200]);
}

#[test]
fn adamw_has_the_losses_of_pytorch_and_not_those_of_the_package() {
    let f = Curve::read();
    let own = f.train(&OptimizerConfig { kind: Kind::AdamW, ..f.optimizer.clone() });
    let most = apart(&own, &f.adamw)[2];
    assert!(most <= f.tolerance, "{most:.1e}");
    // The tolerance tells the two apart, early and late.
    let [early, late, _] = apart(&own, &f.losses);
    eprintln!("AdamW: {most:.1e} from PyTorch's; {early:.1e} and {late:.1e} from the package");
    assert!(early > 100.0 * f.tolerance && late > 10.0 * f.tolerance, "{early:.1e} {late:.1e}");
}
