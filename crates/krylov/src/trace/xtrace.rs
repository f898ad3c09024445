use super::{DiagonalEstimate, Entries, Estimate, Probe, mean};
use crate::product::{Products, coefficient};

use crate::{Basis, KrylovError, qr};
use rhumb_linalg::rng::Rng;
use rhumb_linalg::vec::{dot, norm};
use rhumb_linalg::{LinearOp, Real};

/// What both estimators are made of: `A Omega = Q R`, `Z = A Q`, and for each `i` the unit vector `s_i` such that
/// `Q (I - s_i s_i') Q'` projects on the products of all other test vectors.
struct Sketch<T: Real> {
    k: usize,
    omega: Vec<Vec<T>>,
    q: Basis<T>,
    r: Vec<f64>,
    z: Basis<T>,
    s: Vec<Vec<f64>>,
    products: usize,
}

impl<T: Real> Sketch<T> {
    fn new(op: &mut dyn LinearOp<T>, products: usize, seed: u64) -> Result<Self, KrylovError> {
        let mut ops = Products::new(op);
        let (n, k) = (ops.dim(), products / 2);
        if k == 0 || k > n {
            let allowed = format!("2 to twice the dimension {n}");
            return Err(KrylovError::setting("the number of products", products as f64, allowed));
        }
        let omega: Vec<Vec<T>> = (0..k).map(|i| Probe::Rademacher.sample(n, seed, "xtrace", i)).collect();
        let mut y = Vec::with_capacity(k);
        for w in &omega {
            let mut out = vec![T::ZERO; n];
            ops.apply(w, &mut out)?;
            coefficient(ops.count, norm(&out))?;
            y.push(out);
        }
        let (q, r) = qr(y, n, &mut Rng::named(seed, "xtrace/fresh"));
        let (mut z, mut out) = (Basis::new(n), vec![T::ZERO; n]);
        for v in q.iter() {
            ops.apply(v, &mut out)?;
            z.push(&out);
        }
        let s = (0..k).map(|i| left_out(&r, k, i)).collect();
        Ok(Sketch { k, omega, q, r, z, s, products: ops.count })
    }

    fn column(&self, i: usize) -> Vec<f64> {
        (0..self.k).map(|a| self.r[a * self.k + i]).collect()
    }
}

/// The unit vector along column `i` of `R^-T`: it is orthogonal to all other columns of `R`.
fn left_out(r: &[f64], k: usize, i: usize) -> Vec<f64> {
    let mut x = vec![0.0; k];
    x[i] = 1.0;
    for j in i + 1..k {
        let sum: f64 = (i..j).map(|l| r[l * k + j] * x[l]).sum();
        // The scale of `x` is free: x_i = 1 stands for 1 / r_ii.
        x[j] = -sum / r[j * k + j];
        if x[j].abs() > 1e100 {
            x.iter_mut().for_each(|v| *v *= 1e-100);
        }
    }
    let size = inner(&x, &x).sqrt();
    x.iter_mut().for_each(|v| *v /= size);
    x
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The trace by XTrace: each test vector is at once part of the sketch for the others and a sample for itself.
///
/// # Equation
/// `mean_i [tr Q_i'AQ_i + w_i'(I - Q_iQ_i')A(I - Q_iQ_i')w_i]`, `Q_i` a basis of the products of all test vectors but
/// `w_i`, which are signs.
///
/// # Reference
/// Epperly, Tropp, Webber, SIAM J. Matrix Anal. Appl. 45 (2024), Algorithm 2.1, without the rescaling of samples. The
/// standard error is that of the exchangeable terms as if they were independent, as there. Exact when the rank is below
/// half the products.
///
/// # Errors
/// [`KrylovError::Setting`] for fewer than 2 products or more than twice the dimension; a failed product.
///
/// # Cost
/// `products` products (an odd one is not used) and three halves as many vectors.
pub fn xtrace<T: Real>(
    op: &mut dyn LinearOp<T>,
    products: usize,
    seed: u64,
) -> Result<Estimate, KrylovError> {
    let sketch = Sketch::new(op, products, seed)?;
    let k = sketch.k;
    let mut h = vec![0.0; k * k];
    for a in 0..k {
        for b in 0..k {
            h[a * k + b] = dot(sketch.q.vector(a), sketch.z.vector(b));
        }
    }
    let quadratic = |x: &[f64]| -> f64 { (0..k).map(|a| x[a] * inner(&h[a * k..(a + 1) * k], x)).sum() };
    let whole: f64 = (0..k).map(|a| h[a * k + a]).sum();
    let samples: Vec<f64> = (0..k)
        .map(|i| {
            let (s, r) = (&sketch.s[i], sketch.column(i));
            let w: Vec<f64> = sketch.q.iter().map(|q| dot(q, &sketch.omega[i])).collect();
            let along = inner(s, &w);
            let y: Vec<f64> = w.iter().zip(s).map(|(w, s)| w - along * s).collect();
            // A w = Q r, so that products with w are products with r.
            whole - quadratic(s) + inner(&w, &r) - 2.0 * inner(&y, &r) + quadratic(&y)
        })
        .collect();
    let (value, stderr) = mean(&samples);
    Ok(Estimate { value, stderr, samples, products: sketch.products })
}

/// The diagonal by XDiag, the counterpart of [`xtrace`].
///
/// # Equation
/// `mean_i [diag(Q_iQ_i'A) + w_i * (I - Q_iQ_i')A w_i]`.
///
/// # Reference
/// Epperly, Tropp, Webber 2024, section 2.4. Exact when the rank is below half the products.
///
/// # Errors
/// As [`xtrace`].
///
/// # Cost
/// As [`xtrace`], and `k^2 n` multiplications for `k` half the products.
pub fn xdiag<T: Real>(
    op: &mut dyn LinearOp<T>,
    products: usize,
    seed: u64,
) -> Result<DiagonalEstimate, KrylovError> {
    let sketch = Sketch::new(op, products, seed)?;
    let n = sketch.q.dim();
    let mut whole = vec![0.0; n];
    for (q, z) in sketch.q.iter().zip(sketch.z.iter()) {
        whole.iter_mut().zip(q).zip(z).for_each(|((d, q), z)| *d += q.f64() * z.f64());
    }
    let mut entries = Entries::new(n);
    for i in 0..sketch.k {
        let s = &sketch.s[i];
        let (qs, zs) = (sketch.q.combine(s), sketch.z.combine(s));
        let along = inner(s, &sketch.column(i));
        let omega = &sketch.omega[i];
        entries
            .add((0..n).map(|j| whole[j] - qs[j].f64() * zs[j].f64() + along * omega[j].f64() * qs[j].f64()));
    }
    Ok(entries.finish(sketch.products))
}
