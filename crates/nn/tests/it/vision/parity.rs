//! Values and derivatives of PyTorch.

use std::path::Path;
use std::sync::Arc;

use rhumb_core::{Block, EvalError, Layout, Objective, Role, SecondOrder};
use rhumb_linalg::Real;
use rhumb_linalg::rng::Rng;
use rhumb_nn::loss::{LossKind, Mse};
use rhumb_nn::model::{
    EncoderConfig, ImageBatch, ImageModel, ImageObjective, MaskedEncoder, MaskedObjective, Masking,
    Statistics, TokenBatch,
};
use rhumb_nn::op::{Data, IGNORE};
use rhumb_nn::ops::{Act, Activation, AvgPool2d, BatchNorm2d, Conv2d, MaxPool2d, Moments, Window};
use rhumb_nn::tape::{Graph, Request, Span, Src, Tape};
use rhumb_optim::OptimizerConfig;
use serde_json::Value;

struct Fixture {
    case: &'static str,
    seed: u64,
    json: Value,
}

impl Fixture {
    fn read(case: &'static str) -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/hessian");
        let text = std::fs::read_to_string(dir.join(format!("vision-{case}.json"))).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        Fixture { case, seed: json["seed"].as_u64().unwrap(), json }
    }

    fn count(&self, key: &str) -> usize {
        self.json[key].as_u64().unwrap() as usize
    }

    fn stream(&self, name: &str, n: usize) -> Vec<f64> {
        let mut rng = Rng::named(self.seed, name);
        (0..n).map(|_| rng.uniform()).collect()
    }

    fn signed(&self, name: &str, n: usize) -> Vec<f64> {
        self.stream(name, n).iter().map(|u| 2.0 * u - 1.0).collect()
    }

    fn below(&self, name: &str, n: usize, bound: usize) -> Vec<u32> {
        let mut rng = Rng::named(self.seed, name);
        (0..n).map(|_| rng.below(bound) as u32).collect()
    }

    fn tensor(&self, b: &Block) -> Vec<f64> {
        let n = b.range.len();
        let (scale, shift) = match &b.name {
            name if name.ends_with("running_mean") => (0.2, 0.0),
            name if name.ends_with("running_var") => {
                return self.stream(name, n).iter().map(|u| u + 0.5).collect();
            }
            _ if b.shape.len() > 1 => ((3.0 / b.shape[1..].iter().product::<usize>() as f64).sqrt(), 0.0),
            name if name.ends_with("bias") => (0.05, 0.0),
            _ => (0.1, 1.0),
        };
        self.signed(&b.name, n).iter().map(|u| u * scale + shift).collect()
    }

    fn tensors<T: Real>(&self, layout: &Layout) -> Vec<T> {
        layout.blocks().iter().flat_map(|b| self.tensor(b)).map(T::of).collect()
    }

    fn direction<T: Real>(&self, layout: &Layout) -> Vec<T> {
        let one = |b: &Block| self.signed(&format!("v/{}", b.name), b.range.len());
        layout.blocks().iter().flat_map(one).map(T::of).collect()
    }

    /// Worst `max|diff| / max|ref|` over tensors of sampled entries, L2 norm and sum.
    fn worst<T: Real>(&self, layout: &Layout, got: &[T], key: &str) -> f64 {
        let largest = layout.blocks().iter().map(|b| number(&self.json[key][&b.name]["max_abs"]));
        // A tensor without influence, as a bias before a batch norm, is rounding on both sides.
        let floor = largest.fold(0.0, f64::max) * if T::BYTES == 4 { 1e-2 } else { 1e-4 };
        let one = |b: &Block| {
            let want = &self.json[key][&b.name];
            assert!(want.is_object(), "{}: no reference for {}", self.case, b.name);
            let own: Vec<f64> = got[b.range.clone()].iter().map(|g| g.f64()).collect();
            let scale = number(&want["max_abs"]).max(floor);
            let mut rng = Rng::named(self.seed, &format!("sample/{}", b.name));
            let mut off: f64 = 0.0;
            for w in numbers(&want["samples"]) {
                off = off.max((own[rng.below(own.len())] - w).abs() / scale);
            }
            let l2 = own.iter().map(|g| g * g).sum::<f64>().sqrt();
            off = off.max((l2 - number(&want["l2"])).abs() / l2.max(scale));
            let sum: f64 = own.iter().sum();
            off.max((sum - number(&want["sum"])).abs() / l2.max(scale) / (own.len() as f64).sqrt())
        };
        layout.blocks().iter().map(one).fold(0.0, f64::max)
    }

