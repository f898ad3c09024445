use super::product::{coefficient, finite};
use super::solve::finite_start;
use super::{KrylovError, Solved, Stop, StopRule};
use rhumb_linalg::vec::{axpy, norm};
use rhumb_linalg::{LinearOp, OpError, Real};

/// A linear map between two spaces with its transpose: what least squares need to know of a matrix.
pub trait RectOp<T: Real> {
    /// Length of results.
    fn rows(&self) -> usize;

    /// Length of arguments.
    fn cols(&self) -> usize;

    /// `out = A v`, from [`cols`](RectOp::cols) to [`rows`](RectOp::rows) values.
    ///
    /// # Errors
    /// [`OpError`] as in [`LinearOp::apply`].
    fn apply(&mut self, v: &[T], out: &mut [T]) -> Result<(), OpError>;

    /// `out = A' v`, from [`rows`](RectOp::rows) to [`cols`](RectOp::cols) values.
    ///
    /// # Errors
    /// [`OpError`] as in [`LinearOp::apply`].
    fn apply_transpose(&mut self, v: &[T], out: &mut [T]) -> Result<(), OpError>;
}

/// A symmetric operator as a [`RectOp`]: its own transpose.
pub struct Symmetric<'a, T: Real>(pub &'a mut dyn LinearOp<T>);

impl<T: Real> RectOp<T> for Symmetric<'_, T> {
    fn rows(&self) -> usize {
        self.0.dim()
    }
    fn cols(&self) -> usize {
        self.0.dim()
    }
    fn apply(&mut self, v: &[T], out: &mut [T]) -> Result<(), OpError> {
        self.0.apply(v, out)
    }
    fn apply_transpose(&mut self, v: &[T], out: &mut [T]) -> Result<(), OpError> {
        self.0.apply(v, out)
    }
}

struct Pair<'a, T: Real> {
    op: &'a mut dyn RectOp<T>,
    count: usize,
}

impl<T: Real> Pair<'_, T> {
    /// `y = A x - c y`, or with the transpose; its norm, to which `y` is scaled.
    fn next(&mut self, back: bool, x: &[T], c: f64, y: &mut [T]) -> Result<f64, KrylovError> {
        let mut product = vec![T::ZERO; y.len()];
        let done =
            if back { self.op.apply_transpose(x, &mut product) } else { self.op.apply(x, &mut product) };
        done.map_err(|source| KrylovError::Operator { product: self.count + 1, source })?;
        self.count += 1;
        finite(self.count, &product)?;
        for (y, p) in y.iter_mut().zip(product) {
            *y = p - T::of(c) * *y;
        }
        coefficient(self.count, unit(y))
    }
}

/// Scales to length one where the length is not zero; the length.
fn unit<T: Real>(y: &mut [T]) -> f64 {
    let size = norm(y);
    if size > 0.0 {
        y.iter_mut().for_each(|v| *v = T::of(v.f64() / size));
    }
    size
}

/// The rotation that turns `(a, b)` into `(r, 0)`: cosine, sine, `r`.
fn rotation(a: f64, b: f64) -> (f64, f64, f64) {
    let r = a.hypot(b);
    if r > 0.0 { (a / r, b / r, r) } else { (1.0, 0.0, 0.0) }
}

