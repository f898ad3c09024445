//! First and second moments over a partition: the common body of Adam-mini and AdamW.

use rhumb_core::{CheckpointError, Layout, StateReader, StateWriter};
use rhumb_linalg::Real;

use crate::adam_mini::Partition;
use crate::adam_mini::rule::{self, Coefficients};
use crate::config::AdamParams;
use crate::kernel::PARALLEL_FROM;
use crate::state::{Meta, TensorMeta};
use crate::store::{Moment, StateFormat, Store, View};

/// One second moment per block, or per parameter.
#[derive(Clone, Debug)]
pub(crate) enum Second<T> {
    Blocks {
        v: Vec<T>,
        /// Where those of each tensor begin.
        at: Vec<usize>,
    },
    Each(Store<T>),
}

#[derive(Clone, Debug)]
pub(crate) struct Moments<T> {
    pub(crate) layout: Layout,
    pub(crate) partition: Partition,
    pub(crate) params: AdamParams,
    pub(crate) format: StateFormat,
    pub(crate) m: Store<T>,
    pub(crate) v: Second<T>,
    pub(crate) t: u64,
}

impl<T: Real> Moments<T> {
    /// Zero moments with one second moment per block of the partition.
    pub(crate) fn blocks(
        layout: &Layout,
        partition: Partition,
        params: AdamParams,
        format: StateFormat,
    ) -> Self {
        let mut len = 0;
        let at = partition
            .tensors()
            .iter()
            .map(|p| {
                let here = len;
                len += p.blocks();
                here
            })
            .collect();
        let v = Second::Blocks { v: vec![T::ZERO; len], at };
        Self::with(layout, partition, params, format, v)
    }

    /// Zero moments with one second moment per parameter; the partition's blocks are single elements.
    pub(crate) fn each(
        layout: &Layout,
        partition: Partition,
        params: AdamParams,
        format: StateFormat,
    ) -> Self {
        let v = Store::new(format, Moment::Second, layout, |i| runs(&partition, i).collect());
        Self::with(layout, partition, params, format, Second::Each(v))
    }

    fn with(
        layout: &Layout,
        partition: Partition,
        params: AdamParams,
        format: StateFormat,
        v: Second<T>,
    ) -> Self {
        let m = Store::new(format, Moment::First, layout, |i| runs(&partition, i).collect());
        Moments { layout: layout.clone(), partition, params, format, m, v, t: 0 }
    }

    /// A whole step inside one visit of the thread pool: entering it per tensor would cost a wake-up each.
    pub(crate) fn step(&mut self, lr: f64, params: &mut [T], grad: &[T]) {
        self.t += 1;
        let mut all = || {
            for i in 0..self.layout.blocks().len() {
                let r = self.layout.blocks()[i].range.clone();
                self.step_block(lr, i, &mut params[r.clone()], &grad[r]);
            }
        };
        if grad.len() < PARALLEL_FROM { all() } else { rayon::scope(|_| all()) }
    }

    pub(crate) fn step_block(&mut self, lr: f64, block: usize, p: &mut [T], g: &[T]) {
        let plan = &self.partition.tensors()[block];
        let decay = if plan.decay { self.params.weight_decay() } else { 0.0 };
        // Without a call of `begin` this is the first step.
        let t = self.t.max(1) as f64;
        let c = Coefficients {
            step: lr / (1.0 - self.params.beta1().powf(t)),
            keep: 1.0 - lr * decay,
            beta1: self.params.beta1(),
            beta2: self.params.beta2(),
            eps: self.params.eps(),
            root2: (1.0 - self.params.beta2().powf(t)).sqrt(),
        };
        let mut m = self.m.view(block, self.t);
        let (mut p, mut g) = (p, g);
        let mut v = match &mut self.v {
            Second::Each(v) => return rule::per_element(&c, p, m, v.view(block, self.t), g),
            Second::Blocks { v, at } => &mut v[at[block]..],
        };
        for cut in &plan.cuts {
            let (now_p, later_p) = p.split_at_mut(cut.elements);
            let (now_m, later_m) = m.split_at(cut.elements);
            let (now_v, later_v) = v.split_at_mut(cut.elements / cut.block);
            let (now_g, later_g) = g.split_at(cut.elements);
            if cut.block == 1 {
                rule::per_element(&c, now_p, now_m, View::Full(now_v), now_g);
            } else {
                rule::apply(&c, *cut, now_p, now_m, now_v, now_g);
            }
            (p, m, v, g) = (later_p, later_m, later_v, later_g);
        }
    }

    pub(crate) fn state_bytes(&self) -> usize {
        self.m.bytes()
            + match &self.v {
                Second::Blocks { v, .. } => v.len() * T::BYTES,
                Second::Each(v) => v.bytes(),
            }
    }

    fn meta(&self, kind: &str) -> Meta {
        let tensors = self.layout.blocks().iter().zip(self.partition.tensors());
        Meta {
            kind: kind.to_owned(),
            partition: self.partition.tag().to_owned(),
            scalar: T::NAME.to_owned(),
            state: self.format,
            t: self.t,
            tensors: tensors
                .map(|(b, p)| TensorMeta {
                    name: b.name.clone(),
                    shape: b.shape.clone(),
                    cuts: p.cuts.clone(),
                })
                .collect(),
        }
    }

    pub(crate) fn save(&self, kind: &str, out: &mut StateWriter<'_>) -> Result<(), CheckpointError> {
        out.put_json("optimizer", &self.meta(kind))?;
        self.m.save("m", &self.layout, out)?;
        match &self.v {
            Second::Each(v) => v.save("v", &self.layout, out),
            Second::Blocks { v, at } => {
                for (i, b) in self.layout.blocks().iter().enumerate() {
                    out.put_reals(&format!("v/{}", b.name), &v[block_range(&self.partition, at, i)])?;
                }
                Ok(())
            }
        }
    }

    pub(crate) fn load(&mut self, kind: &str, src: &mut StateReader) -> Result<(), CheckpointError> {
        let found: Meta = src.json("optimizer")?;
        self.meta(kind).accept(&found)?;
        self.m.load("m", &self.layout, src)?;
        match &mut self.v {
            Second::Each(v) => v.load("v", &self.layout, src)?,
            Second::Blocks { v, at } => {
                for (i, b) in self.layout.blocks().iter().enumerate() {
                    src.reals(&format!("v/{}", b.name), &mut v[block_range(&self.partition, at, i)])?;
                }
            }
        }
        self.t = found.t;
        Ok(())
    }
}

/// Where a tensor is divided.
pub(crate) fn runs(partition: &Partition, tensor: usize) -> impl Iterator<Item = usize> + Clone {
    partition.tensors()[tensor].cuts.iter().map(|c| c.elements)
}

fn block_range(partition: &Partition, at: &[usize], tensor: usize) -> std::ops::Range<usize> {
    at[tensor]..at[tensor] + partition.tensors()[tensor].blocks()
}
