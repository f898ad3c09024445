//! Adam-mini: one second moment per block of parameters.

mod convert;
mod partition;
pub(crate) mod rule;

use std::borrow::Cow;

use rhumb_core::{CheckpointError, Layout, Optimizer, StateReader, StateWriter};
use rhumb_linalg::Real;

pub use self::convert::{Snapshot, collapse, expand};
pub use self::partition::{
    Cut, Finding, Keywords, NameOptions, ParamRow, Partition, Pitfall, Preset, PresetDefaults, TensorPlan,
    Unit, UnitRule, WordSet, param_table, param_table_of, param_table_with,
};
use crate::moments::{Moments, Second};
use crate::{AdamParams, StateFormat};

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
/// `T::BYTES * (P + blocks)` bytes of state, less in another [`StateFormat`]. The gradient is read from memory once;
/// blocks above 2^17 scalars take a second reading.
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
        Self::with_format(layout, partition, params, StateFormat::Full)
    }

    /// As [`AdamMini::new`], with the first moments in a format. The second moments are always in the scalar type.
    pub fn with_format(
        layout: &Layout,
        partition: Partition,
        params: AdamParams,
        format: StateFormat,
    ) -> Self {
        AdamMini { inner: Moments::blocks(layout, partition, params, format) }
    }

    /// The same with another stream of stochastic roundings, which [`StateFormat::Bf16`] draws; the first is 0.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.inner.m.seed(seed);
        self
    }

    /// The format of the first moments.
    pub fn format(&self) -> StateFormat {
        self.inner.format
    }

    /// The partition.
    pub fn partition(&self) -> &Partition {
        &self.inner.partition
    }

    /// The first moments, flat like the parameters; decoded where the format is not theirs.
    pub fn first_moments(&self) -> Cow<'_, [T]> {
        self.inner.m.numbers()
    }

    /// The second moments, block after block in the order of the layout.
    pub fn second_moments(&self) -> &[T] {
        match &self.inner.v {
            Second::Blocks { v, .. } => v,
            Second::Each(_) => &[],
        }
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
    fn step(&mut self, lr: f64, params: &mut [T], grad: &[T]) {
        self.inner.step(lr, params, grad);
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
