//! Trajectories of the official package in three versions and of the file before them, made by `reference/adam_mini.py`.

use rhumb_core::{Layout, Optimizer, Role};
use rhumb_linalg::rng::Rng;
use rhumb_optim::{AdamMini, AdamParams, OptimizerConfig, Partition};
use serde::Deserialize;

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
    v: Vec<f64>,
}

fn symmetric(seed: u64, purpose: &str, n: usize) -> Vec<f64> {
    let mut r = Rng::named(seed, purpose);
    (0..n).map(|_| 2.0 * r.uniform() - 1.0).collect()
}

#[track_caller]
fn compare(what: &str, got: &[f64], want: &[f64], t: &Tolerance) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (a, b) in got.iter().zip(want) {
        assert!((a - b).abs() <= t.atol + t.rtol * b.abs(), "{what}: {a} instead of {b}");
    }
}

fn replay(text: &str) {
    let f: Fixture = serde_json::from_str(text).unwrap();
    let mut layout = Layout::new();
    for t in &f.tensors {
        layout.push(t.name.clone(), &t.shape, t.role);
    }
    let o = &f.optimizer;
    let params = AdamParams::new(o.beta1, o.beta2, o.eps, o.weight_decay).unwrap();
    let mut mini = AdamMini::<f64>::new(&layout, Partition::preset(o.preset, &layout).unwrap(), params);
    let each = |purpose: &dyn Fn(&str) -> String, scale: f64| -> Vec<f64> {
        f.tensors
            .iter()
            .flat_map(|t| symmetric(f.seed, &purpose(&t.name), t.p.len()))
            .map(|x| scale * x)
            .collect()
    };
    let mut p = each(&|name| format!("p/{name}"), 1.0);
    for k in 0..f.steps {
        mini.step(o.lr, &mut p, &each(&|name| format!("g/{k}/{name}"), (k + 1) as f64));
    }
    let mut v = mini.second_moments();
    for (t, b) in f.tensors.iter().zip(layout.blocks()) {
        compare(&t.name, &p[b.range.clone()], &t.p, &f.tolerance);
        let (now, later) = v.split_at(t.v.len());
        compare(&format!("v of {}", t.name), now, &t.v, &f.tolerance);
        v = later;
    }
    assert!(v.is_empty());
}

/// Twenty steps each, in `f64` at 1e-10.
macro_rules! follows {
    ($($test:ident: $file:literal),* $(,)?) => {
        $(
            #[test]
            fn $test() {
                replay(include_str!(concat!("../../../../fixtures/adam-mini/", $file)));
            }
        )*
    };
}

follows! {
    a_nano_llama_with_grouped_queries_follows_the_official_package: "nano-llama-gqa.json",
    a_tied_llama_layer_with_one_key_head_follows_the_official_package: "llama-mqa-tied.json",
    a_gpt2_layer_with_fused_attention_follows_the_official_package: "gpt2.json",
    a_llama_layer_follows_version_1_1_0: "nano-llama-gqa-1.1.0.json",
    a_gpt2_layer_follows_version_1_1_0: "gpt2-1.1.0.json",
    a_llama_layer_follows_version_1_0_4: "nano-llama-gqa-1.0.4.json",
    a_gpt2_layer_follows_version_1_0_4: "gpt2-1.0.4.json",
    fused_heads_follow_the_first_published_file: "fused-v0.json",
    fused_grouped_heads_follow_the_first_published_file: "fused-gqa-v0.json",
}
