//! Sequences token by token, over a cache.

use rhumb_linalg::Real;
use rhumb_linalg::par::ParRange;

use super::rotary::rotate;
use super::{Shared, Where};
use crate::kernel::{dot, exp_shift, max};
use crate::model::LayerCache;

/// Attention of new tokens over a cache that already holds their keys and values: of one sequence, or of one token
/// for each of several branches with a common beginning.
///
/// # Shapes
/// `q [batch len, width]` (only query columns are read, rotated here); `batch` is 1 without branches, `len` is 1 with
/// them.
pub(crate) fn cached<T: Real>(at: Where<'_, T>, qkv: &[T], cache: &LayerCache<'_, T>, out: &mut [T]) {
    let s = at.shape;
    let (hd, w) = (s.head_dim, s.width());
    let (ow, kw) = (s.heads * hd, s.kv_heads * hd);
    let longest = cache.past + s.len + cache.own.as_ref().map_or(0, |o| o.tokens);
    let to = Shared(out.as_mut_ptr());
    (0..s.batch * s.heads).into_par_iter().with_max_len(1).for_each(|i| {
        let (row, h) = (i / s.heads, i % s.heads);
        let kv = h / s.group();
        let mut buf = at.scratch.get(hd + longest);
        let (q, p) = buf.split_at_mut(hd);
        for t in 0..s.len {
            let token = row * s.len + t;
            let src = &qkv[token * w + s.q(h)..][..hd];
            rotate(at.rope, q, src, at.positions[token] as usize, T::ONE, s.scale());
            let (first, second) = pieces(cache, row, t, kw);
            let p = &mut p[..first.tokens + second.tokens];
            // SAFETY: this task owns head h of this row.
            let dst = unsafe { to.row(token * ow + h * hd, hd) };
            simd!(|| {
                let (a, b) = p.split_at_mut(first.tokens);
                for (j, p) in a.iter_mut().enumerate() {
                    *p = dot(q, &first.keys[j * kw + kv * hd..][..hd]);
                }
                for (j, p) in b.iter_mut().enumerate() {
                    *p = dot(q, &second.keys[j * kw + kv * hd..][..hd]);
                }
                let m = max(p);
                let inv = T::ONE / exp_shift(p, m);
                dst.fill(T::ZERO);
                let (a, b) = p.split_at(first.tokens);
                for (j, p) in a.iter().enumerate() {
                    let c = *p * inv;
                    let v = &first.values[j * kw + kv * hd..][..hd];
                    dst.iter_mut().zip(v).for_each(|(d, v)| *d = c.mul_add(*v, *d));
                }
                for (j, p) in b.iter().enumerate() {
                    let c = *p * inv;
                    let v = &second.values[j * kw + kv * hd..][..hd];
                    dst.iter_mut().zip(v).for_each(|(d, v)| *d = c.mul_add(*v, *d));
                }
            });
        }
    });
}

struct Piece<'a, T> {
    keys: &'a [T],
    values: &'a [T],
    tokens: usize,
}

/// What token `t` of a row sees: of the common beginning, and of its branch.
fn pieces<'a, T>(
    cache: &'a LayerCache<'_, T>,
    row: usize,
    t: usize,
    kw: usize,
) -> (Piece<'a, T>, Piece<'a, T>) {
    let past = |tokens| Piece { keys: &*cache.keys, values: &*cache.values, tokens };
    match &cache.own {
        None => (past(cache.past + t + 1), Piece { keys: &[], values: &[], tokens: 0 }),
        Some(own) => {
            let at = row * own.room * kw;
            let own = Piece { keys: &own.keys[at..], values: &own.values[at..], tokens: own.tokens + t + 1 };
            (past(cache.past), own)
        }
    }
}

/// Rotates and appends the keys, and appends the values, of new tokens.
pub(crate) fn append<T: Real>(at: Where<'_, T>, qkv: &[T], cache: &mut LayerCache<'_, T>) {
    let s = at.shape;
    let (hd, w, kw) = (s.head_dim, s.width(), s.kv_heads * s.head_dim);
    let past = cache.past;
    let (keys, values, room, before) = match &mut cache.own {
        None => (&mut *cache.keys, &mut *cache.values, 0, past),
        Some(o) => (&mut *o.keys, &mut *o.values, o.room, o.tokens),
    };
    for token in 0..s.batch * s.len {
        let (row, t) = (token / s.len, token % s.len);
        for kv in 0..s.kv_heads {
            let to = (row * room + before + t) * kw + kv * hd;
            let src = &qkv[token * w + s.k(kv)..][..hd];
            rotate(at.rope, &mut keys[to..][..hd], src, at.positions[token] as usize, T::ONE, T::ONE);
            values[to..][..hd].copy_from_slice(&qkv[token * w + s.v(kv)..][..hd]);
        }
    }
}
