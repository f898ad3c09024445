use rhumb_core::{Block, CheckpointError, Layout, Optimizer, Role, StateReader, StateWriter};
use rhumb_linalg::Real;
use rhumb_linalg::par::{ParRange, ParSlice, ParSliceMut};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::adam_mini::Partition;
use crate::clip::global_norm;
use crate::config::at_least_zero;
use crate::kernel::{PARALLEL_FROM, TASK, vectorised};
use crate::state::Meta;
use crate::{AdamParams, OptimError, plain};

/// Over what the second moments of a tensor are averaged. A tensor of more than two dimensions is a matrix of the
/// first dimension by the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Axis {
    /// Over nothing: as AdamW.
    #[default]
    None,
    /// Over the inputs of a neuron: one per row.
    FanIn,
    /// Over the neurons: one per column.
    FanOut,
    /// Over the whole tensor.
    Both,
}

impl Axis {
    /// The axis of a tensor by what it does, after Table 1 of the paper: queries, keys, embeddings, positions and heads
    /// over the fan-in, values and the other projections over the fan-out, nothing else.
    pub fn by_role(b: &Block) -> Self {
        match b.role {
            _ if b.shape.len() < 2 => Axis::None,
            Role::Query { .. }
            | Role::Key { .. }
            | Role::Qkv { .. }
            | Role::Embed
            | Role::Position
            | Role::Head => Axis::FanIn,
            Role::Value { .. } | Role::AttnOut | Role::Mlp => Axis::FanOut,
            _ => Axis::None,
        }
    }

    /// As written in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Axis::None => "none",
            Axis::FanIn => "fan-in",
            Axis::FanOut => "fan-out",
            Axis::Both => "both",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Axis::None, Axis::FanIn, Axis::FanOut, Axis::Both].into_iter().find(|a| a.name() == name)
    }

    /// Second moments that are left.
    pub(crate) fn second_len(self, b: &Block) -> usize {
        let (n, rows) = (b.range.len(), b.shape.first().copied().unwrap_or(1).max(1));
        match self {
            _ if n == 0 => 0,
            Axis::None => n,
            Axis::FanIn => rows,
            Axis::FanOut => n / rows,
            Axis::Both => 1,
        }
    }
}

/// Settings of [`SlimAdam`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SlimAdamConfig {
    /// Steps of AdamW, after which the axes are chosen by the signal-to-noise ratio; 0 chooses by role at once.
    pub measure_steps: u64,
    /// Smallest signal-to-noise ratio at which an axis is averaged over.
    pub cutoff: f64,
}

impl Default for SlimAdamConfig {
    fn default() -> Self {
        SlimAdamConfig { measure_steps: 0, cutoff: 1.0 }
    }
}

impl SlimAdamConfig {
    pub(crate) fn check(&self) -> Result<(), OptimError> {
        at_least_zero("slim_adam.cutoff", self.cutoff)
    }

    /// Scalars of state for one tensor at the time it needs most.
    pub(crate) fn state_len(&self, b: &Block) -> usize {
        let axis = if self.measure_steps > 0 { Axis::None } else { Axis::by_role(b) };
        b.range.len() + axis.second_len(b)
    }
}

/// Signal-to-noise ratio of second moments along each axis.
///
/// # Equation
/// For an axis K: the mean over what is left of (mean over K of v)² / (variance over K of v). A slice without variance
/// is left out; when all are, the ratio is infinite, or 0 for moments that are all zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Snr {
    /// Over the columns of a row.
    pub fan_in: f64,
    /// Over the rows of a column.
    pub fan_out: f64,
    /// Over all.
    pub both: f64,
}

impl Snr {
    /// Measures a matrix of `rows` rows.
    pub fn of<T: Real>(v: &[T], rows: usize) -> Self {
        let n = v.len() / rows.max(1);
        if v.is_empty() || n == 0 {
            return Snr::default();
        }
        let lines = v.par_chunks(n).map_collect(|row| moments(row.iter()));
        let columns = (0..n).into_par_iter().map_collect(|j| moments(v[j..].iter().step_by(n)));
        let mean = lines.iter().map(|l| l.0).sum::<f64>() / rows as f64;
        let spread = lines.iter().map(|l| l.1 + (l.0 - mean).powi(2)).sum::<f64>() / rows as f64;
        Snr { fan_in: ratio(&lines), fan_out: ratio(&columns), both: ratio(&[(mean, spread)]) }
    }

    /// The axis with the largest ratio above the cutoff.
    pub fn choose(&self, cutoff: f64) -> Axis {
        let mut best = (Axis::None, cutoff);
        for (axis, snr) in [(Axis::FanIn, self.fan_in), (Axis::FanOut, self.fan_out), (Axis::Both, self.both)]
        {
            // At equal ratios the later axis saves more.
            if snr > cutoff && snr >= best.1 {
                best = (axis, snr);
            }
        }
        best.0
    }
}

