//! Sharded state on disk, and from one number of ranks to another.

use rhumb_core::{CheckpointError, StateReader, StateWriter};
use rhumb_linalg::Real;
use serde::{Deserialize, Serialize};

use super::pieces::{ShardPlan, spans};
use super::{ShardError, ShardedAdamMini};
use crate::AdamParams;
use crate::adam_mini::{Cut, Partition, Snapshot};

/// What the file of one rank says about itself.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta {
    kind: String,
    partition: String,
    scalar: String,
    t: u64,
    rank: usize,
    plan: ShardPlan,
    cuts: Vec<Vec<Cut>>,
}

impl<T: Real> ShardedAdamMini<T> {
    fn meta(&self) -> Meta {
        Meta {
            kind: "adam-mini shard".to_owned(),
            partition: self.partition.tag().to_owned(),
            scalar: T::NAME.to_owned(),
            t: self.t,
            rank: self.rank,
            plan: self.plan.clone(),
            cuts: self.partition.tensors().iter().map(|t| t.cuts.clone()).collect(),
        }
    }

    /// Where the first and second moments of every piece lie.
    fn sections(&self) -> Vec<(String, std::ops::Range<usize>, std::ops::Range<usize>)> {
        let (mut at, mut slot) = (0, 0);
        self.plan
            .pieces(self.rank)
            .iter()
            .map(|piece| {
                let name = self.plan.layout().blocks()[piece.tensor].name.clone();
                let (from, v_from) = (at, slot);
                at += piece.len();
                let mut last = None;
                spans(piece, &self.partition.tensors()[piece.tensor].cuts, |s| {
                    if s.size == 1 {
                        slot += s.len;
                    } else if last != Some(s.block) {
                        slot += 1;
                    }
                    last = Some(s.block);
                });
                (name, from..at, v_from..slot)
            })
            .collect()
    }

    /// Writes this rank's state, by parameter name.
    ///
    /// # Errors
    /// Passes on what [`StateWriter`] says.
    pub fn save(&self, out: &mut StateWriter<'_>) -> Result<(), CheckpointError> {
        out.put_json("shard", &self.meta())?;
        self.sections().into_iter().try_for_each(|(name, m, v)| {
            out.put_reals(&format!("m/{name}"), &self.m[m])?;
            out.put_reals(&format!("v/{name}"), &self.v[v])
        })
    }

