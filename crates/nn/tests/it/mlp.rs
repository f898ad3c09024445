//! Multilayer perceptrons: a net computed by hand, derivatives against differences, parity with PyTorch, refusals.

use std::path::Path;

use rhumb_core::{EvalError, Objective, Role, SecondOrder};
use rhumb_linalg::Real;
use rhumb_linalg::rng::Rng;
use rhumb_nn::loss::LossKind;
use rhumb_nn::model::{Mlp, MlpBatch, MlpConfig, MlpLoss, MlpObjective, ModelError, Targets};
use rhumb_nn::op::IGNORE;
use rhumb_nn::ops::Act;
use rhumb_optim::OptimizerConfig;
use serde_json::Value;

const ACTIVATIONS: [Act; 5] = [Act::Relu, Act::Tanh, Act::Silu, Act::Gelu, Act::GeluTanh];

fn model(sizes: &[usize], activation: Act, bias: bool, loss: MlpLoss) -> Mlp {
    Mlp::new(MlpConfig { sizes: sizes.to_vec(), activation, bias, loss }).unwrap()
}

fn random(n: usize, seed: u64) -> Vec<f64> {
    let mut rng = Rng::new(seed);
    (0..n).map(|_| 2.0 * rng.uniform() - 1.0).collect()
}

fn batch(m: &Mlp, rows: usize) -> MlpBatch<f64> {
    let targets = match m.config().loss {
        MlpLoss::CrossEntropy | MlpLoss::Scores(_) => {
            Targets::Labels((0..rows).map(|i| (i % m.outputs()) as u32).collect())
        }
        MlpLoss::Mse => Targets::Values(random(rows * m.outputs(), 8)),
    };
    MlpBatch { rows, inputs: random(rows * m.inputs(), 7), targets, weight: 0.0 }
}

