//! Rotary positions, and rows moved between strided and dense storage.

use rhumb_linalg::Real;

use super::Angles;

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
pub(super) const AHEAD: usize = 12;

/// Asks for the `len` values from `at` on; any address will do.
#[inline(always)]
pub(super) fn prefetch<T: Real>(base: *const T, at: usize, len: usize) {
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
pub(super) fn transpose<T: Real>(dst: &mut [T], src: &[T], len: usize, hd: usize) {
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
pub(super) fn rotate<T: Real>(
    rope: Option<Angles<'_, T>>,
    dst: &mut [T],
    src: &[T],
    pos: usize,
    dir: T,
    scale: T,
) {
    rotate_with(rope, dst, src, pos, dir, scale, |d, v| *d = v);
}

/// As [`rotate`], added to `dst`.
#[inline(always)]
pub(super) fn rotate_add<T: Real>(
    rope: Option<Angles<'_, T>>,
    dst: &mut [T],
    src: &[T],
    pos: usize,
    dir: T,
    scale: T,
) {
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
