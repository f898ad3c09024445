//! Krylov methods: what products with a symmetric operator tell of its spectrum.
//!
//! Vectors are stored in `T`, inner products and small matrices are `f64`. A failed product is an error that carries
//! its number; a Lanczos run is left as it was, so that it may be interrupted and go on, and a solver leaves its last
//! iterate in `x`.

mod basis;
mod dense_op;
mod error;
mod lanczos;
mod lsmr;
pub(crate) mod product;
mod ritz;
pub mod slq;
mod solve;
mod symeig;
mod symmetry;
#[cfg(test)]
pub(crate) mod tests;
mod thick_restart;
pub mod trace;

pub use basis::Basis;
pub use dense_op::DenseOp;
pub use error::KrylovError;
pub use lanczos::{Lanczos, LanczosState, LanczosStep, Orthogonality};
pub use lsmr::{RectOp, Symmetric, lsmr};
pub use ritz::Ritz;
pub use solve::{Solved, Stop, StopRule, cg, minres};
pub use symeig::{SymEig, symmetric_eigen, symmetric_values, tridiagonal_eigen};
pub use symmetry::{asymmetry, check_symmetric};
pub use thick_restart::{EigenOptions, EigenPairs, Which, eigenpairs};

pub(crate) use basis::qr;
pub(crate) use lanczos::normal_vector;
