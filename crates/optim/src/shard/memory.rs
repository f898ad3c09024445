//! Memory and traffic of a sharded run, before it is started.

use rhumb_core::{Layout, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pieces::spans;
use super::{ShardError, ShardKind, ShardPlan};
use crate::{Kind, OptimizerConfig, Preset};

/// What is spread besides optimizer state. Without effect on [`ShardKind::Replicated`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// State alone: ZeRO-1.
    State,
    /// State and gradients: ZeRO-2.
    Gradients,
    /// State, gradients and parameters: ZeRO-3, FSDP, tensor parallelism.
    #[default]
    Parameters,
}

/// Bytes on one rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RankMemory {
    /// The rank.
    pub rank: usize,
    /// Scalars whose state the rank holds.
    pub scalars: u64,
    /// Bytes of parameters.
    pub parameters: u64,
    /// Bytes of gradients.
    pub gradients: u64,
    /// Bytes of optimizer state.
    pub state: u64,
    /// Traffic between device and CPU when the state lives on the CPU.
    pub offload: Offload,
}

impl RankMemory {
    /// Parameters, gradients and state.
    pub fn total(&self) -> u64 {
        self.parameters + self.gradients + self.state
    }
}

/// Bytes between device and CPU in one step, when optimizer state lives on the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Offload {
    /// Gradients to the CPU.
    pub down: u64,
    /// Parameters back.
    pub up: u64,
}

/// Bytes between ranks in one step that the optimizer itself causes. Gradients and parameters travel besides, as for
/// any optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Wire {
    /// Blocks of which several ranks hold a part.
    pub shared_blocks: u64,
    /// Bytes that every rank brings to the sum: 8 for each shared block and each tensor with one.
    pub payload: u64,
    /// Bytes that every rank sends in a ring: payload times 2 (ranks - 1) / ranks, rounded up.
    pub ring: u64,
}

/// Memory and traffic of a sharded run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// The optimizer.
    pub optimizer: &'static str,
    /// How tensors are spread.
    pub shard: ShardKind,
    /// What is spread.
    pub stage: Stage,
    /// Ranks.
    pub ranks: usize,
    /// Scalars of the whole model.
    pub parameters: u64,
    /// Bytes of optimizer state of the whole model on one rank.
    pub state: u64,
    /// Every rank.
    pub per_rank: Vec<RankMemory>,
    /// Traffic of the optimizer.
    pub wire: Wire,
}

/// Estimates memory and traffic; `scalar` is the bytes of one number (4 for `f32`). Nothing of the model's size is
/// allocated.
///
/// # Errors
/// [`ShardError::Plan`] without ranks and for an optimizer whose step needs whole matrices ([`Kind::Muon`],
/// [`Kind::Adafactor`], [`Kind::SlimAdam`]) unless it is replicated; [`ShardError::Optim`] for settings out of range.
///
/// ```
/// use rhumb_core::{Layout, Role};
/// use rhumb_optim::OptimizerConfig;
/// use rhumb_optim::shard::{ShardKind, Stage, plan};
/// let mut layout = Layout::new();
/// layout.push("mlp.w", &[4, 8], Role::Mlp);
/// let p = plan(&layout, 2, ShardKind::Row, Stage::Parameters, &OptimizerConfig::default(), 4)?;
/// // 16 scalars and two rows on each rank, nothing shared.
/// assert_eq!((p.per_rank[0].state, p.wire.payload), (4 * (16 + 2), 0));
/// # Ok::<(), rhumb_optim::shard::ShardError>(())
/// ```
pub fn plan(
    layout: &Layout,
    ranks: usize,
    kind: ShardKind,
    stage: Stage,
    optimizer: &OptimizerConfig,
    scalar: usize,
) -> Result<MemoryPlan, ShardError> {
    let shards = ShardPlan::new(layout, kind, ranks)?;
    let whole = optimizer.state_bytes(layout, scalar)? as u64;
    let local = kind != ShardKind::Replicated;
    let per_element = matches!(optimizer.kind, Kind::AdamW | Kind::Lion | Kind::Sgd);
    if local
        && ranks > 1
        && !per_element
        && (optimizer.kind != Kind::AdamMini || !optimizer.groups.is_empty())
    {
        return Err(ShardError::Plan {
            what: format!(
                "no sharded form of {}{} is known: use adam-mini without groups, adamw, lion or sgd, or replicate it",
                optimizer.kind.name(),
                if optimizer.kind == Kind::AdamMini { " with groups" } else { "" }
            ),
        });
    }
    let mut shared = (0, 0);
    let partition =
        (optimizer.kind == Kind::AdamMini && local).then(|| optimizer.partition(layout)).transpose()?;
    if let Some(p) = &partition {
        let s = shards.shared(p);
        shared = (s.iter().map(|s| s.blocks.len() as u64).sum(), s.len() as u64);
    }
    let full = (scalar * layout.len()) as u64;
    let per_rank = (0..ranks)
        .map(|rank| {
            let scalars = shards.len(rank) as u64;
            let part = scalar as u64 * scalars;
            let from = |at: Stage| if local && stage >= at { part } else { full };
            let state = match &partition {
                _ if !local || ranks == 1 => whole,
                Some(p) => {
                    let slots = shards
                        .pieces(rank)
                        .iter()
                        .map(|piece| {
                            let (mut slots, mut last) = (0, None);
                            spans(piece, &p.tensors()[piece.tensor].cuts, |s| {
                                slots += if s.size == 1 { s.len } else { usize::from(last != Some(s.block)) };
                                last = Some(s.block);
                            });
                            slots
                        })
                        .sum::<usize>();
                    first_moments(&shards, rank, optimizer, scalar)? + (scalar * slots) as u64
                }
                None => optimizer.state_bytes(&own_layout(&shards, rank, None), scalar)? as u64,
            };
            Ok(RankMemory {
                rank,
                scalars,
                parameters: from(Stage::Parameters),
                gradients: from(Stage::Gradients),
                state,
                offload: Offload { down: part, up: part },
            })
        })
        .collect::<Result<_, ShardError>>()?;
    let payload = if ranks > 1 { 8 * (shared.0 + shared.1) } else { 0 };
    Ok(MemoryPlan {
        optimizer: optimizer.kind.name(),
        shard: kind,
        stage,
        ranks,
        parameters: layout.len() as u64,
        state: whole,
        per_rank,
        wire: Wire {
            shared_blocks: shared.0,
            payload,
            ring: (2 * payload * (ranks as u64 - 1)).div_ceil(ranks as u64),
        },
    })
}

/// A rank's pieces as vectors.
fn own_layout(shards: &ShardPlan, rank: usize, role: Option<Role>) -> Layout {
    let mut out = Layout::new();
    for p in shards.pieces(rank) {
        let b = &shards.layout().blocks()[p.tensor];
        out.push(b.name.clone(), &[p.len()], role.unwrap_or(b.role));
    }
    out
}

/// Bytes of first moments in the configured format: those of a model of vectors with one block each, less the blocks.
fn first_moments(
    shards: &ShardPlan,
    rank: usize,
    optimizer: &OptimizerConfig,
    scalar: usize,
) -> Result<u64, ShardError> {
    let config = OptimizerConfig {
        preset: Preset::Rhumb,
        names: crate::adam_mini::NameOptions::default(),
        ..optimizer.clone()
    };
    let own = own_layout(shards, rank, Some(Role::Norm));
    Ok((config.state_bytes(&own, scalar)? - scalar * own.blocks().len()) as u64)
}