    fn check<T: Real, P: SecondOrder<T>>(&self, o: &mut P, at: &[T], batch: &P::Batch, tol: (f64, f64)) {
        let layout = o.layout().clone();
        let (mut g, mut hv) = (vec![T::of(f64::NAN); at.len()], vec![T::of(f64::NAN); at.len()]);
        let loss = o.value_grad(at, batch, &mut g).unwrap();
        let want = number(&self.json["loss"]);
        let name = format!("{} {}", self.case, T::NAME);
        assert!((loss - want).abs() < tol.0 * want, "{name}: loss {loss}, PyTorch {want}");
        o.hvp(at, batch, &self.direction(&layout), &mut hv).unwrap();
        for (what, got) in [("gradient", &g), ("hvp", &hv)] {
            let off = self.worst(&layout, got, what);
            assert!(off < tol.1, "{name}: {what} off by {off:.1e}");
        }
    }
}

fn number(v: &Value) -> f64 {
    v.as_f64().unwrap()
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(number).collect()
}

fn classifier<T: Real>(f: &Fixture, tol: (f64, f64)) {
    let model = ImageModel::new(serde_json::from_value(f.json["config"].clone()).unwrap()).unwrap();
    let running = f.json["statistics"] == "running";
    let statistics = if running { Statistics::Running } else { Statistics::Batch };
    let (rows, pixels, classes) = (f.count("rows"), model.inputs(), model.config().classes);
    let batch = ImageBatch {
        rows,
        images: f.signed("images", rows * pixels).into_iter().map(T::of).collect(),
        labels: f.below("labels", rows, classes),
        weight: 0.0,
    };
    let mut at: Vec<T> = f.tensors(model.layout());
    let start: Vec<T> = f.tensors(model.buffers());
    let mut o = ImageObjective::new(model.clone(), LossKind::Ce, statistics);
    o.set_buffers(&start).unwrap();
    f.check(&mut o, &at, &batch, tol);
    let outputs = numbers(&f.json["outputs"]);
    if running || start.is_empty() {
        let mut y = vec![T::ZERO; outputs.len()];
        o.predict(&at, rows, &batch.images, &mut y).unwrap();
        assert!(y.iter().zip(&outputs).all(|(y, w)| (y.f64() - w).abs() < tol.1), "{}: outputs", f.case);
    } else {
        o.track(0.1);
        for b in model.buffers().blocks() {
            for (got, want) in o.buffers()[b.range.clone()].iter().zip(numbers(&f.json["running"][&b.name])) {
                assert!((got.f64() - want).abs() < tol.1, "{}: {} {got} and {want}", f.case, b.name);
            }
        }
    }
    let adamw = serde_json::json!({ "kind": "adamw", "lr": 1e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8,
        "weight_decay": 0.1, "decay_everywhere": true });
    let adamw: OptimizerConfig = serde_json::from_value(adamw).unwrap();
    let (mut opt, mut g) = (adamw.build::<T>(model.layout()).unwrap(), vec![T::ZERO; at.len()]);
    for (k, want) in numbers(&f.json["losses"]).into_iter().enumerate() {
        let loss = o.value_grad(&at, &batch, &mut g).unwrap();
        let off = (loss - want).abs() / want;
        assert!(off < 10.0 * tol.0, "{}: before step {k} {loss}, PyTorch {want}", f.case);
        opt.step(1e-3, &mut at, &g);
    }
}

#[test]
fn classifiers_have_pytorchs_outputs_gradients_hessian_products_and_losses() {
    for case in ["lenet-relu", "lenet-tanh", "cnn", "resnet-batch", "resnet-running", "vit-class", "vit-mean"]
    {
        let f = Fixture::read(case);
        classifier::<f64>(&f, (1e-12, 1e-10));
        classifier::<f32>(&f, (1e-5, 2e-4));
    }
}

