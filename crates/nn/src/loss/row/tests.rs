use rhumb_linalg::Real;
use rhumb_linalg::rng::Rng;
use serde_json::Value;

use super::{RowState, RowStats, row, row_tangent};
use crate::loss::{LOSSES, LossError, LossKind};

mod battery;
mod gem;
mod second;

const LINEAR: LossKind = LossKind::GemLinear { beta: 0.7 };
const LOGSIGMOID: LossKind = LossKind::GemLogsigmoid { beta: 0.7 };

/// Every loss of the table with the default of its parameter.
fn kinds() -> Vec<LossKind> {
    LOSSES.iter().map(|l| l.kind(None).unwrap()).collect()
}

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
            let kind = LossKind::parse(v["loss"].as_str().unwrap(), v["parameter"].as_f64()).unwrap();
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
            close(&what, surrogate / live.len() as f64, v["surrogate_mean"].as_f64().unwrap(), rel, abs);
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
        // dft is as small as e^-289 there.
        "hot" => Tolerance { loss: (1e-6, 1e-30), grad: 1e-6 },
        _ => Tolerance { loss: (1e-6, 1e-6), grad: 1e-6 },
    });
}

#[test]
fn every_loss_of_the_table_stands_in_every_case_of_the_reference() {
    for case in reference()["cases"].as_array().unwrap() {
        for loss in LOSSES {
            assert!(
                case["losses"].as_array().unwrap().iter().any(|v| v["loss"] == loss.name),
                "{} in {}",
                loss.name,
                case["name"]
            );
        }
    }
}

#[test]
fn two_equal_scores_give_the_losses_that_can_be_written_down() {
    let half = 2f64.ln();
    let want = |name: &str| match name {
        "ce" | "neft" | "label-smoothing" => (half, 0.5),
        "ce+entropy" => (0.9 * half, 0.5),
        "dft" => (0.5 * half, 0.25),
        "gem-linear" => (0.0, 0.5),
        "gem-logsigmoid" => (0.0, 0.25),
        other => panic!("no values for {other}"),
    };
    for kind in kinds() {
        let ((loss, moved), s) = (want(kind.name()), stats(kind, &[3.0, 3.0], 1));
        // Smoothing leaves 1/2 - 0.05 to move.
        let moved = if kind.name() == "label-smoothing" { 0.45 } else { moved };
        close(kind.name(), s.loss, loss, 1e-15, 1e-16);
        for (g, want) in gradient(kind, &[3.0, 3.0], 1).iter().zip([moved, -moved]) {
            close(kind.name(), *g, want, 1e-15, 1e-16);
        }
        assert!(s.correct && (s.entropy - half).abs() < 1e-15);
    }
}

#[test]
fn a_parameter_out_of_range_is_refused_with_the_range() {
    for loss in LOSSES {
        let Some(p) = loss.parameter else {
            assert_eq!(loss.kind(Some(1.0)), Err(LossError::NoParameter(loss.name)));
            assert!(loss.kind(Some(1.0)).unwrap_err().to_string().starts_with(loss.name));
            continue;
        };
        for value in [-0.7, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let error = loss.kind(Some(value)).unwrap_err();
            assert!(matches!(error, LossError::Parameter { .. }), "{} {value}", loss.name);
            let text = error.to_string();
            assert!(text.starts_with(p.name) && text.contains(p.range), "{text}");
        }
        assert_eq!(loss.kind(Some(p.default)), loss.kind(None));
        assert!(loss.kind(Some(p.neutral)).is_ok());
    }
    assert!(LossKind::GemLogsigmoid { beta: 0.0 }.checked().is_err());
    assert!(LossKind::LabelSmoothing { smoothing: 1.0 }.checked().is_err());
    assert!(LossKind::CeEntropy { lambda: 0.0 }.checked().is_ok());
}

#[test]
fn a_loss_is_found_by_its_name_and_survives_a_file() {
    for loss in LOSSES {
        let kind = LossKind::parse(loss.name, None).unwrap();
        assert_eq!((kind.name(), kind.parameter()), (loss.name, loss.parameter.map(|p| p.default)));
        let json = serde_json::to_value(kind).unwrap();
        assert_eq!(json["kind"], loss.name);
        assert_eq!(serde_json::from_value::<LossKind>(json).unwrap(), kind);
    }
    assert_eq!(LossKind::parse("gem-linear", Some(0.7)), Ok(LINEAR));
    let error = LossKind::parse("gem", None).unwrap_err().to_string();
    assert!(LOSSES.iter().all(|l| error.contains(l.name)), "{error}");
}
