//! Which rank holds which part of which tensor.

use rhumb_core::Layout;
use rhumb_linalg::Real;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ShardError;
use crate::adam_mini::{Cut, Partition};

/// How tensors are spread over ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ShardKind {
    /// Every rank holds everything, with equal gradients: data parallelism.
    Replicated,
    /// Rows of the first axis in chunks of `ceil(rows / ranks)`, vectors too: FSDP2, column-parallel layers.
    Row,
    /// Columns of the last axis in chunks of `ceil(columns / ranks)`, vectors replicated: row-parallel layers.
    Column,
    /// The whole model as one vector in chunks of `ceil(P / ranks)`: FSDP1, ZeRO.
    Flat,
}

/// A part of one tensor: `count` runs of `width` scalars, `stride` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    /// Position of the tensor in the layout.
    pub tensor: usize,
    /// First scalar of the first run, counted in the tensor.
    pub first: usize,
    /// Scalars of one run.
    pub width: usize,
    /// Distance from one run to the next.
    pub stride: usize,
    /// Runs.
    pub count: usize,
    /// Whether every rank holds this same piece.
    pub replicated: bool,
}

impl Piece {
    fn run(tensor: usize, first: usize, width: usize, replicated: bool) -> Self {
        Piece { tensor, first, width, stride: width, count: 1, replicated }
    }

    /// Scalars in it.
    pub fn len(&self) -> usize {
        self.width * self.count
    }

    /// True without any scalar.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Start of every run in the tensor, in order.
    fn starts(&self) -> impl Iterator<Item = usize> {
        let (first, stride) = (self.first, self.stride);
        (0..self.count).map(move |i| first + i * stride)
    }
}

/// Part of a block that a rank holds.
pub(super) struct Span {
    /// Second moments before this one in the tensor.
    pub(super) block: usize,
    /// Scalars of the whole block.
    pub(super) size: usize,
    /// Where the part lies in the piece.
    pub(super) at: usize,
    /// Scalars of the part.
    pub(super) len: usize,
}

/// The parts of blocks in a piece, in order. Runs of blocks of one element come as one span of size 1.
pub(super) fn spans(piece: &Piece, cuts: &[Cut], mut f: impl FnMut(Span)) {
    let mut at = 0;
    for start in piece.starts() {
        let end = start + piece.width;
        let (mut cut_start, mut blocks_before) = (0, 0);
        for cut in cuts {
            let (from, to) = (start.max(cut_start), end.min(cut_start + cut.elements));
            let mut here = from;
            while here < to {
                let offset = here - cut_start;
                let stop = if cut.block == 1 {
                    to
                } else {
                    to.min(cut_start + (offset / cut.block + 1) * cut.block)
                };
                let block = blocks_before + offset / cut.block;
                f(Span { block, size: cut.block, at, len: stop - here });
                at += stop - here;
                here = stop;
            }
            cut_start += cut.elements;
            blocks_before += cut.elements / cut.block;
        }
    }
}

/// The parts of every rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardPlan {
    kind: ShardKind,
    layout: Layout,
    /// By rank, then in the order of the layout; without empty ones.
    pieces: Vec<Vec<Piece>>,
}

impl ShardPlan {
    /// Spreads a layout over ranks.
    ///
    /// # Errors
    /// [`ShardError::Plan`] without ranks.
    pub fn new(layout: &Layout, kind: ShardKind, ranks: usize) -> Result<Self, ShardError> {
        if ranks == 0 {
            return Err(ShardError::Plan { what: "0 ranks: give at least 1".to_owned() });
        }
        if kind == ShardKind::Flat {
            let chunk = layout.len().div_ceil(ranks);
            let cuts: Vec<usize> = (1..ranks).map(|r| (r * chunk).min(layout.len())).collect();
            return Self::flat_at(layout, &cuts);
        }
        let part = |n: usize, rank: usize| {
            let chunk = n.div_ceil(ranks);
            (rank * chunk).min(n)..((rank + 1) * chunk).min(n)
        };
        let of = |rank: usize| {
            let piece = |(tensor, b): (usize, &rhumb_core::Block)| {
                let n = b.range.len();
                match kind {
                    ShardKind::Row => {
                        let rows = b.shape.first().copied().unwrap_or(1).max(1);
                        let r = part(rows, rank);
                        let width = n / rows;
                        Piece::run(tensor, r.start * width, r.len() * width, false)
                    }
                    ShardKind::Column if b.shape.len() > 1 => {
                        let columns = b.shape.last().copied().unwrap_or(1).max(1);
                        let c = part(columns, rank);
                        let count = n / columns;
                        let (first, width, stride) = (c.start, c.len(), columns);
                        Piece { tensor, first, width, stride, count, replicated: false }
                    }
                    _ => Piece::run(tensor, 0, n, true),
                }
            };
            layout.blocks().iter().enumerate().map(piece).filter(|p| !p.is_empty()).collect()
        };
        Ok(ShardPlan { kind, layout: layout.clone(), pieces: (0..ranks).map(of).collect() })
    }

