//! Sums over a piece of a row, and the gradient from them.

use rhumb_linalg::Real;

const LANES: usize = 16;
/// Scalars summed in the row's own precision before they join an f64 sum.
const BLOCK: usize = 1024;
/// Where [`Real::decay`] is exactly zero, so that `-inf` scores (masked vocabulary) vanish.
const FLOOR: f64 = -80.0;

/// Sums relative to one shift `m`, in f64, with `d = z - m`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sums {
    /// `sum e^d`.
    pub(super) p: f64,
    /// `sum e^d d`.
    pub(super) pz: f64,
    /// `sum e^(d / beta)`.
    pub(super) q: f64,
    /// `sum e^(d / beta) w`.
    pub(super) qw: f64,
    /// `sum e^(d / beta) w d`.
    pub(super) qwz: f64,
    /// `sum d` over the columns that are not masked.
    pub(super) flat: f64,
    /// Their number.
    pub(super) columns: f64,
}

impl Sums {
    pub(super) fn add(&mut self, b: Sums) {
        self.p += b.p;
        self.pz += b.pz;
        self.q += b.q;
        self.qw += b.qw;
        self.qwz += b.qwz;
        self.flat += b.flat;
        self.columns += b.columns;
    }
}

/// Where the weights of a scan are taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<T> {
    /// The shift.
    pub(super) max: T,
    /// The score of the label.
    pub(super) label: T,
    /// One over the temperature of cold weights.
    pub(super) inv_beta: T,
}

#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}

#[inline(always)]
fn distance<T: Real>(d: T) -> T {
    if d > T::of(FLOOR) { d } else { T::ZERO }
}

#[inline(always)]
fn masked<T: Real>(d: T) -> bool {
    d <= T::of(f64::NEG_INFINITY)
}

/// Partial sums of one block.
struct Lanes<T>([[T; LANES]; 7]);

impl<T: Real> Lanes<T> {
    /// Adds one score; returns its unnormalised weight in the gradient.
    #[inline(always)]
    fn add<const COLD: bool, const SIG: bool, const FLAT: bool>(&mut self, z: T, l: usize, at: At<T>) -> T {
        let acc = &mut self.0;
        let d = z - at.max;
        let e = d.decay(T::ONE);
        let dz = distance(d);
        acc[0][l] += e;
        acc[1][l] += e * dz;
        let mut a = e;
        if COLD {
            let q = d.decay(at.inv_beta);
            acc[2][l] += q;
            a = q;
            if SIG {
                let x = T::of(0.01) * (z - at.label);
                a = q / (T::ONE + (-x).exp());
            }
            acc[3][l] += a;
            acc[4][l] += a * dz;
        }
        if FLAT && !masked(d) {
            acc[5][l] += d;
            acc[6][l] += T::ONE;
        }
        a
    }

    fn total(&self) -> Sums {
        let [p, pz, q, qw, qwz, flat, columns] = self.0.map(|a| a.iter().map(|x| x.f64()).sum::<f64>());
        Sums { p, pz, q, qw, qwz, flat, columns }
    }
}

/// Sums over a piece of a row.
#[inline(always)]
pub(super) fn scan<T: Real, const COLD: bool, const SIG: bool, const FLAT: bool>(z: &[T], at: At<T>) -> Sums {
    let mut sums = Sums::default();
    for z in z.chunks(BLOCK) {
        let mut acc = Lanes([[T::ZERO; LANES]; 7]);
        let chunks = z.chunks_exact(LANES);
        let rest = chunks.remainder();
        for c in chunks {
            for l in 0..LANES {
                acc.add::<COLD, SIG, FLAT>(c[l], l, at);
            }
        }
        for (l, z) in rest.iter().enumerate() {
            acc.add::<COLD, SIG, FLAT>(*z, l, at);
        }
        sums.add(acc.total());
    }
    sums
}

/// The same sums; leaves the unnormalised weights of the gradient in `z`.
#[inline(always)]
pub(super) fn scan_keep<T: Real, const COLD: bool, const SIG: bool>(z: &mut [T], at: At<T>) -> Sums {
    let mut sums = Sums::default();
    for z in z.chunks_mut(BLOCK) {
        let mut acc = Lanes([[T::ZERO; LANES]; 7]);
        let mut chunks = z.chunks_exact_mut(LANES);
        for c in chunks.by_ref() {
            for l in 0..LANES {
                c[l] = acc.add::<COLD, SIG, false>(c[l], l, at);
            }
        }
        for (l, z) in chunks.into_remainder().iter_mut().enumerate() {
            *z = acc.add::<COLD, SIG, false>(*z, l, at);
        }
        sums.add(acc.total());
    }
    sums
}

/// The gradient of a row in numbers of its own precision.
///
/// # Equation
/// `scale r_i (1 + tilt (d_i - mean)) - flat`, `r` unnormalised weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bend<T> {
    pub(super) scale: T,
    pub(super) tilt: T,
    /// `E_p d`.
    pub(super) mean: T,
    pub(super) flat: T,
}

/// Replaces scores by the gradient without the mass of the label.
#[inline(always)]
pub(super) fn bend<T: Real, const COLD: bool, const SIG: bool>(z: &mut [T], at: At<T>, by: Bend<T>) {
    for z in z.iter_mut() {
        let d = *z - at.max;
        let mut a = d.decay(if COLD { at.inv_beta } else { T::ONE });
        if SIG {
            a *= sigmoid(T::of(0.01) * (*z - at.label));
        }
        let flat = if masked(d) { T::ZERO } else { by.flat };
        *z = by.scale * a * (T::ONE + by.tilt * (distance(d) - by.mean)) - flat;
    }
}

/// `sum r t` and `sum r t (d - mean)` with unnormalised weights `r = e^d`.
#[inline(always)]
pub(super) fn moments<T: Real>(z: &[T], t: &[T], max: T, mean: T) -> [f64; 2] {
    let mut sums = [0.0; 2];
    for (z, t) in z.chunks(BLOCK).zip(t.chunks(BLOCK)) {
        let mut acc = [[T::ZERO; LANES]; 2];
        for (z, t) in z.chunks(LANES).zip(t.chunks(LANES)) {
            for (l, (z, t)) in z.iter().zip(t).enumerate() {
                let d = *z - max;
                let r = d.decay(T::ONE) * *t;
                acc[0][l] += r;
                acc[1][l] += r * (distance(d) - mean);
            }
        }
        for (s, a) in sums.iter_mut().zip(acc) {
            *s += a.iter().map(|x| x.f64()).sum::<f64>();
        }
    }
    sums
}

/// Replaces the tangent of the scores by that of the gradient of [`bend`], whose tilt is `lambda`.
///
/// # Equation
/// `scale r_i ((t_i - E t) (1 + lambda + lambda (d_i - mean)) - lambda C)`, `C = E[(d - mean) t]`, means under
/// the weights `r = e^d`.
#[inline(always)]
pub(super) fn bend_tangent<T: Real>(z: &[T], t: &mut [T], max: T, by: Bend<T>, [t_mean, c]: [T; 2]) {
    for (z, t) in z.iter().zip(t) {
        let d = *z - max;
        let tilt = T::ONE + by.tilt + by.tilt * (distance(d) - by.mean);
        *t = by.scale * d.decay(T::ONE) * ((*t - t_mean) * tilt - by.tilt * c);
    }
}
