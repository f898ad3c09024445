//! First and second moments over a partition: the common body of Adam-mini and AdamW.

use rhumb_core::{CheckpointError, Layout, StateReader, StateWriter};
use rhumb_linalg::Real;

use crate::adam_mini::Partition;
use crate::adam_mini::rule::{self, Coefficients};
use crate::config::AdamParams;
use crate::state::{Meta, TensorMeta};

#[derive(Clone, Debug)]
pub(crate) struct Moments<T> {
    pub(crate) layout: Layout,
    pub(crate) partition: Partition,
    pub(crate) params: AdamParams,
    pub(crate) m: Vec<T>,
    pub(crate) v: Vec<T>,
    /// Where the second moments of each tensor begin.
    pub(crate) v_at: Vec<usize>,
    pub(crate) t: u64,
}

impl<T: Real> Moments<T> {
    pub(crate) fn new(layout: &Layout, partition: Partition, params: AdamParams) -> Self {
        let mut at = 0;
        let v_at = partition
            .tensors()
            .iter()
            .map(|p| {
                let here = at;
                at += p.blocks();
                here
            })
            .collect();
        Moments {
            m: vec![T::ZERO; layout.len()],
            v: vec![T::ZERO; at],
            v_at,
            layout: layout.clone(),
            partition,
            params,
            t: 0,
        }
    }

    pub(crate) fn step_block(&mut self, lr: f64, block: usize, p: &mut [T], g: &[T]) {
        let plan = &self.partition.tensors()[block];
        let decay = if plan.decay { self.params.weight_decay() } else { 0.0 };
        let t = self.t as f64;
        let c = Coefficients {
            step: lr / (1.0 - self.params.beta1().powf(t)),
            keep: 1.0 - lr * decay,
            beta1: self.params.beta1(),
            beta2: self.params.beta2(),
            eps: self.params.eps(),
            root2: (1.0 - self.params.beta2().powf(t)).sqrt(),
        };
        let mut m = &mut self.m[self.layout.blocks()[block].range.clone()];
        let mut v = &mut self.v[self.v_at[block]..];
        let (mut p, mut g) = (p, g);
        for cut in &plan.cuts {
            let (now_p, later_p) = p.split_at_mut(cut.elements);
            let (now_m, later_m) = m.split_at_mut(cut.elements);
            let (now_v, later_v) = v.split_at_mut(cut.elements / cut.block);
            let (now_g, later_g) = g.split_at(cut.elements);
            rule::apply(&c, *cut, now_p, now_m, now_v, now_g);
            (p, m, v, g) = (later_p, later_m, later_v, later_g);
        }
    }

    pub(crate) fn state_bytes(&self) -> usize {
        (self.m.len() + self.v.len()) * T::BYTES
    }

    fn meta(&self, kind: &str) -> Meta {
        let tensors = self.layout.blocks().iter().zip(self.partition.tensors());
        Meta {
            kind: kind.to_owned(),
            partition: self.partition.tag().to_owned(),
            scalar: T::NAME.to_owned(),
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

    fn v_range(&self, block: usize) -> std::ops::Range<usize> {
        let at = self.v_at[block];
        at..at + self.partition.tensors()[block].blocks()
    }

    pub(crate) fn save(&self, kind: &str, out: &mut StateWriter<'_>) -> Result<(), CheckpointError> {
        out.put_json("optimizer", &self.meta(kind))?;
        for (i, b) in self.layout.blocks().iter().enumerate() {
            out.put_reals(&format!("m/{}", b.name), &self.m[b.range.clone()])?;
            out.put_reals(&format!("v/{}", b.name), &self.v[self.v_range(i)])?;
        }
        Ok(())
    }

    pub(crate) fn load(&mut self, kind: &str, src: &mut StateReader) -> Result<(), CheckpointError> {
        let found: Meta = src.json("optimizer")?;
        self.meta(kind).accept(&found)?;
        for i in 0..self.layout.blocks().len() {
            let v = self.v_range(i);
            let b = &self.layout.blocks()[i];
            src.reals(&format!("m/{}", b.name), &mut self.m[b.range.clone()])?;
            src.reals(&format!("v/{}", b.name), &mut self.v[v])?;
        }
        self.t = found.t;
        Ok(())
    }
}
