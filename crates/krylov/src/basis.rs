use super::product::epsilon;
use rhumb_linalg::rng::Rng;
use rhumb_linalg::vec::{axpy, dot, norm, scale};
use rhumb_linalg::{Real, compiled};

// Most of the work beside the products: compiled here, whatever the settings of the crate that calls.
compiled!(Orthogonalise<'a>, |x: (&'a [T], &'a mut [T], &'a mut [f64])| -> () {
    let (vectors, w, removed) = x;
    for _ in 0..2 {
        for (c, q) in removed.iter_mut().zip(vectors.chunks_exact(w.len())) {
            let part = dot(q, w);
            axpy(T::of(-part), q, w);
            *c += part;
        }
    }
});

/// Vectors of one length, meant to be orthonormal, in the storage of `T`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Basis<T: Real> {
    dim: usize,
    values: Vec<T>,
}

impl<T: Real> Basis<T> {
    /// No vectors yet, of length `dim`.
    pub fn new(dim: usize) -> Self {
        Basis { dim, values: Vec::new() }
    }

    /// The vectors that are stored one after the other in `values`; a last incomplete one is dropped.
    pub fn from_values(dim: usize, mut values: Vec<T>) -> Self {
        let whole = values.len().checked_div(dim).unwrap_or(0) * dim;
        values.truncate(whole);
        Basis { dim, values }
    }

    /// The vectors, one after the other.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// Length of each vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.dim).unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Vector `i`.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn vector(&self, i: usize) -> &[T] {
        &self.values[i * self.dim..(i + 1) * self.dim]
    }

    /// The vectors in order.
    pub fn iter(&self) -> impl Iterator<Item = &[T]> {
        (0..self.len()).map(|i| self.vector(i))
    }

    pub(crate) fn push(&mut self, v: &[T]) {
        debug_assert_eq!(v.len(), self.dim);
        self.values.extend_from_slice(v);
    }

    /// Keeps the last `n` vectors.
    pub(crate) fn keep_last(&mut self, n: usize) {
        self.values.drain(..self.len().saturating_sub(n) * self.dim);
    }

    /// Removes the parts of `w` along the vectors, one vector after the other (modified Gram-Schmidt), twice: after
    /// the second pass `w` is orthogonal to rounding ("twice is enough": Giraud et al., 2005). The removed
    /// coefficients.
    pub(crate) fn orthogonalise(&self, w: &mut [T]) -> Vec<f64> {
        let mut removed = vec![0.0; self.len()];
        if !self.is_empty() {
            T::compiled::<Orthogonalise<'_>>((&self.values, w, &mut removed));
        }
        removed
    }

    /// A unit vector orthogonal to all, from normal numbers; none when the vectors fill the space.
    pub(crate) fn fresh(&self, rng: &mut Rng) -> Option<Vec<T>> {
        if self.len() >= self.dim {
            return None;
        }
        // A draw inside the span has probability zero; one that is nearly inside loses digits, so draw again.
        for _ in 0..20 {
            let mut v: Vec<T> = (0..self.dim).map(|_| T::of(rng.normal())).collect();
            let before = norm(&v);
            scale(T::of(1.0 / before), &mut v);
            self.orthogonalise(&mut v);
            let left = norm(&v);
            if left > 1e3 * epsilon::<T>() {
                scale(T::of(1.0 / left), &mut v);
                self.orthogonalise(&mut v);
                let left = norm(&v);
                scale(T::of(1.0 / left), &mut v);
                return Some(v);
            }
        }
        None
    }

    /// `sum_i c_i q_i`.
    ///
    /// # Panics
    /// When there are more coefficients than vectors.
    pub fn combine(&self, c: &[f64]) -> Vec<T> {
        let mut out = vec![T::ZERO; self.dim];
        for (i, &c) in c.iter().enumerate() {
            axpy(T::of(c), self.vector(i), &mut out);
        }
        out
    }

    /// The largest entry of `|Q'Q - I|`: how orthonormal the vectors are.
    ///
    /// # Cost
    /// `k^2 / 2` inner products for `k` vectors.
    pub fn orthonormality_error(&self) -> f64 {
        let mut worst = 0.0_f64;
        for i in 0..self.len() {
            for j in 0..=i {
                let want = f64::from(u8::from(i == j));
                worst = worst.max((dot(self.vector(i), self.vector(j)) - want).abs());
            }
        }
        worst
    }
}

/// `Y = Q R`: the columns of `Q` orthonormal, `R` upper triangular, row-major.
///
/// A column inside the span of the others is replaced by a fresh direction and a diagonal entry at rounding level, so
/// that `Q` is orthonormal and `R` invertible whatever the rank.
pub(crate) fn qr<T: Real>(columns: Vec<Vec<T>>, dim: usize, rng: &mut Rng) -> (Basis<T>, Vec<f64>) {
    let k = columns.len();
    let (mut q, mut r) = (Basis::new(dim), vec![0.0; k * k]);
    let size = columns.iter().map(|c| norm(c)).fold(0.0, f64::max);
    let floor = epsilon::<T>() * if size > 0.0 { size } else { 1.0 };
    for (j, mut w) in columns.into_iter().enumerate() {
        for (i, c) in q.orthogonalise(&mut w).into_iter().enumerate() {
            r[i * k + j] = c;
        }
        let left = norm(&w);
        if left > 10.0 * floor {
            scale(T::of(1.0 / left), &mut w);
            // What rounding left of the others is large beside a small remainder.
            q.orthogonalise(&mut w);
            let unit = norm(&w);
            scale(T::of(1.0 / unit), &mut w);
            r[j * k + j] = left;
        } else {
            w = q.fresh(rng).unwrap_or(w);
            r[j * k + j] = floor;
        }
        q.push(&w);
    }
    (q, r)
}
