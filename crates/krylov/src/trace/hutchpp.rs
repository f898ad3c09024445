use super::{Estimate, Probe, mean};
use crate::product::{Products, coefficient};

use crate::{Basis, KrylovError, qr};
use rhumb_linalg::rng::Rng;
use rhumb_linalg::vec::{dot, norm};
use rhumb_linalg::{LinearOp, Real};

/// The trace by Hutch++: exact on a sketch of the range, Hutchinson on the rest.
///
/// # Equation
/// `tr A = tr Q'AQ + tr (I - QQ')A(I - QQ')`, `Q` an orthonormal basis of `A S`; a third of the products each for `AS`,
/// `AQ` and the samples of the second term.
///
/// # Reference
/// Meyer, Musco, Musco, Woodruff, SOSA 2021, Algorithm 1. The error falls as `1 / products` where that of Hutchinson
/// falls as its root; exact when the rank is at most a third of the products.
///
/// # Errors
/// [`KrylovError::Setting`] for fewer than 3 products; a failed product.
///
/// # Cost
/// `products` products; a third as many vectors.
pub fn hutchpp<T: Real>(
    op: &mut dyn LinearOp<T>,
    products: usize,
    probe: Probe,
    seed: u64,
) -> Result<Estimate, KrylovError> {
    if products < 3 {
        return Err(KrylovError::setting("the number of products", products as f64, "3 or more"));
    }
    let mut ops = Products::new(op);
    let n = ops.dim();
    let k = (products / 3).min(n);
    let mut sketch = Vec::with_capacity(k);
    for i in 0..k {
        let s: Vec<T> = probe.sample(n, seed, "hutchpp/sketch", i);
        let mut y = vec![T::ZERO; n];
        ops.apply(&s, &mut y)?;
        coefficient(ops.count, norm(&y))?;
        sketch.push(y);
    }
    let (q, _) = qr(sketch, n, &mut Rng::named(seed, "hutchpp/fresh"));
    let mut az = vec![T::ZERO; n];
    let mut inside = 0.0;
    for v in q.iter() {
        ops.apply(v, &mut az)?;
        inside += coefficient(ops.count, dot(v, &az))?;
    }
    let samples = if q.len() == n { Vec::new() } else { outside(&mut ops, &q, products, probe, seed)? };
    let (rest, stderr) = if samples.is_empty() { (0.0, Some(0.0)) } else { mean(&samples) };
    Ok(Estimate { value: inside + rest, stderr, samples, products: ops.count })
}

fn outside<T: Real>(
    ops: &mut Products<'_, T>,
    q: &Basis<T>,
    products: usize,
    probe: Probe,
    seed: u64,
) -> Result<Vec<f64>, KrylovError> {
    let mut az = vec![T::ZERO; q.dim()];
    let mut samples = Vec::new();
    while ops.count < products {
        let mut g: Vec<T> = probe.sample(q.dim(), seed, "hutchpp/rest", samples.len());
        q.orthogonalise(&mut g);
        ops.apply(&g, &mut az)?;
        samples.push(coefficient(ops.count, dot(&g, &az))?);
    }
    Ok(samples)
}
