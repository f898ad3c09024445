//! Linear systems: conjugate gradients and MINRES for symmetric operators; what all solvers share.

use super::KrylovError;
use super::product::{Products, coefficient};
use rhumb_linalg::vec::{axpy, dot, norm};
use rhumb_linalg::{LinearOp, Real};

/// When a solver stops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StopRule {
    /// The residual norm is at most this share of `|b|` ...
    pub relative: f64,
    /// ... or at most this.
    pub absolute: f64,
    /// The most iterations.
    pub iterations: usize,
}

impl Default for StopRule {
    /// A relative residual of 1e-8 in at most 1000 iterations.
    fn default() -> Self {
        StopRule { relative: 1e-8, absolute: 0.0, iterations: 1000 }
    }
}

impl StopRule {
    pub(crate) fn target(&self, b: f64) -> Result<f64, KrylovError> {
        for (name, value) in
            [("the relative tolerance", self.relative), ("the absolute tolerance", self.absolute)]
        {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(KrylovError::setting(name, value, "zero or positive"));
            }
        }
        Ok((self.relative * b).max(self.absolute))
    }
}

/// Why a solver stopped, with what to try where it failed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stop {
    /// The residual is as small as asked.
    Converged,
    /// The residual cannot become smaller: `|A'r|` is small. For a singular system, a least-squares solution.
    LeastSquares,
    /// The iterations ran out.
    Limit,
    /// Conjugate gradients met a direction of no positive curvature; the solution is that before it.
    Indefinite {
        /// Which iteration, from 1.
        iteration: usize,
        /// `p'Ap / p'p` of the direction.
        curvature: f64,
    },
    /// The recurrence says that it converged, the true residual is more than ten times as large as asked.
    Drifted,
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Stop::Converged => write!(f, "converged"),
            Stop::LeastSquares => {
                write!(
                    f,
                    "reached a least-squares solution: the right-hand side is not in the range of the operator"
                )
            }
            Stop::Limit => {
                write!(f, "the iterations ran out: allow more, add damping, or accept a larger tolerance")
            }
            Stop::Indefinite { iteration, curvature } => write!(
                f,
                "the curvature at iteration {iteration} is {curvature:.3e}: add more damping than that, or use MINRES"
            ),
            Stop::Drifted => write!(
                f,
                "the true residual stayed larger than the recurrence says: use f64, a larger tolerance, or check the \
                 operator for symmetry"
            ),
        }
    }
}

/// How a solver went.
#[derive(Clone, Debug, PartialEq)]
pub struct Solved {
    /// Why it stopped.
    pub stop: Stop,
    /// Iterations done.
    pub iterations: usize,
    /// Products with the operator (and with its transpose), that of the final residual included.
    pub products: usize,
    /// Residual norms by the recurrence: at the start and after each iteration.
    pub residuals: Vec<f64>,
    /// `|b - A x|`, measured at the end.
    pub residual: f64,
}

/// `b - A x`; no product where `x` is zero.
fn start<T: Real>(ops: &mut Products<'_, T>, b: &[T], x: &[T]) -> Result<Vec<T>, KrylovError> {
    ops.fits("b", b.len())?;
    ops.fits("x", x.len())?;
    finite_start("b", b)?;
    finite_start("x", x)?;
    if x.iter().all(|v| *v == T::ZERO) {
        return Ok(b.to_vec());
    }
    let mut r = vec![T::ZERO; b.len()];
    ops.apply(x, &mut r)?;
    for (r, &b) in r.iter_mut().zip(b) {
        *r = b - *r;
    }
    Ok(r)
}

pub(crate) fn finite_start<T: Real>(what: &'static str, x: &[T]) -> Result<(), KrylovError> {
    let norm = norm(x);
    if norm.is_finite() { Ok(()) } else { Err(KrylovError::Start { what, norm }) }
}

fn finish<T: Real>(
    ops: &mut Products<'_, T>,
    b: &[T],
    x: &[T],
    residuals: Vec<f64>,
    stop: Stop,
    target: f64,
) -> Result<Solved, KrylovError> {
    let r = start(ops, b, x)?;
    let residual = norm(&r);
    let stop = if stop == Stop::Converged && residual > 10.0 * target { Stop::Drifted } else { stop };
    Ok(Solved { stop, iterations: residuals.len() - 1, products: ops.count, residuals, residual })
}

