//! The loss family through a graph whose parameters are the scores: accumulation over unequal micro-batches.

use rhumb_linalg::rng::Rng;
use rhumb_nn::loss::{LogitLoss, LossKind};
use rhumb_nn::op::{Data, IGNORE, LossReport};
use rhumb_nn::tape::{Graph, Request, Span, Src, Tape};
use serde_json::Value;

const LINEAR: LossKind = LossKind::GemLinear { beta: 0.7 };
const CLASSES: usize = 12;

/// Loss and gradient of some rows of scores, every row weighted by `weight`.
fn eval(scores: &[f64], labels: &[u32], weight: f64) -> (LossReport, Vec<f64>) {
    let mut graph = Graph::new();
    let x = Src::Param(Span { range: 0..scores.len(), trainable: true });
    graph.finish(LogitLoss::new(labels.len(), CLASSES, LINEAR), &[x]);
    let mut tape = Tape::new(graph).unwrap();
    let data = Data { targets: labels, ..Data::default() };
    let mut grad = vec![f64::NAN; scores.len()];
    let request = Request { frozen: &[], data, weight, seed: None };
    (tape.gradient(scores, request, &mut grad, false, &mut []).unwrap(), grad)
}

fn scores() -> Vec<f64> {
    let mut rng = Rng::new(9);
    (0..4 * CLASSES).map(|_| (rng.uniform() * 2.0 - 1.0) * 4.0).collect()
}

#[test]
fn three_tokens_and_one_accumulate_to_the_batch_of_four() {
    let fixture: Value =
        serde_json::from_str(include_str!("../../../../fixtures/gem/reference.json")).unwrap();
    let want = fixture["accumulation"]["by_token"].as_f64().unwrap();
    let (z, y) = (scores(), [1, 2, 3, 4]);
    let (whole, grad) = eval(&z, &y, 0.25);
    let cut = 3 * CLASSES;
    let (three, mut head) = eval(&z[..cut], &y[..3], 0.25);
    let (one, tail) = eval(&z[cut..], &y[3..], 0.25);
    head.extend(tail);
    for loss in [whole.loss, three.loss + one.loss] {
        assert!((loss - want).abs() <= 1e-12 * want, "{loss} against {want}");
    }
    assert_eq!((three.live, one.live), (3, 1));
    assert_eq!(head, grad);
}

#[test]
fn ignored_rows_add_neither_loss_nor_gradient_and_no_live_row_gives_zero() {
    let z = scores();
    let (all, grad) = eval(&z, &[1, IGNORE, 3, IGNORE], 0.5);
    let (first, _) = eval(&z[..CLASSES], &[1], 0.5);
    let (third, _) = eval(&z[2 * CLASSES..3 * CLASSES], &[3], 0.5);
    assert!((all.loss - first.loss - third.loss).abs() < 1e-15);
    for row in [1, 3] {
        assert!(grad[row * CLASSES..][..CLASSES].iter().all(|g| *g == 0.0));
    }
    let (none, grad) = eval(&z, &[IGNORE; 4], 1.0);
    assert_eq!((none.loss, none.live), (0.0, 0));
    assert!(grad.iter().all(|g| *g == 0.0));
}
