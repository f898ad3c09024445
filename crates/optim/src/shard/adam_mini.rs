//! Adam-mini on one rank's part of the model.

use rhumb_linalg::Real;

use super::pieces::{ShardPlan, Shared, spans};
use super::{Reduce, ShardError};
use crate::AdamParams;
use crate::adam_mini::Partition;
use crate::kernel::{simd, sum_sq};

/// One rank of Adam-mini.
///
/// # Equation
/// As [`crate::AdamMini`]; the mean of squares of a block is the sum over ranks of local sums, divided by the size of
/// the whole block. A rank without a gradient for a tensor contributes nothing and leaves its part of that tensor
/// as it is, but takes part in the sum, so that nobody waits for it; second moments stay equal on all ranks that
/// share them.
///
/// # Shapes
/// Parameters and gradient: the rank's part, as [`ShardPlan::scatter`] cuts it.
///
/// # Cost
/// State: `T::BYTES` times the part and the blocks that touch it. Wire: 8 bytes for every shared block and for every
/// tensor with one, per step; see [`ShardedAdamMini::payload_bytes`].
///
/// ```
/// use rhumb_core::{Layout, Role};
/// use rhumb_optim::shard::{Alone, ShardKind, ShardPlan, ShardedAdamMini};
/// use rhumb_optim::{AdamParams, Partition, Preset};
/// let mut layout = Layout::new();
/// layout.push("norm", &[4], Role::Norm);
/// let partition = Partition::preset(Preset::Rhumb, &layout)?;
/// let plan = ShardPlan::new(&layout, ShardKind::Row, 1)?;
/// let mut o = ShardedAdamMini::<f64>::new(&plan, partition, AdamParams::new(0.9, 0.99, 1e-8, 0.0)?, 0)?;
/// o.step(0.1, &mut [1.0; 4], &[1.0, 1.0, 3.0, 3.0], &mut Alone)?;
/// assert!((o.second_moments()[0] - 0.05).abs() < 1e-12);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ShardedAdamMini<T> {
    pub(super) plan: ShardPlan,
    pub(super) partition: Partition,
    params: AdamParams,
    pub(super) rank: usize,
    pub(super) m: Vec<T>,
    /// One for every block that touches the part, in order.
    pub(super) v: Vec<T>,
    shared: Vec<Shared>,
    pub(super) t: u64,
}

/// What one step of one tensor needs.
struct Coefficients {
    keep: f64,
    step: f64,
    root2: f64,
}

impl<T: Real> ShardedAdamMini<T> {
    /// Zero moments for one rank.
    ///
    /// # Errors
    /// [`ShardError::Plan`] for a rank that the plan does not have, or a partition of another layout.
    pub fn new(
        plan: &ShardPlan,
        partition: Partition,
        params: AdamParams,
        rank: usize,
    ) -> Result<Self, ShardError> {
        if rank >= plan.ranks() {
            return Err(ShardError::Plan { what: format!("rank {rank} of {}", plan.ranks()) });
        }
        let covers = |(b, p): (&rhumb_core::Block, &crate::adam_mini::TensorPlan)| {
            p.cuts.iter().map(|c| c.elements).sum::<usize>() == b.range.len()
        };
        let blocks = plan.layout().blocks();
        if blocks.len() != partition.tensors().len() || !blocks.iter().zip(partition.tensors()).all(covers) {
            return Err(ShardError::Plan {
                what: "the partition belongs to another layout than the plan".to_owned(),
            });
        }
        let mut slots = 0;
        for piece in plan.pieces(rank) {
            let mut last = None;
            spans(piece, &partition.tensors()[piece.tensor].cuts, |s| {
                if s.size == 1 {
                    slots += s.len;
                } else if last != Some(s.block) {
                    slots += 1;
                }
                last = Some(s.block);
            });
        }
        Ok(ShardedAdamMini {
            m: vec![T::ZERO; plan.len(rank)],
            v: vec![T::ZERO; slots],
            shared: plan.shared(&partition),
            plan: plan.clone(),
            partition,
            params,
            rank,
            t: 0,
        })
    }

