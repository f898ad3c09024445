//! The matrix product, behind one function.

use crate::Real;

/// A matrix operand: a slice with row and column strides (in scalars).
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a, T> {
    /// The storage; element `(i, j)` is `data[i * row_stride + j * col_stride]`.
    pub data: &'a [T],
    /// Distance between rows.
    pub row_stride: usize,
    /// Distance between columns.
    pub col_stride: usize,
}

impl<'a, T> Mat<'a, T> {
    /// A row-major matrix with leading dimension `ld`.
    pub fn rows(data: &'a [T], ld: usize) -> Self {
        Mat { data, row_stride: ld, col_stride: 1 }
    }
    /// The transpose of a row-major matrix with leading dimension `ld`.
    pub fn cols(data: &'a [T], ld: usize) -> Self {
        Mat { data, row_stride: 1, col_stride: ld }
    }
}

/// What the product is added to.
#[derive(Clone, Copy, Debug)]
pub enum Init<'a, T> {
    /// `C = AB`.
    Zero,
    /// `C = C + AB`.
    Keep,
    /// `C = 1 bias^T + AB`, one value per column.
    Bias(&'a [T]),
    /// `C = R + AB`, `R` row-major with the given leading dimension.
    Matrix(&'a [T], usize),
}

/// `c = init + alpha * a * b`, `a` of shape (m, k), `b` of shape (k, n), `c` row-major with leading dimension `ldc`.
pub fn gemm<T: Real>(
    _parallel: bool,
    (m, n, k): (usize, usize, usize),
    alpha: T,
    c: &mut [T],
    ldc: usize,
    a: Mat<'_, T>,
    b: Mat<'_, T>,
    init: Init<'_, T>,
) {
    for i in 0..m {
        for j in 0..n {
            let mut s = T::ZERO;
            for p in 0..k {
                s += a.data[i * a.row_stride + p * a.col_stride] * b.data[p * b.row_stride + j * b.col_stride];
            }
            let old = match init {
                Init::Zero => T::ZERO,
                Init::Keep => c[i * ldc + j],
                Init::Bias(v) => v[j],
                Init::Matrix(r, ld) => r[i * ld + j],
            };
            c[i * ldc + j] = old + alpha * s;
        }
    }
}
