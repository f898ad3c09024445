use super::*;

use crate::symmetric_eigen;
use crate::{EigenOptions, KrylovError, Which, eigenpairs};
use rhumb_linalg::vec::dot;

fn options(which: Which, count: usize) -> EigenOptions {
    EigenOptions { which, count, tolerance: 1e-10, ..EigenOptions::default() }
}

#[test]
fn the_ends_of_a_random_matrix_match_the_dense_ones() {
    let n = 150;
    let mut a = random_symmetric(n, 11);
    let exact = symmetric_eigen(a.rows(), n).unwrap();
    for (which, want) in [
        (Which::Largest, vec![n - 1, n - 2, n - 3, n - 4]),
        (Which::Smallest, vec![0, 1, 2, 3]),
        (Which::BothEnds, vec![0, 1, n - 2, n - 1]),
    ] {
        let got = eigenpairs(&mut a, &options(which, 4)).unwrap();
        assert!(got.restarts > 0);
        for (i, &k) in want.iter().enumerate() {
            assert!((got.values[i] - exact.values[k]).abs() < 1e-9, "{which:?} {i}");
            assert!((dot(got.vectors.vector(i), exact.vector(k)).abs() - 1.0).abs() < 1e-9);
            assert!(got.residuals[i] <= 1e-10 * exact.values[n - 1].max(-exact.values[0]));
        }
        assert!(got.vectors.orthonormality_error() < 1e-10);
    }
    let three = eigenpairs(&mut a, &options(Which::BothEnds, 3)).unwrap();
    assert!((three.values[1] - exact.values[n - 2]).abs() < 1e-9);
    let size = eigenpairs(&mut a, &options(Which::Magnitude, 2)).unwrap();
    let mut by_size = exact.values.clone();
    by_size.sort_by(|a, b| b.abs().total_cmp(&a.abs()));
    assert!((size.values[0] - by_size[0]).abs() < 1e-9 && (size.values[1] - by_size[1]).abs() < 1e-9);
}

#[test]
fn the_laplacian_has_its_closed_form_in_both_precisions() {
    let mut op = Laplacian(60);
    let got = eigenpairs::<f64>(&mut op, &options(Which::Smallest, 2)).unwrap();
    assert!(
        (got.values[0] - op.eigenvalue(1)).abs() < 1e-9 && (got.values[1] - op.eigenvalue(2)).abs() < 1e-9
    );
    let single = EigenOptions { tolerance: 1e-5, ..options(Which::Largest, 2) };
    let got = eigenpairs::<f32>(&mut op, &single).unwrap();
    assert!((got.values[0] - op.eigenvalue(60)).abs() < 1e-5);
}

#[test]
fn small_and_degenerate_spaces_are_found_whole() {
    let mut a = DenseOp::diagonal(&[3.0, -1.0, 2.0]);
    let got = eigenpairs(&mut a, &options(Which::Largest, 3)).unwrap();
    for (got, want) in got.values.iter().zip([3.0, 2.0, -1.0]) {
        assert!((got - want).abs() < 1e-13);
    }
    let mut same = DenseOp::diagonal(&[2.0; 30]);
    let got = eigenpairs(&mut same, &options(Which::Largest, 5)).unwrap();
    assert!(got.values.iter().all(|v| (v - 2.0).abs() < 1e-13));
    assert!(got.vectors.orthonormality_error() < 1e-13);
    let mut one = DenseOp::diagonal(&[-7.0f64]);
    assert!((eigenpairs(&mut one, &options(Which::Largest, 1)).unwrap().values[0] + 7.0).abs() < 1e-15);
    let mut zero = DenseOp::diagonal(&[0.0f64; 5]);
    assert_eq!(eigenpairs(&mut zero, &options(Which::Largest, 2)).unwrap().values, [0.0, 0.0]);
}

#[test]
fn too_few_products_tell_the_residual_that_was_reached() {
    let mut op = Laplacian(400);
    let few = EigenOptions { products: 60, ..options(Which::Smallest, 2) };
    match eigenpairs::<f64>(&mut op, &few) {
        Err(KrylovError::NotConverged { wanted: 2, converged: 0, products: 60, residual, target }) => {
            assert!(residual > target && residual < 1.0);
        }
        other => panic!("{other:?}"),
    }
    // An operator that is not symmetric has other residuals than its projection says.
    // In 12 dimensions the space is whole at once, in 30 it is contracted until the products run out.
    for n in [12, 30] {
        let mut rows = random_symmetric(n, 1).rows().to_vec();
        (0..n).for_each(|j| rows[2 * n + j] += 3.0);
        let mut b = DenseOp::new(rows, n).unwrap();
        match eigenpairs(&mut b, &options(Which::Largest, 1)) {
            Err(KrylovError::NotConverged { residual, converged: 0, .. }) => {
                assert!(residual > 0.1 || n == 30);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn wrong_settings_and_products_are_errors() {
    let mut op = Laplacian(10);
    for bad in [
        options(Which::Largest, 0),
        options(Which::Largest, 11),
        EigenOptions { tolerance: 0.0, ..options(Which::Largest, 1) },
        EigenOptions { products: 0, ..options(Which::Largest, 1) },
        EigenOptions { basis: 3, ..options(Which::Largest, 4) },
    ] {
        assert!(matches!(eigenpairs::<f64>(&mut op, &bad), Err(KrylovError::Setting { .. })));
    }
    let mut op = Spoiled { op: Laplacian(50), at: 5, with: Spoil::Nan, seen: 0 };
    let got = eigenpairs(&mut op, &options(Which::Largest, 2));
    assert!(matches!(got, Err(KrylovError::NonFinite { product: 5, at: 1, .. })));
    assert!(matches!(
        eigenpairs::<f64>(&mut Laplacian(0), &options(Which::Largest, 1)),
        Err(KrylovError::Setting { .. })
    ));
}
