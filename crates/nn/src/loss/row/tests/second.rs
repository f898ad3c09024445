//! Tangents of gradients.

use super::*;

/// Every loss that has a Hessian, at its default and at another parameter.
fn curved() -> Vec<LossKind> {
    let more = [
        LossKind::CeEntropy { lambda: 0.8 },
        LossKind::LabelSmoothing { smoothing: 0.4 },
        LossKind::GemLinear { beta: 0.4 },
    ];
    kinds().into_iter().filter(|k| k.entry().no_hessian.is_none()).chain(more).collect()
}

fn tangent(kind: LossKind, z: &[f64], v: &[f64], scale: f64) -> (RowStats, Vec<f64>, Vec<f64>) {
    let (mut g, mut t) = (z.to_vec(), v.to_vec());
    let stats = row_tangent(kind, &mut g, 6, scale, &mut t);
    (stats, g, t)
}

#[test]
fn the_tangent_is_the_directional_derivative_of_the_gradient() {
    let scale = 0.25;
    for (seed, n, size) in [(10, 33, 3.0), (13, 2050, 6.0)] {
        let (z, v) = (scores(seed, n, size), scores(seed + 1, n, 1.0));
        for kind in curved() {
            let eps = 1e-6;
            let along = |step: f64| {
                let mut moved: Vec<f64> = z.iter().zip(&v).map(|(z, v)| z + step * v).collect();
                row(kind, &mut moved, 6, Some(scale));
                moved
            };
            let (up, down) = (along(eps), along(-eps));
            let (_, _, t) = tangent(kind, &z, &v, scale);
            for i in 0..n {
                close(kind.name(), t[i], (up[i] - down[i]) / (2.0 * eps), 1e-7, 1e-9);
            }
        }
    }
}

#[test]
fn the_gradient_beside_a_tangent_is_the_gradient() {
    let (z, v) = (scores(10, 33, 3.0), scores(11, 33, 1.0));
    for kind in curved() {
        let mut g = z.clone();
        let stats = row(kind, &mut g, 6, Some(0.25));
        let (s, h, _) = tangent(kind, &z, &v, 0.25);
        assert_eq!((s, h), (stats, g), "{kind:?}");
    }
}

#[test]
fn a_shift_of_all_scores_is_flat_and_the_hessian_symmetric() {
    let (z, u, v) = (scores(14, 40, 3.0), scores(15, 40, 1.0), scores(16, 40, 1.0));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for kind in curved() {
        let (_, _, flat) = tangent(kind, &z, &[1.0; 40], 1.0);
        assert!(flat.iter().all(|t| t.abs() < 1e-14), "{kind:?}");
        let ((_, _, hu), (_, _, hv)) = (tangent(kind, &z, &u, 1.0), tangent(kind, &z, &v, 1.0));
        close(kind.name(), dot(&u, &hv), dot(&v, &hu), 1e-13, 1e-15);
        close(kind.name(), hv.iter().sum(), 0.0, 0.0, 1e-14);
    }
}

#[test]
fn tangents_of_masked_columns_are_zero_and_change_no_other() {
    let (z, v) = (scores(17, 30, 4.0), scores(18, 30, 1.0));
    let (mut wide, mut along) = (z.clone(), v.clone());
    wide.splice(10..10, [f64::NEG_INFINITY; 5]);
    along.splice(10..10, [2.0; 5]);
    for kind in curved() {
        let ((_, _, a), (_, _, b)) = (tangent(kind, &wide, &along, 1.0), tangent(kind, &z, &v, 1.0));
        assert!(a[10..15].iter().all(|t| *t == 0.0));
        a[..10].iter().chain(&a[15..]).zip(&b).for_each(|(a, b)| close(kind.name(), *a, *b, 1e-12, 1e-15));
    }
}

#[test]
fn single_precision_tangents_are_the_double_ones_rounded() {
    let narrow = |x: &[f64]| x.iter().map(|x| *x as f32).collect::<Vec<f32>>();
    let (z, v) = (scores(19, 500, 6.0), scores(20, 500, 1.0));
    for kind in curved() {
        let (_, _, want) = tangent(kind, &z, &v, 1.0);
        let (mut g, mut t) = (narrow(&z), narrow(&v));
        row_tangent(kind, &mut g, 6, 1.0, &mut t);
        t.iter().zip(&want).for_each(|(a, b)| close(kind.name(), a.f64(), *b, 1e-5, 1e-6));
    }
}