    /// The plan.
    pub fn plan(&self) -> &ShardPlan {
        &self.plan
    }

    /// This rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// First moments of the part.
    pub fn first_moments(&self) -> &[T] {
        &self.m
    }

    /// Second moments of the blocks that touch the part, in order.
    pub fn second_moments(&self) -> &[T] {
        &self.v
    }

    /// Bytes of state held.
    pub fn state_bytes(&self) -> usize {
        (self.m.len() + self.v.len()) * T::BYTES
    }

    /// Blocks whose sums need other ranks.
    pub fn shared_blocks(&self) -> usize {
        self.shared.iter().map(|s| s.blocks.len()).sum()
    }

    /// Bytes that every rank hands to [`Reduce`] in one step.
    pub fn payload_bytes(&self) -> u64 {
        8 * (self.shared_blocks() + self.shared.len()) as u64
    }

    /// One step of the part. Every rank takes it at the same time.
    ///
    /// # Errors
    /// [`ShardError::Length`] for slices of another length, and what [`Reduce`] says.
    pub fn step(
        &mut self,
        lr: f64,
        params: &mut [T],
        grad: &[T],
        reduce: &mut dyn Reduce,
    ) -> Result<(), ShardError> {
        self.step_where(lr, params, grad, |_| true, reduce)
    }

    /// A step in which this rank has gradients for some tensors only; what `grad` holds for the others is ignored.
    /// `has` is asked with the position of a tensor in the layout.
    ///
    /// # Errors
    /// As [`ShardedAdamMini::step`].
    pub fn step_where(
        &mut self,
        lr: f64,
        params: &mut [T],
        grad: &[T],
        has: impl Fn(usize) -> bool,
        reduce: &mut dyn Reduce,
    ) -> Result<(), ShardError> {
        for (what, have) in [("the parameters", params.len()), ("the gradient", grad.len())] {
            if have != self.m.len() {
                return Err(ShardError::Length { rank: self.rank, what, have, want: self.m.len() });
            }
        }
        let mut sums = self.partial_sums(grad, &has);
        let updated = self.exchange(&mut sums, &has, reduce)?;
        self.t += 1;
        self.update(lr, params, grad, &sums, &has, &updated);
        Ok(())
    }

    /// Sums of squares of the local part of every block that has more than one element.
    fn partial_sums(&self, grad: &[T], has: &impl Fn(usize) -> bool) -> Vec<f64> {
        let mut sums = Vec::new();
        let mut base = 0;
        for piece in self.plan.pieces(self.rank) {
            let mut last = None;
            spans(piece, &self.partition.tensors()[piece.tensor].cuts, |s| {
                if s.size == 1 {
                    return;
                }
                let part = &grad[base + s.at..base + s.at + s.len];
                let here = if has(piece.tensor) { simd!(|| sum_sq(part)) } else { 0.0 };
                match sums.last_mut() {
                    Some(sum) if last == Some(s.block) => *sum += here,
                    _ => sums.push(here),
                }
                last = Some(s.block);
            });
            base += piece.len();
        }
        sums
    }

    /// Replaces the sums of shared blocks by those over all ranks. Returns for every tensor whether some rank has a
    /// gradient, as far as this rank shares a block of it.
    fn exchange(
        &self,
        sums: &mut [f64],
        has: &impl Fn(usize) -> bool,
        reduce: &mut dyn Reduce,
    ) -> Result<Vec<bool>, ShardError> {
        let mut updated: Vec<bool> = (0..self.partition.tensors().len()).map(has).collect();
        if self.shared.is_empty() {
            return Ok(updated);
        }
        let places = self.places_of_shared();
        let mut wire: Vec<f64> = places.iter().map(|p| p.map_or(0.0, |at| sums[at])).collect();
        let held = |s: &Shared| self.plan.pieces(self.rank).iter().find(|p| p.tensor == s.tensor);
        // Counts tell a gradient of zeros from none at all.
        wire.extend(self.shared.iter().map(|s| match held(s) {
            Some(p) if has(s.tensor) => p.len() as f64,
            _ => 0.0,
        }));
        reduce.all_reduce_sum(&mut wire)?;
        let (totals, counts) = wire.split_at(places.len());
        for (place, total) in places.iter().zip(totals) {
            if let Some(at) = place {
                sums[*at] = *total;
            }
        }
        for (s, count) in self.shared.iter().zip(counts) {
            updated[s.tensor] = *count > 0.0;
        }
        Ok(updated)
    }

