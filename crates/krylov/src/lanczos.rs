use super::basis::Basis;
use super::product::{apply, coefficient, epsilon};
use super::{KrylovError, Ritz};
use rhumb_linalg::rng::Rng;
use rhumb_linalg::vec::{axpy, dot, norm, scale};
use rhumb_linalg::{LinearOp, Real};

/// How the basis of [`Lanczos`] stays orthogonal, and what of it is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Orthogonality {
    /// Each vector is made orthogonal to all before it, twice. Keeps `m + 1` vectors.
    #[default]
    Full,
    /// The three-term recurrence alone. Orthogonality is lost as soon as a Ritz value converges, and copies ("ghosts")
    /// of it appear; `keep` keeps the vectors, else two are.
    Plain {
        /// Whether all vectors are kept.
        keep: bool,
    },
}

/// What a step found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LanczosStep {
    /// The space grew; the next step may follow.
    Advanced,
    /// The space is invariant: the Ritz values are eigenvalues. [`Lanczos::restart`] opens another direction.
    Breakdown,
}

/// Everything a Lanczos run is made of, as plain data: what to save, and to go on from.
#[derive(Clone, Debug, PartialEq)]
pub struct LanczosState<T: Real> {
    /// Length of the vectors.
    pub dim: usize,
    /// Diagonal of the tridiagonal matrix, one value each step.
    pub alpha: Vec<f64>,
    /// Norms of the remainders: `beta[j]` couples steps `j` and `j + 1`; zero where the space was invariant.
    pub beta: Vec<f64>,
    /// The vectors that are kept, one after the other; the last one is multiplied next.
    pub vectors: Vec<T>,
    /// Whether a next vector exists: false after a breakdown.
    pub open: bool,
    /// Steps at which a fresh direction began.
    pub restarts: Vec<usize>,
    /// State of the stream that fresh directions are drawn from.
    pub rng: u64,
    /// The mode of the run.
    pub orthogonality: Orthogonality,
    /// A remainder is zero below this share of the largest row of the tridiagonal matrix.
    pub breakdown: f64,
}

/// Lanczos' tridiagonalisation of a symmetric operator, one product at a time.
///
/// # Equation
/// `A V = V T + beta_m v_{m+1} e_m'`, `V'V = I`, `T` tridiagonal with `alpha` and `beta`.
///
/// # Reference
/// Lanczos 1950; Parlett, The Symmetric Eigenvalue Problem, ch. 13. Inner products and the matrix `T` are in `f64`
/// whatever the storage.
///
/// # Cost
/// A step is one product and, with full orthogonality, `4 m n` multiplications; `m + 1` vectors are kept, or two.
///
/// ```
/// use rhumb_krylov::{DenseOp, Lanczos, Orthogonality};
///
/// let mut a = DenseOp::diagonal(&[1.0, 2.0, 3.0]);
/// let mut run = Lanczos::new(&[1.0f64; 3], Orthogonality::Full, 0)?;
/// run.run(&mut a, 3)?;
/// let ritz = run.ritz()?;
/// assert!((ritz.values()[2] - 3.0).abs() < 1e-14);
/// # Ok::<(), rhumb_krylov::KrylovError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Lanczos<T: Real> {
    state: LanczosState<T>,
    basis: Basis<T>,
}

impl<T: Real> Lanczos<T> {
    /// A run from `start`, which is normalised here; fresh directions come from `seed`.
    ///
    /// # Errors
    /// [`KrylovError::Start`] when the vector is zero, empty or not finite.
    pub fn new(start: &[T], orthogonality: Orthogonality, seed: u64) -> Result<Self, KrylovError> {
        let size = norm(start);
        if !(size > 0.0 && size.is_finite()) {
            return Err(KrylovError::Start { what: "the start vector", norm: size });
        }
        let mut v = start.to_vec();
        v.iter_mut().for_each(|x| *x = T::of(x.f64() / size));
        let dim = v.len();
        let state = LanczosState {
            dim,
            alpha: Vec::new(),
            beta: Vec::new(),
            vectors: Vec::new(),
            open: true,
            restarts: Vec::new(),
            rng: Rng::named(seed, "lanczos/restart").state(),
            orthogonality,
            breakdown: 32.0 * epsilon::<T>(),
        };
        Ok(Lanczos { state, basis: Basis::from_values(dim, v) })
    }

