use std::borrow::Cow;

use rhumb_core::{CheckpointError, Layout, Optimizer, StateReader, StateWriter};
use rhumb_linalg::Real;

use crate::adam_mini::Partition;
use crate::moments::{Moments, Second};
use crate::{AdamParams, StateFormat};

/// Adam with decoupled weight decay.
///
/// # Equation
/// As [`crate::AdamMini`] with blocks of one element:
/// p ← p (1 − lr wd) − lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
///
/// # Reference
/// Kingma, Ba, arXiv 1412.6980, Algorithm 1; Loshchilov, Hutter, arXiv 1711.05101, Algorithm 2; the order of
/// operations is PyTorch's. Whether norms and biases decay is the choice of the [`Partition`].
///
/// # Cost
/// `2 P * T::BYTES` bytes of state, less in another [`StateFormat`]; one pass over parameters, moments and gradient.
#[derive(Clone, Debug)]
pub struct AdamW<T> {
    pub(crate) inner: Moments<T>,
}

impl<T: Real> AdamW<T> {
    /// Zero moments. `decay` says on which tensors weight decay acts; its blocks do not matter.
    pub fn new(layout: &Layout, decay: &Partition, params: AdamParams) -> Self {
        Self::with_format(layout, decay, params, StateFormat::Full)
    }

    /// As [`AdamW::new`], with the moments in a format. `bf16` acts on the first moments only.
    pub fn with_format(layout: &Layout, decay: &Partition, params: AdamParams, format: StateFormat) -> Self {
        let mut partition = Partition::per_element(layout, crate::Preset::Rhumb);
        partition.copy_decay(decay);
        AdamW { inner: Moments::each(layout, partition, params, format) }
    }

    /// The same with another stream of stochastic roundings, which [`StateFormat::Bf16`] draws; the first is 0.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.inner.m.seed(seed);
        self
    }

    /// The format of the moments.
    pub fn format(&self) -> StateFormat {
        self.inner.format
    }

    /// The first moments, flat like the parameters; decoded where the format is not theirs.
    pub fn first_moments(&self) -> Cow<'_, [T]> {
        self.inner.m.numbers()
    }

    /// The second moments, flat like the parameters; decoded where the format is not theirs.
    pub fn second_moments(&self) -> Cow<'_, [T]> {
        match &self.inner.v {
            Second::Each(v) => v.numbers(),
            Second::Blocks { v, .. } => Cow::Borrowed(v),
        }
    }
}

impl<T: Real> Optimizer<T> for AdamW<T> {
    fn name(&self) -> &'static str {
        "adamw"
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
        self.inner.save("adamw", out)
    }
    fn load(&mut self, src: &mut StateReader) -> Result<(), CheckpointError> {
        self.inner.load("adamw", src)
    }
}
