use super::KrylovError;
use super::product::Products;
use rhumb_linalg::rng::Rng;
use rhumb_linalg::vec::{dot, norm};
use rhumb_linalg::{LinearOp, Real};

/// How far the operator is from symmetric: the largest `|<u,Av> - <v,Au>| / (|u||Av| + |v||Au|)` over pairs of normal
/// vectors. Rounding gives some times the precision of `T`; more says that the operator is no Hessian.
///
/// # Errors
/// [`KrylovError`] where a product fails, and for no pairs.
///
/// # Cost
/// Two products for each pair.
pub fn asymmetry<T: Real>(op: &mut dyn LinearOp<T>, pairs: usize, seed: u64) -> Result<f64, KrylovError> {
    if pairs == 0 {
        return Err(KrylovError::setting("pairs", 0.0, "1 or more"));
    }
    let n = op.dim();
    let mut rng = Rng::named(seed, "asymmetry");
    let mut ops = Products::new(op);
    let (mut au, mut av) = (vec![T::ZERO; n], vec![T::ZERO; n]);
    let mut worst = 0.0_f64;
    for _ in 0..pairs {
        let u: Vec<T> = (0..n).map(|_| T::of(rng.normal())).collect();
        let v: Vec<T> = (0..n).map(|_| T::of(rng.normal())).collect();
        ops.apply(&u, &mut au)?;
        ops.apply(&v, &mut av)?;
        let size = norm(&u) * norm(&av) + norm(&v) * norm(&au);
        if size > 0.0 {
            worst = worst.max((dot(&u, &av) - dot(&v, &au)).abs() / size);
        }
    }
    Ok(worst)
}

/// [`asymmetry`], and an error where it exceeds `tolerance`.
///
/// # Errors
/// [`KrylovError::Asymmetric`] with the measured value; a failed product.
pub fn check_symmetric<T: Real>(
    op: &mut dyn LinearOp<T>,
    pairs: usize,
    seed: u64,
    tolerance: f64,
) -> Result<f64, KrylovError> {
    let measured = asymmetry(op, pairs, seed)?;
    if measured <= tolerance { Ok(measured) } else { Err(KrylovError::Asymmetric { measured, tolerance }) }
}