fn moments<'a, T: Real>(values: impl Iterator<Item = &'a T> + Clone) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().map(|v| v.f64()).sum::<f64>() / n;
    (mean, values.map(|v| (v.f64() - mean).powi(2)).sum::<f64>() / n)
}

fn ratio(slices: &[(f64, f64)]) -> f64 {
    let finite: Vec<f64> =
        slices.iter().map(|(mean, var)| mean * mean / var).filter(|r| r.is_finite()).collect();
    if !finite.is_empty() {
        finite.iter().sum::<f64>() / finite.len() as f64
    } else if slices.iter().any(|s| s.0 > 0.0) {
        f64::INFINITY
    } else {
        0.0
    }
}

/// Signal-to-noise ratios of a layout, averaged over measurements.
#[derive(Clone, Debug)]
pub struct SnrRecord {
    layout: Layout,
    /// Three sums per tensor.
    sums: Vec<f64>,
    count: u64,
}

impl SnrRecord {
    /// No measurement yet.
    pub fn new(layout: &Layout) -> Self {
        SnrRecord { layout: layout.clone(), sums: vec![0.0; 3 * layout.blocks().len()], count: 0 }
    }

    /// Adds a measurement of AdamW's second moments, flat like the parameters.
    pub fn measure<T: Real>(&mut self, second_moments: &[T]) {
        for (b, sums) in self.layout.blocks().iter().zip(self.sums.chunks_mut(3)) {
            if b.shape.len() >= 2 {
                let snr = Snr::of(&second_moments[b.range.clone()], b.shape[0]);
                sums.iter_mut().zip([snr.fan_in, snr.fan_out, snr.both]).for_each(|(s, x)| *s += x);
            }
        }
        self.count += 1;
    }

    /// The means, in the order of the layout; zero for vectors.
    pub fn means(&self) -> Vec<Snr> {
        let n = self.count.max(1) as f64;
        self.sums.chunks(3).map(|s| Snr { fan_in: s[0] / n, fan_out: s[1] / n, both: s[2] / n }).collect()
    }

    /// The axis of every tensor; norms and vectors are never averaged.
    pub fn axes(&self, cutoff: f64) -> Vec<Axis> {
        let one = |(b, snr): (&Block, Snr)| match b.role {
            Role::Norm | Role::Bias => Axis::None,
            _ => snr.choose(cutoff),
        };
        self.layout.blocks().iter().zip(self.means()).map(one).collect()
    }
}

/// SlimAdam: Adam whose second moments are averaged over the axis where they vary little.
///
/// # Equation
/// As [`crate::AdamW`] with v ← β₂ v + (1 − β₂) mean over K of g², where K is the [`Axis`] of the tensor.
///
/// # Reference
/// Kalra, Kirchenbauer, Barkeshli, Goldstein, *When Can You Get Away with Low Memory Adam?*, arXiv 2503.01843. The
/// ratio is Section 3's, averaged over ten evenly spaced measurements of the first `measure_steps` steps; the rule is the
/// axis of the largest ratio above the cutoff 1. The paper measures in a run of its own, possibly of a smaller
/// model; measuring at the beginning of the run itself is an addition here.
///
/// # Cost
/// `T::BYTES` per parameter and per second moment left: per row, per column or one. While it measures,
/// `T::BYTES * 2 P` as AdamW. One pass, or two where the mean crosses rows.
#[derive(Clone, Debug)]
pub struct SlimAdam<T> {
    layout: Layout,
    decay: Vec<bool>,
    adam: AdamParams,
    axes: Vec<Axis>,
    measure: Option<(SlimAdamConfig, SnrRecord)>,
    m: Vec<T>,
    v: Vec<T>,
    v_at: Vec<usize>,
    t: u64,
}

/// Measurements of the ratio in one run.
const MEASUREMENTS: u64 = 10;

impl<T: Real> SlimAdam<T> {
    /// Zero moments with a given axis per tensor. `decay` says on which tensors weight decay acts; its blocks do not matter.
    ///
    /// # Errors
    /// [`OptimError::Setting`] for another number of axes than tensors.
    pub fn new(
        layout: &Layout,
        decay: &Partition,
        axes: Vec<Axis>,
        adam: AdamParams,
    ) -> Result<Self, OptimError> {
        if axes.len() != layout.blocks().len() {
            return Err(OptimError::Setting {
                key: "axes",
                value: format!("{} axes", axes.len()),
                want: "one axis per tensor of the layout",
            });
        }
        let (v, v_at) = cut(layout, &axes);
        Ok(SlimAdam {
            layout: layout.clone(),
            decay: decay.tensors().iter().map(|t| t.decay).collect(),
            adam,
            axes,
            measure: None,
            m: vec![T::ZERO; layout.len()],
            v,
            v_at,
            t: 0,
        })
    }