    /// For every shared block, where its local sum stands, if this rank holds a part.
    fn places_of_shared(&self) -> Vec<Option<usize>> {
        let mut out = vec![None; self.shared_blocks()];
        let mut at = 0;
        for piece in self.plan.pieces(self.rank) {
            let before: usize =
                self.shared.iter().take_while(|s| s.tensor < piece.tensor).map(|s| s.blocks.len()).sum();
            let own = self.shared.iter().find(|s| s.tensor == piece.tensor);
            let mut last = None;
            spans(piece, &self.partition.tensors()[piece.tensor].cuts, |s| {
                if s.size == 1 || last == Some(s.block) {
                    return;
                }
                last = Some(s.block);
                if let Some(Ok(i)) = own.map(|o| o.blocks.binary_search(&s.block)) {
                    out[before + i] = Some(at);
                }
                at += 1;
            });
        }
        out
    }

    fn update(
        &mut self,
        lr: f64,
        params: &mut [T],
        grad: &[T],
        sums: &[f64],
        has: &impl Fn(usize) -> bool,
        updated: &[bool],
    ) {
        let (beta1, beta2, eps) = (self.params.beta1(), self.params.beta2(), self.params.eps());
        let t = self.t as f64;
        let (mut base, mut slot, mut sum) = (0, 0, 0);
        for piece in self.plan.pieces(self.rank) {
            let plan = &self.partition.tensors()[piece.tensor];
            let decay = if plan.decay { self.params.weight_decay() } else { 0.0 };
            let c = Coefficients {
                keep: 1.0 - lr * decay,
                step: lr / (1.0 - beta1.powf(t)),
                root2: (1.0 - beta2.powf(t)).sqrt(),
            };
            let (own, any) = (has(piece.tensor), updated[piece.tensor]);
            let (m, v) = (&mut self.m, &mut self.v);
            let mut last = None;
            spans(piece, &plan.cuts, |s| {
                let range = base + s.at..base + s.at + s.len;
                if s.size == 1 {
                    if own {
                        for (i, k) in range.zip(slot..) {
                            let g = grad[i].f64();
                            let h = advance(&c, beta2, eps, &mut v[k], g * g);
                            shift(&c, beta1, h, &mut params[i], &mut m[i], g);
                        }
                    }
                    slot += s.len;
                    last = Some(s.block);
                    return;
                }
                if last != Some(s.block) {
                    if any {
                        advance(&c, beta2, eps, &mut v[slot], sums[sum] / s.size as f64);
                    }
                    slot += 1;
                    sum += 1;
                }
                last = Some(s.block);
                if own {
                    let h = c.step / (v[slot - 1].f64().sqrt() / c.root2 + eps);
                    for i in range {
                        shift(&c, beta1, h, &mut params[i], &mut m[i], grad[i].f64());
                    }
                }
            });
            base += piece.len();
        }
    }
}

/// Moves a second moment and returns what multiplies the first.
fn advance<T: Real>(c: &Coefficients, beta2: f64, eps: f64, v: &mut T, mean_sq: f64) -> f64 {
    *v = T::of(beta2 * v.f64() + (1.0 - beta2) * mean_sq);
    c.step / (v.f64().sqrt() / c.root2 + eps)
}

fn shift<T: Real>(c: &Coefficients, beta1: f64, h: f64, p: &mut T, m: &mut T, g: f64) {
    *m = T::of(m.f64() + (1.0 - beta1) * (g - m.f64()));
    *p = T::of(c.keep * p.f64() - h * m.f64());
}
