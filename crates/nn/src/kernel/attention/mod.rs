//! Blockwise scaled-dot-product attention on packed query-key-value rows, with rotary positions applied on
//! the way in and out, so that rotated copies never leave the caches.
#![expect(unsafe_code, reason = "tasks write disjoint columns of shared rows, which slices cannot express")]

mod cache;
mod rotary;
mod tangent;

use rhumb_linalg::Real;
use rhumb_linalg::gemm::{Init, Mat, gemm};
use rhumb_linalg::par::{ParRange, ParSliceMut};

use super::{dot, exp_shift, max};
use crate::tape::Pool;
use rotary::{AHEAD, prefetch, rotate, rotate_add, transpose};

pub(crate) use cache::{append, cached};
pub(crate) use rotary::rope_rows;
pub(crate) use tangent::{Around, backward_tangent, forward_tangent};

/// Query rows that are treated together.
const BLOCK: usize = 64;

/// Shape of one attention: `batch` rows of `len` tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) batch: usize,
    pub(crate) len: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
}

impl Shape {
    pub(crate) fn width(self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
    fn group(self) -> usize {
        self.heads / self.kv_heads
    }
    fn scale<T: Real>(self) -> T {
        T::of(1.0 / (self.head_dim as f64).sqrt())
    }
    /// First column of query head `h`, key head `h`, value head `h`.
    fn q(self, h: usize) -> usize {
        h * self.head_dim
    }
    fn k(self, h: usize) -> usize {
        (self.heads + h) * self.head_dim
    }
    fn v(self, h: usize) -> usize {
        (self.heads + self.kv_heads + h) * self.head_dim
    }
}

/// Rotation angles: `cos, sin [positions, head_dim / 2]`.
#[derive(Clone, Copy)]
pub(crate) struct Angles<'a, T> {
    pub(crate) cos: &'a [T],
    pub(crate) sin: &'a [T],
}

/// What every attention sweep reads besides values.
#[derive(Clone, Copy)]
pub(crate) struct Where<'a, T> {
    pub(crate) shape: Shape,
    pub(crate) rope: Option<Angles<'a, T>>,
    pub(crate) positions: &'a [u32],
    pub(crate) spans: &'a [(u32, u32)],
    pub(crate) scratch: &'a Pool<T>,
}

/// A matrix of which every task touches only its own columns or rows.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);
// SAFETY: tasks never touch the same element; see the uses of `row`.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// # Safety
    /// `at..at + len` is in bounds and owned by the calling task.
    #[inline(always)]
    unsafe fn row<'a>(self, at: usize, len: usize) -> &'a mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(at), len) }
    }
}

impl<T: Real> Where<'_, T> {
    /// Copies column block `col` of batch row `b`, rotated when `rot`.
    #[inline(always)]
    fn load(&self, dst: &mut [T], src: &[T], b: usize, width: usize, col: usize, rot: bool, scale: T) {
        let (hd, len) = (self.shape.head_dim, self.shape.len);
        let rope = if rot { self.rope } else { None };
        simd!(|| {
            for (t, dst) in dst.chunks_exact_mut(hd).take(len).enumerate() {
                let row = b * len + t;
                prefetch(src.as_ptr(), (row + AHEAD) * width + col, hd);
                let src = &src[row * width + col..][..hd];
                rotate(rope, dst, src, self.positions[row] as usize, T::ONE, scale);
            }
        });
    }

    /// [`Where::load`] to `rows [len, hd]` and, transposed, to `dst [hd, len]`.
    fn load_transposed(
        &self,
        dst: &mut [T],
        rows: &mut [T],
        src: &[T],
        b: usize,
        width: usize,
        col: usize,
        rot: bool,
    ) {
        self.load(rows, src, b, width, col, rot, T::ONE);
        simd!(|| transpose(dst, rows, self.shape.len, self.shape.head_dim));
    }

    /// Keys that query rows `i0..i0 + n` of batch row `b` see together.
    fn keys(&self, b: usize, i0: usize, n: usize) -> (usize, usize) {
        let spans = &self.spans[b * self.shape.len + i0..][..n];
        let lo = spans.iter().map(|s| s.0).min().unwrap_or(0) as usize;
        let hi = spans.iter().map(|s| s.1).max().unwrap_or(0) as usize;
        (lo, hi.max(lo))
    }

    /// The keys of one query within a block that starts at key `lo`.
    #[inline(always)]
    fn span(&self, b: usize, i: usize, lo: usize) -> (usize, usize) {
        let (a, z) = self.spans[b * self.shape.len + i];
        (a as usize - lo, z as usize - lo)
    }
}

