use rhumb_core::{Block, CheckpointError, Layout, Optimizer, StateReader, StateWriter};
use rhumb_linalg::Real;
use rhumb_linalg::par::{ParSlice, ParSliceMut};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::adam_mini::Partition;
use crate::clip::global_norm;
use crate::config::{at_least_zero, below_one, setting};
use crate::kernel::{PARALLEL_FROM, TASK, vectorised};
use crate::{OptimError, plain};

/// Settings of [`Adafactor`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdafactorConfig {
    /// Decay rate of the first moment; absent: no first moment is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta1: Option<f64>,
    /// The second moment of step t decays by 1 − t^`beta2_decay`.
    pub beta2_decay: f64,
    /// Smallest root of the second moment; absent: the machine precision of the scalar type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eps1: Option<f64>,
    /// Smallest size of a tensor in the scaling by its size.
    pub eps2: f64,
    /// Largest root mean square of an update before the learning rate.
    pub clip_threshold: f64,
    /// Whether the learning rate is only a ceiling for 1/√t.
    pub relative_step: bool,
    /// Whether the step of a tensor is multiplied by its root mean square.
    pub scale_parameter: bool,
}

impl Default for AdafactorConfig {
    fn default() -> Self {
        AdafactorConfig {
            beta1: None,
            beta2_decay: -0.8,
            eps1: None,
            eps2: 1e-3,
            clip_threshold: 1.0,
            relative_step: true,
            scale_parameter: true,
        }
    }
}

impl AdafactorConfig {
    pub(crate) fn check(&self) -> Result<(), OptimError> {
        if let Some(beta1) = self.beta1 {
            below_one("adafactor.beta1", beta1)?;
        }
        if !(-1.0..=0.0).contains(&self.beta2_decay) {
            return setting("adafactor.beta2_decay", self.beta2_decay, "a number from -1 to 0, e.g. -0.8");
        }
        if let Some(eps1) = self.eps1 {
            at_least_zero("adafactor.eps1", eps1)?;
        }
        at_least_zero("adafactor.eps2", self.eps2)?;
        if !(self.clip_threshold > 0.0 && self.clip_threshold.is_finite()) {
            return setting("adafactor.clip_threshold", self.clip_threshold, "a finite number > 0, e.g. 1");
        }
        Ok(())
    }

    /// Scalars of state for one tensor.
    pub(crate) fn state_len(&self, b: &Block) -> usize {
        second_len(b) + if self.beta1.is_some() { b.range.len() } else { 0 }
    }
}

fn second_len(b: &Block) -> usize {
    plain::matrices(&b.shape).map_or(b.range.len(), |(m, n, batch)| batch * (m + n))
}

/// Adafactor: the second moment of a matrix kept as one vector for its rows and one for its columns.
///
/// # Equation
/// For a matrix `[m, n]` with gradient g at step t = 1, 2, ..., with β₂ = 1 − t^γ (γ = −0.8):
///
/// α = ρ max(ε₂, rms(p)), ρ = min(lr, 1/√t) <br>
/// p ← p (1 − lr wd) <br>
/// r ← β₂ r + (1 − β₂) mean of g² over columns, c ← β₂ c + (1 − β₂) mean of g² over rows <br>
/// v = r cᵀ / max(mean r, ε₁) <br>
/// u = g / √max(v, ε₁²), u ← u / max(1, rms(u) / d) <br>
/// p ← p − α u, or with a first moment b ← β₁ b + (1 − β₁) α u, p ← p − b
///
/// Vectors keep v element by element. Without `relative_step` ρ is the learning rate itself; without
/// `scale_parameter` α is ρ. A tensor of more dimensions is a stack of matrices over its last two.
///
/// # Reference
/// Shazeer, Stern, arXiv 1804.04235, Algorithms 4 and 5, in the form of `torch.optim.Adafactor`, which differs
/// from the paper in ε₁ (a floor at the end instead of a term in g²) and in ρ (the learning rate instead of 0.01
/// as its ceiling). The first moment, which PyTorch lacks, is that of the paper's Section 7: over the scaled update.
///
/// # Cost
/// `T::BYTES * (m + n)` bytes of state per matrix, `T::BYTES * n` per vector, `T::BYTES * P` more with a first moment. The
/// gradient is read four times.
#[derive(Clone, Debug)]
pub struct Adafactor<T> {
    layout: Layout,
    decay: Vec<bool>,
    config: AdafactorConfig,
    weight_decay: f64,
    /// Rows, then columns, or single elements, tensor after tensor.
    v: Vec<T>,
    v_at: Vec<usize>,
    m: Vec<T>,
    t: u64,
}