    /// The flat vector cut at places of one's own, for one rank more than there are cuts.
    ///
    /// # Errors
    /// [`ShardError::Plan`] unless the cuts ascend within the vector.
    pub fn flat_at(layout: &Layout, cuts: &[usize]) -> Result<Self, ShardError> {
        if !cuts.is_sorted() || cuts.last().is_some_and(|c| *c > layout.len()) {
            return Err(ShardError::Plan {
                what: format!("cuts {cuts:?} do not ascend within {} parameters", layout.len()),
            });
        }
        let ends = cuts.iter().copied().chain([layout.len()]);
        let pieces = std::iter::once(0)
            .chain(cuts.iter().copied())
            .zip(ends)
            .map(|(from, to)| {
                let of = |(i, b): (usize, &rhumb_core::Block)| {
                    let (start, end) = (from.max(b.range.start), to.min(b.range.end));
                    (start < end).then(|| Piece::run(i, start - b.range.start, end - start, false))
                };
                layout.blocks().iter().enumerate().filter_map(of).collect()
            })
            .collect();
        Ok(ShardPlan { kind: ShardKind::Flat, layout: layout.clone(), pieces })
    }

    /// How tensors are spread.
    pub fn kind(&self) -> ShardKind {
        self.kind
    }

    /// Ranks.
    pub fn ranks(&self) -> usize {
        self.pieces.len()
    }

    /// The layout of the whole model.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What a rank holds, in the order of the layout.
    ///
    /// # Panics
    /// For a rank that the plan does not have.
    pub fn pieces(&self, rank: usize) -> &[Piece] {
        &self.pieces[rank]
    }

    /// Scalars of a rank.
    ///
    /// # Panics
    /// For a rank that the plan does not have.
    pub fn len(&self, rank: usize) -> usize {
        self.pieces[rank].iter().map(Piece::len).sum()
    }

    /// True when a rank holds nothing.
    ///
    /// # Panics
    /// For a rank that the plan does not have.
    pub fn is_empty(&self, rank: usize) -> bool {
        self.len(rank) == 0
    }

    /// A rank's part of a vector of the whole model.
    ///
    /// # Errors
    /// [`ShardError::Plan`] for a vector of another length or a rank that the plan does not have.
    pub fn scatter<T: Real>(&self, rank: usize, whole: &[T]) -> Result<Vec<T>, ShardError> {
        if whole.len() != self.layout.len() || rank >= self.ranks() {
            return Err(ShardError::Plan {
                what: format!(
                    "rank {rank} of {} and {} numbers for {} parameters",
                    self.ranks(),
                    whole.len(),
                    self.layout.len()
                ),
            });
        }
        let mut out = Vec::with_capacity(self.len(rank));
        for piece in &self.pieces[rank] {
            let base = self.layout.blocks()[piece.tensor].range.start;
            piece.starts().for_each(|s| out.extend_from_slice(&whole[base + s..base + s + piece.width]));
        }
        Ok(out)
    }

    /// The whole vector from every rank's part; replicated pieces come from the last rank.
    ///
    /// # Errors
    /// [`ShardError::Plan`] or [`ShardError::Length`] when a part is missing or has another length.
    pub fn gather<T: Real>(&self, parts: &[Vec<T>]) -> Result<Vec<T>, ShardError> {
        if parts.len() != self.ranks() {
            return Err(ShardError::Plan {
                what: format!(
                    "{} parts for {} ranks: give the part of every rank",
                    parts.len(),
                    self.ranks()
                ),
            });
        }
        let mut out = vec![T::ZERO; self.layout.len()];
        for (rank, part) in parts.iter().enumerate() {
            let want = self.len(rank);
            if part.len() != want {
                return Err(ShardError::Length { rank, what: "a part", have: part.len(), want });
            }
            let mut rest = &part[..];
            for piece in &self.pieces[rank] {
                let base = self.layout.blocks()[piece.tensor].range.start;
                for s in piece.starts() {
                    let (now, later) = rest.split_at(piece.width);
                    out[base + s..base + s + piece.width].copy_from_slice(now);
                    rest = later;
                }
            }
        }
        Ok(out)
    }

    /// Blocks that several ranks hold parts of, tensor by tensor: what has to be reduced. Costs the number of
    /// boundaries, or of shared blocks for columns.
    pub(super) fn shared(&self, partition: &Partition) -> Vec<Shared> {
        let mut out = Vec::new();
        for (tensor, plan) in partition.tensors().iter().enumerate() {
            let holders: Vec<&Piece> =
                self.pieces.iter().filter_map(|p| p.iter().find(|p| p.tensor == tensor)).collect();
            if holders.len() < 2 || holders[0].replicated {
                continue;
            }
            let mut blocks = Vec::new();
            let (mut cut_start, mut before) = (0, 0);
            for cut in &plan.cuts {
                let cut_end = cut_start + cut.elements;
                if cut.block == 1 {
                    // A single element lies on one rank.
                } else if holders[0].count > 1 && cut.block % holders[0].stride == 0 {
                    // Whole rows, of which every rank has a few columns.
                    blocks.extend(before..before + cut.elements / cut.block);
                } else {
                    let mut inside = |at: usize| {
                        if at > cut_start && at < cut_end && !(at - cut_start).is_multiple_of(cut.block) {
                            blocks.push(before + (at - cut_start) / cut.block);
                        }
                    };
                    holders.iter().flat_map(|h| h.starts().map(|s| s + h.width)).for_each(&mut inside);
                }
                cut_start = cut_end;
                before += cut.elements / cut.block;
            }
            blocks.sort_unstable();
            blocks.dedup();
            if !blocks.is_empty() {
                out.push(Shared { tensor, blocks });
            }
        }
        out
    }
}

/// Blocks of one tensor that several ranks share, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shared {
    pub(super) tensor: usize,
    pub(super) blocks: Vec<usize>,
}
