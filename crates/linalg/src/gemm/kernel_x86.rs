//! Micro kernels for x86-64: AVX2 with FMA, and AVX-512.
//!
//! Both sum each element over `k` in the same order with fused multiply-adds, so that an element's bits do
//! not depend on its place in a tile.

#[allow(clippy::wildcard_imports, reason = "thirty intrinsics, all with their own prefix")]
use std::arch::x86_64::*;

use super::kernel::{Dots, Kernel, Tile};

/// Defines the tile and dot kernels of one instruction set and scalar type.
macro_rules! kernels {
    (
        $module:ident, $name:literal, $features:literal, $t:ty, rows $mr:literal, vectors $nv:literal of $lanes:literal,
        $zero:ident, $load:ident, $store:ident, $set1:ident, $fma:ident, $sum:ident,
        tiles [$($r:literal)*], dots [$($s:literal x $g:literal x $u:literal)*], pack $pack:ident
    ) => {
        mod $module {
            use super::*;

            const NR: usize = $nv * $lanes;

            /// A tile of `R` rows, contiguous or (`IN_PLACE`) at distance `a_row`.
            ///
            /// # Safety
            /// The CPU has the features, and the tile's pointers are valid for what [`Tile`] says is read and
            /// written.
            #[target_feature(enable = $features)]
            unsafe fn tile<const R: usize, const IN_PLACE: bool>(t: &Tile<$t>) {
                // SAFETY: the caller's promise.
                unsafe {
                    // C comes from memory once per block of k: asked for now, it arrives during the sums.
                    for i in 0..R {
                        for j in 0..(NR * size_of::<$t>()).div_ceil(64) {
                            let line = t.c.wrapping_add(i * t.ldc).wrapping_byte_add(64 * j);
                            _mm_prefetch::<_MM_HINT_T0>(line.cast());
                        }
                    }
                    let mut acc = [[$zero(); $nv]; R];
                    let row_stride = if IN_PLACE { t.a_row } else { 1 };
                    let (mut a, mut b) = (t.a, t.b);
                    for _ in 0..t.k {
                        let mut row = [$zero(); $nv];
                        for j in 0..$nv {
                            row[j] = $load(b.add(j * $lanes));
                        }
                        for i in 0..R {
                            let x = $set1(*a.add(i * row_stride));
                            for j in 0..$nv {
                                acc[i][j] = $fma(x, row[j], acc[i][j]);
                            }
                        }
                        // One step past the end at last: never read, hence not `add`.
                        a = a.wrapping_add(t.a_stride);
                        b = b.wrapping_add(t.b_stride);
                    }
                    let alpha = $set1(t.alpha);
                    // Two loops without a branch inside, so that both are unrolled and the sums stay in registers.
                    if t.cols == NR && t.init.is_null() {
                        let zero = $zero();
                        for i in 0..R {
                            for j in 0..$nv {
                                $store(t.c.add(i * t.ldc + j * $lanes), $fma(alpha, acc[i][j], zero));
                            }
                        }
                        return;
                    }
                    if t.cols == NR {
                        for i in 0..R {
                            for j in 0..$nv {
                                let old = $load(t.init.add(i * t.init_stride + j * $lanes));
                                $store(t.c.add(i * t.ldc + j * $lanes), $fma(alpha, acc[i][j], old));
                            }
                        }
                        return;
                    }
                    // What follows indexes at run time, which would keep the sums in memory during the loop
                    // above; a copy in constant places leaves them in registers.
                    let mut sums = [[$zero(); $nv]; R];
                    for i in 0..R {
                        for j in 0..$nv {
                            sums[i][j] = acc[i][j];
                        }
                    }
                    let acc = std::hint::black_box(&sums);
                    let mut row: [$t; NR] = [0.0; NR];
                    for i in 0..R {
                        for j in 0..$nv {
                            $store(row.as_mut_ptr().add(j * $lanes), acc[i][j]);
                        }
                        for (j, &x) in row[..t.cols].iter().enumerate() {
                            let old = if t.init.is_null() { 0.0 } else { *t.init.add(i * t.init_stride + j) };
                            *t.c.add(i * t.ldc + j) = t.alpha.mul_add(x, old);
                        }
                    }
                }
            }

            /// `G` long rows from row `l` on against `S` short vectors, in `U` interleaved sums each: enough
            /// sums to hide the latency of an addition, and a single stream of memory for a single vector.
            ///
            /// # Safety
            /// As [`dots`], and rows `l..l + G` exist.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn dot_group<const S: usize, const G: usize, const U: usize>(d: &Dots<$t>, l: usize) {
                // SAFETY: the caller's promise.
                unsafe {
                    let long = d.long.add(l * d.long_stride);
                    let mut acc = [[[$zero(); U]; S]; G];
                    let whole = d.k / $lanes * $lanes;
                    let mut p = 0;
                    while p < whole {
                        // The last few vectors go one at a time.
                        let vectors = if p + U * $lanes <= whole { U } else { 1 };
                        for u in 0..U {
                            if u == vectors {
                                break;
                            }
                            let at = p + u * $lanes;
                            let mut w = [$zero(); G];
                            for g in 0..G {
                                let w_at = long.wrapping_add(g * d.long_stride + at);
                                // With much arithmetic a row, the hardware alone fetches too late; with little,
                                // it keeps up and asking costs more than it brings (measured on Zen 4).
                                if S >= 4 {
                                    let ahead = w_at.wrapping_add(G.max(2) * d.long_stride);
                                    _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                                }
                                w[g] = $load(w_at);
                            }
                            for s in 0..S {
                                let x = $load(d.short.add(s * d.short_stride + at));
                                for g in 0..G {
                                    acc[g][s][u] = $fma(w[g], x, acc[g][s][u]);
                                }
                            }
                        }
                        p += vectors * $lanes;
                    }
                    for g in 0..G {
                        for s in 0..S {
                            let mut sum = 0.0;
                            for u in 0..U {
                                sum += $sum(acc[g][s][u]);
                            }
                            for p in whole..d.k {
                                let w = *long.add(g * d.long_stride + p);
                                sum = w.mul_add(*d.short.add(s * d.short_stride + p), sum);
                            }
                            let at = |(long, short): (usize, usize)| (l + g) * long + s * short;
                            let old = if d.init.is_null() { 0.0 } else { *d.init.add(at(d.init_strides)) };
                            *d.c.add(at(d.c_strides)) = d.alpha.mul_add(sum, old);
                        }
                    }
                }
            }

            /// All rows of `d` against `S` short vectors, `G` rows at a time.
            ///
            /// # Safety
            /// The CPU has the features, and the pointers are valid for what [`Dots`] says is read and written.
            #[target_feature(enable = $features)]
            unsafe fn dots<const S: usize, const G: usize, const U: usize>(d: &Dots<$t>) {
                let mut l = 0;
                // SAFETY: the caller's promise; l stays below rows.
                unsafe {
                    while l + G <= d.rows {
                        dot_group::<S, G, U>(d, l);
                        l += G;
                    }
                    while l < d.rows {
                        dot_group::<S, 1, U>(d, l);
                        l += 1;
                    }
                }
            }

            pub(super) static KERNEL: Kernel<$t> = Kernel {
                name: $name,
                mr: $mr,
                nr: NR,
                tiles: &[$(tile::<$r, false>),*],
                tiles_in_place: &[$(tile::<$r, true>),*],
                pack_a: $pack::<$mr>,
                pack_b: $pack::<NR>,
                dots: &[$(dots::<$s, $g, $u>),*],
            };
        }
    };
}

