//! One sequence, token by token, over a cache.

use rayon::prelude::*;
use rhumb_linalg::Real;

use super::rotary::rotate;
use super::{Shared, Where};
use crate::kernel::{dot, exp_shift, max};

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
