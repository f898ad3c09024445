//! The compute core, models and generation.
//!
//! A tape of fused operations over flat buffers, generic over `f32` and `f64`, with three rules per
//! operation: forward, backward, and the tangent of both.

mod kernel;
pub mod loss;
pub mod model;
pub mod op;
pub mod ops;
pub mod sample;
pub mod tape;
