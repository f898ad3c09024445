#![allow(clippy::unwrap_used, reason = "tests")]
use rhumb_core::Objective;
use rhumb_linalg::rng::Rng;
use rhumb_nn::model::{MlpBatch, MlpObjective, Targets};
use serde_json::Value;

use super::*;

#[test]
fn shares_of_small_matrices_are_counted_by_hand() {
    // Two blocks of two rows: 1 + 4 + 1 + 4 + 9 + 9 inside, four entries of 1 outside.
    #[rustfmt::skip]
    let h = [
        1.0, 2.0, 1.0, 0.0,
        2.0, 1.0, 0.0, 1.0,
        1.0, 0.0, 3.0, 0.0,
        0.0, 1.0, 0.0, 3.0,
    ];
    let s = Shares::of(&h, 4, 2);
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-15, "{a} {b}");
    near(s.inside, 28.0 / 32.0);
    near(s.off_inside, 8.0 / 12.0);
    near(s.random, (20.0 + 12.0 / 3.0) / 32.0);
    // Without structure: the share of entries.
    let s = Shares::of(&[1.0; 36], 6, 2);
    near(s.inside, 1.0 / 3.0);
    near(s.random, 1.0 / 3.0);
    near(s.off_inside, 1.0 / 5.0);
}

#[test]
fn random_groups_hold_on_average_what_the_formula_says() {
    let (n, block) = (12, 3);
    let mut rng = Rng::new(5);
    let mut h = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let v = rng.normal() * if i / block == j / block { 4.0 } else { 1.0 };
            (h[i * n + j], h[j * n + i]) = (v, v);
        }
    }
    let want = Shares::of(&h, n, block);
    let mut order: Vec<usize> = (0..n).collect();
    let (draws, mut mean) = (4000, 0.0);
    for _ in 0..draws {
        rng.shuffle(&mut order);
        let mixed: Vec<f64> = (0..n * n).map(|at| h[order[at / n] * n + order[at % n]]).collect();
        mean += Shares::of(&mixed, n, block).inside / f64::from(draws);
    }
    assert!((mean - want.random).abs() < 0.005, "{mean} {}", want.random);
    assert!(want.inside > want.random + 0.2);
}

#[test]
fn inputs_have_the_covariance_they_are_asked_for() {
    let (rows, dim) = (40_000, 4);
    for decay in [0.0, 1.0] {
        let set = Set::draw(3, rows, dim, 5, decay);
        let mut covariance = vec![0.0; dim * dim];
        for x in set.inputs.chunks_exact(dim) {
            for (at, c) in covariance.iter_mut().enumerate() {
                *c += x[at / dim] * x[at % dim] / rows as f64;
            }
        }
        let got = rhumb_linalg::dense::symmetric_eigenvalues(&covariance, dim).unwrap();
        let plain: Vec<f64> = (1..=dim).rev().map(|k| (k as f64).powf(-decay)).collect();
        let mean = plain.iter().sum::<f64>() / dim as f64;
        for (got, want) in got.iter().zip(&plain) {
            assert!((got - want / mean).abs() < 0.03 * want / mean + 0.02, "{decay}: {got} {}", want / mean);
        }
    }
    let (a, b) = (Set::draw(3, 50, 4, 5, 0.0), Set::draw(3, 50, 4, 5, 1.0));
    assert_eq!(a.labels, b.labels);
    assert!(a.labels.iter().all(|y| *y < 5) && a.labels.iter().any(|y| *y != a.labels[0]));
}

/// With independent inputs and nearly equal probabilities, neurons `i` and `j` share the block
/// `v_i^T P v_j E[1_i 1_j x x^T]`, `P` the projection that centres over classes (the identity for the squared error),
/// `v` uniform with kurtosis -1.2. Half of the inputs reach one neuron, a quarter both.
#[test]
fn at_first_the_share_inside_follows_from_the_number_of_classes() {
    let (inputs, rows, seeds) = (12, 1500, 4);
    let s = BlockSettings { inputs, rows, ..BlockSettings::default() };
    for squared in [false, true] {
        for classes in [5, 40] {
            let model = s.model(classes, squared).unwrap();
            let mut mean = 0.0;
            for seed in 0..seeds {
                let data = Set::draw(seed, rows, inputs, classes, 0.0);
                let batch = data.batch(&(0..rows).collect::<Vec<_>>(), squared);
                let mut objective = MlpObjective::new(model.clone());
                let h = hidden_hessian(&mut objective, &model.init(seed), &batch).unwrap();
                mean += Shares::of(&h, s.hidden * inputs, inputs).inside / seeds as f64;
            }
            let free = if squared { classes } else { classes - 1 } as f64;
            let own = free * free + 2.0 * free - 1.2 * free * free / classes as f64;
            let want = 1.0 / (1.0 + (s.hidden as f64 - 1.0) * free / (4.0 * own));
            assert!((mean - want).abs() < 0.035, "{classes} classes, squared {squared}: {mean} {want}");
        }
    }
}

