use rhumb_core::{Block, CheckpointError, Layout, Optimizer, Role, StateReader, StateWriter};
use rhumb_linalg::Real;
use rhumb_linalg::gemm::{Init, Mat, gemm};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::adam_mini::{Cut, Partition, TensorPlan};
use crate::clip::global_norm;
use crate::config::{at_least_zero, below_one, setting};
use crate::kernel::PARALLEL_FROM;
use crate::{AdamParams, AdamW, OptimError, plain};

/// How the learning rate of an orthogonalised update depends on the shape `[m, n]` of its matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdjustLr {
    /// √max(1, m/n), as Jordan's.
    #[default]
    Original,
    /// 0.2 √max(m, n): the size of an AdamW update (Liu et al., arXiv 2502.16982).
    MatchRmsAdamw,
}

/// Which projections are orthogonalised head by head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PerHead {
    /// None: queries, keys and values are one matrix each.
    #[default]
    Off,
    /// Queries and keys.
    Qk,
    /// Queries, keys and values.
    Qkv,
}

/// Settings of [`Muon`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MuonConfig {
    /// Decay rate of the momentum.
    pub momentum: f64,
    /// Nesterov's form.
    pub nesterov: bool,
    /// Steps of the Newton-Schulz iteration.
    pub ns_steps: u32,
    /// Its coefficients: X ← a X + (b A + c A²) X with A = X Xᵀ.
    pub ns_coefficients: [f64; 3],
    /// Smallest norm by which a matrix is divided before the iteration.
    pub eps: f64,
    /// How the learning rate depends on the shape.
    pub adjust_lr: AdjustLr,
    /// Which projections are cut into heads.
    pub per_head: PerHead,
    /// Learning rate of the tensors that AdamW updates, divided by that of the matrices.
    pub adamw_lr_ratio: f64,
}

impl Default for MuonConfig {
    fn default() -> Self {
        MuonConfig {
            momentum: 0.95,
            nesterov: true,
            ns_steps: 5,
            ns_coefficients: [3.4445, -4.7750, 2.0315],
            eps: 1e-7,
            adjust_lr: AdjustLr::default(),
            per_head: PerHead::default(),
            adamw_lr_ratio: 1.0,
        }
    }
}

impl MuonConfig {
    pub(crate) fn check(&self) -> Result<(), OptimError> {
        below_one("muon.momentum", self.momentum)?;
        at_least_zero("muon.adamw_lr_ratio", self.adamw_lr_ratio)?;
        if !(self.eps > 0.0 && self.eps.is_finite()) {
            return setting("muon.eps", self.eps, "a finite number > 0, e.g. 1e-7");
        }
        if !(1..100).contains(&self.ns_steps) {
            return setting("muon.ns_steps", f64::from(self.ns_steps), "a whole number from 1 to 99, e.g. 5");
        }
        match self.ns_coefficients.iter().find(|c| !c.is_finite()) {
            Some(c) => {
                setting("muon.ns_coefficients", *c, "three finite numbers, e.g. 3.4445, -4.775, 2.0315")
            }
            None => Ok(()),
        }
    }

    /// The matrices of a tensor, in storage order; none for a tensor that AdamW updates.
    fn matrices(&self, b: &Block) -> Vec<(usize, usize)> {
        let rows = b.shape.first().copied().unwrap_or(0);
        if matches!(b.role, Role::Embed | Role::Head | Role::Position | Role::Norm | Role::Bias)
            || b.shape.len() < 2
            || b.range.is_empty()
        {
            return Vec::new();
        }
        let width = b.range.len() / rows;
        let cut = |rows: usize, head: usize, split: bool| match head {
            head if split && head > 0 && rows.is_multiple_of(head) => vec![(head, width); rows / head],
            _ => vec![(rows, width)],
        };
        let (qk, values) = (self.per_head != PerHead::Off, self.per_head == PerHead::Qkv);
        match b.role {
            // Where queries, keys and values take turns, only heads lie together.
            Role::Query { head_dim } | Role::Key { head_dim } | Role::QkvGrouped { head_dim, .. } => {
                cut(rows, head_dim, qk)
            }
            Role::Value { head_dim } => cut(rows, head_dim, values),
            Role::Qkv { head_dim, heads, kv_heads } if (heads + 2 * kv_heads) * head_dim == rows => {
                let mut all = cut(heads * head_dim, head_dim, qk);
                all.extend(cut(kv_heads * head_dim, head_dim, qk));
                all.extend(cut(kv_heads * head_dim, head_dim, values));
                all.retain(|m| m.0 > 0);
                all
            }
            Role::Conv => vec![(rows, width)],
            _ if b.shape.len() == 3 => {
                plain::matrices(&b.shape).map_or_else(Vec::new, |(m, n, batch)| vec![(m, n); batch])
            }
            _ => vec![(rows, width)],
        }
    }

    /// Scalars of state for one tensor.
    pub(crate) fn state_len(&self, b: &Block) -> usize {
        if self.matrices(b).is_empty() { 2 * b.range.len() } else { b.range.len() }
    }
}