fn gradient(o: &mut MlpObjective<f64>, at: &[f64], b: &MlpBatch<f64>) -> (f64, Vec<f64>) {
    let mut g = vec![f64::NAN; at.len()];
    (o.value_grad(at, b, &mut g).unwrap(), g)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn moved(at: &[f64], v: &[f64], by: f64) -> Vec<f64> {
    at.iter().zip(v).map(|(a, v)| a + by * v).collect()
}

/// With x = (1, 2): the hidden scores are (2, -3), after ReLU (2, 0), the output is 2 * 3 + 0 * 5 + 1 = 7. The
/// target 4 leaves an error of 3, so the loss is 9 and its slope at the output is 6.
#[test]
fn a_net_of_two_two_one_has_the_loss_gradient_and_hessian_computed_by_hand() {
    let m = model(&[2, 2, 1], Act::Relu, true, MlpLoss::Mse);
    let mut o = MlpObjective::new(m);
    // W1 = [[1, 0], [1, -2]], b1 = (1, 0), W2 = [3, 5], b2 = 1.
    let p = [1.0, 0.0, 1.0, -2.0, 1.0, 0.0, 3.0, 5.0, 1.0];
    let b = MlpBatch { rows: 1, inputs: vec![1.0, 2.0], targets: Targets::Values(vec![4.0]), weight: 0.0 };
    let mut y = [0.0];
    o.predict(&p, 1, &b.inputs, &mut y).unwrap();
    assert_eq!(y, [7.0]);
    let (loss, g) = gradient(&mut o, &p, &b);
    assert_eq!(loss, 9.0);
    assert_eq!(g, [18.0, 36.0, 0.0, 0.0, 18.0, 0.0, 12.0, 0.0, 6.0]);
    // Along b1's first entry the output moves by 3: it feels 2 * 3 * 3 itself; W2's first entry feels
    // 2 * 3 * 2 + 6 * 1 and b2 feels 2 * 3.
    let (mut v, mut hv) = ([0.0; 9], [f64::NAN; 9]);
    v[4] = 1.0;
    o.hvp(&p, &b, &v, &mut hv).unwrap();
    assert_eq!(hv, [18.0, 36.0, 0.0, 0.0, 18.0, 0.0, 18.0, 0.0, 6.0]);
}

#[test]
fn equal_scores_cost_the_logarithm_of_the_number_of_classes() {
    let m = model(&[3, 4], Act::Tanh, true, MlpLoss::CrossEntropy);
    let (b, p) = (batch(&m, 8), vec![0.0; m.layout().len()]);
    let report = MlpObjective::new(m).report(&p, &b).unwrap();
    assert!((report.loss - 4.0_f64.ln()).abs() < 1e-15);
    assert!((report.ce - 8.0 * 4.0_f64.ln()).abs() < 1e-13);
    // A label that shares the largest score counts as found.
    assert_eq!((report.live, report.correct), (8, 8));
}

#[test]
fn gradients_equal_central_differences_and_hessian_products_differences_of_gradients() {
    for activation in ACTIVATIONS {
        let bonus = MlpLoss::Scores(LossKind::CeEntropy { lambda: 0.3 });
        for loss in [MlpLoss::CrossEntropy, MlpLoss::Mse, bonus] {
            for bias in [false, true] {
                let m = model(&[4, 6, 5, 3], activation, bias, loss);
                let (b, n) = (batch(&m, 7), m.layout().len());
                let at: Vec<f64> = random(n, 9);
                let mut o = MlpObjective::new(m);
                let (u, v) = (random(n, 10), random(n, 11));
                let h = 1e-5;
                let (hi, lo) =
                    (gradient(&mut o, &moved(&at, &v, h), &b), gradient(&mut o, &moved(&at, &v, -h), &b));
                let (slope, own) = ((hi.0 - lo.0) / (2.0 * h), dot(&gradient(&mut o, &at, &b).1, &v));
                let case = format!("{activation:?}, {loss:?}, bias {bias}");
                assert!((slope - own).abs() < 1e-7 * slope.abs().max(1e-2), "{case}: {slope} and {own}");
                let (mut hu, mut hv) = (vec![f64::NAN; n], vec![f64::NAN; n]);
                o.hvp(&at, &b, &u, &mut hu).unwrap();
                o.hvp(&at, &b, &v, &mut hv).unwrap();
                let want: Vec<f64> = hi.1.iter().zip(&lo.1).map(|(a, b)| (a - b) / (2.0 * h)).collect();
                let diff = moved(&hv, &want, -1.0);
                let err = (dot(&diff, &diff) / dot(&want, &want)).sqrt();
                assert!(err < 1e-6, "{case}: Hessian product off by {err:.1e}");
                let (a, c) = (dot(&u, &hv), dot(&v, &hu));
                let scale = (dot(&u, &u) * dot(&hv, &hv)).sqrt();
                assert!((a - c).abs() < 1e-12 * scale, "{case}: {a} and {c}");
            }
        }
    }
}

#[test]
fn an_ignored_label_takes_no_part_and_micro_batches_add_up_to_the_batch() {
    let m = model(&[3, 5, 4], Act::Silu, true, MlpLoss::CrossEntropy);
    let (mut whole, p) = (batch(&m, 5), random(m.layout().len(), 1));
    whole.targets = Targets::Labels(vec![1, IGNORE, 3, 0, 2]);
    let mut o = MlpObjective::new(m);
    let (loss, g) = gradient(&mut o, &p, &whole);
    let part = |rows: std::ops::Range<usize>, labels: &[u32]| MlpBatch {
        rows: rows.len(),
        inputs: whole.inputs[rows.start * 3..rows.end * 3].to_vec(),
        targets: Targets::Labels(labels.to_vec()),
        weight: 0.25,
    };
    let mut sum = vec![0.0; p.len()];
    let a = o.gradient(&p, &part(0..1, &[1]), &mut sum, false).unwrap();
    let b = o.gradient(&p, &part(2..5, &[3, 0, 2]), &mut sum, true).unwrap();
    assert!((a.loss + b.loss - loss).abs() < 1e-14);
    assert!(g.iter().zip(&sum).all(|(a, b)| (a - b).abs() < 1e-14));
    let mut streamed = vec![f64::NAN; p.len()];
    let mut live = p.clone();
    o.gradient_streaming(&mut live, &whole, &mut |r, _, g| streamed[r].copy_from_slice(g)).unwrap();
    assert_eq!(streamed, g);
}

#[test]
fn one_and_two_threads_give_the_same_bits() {
    let m = model(&[40, 64, 64, 10], Act::Gelu, true, MlpLoss::CrossEntropy);
    let (b, p) = (batch(&m, 128), m.init::<f64>(3));
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut o = MlpObjective::new(m.clone());
            let mut hv = vec![0.0; p.len()];
            o.hvp(&p, &b, &p, &mut hv).unwrap();
            (gradient(&mut o, &p, &b), hv)
        })
    };
    assert_eq!(run(1), run(2));
}

#[test]
fn tensors_have_names_shapes_roles_and_bounded_seeded_values() {
    let m = model(&[16, 9, 4], Act::Tanh, true, MlpLoss::Mse);
    let rows: Vec<_> =
        m.layout().blocks().iter().map(|b| (b.name.as_str(), b.shape.clone(), b.role)).collect();
    let want = [
        ("layers.0.weight", vec![9, 16], Role::Mlp),
        ("layers.0.bias", vec![9], Role::Bias),
        ("layers.1.weight", vec![4, 9], Role::Head),
        ("layers.1.bias", vec![4], Role::Bias),
    ];
    assert_eq!(rows, want);
    let p: Vec<f64> = m.init(5);
    assert_eq!(p, m.init::<f64>(5));
    assert_ne!(p, m.init::<f64>(6));
    for b in m.layout().blocks() {
        let bound = if b.name.starts_with("layers.0") { 1.0 / 4.0 } else { 1.0 / 3.0 };
        let most = p[b.range.clone()].iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        assert!(most <= bound && most > 0.3 * bound, "{}: {most} of {bound}", b.name);
    }
}

