use rhumb_core::{CheckpointError, Layout, Optimizer, StateReader, StateWriter};
use rhumb_linalg::Real;
use rhumb_linalg::par::{ParSlice, ParSliceMut};

use crate::SgdParams;
use crate::adam_mini::Partition;
use crate::kernel::{PARALLEL_FROM, TASK};
use crate::state::{Meta, TensorMeta};

/// Stochastic gradient descent with momentum, plain or Nesterov's.
///
/// # Equation
/// g ← g + wd p <br>
/// b ← μ b + g <br>
/// p ← p − lr b, or with Nesterov p ← p − lr (g + μ b)
///
/// # Reference
/// Sutskever, Martens, Dahl, Hinton, ICML 2013, in PyTorch's form (no dampening; the decay is part of the
/// gradient, not decoupled).
///
/// # Cost
/// `P * T::BYTES` bytes of state with momentum, none without.
#[derive(Clone, Debug)]
pub struct Sgd<T> {
    layout: Layout,
    decay: Vec<bool>,
    params: SgdParams,
    buffer: Vec<T>,
    t: u64,
}

impl<T: Real> Sgd<T> {
    /// A zero buffer. `decay` says on which tensors weight decay acts; its blocks do not matter.
    pub fn new(layout: &Layout, decay: &Partition, params: SgdParams) -> Self {
        let n = if params.momentum() > 0.0 { layout.len() } else { 0 };
        Sgd {
            layout: layout.clone(),
            decay: decay.tensors().iter().map(|t| t.decay).collect(),
            params,
            buffer: vec![T::ZERO; n],
            t: 0,
        }
    }

    fn meta(&self) -> Meta {
        Meta {
            kind: "sgd".to_owned(),
            partition: if self.buffer.is_empty() { "none" } else { "momentum" }.to_owned(),
            scalar: T::NAME.to_owned(),
            state: crate::StateFormat::Full,
            t: self.t,
            tensors: self
                .layout
                .blocks()
                .iter()
                .map(|b| TensorMeta { name: b.name.clone(), shape: b.shape.clone(), cuts: Vec::new() })
                .collect(),
        }
    }
}

impl<T: Real> Optimizer<T> for Sgd<T> {
    fn name(&self) -> &'static str {
        "sgd"
    }
    fn layout(&self) -> &Layout {
        &self.layout
    }
    fn begin(&mut self) {
        self.t += 1;
    }
    fn step_block(&mut self, lr: f64, block: usize, params: &mut [T], grad: &[T]) {
        let wd = T::of(if self.decay[block] { self.params.weight_decay() } else { 0.0 });
        let (lr, mu, nesterov) = (T::of(lr), T::of(self.params.momentum()), self.params.nesterov());
        if self.buffer.is_empty() {
            let plain = |(p, g): (&mut [T], &[T])| {
                for (p, g) in p.iter_mut().zip(g) {
                    *p -= lr * (*g + wd * *p);
                }
            };
            if params.len() < PARALLEL_FROM {
                plain((params, grad));
            } else {
                params.par_chunks_mut(TASK).zip(grad.par_chunks(TASK)).for_each(plain);
            }
            return;
        }
        let buffer = &mut self.buffer[self.layout.blocks()[block].range.clone()];
        let heavy = |((p, b), g): ((&mut [T], &mut [T]), &[T])| {
            for ((p, b), g) in p.iter_mut().zip(b).zip(g) {
                let g = *g + wd * *p;
                *b = mu * *b + g;
                *p -= lr * if nesterov { g + mu * *b } else { *b };
            }
        };
        if params.len() < PARALLEL_FROM {
            heavy(((params, buffer), grad));
        } else {
            params
                .par_chunks_mut(TASK)
                .zip(buffer.par_chunks_mut(TASK))
                .zip(grad.par_chunks(TASK))
                .for_each(heavy);
        }
    }
    fn state_bytes(&self) -> usize {
        self.buffer.len() * T::BYTES
    }
    fn save(&self, out: &mut StateWriter<'_>) -> Result<(), CheckpointError> {
        out.put_json("optimizer", &self.meta())?;
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.layout
            .blocks()
            .iter()
            .try_for_each(|b| out.put_reals(&format!("momentum/{}", b.name), &self.buffer[b.range.clone()]))
    }
    fn load(&mut self, src: &mut StateReader) -> Result<(), CheckpointError> {
        let found: Meta = src.json("optimizer")?;
        self.meta().accept(&found)?;
        if !self.buffer.is_empty() {
            for b in self.layout.blocks() {
                src.reals(&format!("momentum/{}", b.name), &mut self.buffer[b.range.clone()])?;
            }
        }
        self.t = found.t;
        Ok(())
    }
}
