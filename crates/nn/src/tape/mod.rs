//! The tape: a graph of fused operations over flat buffers, and the sweeps over it.
//!
//! A model describes its computation once, as a [`Graph`] for fixed shapes. The sweeps of [`Tape`] then
//! give the value, the gradient (reverse mode) and Hessian-vector products (forward over reverse), with
//! buffers from reused pools, so that memory can be counted and nothing is allocated after the first step.

mod backward;
mod curvature;
mod exec;
mod forward;
mod graph;
mod pool;
mod segments;
mod spans;
mod sweep;

pub use exec::Tape;
pub use graph::{Graph, Span, Src, Var};
pub use pool::{Lent, Pool};
pub use sweep::{Request, SpanStep};
