#![allow(clippy::unwrap_used, reason = "tests")]
use serde_json::Value;

use super::settings::{AsRun, Case};
use super::*;

fn cases() -> [Vec<Vec<f64>>; 2] {
    let s = CasesSettings::default();
    [s.cases[0].blocks.clone(), s.cases[1].blocks.clone()]
}

/// Losses of `w <- w - rate D^-1 H w`, from the start on.
fn losses(instance: &Instance, diagonal: &[f64], rate: f64, steps: usize) -> Vec<f64> {
    let mut x = instance.start();
    let mut g = vec![0.0; x.len()];
    let mut out = vec![instance.gradient(&x, &mut g)];
    for _ in 0..steps {
        x.iter_mut().zip(&g).zip(diagonal).for_each(|((x, g), d)| *x -= rate / d * g);
        out.push(instance.gradient(&x, &mut g));
    }
    out
}

/// What a step leaves of the loss, late in a descent.
fn contraction(losses: &[f64]) -> f64 {
    let (middle, last) = (losses.len() / 2, losses.len() - 1);
    ((losses[last] / losses[middle]).ln() / (last - middle) as f64).exp()
}

/// The same after so many steps that neighbours of the slowest direction are forgotten: the iteration is linear, so its
/// point may be scaled at will and never gets too small.
fn late_contraction(instance: &Instance, diagonal: &[f64], rate: f64, steps: usize) -> f64 {
    let mut x = instance.start();
    let mut g = vec![0.0; x.len()];
    for _ in 0..steps {
        instance.gradient(&x, &mut g);
        x.iter_mut().zip(&g).zip(diagonal).for_each(|((x, g), d)| *x -= rate / d * g);
        let size = x.iter().fold(0.0_f64, |a, x| a.max(x.abs()));
        x.iter_mut().for_each(|x| *x /= size);
    }
    let before = instance.gradient(&x, &mut g);
    x.iter_mut().zip(&g).zip(diagonal).for_each(|((x, g), d)| *x -= rate / d * g);
    instance.gradient(&x, &mut g) / before
}

/// `((kappa - 1) / (kappa + 1))^2`.
fn square_rate(kappa: f64) -> f64 {
    ((kappa - 1.0) / (kappa + 1.0)).powi(2)
}

/// A start in the directions of the smallest and the largest eigenvalue alone: the worst one.
fn worst(blocks: &[Vec<f64>]) -> Instance {
    let (mu, l) = extremes(blocks);
    let one = |v: &f64| f64::from(u8::from((v - mu).abs() < 1e-12 || (v - l).abs() < 1e-12)) / v.sqrt();
    let along: Vec<Vec<f64>> = blocks.iter().map(|b| b.iter().map(one).collect()).collect();
    Instance::draw(blocks, &mut Rng::new(3)).starting_along(&along)
}

#[test]
fn from_the_worst_start_gradient_descent_contracts_by_its_closed_form_in_every_step() {
    assert!((square_rate(5000.0) - 0.999_200_319_904).abs() < 1e-12);
    for blocks in cases() {
        let (ones, rate) = (vec![1.0; 9], 2.0 / 5001.0);
        let l = losses(&worst(&blocks), &ones, rate, 500);
        for pair in l.windows(2) {
            assert!((pair[1] / pair[0] - square_rate(5000.0)).abs() < 1e-9, "{pair:?}");
        }
    }
}

#[test]
fn no_rate_of_a_grid_contracts_better_than_the_optimal_one() {
    let best = square_rate(5000.0);
    for blocks in cases() {
        let instance = worst(&blocks);
        let (mut better, mut stable) = (0, 0);
        for i in 1..=200 {
            let rate = f64::from(i) * 2.49 / 5000.0 / 200.0;
            let c = contraction(&losses(&instance, &[1.0; 9], rate, 4000));
            better += usize::from(c < best - 1e-9);
            stable += usize::from(c < 1.0);
        }
        assert_eq!((better, stable), (0, 160), "rates below 2 / 5000 are stable");
    }
}

#[test]
fn adam_with_a_fixed_preconditioner_contracts_by_the_rate_of_its_condition_number() {
    for (blocks, trials) in cases().iter().zip([20, 4]) {
        let mut seen = 0;
        for k in 0..trials {
            let instance = Instance::draw(blocks, &mut Rng::named(1, &format!("quadratic/{k}")));
            let d = instance.first_sizes();
            let (low, high) = instance.extremes(&d).unwrap();
            let kappa = high / low;
            if kappa > 2e4 {
                continue;
            }
            let c = late_contraction(&instance, &d, 2.0 / (low + high), (60.0 * kappa) as usize + 20_000);
            assert!((c - square_rate(kappa)).abs() < 1e-6, "{c} for kappa {kappa}");
            seen += 1;
        }
        assert!(seen > trials / 2);
    }
}

