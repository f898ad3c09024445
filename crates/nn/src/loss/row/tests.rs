use rhumb_linalg::Real;
use rhumb_linalg::rng::Rng;
use serde_json::Value;

use super::{LossError, LossKind, RowState, RowStats, row, row_tangent};

const LINEAR: LossKind = LossKind::GemLinear { beta: 0.7 };
const LOGSIGMOID: LossKind = LossKind::GemLogsigmoid { beta: 0.7 };
const KINDS: [LossKind; 3] = [LossKind::Ce, LINEAR, LOGSIGMOID];

fn reference() -> Value {
    serde_json::from_str(include_str!("../../../../../fixtures/gem/reference.json")).unwrap()
}

fn scores(seed: u64, n: usize, scale: f64) -> Vec<f64> {
    let mut rng = Rng::new(seed);
    (0..n).map(|_| (rng.uniform() * 2.0 - 1.0) * scale).collect()
}

fn floats(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn stats(kind: LossKind, z: &[f64], label: usize) -> RowStats {
    row(kind, &mut z.to_vec(), label, None)
}

fn gradient(kind: LossKind, z: &[f64], label: usize) -> Vec<f64> {
    let mut g = z.to_vec();
    row(kind, &mut g, label, Some(1.0));
    g
}

fn close(what: &str, got: f64, want: f64, rel: f64, abs: f64) {
    assert!((got - want).abs() <= rel * want.abs() + abs, "{what}: {got} against {want}");
}

struct Tolerance {
    loss: (f64, f64),
    grad: f64,
}

/// Replays every case of the reference in `T`.
fn replay<T: Real>(tolerance: impl Fn(&str) -> Tolerance) {
    for case in reference()["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let (rows, vocab) =
            (case["rows"].as_u64().unwrap() as usize, case["vocab"].as_u64().unwrap() as usize);
        let z = scores(case["seed"].as_u64().unwrap(), rows * vocab, case["scale"].as_f64().unwrap());
        let z: Vec<T> = z.into_iter().map(T::of).collect();
        let labels: Vec<i64> =
            case["labels"].as_array().unwrap().iter().map(|y| y.as_i64().unwrap()).collect();
        let live: Vec<usize> = (0..rows).filter(|&i| labels[i] >= 0).collect();
        let (ce, entropy) = (floats(&case["ce"]), floats(&case["entropy"]));
        let Tolerance { loss: (rel, abs), grad } = tolerance(name);
        for v in case["losses"].as_array().unwrap() {
            let kind = LossKind::parse(v["loss"].as_str().unwrap(), v["beta"].as_f64().unwrap()).unwrap();
            let what = format!("{name} {kind:?}");
            let scale = T::of(1.0 / live.len() as f64);
            let (mut square, mut surrogate) = (0.0, 0.0);
            for (k, &i) in live.iter().enumerate() {
                let label = labels[i] as usize;
                let mut g = z[i * vocab..][..vocab].to_vec();
                let s = row(kind, &mut g, label, Some(scale));
                close(&what, s.loss, floats(&v["per_token"])[k], rel, abs);
                close(&what, s.ce, ce[k], rel, abs);
                close(&what, s.entropy, entropy[k], 10.0 * rel, abs + 1e-9);
                close(&what, g[label].f64(), floats(&v["grad_at_label"])[k], 0.0, grad);
                if k == 0 {
                    for (g, want) in g.iter().zip(floats(&v["grad_row0_first4"])) {
                        close(&what, g.f64(), want, 0.0, grad);
                    }
                }
                square += g.iter().map(|g| g.f64() * g.f64()).sum::<f64>();
                surrogate += s.surrogate;
            }
            close(&what, square.sqrt(), v["grad_l2"].as_f64().unwrap(), 0.0, grad);
            if kind != LossKind::Ce {
                close(&what, surrogate / live.len() as f64, v["surrogate_mean"].as_f64().unwrap(), rel, abs);
            }
        }
    }
}

#[test]
fn every_loss_matches_the_differentiated_definition_in_f64() {
    replay::<f64>(|_| Tolerance { loss: (1e-12, 1e-14), grad: 1e-12 });
}

#[test]
fn every_loss_matches_the_definition_in_f32() {
    replay::<f32>(|case| match case {
        "wide" => Tolerance { loss: (2e-6, 0.0), grad: 1e-6 },
        "hot" => Tolerance { loss: (1e-6, 0.0), grad: 1e-6 },
        _ => Tolerance { loss: (1e-6, 1e-6), grad: 1e-6 },
    });
}

#[test]
fn a_row_cut_into_one_to_seven_pieces_merges_to_the_same_loss_in_any_order() {
    for (seed, n, scale) in [(1, 8, 3.0), (3, 1000, 12.0), (4, 16, 5000.0), (5, 4099, 8.0)] {
        let z = scores(seed, n, scale);
        for kind in KINDS {
            let whole = stats(kind, &z, 5);
            for pieces in 1..=7 {
                let states: Vec<_> =
                    z.chunks(n.div_ceil(pieces)).map(|piece| RowState::scan(kind, piece, z[5])).collect();
                let forward = states.iter().fold(RowState::new(kind), |a, b| a.merge(*b)).finish(z[5]);
                let backward = states.iter().rev().fold(RowState::new(kind), |a, b| b.merge(a)).finish(z[5]);
                for got in [forward, backward] {
                    close("loss", got.loss, whole.loss, 1e-12, 1e-13);
                    close("ce", got.ce, whole.ce, 1e-12, 1e-13);
                    close("entropy", got.entropy, whole.entropy, 1e-12, 1e-13);
                    close("surrogate", got.surrogate, whole.surrogate, 1e-12, 1e-13);
                    assert_eq!(got.correct, whole.correct);
                }
            }
        }
    }
}

#[test]
fn a_piece_of_masked_columns_merges_to_nothing() {
    let z = scores(6, 20, 4.0);
    let masked = [f64::NEG_INFINITY; 9];
    for kind in KINDS {
        let state = RowState::scan(kind, &z, z[2]);
        for merged in [
            state.merge(RowState::scan(kind, &masked, z[2])),
            RowState::scan(kind, &masked, z[2]).merge(state),
        ] {
            assert_eq!(merged.finish(z[2]), state.finish(z[2]));
        }
    }
}

/// The definition with log-probabilities; `q` and `w` come from `frozen`.
fn definition(kind: LossKind, z: &[f64], frozen: &[f64], label: usize) -> f64 {
    let softmax = |z: &[f64], beta: f64| -> Vec<f64> {
        let m = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let e: Vec<f64> = z.iter().map(|z| ((z - m) / beta).exp()).collect();
        let s: f64 = e.iter().sum();
        e.into_iter().map(|e| e / s).collect()
    };
    let log_p: Vec<f64> = softmax(z, 1.0).into_iter().map(f64::ln).collect();
    if kind == LossKind::Ce {
        return -log_p[label];
    }
    let q = softmax(frozen, kind.beta());
    let w = |i: usize| match kind {
        LossKind::GemLogsigmoid { .. } => 1.0 / (1.0 + (-0.01 * (frozen[i] - frozen[label])).exp()),
        _ => 1.0,
    };
    -(0..z.len()).map(|i| q[i] * w(i) * (log_p[label] - log_p[i])).sum::<f64>()
}

/// Largest difference between the gradient and central differences.
fn worst_difference(kind: LossKind, z: &[f64], label: usize, through_q: bool) -> f64 {
    let (g, eps) = (gradient(kind, z, label), 1e-5);
    let at = |i: usize, step: f64| {
        let mut moved = z.to_vec();
        moved[i] += step;
        let frozen = if through_q { moved.clone() } else { z.to_vec() };
        definition(kind, &moved, &frozen, label)
    };
    (0..z.len()).map(|i| ((at(i, eps) - at(i, -eps)) / (2.0 * eps) - g[i]).abs()).fold(0.0, f64::max)
}

#[test]
fn central_differences_with_frozen_weights_give_the_gradient() {
    for (seed, n, scale) in [(1, 8, 3.0), (2, 32, 6.0), (3, 100, 12.0)] {
        for kind in KINDS {
            let worst = worst_difference(kind, &scores(seed, n, scale), 3, false);
            assert!(worst <= 2e-8, "{kind:?}: {worst}");
        }
    }
}

#[test]
fn differentiating_through_the_weights_gives_something_else() {
    for kind in [LINEAR, LOGSIGMOID] {
        let worst = worst_difference(kind, &scores(1, 8, 3.0), 3, true);
        assert!(worst > 1e-2, "{kind:?}: {worst}");
    }
}

#[test]
fn the_linear_gradient_is_beta_times_the_cross_entropy_gradient_at_temperature_beta() {
    for beta in [0.3, 0.7, 1.0, 1.5] {
        let z = scores(2, 64, 6.0);
        let g = gradient(LossKind::GemLinear { beta }, &z, 9);
        let cold: Vec<f64> = z.iter().map(|z| z / beta).collect();
        // The chain rule through z / beta divides by beta what the factor beta restores.
        let ce = gradient(LossKind::Ce, &cold, 9);
        for (g, c) in g.iter().zip(&ce) {
            close("gradient", *g, *c, 1e-13, 1e-14);
        }
        close(
            "surrogate",
            stats(LossKind::GemLinear { beta }, &z, 9).surrogate,
            beta * stats(LossKind::Ce, &cold, 9).ce,
            1e-13,
            0.0,
        );
    }
}

#[test]
fn a_gradient_row_sums_to_zero() {
    for (seed, n, scale) in [(1, 8, 3.0), (3, 1000, 12.0), (4, 16, 5000.0)] {
        for kind in KINDS {
            let sum: f64 = gradient(kind, &scores(seed, n, scale), 1).iter().sum();
            assert!(sum.abs() <= 1e-12, "{kind:?}: {sum}");
        }
    }
}

#[test]
fn at_beta_one_the_gradient_is_that_of_cross_entropy_and_the_value_is_less_by_the_entropy() {
    let z = scores(7, 50, 5.0);
    let one = LossKind::GemLinear { beta: 1.0 };
    let s = stats(one, &z, 11);
    close("value", s.loss, s.ce - s.entropy, 1e-13, 1e-13);
    for (a, b) in gradient(one, &z, 11).iter().zip(gradient(LossKind::Ce, &z, 11)) {
        close("gradient", *a, b, 1e-14, 1e-15);
    }
}

#[test]
fn adding_a_constant_to_the_scores_changes_nothing() {
    let z = scores(8, 40, 5.0);
    for shift in [-1000.0, 3.5, 4000.0] {
        let moved: Vec<f64> = z.iter().map(|z| z + shift).collect();
        for kind in KINDS {
            close("loss", stats(kind, &moved, 4).loss, stats(kind, &z, 4).loss, 1e-11, 0.0);
            for (a, b) in gradient(kind, &moved, 4).iter().zip(gradient(kind, &z, 4)) {
                close("gradient", *a, b, 0.0, 1e-11);
            }
        }
    }
}

#[test]
fn masked_columns_take_no_part() {
    let z = scores(9, 30, 5.0);
    let mut wide = z.clone();
    wide.splice(10..10, [f64::NEG_INFINITY; 5]);
    for kind in KINDS {
        close("loss", stats(kind, &wide, 3).loss, stats(kind, &z, 3).loss, 1e-13, 0.0);
        let (a, b) = (gradient(kind, &wide, 3), gradient(kind, &z, 3));
        assert!(a[10..15].iter().all(|g| *g == 0.0));
        for (a, b) in a[..10].iter().chain(&a[15..]).zip(&b) {
            close("gradient", *a, *b, 1e-13, 1e-15);
        }
        let narrow: Vec<f32> = wide.iter().map(|z| *z as f32).collect();
        let mut g = narrow.clone();
        assert!(row(kind, &mut g, 3, Some(1.0)).loss.is_finite() && g.iter().all(|g| g.is_finite()));
    }
}

#[test]
fn a_label_on_a_masked_column_has_no_finite_loss_and_no_gradient() {
    for kind in KINDS {
        let mut z = [1.0, f64::NEG_INFINITY, 0.5];
        let s = row(kind, &mut z, 1, Some(1.0));
        assert_eq!((s.ce, s.loss, z), (f64::INFINITY, f64::INFINITY, [0.0; 3]));
    }
}

#[test]
fn micro_batches_weighted_by_live_tokens_add_up_to_the_batch_and_means_of_means_do_not() {
    let r = &reference()["accumulation"];
    let z = scores(9, 48, 4.0);
    let loss: Vec<f64> = (0..4).map(|i| stats(LINEAR, &z[12 * i..][..12], i + 1).loss).collect();
    let by_token = (loss[..3].iter().sum::<f64>() + loss[3]) / 4.0;
    close("by token", by_token, r["by_token"].as_f64().unwrap(), 1e-12, 0.0);
    close("by token", by_token, 3.169_042_527_998_938, 1e-12, 0.0);
    let means = f64::midpoint(loss[..3].iter().sum::<f64>() / 3.0, loss[3]);
    close("mean of means", means, r["mean_of_means"].as_f64().unwrap(), 1e-12, 0.0);
    assert!((means - by_token).abs() > 0.5);
}

#[test]
fn free_scores_descend_to_the_power_of_the_data_distribution() {
    let r = &reference()["fixed_point"];
    let (data, want) = (floats(&r["data"]), floats(&r["p"]));
    let mut z = vec![0.0; data.len()];
    for _ in 0..20_000 {
        let mut g = vec![0.0; z.len()];
        for (label, share) in data.iter().enumerate() {
            let mut one = z.clone();
            row(LINEAR, &mut one, label, Some(*share));
            g.iter_mut().zip(one).for_each(|(g, o)| *g += o);
        }
        z.iter_mut().zip(&g).for_each(|(z, g)| *z -= 0.5 * g);
    }
    for (k, want) in want.iter().enumerate() {
        close("p", (-stats(LossKind::Ce, &z, k).ce).exp(), *want, 0.0, 1e-9);
    }
    close("entropy", stats(LossKind::Ce, &z, 0).entropy, r["entropy_p"].as_f64().unwrap(), 0.0, 1e-9);
}

#[test]
fn the_tangent_is_the_directional_derivative_of_the_gradient() {
    let (z, v) = (scores(10, 33, 3.0), scores(11, 33, 1.0));
    for kind in [LossKind::Ce, LINEAR] {
        let (scale, eps) = (0.25, 1e-6);
        let along = |step: f64| {
            let mut moved: Vec<f64> = z.iter().zip(&v).map(|(z, v)| z + step * v).collect();
            row(kind, &mut moved, 6, Some(scale));
            moved
        };
        let (up, down) = (along(eps), along(-eps));
        let mut tangent = v.clone();
        row_tangent(kind, &along(0.0), 6, scale, &mut tangent);
        for i in 0..z.len() {
            close("tangent", tangent[i], (up[i] - down[i]) / (2.0 * eps), 1e-7, 1e-9);
        }
    }
}

#[test]
fn the_temperature_parameter_is_a_positive_finite_number() {
    for beta in [0.0, -0.7, f64::NAN, f64::INFINITY] {
        assert!(matches!(LossKind::parse("gem-linear", beta), Err(LossError::Beta(_))), "{beta}");
        assert!(LossKind::GemLogsigmoid { beta }.checked().is_err(), "{beta}");
    }
    assert_eq!(LossKind::parse("gem-linear", 0.7), Ok(LINEAR));
    let error = LossKind::parse("gem", 0.7).unwrap_err().to_string();
    assert!(error.contains("gem-logsigmoid"), "{error}");
}