/// `out [rows, heads hd]` and the log-sum-exp of the scores, `lse [batch, heads, len]`.
pub(crate) fn forward<T: Real>(at: Where<'_, T>, qkv: &[T], out: &mut [T], lse: &mut [T]) {
    let s = at.shape;
    let (hd, len, w) = (s.head_dim, s.len, s.width());
    let ow = s.heads * hd;
    let to = Shared(out.as_mut_ptr());
    lse.par_chunks_mut(len).enumerate().with_max_len(1).for_each(|(task, lse)| {
        let (b, h) = (task / s.heads, task % s.heads);
        let kv = h / s.group();
        let block = BLOCK.min(len);
        let head = len * hd;
        let mut buf = at.scratch.get(3 * head + block * hd + block * len);
        let [q, kt, v, o, p] = split(&mut buf, [head, head, head, block * hd, block * len]);
        // Keys pass through the buffer of the values, which are loaded last.
        at.load_transposed(kt, v, qkv, b, w, s.k(kv), true);
        at.load(q, qkv, b, w, s.q(h), true, s.scale());
        at.load(v, qkv, b, w, s.v(kv), false, T::ONE);
        for i0 in (0..len).step_by(BLOCK) {
            let rows = BLOCK.min(len - i0);
            let (lo, hi) = at.keys(b, i0, rows);
            let n = hi - lo;
            let vv = &v[lo * hd..hi * hd];
            scores(p, &q[i0 * hd..], &kt[lo..], len, (rows, n, hd), Init::Zero);
            let mut inv = [T::ZERO; BLOCK];
            simd!(|| {
                for (r, p) in p.chunks_exact_mut(n.max(1)).take(rows).enumerate() {
                    let (a, z) = at.span(b, i0 + r, lo);
                    p[..a].fill(T::ZERO);
                    p[z..].fill(T::ZERO);
                    let live = &mut p[a..z];
                    let m = max(live);
                    let sum = exp_shift(live, m);
                    lse[i0 + r] = m + sum.ln();
                    inv[r] = T::ONE / sum;
                }
            });
            gemm(false, (rows, hd, n), T::ONE, o, hd, Mat::rows(p, n), Mat::rows(vv, hd), Init::Zero);
            simd!(|| {
                for r in 0..rows {
                    // SAFETY: this task owns head h of batch row b.
                    let dst = unsafe { to.row((b * len + i0 + r) * ow + h * hd, hd) };
                    rotate(None, dst, &o[r * hd..][..hd], 0, T::ONE, inv[r]);
                }
            });
        }
    });
}

/// `p [rows, n] (+)= q kt`, `kt` being columns of a `[hd, len]` matrix: the keys are transposed once per head instead
/// of packed by every product.
#[inline(always)]
fn scores<T: Real>(
    p: &mut [T],
    q: &[T],
    kt: &[T],
    len: usize,
    (rows, n, hd): (usize, usize, usize),
    init: Init<'_, T>,
) {
    gemm(false, (rows, n, hd), T::ONE, p, n, Mat::rows(q, hd), Mat::rows(kt, len), init);
}

/// `c [m, hd] (+)= a [rows, m]^T b [rows, hd]`.
#[inline(always)]
fn transposed<T: Real>(c: &mut [T], a: &[T], b: &[T], rows: usize, m: usize, hd: usize) {
    gemm(false, (m, hd, rows), T::ONE, c, hd, Mat::cols(a, m), Mat::rows(b, hd), Init::Keep);
}