    /// A run from normal numbers of the stream `seed x purpose`.
    ///
    /// # Errors
    /// [`KrylovError::Start`] for the dimension zero.
    pub fn seeded(
        dim: usize,
        orthogonality: Orthogonality,
        seed: u64,
        purpose: &str,
    ) -> Result<Self, KrylovError> {
        Lanczos::new(&normal_vector::<T>(dim, seed, purpose), orthogonality, seed)
    }

    /// The share of the largest row below which a remainder counts as zero; 32 times the precision of `T` by default.
    #[must_use]
    pub fn with_breakdown(mut self, share: f64) -> Self {
        self.state.breakdown = share;
        self
    }

    /// Goes on from a saved state.
    ///
    /// # Errors
    /// [`KrylovError::Dimension`] where the lengths do not belong together; [`KrylovError::Setting`] for a restart that
    /// lies outside the steps.
    pub fn from_state(mut state: LanczosState<T>) -> Result<Self, KrylovError> {
        let (m, dim) = (state.alpha.len(), state.dim);
        let all = m + usize::from(state.open);
        let kept = match state.orthogonality {
            Orthogonality::Plain { keep: false } => all.min(2),
            _ => all,
        };
        if dim == 0 || state.vectors.len() != kept * dim {
            return Err(KrylovError::Dimension {
                what: "the saved basis",
                len: state.vectors.len(),
                dim: kept * dim,
            });
        }
        if state.beta.len() != m {
            return Err(KrylovError::Dimension { what: "saved beta", len: state.beta.len(), dim: m });
        }
        if let Some(&at) = state.restarts.iter().find(|&&at| at == 0 || at > m) {
            return Err(KrylovError::setting(
                "a saved restart",
                at as f64,
                format!("1 to the {m} saved steps"),
            ));
        }
        let basis = Basis::from_values(dim, std::mem::take(&mut state.vectors));
        Ok(Lanczos { state, basis })
    }

    /// The state, to be saved.
    pub fn state(&self) -> LanczosState<T> {
        LanczosState { vectors: self.basis.values().to_vec(), ..self.state.clone() }
    }

    /// Steps taken.
    pub fn steps(&self) -> usize {
        self.state.alpha.len()
    }

    /// Diagonal of the tridiagonal matrix.
    pub fn alpha(&self) -> &[f64] {
        &self.state.alpha
    }

    /// Off-diagonal of the tridiagonal matrix, and the norm of the last remainder.
    pub fn beta(&self) -> &[f64] {
        &self.state.beta
    }

    /// Steps at which a fresh direction began.
    pub fn restarts(&self) -> &[usize] {
        &self.state.restarts
    }

    /// Whether the space is invariant, so that only a restart can enlarge it.
    pub fn is_invariant(&self) -> bool {
        !self.state.open
    }

    /// The vectors that are kept, the next one included.
    pub fn basis(&self) -> &Basis<T> {
        &self.basis
    }

    fn keeps_all(&self) -> bool {
        self.state.orthogonality != Orthogonality::Plain { keep: false }
    }

    /// One product and one row of the tridiagonal matrix. After an error the state is that before the step, and the
    /// step may be asked for again.
    ///
    /// # Errors
    /// [`KrylovError`]: a failed or not finite product, an invariant space, a wrong dimension.
    pub fn step(&mut self, op: &mut dyn LinearOp<T>) -> Result<LanczosStep, KrylovError> {
        let (m, n) = (self.steps(), self.state.dim);
        if op.dim() != n {
            return Err(KrylovError::Dimension { what: "the start vector", len: n, dim: op.dim() });
        }
        if !self.state.open {
            return Err(KrylovError::Invariant { steps: m });
        }
        let last = self.basis.len() - 1;
        let v = self.basis.vector(last);
        let mut w = vec![T::ZERO; n];
        apply(op, m + 1, v, &mut w)?;
        let before = m.checked_sub(1).map_or(0.0, |j| self.state.beta[j]);
        if before > 0.0 {
            axpy(T::of(-before), self.basis.vector(last - 1), &mut w);
        }
        let mut alpha = dot(v, &w);
        axpy(T::of(-alpha), v, &mut w);
        let full = self.state.orthogonality == Orthogonality::Full;
        if full {
            alpha += self.basis.orthogonalise(&mut w)[last];
        }
        coefficient(m + 1, alpha)?;
        let beta = coefficient(m + 1, norm(&w))?;
        self.state.alpha.push(alpha);
        let complete = full && m + 1 == n;
        if complete || beta <= self.state.breakdown * self.largest_row(beta) {
            self.state.beta.push(0.0);
            self.state.open = false;
            return Ok(LanczosStep::Breakdown);
        }
        self.state.beta.push(beta);
        w.iter_mut().for_each(|x| *x = T::of(x.f64() / beta));
        self.basis.push(&w);
        if !self.keeps_all() {
            self.basis.keep_last(2);
        }
        Ok(LanczosStep::Advanced)
    }

