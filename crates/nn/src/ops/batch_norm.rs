use std::sync::{Arc, Mutex, PoisonError};

use rhumb_linalg::Real;

use crate::kernel::plane::{SUMS, channel_sums, each_plane};
use crate::kernel::{dot, simd, sum, sum2};
use crate::op::{Adj, Ctx, Cx, Ins, Needs, Op, TanCtx, Tans};

/// Mean and unbiased variance of every channel in the batch that was seen last, for whoever keeps running averages.
///
/// Written by every forward rule, those of evaluations and second derivatives included.
#[derive(Debug, Default)]
pub struct BatchMoments(Mutex<(Vec<f64>, Vec<f64>)>);

impl BatchMoments {
    /// `f(means, variances)`; both are empty before the first batch.
    pub fn read<R>(&self, f: impl FnOnce(&[f64], &[f64]) -> R) -> R {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        f(&held.0, &held.1)
    }

    fn write(&self, mean: impl Iterator<Item = f64>, variance: impl Iterator<Item = f64>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (m, v) = &mut *held;
        m.clear();
        v.clear();
        m.extend(mean);
        v.extend(variance);
    }
}

/// Where a [`BatchNorm2d`] takes mean and variance from.
#[derive(Clone, Debug)]
pub enum Moments {
    /// The batch itself (training); gradients and Hessian go through them.
    Batch(Arc<BatchMoments>),
    /// The inputs after the bias, `[channels]` each: running averages, held constant.
    Given,
}

/// `y = (x - mean) / sqrt(var + eps) * w + b` per channel, `var` the biased variance over images and positions.
///
/// # Reference
/// Ioffe, Szegedy, ICML 2015.
///
/// # Shapes
/// `x, y [batch, channels, area]`, `w, b [channels]`, and with [`Moments::Given`] `mean, var [channels]`; inputs in that
/// order. Saves mean and scale of each channel.
#[derive(Clone, Debug)]
pub struct BatchNorm2d {
    /// Images.
    pub batch: usize,
    /// Channels.
    pub channels: usize,
    /// Scalars of a plane.
    pub area: usize,
    /// Added to the variance.
    pub eps: f64,
    /// Mean and variance.
    pub moments: Moments,
}

/// The sums over a channel that both orders of the backward rule need: of `dy` and of `dy (x - mean)`.
struct Sums<'a, T> {
    dy: &'a [T],
    dyc: &'a [T],
}

impl BatchNorm2d {
    /// One over the scalars of a channel when statistics follow the batch, else zero: the share of one scalar in them.
    fn share<T: Real>(&self) -> T {
        match self.moments {
            Moments::Batch(_) => T::of(1.0 / self.count()),
            Moments::Given => T::ZERO,
        }
    }

    fn count(&self) -> f64 {
        (self.batch * self.area) as f64
    }

    fn plane<'a, T>(&self, x: &'a [T], i: usize) -> &'a [T] {
        &x[i * self.area..][..self.area]
    }

    /// Sums over channels of up to [`SUMS`] numbers of each plane, `[SUMS, channels]`.
    fn sums<T: Real>(&self, cx: &Cx<'_, T>, out: &mut [T], f: impl Fn(usize) -> [T; SUMS] + Sync + Send) {
        let mut planes = cx.scratch.get(self.batch * self.channels * SUMS);
        channel_sums(&mut planes, self.area, f, out);
    }

    fn batch_moments<T: Real>(
        &self,
        cx: &Cx<'_, T>,
        sink: &BatchMoments,
        x: &[T],
        mean: &mut [T],
        scale: &mut [T],
    ) {
        let n = self.count();
        let mut s = cx.scratch.get(SUMS * self.channels);
        self.sums(cx, &mut s, |i| {
            let x = self.plane(x, i);
            let mut out = [T::ZERO; SUMS];
            simd!(|| out[0] = sum(x));
            out
        });
        mean.iter_mut().zip(&s[..]).for_each(|(m, s)| *m = T::of(s.f64() / n));
        let mean = &*mean;
        self.sums(cx, &mut s, |i| {
            let (x, m) = (self.plane(x, i), mean[i % self.channels]);
            let mut out = [T::ZERO; SUMS];
            simd!(|| out[0] = sum2(x, x, |a, _| (a - m) * (a - m)));
            out
        });
        let of = |r: &mut T, s: &T| *r = T::of(1.0 / (s.f64() / n + self.eps).sqrt());
        scale.iter_mut().zip(&s[..]).for_each(|(r, s)| of(r, s));
        let unbiased = s[..self.channels].iter().map(|s| s.f64() / (n - 1.0).max(1.0));
        sink.write(mean.iter().map(|m| m.f64()), unbiased);
    }

    /// `sum dy` and `sum dy (x - mean)`, the latter without the factor of the scale.
    fn backward_sums<T: Real>(&self, cx: &Cx<'_, T>, at: &Ctx<'_, T>, dy: &[T], out: &mut [T]) {
        self.sums(cx, out, |i| {
            let (x, dy, m) = (self.plane(at.x[0], i), self.plane(dy, i), at.saved[i % self.channels]);
            let mut out = [T::ZERO; SUMS];
            simd!(|| {
                out[0] = sum(dy);
                out[1] = sum2(dy, x, |d, x| d * (x - m));
            });
            out
        });
    }

    fn write_gradients<T: Real>(
        dx: &mut [Option<Adj<'_, T>>],
        w: impl Fn(usize) -> T,
        b: impl Fn(usize) -> T,
    ) {
        if let Some(d) = &mut dx[1] {
            d.each(w);
        }
        if let Some(d) = &mut dx[2] {
            d.each(b);
        }
    }
}