struct Fixture(Value);

impl Fixture {
    fn numbers(v: &Value) -> Vec<f64> {
        v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    }

    fn stream(&self, name: &str, n: usize, scale: f64) -> Vec<f64> {
        let mut rng = Rng::named(self.0["seed"].as_u64().unwrap(), name);
        (0..n).map(|_| scale * (2.0 * rng.uniform() - 1.0)).collect()
    }

    fn tensors(m: &Mlp, f: impl Fn(&str, usize) -> Vec<f64>) -> Vec<f64> {
        m.layout().blocks().iter().flat_map(|b| f(&b.name, b.range.len())).collect()
    }

    fn batch<T: Real>(&self, m: &Mlp) -> MlpBatch<T> {
        let rows = self.0["rows"].as_u64().unwrap() as usize;
        let cast = |x: Vec<f64>| x.into_iter().map(T::of).collect::<Vec<T>>();
        let targets = if m.config().loss == MlpLoss::Mse {
            Targets::Values(cast(self.stream("targets", rows * m.outputs(), 1.0)))
        } else {
            let mut rng = Rng::named(self.0["seed"].as_u64().unwrap(), "labels");
            Targets::Labels((0..rows).map(|_| rng.below(m.outputs()) as u32).collect())
        };
        MlpBatch { rows, inputs: cast(self.stream("inputs", rows * m.inputs(), 1.0)), targets, weight: 0.0 }
    }
}

/// Worst `max|diff| / max|ref|` over tensors.
fn worst<T: Real>(m: &Mlp, got: &[T], want: &Value) -> f64 {
    let one = |b: &rhumb_core::Block| {
        let want = Fixture::numbers(&want[&b.name]);
        let scale = want.iter().fold(1e-300_f64, |s, w| s.max(w.abs()));
        let off = got[b.range.clone()].iter().zip(&want).map(|(g, w)| (g.f64() - w).abs());
        off.fold(0.0_f64, f64::max) / scale
    };
    m.layout().blocks().iter().map(one).fold(0.0, f64::max)
}

fn check_parity<T: Real>(case: &str, f: &Fixture, tol: f64, loss_tol: f64) {
    let m = Mlp::new(serde_json::from_value(f.0["config"].clone()).unwrap()).unwrap();
    let p = Fixture::tensors(&m, |name, n| f.stream(name, n, if name.ends_with("bias") { 0.2 } else { 0.8 }));
    let v = Fixture::tensors(&m, |name, n| f.stream(&format!("v/{name}"), n, 1.0));
    let cast = |x: &[f64]| x.iter().map(|x| T::of(*x)).collect::<Vec<T>>();
    let (mut p, v, b) = (cast(&p), cast(&v), f.batch::<T>(&m));
    let mut o = MlpObjective::new(m.clone());
    let (mut g, mut hv) = (vec![T::of(f64::NAN); p.len()], vec![T::of(f64::NAN); p.len()]);
    let loss = o.value_grad(&p, &b, &mut g).unwrap();
    let want = f.0["loss"].as_f64().unwrap();
    assert!((loss - want).abs() < loss_tol * want, "{case} {}: loss {loss}, PyTorch {want}", T::NAME);
    o.hvp(&p, &b, &v, &mut hv).unwrap();
    for (what, got) in [("gradient", &g), ("hvp", &hv)] {
        let err = worst(&m, got, &f.0[what]);
        assert!(err < tol, "{case} {}: {what} off by {err:.1e}", T::NAME);
    }
    let outputs = Fixture::numbers(&f.0["outputs"]);
    let mut y = vec![T::ZERO; outputs.len()];
    o.predict(&p, b.rows, &b.inputs, &mut y).unwrap();
    assert!(y.iter().zip(&outputs).all(|(y, w)| (y.f64() - w).abs() < tol), "{case} {}: outputs", T::NAME);
    let config: OptimizerConfig = serde_json::from_value(serde_json::json!({
        "kind": "adamw", "lr": 1e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1,
        "decay_everywhere": true
    }))
    .unwrap();
    let mut opt = config.build::<T>(m.layout()).unwrap();
    for (k, want) in Fixture::numbers(&f.0["losses"]).into_iter().enumerate() {
        let loss = o.value_grad(&p, &b, &mut g).unwrap();
        let err = (loss - want).abs() / want;
        assert!(err < 10.0 * loss_tol, "{case} {}: before step {k} {loss}, PyTorch {want}", T::NAME);
        opt.step(1e-3, &mut p, &g);
    }
}