/// Muon: momentum with every singular value brought near one, for hidden matrices; AdamW for the rest.
///
/// # Equation
/// For a matrix `[m, n]`:
///
/// b ← μ b + (1 − μ) g, u = b, or with Nesterov u = (1 − μ) g + μ b <br>
/// X = u / max(‖u‖, ε), then k times X ← a X + (b A + c A²) X with A = X Xᵀ <br>
/// p ← p (1 − lr wd) − lr s X, where s is that of [`AdjustLr`]
///
/// Embeddings, output heads, positions, norms, biases and all vectors follow [`AdamW`]. Queries, keys and values
/// stacked in one tensor are three matrices; with [`PerHead`] each head is one. Three-dimensional tensors are stacks
/// of matrices, convolutions and tensors of more dimensions one matrix of the first dimension by the rest. In a tensor
/// whose queries, keys and values take turns, all heads are cut or none.
///
/// # Reference
/// Jordan et al., *Muon: An optimizer for hidden layers in neural networks*, 2024; Liu et al., arXiv 2502.16982.
/// The order of operations is that of `torch.optim.Muon`, which runs the iteration in bfloat16; here it runs in the
/// scalar type.
///
/// # Cost
/// `T::BYTES` bytes of state per scalar of a matrix, twice that elsewhere; scratch for the largest matrix,
/// `T::BYTES * (2 m n + 2 min(m, n)²)`, is allocated with the first step and kept. With s = min(m, n) and l = max(m, n) an iteration
/// takes 4 s² l + 2 s³ operations.
#[derive(Clone, Debug)]
pub struct Muon<T> {
    layout: Layout,
    decay: Vec<bool>,
    config: MuonConfig,
    weight_decay: f64,
    /// Matrices of each tensor, and where its state begins in `momentum`, or its number in `adamw`.
    plans: Vec<Plan>,
    momentum: Vec<T>,
    adamw: AdamW<T>,
    scratch: Scratch<T>,
    t: u64,
}

#[derive(Clone, Debug)]
enum Plan {
    Matrices { at: usize, shapes: Vec<(usize, usize)> },
    AdamW { block: usize },
}

impl<T: Real> Muon<T> {
    /// Zero moments. `decay` says on which tensors weight decay acts, its blocks do not matter; `adam` are the
    /// settings of the tensors that AdamW updates, and its weight decay acts on all.
    ///
    /// # Errors
    /// [`OptimError::Setting`] for a setting out of its range.
    pub fn new(
        layout: &Layout,
        decay: &Partition,
        config: MuonConfig,
        adam: AdamParams,
    ) -> Result<Self, OptimError> {
        config.check()?;
        let decay: Vec<bool> = decay.tensors().iter().map(|t| t.decay).collect();
        let mut plans = Vec::new();
        let mut others = Layout::new();
        let mut others_plan = Vec::new();
        let mut len = 0;
        for (b, decay) in layout.blocks().iter().zip(&decay) {
            let shapes = config.matrices(b);
            if shapes.is_empty() {
                plans.push(Plan::AdamW { block: others.blocks().len() });
                others.push(b.name.clone(), &b.shape, b.role);
                let cuts = vec![Cut { elements: b.range.len(), block: 1 }];
                others_plan.push(TensorPlan { cuts, decay: *decay });
            } else {
                plans.push(Plan::Matrices { at: len, shapes });
                len += b.range.len();
            }
        }
        let partition = Partition::custom("per-element", &others, others_plan)?;
        Ok(Muon {
            layout: layout.clone(),
            decay,
            config,
            weight_decay: adam.weight_decay(),
            plans,
            momentum: vec![T::ZERO; len],
            adamw: AdamW::new(&others, &partition, adam),
            scratch: Scratch::default(),
            t: 0,
        })
    }

    /// Bytes of scratch held now: none before the first step.
    pub fn scratch_bytes(&self) -> usize {
        (self.scratch.x.len() + self.scratch.next.len() + self.scratch.gram.len() + self.scratch.poly.len())
            * T::BYTES
    }
}