impl<T: Real> Op<T> for BatchNorm2d {
    fn name(&self) -> &'static str {
        "batch-norm2d"
    }
    fn out_len(&self) -> usize {
        self.batch * self.channels * self.area
    }
    fn saved_len(&self) -> usize {
        2 * self.channels
    }
    fn needs(&self) -> Needs {
        Needs::inputs(0b11)
    }

    fn forward(&self, cx: &Cx<'_, T>, x: Ins<'_, T>, y: &mut [T], saved: &mut [T]) {
        let (mean, scale) = saved.split_at_mut(self.channels);
        match &self.moments {
            Moments::Batch(sink) => self.batch_moments(cx, sink, x[0], mean, scale),
            Moments::Given => {
                mean.copy_from_slice(x[3]);
                let of = |v: &T| T::of(1.0 / (v.f64() + self.eps).sqrt());
                scale.iter_mut().zip(x[4]).for_each(|(r, v)| *r = of(v));
            }
        }
        let (mean, scale) = (&*mean, &*scale);
        each_plane(y, self.area, self.area, |i, y| {
            let c = i % self.channels;
            let (m, a, b) = (mean[c], scale[c] * x[1][c], x[2][c]);
            simd!(|| y.iter_mut().zip(self.plane(x[0], i)).for_each(|(y, x)| *y = (*x - m) * a + b));
        });
    }

    fn backward(&self, cx: &Cx<'_, T>, at: Ctx<'_, T>, dy: &[T], dx: &mut [Option<Adj<'_, T>>]) {
        let n = self.channels;
        let (mean, scale) = at.saved.split_at(n);
        let mut s = cx.scratch.get(SUMS * n);
        self.backward_sums(cx, &at, dy, &mut s);
        Self::write_gradients(dx, |c| s[n + c] * scale[c], |c| s[c]);
        let Some(d) = &mut dx[0] else { return };
        let (share, add) = (self.share::<T>(), d.add);
        each_plane(d.buf, self.area, self.area, |i, dx| {
            let c = i % n;
            let (m, r, a) = (mean[c], scale[c], scale[c] * at.x[1][c]);
            let (flat, tilt) = (s[c] * share, s[n + c] * share * r * r);
            let (x, dy) = (self.plane(at.x[0], i), self.plane(dy, i));
            simd!(|| {
                let all = dx.iter_mut().zip(x).zip(dy);
                if add {
                    all.for_each(|((d, x), dy)| *d += a * (*dy - flat - (*x - m) * tilt));
                } else {
                    all.for_each(|((d, x), dy)| *d = a * (*dy - flat - (*x - m) * tilt));
                }
            });
        });
    }

    fn forward_tangent(
        &self,
        cx: &Cx<'_, T>,
        at: Ctx<'_, T>,
        tx: Tans<'_, T>,
        ty: &mut [T],
        tsaved: &mut [T],
    ) {
        let (mean, scale) = at.saved.split_at(self.channels);
        tsaved.fill(T::ZERO);
        let (tmean, tscale) = tsaved.split_at_mut(self.channels);
        if let (Moments::Batch(_), Some(t)) = (&self.moments, tx[0]) {
            let mut s = cx.scratch.get(SUMS * self.channels);
            // The deviations of x sum to zero, so that the mean of the tangent drops out of the second sum.
            self.backward_sums(cx, &at, t, &mut s);
            let share = self.share::<T>();
            for c in 0..self.channels {
                let r = scale[c];
                tmean[c] = s[c] * share;
                tscale[c] = -(r * r * r) * s[self.channels + c] * share;
            }
        }
        let (tmean, tscale) = (&*tmean, &*tscale);
        each_plane(ty, self.area, self.area, |i, ty| {
            let c = i % self.channels;
            let (m, r, w) = (mean[c], scale[c], at.x[1][c]);
            let (tm, tr) = (tmean[c], tscale[c]);
            let (tw, tb) = (tx[1].map_or(T::ZERO, |t| t[c]), tx[2].map_or(T::ZERO, |t| t[c]));
            let (by_c, by_t) = (tw * r + w * tr, w * r);
            let x = self.plane(at.x[0], i);
            simd!(|| match tx[0] {
                Some(t) => {
                    let all = ty.iter_mut().zip(x).zip(self.plane(t, i));
                    all.for_each(|((ty, x), t)| *ty = by_c * (*x - m) + by_t * (*t - tm) + tb);
                }
                None => ty.iter_mut().zip(x).for_each(|(ty, x)| *ty = by_c * (*x - m) + tb),
            });
        });
    }

    fn backward_tangent(
        &self,
        cx: &Cx<'_, T>,
        at: Ctx<'_, T>,
        t: TanCtx<'_, T>,
        tdx: &mut [Option<Adj<'_, T>>],
    ) {
        let n = self.channels;
        let (mean, scale) = at.saved.split_at(n);
        let (tmean, tscale) = t.tsaved.split_at(n);
        let (mut s, mut ts) = (cx.scratch.get(SUMS * n), cx.scratch.get(SUMS * n));
        self.backward_sums(cx, &at, t.dy, &mut s);
        self.sums(cx, &mut ts, |i| {
            let (x, m) = (self.plane(at.x[0], i), mean[i % n]);
            let (dy, tdy) = (self.plane(t.dy, i), self.plane(t.tdy, i));
            let mut out = [T::ZERO; SUMS];
            simd!(|| {
                out[0] = sum(tdy);
                out[1] = sum2(tdy, x, |d, x| d * (x - m));
                out[2] = t.tx[0].map_or(T::ZERO, |tx| dot(dy, self.plane(tx, i)));
            });
            out
        });
        let (s, ts) = (Sums { dy: &s[..n], dyc: &s[n..2 * n] }, &ts[..]);
        // The tangent of sum dy (x - mean).
        let tdyc = |c: usize| ts[n + c] + ts[2 * n + c] - tmean[c] * s.dy[c];
        Self::write_gradients(tdx, |c| tdyc(c) * scale[c] + s.dyc[c] * tscale[c], |c| ts[c]);
        let Some(d) = &mut tdx[0] else { return };
        let (share, add) = (self.share::<T>(), d.add);
        each_plane(d.buf, self.area, self.area, |i, d| {
            let c = i % n;
            let (m, r, w) = (mean[c], scale[c], at.x[1][c]);
            let (tm, tr, tw) = (tmean[c], tscale[c], t.tx[1].map_or(T::ZERO, |t| t[c]));
            // dx = a (dy - flat - (x - m) tilt), and the tangents of a, flat and tilt.
            let (a, ta) = (r * w, tr * w + r * tw);
            let (flat, tflat) = (s.dy[c] * share, ts[c] * share);
            let tilt = s.dyc[c] * share * r * r;
            let ttilt = (tdyc(c) * r * r + s.dyc[c] * (tr * r + r * tr)) * share;
            let (x, dy, tdy) = (self.plane(at.x[0], i), self.plane(t.dy, i), self.plane(t.tdy, i));
            simd!(|| {
                for (j, d) in d.iter_mut().enumerate() {
                    let (x, tx) = (x[j] - m, t.tx[0].map_or(T::ZERO, |t| t[i * self.area + j] - tm));
                    let v = ta * (dy[j] - flat - x * tilt) + a * (tdy[j] - tflat - tx * tilt - x * ttilt);
                    *d = if add { *d + v } else { v };
                }
            });
        });
    }
}