    /// By role, or by measurement when the settings ask for it.
    ///
    /// # Errors
    /// [`OptimError::Setting`] for a setting out of its range.
    pub fn configured(
        layout: &Layout,
        decay: &Partition,
        config: SlimAdamConfig,
        adam: AdamParams,
    ) -> Result<Self, OptimError> {
        config.check()?;
        let measures = config.measure_steps > 0;
        let axis = |b| if measures { Axis::None } else { Axis::by_role(b) };
        let mut made = Self::new(layout, decay, layout.blocks().iter().map(axis).collect(), adam)?;
        made.measure = measures.then(|| (config, SnrRecord::new(layout)));
        Ok(made)
    }

    /// The axis of every tensor now.
    pub fn axes(&self) -> &[Axis] {
        &self.axes
    }

    /// The second moments, tensor after tensor: per scalar, row or column, or one.
    pub fn second_moments(&self) -> &[T] {
        &self.v
    }

    /// Replaces the second moments of all scalars by their means over new axes.
    fn compress(&mut self, axes: Vec<Axis>) {
        let (mut v, v_at) = cut(&self.layout, &axes);
        for (i, b) in self.layout.blocks().iter().enumerate().filter(|(_, b)| !b.range.is_empty()) {
            let full = &self.v[b.range.clone()];
            let rows = b.shape.first().copied().unwrap_or(1).max(1);
            let n = full.len() / rows;
            let slim = &mut v[v_at[i]..v_at[i + 1]];
            match axes[i] {
                Axis::None => slim.copy_from_slice(full),
                Axis::FanIn => {
                    slim.iter_mut().zip(full.chunks(n)).for_each(|(s, r)| *s = T::of(moments(r.iter()).0));
                }
                Axis::FanOut => slim
                    .iter_mut()
                    .enumerate()
                    .for_each(|(j, s)| *s = T::of(moments(full[j..].iter().step_by(n)).0)),
                Axis::Both => slim[0] = T::of(moments(full.iter()).0),
            }
        }
        (self.v, self.v_at, self.axes) = (v, v_at, axes);
    }

    fn tag(&self) -> String {
        match self.measure {
            Some(_) => "measuring".to_owned(),
            None => self.axes.iter().map(|a| a.name()).collect::<Vec<_>>().join(","),
        }
    }

    fn meta(&self) -> Meta {
        plain::meta::<T>("slim-adam", self.tag(), self.t, &self.layout)
    }
}

/// Zero second moments and where those of each tensor begin.
fn cut<T: Real>(layout: &Layout, axes: &[Axis]) -> (Vec<T>, Vec<usize>) {
    let mut at = vec![0];
    let mut len = 0;
    for (b, axis) in layout.blocks().iter().zip(axes) {
        len += axis.second_len(b);
        at.push(len);
    }
    (vec![T::ZERO; len], at)
}

