//! Our side of the comparison of optimizer steps: one command a line on standard input, one JSON line back.
//!
//! The protocol is described in `reference/bench/optim.py`, which starts this program with a configuration of
//! [`OptimizerConfig`] as JSON.
#![expect(clippy::print_stdout, reason = "a bench speaks to its driver")]

use std::io::{BufRead, Write};
use std::time::Instant;

use rhumb_core::{Layout, Role};
use rhumb_optim::OptimizerConfig;
use serde_json::json;

/// GPT-2 125M with separate projections: vocabulary 50304, tied head, no biases, 1024 positions.
fn gpt2() -> Layout {
    let (d, head_dim) = (768, 64);
    let mut l = Layout::new();
    l.push("wte.weight", &[50_304, d], Role::Embed);
    l.push("wpe.weight", &[1024, d], Role::Position);
    for i in 0..12 {
        let mut push = |name: &str, shape: &[usize], role| {
            l.push(format!("h.{i}.{name}.weight"), shape, role);
        };
        push("ln_1", &[d], Role::Norm);
        push("attn.wq", &[d, d], Role::Query { head_dim });
        push("attn.wk", &[d, d], Role::Key { head_dim });
        push("attn.wv", &[d, d], Role::Value { head_dim });
        push("attn.wo", &[d, d], Role::AttnOut);
        push("ln_2", &[d], Role::Norm);
        push("mlp.c_fc", &[4 * d, d], Role::Mlp);
        push("mlp.c_proj", &[d, 4 * d], Role::Mlp);
    }
    l.push("ln_f.weight", &[d], Role::Norm);
    l
}

/// Peak resident bytes, where the kernel tells.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

fn main() -> Result<(), String> {
    let config = std::env::args().nth(1).ok_or("usage: bench_optim CONFIGURATION")?;
    let config: OptimizerConfig = serde_json::from_str(&config).map_err(|e| e.to_string())?;
    let layout = gpt2();
    let mut optimizer = config.build::<f32>(&layout).map_err(|e| e.to_string())?;
    let mut params = vec![0.1_f32; layout.len()];
    let grad: Vec<f32> = (0..layout.len()).map(|i| (i * 7919 % 1000) as f32 * 1e-5 - 5e-3).collect();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| e.to_string())?;
        let mut words = line.split_whitespace();
        let reply = match words.next() {
            Some("quit") => break,
            Some("step") => {
                let n: usize = words.next().and_then(|n| n.parse().ok()).unwrap_or(1).max(1);
                let mut times: Vec<f64> = (0..n)
                    .map(|_| {
                        let start = Instant::now();
                        optimizer.step(config.lr, &mut params, &grad);
                        start.elapsed().as_secs_f64() * 1e3
                    })
                    .collect();
                times.sort_by(f64::total_cmp);
                json!({ "ms": times[n / 2], "peak_bytes": peak_bytes(), "parameters": layout.len(),
                        "state_bytes": optimizer.state_bytes() })
            }
            other => json!({ "error": format!("unknown command {other:?}") }),
        };
        println!("{reply}");
        std::io::stdout().flush().map_err(|e| e.to_string())?;
    }
    Ok(())
}
