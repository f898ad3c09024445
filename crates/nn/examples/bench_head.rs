//! Our side of the comparison of output heads: one command a line on standard input, one JSON line back.
//!
//! The protocol is described in `reference/bench/head.py`, which starts this program with a loss and a number of tokens.
#![expect(clippy::print_stdout, reason = "a bench speaks to its driver")]

use std::io::{BufRead, Write};
use std::time::Instant;

use rhumb_linalg::rng::Rng;
use rhumb_nn::loss::{LmHead, LossKind, RowStats, row_losses};
use rhumb_nn::op::Data;
use rhumb_nn::tape::{Graph, Request, Span, Src, Tape};
use serde_json::json;

const WIDTH: usize = 576;
const VOCAB: usize = 49152;

struct Head {
    kind: LossKind,
    tokens: usize,
    labels: Vec<u32>,
    tape: Tape<f32>,
    hidden: Vec<f32>,
    weight: Vec<f32>,
    grad: Vec<f32>,
    grad_hidden: Vec<f32>,
    /// Made on first use.
    scores: Vec<f32>,
    stats: Vec<RowStats>,
}

fn random(n: usize, scale: f64, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    (0..n).map(|_| (rng.normal() * scale) as f32).collect()
}

impl Head {
    fn new(kind: LossKind, tokens: usize) -> Result<Self, String> {
        let mut graph = Graph::new();
        let h = graph.input(tokens * WIDTH, true);
        let w = Src::Param(Span { range: 0..VOCAB * WIDTH, trainable: true });
        graph.finish(LmHead::new(tokens, WIDTH, VOCAB, kind), &[h.into(), w]);
        let mut rng = Rng::new(7);
        Ok(Head {
            kind,
            tokens,
            labels: (0..tokens).map(|_| rng.below(VOCAB) as u32).collect(),
            tape: Tape::new(graph).map_err(|e| e.to_string())?,
            hidden: random(tokens * WIDTH, 1.0, 1),
            weight: random(VOCAB * WIDTH, 0.05, 2),
            grad: vec![0.0; VOCAB * WIDTH],
            grad_hidden: vec![0.0; tokens * WIDTH],
            scores: Vec::new(),
            stats: Vec::new(),
        })
    }

    fn head(&mut self) -> Result<f64, String> {
        let inputs: [&[f32]; 1] = [&self.hidden];
        let data = Data { targets: &self.labels, inputs: &inputs, ..Data::default() };
        let req = Request { data, weight: 1.0 / self.tokens as f64, ..Request::default() };
        let adjoints: &mut [&mut [f32]] = &mut [&mut self.grad_hidden];
        let report = self.tape.gradient(&self.weight, req, &mut self.grad, false, adjoints);
        report.map(|r| r.loss).map_err(|e| e.to_string())
    }

    /// Later calls find the gradient of the one before in the place of scores: the work is the same for any values.
    fn rows(&mut self) -> Result<f64, String> {
        if self.scores.is_empty() {
            self.scores = random(self.tokens * VOCAB, 1.0, 3);
        }
        let scale = Some(1.0 / self.tokens as f32);
        let report = row_losses(self.kind, &mut self.scores, VOCAB, &self.labels, scale, &mut self.stats);
        report.map(|r| r.loss / self.tokens as f64).map_err(|e| e.to_string())
    }
}

/// Peak resident bytes, where the kernel tells.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

fn answer(work: &mut Head, line: &str) -> serde_json::Value {
    let mut words = line.split_whitespace();
    let command = words.next().unwrap_or("");
    let n: usize = words.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut times = Vec::with_capacity(n);
    let mut loss = f64::NAN;
    for _ in 0..n {
        if command == "rows" && work.scores.is_empty() {
            // Making them is no part of the work.
            if let Err(e) = work.rows() {
                return json!({ "error": e });
            }
        }
        let start = Instant::now();
        let result = match command {
            "head" => work.head(),
            "rows" => work.rows(),
            other => Err(format!("unknown command {other:?}")),
        };
        match result {
            Ok(l) => loss = l,
            Err(e) => return json!({ "error": e }),
        }
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    json!({ "ms": times[n / 2], "peak_bytes": peak_bytes(), "loss": loss })
}

fn main() -> Result<(), String> {
    let args: Vec<String> = std::env::args().collect();
    let [_, loss, tokens] = args.as_slice() else {
        return Err("usage: bench_head LOSS TOKENS".into());
    };
    let kind = LossKind::parse(loss, None).map_err(|e| e.to_string())?;
    let tokens = tokens.parse().map_err(|_| format!("{tokens:?} is no number of tokens"))?;
    let mut work = Head::new(kind, tokens)?;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| e.to_string())?;
        if line.trim() == "quit" {
            break;
        }
        println!("{}", answer(&mut work, &line));
        std::io::stdout().flush().map_err(|e| e.to_string())?;
    }
    Ok(())
}