#[test]
fn a_masked_encoder_has_the_loss_and_derivatives_of_transformers() {
    fn check<T: Real>(f: &Fixture, tol: (f64, f64)) {
        let model = MaskedEncoder::new(EncoderConfig::from_json(&f.json["config"]).unwrap());
        let (rows, len) = (f.count("rows"), f.count("length"));
        let vocab = model.encoder().config().vocab;
        let (ids, labels) = (f.below("tokens", rows * len, vocab), f.below("labels", rows * len, vocab));
        let none = Masking { share: 0.0, mask: 0, vocab };
        let mut batch = TokenBatch::masked(rows, len, ids, none, &mut Rng::new(0));
        assert!(batch.targets.iter().all(|t| *t == IGNORE));
        for (i, _) in f.stream("hidden", rows * len).iter().enumerate().filter(|(_, u)| **u < 0.3) {
            batch.targets[i] = labels[i];
        }
        let at: Vec<T> = f.tensors(model.layout());
        f.check(&mut MaskedObjective::new(model, LossKind::Ce), &at, &batch, tol);
    }
    let f = Fixture::read("bert-masked");
    check::<f64>(&f, (1e-12, 1e-10));
    check::<f32>(&f, (1e-5, 2e-4));
}

/// The chain of the fixture `ops`, whose parameters are all tensors.
struct Chain<T: Real> {
    tape: Tape<T>,
    layout: Layout,
    zeros: Vec<T>,
}

impl<T: Real> Chain<T> {
    fn new() -> Self {
        let (mut g, mut l) = (Graph::new(), Layout::new());
        let mut take = |name: &str, shape: &[usize]| {
            Src::Param(Span { range: l.push(name, shape, Role::Other), trainable: true })
        };
        let x = take("x", &[3, 4, 9, 8]);
        let window = Window { plane: [9, 8], kernel: [3, 2], stride: [2, 1], padding: [1, 0] };
        let op = Conv2d { batch: 3, inp: 4, out: 6, groups: 2, window, bias: true };
        let y = g.push(op, &[x, take("conv.weight", &[6, 2, 3, 2]), take("conv.bias", &[6])]);
        let plane = window.out();
        assert_eq!(plane, [5, 7]);
        let norm = BatchNorm2d {
            batch: 3,
            channels: 6,
            area: 35,
            eps: 1e-5,
            moments: Moments::Batch(Arc::default()),
        };
        let y = g.push(norm, &[y.into(), take("bn.weight", &[6]), take("bn.bias", &[6])]);
        let y = g.push(Activation { len: 3 * 6 * 35, act: Act::Tanh }, &[y.into()]);
        let point =
            Conv2d { out: 5, inp: 6, groups: 1, window: Window::square(plane, 1, 1, 0), bias: false, ..op };
        let y = g.push(point, &[y.into(), take("point.weight", &[5, 6, 1, 1])]);
        let window = Window::square(plane, 3, 2, 1);
        let y = g.push(MaxPool2d { planes: 15, window }, &[y.into()]);
        let window = Window::square(window.out(), 2, 1, 1);
        let y = g.push(AvgPool2d { planes: 15, window }, &[y.into()]);
        let len = 15 * window.positions();
        let target = g.input(len, false);
        g.finish(Mse { len }, &[y.into(), target.into()]);
        Chain { tape: Tape::new(g).unwrap(), layout: l, zeros: vec![T::ZERO; len] }
    }
}

impl<T: Real> Objective<T> for Chain<T> {
    type Batch = ();
    fn layout(&self) -> &Layout {
        &self.layout
    }
    fn value_grad(&mut self, at: &[T], (): &(), grad: &mut [T]) -> Result<f64, EvalError> {
        let data = Data { inputs: &[&self.zeros], ..Data::default() };
        let req = Request { data, weight: 1.0, ..Request::default() };
        Ok(self.tape.gradient(at, req, grad, false, &mut [])?.loss)
    }
}

impl<T: Real> SecondOrder<T> for Chain<T> {
    fn hvp(&mut self, at: &[T], (): &(), v: &[T], out: &mut [T]) -> Result<(), EvalError> {
        let data = Data { inputs: &[&self.zeros], ..Data::default() };
        let req = Request { data, weight: 1.0, ..Request::default() };
        self.tape.hvp(at, req, v, out).map(|_| ())
    }
}

#[test]
fn uneven_windows_groups_and_overlapping_pools_have_pytorchs_derivatives() {
    fn check<T: Real>(f: &Fixture, tol: (f64, f64)) {
        let mut chain = Chain::<T>::new();
        let at = f.tensors(&chain.layout);
        f.check(&mut chain, &at, &(), tol);
    }
    let f = Fixture::read("ops");
    check::<f64>(&f, (1e-12, 1e-10));
    check::<f32>(&f, (1e-5, 2e-4));
}