impl<T: Real> Adafactor<T> {
    /// Zero moments. `decay` says on which tensors weight decay acts; its blocks do not matter.
    ///
    /// # Errors
    /// [`OptimError::Setting`] for a setting out of its range.
    pub fn new(
        layout: &Layout,
        decay: &Partition,
        config: AdafactorConfig,
        weight_decay: f64,
    ) -> Result<Self, OptimError> {
        config.check()?;
        at_least_zero("weight_decay", weight_decay)?;
        let mut v_at = vec![0];
        let mut len = 0;
        for b in layout.blocks() {
            len += second_len(b);
            v_at.push(len);
        }
        Ok(Adafactor {
            layout: layout.clone(),
            decay: decay.tensors().iter().map(|t| t.decay).collect(),
            config,
            weight_decay,
            v: vec![T::ZERO; len],
            v_at,
            m: vec![T::ZERO; if config.beta1.is_some() { layout.len() } else { 0 }],
            t: 0,
        })
    }

    fn tag(&self) -> String {
        if self.m.is_empty() { "factored" } else { "factored, first moment" }.to_owned()
    }
}

impl<T: Real> Optimizer<T> for Adafactor<T> {
    fn name(&self) -> &'static str {
        "adafactor"
    }
    fn layout(&self) -> &Layout {
        &self.layout
    }
    fn begin(&mut self) {
        self.t += 1;
    }
    fn step_block(&mut self, lr: f64, block: usize, params: &mut [T], grad: &[T]) {
        if params.is_empty() {
            return;
        }
        let t = self.t.max(1) as f64;
        let rho = if self.config.relative_step { lr.min(1.0 / t.sqrt()) } else { lr };
        let rms = global_norm(params) / (params.len() as f64).sqrt();
        let scale = if self.config.scale_parameter { self.config.eps2.max(rms) } else { 1.0 };
        let wd = if self.decay[block] { self.weight_decay } else { 0.0 };
        let new2 = t.powf(self.config.beta2_decay);
        // The floor of PyTorch is the precision of the scalar type.
        let eps1 =
            self.config.eps1.unwrap_or(if T::BYTES == 4 { f64::from(f32::EPSILON) } else { f64::EPSILON });
        let b = &self.layout.blocks()[block];
        let v = &mut self.v[self.v_at[block]..self.v_at[block + 1]];
        let tensor = Tensor::advance(&b.shape, v, grad, new2, eps1);
        let size = (tensor.sum_sq(grad) / grad.len() as f64).sqrt();
        let step = Step {
            keep: T::of(1.0 - lr * wd),
            scale: T::of(scale * rho / (size / self.config.clip_threshold).max(1.0)),
            beta1: T::of(self.config.beta1.unwrap_or(0.0)),
            new1: T::of(1.0 - self.config.beta1.unwrap_or(0.0)),
        };
        let m = if self.m.is_empty() { &mut [] } else { &mut self.m[b.range.clone()] };
        tensor.update(&step, params, m, grad);
    }
    fn state_bytes(&self) -> usize {
        (self.v.len() + self.m.len()) * T::BYTES
    }
    fn save(&self, out: &mut StateWriter<'_>) -> Result<(), CheckpointError> {
        out.put_json("optimizer", &plain::meta::<T>("adafactor", self.tag(), self.t, &self.layout))?;
        for (b, at) in self.layout.blocks().iter().zip(self.v_at.windows(2)) {
            out.put_reals(&format!("v/{}", b.name), &self.v[at[0]..at[1]])?;
        }
        if self.m.is_empty() { Ok(()) } else { plain::save("m", &self.layout, &self.m, out) }
    }
    fn load(&mut self, src: &mut StateReader) -> Result<(), CheckpointError> {
        let found = src.json("optimizer")?;
        plain::meta::<T>("adafactor", self.tag(), self.t, &self.layout).accept(&found)?;
        for (b, at) in self.layout.blocks().iter().zip(self.v_at.windows(2)) {
            src.reals(&format!("v/{}", b.name), &mut self.v[at[0]..at[1]])?;
        }
        if !self.m.is_empty() {
            plain::load("m", &self.layout, &mut self.m, src)?;
        }
        self.t = found.t;
        Ok(())
    }
}

struct Step<T> {
    keep: T,
    scale: T,
    beta1: T,
    new1: T,
}

/// The second moments of one tensor after this step's gradient: `rows * columns / mean` of every matrix.
struct Tensor<'a, T> {
    /// `[batch, m]`; empty for a vector.
    rows: &'a [T],
    /// `[batch, n]`.
    columns: &'a [T],
    /// 1 / max(mean of a matrix' rows, ε₁).
    unmean: Vec<f64>,
    m: usize,
    n: usize,
    floor: T,
}

