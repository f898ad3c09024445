//! Blockwise scaled-dot-product attention on packed query-key-value rows, with rotary positions applied on
//! the way in and out, so that rotated copies never leave the caches.
#![expect(unsafe_code, reason = "tasks write disjoint columns of shared rows, which slices cannot express")]

use rayon::prelude::*;
use rhumb_linalg::Real;
use rhumb_linalg::gemm::{Init, Mat, gemm};

use super::{dot, exp_shift, max};
use crate::tape::Pool;

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

/// Columns that are rotated together: a loop of unknown short length does not vectorise.
const LANES: usize = 8;

/// Calls `set(dst, value)` for `src` rotated by the position (`dir` 1) or back (`dir` -1), times `scale`.
#[inline(always)]
fn rotate_with<T: Real>(
    rope: Option<Angles<'_, T>>,
    dst: &mut [T],
    src: &[T],
    pos: usize,
    dir: T,
    scale: T,
    set: impl Fn(&mut T, T),
) {
    let Some(a) = rope else {
        let (mut d, s) = (dst.chunks_exact_mut(LANES), src.chunks_exact(LANES));
        let rest = s.remainder();
        for (d, s) in d.by_ref().zip(s) {
            let v: [T; LANES] = std::array::from_fn(|l| s[l] * scale);
            d.iter_mut().zip(v).for_each(|(d, v)| set(d, v));
        }
        d.into_remainder().iter_mut().zip(rest).for_each(|(d, s)| set(d, *s * scale));
        return;
    };
    let r = dst.len() / 2;
    let (cos, sin) = (&a.cos[pos * r..][..r], &a.sin[pos * r..][..r]);
    let (d0, d1) = dst.split_at_mut(r);
    let (s0, s1) = src.split_at(r);
    let whole = r / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let (x, y) = (&s0[at..at + LANES], &s1[at..at + LANES]);
        let (c, s) = (&cos[at..at + LANES], &sin[at..at + LANES]);
        // Both halves before the first store: the compiler cannot know that they do not overlap.
        let (mut lo, mut hi) = ([T::ZERO; LANES], [T::ZERO; LANES]);
        for l in 0..LANES {
            let (x, y, s) = (x[l] * scale, y[l] * scale, s[l] * dir);
            lo[l] = x * c[l] - y * s;
            hi[l] = x * s + y * c[l];
        }
        d0[at..at + LANES].iter_mut().zip(lo).for_each(|(d, v)| set(d, v));
        d1[at..at + LANES].iter_mut().zip(hi).for_each(|(d, v)| set(d, v));
    }
    for i in whole..r {
        let (x, y, s) = (s0[i] * scale, s1[i] * scale, sin[i] * dir);
        set(&mut d0[i], x * cos[i] - y * s);
        set(&mut d1[i], x * s + y * cos[i]);
    }
}

/// Rows that are asked for ahead: one head's columns are a page apart, which no hardware prefetcher follows.
const AHEAD: usize = 12;