    /// The largest norm of a row of the tridiagonal matrix whose last remainder is `beta`: a lower bound of `|A|`.
    fn largest_row(&self, beta: f64) -> f64 {
        let s = &self.state;
        (0..s.alpha.len())
            .map(|j| {
                let before = j.checked_sub(1).map_or(0.0, |i| s.beta[i]);
                let after = s.beta.get(j).copied().unwrap_or(beta);
                s.alpha[j].hypot(before).hypot(after)
            })
            .fold(0.0, f64::max)
    }

    /// Opens an invariant space in a random direction orthogonal to it. False when the space is everything.
    ///
    /// # Errors
    /// [`KrylovError::NoBasis`] when the vectors were not kept.
    pub fn restart(&mut self) -> Result<bool, KrylovError> {
        if !self.keeps_all() {
            return Err(KrylovError::NoBasis { what: "a restart" });
        }
        if self.state.open {
            return Ok(true);
        }
        let mut rng = Rng::from_state(self.state.rng);
        let fresh = self.basis.fresh(&mut rng);
        self.state.rng = rng.state();
        let Some(v) = fresh else { return Ok(false) };
        self.state.restarts.push(self.steps());
        self.basis.push(&v);
        self.state.open = true;
        Ok(true)
    }

    /// Steps until there are `steps`, or the space is invariant.
    ///
    /// # Errors
    /// As [`step`](Lanczos::step); [`KrylovError::Setting`] for more steps than the dimension.
    pub fn run(&mut self, op: &mut dyn LinearOp<T>, steps: usize) -> Result<LanczosStep, KrylovError> {
        self.reachable(steps)?;
        let mut last = if self.state.open { LanczosStep::Advanced } else { LanczosStep::Breakdown };
        while self.steps() < steps && last == LanczosStep::Advanced {
            last = self.step(op)?;
        }
        Ok(last)
    }

    /// Steps until there are `steps`, with a restart where the space is invariant: eigenvalues that are multiple
    /// come once more after each.
    ///
    /// # Errors
    /// As [`run`](Lanczos::run) and [`restart`](Lanczos::restart).
    pub fn run_through(&mut self, op: &mut dyn LinearOp<T>, steps: usize) -> Result<(), KrylovError> {
        self.reachable(steps)?;
        while self.steps() < steps {
            if !self.state.open && !self.restart()? {
                break;
            }
            self.step(op)?;
        }
        Ok(())
    }

    fn reachable(&self, steps: usize) -> Result<(), KrylovError> {
        if steps == 0 || steps > self.state.dim {
            let allowed = format!("1 to the dimension {}", self.state.dim);
            return Err(KrylovError::setting("the number of steps", steps as f64, allowed));
        }
        Ok(())
    }

    /// Ritz values, vectors of the tridiagonal matrix and bounds of the residuals.
    ///
    /// # Errors
    /// [`KrylovError::Dense`] where the small eigenproblem fails.
    pub fn ritz(&self) -> Result<Ritz, KrylovError> {
        Ritz::of(self.alpha(), self.beta())
    }

    /// The Ritz vector `V s` of the value `k` of `ritz`.
    ///
    /// # Errors
    /// [`KrylovError::NoBasis`] when the vectors were not kept; [`KrylovError::Setting`] for no such value.
    pub fn ritz_vector(&self, ritz: &Ritz, k: usize) -> Result<Vec<T>, KrylovError> {
        if !self.keeps_all() {
            return Err(KrylovError::NoBasis { what: "a Ritz vector" });
        }
        let m = ritz.values().len();
        if k >= m || m > self.basis.len() {
            return Err(KrylovError::setting(
                "the Ritz value",
                k as f64,
                format!("below {}", m.min(self.basis.len())),
            ));
        }
        let mut x = self.basis.combine(ritz.vector(k));
        let size = norm(&x);
        scale(T::of(1.0 / size), &mut x);
        Ok(x)
    }
}

/// Normal numbers of the stream `seed x purpose`.
pub(crate) fn normal_vector<T: Real>(dim: usize, seed: u64, purpose: &str) -> Vec<T> {
    let mut rng = Rng::named(seed, purpose);
    (0..dim).map(|_| T::of(rng.normal())).collect()
}
