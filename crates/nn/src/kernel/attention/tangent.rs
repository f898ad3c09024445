//! Directional derivatives of both sweeps.

use rhumb_linalg::Real;
use rhumb_linalg::gemm::{Init, Mat, gemm};
use rhumb_linalg::par::{ParRange, ParSliceMut};

use super::{BLOCK, Shared, Where, clear_outside, scores, split, store, transposed};
use crate::kernel::dot;

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