impl<T: Real> Optimizer<T> for SlimAdam<T> {
    fn name(&self) -> &'static str {
        "slim-adam"
    }
    fn layout(&self) -> &Layout {
        &self.layout
    }
    fn begin(&mut self) {
        if let Some((config, record)) = &mut self.measure {
            if self.t > 0 && self.t.is_multiple_of((config.measure_steps / MEASUREMENTS).max(1)) {
                record.measure(&self.v);
            }
            if self.t >= config.measure_steps {
                let axes = record.axes(config.cutoff);
                self.compress(axes);
                self.measure = None;
            }
        }
        self.t += 1;
    }
    fn step_block(&mut self, lr: f64, block: usize, params: &mut [T], grad: &[T]) {
        if params.is_empty() {
            return;
        }
        let (b, axis) = (&self.layout.blocks()[block], self.axes[block]);
        let n = params.len() / b.shape.first().copied().unwrap_or(1).max(1);
        let wd = if self.decay[block] { self.adam.weight_decay() } else { 0.0 };
        let t = self.t.max(1) as f64;
        let step = Step {
            keep: T::of(1.0 - lr * wd),
            new1: T::of(1.0 - self.adam.beta1()),
            size: T::of(lr / (1.0 - self.adam.beta1().powf(t))),
            unroot: T::of(1.0 / (1.0 - self.adam.beta2().powf(t)).sqrt()),
            eps: T::of(self.adam.eps()),
        };
        let new2 = 1.0 - self.adam.beta2();
        let v = &mut self.v[self.v_at[block]..self.v_at[block + 1]];
        match axis {
            Axis::None => plain::pair(v, grad, |v, g| {
                let (old, new) = (T::of(1.0 - new2), T::of(new2));
                v.iter_mut().zip(g).for_each(|(v, g)| *v = old * *v + new * (*g * *g));
            }),
            Axis::FanIn => plain::lerp_rows(v, grad, n, new2),
            Axis::FanOut => plain::lerp_columns(v, grad, new2),
            Axis::Both => plain::lerp(&mut v[0], global_norm(grad).powi(2) / grad.len() as f64, new2),
        }
        let v = &*v;
        // Whole rows per task, so that a task knows its columns; vectors and whole tensors have no rows to keep.
        let width = if axis == Axis::FanOut || axis == Axis::FanIn { n * (TASK / n).max(1) } else { TASK };
        let part = |i: usize, p: &mut [T], m: &mut [T], g: &[T]| {
            vectorised(
                #[inline(always)]
                || match axis {
                    Axis::None => step.each(p, m, g, &v[i * width..]),
                    Axis::Both => step.shared(p, m, g, v[0]),
                    Axis::FanIn => {
                        let rows = p.chunks_mut(n).zip(m.chunks_mut(n)).zip(g.chunks(n));
                        for (((p, m), g), v) in rows.zip(&v[i * width / n..]) {
                            step.shared(p, m, g, *v);
                        }
                    }
                    Axis::FanOut => {
                        for ((p, m), g) in p.chunks_mut(n).zip(m.chunks_mut(n)).zip(g.chunks(n)) {
                            step.each(p, m, g, v);
                        }
                    }
                },
            );
        };
        let m = &mut self.m[b.range.clone()];
        if params.len() < PARALLEL_FROM {
            part(0, params, m, grad);
        } else {
            params
                .par_chunks_mut(width)
                .zip(m.par_chunks_mut(width))
                .zip(grad.par_chunks(width))
                .enumerate()
                .for_each(|(i, ((p, m), g))| part(i, p, m, g));
        }
    }
    fn state_bytes(&self) -> usize {
        (self.m.len() + self.v.len()) * T::BYTES
    }
    fn save(&self, out: &mut StateWriter<'_>) -> Result<(), CheckpointError> {
        out.put_json("optimizer", &self.meta())?;
        if let Some((_, record)) = &self.measure {
            out.put_json("measurements", &record.count)?;
            out.put_reals("snr", &record.sums)?;
        }
        plain::save("m", &self.layout, &self.m, out)?;
        for (b, at) in self.layout.blocks().iter().zip(self.v_at.windows(2)) {
            out.put_reals(&format!("v/{}", b.name), &self.v[at[0]..at[1]])?;
        }
        Ok(())
    }
    fn load(&mut self, src: &mut StateReader) -> Result<(), CheckpointError> {
        let found: Meta = src.json("optimizer")?;
        // A run that measures goes on from a state whose axes are already chosen.
        if self.measure.is_some() && found.partition != "measuring" {
            let axes: Option<Vec<Axis>> = found.partition.split(',').map(Axis::parse).collect();
            if let Some(axes) = axes.filter(|a| a.len() == self.layout.blocks().len()) {
                (self.v, self.v_at) = cut(&self.layout, &axes);
                (self.axes, self.measure) = (axes, None);
            }
        }
        let mut here = self.meta();
        if here.tensors != found.tensors {
            // Another model has other axes as well; its tensors say more.
            here.partition.clone_from(&found.partition);
        }
        here.accept(&found)?;
        if let Some((_, record)) = &mut self.measure {
            record.count = src.json("measurements")?;
            src.reals("snr", &mut record.sums)?;
        }
        plain::load("m", &self.layout, &mut self.m, src)?;
        for (b, at) in self.layout.blocks().iter().zip(self.v_at.windows(2)) {
            src.reals(&format!("v/{}", b.name), &mut self.v[at[0]..at[1]])?;
        }
        self.t = found.t;
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Step<T> {
    keep: T,
    new1: T,
    size: T,
    unroot: T,
    eps: T,
}

impl<T: Real> Step<T> {
    /// A second moment per scalar of the slice.
    #[inline(always)]
    fn each(&self, p: &mut [T], m: &mut [T], g: &[T], v: &[T]) {
        for (((p, m), g), v) in p.iter_mut().zip(m).zip(g).zip(v) {
            *m += self.new1 * (*g - *m);
            *p = self.keep * *p - self.size * (*m / (v.sqrt() * self.unroot + self.eps));
        }
    }

    /// One second moment for the slice.
    #[inline(always)]
    fn shared(&self, p: &mut [T], m: &mut [T], g: &[T], v: T) {
        let h = self.size / (v.sqrt() * self.unroot + self.eps);
        for ((p, m), g) in p.iter_mut().zip(m).zip(g) {
            *m += self.new1 * (*g - *m);
            *p = self.keep * *p - h * *m;
        }
    }
}