impl<'a, T: Real> Tensor<'a, T> {
    fn advance(shape: &[usize], v: &'a mut [T], g: &[T], new2: f64, eps1: f64) -> Self {
        let floor = T::of(eps1 * eps1);
        let Some((m, n, batch)) = plain::matrices(shape) else {
            let (old, new) = (T::of(1.0 - new2), T::of(new2));
            v.iter_mut().zip(g).for_each(|(v, g)| *v = old * *v + new * (*g * *g));
            return Tensor { rows: &[], unmean: vec![1.0], m: 1, n: v.len(), columns: v, floor };
        };
        let (rows, columns) = v.split_at_mut(batch * m);
        plain::lerp_rows(rows, g, n, new2);
        for (columns, g) in columns.chunks_mut(n).zip(g.chunks(m * n)) {
            plain::lerp_columns(columns, g, new2);
        }
        let unmean = rows
            .chunks(m)
            .map(|r| 1.0 / (r.iter().map(|r| r.f64()).sum::<f64>() / m as f64).max(eps1))
            .collect();
        Tensor { rows, columns, unmean, m, n, floor }
    }

    /// The row's factor and the columns' of row `i`, counted through all matrices.
    #[inline(always)]
    fn row(&self, i: usize) -> (T, &[T]) {
        let matrix = i / self.m;
        let r = self.rows.get(i).map_or(T::ONE, |r| T::of(r.f64() * self.unmean[matrix]));
        (r, &self.columns[matrix * self.n..][..self.n])
    }

    fn rows_per_task(&self) -> usize {
        (TASK / self.n).max(1)
    }

    /// Σ u² over the tensor, in a fixed order.
    fn sum_sq(&self, g: &[T]) -> f64 {
        let rows = self.rows_per_task();
        let part = |(task, g): (usize, &[T])| {
            vectorised(
                #[inline(always)]
                || {
                    let mut sum = 0.0;
                    for (i, g) in g.chunks(self.n).enumerate() {
                        let (r, columns) = self.row(task * rows + i);
                        sum += row_sum_sq(g, r, columns, self.floor);
                    }
                    sum
                },
            )
        };
        let width = rows * self.n;
        let parts: Vec<f64> = if g.len() < PARALLEL_FROM {
            g.chunks(width).enumerate().map(part).collect()
        } else {
            g.par_chunks(width).enumerate().map_collect(part)
        };
        parts.iter().sum()
    }

    fn update(&self, s: &Step<T>, p: &mut [T], m: &mut [T], g: &[T]) {
        let rows = self.rows_per_task();
        let width = rows * self.n;
        let part = |task: usize, p: &mut [T], m: &mut [T], g: &[T]| {
            vectorised(
                #[inline(always)]
                || {
                    let mut m = m.chunks_mut(self.n);
                    for (i, (p, g)) in p.chunks_mut(self.n).zip(g.chunks(self.n)).enumerate() {
                        let (r, columns) = self.row(task * rows + i);
                        update_row(s, p, m.next(), g, r, columns, self.floor);
                    }
                },
            );
        };
        if p.len() < PARALLEL_FROM {
            part(0, p, m, g);
        } else if m.is_empty() {
            p.par_chunks_mut(width)
                .zip(g.par_chunks(width))
                .enumerate()
                .for_each(|(i, (p, g))| part(i, p, &mut [], g));
        } else {
            p.par_chunks_mut(width)
                .zip(m.par_chunks_mut(width))
                .zip(g.par_chunks(width))
                .enumerate()
                .for_each(|(i, ((p, m), g))| part(i, p, m, g));
        }
    }
}

#[inline(always)]
fn unroot<T: Real>(g: T, r: T, c: T, floor: T) -> T {
    let v = r * c;
    // Written so that NaN stays NaN.
    g / (if v < floor { floor } else { v }).sqrt()
}

#[inline(always)]
fn row_sum_sq<T: Real>(g: &[T], r: T, columns: &[T], floor: T) -> f64 {
    let mut lanes = [0.0; 8];
    for (g, c) in g.chunks(8).zip(columns.chunks(8)) {
        for (lane, (g, c)) in lanes.iter_mut().zip(g.iter().zip(c)) {
            let u = unroot(*g, r, *c, floor).f64();
            *lane += u * u;
        }
    }
    lanes.iter().sum()
}

#[inline(always)]
fn update_row<T: Real>(
    s: &Step<T>,
    p: &mut [T],
    m: Option<&mut [T]>,
    g: &[T],
    r: T,
    columns: &[T],
    floor: T,
) {
    match m {
        None => {
            for ((p, g), c) in p.iter_mut().zip(g).zip(columns) {
                *p = s.keep * *p - s.scale * unroot(*g, r, *c, floor);
            }
        }
        Some(m) => {
            for (((p, m), g), c) in p.iter_mut().zip(m).zip(g).zip(columns) {
                *m = s.beta1 * *m + s.new1 * (s.scale * unroot(*g, r, *c, floor));
                *p = s.keep * *p - *m;
            }
        }
    }
}
