//! Loops over slices. Nothing here knows shapes beyond a row width, and nothing above it writes loops over
//! whole tensors: this module is what a second device would have to double.
//!
//! Loops run inside `simd!`, which picks the widest vector instructions of the machine at run time.
//! Parallel loops are cut in chunks of fixed size, so that one and two threads give the same bits.

/// Runs a loop compiled for the vector instructions of this machine: `simd!(|| body)`.
///
/// A closure that is not inlined is compiled for the oldest processor. So every instruction set has a closure of
/// its own, inlined by attribute, and the closure owns a [`Token`], without which it could be called more than
/// once and would be called through a shim that is not inlined when it is long.
macro_rules! simd {
    (|| $body:expr) => {{
        let token = $crate::kernel::Token;
        match pulp::Arch::new() {
            #[cfg(target_arch = "x86_64")]
            pulp::Arch::V4(arch) => arch.vectorize(
                #[inline(always)]
                || {
                    let _token = token;
                    $body
                },
            ),
            #[cfg(target_arch = "x86_64")]
            pulp::Arch::V3(arch) => arch.vectorize(
                #[inline(always)]
                || {
                    let _token = token;
                    $body
                },
            ),
            arch => arch.dispatch(
                #[inline(always)]
                || {
                    let _token = token;
                    $body
                },
            ),
        }
    }};
}
pub(crate) use simd;

/// Makes the closure that consumes it callable once.
pub(crate) struct Token;

pub(crate) mod act;
pub(crate) mod attention;
pub(crate) mod norm;
pub(crate) mod plane;
pub(crate) mod window;

use rhumb_linalg::Real;
use rhumb_linalg::par::{ParSlice, ParSliceMut};

/// Scalars per task in elementwise loops: large against the cost of a task, small against a cache.
pub(crate) const CHUNK: usize = 1 << 14;
/// Rows per task in row-wise loops.
pub(crate) const ROWS: usize = 32;
/// Independent partial sums of a reduction.
const LANES: usize = 16;

/// Sum of `f(a, b)` over two equally long slices, in a fixed order.
#[inline(always)]
pub(crate) fn sum2<T: Real>(a: &[T], b: &[T], f: impl Fn(T, T) -> T) -> T {
    let mut acc = [T::ZERO; LANES];
    let (ca, cb) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (ra, rb) = (ca.remainder(), cb.remainder());
    for (a, b) in ca.zip(cb) {
        for l in 0..LANES {
            acc[l] += f(a[l], b[l]);
        }
    }
    let mut s = T::ZERO;
    for l in 0..LANES {
        s += acc[l];
    }
    for (a, b) in ra.iter().zip(rb) {
        s += f(*a, *b);
    }
    s
}

/// Inner product in a fixed order.
#[inline(always)]
pub(crate) fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let mut acc = [T::ZERO; LANES];
    let (ca, cb) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (ra, rb) = (ca.remainder(), cb.remainder());
    for (a, b) in ca.zip(cb) {
        for l in 0..LANES {
            acc[l] = a[l].mul_add(b[l], acc[l]);
        }
    }
    let mut s = T::ZERO;
    for l in 0..LANES {
        s += acc[l];
    }
    for (a, b) in ra.iter().zip(rb) {
        s = a.mul_add(*b, s);
    }
    s
}

/// Sum in a fixed order.
#[inline(always)]
pub(crate) fn sum<T: Real>(a: &[T]) -> T {
    let mut acc = [T::ZERO; LANES];
    let chunks = a.chunks_exact(LANES);
    let rest = chunks.remainder();
    for a in chunks {
        for l in 0..LANES {
            acc[l] += a[l];
        }
    }
    let mut s = T::ZERO;
    for l in 0..LANES {
        s += acc[l];
    }
    for a in rest {
        s += *a;
    }
    s
}