/// Solves `A x = b` for a symmetric positive definite operator by conjugate gradients; `x` is the first guess and
/// becomes the solution.
///
/// # Reference
/// Hestenes, Stiefel 1952.
///
/// ```
/// use rhumb_krylov::{DenseOp, Stop, StopRule, cg};
///
/// let mut a = DenseOp::diagonal(&[1.0, 2.0, 4.0]);
/// let mut x = [0.0f64; 3];
/// let solved = cg(&mut a, &[1.0, 1.0, 1.0], &mut x, &StopRule::default())?;
/// assert_eq!((solved.stop, solved.iterations), (Stop::Converged, 3));
/// assert!((x[2] - 0.25).abs() < 1e-14);
/// # Ok::<(), rhumb_krylov::KrylovError>(())
/// ```
///
/// # Errors
/// [`KrylovError`] for wrong lengths, a setting, a failed product. What the mathematics did is in [`Solved::stop`].
///
/// # Cost
/// One product and `10 n` operations each iteration, four vectors.
pub fn cg<T: Real>(
    op: &mut dyn LinearOp<T>,
    b: &[T],
    x: &mut [T],
    rule: &StopRule,
) -> Result<Solved, KrylovError> {
    let mut ops = Products::new(op);
    let mut r = start(&mut ops, b, x)?;
    let target = rule.target(norm(b))?;
    let (mut p, mut q) = (r.clone(), vec![T::ZERO; b.len()]);
    let mut rr = dot(&r, &r);
    let mut residuals = vec![rr.sqrt()];
    let mut stop = if rr.sqrt() <= target { Stop::Converged } else { Stop::Limit };
    while stop == Stop::Limit && residuals.len() <= rule.iterations {
        ops.apply(&p, &mut q)?;
        let pq = coefficient(residuals.len(), dot(&p, &q))?;
        if pq <= 0.0 {
            let curvature = pq / dot(&p, &p);
            stop = Stop::Indefinite { iteration: residuals.len(), curvature };
            break;
        }
        let alpha = rr / pq;
        axpy(T::of(alpha), &p, x);
        axpy(T::of(-alpha), &q, &mut r);
        let next = dot(&r, &r);
        let beta = T::of(next / rr);
        for (p, &r) in p.iter_mut().zip(&r) {
            *p = r + beta * *p;
        }
        rr = next;
        residuals.push(rr.sqrt());
        if rr.sqrt() <= target {
            stop = Stop::Converged;
        }
    }
    finish(&mut ops, b, x, residuals, stop, target)
}

/// Solves `A x = b` for a symmetric operator, indefinite or singular too, by minimal residuals; `x` is the first guess
/// and becomes the solution. Where `b` is not in the range of `A` a least-squares solution comes out.
///
/// # Reference
/// Paige, Saunders, SIAM J. Numer. Anal. 12 (1975).
///
/// # Errors
/// As [`cg`].
///
/// # Cost
/// One product and `18 n` operations each iteration, seven vectors.
pub fn minres<T: Real>(
    op: &mut dyn LinearOp<T>,
    b: &[T],
    x: &mut [T],
    rule: &StopRule,
) -> Result<Solved, KrylovError> {
    let mut ops = Products::new(op);
    let mut ahead = start(&mut ops, b, x)?;
    let target = rule.target(norm(b))?;
    let n = b.len();
    let (mut v, mut product) = (vec![T::ZERO; n], vec![T::ZERO; n]);
    let (mut before, mut w, mut w_before) = (vec![T::ZERO; n], vec![T::ZERO; n], vec![T::ZERO; n]);
    let mut beta = norm(&ahead);
    let mut residuals = vec![beta];
    let mut stop = if beta <= target { Stop::Converged } else { Stop::Limit };
    let (mut old_beta, mut dbar, mut epsilon, mut phibar) = (0.0, 0.0, 0.0, beta);
    let (mut cs, mut sn, mut squares) = (-1.0, 0.0, 0.0_f64);
    while stop == Stop::Limit && residuals.len() <= rule.iterations {
        for (v, a) in v.iter_mut().zip(&ahead) {
            *v = T::of(a.f64() / beta);
        }
        ops.apply(&v, &mut product)?;
        if old_beta > 0.0 {
            axpy(T::of(-beta / old_beta), &before, &mut product);
        }
        let alpha = coefficient(residuals.len(), dot(&v, &product))?;
        axpy(T::of(-alpha / beta), &ahead, &mut product);
        std::mem::swap(&mut before, &mut ahead);
        std::mem::swap(&mut ahead, &mut product);
        old_beta = beta;
        beta = coefficient(residuals.len(), norm(&ahead))?;
        squares +=
            alpha * alpha + old_beta * old_beta * f64::from(u8::from(residuals.len() > 1)) + beta * beta;
        // The last rotation, and the next one.
        let old_epsilon = epsilon;
        let delta = cs * dbar + sn * alpha;
        let gbar = sn * dbar - cs * alpha;
        (epsilon, dbar) = (sn * beta, -cs * beta);
        let gradient = phibar * gbar.hypot(dbar);
        let gamma = gbar.hypot(beta);
        if gamma <= f64::EPSILON * squares.sqrt() {
            stop = Stop::LeastSquares;
            break;
        }
        (cs, sn) = (gbar / gamma, beta / gamma);
        let phi = cs * phibar;
        let last = phibar;
        phibar *= sn;
        for i in 0..n {
            let next = (v[i].f64() - old_epsilon * w_before[i].f64() - delta * w[i].f64()) / gamma;
            w_before[i] = w[i];
            w[i] = T::of(next);
            x[i] += T::of(phi * next);
        }
        residuals.push(phibar);
        if phibar <= target {
            stop = Stop::Converged;
        } else if gradient <= rule.relative * squares.sqrt() * last {
            stop = Stop::LeastSquares;
        }
    }
    finish(&mut ops, b, x, residuals, stop, target)
}