/// Asks for the `len` values from `at` on; any address will do.
#[inline(always)]
fn prefetch<T: Real>(base: *const T, at: usize, len: usize) {
    #[cfg(target_arch = "x86_64")]
    for i in (0..len).step_by(64 / T::BYTES) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(base.wrapping_add(at + i).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (base, at, len);
}

/// `dst [hd, len] = src [len, hd]^T`.
#[inline(always)]
fn transpose<T: Real>(dst: &mut [T], src: &[T], len: usize, hd: usize) {
    let (tokens, columns) = (len / LANES * LANES, hd / LANES * LANES);
    for t in (0..tokens).step_by(LANES) {
        for c in (0..columns).step_by(LANES) {
            let mut tile = [[T::ZERO; LANES]; LANES];
            for i in 0..LANES {
                let row = &src[(t + i) * hd + c..][..LANES];
                for j in 0..LANES {
                    tile[j][i] = row[j];
                }
            }
            for (j, row) in tile.iter().enumerate() {
                dst[(c + j) * len + t..][..LANES].copy_from_slice(row);
            }
        }
    }
    for t in 0..len {
        for c in if t < tokens { columns } else { 0 }..hd {
            dst[c * len + t] = src[t * hd + c];
        }
    }
}

/// `dst = src` rotated by the position (`dir` 1) or back (`dir` -1), times `scale`.
#[inline(always)]
fn rotate<T: Real>(rope: Option<Angles<'_, T>>, dst: &mut [T], src: &[T], pos: usize, dir: T, scale: T) {
    rotate_with(rope, dst, src, pos, dir, scale, |d, v| *d = v);
}

/// As [`rotate`], added to `dst`.
#[inline(always)]
fn rotate_add<T: Real>(rope: Option<Angles<'_, T>>, dst: &mut [T], src: &[T], pos: usize, dir: T, scale: T) {
    rotate_with(rope, dst, src, pos, dir, scale, |d, v| *d += v);
}

/// Rotary embedding on its own, for rows of `heads` heads.
pub(crate) fn rope_rows<T: Real>(
    a: Angles<'_, T>,
    positions: &[u32],
    head_dim: usize,
    src: &[T],
    dst: &mut [T],
    dir: T,
    add: bool,
) {
    let width = src.len() / positions.len().max(1);
    for ((src, dst), &p) in src.chunks_exact(width).zip(dst.chunks_exact_mut(width)).zip(positions) {
        for (s, d) in src.chunks_exact(head_dim).zip(dst.chunks_exact_mut(head_dim)) {
            if add {
                rotate_add(Some(a), d, s, p as usize, dir, T::ONE);
            } else {
                rotate(Some(a), d, s, p as usize, dir, T::ONE);
            }
        }
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

/// The tangents of `out` and `lse`.
pub(crate) fn forward_tangent<T: Real>(
    at: Where<'_, T>,
    qkv: &[T],
    tqkv: &[T],
    lse: &[T],
    tout: &mut [T],
    tlse: &mut [T],
) {
    let s = at.shape;
    let (hd, len, w) = (s.head_dim, s.len, s.width());
    let ow = s.heads * hd;
    let to = Shared(tout.as_mut_ptr());
    tlse.par_chunks_mut(len).enumerate().with_max_len(1).for_each(|(task, tlse)| {
        let (b, h) = (task / s.heads, task % s.heads);
        let kv = h / s.group();
        let (block, head) = (BLOCK.min(len), len * hd);
        let mut buf = at.scratch.get(6 * head + block * hd + 2 * block * len);
        let [q, kt, v, tq, tkt, tv, o, p, tp] =
            split(&mut buf, [head, head, head, head, head, head, block * hd, block * len, block * len]);
        // Keys pass through the buffer of the values, which are loaded last.
        at.load_transposed(kt, v, qkv, b, w, s.k(kv), true);
        at.load_transposed(tkt, v, tqkv, b, w, s.k(kv), true);
        at.load(q, qkv, b, w, s.q(h), true, s.scale());
        at.load(v, qkv, b, w, s.v(kv), false, T::ONE);
        at.load(tq, tqkv, b, w, s.q(h), true, s.scale());
        at.load(tv, tqkv, b, w, s.v(kv), false, T::ONE);
        let lse = &lse[task * len..][..len];
        for i0 in (0..len).step_by(BLOCK) {
            let rows = BLOCK.min(len - i0);
            let (lo, hi) = at.keys(b, i0, rows);
            let n = hi - lo;
            let keys = lo * hd..hi * hd;
            let size = (rows, n, hd);
            scores(p, &q[i0 * hd..], &kt[lo..], len, size, Init::Zero);
            scores(tp, &tq[i0 * hd..], &kt[lo..], len, size, Init::Zero);
            scores(tp, &q[i0 * hd..], &tkt[lo..], len, size, Init::Keep);
            simd!(|| {
                let both = p.chunks_exact_mut(n.max(1)).zip(tp.chunks_exact_mut(n.max(1)));
                for (r, (p, tp)) in both.take(rows).enumerate() {
                    let (a, z) = at.span(b, i0 + r, lo);
                    clear_outside(p, a, z);
                    clear_outside(tp, a, z);
                    let (p, tp) = (&mut p[a..z], &mut tp[a..z]);
                    p.iter_mut().for_each(|p| *p = (*p - lse[i0 + r]).exp());
                    let mean = dot(p, tp);
                    tlse[i0 + r] = mean;
                    tp.iter_mut().zip(p).for_each(|(tp, p)| *tp = *p * (*tp - mean));
                }
            });
            let (mp, mt) = (Mat::rows(&*p, n), Mat::rows(&*tp, n));
            gemm(false, (rows, hd, n), T::ONE, o, hd, mt, Mat::rows(&v[keys.clone()], hd), Init::Zero);
            gemm(false, (rows, hd, n), T::ONE, o, hd, mp, Mat::rows(&tv[keys], hd), Init::Keep);
            for r in 0..rows {
                // SAFETY: this task owns head h of batch row b.
                let dst = unsafe { to.row((b * len + i0 + r) * ow + h * hd, hd) };
                dst.copy_from_slice(&o[r * hd..][..hd]);
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

/// Values and tangents around [`backward_tangent`].
#[derive(Clone, Copy)]
pub(crate) struct Around<'a, T> {
    pub(crate) qkv: &'a [T],
    pub(crate) tqkv: &'a [T],
    pub(crate) out: &'a [T],
    pub(crate) tout: &'a [T],
    pub(crate) lse: &'a [T],
    pub(crate) tlse: &'a [T],
    pub(crate) dout: &'a [T],
    pub(crate) tdout: &'a [T],
}

/// The tangent of [`backward`].
#[expect(
    clippy::too_many_lines,
    reason = "one sweep over one tile; its sixteen buffers would be its arguments"
)]
pub(crate) fn backward_tangent<T: Real>(at: Where<'_, T>, x: Around<'_, T>, tdqkv: &mut [T], add: bool) {
    let s = at.shape;
    let (hd, len, w) = (s.head_dim, s.len, s.width());
    let ow = s.heads * hd;
    let to = Shared(tdqkv.as_mut_ptr());
    (0..s.batch * s.kv_heads).into_par_iter().with_max_len(1).for_each(|task| {
        let (b, kv) = (task / s.kv_heads, task % s.kv_heads);
        let (block, head) = (BLOCK.min(len), len * hd);
        let tile = block * len;
        let mut buf = at.scratch.get(13 * head + 2 * len + 4 * tile);
        let [q, k, kt, vt, d, tq, tk, tkt, tvt, td, tdq, tdk, tdv, delta, tdelta, p, tp, ds, tds] = split(
            &mut buf,
            [
                head, head, head, head, head, head, head, head, head, head, head, head, head, len, len, tile,
                tile, tile, tile,
            ],
        );
        at.load_transposed(kt, k, x.qkv, b, w, s.k(kv), true);
        at.load_transposed(tkt, tk, x.tqkv, b, w, s.k(kv), true);
        // The rows of the values are not needed: they pass through a buffer that is cleared below.
        at.load_transposed(vt, tdv, x.qkv, b, w, s.v(kv), false);
        at.load_transposed(tvt, tdv, x.tqkv, b, w, s.v(kv), false);
        tdk.fill(T::ZERO);
        tdv.fill(T::ZERO);
        for h in kv * s.group()..(kv + 1) * s.group() {
            at.load(q, x.qkv, b, w, s.q(h), true, s.scale());
            at.load(tq, x.tqkv, b, w, s.q(h), true, s.scale());
            at.load(d, x.dout, b, ow, h * hd, false, T::ONE);
            at.load(td, x.tdout, b, ow, h * hd, false, T::ONE);
            simd!(|| {
                for t in 0..len {
                    let cols = (b * len + t) * ow + h * hd;
                    let (o, to) = (&x.out[cols..][..hd], &x.tout[cols..][..hd]);
                    let (d, td) = (&d[t * hd..][..hd], &td[t * hd..][..hd]);
                    delta[t] = dot(d, o);
                    tdelta[t] = dot(td, o) + dot(d, to);
                }
            });
            let (lse, tlse) =
                (&x.lse[(b * s.heads + h) * len..][..len], &x.tlse[(b * s.heads + h) * len..][..len]);
            for i0 in (0..len).step_by(BLOCK) {
                let rows = BLOCK.min(len - i0);
                let (lo, hi) = at.keys(b, i0, rows);
                let n = hi - lo;
                let (keys, qs) = (lo * hd..hi * hd, i0 * hd..(i0 + rows) * hd);
                let size = (rows, n, hd);
                scores(p, &q[qs.clone()], &kt[lo..], len, size, Init::Zero);
                scores(tp, &tq[qs.clone()], &kt[lo..], len, size, Init::Zero);
                scores(tp, &q[qs.clone()], &tkt[lo..], len, size, Init::Keep);
                scores(ds, &d[qs.clone()], &vt[lo..], len, size, Init::Zero);
                scores(tds, &td[qs.clone()], &vt[lo..], len, size, Init::Zero);
                scores(tds, &d[qs.clone()], &tvt[lo..], len, size, Init::Keep);
                simd!(|| {
                    let n1 = n.max(1);
                    let four = p.chunks_exact_mut(n1).zip(tp.chunks_exact_mut(n1));
                    let four = four.zip(ds.chunks_exact_mut(n1)).zip(tds.chunks_exact_mut(n1));
                    for (r, (((p, tp), ds), tds)) in four.take(rows).enumerate() {
                        let (a, z) = at.span(b, i0 + r, lo);
                        for row in [&mut *p, &mut *tp, &mut *ds, &mut *tds] {
                            clear_outside(row, a, z);
                        }
                        let i = i0 + r;
                        let all =
                            p[a..z].iter_mut().zip(&mut tp[a..z]).zip(&mut ds[a..z]).zip(&mut tds[a..z]);
                        for (((p, tp), ds), tds) in all {
                            *p = (*p - lse[i]).exp();
                            *tp = *p * (*tp - tlse[i]);
                            *tds = *tp * (*ds - delta[i]) + *p * (*tds - tdelta[i]);
                            *ds = *p * (*ds - delta[i]);
                        }
                    }
                });
                let to = &mut tdq[i0 * hd..];
                gemm(
                    false,
                    (rows, hd, n),
                    T::ONE,
                    to,
                    hd,
                    Mat::rows(&*tds, n),
                    Mat::rows(&k[keys.clone()], hd),
                    Init::Zero,
                );
                gemm(
                    false,
                    (rows, hd, n),
                    T::ONE,
                    to,
                    hd,
                    Mat::rows(&*ds, n),
                    Mat::rows(&tk[keys], hd),
                    Init::Keep,
                );
                transposed(&mut tdk[lo * hd..], tds, &q[qs.clone()], rows, n, hd);
                transposed(&mut tdk[lo * hd..], ds, &tq[qs.clone()], rows, n, hd);
                transposed(&mut tdv[lo * hd..], tp, &d[qs.clone()], rows, n, hd);
                transposed(&mut tdv[lo * hd..], p, &td[qs], rows, n, hd);
            }
            // SAFETY: this task owns the query heads of its group in batch row b.
            unsafe { store(&at, to, tdq, b, s.q(h), true, s.scale(), add) };
        }
        // SAFETY: this task owns key and value head kv of batch row b.
        unsafe {
            store(&at, to, tdk, b, s.k(kv), true, T::ONE, add);
            store(&at, to, tdv, b, s.v(kv), false, T::ONE, add);
        }
    });
}

/// Attention of `new` tokens of one sequence over a cache that already holds their keys and values.
///
/// # Shapes
/// `q [new, width]` (only query columns are read, rotated here), `keys, values [past + new, kv_heads hd]`.
pub(crate) fn cached<T: Real>(
    at: Where<'_, T>,
    qkv: &[T],
    keys: &[T],
    values: &[T],
    past: usize,
    out: &mut [T],
) {
    let s = at.shape;
    let (hd, new, w) = (s.head_dim, s.len, s.width());
    let (ow, kw) = (s.heads * hd, s.kv_heads * hd);
    let to = Shared(out.as_mut_ptr());
    (0..s.heads).into_par_iter().with_max_len(1).for_each(|h| {
        let kv = h / s.group();
        let mut buf = at.scratch.get(hd + past + new);
        let (q, p) = buf.split_at_mut(hd);
        for t in 0..new {
            let src = &qkv[t * w + s.q(h)..][..hd];
            rotate(at.rope, q, src, at.positions[t] as usize, T::ONE, s.scale());
            let seen = past + t + 1;
            // SAFETY: this task owns head h.
            let dst = unsafe { to.row(t * ow + h * hd, hd) };
            simd!(|| {
                for (j, p) in p[..seen].iter_mut().enumerate() {
                    *p = dot(q, &keys[j * kw + kv * hd..][..hd]);
                }
                let m = max(&p[..seen]);
                let inv = T::ONE / exp_shift(&mut p[..seen], m);
                dst.fill(T::ZERO);
                for (j, p) in p[..seen].iter().enumerate() {
                    let c = *p * inv;
                    let v = &values[j * kw + kv * hd..][..hd];
                    dst.iter_mut().zip(v).for_each(|(d, v)| *d = c.mul_add(*v, *d));
                }
            });
        }
    });
}

/// Rotates and appends the keys, and appends the values, of `new` tokens.
pub(crate) fn append<T: Real>(at: Where<'_, T>, qkv: &[T], keys: &mut [T], values: &mut [T], past: usize) {
    let s = at.shape;
    let (hd, w, kw) = (s.head_dim, s.width(), s.kv_heads * s.head_dim);
    for t in 0..s.len {
        for kv in 0..s.kv_heads {
            let to = (past + t) * kw + kv * hd;
            let src = &qkv[t * w + s.k(kv)..][..hd];
            rotate(at.rope, &mut keys[to..][..hd], src, at.positions[t] as usize, T::ONE, T::ONE);
            values[to..][..hd].copy_from_slice(&qkv[t * w + s.v(kv)..][..hd]);
        }
    }
}
