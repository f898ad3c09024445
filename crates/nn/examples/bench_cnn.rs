//! Our side of the comparison of image nets: one command a line on standard input, one JSON line back.
//!
//! The protocol is described in `reference/bench/cnn.py`, which starts this program with the name of a net.
#![expect(clippy::print_stdout, reason = "a bench speaks to its driver")]

use std::io::{BufRead, Write};
use std::time::Instant;

use rhumb_core::Optimizer;
use rhumb_linalg::rng::Rng;
use rhumb_nn::loss::LossKind;
use rhumb_nn::model::{ImageBatch, ImageConfig, ImageModel, ImageNet, ImageObjective, Statistics};
use rhumb_nn::ops::Act;
use rhumb_optim::OptimizerConfig;
use serde_json::json;

const ROWS: usize = 64;

struct Training {
    objective: ImageObjective<f32>,
    optimizer: Box<dyn Optimizer<f32>>,
    params: Vec<f32>,
    grad: Vec<f32>,
    batch: ImageBatch<f32>,
}

impl Training {
    fn new(name: &str) -> Result<Self, String> {
        let (image, net) = match name {
            "lenet" => ([1, 28, 28], ImageNet::Lenet { activation: Act::Relu }),
            "block" => ([64, 16, 16], ImageNet::PreactResnet { width: 64, blocks: vec![1] }),
            "resnet18" => ([3, 32, 32], ImageNet::PreactResnet { width: 64, blocks: vec![2; 4] }),
            other => return Err(format!("unknown net {other:?}")),
        };
        let model = ImageModel::new(ImageConfig { image, classes: 10, net }).map_err(|e| e.to_string())?;
        let mut rng = Rng::new(7);
        let batch = ImageBatch {
            rows: ROWS,
            images: (0..ROWS * model.inputs()).map(|_| rng.normal() as f32).collect(),
            labels: (0..ROWS).map(|_| rng.below(10) as u32).collect(),
            weight: 0.0,
        };
        let adam = json!({ "kind": "adamw", "lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8 });
        let adam: OptimizerConfig = serde_json::from_value(adam).map_err(|e| e.to_string())?;
        let optimizer = adam.build(model.layout()).map_err(|e| e.to_string())?;
        let params: Vec<f32> = model.init(1);
        let grad = vec![0.0; params.len()];
        let objective = ImageObjective::new(model, LossKind::Ce, Statistics::Batch);
        Ok(Training { objective, optimizer, params, grad, batch })
    }

    fn grad(&mut self) -> Result<f64, String> {
        let r = self.objective.gradient(&self.params, &self.batch, &mut self.grad, false);
        self.objective.track(0.1);
        r.map(|r| r.loss).map_err(|e| e.to_string())
    }

    fn step(&mut self) -> Result<f64, String> {
        let loss = self.grad()?;
        self.optimizer.step(1e-3, &mut self.params, &self.grad);
        Ok(loss)
    }

    fn forward(&mut self) -> Result<f64, String> {
        self.objective.report(&self.params, &self.batch).map(|r| r.loss).map_err(|e| e.to_string())
    }
}

/// Peak resident bytes, where the kernel tells.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

fn answer(work: &mut Training, line: &str) -> serde_json::Value {
    let mut words = line.split_whitespace();
    let command = words.next().unwrap_or("");
    let n: usize = words.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let (mut times, mut loss) = (Vec::with_capacity(n), f64::NAN);
    for _ in 0..n {
        let start = Instant::now();
        let result = match command {
            "step" => work.step(),
            "grad" => work.grad(),
            "forward" => work.forward(),
            other => Err(format!("unknown command {other:?}")),
        };
        match result {
            Ok(l) => loss = l,
            Err(e) => return json!({ "error": e }),
        }
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let parameters = work.params.len();
    json!({ "ms": times[n / 2], "peak_bytes": peak_bytes(), "parameters": parameters, "loss": loss })
}

fn main() -> Result<(), String> {
    let args: Vec<String> = std::env::args().collect();
    let [_, name] = args.as_slice() else { return Err("usage: bench_cnn lenet|block|resnet18".into()) };
    let mut work = Training::new(name)?;
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