#[test]
fn the_theory_of_the_paper_finds_small_condition_numbers_in_one_arrangement_only() {
    for (blocks, want) in cases().iter().zip([0.985, 0.0]) {
        let small = (0..1000).filter(|k| {
            let instance = Instance::draw(blocks, &mut Rng::named(7, &format!("quadratic/{k}")));
            let (low, high) = instance.extremes(&instance.first_sizes()).unwrap();
            high / low <= 1000.0
        });
        let share = small.count() as f64 / 1000.0;
        assert!((share - want).abs() < 0.03, "{share}, not {want}");
    }
}

#[test]
fn the_closed_form_of_gradient_descent_counts_the_steps_of_a_descent() {
    for blocks in cases() {
        for k in 0..5 {
            let instance = Instance::draw(&blocks, &mut Rng::named(2, &format!("quadratic/{k}")));
            for rate in [2.0 / 5001.0, 1.0 / 5001.0] {
                let goal = Goal { gap: 1e-6, limit: 100_000 };
                let (a, b) = (instance.gradient_descent(rate, goal), instance.descent(&[1.0; 9], rate, goal));
                assert!(a.abs_diff(b) <= 1 && a > 100, "{a} {b}");
                let cut = Goal { limit: a / 2, ..goal };
                assert_eq!(instance.gradient_descent(rate, cut), a / 2);
                assert_eq!(instance.descent(&[1.0; 9], rate, cut), a / 2);
            }
        }
    }
}

/// On one eigenvalue, SGD without momentum multiplies the loss by `(1 - l lr (1 - k / n))^2` in step k of n.
#[test]
fn a_schedule_takes_the_steps_of_its_closed_form() {
    let (l, gap) = (3.0, 1e-10);
    let instance = Instance::draw(&[vec![l]], &mut Rng::new(1));
    let config = |lr: f64| OptimizerConfig {
        kind: Kind::Sgd,
        lr,
        momentum: 0.0,
        weight_decay: 0.0,
        ..OptimizerConfig::default()
    };
    let left = |lr: f64, n: u64| {
        (0..n).map(|k| (1.0 - l * lr * (1.0 - k as f64 / n as f64)).powi(2)).product::<f64>()
    };
    for rates in [vec![0.02], vec![0.001, 0.05], vec![0.002, 0.01]] {
        let mut want = 16;
        while rates.iter().all(|lr| left(*lr, want) > gap) {
            want = (want as f64 * std::f64::consts::SQRT_2).ceil() as u64;
        }
        let all: Vec<OptimizerConfig> = rates.iter().map(|lr| config(*lr)).collect();
        let got = instance.scheduled(&all, Goal { gap, limit: 100_000 }).unwrap();
        assert_eq!(got, want, "{rates:?}");
        assert!(got > 100);
        assert_eq!(instance.scheduled(&all, Goal { gap, limit: 60 }).unwrap(), 60);
    }
}

#[test]
fn the_best_multiple_wins_and_the_others_are_cut_off_at_it() {
    let mut limits = Vec::new();
    let got = fewest(&[1.0, 2.0, 3.0], 100, |m, limit| {
        limits.push(limit);
        if m > 2.5 { limit } else { (40.0 / m) as u64 }
    });
    assert_eq!((got, limits), (20, vec![100, 40, 20]));
}

/// `reference/hessian.py` writes the same quadratics in Python.
#[test]
fn quadratics_and_steps_are_those_of_an_independent_program() {
    let theirs: Value =
        serde_json::from_str(include_str!("../../../../../fixtures/hessian/quadratic.json")).unwrap();
    let seed = theirs["seed"].as_u64().unwrap();
    let settings = CasesSettings::default();
    for case in theirs["cases"].as_array().unwrap() {
        let blocks: Vec<Vec<f64>> = serde_json::from_value(case["blocks"].clone()).unwrap();
        let trials = case["trials"].as_array().unwrap();
        let found = vec![0.0; trials.len() * QUANTITIES.len()];
        let s = CasesSettings { run: AsRun { trials: 0, ..AsRun::default() }, ..settings.clone() };
        let all = Trials { settings: &s, blocks, seed, found };
        for (k, want) in trials.iter().enumerate() {
            let got = all.measure(k as u64).unwrap();
            for (name, got) in QUANTITIES.iter().zip(got) {
                let Some(want) = want[*name].as_f64() else { continue };
                let slack = if *name == "kappa" { 1e-9 * want } else { 1.0 };
                assert!((got - want).abs() <= slack, "{}, {k}, {name}: {got} {want}", case["name"]);
            }
        }
    }
}