/// Largest value; the first element decides for an empty or NaN-only slice.
#[inline(always)]
pub(crate) fn max<T: Real>(a: &[T]) -> T {
    let Some(&first) = a.first() else { return T::ZERO };
    let mut acc = [first; LANES];
    let chunks = a.chunks_exact(LANES);
    let rest = chunks.remainder();
    for a in chunks {
        for l in 0..LANES {
            acc[l] = a[l].max(acc[l]);
        }
    }
    let mut m = first;
    for l in 0..LANES {
        m = acc[l].max(m);
    }
    for a in rest {
        m = a.max(m);
    }
    m
}

/// `s <- exp(s - shift)`; returns the sum.
#[inline(always)]
pub(crate) fn exp_shift<T: Real>(s: &mut [T], shift: T) -> T {
    let mut acc = [T::ZERO; LANES];
    let mut chunks = s.chunks_exact_mut(LANES);
    for s in chunks.by_ref() {
        for l in 0..LANES {
            s[l] = (s[l] - shift).exp();
            acc[l] += s[l];
        }
    }
    let mut total = T::ZERO;
    for l in 0..LANES {
        total += acc[l];
    }
    for s in chunks.into_remainder() {
        *s = (*s - shift).exp();
        total += *s;
    }
    total
}

/// `a += b`.
pub(crate) fn add_assign<T: Real>(a: &mut [T], b: &[T]) {
    a.par_chunks_mut(CHUNK).zip(b.par_chunks(CHUNK)).for_each(|(a, b)| {
        simd!(|| a.iter_mut().zip(b).for_each(|(a, b)| *a += *b));
    });
}

/// `a = b` or `a += b`.
pub(crate) fn assign<T: Real>(a: &mut [T], b: &[T], add: bool) {
    if add { add_assign(a, b) } else { a.copy_from_slice(b) }
}

/// `out[j] (+)= alpha * sum over rows of a[i][j]`, rows in order within fixed chunks, chunks in order.
pub(crate) fn column_sums<T: Real>(a: &[T], width: usize, part: &mut [T], out: &mut [T], add: bool) {
    part.par_chunks_mut(width).zip(a.par_chunks(width * ROWS)).for_each(|(part, rows)| {
        simd!(|| {
            part.fill(T::ZERO);
            for row in rows.chunks_exact(width) {
                part.iter_mut().zip(row).for_each(|(p, r)| *p += *r);
            }
        });
    });
    fold_parts(part, width, out, add);
}

/// Adds the partial sums of a reduction in order.
pub(crate) fn fold_parts<T: Real>(part: &[T], width: usize, out: &mut [T], add: bool) {
    if !add {
        out.fill(T::ZERO);
    }
    simd!(|| {
        for p in part.chunks_exact(width) {
            out.iter_mut().zip(p).for_each(|(o, p)| *o += *p);
        }
    });
}

/// Scalars that the partial sums of a row-wise reduction over `rows` rows need.
pub(crate) fn parts_len(rows: usize, width: usize) -> usize {
    rows.div_ceil(ROWS) * width
}

/// `y[row] = w[ids[row]] (+ p[positions[row]])`.
pub(crate) fn gather<T: Real>(
    y: &mut [T],
    width: usize,
    w: &[T],
    ids: &[u32],
    table: Option<(&[T], &[u32])>,
    add: bool,
) {
    for (i, (y, &id)) in y.chunks_exact_mut(width).zip(ids).enumerate() {
        let row = &w[id as usize * width..][..width];
        if add {
            y.iter_mut().zip(row).for_each(|(y, w)| *y += *w);
        } else {
            y.copy_from_slice(row);
        }
        if let Some((p, at)) = table {
            let row = &p[at[i] as usize * width..][..width];
            y.iter_mut().zip(row).for_each(|(y, p)| *y += *p);
        }
    }
}

/// `w[ids[row]] += dy[row]`, rows in order.
pub(crate) fn scatter_add<T: Real>(w: &mut [T], width: usize, dy: &[T], ids: &[u32]) {
    for (dy, &id) in dy.chunks_exact(width).zip(ids) {
        let row = &mut w[id as usize * width..][..width];
        row.iter_mut().zip(dy).for_each(|(w, d)| *w += *d);
    }
}