kernels!(
    avx512_f32, "AVX-512 14x32", "avx512f,avx2,fma", f32, rows 14, vectors 2 of 16,
    _mm512_setzero_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_fmadd_ps, sum_16,
    tiles [1 2 3 4 5 6 7 8 9 10 11 12 13 14], dots [1 x 1 x 4 2 x 4 x 1 3 x 4 x 1 4 x 4 x 1 5 x 2 x 1 6 x 2 x 1 7 x 1 x 1 8 x 1 x 1], pack pack_f32
);
kernels!(
    avx512_f64, "AVX-512 14x16", "avx512f,avx2,fma", f64, rows 14, vectors 2 of 8,
    _mm512_setzero_pd, _mm512_loadu_pd, _mm512_storeu_pd, _mm512_set1_pd, _mm512_fmadd_pd, sum_8_f64,
    tiles [1 2 3 4 5 6 7 8 9 10 11 12 13 14], dots [1 x 1 x 4 2 x 4 x 1 3 x 4 x 1 4 x 4 x 1 5 x 2 x 1 6 x 2 x 1 7 x 1 x 1 8 x 1 x 1], pack pack_f64
);
kernels!(
    avx2_f32, "AVX2 6x16", "avx2,fma", f32, rows 6, vectors 2 of 8,
    _mm256_setzero_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_fmadd_ps, sum_8,
    tiles [1 2 3 4 5 6], dots [1 x 1 x 4 2 x 4 x 1 3 x 2 x 1 4 x 2 x 1 5 x 1 x 1 6 x 1 x 1 7 x 1 x 1 8 x 1 x 1], pack pack_f32
);
kernels!(
    avx2_f64, "AVX2 6x8", "avx2,fma", f64, rows 6, vectors 2 of 4,
    _mm256_setzero_pd, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_set1_pd, _mm256_fmadd_pd, sum_4_f64,
    tiles [1 2 3 4 5 6], dots [1 x 1 x 4 2 x 4 x 1 3 x 2 x 1 4 x 2 x 1 5 x 1 x 1 6 x 1 x 1 7 x 1 x 1 8 x 1 x 1], pack pack_f64
);

