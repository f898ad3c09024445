use rhumb_core::{Layout, Role};

use super::{bits, cases, layout, random};

fn with_threads<R: Send>(n: usize, f: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(f)
}

#[test]
fn a_step_is_its_blocks_one_by_one_in_any_order() {
    let layout = layout(2);
    for case in cases() {
        let (mut a, mut b) = (case.build::<f32>(&layout), case.build::<f32>(&layout));
        let (mut pa, mut pb) = (random::<f32>(layout.len(), 1), random::<f32>(layout.len(), 1));
        for t in 0..12 {
            let g = random::<f32>(layout.len(), 100 + t);
            a.step(0.01, &mut pa, &g);
            b.begin();
            let mut order: Vec<usize> = (0..layout.blocks().len()).rev().collect();
            order.rotate_left(t as usize % 5);
            for i in order {
                let r = layout.blocks()[i].range.clone();
                b.step_block(0.01, i, &mut pb[r.clone()], &g[r]);
            }
        }
        assert_eq!(bits(&pa), bits(&pb), "{}", case.name);
    }
}

/// Large enough for every parallel path, with widths that no piece of work divides.
fn large() -> Layout {
    let mut l = Layout::new();
    l.push("embed_tokens", &[701, 301], Role::Embed);
    l.push("q_proj", &[301, 301], Role::Query { head_dim: 43 });
    l.push("mlp.up", &[601, 301], Role::Mlp);
    l.push("mlp.bias", &[140_001], Role::Bias);
    l.push("norm", &[301], Role::Norm);
    l
}

#[test]
fn one_and_two_threads_give_the_same_bits() {
    let layout = large();
    for case in cases() {
        let run = || {
            let mut o = case.build::<f32>(&layout);
            let mut p = random::<f32>(layout.len(), 2);
            for t in 0..2 {
                o.step(0.01, &mut p, &random(layout.len(), 200 + t));
            }
            p
        };
        assert!(bits(&with_threads(1, run)) == bits(&with_threads(2, run)), "{}", case.name);
    }
}

#[test]
fn f32_stays_within_rounding_of_f64_on_large_tensors() {
    let layout = large();
    for case in cases() {
        let (mut single, mut double) = (case.build::<f32>(&layout), case.build::<f64>(&layout));
        let mut p = random::<f32>(layout.len(), 3);
        let mut q: Vec<f64> = p.iter().map(|x| f64::from(*x)).collect();
        let g = random::<f32>(layout.len(), 4);
        single.step(1e-3, &mut p, &g);
        double.step(1e-3, &mut q, &g.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
        let worst = p.iter().zip(&q).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
        assert!(worst < 2e-6, "{}: {worst}", case.name);
    }
}

#[test]
fn a_zero_gradient_moves_nothing_but_by_weight_decay() {
    let layout = layout(1);
    for case in cases() {
        for wd in [0.0, 0.5] {
            let mut config = case.config();
            config.weight_decay = wd;
            let mut o = config.build::<f64>(&layout).unwrap();
            let start = random::<f64>(layout.len(), 5);
            let mut p = start.clone();
            o.step(0.1, &mut p, &vec![0.0; layout.len()]);
            for b in layout.blocks() {
                let free = matches!(b.role, Role::Norm | Role::Bias);
                // Where AdamW has a learning rate of its own, so has its decay.
                let aux = matches!(b.role, Role::Embed | Role::Head);
                let lr = config.muon.filter(|_| aux).map_or(0.1, |m| 0.1 * m.adamw_lr_ratio);
                // SGD's decay is part of the gradient, which Nesterov's form takes once more.
                let lr = if config.nesterov { lr * (1.0 + config.momentum) } else { lr };
                let keep = if free { 1.0 } else { 1.0 - lr * wd };
                for i in b.range.clone() {
                    assert!(
                        (p[i] - keep * start[i]).abs() < 1e-14,
                        "{} {}: {} {}",
                        case.name,
                        b.name,
                        p[i],
                        start[i]
                    );
                }
            }
        }
    }
}

#[test]
fn a_learning_rate_of_zero_leaves_every_parameter() {
    let layout = layout(1);
    for case in cases() {
        let mut o = case.build::<f32>(&layout);
        let start = random::<f32>(layout.len(), 6);
        let mut p = start.clone();
        for t in 0..10 {
            o.step(0.0, &mut p, &random(layout.len(), 300 + t));
        }
        assert_eq!(bits(&p), bits(&start), "{}", case.name);
    }
}

#[test]
fn a_gradient_that_is_not_a_number_reaches_its_tensor_alone_without_a_panic() {
    let layout = layout(1);
    for case in cases() {
        for bad in [f32::NAN, f32::INFINITY] {
            for (i, block) in layout.blocks().iter().enumerate() {
                let mut o = case.build::<f32>(&layout);
                let mut p = random::<f32>(layout.len(), 7);
                let mut g = random::<f32>(layout.len(), 8);
                g[block.range.start] = bad;
                for _ in 0..9 {
                    o.step(0.01, &mut p, &g);
                }
                for (j, b) in layout.blocks().iter().enumerate() {
                    let finite = p[b.range.clone()].iter().all(|x| x.is_finite());
                    if j != i {
                        assert!(finite, "{}: {} spread to {}", case.name, block.name, b.name);
                    } else if bad.is_nan() {
                        assert!(!finite, "{}: NaN was lost in {}", case.name, b.name);
                    }
                }
            }
        }
    }
}

#[test]
fn empty_tensors_are_stepped_over() {
    let mut l = Layout::new();
    l.push("mlp.none", &[0, 4], Role::Mlp);
    l.push("mlp.also", &[4, 0], Role::Mlp);
    l.push("mlp.w", &[2, 4], Role::Mlp);
    for case in cases() {
        let mut o = case.build::<f32>(&l);
        let mut p = random::<f32>(8, 9);
        for t in 0..9 {
            o.step(0.01, &mut p, &random(8, t));
        }
        assert!(p.iter().all(|x| x.is_finite()), "{}", case.name);
    }
}

/// ½ Σ λ (p − p*)² with λ from 1 to 10.
#[test]
fn every_kind_minimises_a_quadratic() {
    let layout = layout(1);
    let n = layout.len();
    let target = random::<f64>(n, 10);
    let curvature: Vec<f64> = (0..n).map(|i| 1.0 + 9.0 * (i % 10) as f64 / 9.0).collect();
    let loss = |p: &[f64]| -> f64 {
        p.iter().zip(&target).zip(&curvature).map(|((p, t), c)| 0.5 * c * (p - t).powi(2)).sum()
    };
    for case in cases() {
        let mut config = case.config();
        config.weight_decay = 0.0;
        let mut o = config.build::<f64>(&layout).unwrap();
        let mut p = vec![0.1; n];
        let before = loss(&p);
        for t in 0..1500 {
            let lr = 0.1 * (1.0 - f64::from(t) / 1500.0);
            let g: Vec<f64> = (0..n).map(|i| curvature[i] * (p[i] - target[i])).collect();
            o.step(lr, &mut p, &g);
        }
        let after = loss(&p);
        assert!(after < 1e-3 * before, "{}: {before} to {after}", case.name);
    }
}
