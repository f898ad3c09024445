//! A net for images as a list of steps, written down once: the list gives the layout and the graph of any batch.

use std::ops::Range;
use std::sync::Arc;

use rhumb_core::{Layout, Role};
use rhumb_linalg::Real;

use super::super::config::ModelError;
use super::Statistics;
use crate::ops::{
    Act, Activation, Attention, AvgPool2d, BatchMoments, BatchNorm2d, Conv2d, LayerNorm, Linear, MaxPool2d,
    Moments, Patches, PoolRows, Positions, Residual, Window,
};
use crate::tape::{Graph, Span, Src, Var};

/// Epsilon of batch norms, as in the common frameworks.
const BATCH_EPS: f64 = 1e-5;
/// Epsilon of the layer norms of a vision transformer.
const LAYER_EPS: f64 = 1e-6;

/// The shape of a value in one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Channels of planes.
    Image(usize, [usize; 2]),
    /// Rows of a width.
    Rows(usize, usize),
}

impl Shape {
    fn len(self) -> usize {
        match self {
            Shape::Image(channels, [rows, columns]) => channels * rows * columns,
            Shape::Rows(len, width) => len * width,
        }
    }
}

/// A value of the net.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value {
    at: usize,
    pub(super) shape: Shape,
}

/// A weight with its bias.
#[derive(Clone, Debug)]
struct Affine {
    w: Range<usize>,
    b: Option<Range<usize>>,
}

impl Affine {
    fn sources(&self) -> impl Iterator<Item = Src> {
        [Some(&self.w), self.b.as_ref()].into_iter().flatten().map(trained)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Conv { inp: usize, out: usize, window: Window, map: Affine },
    BatchNorm { channels: usize, area: usize, map: Affine, moments: Range<usize> },
    LayerNorm { len: usize, width: usize, map: Affine },
    Act { len: usize, act: Act },
    MaxPool { channels: usize, window: Window },
    AvgPool { channels: usize, window: Window },
    Add { len: usize },
    Linear { len: usize, inp: usize, out: usize, map: Affine, residual: bool },
    Attention { len: usize, heads: usize, head_dim: usize, layer: usize },
    Patches { channels: usize, plane: [usize; 2], size: usize },
    Positions { len: usize, width: usize, positions: Range<usize>, class: Option<Range<usize>> },
    PoolRows { len: usize, width: usize, first: bool },
}

/// The steps, each with the values that it reads; value 0 is the image.
#[derive(Clone, Debug)]
pub(super) struct Net {
    steps: Vec<(Step, Vec<usize>)>,
    pub(super) layout: Layout,
    /// Running statistics: mean and variance of one norm after another.
    pub(super) buffers: Layout,
    /// Rows of an image that meet in attention; 0 without any.
    pub(super) rows: usize,
}

fn trained(range: &Range<usize>) -> Src {
    Src::Param(Span { range: range.clone(), trainable: true })
}

fn frozen(range: Range<usize>) -> Src {
    Src::Param(Span { range, trainable: false })
}

pub(super) fn refuse<T>(layer: &str, what: String) -> Result<T, ModelError> {
    Err(ModelError::Layer { layer: layer.into(), what })
}

impl Net {
    pub(super) fn new(channels: usize, plane: [usize; 2]) -> (Self, Value) {
        let net = Net { steps: Vec::new(), layout: Layout::new(), buffers: Layout::new(), rows: 0 };
        (net, Value { at: 0, shape: Shape::Image(channels, plane) })
    }

    fn push(&mut self, step: Step, from: &[Value], shape: Shape) -> Value {
        self.steps.push((step, from.iter().map(|v| v.at).collect()));
        Value { at: self.steps.len(), shape }
    }

    fn image(name: &str, x: Value) -> Result<(usize, [usize; 2]), ModelError> {
        match x.shape {
            Shape::Image(channels, plane) => Ok((channels, plane)),
            Shape::Rows(..) => refuse(name, "needs an image".into()),
        }
    }

    fn affine(&mut self, name: &str, shape: &[usize], role: Role, bias: bool) -> Affine {
        let w = self.layout.push(format!("{name}.weight"), shape, role);
        let b = bias.then(|| self.layout.push(format!("{name}.bias"), &shape[..1], Role::Bias));
        Affine { w, b }
    }