#[test]
fn perceptrons_have_pytorchs_outputs_gradients_hessian_products_and_losses() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/mlp");
    let mut cases = 0;
    for file in std::fs::read_dir(dir).unwrap() {
        let path = file.unwrap().path();
        let f = Fixture(serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap());
        let case = path.file_stem().unwrap().to_string_lossy().into_owned();
        check_parity::<f64>(&case, &f, 1e-10, 1e-12);
        check_parity::<f32>(&case, &f, 1e-4, 1e-5);
        cases += 1;
    }
    assert_eq!(cases, 6);
}

#[test]
fn a_batch_that_does_not_fit_is_refused_with_its_place() {
    let m = model(&[3, 4, 2], Act::Relu, true, MlpLoss::CrossEntropy);
    let (good, p) = (batch(&m, 4), m.init::<f64>(1));
    let mut o = MlpObjective::new(m);
    let mut fail = |change: &dyn Fn(&mut MlpBatch<f64>)| {
        let mut b = good.clone();
        change(&mut b);
        o.report(&p, &b).unwrap_err().to_string()
    };
    let text = fail(&|b| b.targets = Targets::Labels(vec![0, 1, 2, 0]));
    assert!(text.contains("label 2 of row 2 is outside the 2 classes"), "{text}");
    let text = fail(&|b| b.targets = Targets::Labels(vec![0, 1]));
    assert!(text.contains("labels: expected 4 values, got 2"), "{text}");
    let text = fail(&|b| b.targets = Targets::Values(vec![0.0; 8]));
    assert!(text.contains("the loss needs labels"), "{text}");
    let text = fail(&|b| b.inputs.truncate(11));
    assert!(text.contains("inputs: expected 12 values, got 11"), "{text}");
    let text = fail(&|b| b.inputs[7] = f64::NAN);
    assert!(text.contains("inputs, row 2, column 1"), "{text}");
    let text = fail(&|b| b.rows = 0);
    assert!(text.contains("the batch is empty"), "{text}");
    let text = fail(&|b| b.rows = usize::MAX);
    assert!(text.contains("inputs: expected"), "{text}");
}

#[test]
fn values_and_parameters_that_do_not_fit_are_refused() {
    let m = model(&[3, 4, 2], Act::Relu, true, MlpLoss::Mse);
    let (good, p) = (batch(&m, 4), m.init::<f64>(1));
    let n = p.len();
    let mut o = MlpObjective::new(m);
    let mut g = vec![0.0; n];
    let mut b = good.clone();
    b.targets = Targets::Values(vec![0.0; 7]);
    assert_eq!(o.report(&p, &b).unwrap_err(), EvalError::Shape { what: "target values", want: 8, got: 7 });
    b.targets = Targets::Values([vec![0.0; 7], vec![f64::INFINITY]].concat());
    assert!(o.report(&p, &b).unwrap_err().to_string().contains("target values, row 3, column 1"));
    b.targets = Targets::Labels(vec![0; 4]);
    assert!(o.report(&p, &b).unwrap_err().to_string().contains("needs target values"));
    for got in [n - 1, n + 1] {
        let e = o.value_grad(&vec![0.0; got], &good, &mut vec![0.0; got]).unwrap_err();
        assert_eq!(e, EvalError::Shape { what: "parameters", want: n, got });
    }
    assert!(o.hvp(&p, &good, &g[1..], &mut g.clone()).is_err());
    let mut poisoned = p.clone();
    poisoned[17] = f64::NAN;
    let e = o.value_grad(&poisoned, &good, &mut g).unwrap_err();
    assert_eq!(e, EvalError::NonFinite { what: "loss", block: Some("layers.1.weight".into()) });
    let mut y = [0.0; 3];
    let e = o.predict(&p, 2, &good.inputs[..6], &mut y).unwrap_err();
    assert_eq!(e, EvalError::Shape { what: "output", want: 4, got: 3 });
    assert!(o.predict(&p[1..], 1, &[0.0; 3], &mut y[..2]).is_err());
    assert!(o.predict(&p, 1, &[0.0, f64::NAN, 0.0], &mut y[..2]).is_err());
    assert!(o.value_grad(&p, &good, &mut g).is_ok());
}

#[test]
fn widths_that_make_no_net_are_refused() {
    for (sizes, want) in [
        (vec![], "at least the number of inputs"),
        (vec![3], "at least the number of inputs"),
        (vec![3, 0, 1], "at least 1"),
        (vec![3, usize::MAX], "fit no memory"),
        (vec![usize::MAX, 1], "fit no memory"),
    ] {
        let config = MlpConfig { sizes, activation: Act::Relu, bias: true, loss: MlpLoss::Mse };
        let e = Mlp::new(config).unwrap_err();
        assert!(matches!(e, ModelError::Sizes { .. }) && e.to_string().contains(want), "{e}");
    }
}
