//! From AdamW to Adam-mini and back, and state as plain numbers.

use rhumb_core::Layout;
use rhumb_linalg::Real;

use super::{AdamMini, Partition};
use crate::moments::{Moments, Second};
use crate::{AdamParams, AdamW, OptimError, StateFormat};

/// The state of Adam-mini as plain numbers: what sharding and other programs need.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot<T> {
    /// Steps taken.
    pub t: u64,
    /// First moments, flat like the parameters.
    pub m: Vec<T>,
    /// Second moments, block after block in the order of the layout.
    pub v: Vec<T>,
}

/// Second moments per element, to one per block: the mean over each block.
///
/// # Errors
/// [`OptimError::Setting`] when the partition covers another number of elements.
///
/// ```
/// use rhumb_core::{Layout, Role};
/// use rhumb_optim::adam_mini::{collapse, expand};
/// use rhumb_optim::{Partition, Preset};
/// let mut layout = Layout::new();
/// layout.push("mlp.w", &[2, 2], Role::Mlp);
/// let p = Partition::preset(Preset::Rhumb, &layout)?;
/// let v = collapse(&[1.0, 3.0, 5.0, 9.0], &p)?;
/// assert_eq!(v, [2.0, 7.0]);
/// assert_eq!(expand(&v, &p)?, [2.0, 2.0, 7.0, 7.0]);
/// # Ok::<(), rhumb_optim::OptimError>(())
/// ```
pub fn collapse<T: Real>(v: &[T], partition: &Partition) -> Result<Vec<T>, OptimError> {
    let covered: usize = cuts(partition).map(|c| c.elements).sum();
    if covered != v.len() {
        return Err(other_partition(format!("{covered} parameters for a state of {}", v.len())));
    }
    let mut rest = v;
    let mut means = Vec::with_capacity(partition.blocks());
    for cut in cuts(partition) {
        let (now, later) = rest.split_at(cut.elements);
        let mean = |b: &[T]| T::of(b.iter().map(|v| v.f64()).sum::<f64>() / b.len() as f64);
        means.extend(now.chunks_exact(cut.block).map(mean));
        rest = later;
    }
    Ok(means)
}

/// Second moments per block, to one per element: each block's own for all of its elements.
///
/// # Errors
/// [`OptimError::Setting`] when the partition has another number of blocks.
pub fn expand<T: Real>(v: &[T], partition: &Partition) -> Result<Vec<T>, OptimError> {
    if partition.blocks() != v.len() {
        return Err(other_partition(format!("{} blocks for a state of {}", partition.blocks(), v.len())));
    }
    let sizes = cuts(partition).flat_map(|c| std::iter::repeat_n(c.block, c.elements / c.block));
    Ok(v.iter().zip(sizes).flat_map(|(v, n)| std::iter::repeat_n(*v, n)).collect())
}

fn cuts(partition: &Partition) -> impl Iterator<Item = &super::Cut> {
    partition.tensors().iter().flat_map(|t| &t.cuts)
}

fn other_partition(value: String) -> OptimError {
    OptimError::Setting { key: "partition", value, want: "a partition of the same layout" }
}

/// Tensor by tensor: equal totals may hide tensors of other lengths.
fn check(layout: &Layout, partition: &Partition) -> Result<(), OptimError> {
    let covered: usize = cuts(partition).map(|c| c.elements).sum();
    let (have, want) = (partition.tensors().len(), layout.blocks().len());
    if covered != layout.len() || have != want {
        return Err(other_partition(format!(
            "{covered} parameters in {have} tensors for a model of {} in {want}",
            layout.len()
        )));
    }
    for (b, plan) in layout.blocks().iter().zip(partition.tensors()) {
        let covers: usize = plan.cuts.iter().map(|c| c.elements).sum();
        if covers != b.range.len() {
            return Err(OptimError::Partition {
                name: b.name.clone(),
                shape: b.shape.clone(),
                what: format!(
                    "the partition covers {covers} of its elements: use a partition of the same layout"
                ),
            });
        }
    }
    Ok(())
}

impl<T: Real> AdamMini<T> {
    /// Continues AdamW: every block's second moment becomes the mean of AdamW's over the block. The format stays.
    ///
    /// # Errors
    /// [`OptimError`] when the partition was made for another layout.
    pub fn from_adamw(from: &AdamW<T>, partition: Partition) -> Result<Self, OptimError> {
        let own = &from.inner;
        check(&own.layout, &partition)?;
        let v = collapse(&from.second_moments(), &partition)?;
        let state = Snapshot { t: own.t, m: own.m.numbers().into_owned(), v };
        Self::restore_as(&own.layout, partition, own.params, own.format, &state)
    }

    /// AdamW with every parameter's second moment set to that of its block. Block sums are conserved, up to the
    /// rounding of the format, which stays.
    pub fn to_adamw(&self) -> AdamW<T> {
        let own = &self.inner;
        let mut to = AdamW::with_format(&own.layout, &own.partition, own.params, own.format);
        // The partition is the optimizer's own, so that the lengths agree.
        if let (Second::Each(v), Ok(each)) = (&mut to.inner.v, expand(self.second_moments(), &own.partition))
        {
            v.fill(&each, own.t);
        }
        to.inner.m.fill(&own.m.numbers(), own.t);
        to.inner.t = own.t;
        to
    }

    /// The state as plain numbers; first moments are decoded where they are kept in another format.
    pub fn snapshot(&self) -> Snapshot<T> {
        Snapshot { t: self.inner.t, m: self.first_moments().into_owned(), v: self.second_moments().to_vec() }
    }

    /// Continues from plain numbers.
    ///
    /// # Errors
    /// [`OptimError`] when layout, partition and state do not fit one another.
    pub fn restore(
        layout: &Layout,
        partition: Partition,
        params: AdamParams,
        state: &Snapshot<T>,
    ) -> Result<Self, OptimError> {
        check(layout, &partition)?;
        Self::restore_as(layout, partition, params, StateFormat::Full, state)
    }

    fn restore_as(
        layout: &Layout,
        partition: Partition,
        params: AdamParams,
        format: StateFormat,
        state: &Snapshot<T>,
    ) -> Result<Self, OptimError> {
        if state.m.len() != layout.len() || state.v.len() != partition.blocks() {
            return Err(other_partition(format!(
                "{} blocks of {} parameters for a state of {} and {}",
                partition.blocks(),
                layout.len(),
                state.v.len(),
                state.m.len()
            )));
        }
        let mut to = Moments::blocks(layout, partition, params, format);
        if let Second::Blocks { v, .. } = &mut to.v {
            v.copy_from_slice(&state.v);
        }
        to.m.fill(&state.m, state.t);
        to.t = state.t;
        Ok(AdamMini { inner: to })
    }
}
