//! The vocabulary of learning: layouts, objectives, optimizers, the run loop, records and checkpoints.
//!
//! Algorithms speak flat slices and a [`Layout`]; only `rhumb-nn` knows tensors. [`run()`] drives any
//! [`Algorithm`]; [`RunFolder`] and [`checkpoint`] are the only places here that touch files.

pub mod algorithm;
pub mod checkpoint;
pub mod claim;
pub mod layout;
pub mod manifest;
pub mod objective;
pub mod observer;
pub mod optimizer;
pub mod outcome;
pub mod record;
pub mod run;
pub mod runfolder;
pub mod stats;
pub mod streams;

pub use algorithm::{Algorithm, Status, Step};
pub use checkpoint::{CheckpointError, StateReader, StateWriter};
pub use claim::{Claim, Judgement, Op, Verdict, Versus};
pub use layout::{Block, Layout, Role};
pub use manifest::{Machine, Manifest};
pub use objective::{Curvature, EvalError, HessianAt, Objective, Product, SecondOrder};
pub use observer::{ObserveError, Observer};
pub use optimizer::Optimizer;
pub use outcome::{Budget, Counts, MemoryReport, Outcome, StopReason};
pub use record::{Key, Record};
pub use run::{CheckpointPlan, Clock, RunControl, RunError, run};
pub use runfolder::RunFolder;
pub use stats::Interval;
pub use streams::Streams;
