//! Optimizers, schedules and gradient clipping over flat slices.
//!
//! [`AdamMini`] is Adam with one second moment per block of a [`Partition`]; [`AdamW`] is the same rule with
//! blocks of one element, [`Sgd`] needs no second moment. [`OptimizerConfig`] builds any of them from settings;
//! [`shard`] spreads state over ranks.
//!
//! All results are equal bit for bit for any number of threads: work is cut at fixed places.

mod adafactor;
pub mod adam_mini;
mod adamw;
mod clip;
mod config;
mod error;
mod groups;
mod kernel;
mod lion;
mod moments;
mod muon;
mod plain;
mod replay;
mod schedule;
mod sgd;
pub mod shard;
mod slim_adam;
mod state;
mod store;

pub use adafactor::{Adafactor, AdafactorConfig};
pub use adam_mini::{AdamMini, ParamRow, Partition, Preset, param_table};
pub use adamw::AdamW;
pub use clip::{ClipConfig, clip_global_norm, clip_value, global_norm};
pub use config::{AdamParams, Kind, OptimizerConfig, SgdParams};
pub use error::OptimError;
pub use groups::GroupConfig;
pub use lion::{Lion, LionConfig};
pub use muon::{AdjustLr, Muon, MuonConfig, PerHead};
pub use replay::{REPLAY_EXAMPLE, Replay, ReplayError, ReplayStep, ReplayTensor, replay};
pub use schedule::{Schedule, ScheduleConfig, ScheduleKind};
pub use sgd::Sgd;
pub use slim_adam::{Axis, SlimAdam, SlimAdamConfig, Snr, SnrRecord};
pub use store::StateFormat;
