//! Householder's reduction of a symmetric matrix and the implicit QL iteration on what it leaves.

use rhumb_linalg::vec::{axpy, dot, scale};

/// QL steps for one eigenvalue; two or three are usual.
const STEPS: usize = 60;

/// A symmetric tridiagonal matrix `T`, and with it the rows `v_i` for which `A = sum_ij T_ij v_i v_j'`.
pub(super) struct Tridiagonal {
    pub(super) diagonal: Vec<f64>,
    /// One shorter than the diagonal.
    pub(super) off: Vec<f64>,
    /// Rows one after the other; empty where only eigenvalues are asked for.
    pub(super) rows: Vec<f64>,
}

impl Tridiagonal {
    /// Of the full symmetric matrix `a`, which is overwritten.
    pub(super) fn reduce(a: &mut [f64], n: usize, vectors: bool) -> Self {
        let (mut diagonal, mut off) = (vec![0.0; n], vec![0.0; n.saturating_sub(1)]);
        let mut reflectors = Vec::new();
        for k in 0..n {
            diagonal[k] = a[k * n + k];
            if k + 1 == n {
                break;
            }
            let mut v = a[k * n + k + 1..(k + 1) * n].to_vec();
            let rest = dot(&v[1..], &v[1..]);
            if rest == 0.0 {
                off[k] = v[0];
                continue;
            }
            // H = 1 - tau v v' takes the column to (sign) * its length; the sign that adds keeps every digit.
            let length = dot(&v, &v).sqrt().copysign(v[0]);
            off[k] = -length;
            v[0] += length;
            let tau = 2.0 / (v[0] * v[0] + rest);
            let below = |i: usize| (k + 1 + i) * n + k + 1..(k + 2 + i) * n;
            let mut p: Vec<f64> = (0..v.len()).map(|i| tau * dot(&a[below(i)], &v)).collect();
            axpy(-0.5 * tau * dot(&p, &v), &v, &mut p);
            for i in 0..v.len() {
                axpy(-v[i], &p, &mut a[below(i)]);
                axpy(-p[i], &v, &mut a[below(i)]);
            }
            if vectors {
                reflectors.push((k + 1, tau, v));
            }
        }
        let mut rows = if vectors { identity(n) } else { Vec::new() };
        for (first, tau, v) in reflectors.iter().rev() {
            for row in rows.chunks_exact_mut(n).skip(*first) {
                axpy(-tau * dot(&row[*first..], v), v, &mut row[*first..]);
            }
        }
        Tridiagonal { diagonal, off, rows }
    }

    pub(super) fn new(diagonal: &[f64], off: &[f64]) -> Self {
        Tridiagonal { diagonal: diagonal.to_vec(), off: off.to_vec(), rows: identity(diagonal.len()) }
    }

    /// Makes the diagonal the eigenvalues, in no order, and the rows their eigenvectors. `None` where an eigenvalue
    /// takes more than [`STEPS`] steps.
    pub(super) fn diagonalize(&mut self) -> Option<()> {
        let n = self.diagonal.len();
        for first in 0..n {
            let mut steps = 0;
            loop {
                let last = (first..n.saturating_sub(1)).find(|&i| self.negligible(i)).unwrap_or(n - 1);
                if last == first {
                    break;
                }
                if steps == STEPS {
                    return None;
                }
                steps += 1;
                self.step(first, last);
            }
        }
        Some(())
    }

    fn negligible(&self, i: usize) -> bool {
        self.off[i].abs() <= f64::EPSILON * (self.diagonal[i].abs() + self.diagonal[i + 1].abs())
    }

    /// One QL step on rows `first..=last`, shifted by Wilkinson's choice at its upper end.
    fn step(&mut self, first: usize, last: usize) {
        let n = self.diagonal.len();
        let (d, e) = (&mut self.diagonal, &mut self.off);
        let half = (d[first + 1] - d[first]) / (2.0 * e[first]);
        let shift = d[first] - e[first] / (half + half.hypot(1.0).copysign(half));
        let (mut sin, mut cos, mut gone) = (1.0, 1.0, 0.0);
        let mut bulge = d[last] - shift;
        for i in (first..last).rev() {
            let (f, b) = (sin * e[i], cos * e[i]);
            let r = f.hypot(bulge);
            if i + 1 < last {
                e[i + 1] = r;
            }
            if r == 0.0 {
                // The matrix splits here, and the step ends.
                d[i + 1] -= gone;
                return;
            }
            (sin, cos) = (f / r, bulge / r);
            let moved = d[i + 1] - gone;
            let turned = (d[i] - moved) * sin + 2.0 * cos * b;
            gone = sin * turned;
            d[i + 1] = moved + gone;
            bulge = cos * turned - b;
            if !self.rows.is_empty() {
                let (low, high) = self.rows.split_at_mut((i + 1) * n);
                for (x, y) in low[i * n..].iter_mut().zip(&mut high[..n]) {
                    (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
                }
            }
        }
        d[first] -= gone;
        e[first] = bulge;
        if let Some(below) = e.get_mut(last) {
            *below = 0.0;
        }
    }
}

fn identity(n: usize) -> Vec<f64> {
    let mut rows = vec![0.0; n * n];
    rows.iter_mut().step_by(n + 1).for_each(|x| *x = 1.0);
    rows
}

/// Divides by the largest magnitude, rounded to a power of two so that no digit is lost, and gives it back: squares of
/// what remains neither overflow nor vanish.
pub(super) fn normalize(parts: &mut [&mut [f64]]) -> f64 {
    let largest = parts.iter().flat_map(|p| p.iter()).fold(0.0_f64, |m, x| m.max(x.abs()));
    if largest == 0.0 {
        return 1.0;
    }
    let unit = 2.0_f64.powi(largest.log2().floor().clamp(-1000.0, 1000.0) as i32);
    parts.iter_mut().for_each(|p| scale(1.0 / unit, p));
    unit
}