/// The recorded study beside numpy with its own random numbers.
#[test]
fn the_recorded_study_has_the_condition_numbers_of_an_independent_program() {
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let theirs = read(include_str!("../../../../../fixtures/hessian/quadratic.json"));
    let ours = read(include_str!("../../../../../results/hessian/quadratic-cases.json"));
    let seeds = ours["result"]["seeds"].as_array().unwrap();
    assert_eq!(seeds.len(), 5);
    for case in theirs["cases"].as_array().unwrap() {
        let key = format!("{}/kappa_to_1000", case["name"].as_str().unwrap());
        let mean = seeds.iter().map(|s| s["metrics"][&key].as_f64().unwrap()).sum::<f64>() / 5.0;
        assert!((mean - case["share"].as_f64().unwrap()).abs() < 0.01, "{key}: {mean}");
    }
}

#[test]
fn measured_spectra_are_drawn_from_shifted_and_scaled() {
    let case = |spectra: Vec<Vec<f64>>| Case { name: "made-up".to_owned(), blocks: Vec::new(), spectra };
    let spectra = vec![(0..50).map(f64::from).collect::<Vec<_>>(), vec![-3.0, 0.0, 0.5], vec![7.0, 7.0]];
    let got = case(spectra.clone()).eigenvalues(30, 5000.0, &mut Rng::new(1));
    assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [30, 3, 2]);
    for block in &got {
        assert!((block.iter().copied().fold(f64::INFINITY, f64::min) - 1.0).abs() < 1e-12);
    }
    assert!((extremes(&got).1 - 5000.0).abs() < 1e-9);
    // One factor for all: distances within a block keep their ratios across blocks.
    let width = |b: &[f64]| extremes(&[b.to_vec()]).1 - 1.0;
    let drawn = got[0].iter().map(|v| (v - 1.0) / width(&got[1]) * 3.5);
    assert!(drawn.into_iter().all(|v| (v - v.round()).abs() < 1e-9));
    assert!((got[2][1] - 1.0).abs() < 1e-12);
    assert_ne!(got, case(spectra).eigenvalues(30, 5000.0, &mut Rng::new(2)), "another draw");
}

#[test]
fn made_up_spectra_run_like_blocks() {
    let recipe = r#"{"name": "made-up", "spectra": [[-0.1, 0.0, 0.2, 0.4], [0.0, 30.0], [5.0, 5.0, 5.0]]}"#;
    let case: Case = serde_json::from_str(recipe).unwrap();
    let settings = CasesSettings { cases: vec![case], rows: 3, kappa: 100.0, ..CasesSettings::default() };
    settings.check().unwrap();
    let blocks = settings.cases[0].eigenvalues(settings.rows, settings.kappa, &mut Rng::new(4));
    assert_eq!(blocks.iter().map(Vec::len).collect::<Vec<_>>(), [3, 2, 3]);
    let all = Trials { settings: &settings, blocks, seed: 0, found: vec![] };
    let [kappa, gd, best, adam, sgd_run, adam_run] = all.measure(0).unwrap();
    assert!(kappa > 1.0 && best <= gd && gd < 2000.0, "{kappa} {gd} {best}");
    for steps in [adam, sgd_run, adam_run] {
        assert!((2.0..5000.0).contains(&steps), "{adam} {sgd_run} {adam_run}");
    }
}

#[test]
fn settings_that_cannot_be_run_are_refused() {
    let bad = |f: fn(&mut CasesSettings)| {
        let mut s = CasesSettings::default();
        f(&mut s);
        s.check().unwrap_err()
    };
    assert!(CasesSettings::default().check().is_ok());
    assert!(bad(|s| s.cases.clear()).contains("at least one"));
    assert!(bad(|s| s.cases[1].name = "case-3".to_owned()).contains("twice"));
    assert!(bad(|s| s.cases[0].blocks[0][0] = -1.0).contains("case-3"));
    assert!(bad(|s| s.cases[0].blocks[0][0] = 1e-9).contains("1e8"));
    assert!(bad(|s| s.cases[0].blocks.clear()).contains("measured"));
    assert!(bad(|s| s.cases[0].spectra = vec![vec![1.0, 2.0]]).contains("keep one"));
    let measured = |spectra: Vec<Vec<f64>>| {
        let cases = vec![Case { name: "m".to_owned(), blocks: Vec::new(), spectra }];
        CasesSettings { cases, ..CasesSettings::default() }.check()
    };
    assert!(measured(vec![vec![-1.0, 2.0], vec![3.0]]).is_ok());
    assert!(measured(vec![vec![1.0, 1.0]]).unwrap_err().contains("different"));
    assert!(measured(vec![vec![1.0, f64::NAN]]).unwrap_err().contains("finite"));
    assert!(bad(|s| s.gap = 1.0).contains("gap"));
    assert!(bad(|s| s.multiples = vec![1.1]).contains("multiples"));
    assert!(bad(|s| s.kappa = 1.0).contains("kappa"));
    assert!(bad(|s| s.limit = 0).contains("limit"));
    assert!(bad(|s| s.run.lrs.clear()).contains("lrs"));
    assert!(bad(|s| s.run.sgd = vec![0.0]).contains("sgd"));
}
