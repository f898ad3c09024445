//! Optimizers, schedules and gradient clipping over flat slices.
//!
//! [`AdamMini`] is Adam with one second moment per block of a [`Partition`]; [`AdamW`] is the same rule with
//! blocks of one element. Beside them stand [`Sgd`], [`Lion`], [`Adafactor`], [`Muon`] and [`SlimAdam`].
//! [`OptimizerConfig`] builds any of them from settings; [`shard`] spreads state over ranks.
//!
//! Nothing else is needed than slices and a layout that names the tensors in them:
//!
//! ```
//! use rhumb_core::{Layout, Role};
//! use rhumb_optim::{ClipConfig, Kind, OptimizerConfig};
//!
//! let mut layout = Layout::new();
//! layout.push("mlp.w", &[2, 3], Role::Mlp);
//! layout.push("mlp.b", &[2], Role::Bias);
//! let config = OptimizerConfig { kind: Kind::AdamMini, lr: 0.1, ..OptimizerConfig::default() };
//! let mut optimizer = config.build::<f32>(&layout)?;
//! assert_eq!(optimizer.state_bytes(), 4 * (8 + 2 + 2)); // one second moment per row and per bias
//!
//! // Half the squared distance from 1.
//! let mut parameters = vec![0.0; layout.len()];
//! let clip = ClipConfig { norm: Some(1.0), ..ClipConfig::default() };
//! for _ in 0..100 {
//!     let mut gradient: Vec<f32> = parameters.iter().map(|p| p - 1.0).collect();
//!     clip.apply(&mut gradient);
//!     optimizer.step(config.lr, &mut parameters, &gradient);
//! }
//! assert!(parameters.iter().all(|p| (p - 1.0).abs() < 0.1));
//! # Ok::<(), rhumb_optim::OptimError>(())
//! ```
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

pub use rhumb_core::{Block, Layout, Optimizer, Role};

pub use adafactor::{Adafactor, AdafactorConfig};
pub use adam_mini::{AdamMini, ParamRow, Partition, Preset, Unit, UnitRule, param_table};
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