/// The kernels this CPU runs, the preferred first.
macro_rules! available {
    ($name:ident, $t:ty, $avx512:ident, $avx2:ident) => {
        pub(crate) fn $name() -> &'static [&'static Kernel<$t>] {
            static ALL: [&Kernel<$t>; 2] = [&$avx512::KERNEL, &$avx2::KERNEL];
            if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
                &[]
            } else if is_x86_feature_detected!("avx512f") {
                &ALL
            } else {
                &ALL[1..]
            }
        }
    };
}

available!(kernels_f32, f32, avx512_f32, avx2_f32);
available!(kernels_f64, f64, avx512_f64, avx2_f64);

/// Steps of k that are copied for all panels before the next ones are read.
const STEPS: usize = 8;

/// Defines `Pack` for one scalar type; `$block` square transpositions serve rows that are contiguous along k.
macro_rules! pack {
    ($name:ident, $t:ty, $(if width >= $block:literal $transpose:ident),+) => {
        /// See [`Pack`](super::kernel::Pack).
        ///
        /// # Safety
        /// The CPU has AVX2; `dst` takes `n` rounded up to `W` times `k` values, and the source elements exist.
        #[target_feature(enable = "avx2")]
        unsafe fn $name<const W: usize>(dst: *mut $t, src: *const $t, n: usize, k: usize, along: usize, deep: usize) {
            // Steps that are contiguous across panels are read in order, a few at a time for all panels: every line of
            // memory comes once.
            let across = if along == 1 { n / W * W } else { 0 };
            for p0 in (0..if across > 0 { k } else { 0 }).step_by(STEPS) {
                for i0 in (0..across).step_by(W) {
                    for p in p0..k.min(p0 + STEPS) {
                        // SAFETY: step p of rows i0..i0 + W exists in src, as does its place in panel i0 / W.
                        unsafe {
                            std::ptr::copy_nonoverlapping(src.add(i0 + p * deep), dst.add(i0 * k + p * W), W);
                        }
                    }
                }
            }
            for i0 in (across..n).step_by(W) {
                let w = W.min(n - i0);
                // SAFETY: panel i0 / W lies in dst, rows i0..i0 + w in src (both the caller's promise).
                unsafe {
                    let (dst, src) = (dst.add(i0 * k), src.add(i0 * along));
                    if w == W && deep == 1 {
                        let done = $(if W >= $block {
                            for p in (0..k / $block * $block).step_by($block) {
                                // The last block overlaps the one before when W is no multiple: same values.
                                for i in (0..W).step_by($block) {
                                    let i = i.min(W - $block);
                                    $transpose(src.add(i * along + p), along, dst.add(p * W + i), W);
                                }
                            }
                            k / $block * $block
                        } else)+ { 0 };
                        for p in done..k {
                            for i in 0..W {
                                *dst.add(p * W + i) = *src.add(i * along + p);
                            }
                        }
                    } else {
                        for p in 0..k {
                            for i in 0..W {
                                *dst.add(p * W + i) = if i < w { *src.add(i * along + p * deep) } else { 0.0 };
                            }
                        }
                    }
                }
            }
        }
    };
}