    pub(super) fn conv(
        &mut self,
        name: &str,
        x: Value,
        out: usize,
        (kernel, stride, padding): (usize, usize, usize),
        bias: bool,
    ) -> Result<Value, ModelError> {
        let (inp, plane) = Self::image(name, x)?;
        let window = fit(name, Window::square(plane, kernel, stride, padding))?;
        let map = self.affine(name, &[out, inp, kernel, kernel], Role::Conv, bias);
        Ok(self.push(Step::Conv { inp, out, window, map }, &[x], Shape::Image(out, window.out())))
    }

    pub(super) fn max_pool(&mut self, name: &str, x: Value, size: usize) -> Result<Value, ModelError> {
        let (channels, plane) = Self::image(name, x)?;
        let window = fit(name, Window::square(plane, size, size, 0))?;
        Ok(self.push(Step::MaxPool { channels, window }, &[x], Shape::Image(channels, window.out())))
    }

    /// The mean of every plane.
    pub(super) fn pool_planes(&mut self, name: &str, x: Value) -> Result<Value, ModelError> {
        let (channels, plane) = Self::image(name, x)?;
        let window = fit(name, Window::whole(plane))?;
        Ok(self.push(Step::AvgPool { channels, window }, &[x], Shape::Image(channels, [1, 1])))
    }

    pub(super) fn batch_norm(&mut self, name: &str, x: Value) -> Result<Value, ModelError> {
        let (channels, [rows, columns]) = Self::image(name, x)?;
        let map = self.affine(name, &[channels], Role::Norm, true);
        let mean = self.buffers.push(format!("{name}.running_mean"), &[channels], Role::Other);
        let var = self.buffers.push(format!("{name}.running_var"), &[channels], Role::Other);
        let moments = mean.start..var.end;
        Ok(self.push(Step::BatchNorm { channels, area: rows * columns, map, moments }, &[x], x.shape))
    }

    pub(super) fn act(&mut self, x: Value, act: Act) -> Value {
        self.push(Step::Act { len: x.shape.len(), act }, &[x], x.shape)
    }

    pub(super) fn add(&mut self, name: &str, x: Value, y: Value) -> Result<Value, ModelError> {
        if x.shape != y.shape {
            return refuse(name, format!("cannot add {:?} and {:?}", x.shape, y.shape));
        }
        Ok(self.push(Step::Add { len: x.shape.len() }, &[x, y], x.shape))
    }

    /// A linear map of every row; an image is one row.
    pub(super) fn linear(
        &mut self,
        name: &str,
        x: Value,
        out: usize,
        role: Role,
        residual: Option<Value>,
    ) -> Value {
        let (len, inp) = match x.shape {
            Shape::Image(..) => (1, x.shape.len()),
            Shape::Rows(len, width) => (len, width),
        };
        let map = self.affine(name, &[out, inp], role, true);
        let step = Step::Linear { len, inp, out, map, residual: residual.is_some() };
        let from: Vec<Value> = [Some(x), residual].into_iter().flatten().collect();
        self.push(step, &from, Shape::Rows(len, out))
    }

    /// Patches, each mapped to a row: a convolution whose step is its kernel, under its name and shape.
    pub(super) fn patches(
        &mut self,
        name: &str,
        x: Value,
        size: usize,
        out: usize,
    ) -> Result<Value, ModelError> {
        let (channels, plane) = Self::image(name, x)?;
        if size == 0 || plane.iter().any(|n| !n.is_multiple_of(size)) {
            return refuse(name, format!("patches of {size} x {size} do not tile an image of {plane:?}"));
        }
        let map = self.affine(name, &[out, channels, size, size], Role::Conv, true);
        let (len, inp) = (plane[0] / size * (plane[1] / size), channels * size * size);
        let p = self.push(Step::Patches { channels, plane, size }, &[x], Shape::Rows(len, inp));
        Ok(self.push(Step::Linear { len, inp, out, map, residual: false }, &[p], Shape::Rows(len, out)))
    }

    pub(super) fn positions(&mut self, x: Value, len: usize, width: usize, class: bool) -> Value {
        let class = class.then(|| self.layout.push("cls_token", &[1, 1, width], Role::Other));
        let rows = len + usize::from(class.is_some());
        let positions = self.layout.push("pos_embed", &[1, rows, width], Role::Position);
        self.rows = rows;
        self.push(Step::Positions { len, width, positions, class }, &[x], Shape::Rows(rows, width))
    }

    pub(super) fn layer_norm(&mut self, name: &str, x: Value, len: usize, width: usize) -> Value {
        let map = self.affine(name, &[width], Role::Norm, true);
        self.push(Step::LayerNorm { len, width, map }, &[x], x.shape)
    }

