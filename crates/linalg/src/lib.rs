//! Numbers below learning: scalars, matrix products, linear operators and random streams.
//!
//! Nothing here knows what a model, a layer or a loss is.

pub mod dense;
pub mod gemm;
mod op;
pub mod par;
mod real;
pub mod rng;
pub mod vec;

pub use op::{LinearOp, OpError};
pub use real::{Compiled, Real};
