use rhumb_core::{Layout, Role};
use rhumb_linalg::rng::Rng;
use rhumb_optim::OptimizerConfig;
use serde::Deserialize;

use super::{Case, cases};

#[derive(Deserialize)]
struct Fixture {
    seed: u64,
    steps: u64,
    tolerance: Tolerance,
    optimizer: OptimizerConfig,
    tensors: Vec<Tensor>,
}

#[derive(Deserialize)]
struct Tolerance {
    rtol: f64,
    atol: f64,
}

#[derive(Deserialize)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    role: Role,
    p: Vec<f64>,
}

fn symmetric(seed: u64, purpose: &str, n: usize) -> Vec<f64> {
    let mut r = Rng::named(seed, purpose);
    (0..n).map(|_| 2.0 * r.uniform() - 1.0).collect()
}

/// The largest excess over the tolerance, and where.
fn compare(case: &Case) -> Result<(), String> {
    let f: Fixture = serde_json::from_str(case.fixture).map_err(|e| e.to_string())?;
    assert!(f.steps >= 20 && f.tolerance.rtol <= 1e-10);
    let mut layout = Layout::new();
    for t in &f.tensors {
        layout.push(t.name.clone(), &t.shape, t.role);
    }
    let mut o = f.optimizer.build::<f64>(&layout).map_err(|e| e.to_string())?;
    let each = |purpose: &dyn Fn(&str) -> String, scale: f64| -> Vec<f64> {
        f.tensors
            .iter()
            .flat_map(|t| symmetric(f.seed, &purpose(&t.name), t.p.len()))
            .map(|x| scale * x)
            .collect()
    };
    let mut p = each(&|name| format!("p/{name}"), 1.0);
    for k in 0..f.steps {
        o.step(f.optimizer.lr, &mut p, &each(&|name| format!("g/{k}/{name}"), (k + 1) as f64));
    }
    for (t, b) in f.tensors.iter().zip(layout.blocks()) {
        for (i, (a, b)) in p[b.range.clone()].iter().zip(&t.p).enumerate() {
            let off = (a - b).abs();
            if off.is_nan() || off > f.tolerance.atol + f.tolerance.rtol * b.abs() {
                return Err(format!("{} [{i}]: {a} instead of {b}", t.name));
            }
        }
    }
    Ok(())
}

#[test]
fn twenty_steps_in_f64_follow_the_reference_within_one_part_in_ten_billion() {
    let wrong: Vec<String> =
        cases().iter().filter_map(|c| compare(c).err().map(|e| format!("{}: {e}", c.name))).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