    /// Attention of all rows to all rows of an image, on rows of queries, keys and values.
    pub(super) fn attention(
        &mut self,
        x: Value,
        len: usize,
        heads: usize,
        head_dim: usize,
        layer: usize,
    ) -> Value {
        self.push(Step::Attention { len, heads, head_dim, layer }, &[x], Shape::Rows(len, heads * head_dim))
    }

    pub(super) fn pool_rows(&mut self, x: Value, len: usize, width: usize, first: bool) -> Value {
        self.push(Step::PoolRows { len, width, first }, &[x], Shape::Rows(1, width))
    }

    /// The computation for a batch; returns the last value.
    pub(super) fn graph<T: Real>(
        &self,
        batch: usize,
        image: usize,
        statistics: Statistics,
        sinks: &[Arc<BatchMoments>],
    ) -> (Graph<T>, Var) {
        let mut g = Graph::new();
        let mut values = vec![g.input(batch * image, false)];
        let mut sinks = sinks.iter();
        for (step, from) in &self.steps {
            let mut sink = || {
                let held = sinks.next().map(Arc::clone);
                match statistics {
                    Statistics::Batch => Moments::Batch(held.unwrap_or_default()),
                    Statistics::Running => Moments::Given,
                }
            };
            let from: Vec<Src> = from.iter().map(|v| values[*v].into()).collect();
            values.push(step.push(&mut g, batch, from, &mut sink));
        }
        let last = values[values.len() - 1];
        (g, last)
    }
}

impl Step {
    fn push<T: Real>(
        &self,
        g: &mut Graph<T>,
        batch: usize,
        mut from: Vec<Src>,
        moments: &mut dyn FnMut() -> Moments,
    ) -> Var {
        match self {
            Step::Conv { inp, out, window, map } => {
                from.extend(map.sources());
                let bias = map.b.is_some();
                let op = Conv2d { batch, inp: *inp, out: *out, groups: 1, window: *window, bias };
                g.push(op, &from)
            }
            Step::BatchNorm { channels, area, map, moments: held } => {
                let moments = moments();
                from.extend(map.sources());
                if matches!(moments, Moments::Given) {
                    let middle = held.start + channels;
                    from.extend([frozen(held.start..middle), frozen(middle..held.end)]);
                }
                let op = BatchNorm2d { batch, channels: *channels, area: *area, eps: BATCH_EPS, moments };
                g.push(op, &from)
            }
            Step::LayerNorm { len, width, map } => {
                from.extend(map.sources());
                g.push(LayerNorm { rows: batch * len, width: *width, eps: LAYER_EPS }, &from)
            }
            Step::Act { len, act } => g.push(Activation { len: batch * len, act: *act }, &from),
            Step::MaxPool { channels, window } => {
                g.push(MaxPool2d { planes: batch * channels, window: *window }, &from)
            }
            Step::AvgPool { channels, window } => {
                g.push(AvgPool2d { planes: batch * channels, window: *window }, &from)
            }
            Step::Add { len } => g.push(Residual { len: batch * len }, &from),
            Step::Linear { len, inp, out, map, residual } => {
                let rest = from.split_off(1);
                from.extend(map.sources());
                from.extend(rest);
                let (rows, bias) = (batch * len, map.b.is_some());
                g.push(Linear { rows, inp: *inp, out: *out, bias, residual: *residual }, &from)
            }
            Step::Attention { len, heads, head_dim, layer } => {
                let (len, heads, head_dim, layer) = (*len, *heads, *head_dim, *layer);
                g.push(Attention { batch, len, heads, kv_heads: heads, head_dim, rope: None, layer }, &from)
            }
            Step::Patches { channels, plane, size } => {
                g.push(Patches { batch, channels: *channels, plane: *plane, size: *size }, &from)
            }
            Step::Positions { len, width, positions, class } => {
                from.push(trained(positions));
                from.extend(class.as_ref().map(trained));
                g.push(Positions { batch, len: *len, width: *width, class: class.is_some() }, &from)
            }
            Step::PoolRows { len, width, first } => {
                g.push(PoolRows { batch, len: *len, width: *width, first: *first }, &from)
            }
        }
    }
}

fn fit(name: &str, window: Window) -> Result<Window, ModelError> {
    if window.positions() == 0 || window.kernel.contains(&0) {
        let ([kr, kc], [r, c]) = (window.kernel, window.plane);
        return refuse(
            name,
            format!(
                "a window of {kr} x {kc} does not fit {r} x {c} scalars: give larger images or fewer layers"
            ),
        );
    }
    Ok(window)
}
