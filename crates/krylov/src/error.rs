use rhumb_linalg::OpError;
use rhumb_linalg::dense::DenseError;

/// Why a Krylov method or an estimator that asks for products stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KrylovError {
    /// The operator failed. The state before the product is kept: the step may be asked for again.
    #[error("product {product} of the operator failed: {source}")]
    Operator {
        /// Which product, from 1.
        product: usize,
        /// What the operator says.
        #[source]
        source: OpError,
    },
    /// A product holds infinities or not-a-number.
    #[error(
        "product {product} has the value {value} at position {at}: check the point the operator was taken at, or use f64"
    )]
    NonFinite {
        /// Which product, from 1.
        product: usize,
        /// The first position that is not finite.
        at: usize,
        /// Its value.
        value: f64,
    },
    /// A coefficient of the recurrence overflowed though its vectors are finite.
    #[error("step {step} has the coefficient {value}: scale the operator down, or use f64")]
    Coefficient {
        /// Which step, from 1.
        step: usize,
        /// Its value.
        value: f64,
    },
    /// A vector does not fit the operator.
    #[error("{what} has {len} values, the operator has dimension {dim}: pass exactly {dim}")]
    Dimension {
        /// Which vector.
        what: &'static str,
        /// Its length.
        len: usize,
        /// The operator's dimension.
        dim: usize,
    },
    /// A setting is out of its range.
    #[error("{name} is {value}: it must be {allowed}")]
    Setting {
        /// Which setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// The range.
        allowed: String,
    },
    /// A start vector is zero or not finite.
    #[error("{what} has the norm {norm}: give a vector that is finite and not zero")]
    Start {
        /// Which vector.
        what: &'static str,
        /// Its norm.
        norm: f64,
    },
    /// The basis vectors that are needed were not kept.
    #[error("{what} needs the basis: run Lanczos with the basis kept")]
    NoBasis {
        /// What was asked for.
        what: &'static str,
    },
    /// The Krylov space is complete: no further step exists until a restart, and none at all when it is the whole
    /// space.
    #[error("the Krylov space is invariant after {steps} steps: restart in a fresh direction, or stop here")]
    Invariant {
        /// Steps taken.
        steps: usize,
    },
    /// `<u, A v>` and `<v, A u>` differ.
    #[error(
        "the operator is not symmetric: <u,Av> and <v,Au> differ by {measured:.3e} of their size, allowed are {tolerance:.1e}"
    )]
    Asymmetric {
        /// The largest relative difference.
        measured: f64,
        /// What was allowed.
        tolerance: f64,
    },
    /// Eigenpairs did not reach the tolerance.
    #[error(
        "{converged} of {wanted} eigenpairs converged in {products} products; the largest residual is {residual:.3e}, \
         asked was {target:.3e}: allow more products, a larger basis or a larger tolerance"
    )]
    NotConverged {
        /// Eigenpairs asked for.
        wanted: usize,
        /// Eigenpairs whose residual is small enough.
        converged: usize,
        /// Products spent.
        products: usize,
        /// The largest residual `|A x - theta x|` among the wanted.
        residual: f64,
        /// The residual that was asked for.
        target: f64,
    },
    /// Two densities are not on the same grid.
    #[error("the densities are on different grids: evaluate both on one grid")]
    Grid,
    /// The off-diagonal of a tridiagonal matrix is too short.
    #[error("a tridiagonal matrix of {n} rows has {} values beside its diagonal, got {got}", n - 1)]
    OffDiagonal {
        /// Rows.
        n: usize,
        /// Values given.
        got: usize,
    },
    /// A small dense problem failed.
    #[error(transparent)]
    Dense(#[from] DenseError),
}

impl KrylovError {
    pub(crate) fn setting(name: &'static str, value: f64, allowed: impl Into<String>) -> Self {
        KrylovError::Setting { name, value, allowed: allowed.into() }
    }
}