/// `reference/hessian.py` lets PyTorch differentiate twice.
#[test]
fn hidden_hessians_are_those_of_torch() {
    let theirs: Value =
        serde_json::from_str(include_str!("../../../../../fixtures/hessian/mlp.json")).unwrap();
    let seed = theirs["seed"].as_u64().unwrap();
    for case in theirs["cases"].as_array().unwrap() {
        let n = |name: &str| case[name].as_u64().unwrap() as usize;
        let (inputs, hidden, classes, rows) = (n("inputs"), n("hidden"), n("classes"), n("rows"));
        let squared = case["loss"] == "mse";
        let settings = BlockSettings { inputs, hidden, ..BlockSettings::default() };
        let model = settings.model(classes, squared).unwrap();
        let signed = |purpose: &str, n: usize| -> Vec<f64> {
            let mut rng = Rng::named(seed, purpose);
            (0..n).map(|_| 2.0 * rng.uniform() - 1.0).collect()
        };
        let mut params = Vec::new();
        for block in model.layout().blocks() {
            params.extend(signed(&block.name, block.range.len()));
        }
        let mut rng = Rng::named(seed, "labels");
        let labels: Vec<u32> = (0..rows).map(|_| rng.below(classes) as u32).collect();
        let targets = if squared {
            let one_hot =
                |y: &u32| (0..classes).map(|c| f64::from(u8::from(c == *y as usize))).collect::<Vec<_>>();
            Targets::Values(labels.iter().flat_map(one_hot).collect())
        } else {
            Targets::Labels(labels)
        };
        let batch = MlpBatch { rows, inputs: signed("inputs", rows * inputs), targets, weight: 0.0 };
        let mut objective = MlpObjective::new(model);
        let got = hidden_hessian(&mut objective, &params, &batch).unwrap();
        let want: Vec<f64> = serde_json::from_value(case["hessian"].clone()).unwrap();
        let size = hidden * inputs;
        assert_eq!(want.len(), size * (size + 1) / 2);
        let scale = want.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
        let mut lower = want.iter();
        for i in 0..size {
            for j in 0..=i {
                let want = lower.next().unwrap();
                assert!((got[i * size + j] - want).abs() < 1e-12 * scale, "{}: {i}, {j}", case["loss"]);
                assert!((got[i * size + j] - got[j * size + i]).abs() < 1e-13 * scale);
            }
        }
        let inside = Shares::of(&got, size, inputs).inside;
        assert!((inside - case["inside"].as_f64().unwrap()).abs() < 1e-12);
        let mut grad = vec![0.0; params.len()];
        let loss = objective.value_grad(&params, &batch, &mut grad).unwrap();
        assert!((loss - case["value"].as_f64().unwrap()).abs() < 1e-12);
    }
}

#[test]
fn settings_that_cannot_be_run_are_refused() {
    let bad = |f: fn(&mut BlockSettings)| {
        let mut s = BlockSettings::default();
        f(&mut s);
        s.check().unwrap_err()
    };
    assert!(BlockSettings::default().check().is_ok());
    assert!(bad(|s| s.hidden = 1).contains("hidden"));
    assert!(bad(|s| s.classes = vec![10, 10]).contains("larger"));
    assert!(bad(|s| s.classes = vec![1]).contains("from 2"));
    assert!(bad(|s| s.lr = 0.0).contains("lr"));
    assert!(bad(|s| s.stages = vec![1.0, 2.0]).contains("first one 0"));
    assert!(bad(|s| s.stages = vec![0.0, 101.0]).contains("100"));
    assert!(bad(|s| s.arms[1].name = "ce".to_owned()).contains("twice"));
    assert!(bad(|s| s.arms[0].decay = -1.0).contains("decay"));
    assert!(bad(|s| s.arms.clear()).contains("at least one"));
}
