//! What every loss of the table has to pass.

use super::*;

/// The definition with log-probabilities; what is held constant comes from `frozen`.
fn definition(kind: LossKind, z: &[f64], frozen: &[f64], label: usize) -> f64 {
    let softmax = |z: &[f64], beta: f64| -> Vec<f64> {
        let m = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let e: Vec<f64> = z.iter().map(|z| ((z - m) / beta).exp()).collect();
        let s: f64 = e.iter().sum();
        e.into_iter().map(|e| e / s).collect()
    };
    let log_p: Vec<f64> = softmax(z, 1.0).into_iter().map(f64::ln).collect();
    let ce = -log_p[label];
    let gem = |beta: f64, w: &dyn Fn(usize) -> f64| -> f64 {
        let q = softmax(frozen, beta);
        -(0..z.len()).map(|i| q[i] * w(i) * (log_p[label] - log_p[i])).sum::<f64>()
    };
    match kind {
        LossKind::Ce | LossKind::Neft { .. } => ce,
        LossKind::CeEntropy { lambda } => ce + lambda * log_p.iter().map(|l| l.exp() * l).sum::<f64>(),
        LossKind::LabelSmoothing { smoothing } => {
            (1.0 - smoothing) * ce - smoothing * log_p.iter().sum::<f64>() / z.len() as f64
        }
        LossKind::Dft => softmax(frozen, 1.0)[label] * ce,
        LossKind::GemLinear { beta } => gem(beta, &|_| 1.0),
        LossKind::GemLogsigmoid { beta } => {
            gem(beta, &|i| 1.0 / (1.0 + (-0.01 * (frozen[i] - frozen[label])).exp()))
        }
    }
}

/// Largest difference between the gradient and central differences of `value`.
fn worst(kind: LossKind, z: &[f64], label: usize, value: impl Fn(&[f64]) -> f64) -> f64 {
    let (g, eps) = (gradient(kind, z, label), 1e-5);
    let at = |i: usize, step: f64| {
        let mut moved = z.to_vec();
        moved[i] += step;
        value(&moved)
    };
    (0..z.len()).map(|i| ((at(i, eps) - at(i, -eps)) / (2.0 * eps) - g[i]).abs()).fold(0.0, f64::max)
}

const ROWS: [(u64, usize, f64); 3] = [(1, 8, 3.0), (2, 32, 6.0), (3, 100, 12.0)];

#[test]
fn the_value_is_that_of_the_definition() {
    for (seed, n, scale) in ROWS {
        let z = scores(seed, n, scale);
        for kind in kinds() {
            close(kind.name(), stats(kind, &z, 3).loss, definition(kind, &z, &z, 3), 1e-12, 1e-13);
        }
    }
}

#[test]
fn central_differences_with_frozen_weights_give_the_gradient() {
    for (seed, n, scale) in ROWS {
        let z = scores(seed, n, scale);
        for kind in kinds() {
            let worst = worst(kind, &z, 3, |moved| definition(kind, moved, &z, 3));
            assert!(worst <= 2e-8, "{kind:?}: {worst}");
        }
    }
}

#[test]
fn differentiating_through_the_weights_gives_something_else() {
    let z = scores(1, 8, 3.0);
    for kind in kinds() {
        let worst = worst(kind, &z, 3, |moved| definition(kind, moved, moved, 3));
        let constant = kind.is_gem() || kind == LossKind::Dft;
        assert!(if constant { worst > 1e-2 } else { worst < 2e-8 }, "{kind:?}: {worst}");
    }
}

#[test]
fn the_gradient_is_that_of_the_scalar_which_is_lowered_where_there_is_one() {
    for (seed, n, scale) in ROWS {
        let z = scores(seed, n, scale);
        for kind in kinds() {
            let worst = worst(kind, &z, 3, |moved| stats(kind, moved, 3).surrogate);
            let potential = kind.entry().no_hessian.is_none();
            assert!(if potential { worst <= 2e-8 } else { worst > 1e-2 }, "{kind:?}: {worst}");
        }
    }
}

#[test]
fn the_neutral_parameter_gives_the_gradient_of_cross_entropy() {
    let z = scores(12, 50, 4.0);
    let ce = gradient(LossKind::Ce, &z, 7);
    for loss in LOSSES.iter().filter(|l| l.name != "gem-logsigmoid") {
        let Some(p) = loss.parameter else { continue };
        let neutral = gradient(loss.kind(Some(p.neutral)).unwrap(), &z, 7);
        neutral.iter().zip(&ce).for_each(|(a, b)| close(loss.name, *a, *b, 1e-14, 1e-15));
    }
}

fn same(got: &RowStats, want: &RowStats) {
    close("loss", got.loss, want.loss, 1e-12, 1e-13);
    close("ce", got.ce, want.ce, 1e-12, 1e-13);
    close("entropy", got.entropy, want.entropy, 1e-12, 1e-13);
    close("surrogate", got.surrogate, want.surrogate, 1e-12, 1e-13);
    assert_eq!(got.correct, want.correct);
}

#[test]
fn a_row_cut_into_one_to_seven_pieces_merges_to_the_same_loss_and_gradient_in_any_order() {
    for (seed, n, scale) in [(1, 8, 3.0), (3, 1000, 12.0), (4, 16, 5000.0), (5, 4099, 8.0)] {
        let z = scores(seed, n, scale);
        for kind in kinds() {
            let (whole, want) = (stats(kind, &z, 5), gradient(kind, &z, 5));
            for pieces in 1..=7 {
                let len = n.div_ceil(pieces);
                let states: Vec<_> = z.chunks(len).map(|piece| RowState::scan(kind, piece, z[5])).collect();
                let forward = states.iter().fold(RowState::new(kind), |a, b| a.merge(*b));
                let backward = states.iter().rev().fold(RowState::new(kind), |a, b| b.merge(a));
                for state in [forward, backward] {
                    same(&state.finish(z[5]), &whole);
                    let mut g = z.clone();
                    for (i, piece) in g.chunks_mut(len).enumerate() {
                        let label = (i == 5 / len).then_some(5 % len);
                        state.gradient(piece, label, z[5], 1.0);
                    }
                    g.iter().zip(&want).for_each(|(g, w)| close(kind.name(), *g, *w, 1e-12, 1e-13));
                }
            }
        }
    }
}