/// The adjoint of `qkv`; `dqkv` is overwritten or added to.
pub(crate) fn backward<T: Real>(
    at: Where<'_, T>,
    qkv: &[T],
    out: &[T],
    lse: &[T],
    dout: &[T],
    dqkv: &mut [T],
    add: bool,
) {
    let s = at.shape;
    let (hd, len, w) = (s.head_dim, s.len, s.width());
    let ow = s.heads * hd;
    let to = Shared(dqkv.as_mut_ptr());
    (0..s.batch * s.kv_heads).into_par_iter().with_max_len(1).for_each(|task| {
        let (b, kv) = (task / s.kv_heads, task % s.kv_heads);
        let block = BLOCK.min(len);
        let (head, tile) = (len * hd, block * len);
        let mut buf = at.scratch.get(8 * head + len + 2 * tile);
        let [q, k, kt, vt, d, dq, dk, dv, delta, p, ds] =
            split(&mut buf, [head, head, head, head, head, head, head, head, len, tile, tile]);
        at.load_transposed(kt, k, qkv, b, w, s.k(kv), true);
        // The rows of the values are not needed: they pass through a buffer that is cleared below.
        at.load_transposed(vt, dv, qkv, b, w, s.v(kv), false);
        dk.fill(T::ZERO);
        dv.fill(T::ZERO);
        for h in kv * s.group()..(kv + 1) * s.group() {
            at.load(q, qkv, b, w, s.q(h), true, s.scale());
            at.load(d, dout, b, ow, h * hd, false, T::ONE);
            simd!(|| {
                for t in 0..len {
                    prefetch(out.as_ptr(), (b * len + t + AHEAD) * ow + h * hd, hd);
                    let o = &out[(b * len + t) * ow + h * hd..][..hd];
                    delta[t] = dot(&d[t * hd..][..hd], o);
                }
            });
            let lse = &lse[(b * s.heads + h) * len..][..len];
            for i0 in (0..len).step_by(BLOCK) {
                let rows = BLOCK.min(len - i0);
                let (lo, hi) = at.keys(b, i0, rows);
                let n = hi - lo;
                let kk = &k[lo * hd..hi * hd];
                let (qi, di) = (&q[i0 * hd..][..rows * hd], &d[i0 * hd..][..rows * hd]);
                scores(p, qi, &kt[lo..], len, (rows, n, hd), Init::Zero);
                scores(ds, di, &vt[lo..], len, (rows, n, hd), Init::Zero);
                simd!(|| {
                    let both = p.chunks_exact_mut(n.max(1)).zip(ds.chunks_exact_mut(n.max(1)));
                    for (r, (p, ds)) in both.take(rows).enumerate() {
                        let (a, z) = at.span(b, i0 + r, lo);
                        clear_outside(p, a, z);
                        clear_outside(ds, a, z);
                        let (l, dl) = (lse[i0 + r], delta[i0 + r]);
                        for (p, ds) in p[a..z].iter_mut().zip(&mut ds[a..z]) {
                            *p = (*p - l).exp();
                            *ds = *p * (*ds - dl);
                        }
                    }
                });
                let rows_of = |m| Mat::rows(m, n);
                let dqi = &mut dq[i0 * hd..];
                gemm(false, (rows, hd, n), T::ONE, dqi, hd, rows_of(ds), Mat::rows(kk, hd), Init::Zero);
                transposed(&mut dk[lo * hd..], ds, qi, rows, n, hd);
                transposed(&mut dv[lo * hd..], p, di, rows, n, hd);
            }
            // SAFETY: this task owns the query heads of its group in batch row b.
            unsafe { store(&at, to, dq, b, s.q(h), true, s.scale(), add) };
        }
        // SAFETY: this task owns key and value head kv of batch row b.
        unsafe {
            store(&at, to, dk, b, s.k(kv), true, T::ONE, add);
            store(&at, to, dv, b, s.v(kv), false, T::ONE, add);
        }
    });
}

#[inline(always)]
fn clear_outside<T: Real>(row: &mut [T], a: usize, z: usize) {
    row[..a].fill(T::ZERO);
    row[z..].fill(T::ZERO);
}

/// Rotates back and stores one head's gradient.
///
/// # Safety
/// The caller owns columns `col..col + hd` of batch row `b`.
unsafe fn store<T: Real>(
    at: &Where<'_, T>,
    to: Shared<T>,
    src: &[T],
    b: usize,
    col: usize,
    rot: bool,
    scale: T,
    add: bool,
) {
    let (hd, len, w) = (at.shape.head_dim, at.shape.len, at.shape.width());
    let rope = if rot { at.rope } else { None };
    simd!(|| {
        for (t, src) in src.chunks_exact(hd).take(len).enumerate() {
            let row = b * len + t;
            prefetch(to.0, (row + AHEAD) * w + col, hd);
            // SAFETY: the caller's promise.
            let dst = unsafe { to.row(row * w + col, hd) };
            if add {
                rotate_add(rope, dst, src, at.positions[row] as usize, -T::ONE, scale);
            } else {
                rotate(rope, dst, src, at.positions[row] as usize, -T::ONE, scale);
            }
        }
    });
}

/// Cuts a buffer in pieces.
fn split<T, const N: usize>(mut buf: &mut [T], lens: [usize; N]) -> [&mut [T]; N] {
    lens.map(|n| {
        let (head, tail) = std::mem::take(&mut buf).split_at_mut(n);
        buf = tail;
        head
    })
}
