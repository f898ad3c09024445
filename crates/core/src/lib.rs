//! The vocabulary of learning: layouts, objectives, optimizers, the run loop, records and checkpoints.
//!
//! Algorithms speak flat slices and a [`Layout`]; only `rhumb-nn` knows tensors.

pub mod layout;
pub mod objective;
pub mod optimizer;

pub use layout::{Block, Layout, Role};
pub use objective::{EvalError, HessianAt, Objective, SecondOrder};
pub use optimizer::Optimizer;
