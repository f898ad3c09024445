//! Properties that hold for any data.

use rhumb_core::{Layout, Optimizer, Role};
use rhumb_linalg::Real;
use rhumb_linalg::rng::Rng;
use rhumb_optim::adam_mini::{Cut, TensorPlan};
use rhumb_optim::{
    AdamMini, AdamParams, Kind, OptimizerConfig, Partition, Preset, clip_global_norm, global_norm,
};

use crate::{adamw, mini, one, params, steps};

fn random<T: Real>(n: usize, seed: u64) -> Vec<T> {
    let mut r = Rng::new(seed);
    (0..n).map(|_| T::of(r.normal())).collect()
}

fn bits(v: &[f64]) -> Vec<u64> {
    v.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn blocks_of_one_element_equal_adamw_bit_for_bit() {
    let rows = one("mlp.w", &[24, 1], Role::Mlp);
    let grads: Vec<Vec<f64>> = (0..5).map(|t| random(24, 10 + t)).collect();
    let (mut a, mut b, mut c) = (random::<f64>(24, 1), random::<f64>(24, 1), random::<f64>(24, 1));
    steps(&mut adamw(&rows, params()), 0.01, &mut a, &grads);
    steps(&mut mini(&rows, Preset::Rhumb, params()), 0.01, &mut b, &grads);
    let single = Partition::custom(
        "single",
        &rows,
        vec![TensorPlan { cuts: vec![Cut { elements: 24, block: 1 }], decay: true }],
    )
    .unwrap();
    steps(&mut AdamMini::new(&rows, single, params()), 0.01, &mut c, &grads);
    assert_eq!(bits(&a), bits(&b));
    assert_eq!(bits(&a), bits(&c));
}

#[test]
fn a_step_commutes_with_a_permutation_of_the_columns() {
    let layout = one("mlp.w", &[3, 5], Role::Mlp);
    let permute =
        |v: &[f64]| -> Vec<f64> { v.chunks(5).flat_map(|row| [3, 0, 4, 1, 2].map(|j| row[j])).collect() };
    let grads: Vec<Vec<f64>> = (0..4).map(|t| random(15, 20 + t)).collect();
    let moved: Vec<Vec<f64>> = grads.iter().map(|g| permute(g)).collect();
    let start = random::<f64>(15, 2);
    let (mut a, mut b) = (start.clone(), permute(&start));
    steps(&mut mini(&layout, Preset::Rhumb, params()), 0.01, &mut a, &grads);
    steps(&mut mini(&layout, Preset::Rhumb, params()), 0.01, &mut b, &moved);
    crate::close(&permute(&a), &b, 1e-14);
}

#[test]
fn the_scale_of_the_gradients_does_not_matter() {
    let layout = one("q_proj", &[4, 6], Role::Query { head_dim: 2 });
    let grads: Vec<Vec<f64>> = (0..6).map(|t| random(24, 30 + t)).collect();
    let large: Vec<Vec<f64>> = grads.iter().map(|g| g.iter().map(|x| 1e3 * x).collect()).collect();
    let (mut a, mut b) = (random::<f64>(24, 3), random::<f64>(24, 3));
    steps(&mut mini(&layout, Preset::Rhumb, params()), 0.01, &mut a, &grads);
    steps(&mut mini(&layout, Preset::Rhumb, params()), 0.01, &mut b, &large);
    for (a, b) in a.iter().zip(&b) {
        assert!((a - b).abs() <= 1e-6 * a.abs().max(0.01), "{a} {b}");
    }
}

#[test]
fn gradients_of_one_magnitude_make_it_adamw() {
    let layout = one("mlp.w", &[2, 4], Role::Mlp);
    let grads: Vec<Vec<f64>> = (0..4)
        .map(|t| random::<f64>(8, 40 + t).iter().map(|x| (t + 1) as f64 * x.signum()).collect())
        .collect();
    let (mut a, mut b) = (random::<f64>(8, 4), random::<f64>(8, 4));
    steps(&mut mini(&layout, Preset::Rhumb, params()), 0.01, &mut a, &grads);
    steps(&mut adamw(&layout, params()), 0.01, &mut b, &grads);
    crate::close(&a, &b, 1e-12);
}

#[test]
fn the_first_update_of_a_block_has_the_learning_rate_as_its_rms() {
    let layout = one("mlp.w", &[3, 50], Role::Mlp);
    let no_decay = AdamParams::new(0.9, 0.95, 1e-8, 0.0).unwrap();
    let start = random::<f64>(150, 5);
    let mut p = start.clone();
    mini(&layout, Preset::Rhumb, no_decay).step(0.01, &mut p, &random(150, 6));
    for (a, b) in p.chunks(50).zip(start.chunks(50)) {
        let rms = (a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / 50.0).sqrt();
        assert!((rms / 0.01 - 1.0).abs() < 1e-6);
    }
}

/// Large enough for every parallel path: rows, heads, one block above the cached size, single elements.
fn large_layout() -> Layout {
    let mut layout = Layout::new();
    layout.push("embed", &[700, 300], Role::Embed);
    layout.push("q", &[512, 300], Role::Query { head_dim: 64 });
    layout.push("conv", &[600, 500], Role::Other);
    layout.push("bias", &[140_001], Role::Bias);
    layout.push("norm", &[300], Role::Norm);
    layout
}

fn with_threads<R: Send>(n: usize, f: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(f)
}

#[test]
fn one_and_two_threads_give_the_same_bits() {
    let layout = large_layout();
    for kind in [Kind::AdamMini, Kind::AdamW, Kind::Sgd] {
        let run = || {
            let momentum = if kind == Kind::Sgd { 0.9 } else { 0.0 };
            let config = OptimizerConfig { kind, momentum, weight_decay: 0.1, ..OptimizerConfig::default() };
            let mut o = config.build::<f32>(&layout).unwrap();
            let mut p = random::<f32>(layout.len(), 7);
            for t in 0..3 {
                let mut g = random::<f32>(layout.len(), 50 + t);
                clip_global_norm(&mut g, 1.0);
                o.step(0.01, &mut p, &g);
            }
            p.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        assert!(with_threads(1, run) == with_threads(2, run), "{kind:?}");
    }
}

#[test]
fn parallel_paths_compute_the_same_as_a_plain_loop() {
    let layout = large_layout();
    let partition = Partition::preset(Preset::Rhumb, &layout).unwrap();
    let p0 = random::<f64>(layout.len(), 8);
    let g = random::<f64>(layout.len(), 9);
    let mut p = p0.clone();
    AdamMini::new(&layout, partition.clone(), params()).step(0.01, &mut p, &g);
    let mut at = 0;
    for plan in partition.tensors() {
        for cut in &plan.cuts {
            for start in (at..at + cut.elements).step_by(cut.block) {
                let block = start..start + cut.block;
                let s = g[block.clone()].iter().map(|x| x * x).sum::<f64>() / cut.block as f64;
                for i in block {
                    let decayed = p0[i] * (1.0 - if plan.decay { 0.01 * 0.1 } else { 0.0 });
                    let want = decayed - 0.01 * g[i] / (s.sqrt() + 1e-8);
                    assert!((p[i] - want).abs() < 1e-12, "{i}: {} {want}", p[i]);
                }
            }
            at += cut.elements;
        }
    }
}

#[test]
fn the_global_norm_does_not_depend_on_threads_and_clips_to_the_limit() {
    let g = random::<f32>(500_001, 12);
    let (a, b) = (with_threads(1, || global_norm(&g)), with_threads(2, || global_norm(&g)));
    assert_eq!(a.to_bits(), b.to_bits());
    let mut g = g;
    clip_global_norm(&mut g, 2.0);
    assert!((global_norm(&g) - 2.0).abs() < 1e-4);
}
