//! Our side of the comparison with PyTorch: one command a line on standard input, one JSON line back.
//!
//! The protocol is described in `reference/bench/lm.py`, which starts this program with `--shape NAME`.
#![expect(clippy::print_stdout, reason = "a bench speaks to its driver")]

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::Instant;

use rhumb_core::{Curvature, EvalError, Optimizer, Product, SecondOrder};
use rhumb_linalg::rng::Rng;
use rhumb_nn::loss::LossKind;
use rhumb_nn::model::{Decoder, DecoderConfig, DecoderObjective, TokenBatch, init};
use rhumb_nn::op::{Adj, Cx, Data, Ins, Loss, LossReport, Tans};
use rhumb_nn::ops::{Attention, Linear, RmsNorm, RopeTable, SwiGlu};
use rhumb_nn::tape::{Graph, Request, Span, Src, Tape};
use rhumb_optim::OptimizerConfig;
use serde_json::json;

/// `<output, g>` for a fixed `g`, the second input.
struct Inner;

impl Loss<f32> for Inner {
    fn name(&self) -> &'static str {
        "inner-product"
    }
    fn eval(
        &self,
        _: &Cx<'_, f32>,
        x: Ins<'_, f32>,
        dx: &mut [Option<Adj<'_, f32>>],
    ) -> Result<LossReport, EvalError> {
        // The peer is handed `g` and computes no value; the sum here is the vectorised one so that it does not count.
        let loss = rhumb_linalg::vec::dot(x[0], x[1]);
        if let Some(Some(d)) = dx.first_mut() {
            if d.add {
                d.each(|i| x[1][i]);
            } else {
                d.buf.copy_from_slice(x[1]);
            }
        }
        Ok(LossReport { loss, ..LossReport::default() })
    }
    fn eval_tangent(
        &self,
        cx: &Cx<'_, f32>,
        x: Ins<'_, f32>,
        _: Tans<'_, f32>,
        dx: &mut [Option<Adj<'_, f32>>],
        tdx: &mut [Option<Adj<'_, f32>>],
    ) -> Result<LossReport, EvalError> {
        if let Some(Some(d)) = tdx.first_mut() {
            d.each(|_| 0.0);
        }
        self.eval(cx, x, dx)
    }
}

/// Products in one call of `products`.
const SHARED: usize = 4;

trait Work {
    fn step(&mut self) -> Result<f64, String>;
    fn grad(&mut self) -> Result<f64, String>;
    fn hvp(&mut self) -> Result<f64, String>;
    /// [`SHARED`] products around one linearization.
    fn products(&mut self) -> Result<f64, String> {
        Err("only a decoder shares a linearization".into())
    }
    fn parameters(&self) -> usize;
}

struct Lm {
    objective: DecoderObjective<f32>,
    optimizer: Box<dyn Optimizer<f32>>,
    params: Vec<f32>,
    grad: Vec<f32>,
    /// Direction and result of Hessian-vector products, made on first use.
    pair: Option<(Vec<f32>, Vec<f32>)>,
    shared: Option<Vec<(Vec<f32>, Vec<f32>)>>,
    batch: TokenBatch,
}

fn random(n: usize, scale: f64, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    (0..n).map(|_| (rng.normal() * scale) as f32).collect()
}

impl Lm {
    fn new(shape: &str) -> Result<Self, String> {
        let (rows, len, d, layers, heads, kv, ffn, vocab, theta) = match shape {
            "d128" => (8, 128, 128, 4, 4, 4, 344, 2048, 1e4),
            "d256" => (8, 256, 256, 6, 8, 8, 688, 8192, 1e4),
            "smollm2" => (2, 256, 576, 30, 9, 3, 1536, 49152, 1e5),
            other => return Err(format!("unknown shape {other:?}")),
        };
        let config = json!({
            "model_type": "llama", "vocab_size": vocab, "hidden_size": d, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": kv, "intermediate_size": ffn,
            "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": theta, "tie_word_embeddings": true
        });
        let model = DecoderConfig::from_json(&config).and_then(Decoder::new).map_err(|e| e.to_string())?;
        let params = init(model.layout(), layers, 0.02, 1);
        let mut rng = Rng::new(7);
        let ids = (0..rows * len).map(|_| rng.below(vocab) as u32).collect();
        let adamw = json!({ "kind": "adamw", "lr": 1e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8,
                            "weight_decay": 0.1, "decay_everywhere": true });
        let adamw: OptimizerConfig = serde_json::from_value(adamw).map_err(|e| e.to_string())?;
        let optimizer = adamw.build(model.layout()).map_err(|e| e.to_string())?;
        let objective = DecoderObjective::new(model, LossKind::Ce, false, Arc::new(Vec::new()))
            .map_err(|e| e.to_string())?;
        let grad = vec![0.0; params.len()];
        Ok(Lm {
            objective,
            optimizer,
            params,
            grad,
            pair: None,
            shared: None,
            batch: TokenBatch::causal(rows, len, ids),
        })
    }
}

impl Work for Lm {
    fn step(&mut self) -> Result<f64, String> {
        let loss = self.grad()?;
        self.optimizer.step(1e-3, &mut self.params, &self.grad);
        Ok(loss)
    }
    fn grad(&mut self) -> Result<f64, String> {
        let r = self.objective.gradient(&self.params, &self.batch, &mut self.grad, false);
        r.map(|r| r.loss).map_err(|e| e.to_string())
    }
    fn hvp(&mut self) -> Result<f64, String> {
        let n = self.params.len();
        let (v, out) = self.pair.get_or_insert_with(|| (random(n, 1.0, 3), vec![0.0; n]));
        self.objective.hvp(&self.params, &self.batch, v, out).map_err(|e| e.to_string())?;
        Ok(f64::from(out[0]))
    }
    fn products(&mut self) -> Result<f64, String> {
        let n = self.params.len();
        let pairs = self.shared.get_or_insert_with(|| {
            (0..SHARED as u64).map(|i| (random(n, 1.0, 3 + i), vec![0.0; n])).collect()
        });
        let whole = 0..n;
        let block = std::slice::from_ref(&whole);
        let mut requests: Vec<_> =
            pairs.iter_mut().map(|(v, out)| Product { of: Curvature::Hessian, block, v, out }).collect();
        self.objective.products(&self.params, &self.batch, &mut requests).map_err(|e| e.to_string())?;
        Ok(f64::from(pairs[0].1[0]))
    }
    fn parameters(&self) -> usize {
        self.params.len()
    }
}

struct Layer {
    tape: Tape<f32>,
    params: Vec<f32>,
    grad: Vec<f32>,
    direction: Vec<f32>,
    out: Vec<f32>,
    x: Vec<f32>,
    g: Vec<f32>,
    dx: Vec<f32>,
    positions: Vec<u32>,
    spans: Vec<(u32, u32)>,
}

impl Layer {
    fn new() -> Result<Self, String> {
        let (batch, len, d, heads, ffn) = (8, 256, 256, 8, 688);
        let n = batch * len;
        let mut used = 0;
        let mut take = |k: usize| {
            used += k;
            Src::Param(Span { range: used - k..used, trainable: true })
        };
        let mut graph = Graph::new();
        let (x, dy) = (graph.input(n * d, true), graph.input(n * d, false));
        let rope = Arc::new(RopeTable::new(&RopeTable::<f64>::inv_freq(1e4, d / heads), len));
        let norm = RmsNorm { rows: n, width: d, eps: 1e-5 };
        let linear = |inp, out, residual| Linear { rows: n, inp, out, bias: false, residual };
        let h = graph.push(norm, &[x.into(), take(d)]);
        let qkv = graph.push(linear(d, 3 * d, false), &[h.into(), take(3 * d * d)]);
        let (kv_heads, head_dim) = (heads, d / heads);
        let att = Attention { batch, len, heads, kv_heads, head_dim, rope: Some(rope), layer: 0 };
        let a = graph.push(att, &[qkv.into()]);
        let x2 = graph.push(linear(d, d, true), &[a.into(), take(d * d), x.into()]);
        let h = graph.push(norm, &[x2.into(), take(d)]);
        let gu = graph.push(linear(d, 2 * ffn, false), &[h.into(), take(2 * ffn * d)]);
        let a = graph.push(SwiGlu { rows: n, width: ffn }, &[gu.into()]);
        let y = graph.push(linear(ffn, d, true), &[a.into(), take(ffn * d), x2.into()]);
        graph.finish(Inner, &[y.into(), dy.into()]);
        Ok(Layer {
            tape: Tape::new(graph).map_err(|e| e.to_string())?,
            params: random(used, 0.05, 1),
            grad: vec![0.0; used],
            direction: random(used, 1.0, 2),
            out: vec![0.0; used],
            x: random(n * d, 1.0, 3),
            g: random(n * d, 1.0, 4),
            dx: vec![0.0; n * d],
            positions: (0..n).map(|i| (i % len) as u32).collect(),
            spans: (0..n).map(|i| (0, (i % len) as u32 + 1)).collect(),
        })
    }
}

impl Work for Layer {
    fn step(&mut self) -> Result<f64, String> {
        Err("a layer has no step".into())
    }
    fn grad(&mut self) -> Result<f64, String> {
        let inputs: [&[f32]; 2] = [&self.x, &self.g];
        let data =
            Data { positions: &self.positions, spans: &self.spans, inputs: &inputs, ..Data::default() };
        let req = Request { data, weight: 1.0, ..Request::default() };
        let r = self.tape.gradient(&self.params, req, &mut self.grad, false, &mut [&mut self.dx]);
        r.map(|r| r.loss).map_err(|e| e.to_string())
    }
    fn hvp(&mut self) -> Result<f64, String> {
        let inputs: [&[f32]; 2] = [&self.x, &self.g];
        let data =
            Data { positions: &self.positions, spans: &self.spans, inputs: &inputs, ..Data::default() };
        let req = Request { data, weight: 1.0, ..Request::default() };
        let r = self.tape.hvp(&self.params, req, &self.direction, &mut self.out);
        r.map(|r| r.loss).map_err(|e| e.to_string())
    }
    fn parameters(&self) -> usize {
        self.params.len()
    }
}

/// Peak resident bytes, where the kernel tells.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

fn answer(work: &mut dyn Work, line: &str) -> serde_json::Value {
    let mut words = line.split_whitespace();
    let command = words.next().unwrap_or("");
    let n: usize = words.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut times = Vec::with_capacity(n);
    let mut loss = f64::NAN;
    for _ in 0..n {
        let start = Instant::now();
        let result = match command {
            "step" => work.step(),
            "grad" => work.grad(),
            "hvp" => work.hvp(),
            "products" => work.products(),
            other => Err(format!("unknown command {other:?}")),
        };
        match result {
            Ok(l) => loss = l,
            Err(e) => return json!({ "error": e }),
        }
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    json!({ "ms": times[n / 2], "peak_bytes": peak_bytes(), "parameters": work.parameters(), "loss": loss })
}

fn main() -> Result<(), String> {
    let args: Vec<String> = std::env::args().collect();
    let shape = match args.as_slice() {
        [_, flag, shape] if flag == "--shape" => shape.as_str(),
        _ => return Err("usage: bench_lm --shape d128|d256|smollm2|layer".into()),
    };
    let mut work: Box<dyn Work> =
        if shape == "layer" { Box::new(Layer::new()?) } else { Box::new(Lm::new(shape)?) };
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| e.to_string())?;
        if line.trim() == "quit" {
            break;
        }
        println!("{}", answer(work.as_mut(), &line));
        std::io::stdout().flush().map_err(|e| e.to_string())?;
    }
    Ok(())
}
