//! Adam-mini: one second moment per block of parameters.

mod partition;
pub(crate) mod rule;

use rhumb_core::{CheckpointError, Layout, Optimizer, StateReader, StateWriter};
use rhumb_linalg::Real;

pub use self::partition::{
    Cut, Finding, Keywords, NameOptions, ParamRow, Partition, Pitfall, Preset, PresetDefaults, TensorPlan,
    WordSet, param_table, param_table_with,
};
use crate::moments::Moments;
use crate::{AdamParams, AdamW, OptimError};

/// Adam-mini.
///
/// # Equation
/// For a block of K parameters with gradient g, at step t = 1, 2, ...:
///
/// p ← p (1 − lr wd) <br>
/// m ← m + (1 − β₁)(g − m) <br>
/// v ← β₂ v + (1 − β₂) Σ g² / K (one number) <br>
/// p ← p − lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
///
/// # Reference
/// Zhang, Chen, Li, Ding, Wu, Ye, Luo, Sun, *Adam-mini: Use Fewer Learning Rates To Gain More*,
/// arXiv 2406.16793, and the PyPI package `adam-mini` 1.1.1. Deviation: v is accumulated in `f64` and kept in
/// the scalar type of the parameters, never in fewer bits.
///
/// # Shapes and units
/// `m`: `[P]`; `v`: one per block of the [`Partition`].
///
/// # Cost
/// `T::BYTES * (P + blocks)` bytes of state. The gradient is read from memory once; blocks above 2^18
/// scalars take a second reading.
///
/// ```
/// use rhumb_core::{Layout, Optimizer, Role};
/// use rhumb_optim::{AdamMini, AdamParams, Partition, Preset};
/// let mut layout = Layout::new();
/// layout.push("mlp.w", &[2, 3], Role::Mlp);
/// let partition = Partition::preset(Preset::Rhumb, &layout)?;
/// let mut o = AdamMini::<f32>::new(&layout, partition, AdamParams::new(0.9, 0.95, 1e-8, 0.1)?);
/// assert_eq!(o.state_bytes(), 4 * (6 + 2));
/// o.step(0.01, &mut [0.1; 6], &[1.0; 6]);
/// # Ok::<(), rhumb_optim::OptimError>(())
/// ```
#[derive(Clone, Debug)]
pub struct AdamMini<T> {
    inner: Moments<T>,
}

impl<T: Real> AdamMini<T> {
    /// Zero moments for a layout and its partition.
    pub fn new(layout: &Layout, partition: Partition, params: AdamParams) -> Self {
        AdamMini { inner: Moments::new(layout, partition, params) }
    }

    /// The partition.
    pub fn partition(&self) -> &Partition {
        &self.inner.partition
    }

    /// The first moments, flat like the parameters.
    pub fn first_moments(&self) -> &[T] {
        &self.inner.m
    }

    /// The second moments, block after block in the order of the layout.
    pub fn second_moments(&self) -> &[T] {
        &self.inner.v
    }

    /// Continues AdamW: every block's second moment becomes the mean of AdamW's over the block.
    ///
    /// # Errors
    /// [`OptimError::Setting`] when the partition was made for another number of parameters.
    pub fn from_adamw(from: &AdamW<T>, partition: Partition) -> Result<Self, OptimError> {
        let covered: usize = partition.tensors().iter().flat_map(|t| &t.cuts).map(|c| c.elements).sum();
        if covered != from.inner.m.len() {
            return Err(OptimError::Setting {
                key: "partition",
                value: format!("{covered} parameters"),
                want: "a partition of the same layout",
            });
        }
        let mut to = Moments::new(&from.inner.layout, partition, from.inner.params);
        let mut rest = &from.inner.v[..];
        let mut means = Vec::with_capacity(to.v.len());
        for cut in to.partition.tensors().iter().flat_map(|t| &t.cuts) {
            let (now, later) = rest.split_at(cut.elements);
            means.extend(
                now.chunks_exact(cut.block)
                    .map(|b| T::of(b.iter().map(|v| v.f64()).sum::<f64>() / b.len() as f64)),
            );
            rest = later;
        }
        to.v = means;
        to.m.copy_from_slice(&from.inner.m);
        to.t = from.inner.t;
        Ok(AdamMini { inner: to })
    }

    /// AdamW with every parameter's second moment set to that of its block. Block sums are conserved.
    pub fn to_adamw(&self) -> AdamW<T> {
        let own = &self.inner;
        let mut partition = Partition::per_element(&own.layout, Preset::Rhumb);
        partition.copy_decay(&own.partition);
        let mut to = Moments::new(&own.layout, partition, own.params);
        let blocks = own
            .partition
            .tensors()
            .iter()
            .flat_map(|t| &t.cuts)
            .flat_map(|c| std::iter::repeat_n(c.block, c.elements / c.block));
        to.v = own.v.iter().zip(blocks).flat_map(|(v, n)| std::iter::repeat_n(*v, n)).collect();
        to.m.copy_from_slice(&own.m);
        to.t = own.t;
        AdamW { inner: to }
    }
}

impl<T: Real> Optimizer<T> for AdamMini<T> {
    fn name(&self) -> &'static str {
        "adam-mini"
    }
    fn layout(&self) -> &Layout {
        &self.inner.layout
    }
    fn begin(&mut self) {
        self.inner.t += 1;
    }
    fn step_block(&mut self, lr: f64, block: usize, params: &mut [T], grad: &[T]) {
        self.inner.step_block(lr, block, params, grad);
    }
    fn state_bytes(&self) -> usize {
        self.inner.state_bytes()
    }
    fn save(&self, out: &mut StateWriter<'_>) -> Result<(), CheckpointError> {
        self.inner.save("adam-mini", out)
    }
    fn load(&mut self, src: &mut StateReader) -> Result<(), CheckpointError> {
        self.inner.load("adam-mini", src)
    }
}
