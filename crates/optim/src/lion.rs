use rhumb_core::{CheckpointError, Layout, Optimizer, StateReader, StateWriter};
use rhumb_linalg::Real;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::adam_mini::Partition;
use crate::config::{at_least_zero, below_one};
use crate::kernel::vectorised;
use crate::{OptimError, plain};

/// Settings of [`Lion`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LionConfig {
    /// Weight of the momentum in the direction.
    pub beta1: f64,
    /// Decay rate of the momentum.
    pub beta2: f64,
}

impl Default for LionConfig {
    fn default() -> Self {
        LionConfig { beta1: 0.9, beta2: 0.99 }
    }
}

/// Lion: the sign of an interpolated momentum.
///
/// # Equation
/// u = sign(β₁ m + (1 − β₁) g) <br>
/// p ← p (1 − lr wd) − lr u <br>
/// m ← β₂ m + (1 − β₂) g
///
/// # Reference
/// Chen et al., *Symbolic Discovery of Optimization Algorithms*, arXiv 2302.06675, Algorithm 2. The sign of 0 is
/// 0; NaN stays NaN. The paper uses learning rates 3 to 10 times below AdamW's, and weight decay as much above.
///
/// # Cost
/// `P * T::BYTES` bytes of state; one pass over parameters, momentum and gradient.
#[derive(Clone, Debug)]
pub struct Lion<T> {
    layout: Layout,
    decay: Vec<bool>,
    config: LionConfig,
    weight_decay: f64,
    m: Vec<T>,
    t: u64,
}

impl<T: Real> Lion<T> {
    /// Zero momentum. `decay` says on which tensors weight decay acts; its blocks do not matter.
    ///
    /// # Errors
    /// [`OptimError::Setting`] unless `0 <= beta < 1` and `weight_decay >= 0`.
    pub fn new(
        layout: &Layout,
        decay: &Partition,
        config: LionConfig,
        weight_decay: f64,
    ) -> Result<Self, OptimError> {
        config.check()?;
        at_least_zero("weight_decay", weight_decay)?;
        Ok(Lion {
            layout: layout.clone(),
            decay: decay.tensors().iter().map(|t| t.decay).collect(),
            config,
            weight_decay,
            m: vec![T::ZERO; layout.len()],
            t: 0,
        })
    }
}

impl LionConfig {
    pub(crate) fn check(&self) -> Result<(), OptimError> {
        below_one("lion.beta1", self.beta1)?;
        below_one("lion.beta2", self.beta2)
    }
}

impl<T: Real> Optimizer<T> for Lion<T> {
    fn name(&self) -> &'static str {
        "lion"
    }
    fn layout(&self) -> &Layout {
        &self.layout
    }
    fn begin(&mut self) {
        self.t += 1;
    }
    fn step_block(&mut self, lr: f64, block: usize, params: &mut [T], grad: &[T]) {
        let wd = if self.decay[block] { self.weight_decay } else { 0.0 };
        let (keep, lr) = (T::of(1.0 - lr * wd), T::of(lr));
        let (old1, new1) = (T::of(self.config.beta1), T::of(1.0 - self.config.beta1));
        let (old2, new2) = (T::of(self.config.beta2), T::of(1.0 - self.config.beta2));
        let m = &mut self.m[self.layout.blocks()[block].range.clone()];
        plain::each(params, m, grad, |p, m, g| {
            vectorised(
                #[inline(always)]
                || {
                    for ((p, m), g) in p.iter_mut().zip(m).zip(g) {
                        let c = old1 * *m + new1 * *g;
                        *p = keep * *p - lr * sign(c);
                        *m = old2 * *m + new2 * *g;
                    }
                },
            );
        });
    }
    fn state_bytes(&self) -> usize {
        self.m.len() * T::BYTES
    }
    fn save(&self, out: &mut StateWriter<'_>) -> Result<(), CheckpointError> {
        out.put_json("optimizer", &plain::meta::<T>("lion", "none".to_owned(), self.t, &self.layout))?;
        plain::save("m", &self.layout, &self.m, out)
    }
    fn load(&mut self, src: &mut StateReader) -> Result<(), CheckpointError> {
        let found = src.json("optimizer")?;
        plain::meta::<T>("lion", "none".to_owned(), self.t, &self.layout).accept(&found)?;
        plain::load("m", &self.layout, &mut self.m, src)?;
        self.t = found.t;
        Ok(())
    }
}

#[inline(always)]
fn sign<T: Real>(x: T) -> T {
    if x > T::ZERO {
        T::ONE
    } else if x < T::ZERO {
        -T::ONE
    } else {
        x
    }
}