impl<T: Real> Optimizer<T> for Muon<T> {
    fn name(&self) -> &'static str {
        "muon"
    }
    fn layout(&self) -> &Layout {
        &self.layout
    }
    fn begin(&mut self) {
        self.t += 1;
        self.adamw.begin();
    }
    fn step_block(&mut self, lr: f64, block: usize, params: &mut [T], grad: &[T]) {
        let (at, shapes) = match &self.plans[block] {
            Plan::AdamW { block } => {
                return self.adamw.step_block(lr * self.config.adamw_lr_ratio, *block, params, grad);
            }
            Plan::Matrices { at, shapes } => (*at, shapes),
        };
        let wd = if self.decay[block] { self.weight_decay } else { 0.0 };
        let mut momentum = &mut self.momentum[at..at + params.len()];
        let (mut params, mut grad) = (params, grad);
        for &(m, n) in shapes {
            let (now_p, later_p) = params.split_at_mut(m * n);
            let (now_b, later_b) = momentum.split_at_mut(m * n);
            let (now_g, later_g) = grad.split_at(m * n);
            self.scratch.direction(&self.config, (m, n), now_b, now_g);
            let ratio = match self.config.adjust_lr {
                AdjustLr::Original => (m as f64 / n as f64).max(1.0).sqrt(),
                AdjustLr::MatchRmsAdamw => 0.2 * (m.max(n) as f64).sqrt(),
            };
            let (keep, step) = (T::of(1.0 - lr * wd), T::of(lr * ratio));
            plain::pair(now_p, &self.scratch.x[..m * n], |p, x| {
                p.iter_mut().zip(x).for_each(|(p, x)| *p = keep * *p - step * *x);
            });
            (params, momentum, grad) = (later_p, later_b, later_g);
        }
    }
    fn state_bytes(&self) -> usize {
        self.momentum.len() * T::BYTES + self.adamw.state_bytes()
    }
    fn save(&self, out: &mut StateWriter<'_>) -> Result<(), CheckpointError> {
        out.put_json("optimizer", &plain::meta::<T>("muon", "none".to_owned(), self.t, &self.layout))?;
        for (b, plan) in self.layout.blocks().iter().zip(&self.plans) {
            if let Plan::Matrices { at, .. } = plan {
                out.put_reals(&format!("momentum/{}", b.name), &self.momentum[*at..at + b.range.len()])?;
            }
        }
        out.scope("adamw", |out| self.adamw.save(out))
    }
    fn load(&mut self, src: &mut StateReader) -> Result<(), CheckpointError> {
        let found = src.json("optimizer")?;
        plain::meta::<T>("muon", "none".to_owned(), self.t, &self.layout).accept(&found)?;
        for (b, plan) in self.layout.blocks().iter().zip(&self.plans) {
            if let Plan::Matrices { at, .. } = plan {
                src.reals(&format!("momentum/{}", b.name), &mut self.momentum[*at..at + b.range.len()])?;
            }
        }
        src.scope("adamw", |src| self.adamw.load(src))?;
        self.t = found.t;
        Ok(())
    }
}

/// Work space of the iteration, kept so that steps allocate nothing.
#[derive(Clone, Debug, Default)]
struct Scratch<T> {
    x: Vec<T>,
    next: Vec<T>,
    gram: Vec<T>,
    poly: Vec<T>,
}

impl<T: Real> Scratch<T> {
    /// Moves the momentum and leaves the orthogonalised direction in `x`.
    fn direction(&mut self, c: &MuonConfig, (m, n): (usize, usize), momentum: &mut [T], g: &[T]) {
        let small = m.min(n);
        for (buffer, len) in [
            (&mut self.x, m * n),
            (&mut self.next, m * n),
            (&mut self.gram, small * small),
            (&mut self.poly, small * small),
        ] {
            if buffer.len() < len {
                buffer.reserve_exact(len - buffer.len());
                buffer.resize(len, T::ZERO);
            }
        }
        let (new, mu) = (T::of(1.0 - c.momentum), T::of(c.momentum));
        let x = &mut self.x[..m * n];
        plain::each(momentum, x, g, |b, x, g| {
            for ((b, x), g) in b.iter_mut().zip(x).zip(g) {
                *b += new * (*g - *b);
                *x = if c.nesterov { *g + mu * (*b - *g) } else { *b };
            }
        });
        let unit = T::of(1.0 / global_norm(x).max(c.eps));
        x.iter_mut().for_each(|x| *x *= unit);
        for _ in 0..c.ns_steps {
            self.iterate(c.ns_coefficients, m, n);
        }
    }

    fn iterate(&mut self, [a, b, c]: [f64; 3], m: usize, n: usize) {
        let small = m.min(n);
        let parallel = m * n >= PARALLEL_FROM / 16;
        let (x, next) = (&self.x[..m * n], &mut self.next[..m * n]);
        let (gram, poly) = (&mut self.gram[..small * small], &mut self.poly[..small * small]);
        // The Gram matrix of the shorter side: the iteration commutes with transposition.
        let (left, right) =
            if m <= n { (Mat::rows(x, n), Mat::cols(x, n)) } else { (Mat::cols(x, n), Mat::rows(x, n)) };
        gemm(parallel, (small, small, m.max(n)), T::ONE, gram, small, left, right, Init::Zero);
        poly.iter_mut().zip(&*gram).for_each(|(p, g)| *p = T::of(b) * *g);
        let (g, size) = (Mat::rows(gram, small), (small, small, small));
        gemm(parallel, size, T::of(c), poly, small, g, g, Init::Keep);
        next.iter_mut().zip(x).for_each(|(y, x)| *y = T::of(a) * *x);
        let (poly, x) = (Mat::rows(poly, small), Mat::rows(x, n));
        let (left, right) = if m <= n { (poly, x) } else { (x, poly) };
        gemm(parallel, (m, n, small), T::ONE, next, n, left, right, Init::Keep);
        std::mem::swap(&mut self.x, &mut self.next);
    }
}
