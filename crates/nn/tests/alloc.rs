//! Training steps after the first allocate nothing.
//!
//! The allocator of this program counts every call in every thread, so there is one test and nothing beside it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests; the count with two threads must be seen"
)]

use std::alloc::System;
use std::sync::Arc;

use rhumb_core::{Objective, Optimizer, SecondOrder};
use rhumb_linalg::Real;
use rhumb_linalg::rng::Rng;
use rhumb_nn::loss::{LOSSES, LossKind};
use rhumb_nn::model::{
    Decoder, DecoderConfig, DecoderObjective, ImageBatch, ImageConfig, ImageModel, ImageNet, ImageObjective,
    LoraConfig, Mlp, MlpBatch, MlpConfig, MlpLoss, MlpObjective, Statistics, Targets, TokenBatch, init,
};
use rhumb_nn::ops::Act;
use rhumb_optim::{Kind, OptimizerConfig};
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Calls of the allocator and bytes asked for while `f` runs.
fn allocations(f: impl FnOnce()) -> (usize, usize) {
    let region = Region::new(ALLOCATOR);
    f();
    let s = region.change();
    (s.allocations + s.reallocations, s.bytes_allocated)
}

fn config(model_type: &str) -> DecoderConfig {
    let json = match model_type {
        "gpt2" => json!({
            "model_type": "gpt2", "vocab_size": 97, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_inner": 80,
            "n_positions": 32, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new",
            "tie_word_embeddings": true
        }),
        _ => json!({
            "model_type": model_type, "vocab_size": 97, "hidden_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "intermediate_size": 80,
            "max_position_embeddings": 64, "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "hidden_act": "silu",
            "attention_bias": model_type == "qwen2", "tie_word_embeddings": model_type != "qwen3"
        }),
    };
    DecoderConfig::from_json(&json).unwrap()
}

/// Everything that one training holds between its steps.
struct Training<T: Real> {
    objective: DecoderObjective<T>,
    optimizers: Vec<Box<dyn Optimizer<T>>>,
    batch: TokenBatch,
    params: Vec<T>,
    grad: Vec<T>,
    direction: Vec<T>,
    product: Vec<T>,
}

impl<T: Real> Training<T> {
    fn new(model: Decoder, loss: LossKind, checkpoint: bool) -> Self {
        let frozen: Vec<T> =
            if model.is_adapted() { init(model.base_layout(), 2, 0.1, 1) } else { Vec::new() };
        let params: Vec<T> = init(model.layout(), 2, 0.1, 2);
        let optimizers = [Kind::AdamMini, Kind::AdamW, Kind::Sgd].map(|kind| {
            let momentum = if kind == Kind::Sgd { 0.9 } else { 0.0 };
            let config = OptimizerConfig { kind, momentum, weight_decay: 0.1, ..OptimizerConfig::default() };
            config.build(model.layout()).unwrap()
        });
        let mut rng = Rng::new(3);
        let (rows, len) = (3, 20);
        let batch = TokenBatch::causal(rows, len, (0..rows * len).map(|_| rng.below(97) as u32).collect());
        let n = params.len();
        Training {
            objective: DecoderObjective::new(model, loss, checkpoint, Arc::new(frozen)).unwrap(),
            optimizers: optimizers.into(),
            batch,
            grad: vec![T::ZERO; n],
            direction: vec![T::ONE; n],
            product: vec![T::ZERO; n],
            params,
        }
    }

    /// Whole training steps with every optimizer: gradient, gradient added to another, update.
    fn steps(&mut self) {
        for o in &mut self.optimizers {
            self.objective.value_grad(&self.params, &self.batch, &mut self.grad).unwrap();
            self.objective.gradient(&self.params, &self.batch, &mut self.grad, true).unwrap();
            o.step(1e-3, &mut self.params, &self.grad);
        }
    }

    /// A step whose updates happen in the backward pass.
    fn streaming_step(&mut self) {
        let o = &mut self.optimizers[0];
        o.begin();
        let mut update = |range: std::ops::Range<usize>, params: &mut [T], grad: &mut [T]| {
            let blocks = o.layout().blocks().len();
            for i in 0..blocks {
                let r = o.layout().blocks()[i].range.clone();
                if range.start <= r.start && r.end <= range.end {
                    let r = r.start - range.start..r.end - range.start;
                    o.step_block(1e-3, i, &mut params[r.clone()], &grad[r]);
                }
            }
        };
        self.objective.gradient_streaming(&mut self.params, &self.batch, &mut update).unwrap();
    }

    fn hessian_product(&mut self) {
        self.objective.hvp(&self.params, &self.batch, &self.direction, &mut self.product).unwrap();
    }

    fn loss(&mut self) {
        self.objective.report(&self.params, &self.batch).unwrap();
    }

    /// Allocations of `times` steps of each kind after a first one of it.
    fn measure(&mut self, times: usize) -> Vec<(&'static str, (usize, usize))> {
        let mut one = |name, run: fn(&mut Self)| {
            run(self);
            (name, allocations(|| (0..times).for_each(|_| run(self))))
        };
        vec![
            one("training steps", Self::steps),
            one("update in the backward pass", Self::streaming_step),
            one("Hessian-vector product", Self::hessian_product),
            one("loss", Self::loss),
        ]
    }
}