/// Minimises `|b - A x|^2 + damp^2 |x|^2` for any linear map by LSMR, from `x = 0`.
///
/// Equivalent to MINRES on `(A'A + damp^2 I) x = A'b`: `|A'r|` falls in each iteration. Residuals in the report are of
/// `[b; 0] - [A; damp I] x`, the last one is `|b - A x|`.
///
/// # Reference
/// Fong, Saunders, SIAM J. Sci. Comput. 33 (2011).
///
/// # Errors
/// As [`cg`](super::cg), and for a negative `damp`.
///
/// # Cost
/// One product with `A`, one with its transpose, each iteration; two vectors of rows, four of columns.
pub fn lsmr<T: Real>(
    op: &mut dyn RectOp<T>,
    b: &[T],
    damp: f64,
    x: &mut [T],
    rule: &StopRule,
) -> Result<Solved, KrylovError> {
    for (what, len, dim) in [("b", b.len(), op.rows()), ("x", x.len(), op.cols())] {
        if len != dim {
            return Err(KrylovError::Dimension { what, len, dim });
        }
    }
    if !(damp >= 0.0 && damp.is_finite()) {
        return Err(KrylovError::setting("damp", damp, "zero or positive"));
    }
    finite_start("b", b)?;
    let target = rule.target(norm(b))?;
    x.fill(T::ZERO);
    let mut ops = Pair { op, count: 0 };
    let mut u = b.to_vec();
    let mut beta = unit(&mut u);
    let mut v = vec![T::ZERO; x.len()];
    let mut residuals = vec![beta];
    let mut stop = if beta <= target { Stop::Converged } else { Stop::Limit };
    let mut alpha = if stop == Stop::Limit { ops.next(true, &u, 0.0, &mut v)? } else { 0.0 };
    if stop == Stop::Limit && alpha <= 0.0 {
        stop = Stop::LeastSquares;
    }
    let (mut zetabar, mut alphabar, mut rho, mut rhobar, mut cbar, mut sbar) =
        (alpha * beta, alpha, 1.0, 1.0, 1.0, 0.0);
    let (mut h, mut hbar) = (v.clone(), vec![T::ZERO; x.len()]);
    let mut norms = Residual::new(beta);
    let mut squares = alpha * alpha;
    while stop == Stop::Limit && residuals.len() <= rule.iterations {
        beta = ops.next(false, &v, alpha, &mut u)?;
        if beta > 0.0 {
            alpha = ops.next(true, &u, beta, &mut v)?;
        }
        let (chat, shat, alphahat) = rotation(alphabar, damp);
        let rho_old = rho;
        let (c, s, r) = rotation(alphahat, beta);
        rho = r;
        let theta_new = s * alpha;
        alphabar = c * alpha;
        let rhobar_old = rhobar;
        let thetabar = sbar * rho;
        let (cb, sb, rb) = rotation(cbar * rho, theta_new);
        (cbar, sbar, rhobar) = (cb, sb, rb);
        if rho * rhobar <= 0.0 {
            stop = Stop::LeastSquares;
            break;
        }
        let zeta = cbar * zetabar;
        zetabar *= -sbar;
        let back = T::of(thetabar * rho / (rho_old * rhobar_old));
        let (along, forward) = (T::of(zeta / (rho * rhobar)), T::of(theta_new / rho));
        for (hb, h) in hbar.iter_mut().zip(&h) {
            *hb = *h - back * *hb;
        }
        axpy(along, &hbar, x);
        for (h, v) in h.iter_mut().zip(&v) {
            *h = *v - forward * *h;
        }
        let residual = norms.next((chat, shat), (c, s), thetabar, rhobar, zeta);
        squares += beta * beta;
        let size = (squares + damp * damp).sqrt();
        squares += alpha * alpha;
        residuals.push(residual);
        if residual <= target {
            stop = Stop::Converged;
        } else if zetabar.abs() <= rule.relative * size * residual {
            stop = Stop::LeastSquares;
        }
    }
    let mut r = b.to_vec();
    let mut ax = vec![T::ZERO; b.len()];
    ops.op.apply(x, &mut ax).map_err(|source| KrylovError::Operator { product: ops.count + 1, source })?;
    finite(ops.count + 1, &ax)?;
    axpy(-T::ONE, &ax, &mut r);
    let residual = norm(&r);
    if stop == Stop::Converged && residual > 10.0 * target {
        stop = Stop::Drifted;
    }
    Ok(Solved { stop, iterations: residuals.len() - 1, products: ops.count + 1, residuals, residual })
}

/// The recurrence of `|r|` (Fong, Saunders, section 5).
struct Residual {
    beta_dd: f64,
    beta_d: f64,
    rho_d: f64,
    tau: f64,
    theta: f64,
    zeta: f64,
    damped: f64,
}

impl Residual {
    fn new(beta: f64) -> Self {
        Residual { beta_dd: beta, beta_d: 0.0, rho_d: 1.0, tau: 0.0, theta: 0.0, zeta: 0.0, damped: 0.0 }
    }

    fn next(&mut self, hat: (f64, f64), (c, s): (f64, f64), thetabar: f64, rhobar: f64, zeta: f64) -> f64 {
        let acute = hat.0 * self.beta_dd;
        self.damped += (hat.1 * self.beta_dd).powi(2);
        let beta_hat = c * acute;
        self.beta_dd = -s * acute;
        let theta_old = self.theta;
        let (ct, st, rho_old) = rotation(self.rho_d, thetabar);
        self.theta = st * rhobar;
        self.rho_d = ct * rhobar;
        self.beta_d = -st * self.beta_d + ct * beta_hat;
        self.tau = (self.zeta - theta_old * self.tau) / rho_old;
        let tau_d = (zeta - self.theta * self.tau) / self.rho_d;
        self.zeta = zeta;
        (self.damped + (self.beta_d - tau_d).powi(2) + self.beta_dd.powi(2)).sqrt()
    }
}
