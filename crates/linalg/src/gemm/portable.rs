//! The product through the `gemm` crate, for CPUs without a kernel of ours.

use crate::par::ParSliceMut;

use super::packed::Product;
use crate::Real;

/// Rows per task. Fixed, and each task is one sequential product: the crate's own threading would let the
/// number of threads into the result.
const ROWS: usize = 64;

/// `c = init + alpha * a * b` for `m, n, k > 0`.
pub(super) fn run<T: Real>(
    parallel: bool,
    Product { size: (m, n, k), alpha, a, b, ldc }: Product<'_, T>,
    c: &mut [T],
    fill: impl Fn(usize, &mut [T]) + Sync,
) {
    let task = |(t, c): (usize, &mut [T])| {
        let i0 = t * ROWS;
        let rows = ROWS.min(m - i0);
        for i in 0..rows {
            fill(i0 + i, &mut c[i * ldc..][..n]);
        }
        // SAFETY: the operands' elements exist (a checked product), and c holds `rows` rows of n at distance ldc.
        unsafe {
            gemm::gemm(
                rows,
                n,
                k,
                c.as_mut_ptr(),
                1,
                ldc.cast_signed(),
                true,
                a.data.as_ptr().add(i0 * a.row_stride),
                a.col_stride.cast_signed(),
                a.row_stride.cast_signed(),
                b.data.as_ptr(),
                b.col_stride.cast_signed(),
                b.row_stride.cast_signed(),
                T::ONE,
                alpha,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    };
    let c = &mut c[..(m - 1) * ldc + n];
    if parallel {
        c.par_chunks_mut(ROWS * ldc).enumerate().for_each(task);
    } else {
        c.chunks_mut(ROWS * ldc).enumerate().for_each(task);
    }
}