fn cases<T: Real>() -> Vec<(String, Training<T>)> {
    let mut out = Vec::new();
    for model_type in ["llama", "qwen2", "qwen3", "gpt2"] {
        for checkpoint in [false, true] {
            let model = Decoder::new(config(model_type)).unwrap();
            let name = format!("{} {model_type}, checkpointed {checkpoint}", T::NAME);
            out.push((name, Training::new(model, LossKind::Ce, checkpoint)));
        }
    }
    let model = Decoder::with_lora(config("llama"), &LoraConfig::default()).unwrap();
    out.push((format!("{} llama with adapters", T::NAME), Training::new(model, LossKind::Ce, false)));
    for loss in LOSSES.iter().filter(|l| l.name != "ce" && l.no_hessian.is_none()) {
        let model = Decoder::new(config("llama")).unwrap();
        let kind = loss.kind(None).unwrap();
        let mut training = Training::new(model, kind, false);
        training.objective.seed = Some(4);
        out.push((format!("{} llama, {}", T::NAME, loss.name), training));
    }
    out
}

fn check<T: Real>() {
    for (name, mut training) in cases::<T>() {
        for (what, count) in training.measure(5) {
            assert_eq!(count, (0, 0), "{name}: allocations and bytes of five times: {what}");
        }
    }
}

fn check_perceptron<T: Real>(loss: MlpLoss) {
    let config = MlpConfig { sizes: vec![12, 32, 32, 4], activation: Act::Tanh, bias: true, loss };
    let model = Mlp::new(config).unwrap();
    let rows = 40;
    let targets = match loss {
        MlpLoss::CrossEntropy | MlpLoss::Scores(_) => {
            Targets::Labels((0..rows).map(|i| i as u32 % 4).collect())
        }
        MlpLoss::Mse => Targets::Values(vec![T::ONE; rows * 4]),
    };
    let batch = MlpBatch { rows, inputs: vec![T::ONE; rows * 12], targets, weight: 0.0 };
    let mut params: Vec<T> = model.init(1);
    let mut optimizer = OptimizerConfig::default().build::<T>(model.layout()).unwrap();
    let mut objective = MlpObjective::new(model);
    let (mut grad, mut product, mut outputs) = (params.clone(), params.clone(), vec![T::ZERO; rows * 4]);
    let mut step = || {
        objective.value_grad(&params, &batch, &mut grad).unwrap();
        optimizer.step(1e-3, &mut params, &grad);
        objective.hvp(&params, &batch, &grad, &mut product).unwrap();
        objective.predict(&params, rows, &batch.inputs, &mut outputs).unwrap();
    };
    step();
    assert_eq!(allocations(|| (0..5).for_each(|_| step())), (0, 0), "{} perceptron, {loss:?}", T::NAME);
}

fn check_images<T: Real>(net: ImageNet) {
    let config = ImageConfig { image: [2, 12, 12], classes: 4, net };
    let (model, rows) = (ImageModel::new(config.clone()).unwrap(), 20);
    let labels = (0..rows).map(|i| i as u32 % 4).collect();
    let batch = ImageBatch { rows, images: vec![T::ONE; rows * model.inputs()], labels, weight: 0.0 };
    let mut params: Vec<T> = model.init(1);
    let mut optimizer = OptimizerConfig::default().build::<T>(model.layout()).unwrap();
    let mut objective = ImageObjective::new(model, LossKind::Ce, Statistics::Batch);
    let (mut grad, mut product, mut outputs) = (params.clone(), params.clone(), vec![T::ZERO; rows * 4]);
    let mut step = || {
        objective.statistics = Statistics::Batch;
        objective.value_grad(&params, &batch, &mut grad).unwrap();
        objective.track(0.1);
        optimizer.step(1e-3, &mut params, &grad);
        objective.statistics = Statistics::Running;
        objective.hvp(&params, &batch, &grad, &mut product).unwrap();
        objective.predict(&params, rows, &batch.images, &mut outputs).unwrap();
    };
    step();
    assert_eq!(allocations(|| (0..5).for_each(|_| step())), (0, 0), "{} {config:?}", T::NAME);
}

/// Most allocations of two threads in ten times a step: a thread that comes to a kind of task later than in the
/// first step makes its own packing and task buffers then, once each.
const LATE: usize = 40;

fn check_late(threads: usize) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        for (name, mut training) in cases::<f32>() {
            for (what, (calls, bytes)) in training.measure(10) {
                if calls > 0 {
                    eprintln!("{threads} threads, {name}: {what}: {calls} late allocations, {bytes} bytes");
                }
                assert!(calls <= LATE, "{threads} threads, {name}: {calls} allocations of ten times: {what}");
            }
        }
    });
}

#[test]
fn after_the_first_step_nothing_is_allocated() {
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    one.install(|| {
        check::<f32>();
        check::<f64>();
        for loss in [MlpLoss::CrossEntropy, MlpLoss::Mse] {
            check_perceptron::<f32>(loss);
            check_perceptron::<f64>(loss);
        }
        let vit = ImageNet::Vit { patch: 4, width: 8, layers: 1, heads: 2, ffn: 8, class_token: true };
        let resnet = ImageNet::PreactResnet { width: 4, blocks: vec![1, 1] };
        for net in [ImageNet::Lenet { activation: Act::Relu }, resnet, vit] {
            check_images::<f32>(net.clone());
            check_images::<f64>(net);
        }
    });
    check_late(2);
}