#[test]
fn every_length_around_the_lanes_and_blocks_agrees_with_the_definition() {
    for n in [1, 2, 15, 16, 17, 31, 33, 1023, 1024, 1025, 1040] {
        let z = scores(20 + n as u64, n, 4.0);
        for kind in kinds() {
            close(kind.name(), stats(kind, &z, n / 2).loss, definition(kind, &z, &z, n / 2), 1e-12, 1e-13);
        }
    }
}

#[test]
fn the_gradient_in_place_comes_with_the_value_of_a_pass_that_leaves_the_scores_alone() {
    for (seed, n, scale) in ROWS {
        let z = scores(seed, n, scale);
        for kind in kinds() {
            let mut untouched = z.clone();
            let alone = row(kind, &mut untouched, 4, None);
            assert_eq!(untouched, z, "{kind:?}");
            let mut g = z.clone();
            same(&row(kind, &mut g, 4, Some(0.25)), &alone);
            let mut out = z.clone();
            RowState::scan(kind, &z, z[4]).gradient(&mut out, Some(4), z[4], 0.25);
            g.iter().zip(&out).for_each(|(a, b)| close(kind.name(), *a, *b, 1e-13, 1e-16));
        }
    }
}

#[test]
fn a_piece_of_masked_columns_merges_to_nothing() {
    let z = scores(6, 20, 4.0);
    let masked = [f64::NEG_INFINITY; 9];
    for kind in kinds() {
        let state = RowState::scan(kind, &z, z[2]);
        for merged in [
            state.merge(RowState::scan(kind, &masked, z[2])),
            RowState::scan(kind, &masked, z[2]).merge(state),
        ] {
            assert_eq!(merged.finish(z[2]), state.finish(z[2]));
            let mut piece = masked;
            merged.gradient(&mut piece, None, z[2], 1.0);
            assert!(piece.iter().all(|g| *g == 0.0));
        }
    }
}

#[test]
fn a_gradient_row_sums_to_zero() {
    for (seed, n, scale) in [(1, 8, 3.0), (3, 1000, 12.0), (4, 16, 5000.0)] {
        for kind in kinds() {
            let sum: f64 = gradient(kind, &scores(seed, n, scale), 1).iter().sum();
            assert!(sum.abs() <= 1e-12, "{kind:?}: {sum}");
        }
    }
}

#[test]
fn adding_a_constant_to_the_scores_changes_nothing() {
    let z = scores(8, 40, 5.0);
    for shift in [-1000.0, 3.5, 4000.0] {
        let moved: Vec<f64> = z.iter().map(|z| z + shift).collect();
        for kind in kinds() {
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
    for kind in kinds() {
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
    for kind in kinds() {
        let mut z = [1.0, f64::NEG_INFINITY, 0.5];
        let s = row(kind, &mut z, 1, Some(1.0));
        assert_eq!((s.ce, s.loss, z), (f64::INFINITY, f64::INFINITY, [0.0; 3]));
        let (mut z, mut t) = ([1.0, f64::NEG_INFINITY, 0.5], [1.0; 3]);
        let s = row_tangent(kind, &mut z, 1, 1.0, &mut t);
        assert_eq!((s.loss, z, t), (f64::INFINITY, [0.0; 3], [0.0; 3]));
    }
}

#[test]
fn scores_stored_in_bf16_have_the_loss_of_the_rounded_scores() {
    for (seed, n, scale) in ROWS {
        let exact = scores(seed, n, scale);
        let stored: Vec<half::bf16> = exact.iter().map(|z| half::bf16::from_f64(*z)).collect();
        let rounded: Vec<f64> = stored.iter().map(|z| z.to_f64()).collect();
        for kind in kinds() {
            let mut g: Vec<f32> = stored.iter().map(|z| z.to_f32()).collect();
            let got = row(kind, &mut g, 3, Some(1.0));
            let want = stats(kind, &rounded, 3);
            close(kind.name(), got.loss, want.loss, 1e-6, 1e-6);
            close(kind.name(), got.entropy, want.entropy, 1e-6, 1e-6);
            for (g, want) in g.iter().zip(gradient(kind, &rounded, 3)) {
                close(kind.name(), f64::from(*g), want, 0.0, 1e-6);
            }
            assert!((stats(kind, &exact, 3).ce - want.ce).abs() > 1e-5, "rounding has to be seen");
        }
    }
}

#[test]
fn hot_scores_stay_finite_in_both_precisions() {
    let z = scores(4, 16, 5000.0);
    for kind in kinds() {
        for label in 0..16 {
            let (mut g, mut n) = (z.clone(), z.iter().map(|z| *z as f32).collect::<Vec<_>>());
            let (s, r) = (row(kind, &mut g, label, Some(1.0)), row(kind, &mut n, label, Some(1.0)));
            assert!([s.loss, s.surrogate, s.entropy, r.loss, r.surrogate].iter().all(|x| x.is_finite()));
            assert!(g.iter().all(|g| g.abs() <= 1.0) && n.iter().all(|g| g.abs() <= 1.0), "{kind:?}");
            close(kind.name(), r.loss, s.loss, 1e-6, 1e-30);
        }
    }
}
