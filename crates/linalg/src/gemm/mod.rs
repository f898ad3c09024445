//! The matrix product, behind one function.
//!
//! On x86-64 with AVX2 or AVX-512 the work is done by packed micro kernels (after Goto and van de Geijn,
//! "Anatomy of high-performance matrix multiplication", ACM TOMS 34(3), 2008), elsewhere by the `gemm` crate.

#![expect(
    unsafe_code,
    reason = "micro kernels: vector intrinsics on raw panels, bounds checked at the entry"
)]

mod kernel;
#[cfg(target_arch = "x86_64")]
mod kernel_x86;
mod packed;
mod portable;
mod scratch;
#[cfg(test)]
mod tests;

use self::packed::Product;
use crate::real::Sealed;
use crate::{Real, compiled};

pub(crate) use self::kernel::Kernel;
#[cfg(target_arch = "x86_64")]
pub(crate) use self::kernel_x86::{kernels_f32, kernels_f64};

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

/// `c = init + alpha * a * b`.
///
/// # Equation
/// `c[i, j] = init[i, j] + alpha * sum_p a[i, p] * b[p, j]`, `c` row-major with leading dimension `ldc`; elements
/// between the rows of `c` are left alone.
///
/// # Shapes and units
/// The triple is `(m, n, k)`: `a` is `[m, k]`, `b` is `[k, n]`, `c` is `[m, n]`. Any of them may be 0; without
/// steps (`k = 0`) the result is `init`.
///
/// # Numerics
/// Not-a-number and infinity in any operand reach the result as the equation says: no factor is skipped for
/// being zero, `alpha` included. With [`Init::Zero`] and [`Init::Bias`] the old values of `c` are never read.
/// The sum over `p` is split by `k` alone and the work by fixed tiles: for one CPU the bits are
/// the same for every number of threads, and with `parallel` false.
///
/// # Cost
/// `2 m n k` operations; packing buffers that the thread keeps (at most about 5 MiB plus one block per thread, more only
/// when a panel of all `k` steps is larger), so that repeated calls allocate nothing. With at most eight rows
/// (columns) and `b` (`a`) contiguous along `k`, that operand is read once, in place: the call then runs at
/// the speed of memory. `parallel` uses the current rayon pool; calls from inside rayon tasks are fine either way.
///
/// # Panics
/// When a slice is too short for the shape and strides, or `ldc < n`: programmer errors.
///
/// ```
/// use rhumb_linalg::gemm::{gemm, Init, Mat};
///
/// let x = [1.0f32, 2.0, 3.0, 4.0]; // two rows
/// let w = [1.0f32, 0.0, 1.0, 1.0]; // stored (out, in), used as its transpose
/// let mut y = [0.0f32; 4];
/// gemm(false, (2, 2, 2), 1.0, &mut y, 2, Mat::rows(&x, 2), Mat::cols(&w, 2), Init::Bias(&[10.0, 20.0]));
/// assert_eq!(y, [11.0, 23.0, 13.0, 27.0]);
/// ```
pub fn gemm<T: Real>(
    parallel: bool,
    size: (usize, usize, usize),
    alpha: T,
    c: &mut [T],
    ldc: usize,
    a: Mat<'_, T>,
    b: Mat<'_, T>,
    init: Init<'_, T>,
) {
    T::compiled::<Preferred<'_>>((parallel, Product { size, alpha, a, b, ldc }, c, init));
}

type Arguments<'a, T> = (bool, Product<'a, T>, &'a mut [T], Init<'a, T>);

compiled!(Preferred<'a>, |(parallel, product, c, init): Arguments<'a, T>| -> () {
    gemm_on(T::kernels().first().copied(), parallel, product, c, init);
});

/// The kernel that [`gemm()`] uses on this CPU, for reports.
pub fn kernel_name() -> &'static str {
    f32::kernels().first().map_or("portable (gemm crate)", |kernel| kernel.name)
}

/// Where the values come from that the product is added to: row `i` at `data + i * row_stride`, null for zero.
#[derive(Clone, Copy)]
struct Source<T> {
    data: *const T,
    row_stride: usize,
}

/// Slice length that `rows x cols` elements at the given strides need; `None` beyond the address space.
fn reach(rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> Option<usize> {
    if rows == 0 || cols == 0 {
        return Some(0);
    }
    (rows - 1).checked_mul(row_stride)?.checked_add((cols - 1).checked_mul(col_stride)?)?.checked_add(1)
}

fn check(what: &str, len: usize, rows: usize, cols: usize, (row_stride, col_stride): (usize, usize)) {
    assert!(
        reach(rows, cols, row_stride, col_stride).is_some_and(|need| need <= len),
        "gemm: {what} of {len} values is too short for {rows} x {cols} at strides ({row_stride}, {col_stride})",
    );
}

/// [`gemm`] on the given kernel, or on the portable path.
fn gemm_on<T: Real>(
    kernel: Option<&'static Kernel<T>>,
    parallel: bool,
    product: Product<'_, T>,
    c: &mut [T],
    init: Init<'_, T>,
) {
    let Product { size: (m, n, k), a, b, ldc, .. } = product;
    assert!(m <= 1 || ldc >= n, "gemm: leading dimension {ldc} of C is below its {n} columns");
    check("A", a.data.len(), m, k, (a.row_stride, a.col_stride));
    check("B", b.data.len(), k, n, (b.row_stride, b.col_stride));
    check("C", c.len(), m, n, (ldc, 1));
    match init {
        Init::Zero | Init::Keep => {}
        Init::Bias(v) => check("the bias", v.len(), 1, n, (0, 1)),
        Init::Matrix(r, ld) => check("the added matrix", r.len(), m, n, (ld, 1)),
    }
    if m == 0 || n == 0 {
        return;
    }
    let fill = |i: usize, row: &mut [T]| match init {
        Init::Zero => row.fill(T::ZERO),
        Init::Keep => {}
        Init::Bias(v) => row.copy_from_slice(&v[..n]),
        Init::Matrix(r, ld) => row.copy_from_slice(&r[i * ld..][..n]),
    };
    if k == 0 {
        (0..m).for_each(|i| fill(i, &mut c[i * ldc..][..n]));
        return;
    }
    let Some(kernel) = kernel else {
        return portable::run(parallel, product, c, fill);
    };
    let at = c.as_mut_ptr();
    let source = match init {
        Init::Zero => Source { data: std::ptr::null(), row_stride: 0 },
        Init::Keep => Source { data: at.cast_const(), row_stride: ldc },
        Init::Bias(v) => Source { data: v.as_ptr(), row_stride: 0 },
        Init::Matrix(r, ld) => Source { data: r.as_ptr(), row_stride: ld },
    };
    // SAFETY: everything was checked above; the kernels offered are those of this CPU.
    unsafe { packed::run(kernel, parallel, product, at, source) };
}