    /// Restores what the same rank of the same plan has saved. For another number of ranks see
    /// [`ShardedAdamMini::gather`].
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`] with the first difference.
    pub fn load(&mut self, src: &mut StateReader) -> Result<(), CheckpointError> {
        let found: Meta = src.json("shard")?;
        let own = self.meta();
        let differs = |what: &str, here: &dyn std::fmt::Display, there: &dyn std::fmt::Display| {
            Err(CheckpointError::Mismatch(format!(
                "the saved state has {what} {there}, this run has {here}: gather the parts of all ranks and scatter them again, or use \
                 the settings it was saved with"
            )))
        };
        for (what, here, there) in [
            ("the optimizer", &own.kind, &found.kind),
            ("the partition", &own.partition, &found.partition),
            ("the scalar type", &own.scalar, &found.scalar),
        ] {
            if here != there {
                return differs(what, here, there);
            }
        }
        if own.plan.ranks() != found.plan.ranks() {
            return differs("ranks:", &own.plan.ranks(), &found.plan.ranks());
        }
        if own.rank != found.rank {
            return differs("the rank", &own.rank, &found.rank);
        }
        if own.plan != found.plan || own.cuts != found.cuts {
            return Err(CheckpointError::Mismatch(
                "the saved state belongs to another model, sharding or cut into blocks: use the settings it was saved \
                 with"
                    .to_owned(),
            ));
        }
        for (name, m, v) in self.sections() {
            src.reals(&format!("m/{name}"), &mut self.m[m])?;
            src.reals(&format!("v/{name}"), &mut self.v[v])?;
        }
        self.t = found.t;
        Ok(())
    }

    /// The state of the whole model from the files of all ranks, in any order. With [`ShardedAdamMini::scatter`] or
    /// [`crate::AdamMini::restore`] it goes on with any number of ranks.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`] when a rank is missing, or the files do not belong together or to the partition.
    pub fn gather(partition: &Partition, files: &mut [StateReader]) -> Result<Snapshot<T>, CheckpointError> {
        let wrong = |e: ShardError| CheckpointError::Mismatch(e.to_string());
        let mut parts: Vec<Option<Self>> = Vec::new();
        for file in files.iter_mut() {
            let meta: Meta = file.json("shard")?;
            let params = AdamParams::new(0.0, 0.0, 1.0, 0.0).map_err(|e| wrong(e.into()))?;
            let mut part =
                ShardedAdamMini::new(&meta.plan, partition.clone(), params, meta.rank).map_err(wrong)?;
            part.load(file)?;
            parts.resize_with(parts.len().max(meta.plan.ranks()), || None);
            parts[meta.rank] = Some(part);
        }
        if let Some(rank) = parts.iter().position(Option::is_none) {
            return Err(CheckpointError::Mismatch(format!(
                "the state of rank {rank} of {} is missing: give the files of all ranks",
                parts.len()
            )));
        }
        let parts: Vec<Self> = parts.into_iter().flatten().collect();
        Self::assemble(&parts).map_err(wrong)
    }

    /// The state of the whole model from all ranks.
    ///
    /// # Errors
    /// [`ShardError::Plan`] when the ranks are not all there, in order, at the same step of the same plan.
    pub fn assemble(ranks: &[Self]) -> Result<Snapshot<T>, ShardError> {
        let odd =
            |what: &str| ShardError::Plan { what: format!("{what}: give every rank of one run, in order") };
        let Some(first) = ranks.first() else { return Err(odd("no ranks")) };
        for (i, r) in ranks.iter().enumerate() {
            if r.rank != i || r.plan != first.plan || r.partition != first.partition || r.t != first.t {
                return Err(odd(&format!("rank {} at step {} stands at place {i}", r.rank, r.t)));
            }
        }
        let m: Vec<Vec<T>> = ranks.iter().map(|r| r.m.clone()).collect();
        let m = first.plan.gather(&m)?;
        let mut v = vec![T::ZERO; first.partition.blocks()];
        ranks.iter().for_each(|r| r.for_each_slot(|global, local| v[global] = r.v[local]));
        Ok(Snapshot { t: first.t, m, v })
    }

    /// One rank's part of the state of a whole model.
    ///
    /// # Errors
    /// [`ShardError`] when plan, partition and state do not fit one another.
    pub fn scatter(
        plan: &ShardPlan,
        partition: Partition,
        params: AdamParams,
        rank: usize,
        whole: &Snapshot<T>,
    ) -> Result<Self, ShardError> {
        let mut out = ShardedAdamMini::new(plan, partition, params, rank)?;
        if whole.v.len() != out.partition.blocks() {
            return Err(ShardError::Plan {
                what: format!(
                    "a state of {} blocks for a partition of {}: use the partition it was saved with",
                    whole.v.len(),
                    out.partition.blocks()
                ),
            });
        }
        out.m = plan.scatter(rank, &whole.m)?;
        let mut v = std::mem::take(&mut out.v);
        out.for_each_slot(|global, local| v[local] = whole.v[global]);
        out.v = v;
        out.t = whole.t;
        Ok(out)
    }

    /// Visits the second moments as (place in the whole model, place here).
    fn for_each_slot(&self, mut f: impl FnMut(usize, usize)) {
        let mut before = vec![0; self.partition.tensors().len() + 1];
        for (i, t) in self.partition.tensors().iter().enumerate() {
            before[i + 1] = before[i] + t.blocks();
        }
        let mut slot = 0;
        for piece in self.plan.pieces(self.rank) {
            let mut last = None;
            spans(piece, &self.partition.tensors()[piece.tensor].cuts, |s| {
                let global = before[piece.tensor] + s.block;
                if s.size == 1 {
                    (0..s.len).for_each(|k| f(global + k, slot + k));
                    slot += s.len;
                } else if last != Some(s.block) {
                    f(global, slot);
                    slot += 1;
                }
                last = Some(s.block);
            });
        }
    }
}