pack!(pack_f32, f32, if width >= 8 transpose_8x8, if width >= 4 transpose_4x4);
pack!(pack_f64, f64, if width >= 4 transpose_4x4_f64);

/// Sum of the lanes, halves first.
#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn sum_16(x: __m512) -> f32 {
    let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(x)));
    sum_8(_mm256_add_ps(_mm512_castps512_ps256(x), high))
}

/// Sum of the lanes, halves first.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_8(x: __m256) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
}

/// Sum of the lanes, halves first.
#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn sum_8_f64(x: __m512d) -> f64 {
    sum_4_f64(_mm256_add_pd(_mm512_castpd512_pd256(x), _mm512_extractf64x4_pd::<1>(x)))
}

/// Sum of the lanes, halves first.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_4_f64(x: __m256d) -> f64 {
    let x = _mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd::<1>(x));
    _mm_cvtsd_f64(_mm_add_sd(x, _mm_unpackhi_pd(x, x)))
}

/// Transposes 8 x 8 values.
///
/// # Safety
/// AVX2; eight rows of eight values exist at both pointers.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn transpose_8x8(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut r = [_mm256_setzero_ps(); 8];
        for i in 0..8 {
            r[i] = _mm256_loadu_ps(src.add(i * src_stride));
        }
        let mut s = r;
        for i in 0..4 {
            s[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            s[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        for h in 0..2 {
            let (a, b, c, d) = (s[4 * h], s[4 * h + 1], s[4 * h + 2], s[4 * h + 3]);
            r[4 * h] = _mm256_shuffle_ps::<0x44>(a, c);
            r[4 * h + 1] = _mm256_shuffle_ps::<0xee>(a, c);
            r[4 * h + 2] = _mm256_shuffle_ps::<0x44>(b, d);
            r[4 * h + 3] = _mm256_shuffle_ps::<0xee>(b, d);
        }
        for i in 0..4 {
            _mm256_storeu_ps(dst.add(i * dst_stride), _mm256_permute2f128_ps::<0x20>(r[i], r[i + 4]));
            _mm256_storeu_ps(dst.add((i + 4) * dst_stride), _mm256_permute2f128_ps::<0x31>(r[i], r[i + 4]));
        }
    }
}

/// Transposes 4 x 4 values.
///
/// # Safety
/// Four rows of four values exist at both pointers.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn transpose_4x4(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut r = [_mm_setzero_ps(); 4];
        for i in 0..4 {
            r[i] = _mm_loadu_ps(src.add(i * src_stride));
        }
        let [r0, r1, r2, r3] = &mut r;
        _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
        for i in 0..4 {
            _mm_storeu_ps(dst.add(i * dst_stride), r[i]);
        }
    }
}

/// Transposes 4 x 4 doubles.
///
/// # Safety
/// AVX2; four rows of four values exist at both pointers.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn transpose_4x4_f64(src: *const f64, src_stride: usize, dst: *mut f64, dst_stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut r = [_mm256_setzero_pd(); 4];
        for i in 0..4 {
            r[i] = _mm256_loadu_pd(src.add(i * src_stride));
        }
        let (a, b) = (_mm256_unpacklo_pd(r[0], r[1]), _mm256_unpackhi_pd(r[0], r[1]));
        let (c, d) = (_mm256_unpacklo_pd(r[2], r[3]), _mm256_unpackhi_pd(r[2], r[3]));
        _mm256_storeu_pd(dst, _mm256_permute2f128_pd::<0x20>(a, c));
        _mm256_storeu_pd(dst.add(dst_stride), _mm256_permute2f128_pd::<0x20>(b, d));
        _mm256_storeu_pd(dst.add(2 * dst_stride), _mm256_permute2f128_pd::<0x31>(a, c));
        _mm256_storeu_pd(dst.add(3 * dst_stride), _mm256_permute2f128_pd::<0x31>(b, d));
    }
}
