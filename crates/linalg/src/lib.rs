//! Numbers below learning: scalars, matrix products, linear operators and random streams.
//!
//! Nothing here knows what a model, a layer or a loss is.

pub mod gemm;
mod real;
pub mod rng;

pub use real::Real;
