use std::sync::Arc;

use rhumb_linalg::Real;

use crate::kernel::attention::{self as kernel, Angles, Around, Shape, Where};
use crate::op::{Adj, Ctx, Cx, Ins, Needs, Op, TanCtx, Tans};

/// Rotation angles of rotary position embeddings (Su et al. 2021), rotate-half layout: column `i` of a head
/// is paired with `i + head_dim / 2`.
///
/// # Shapes
/// `cos, sin [positions, head_dim / 2]`, computed in f64 and rounded once.
#[derive(Debug)]
pub struct RopeTable<T> {
    cos: Vec<T>,
    sin: Vec<T>,
    half: usize,
}

impl<T: Real> RopeTable<T> {
    /// Angles `position * inv_freq[i]`.
    pub fn new(inv_freq: &[f64], positions: usize) -> Self {
        let half = inv_freq.len();
        let table = |f: fn(f64) -> f64| {
            (0..positions * half).map(|i| T::of(f((i / half) as f64 * inv_freq[i % half]))).collect()
        };
        RopeTable { cos: table(f64::cos), sin: table(f64::sin), half }
    }

    /// `theta^(-2i / head_dim)`.
    pub fn inv_freq(theta: f64, head_dim: usize) -> Vec<f64> {
        (0..head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64)).collect()
    }

    /// Positions in the table.
    pub fn positions(&self) -> usize {
        self.cos.len() / self.half.max(1)
    }

    fn angles(&self) -> Angles<'_, T> {
        Angles { cos: &self.cos, sin: &self.sin }
    }
}

/// Scaled-dot-product attention with grouped-query heads on packed rows.
///
/// # Equation
/// `softmax(q k^T / sqrt(head_dim)) v` per head over the keys that the batch's spans allow: causal rows,
/// several documents in a row and bidirectional rows with padding are all spans.
///
/// # Reference
/// Vaswani et al. 2017; grouped queries: Ainslie et al. 2023; blockwise evaluation with a saved
/// log-sum-exp: Dao et al. 2022.
///
/// # Shapes
/// Input `[batch len, (heads + 2 kv_heads) head_dim]` with query, key and value columns; output
/// `[batch len, heads head_dim]`; saves one scalar per token and head.
///
/// # Cost
/// Two products per visible block of keys forward, five backward.
#[derive(Clone, Debug)]
pub struct Attention<T> {
    /// Rows of the batch.
    pub batch: usize,
    /// Tokens in a row.
    pub len: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; divides `heads`.
    pub kv_heads: usize,
    /// Columns of one head.
    pub head_dim: usize,
    /// Rotary angles; `None` for models with learned positions.
    pub rope: Option<Arc<RopeTable<T>>>,
    /// Number of the layer, which finds its part of a key-value cache.
    pub layer: usize,
}

impl<T: Real> Attention<T> {
    fn shape(&self) -> Shape {
        Shape {
            batch: self.batch,
            len: self.len,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
        }
    }

    fn at<'a>(&'a self, cx: &Cx<'a, T>) -> Where<'a, T> {
        Where {
            shape: self.shape(),
            rope: self.rope.as_ref().map(|r| r.angles()),
            positions: cx.data.positions,
            spans: cx.data.spans,
            scratch: cx.scratch,
        }
    }
}

impl<T: Real> Op<T> for Attention<T> {
    fn name(&self) -> &'static str {
        "attention"
    }
    fn out_len(&self) -> usize {
        self.batch * self.len * self.heads * self.head_dim
    }
    fn saved_len(&self) -> usize {
        self.batch * self.heads * self.len
    }
    fn needs(&self) -> Needs {
        Needs { inputs: 1, output: true }
    }

    fn forward(&self, cx: &Cx<'_, T>, x: Ins<'_, T>, y: &mut [T], saved: &mut [T]) {
        let at = self.at(cx);
        match cx.cache {
            None => kernel::forward(at, x[0], y, saved),
            Some(cache) => cache.with_layer(self.layer, |mut layer| {
                kernel::append(at, x[0], &mut layer);
                kernel::cached(at, x[0], &layer, y);
            }),
        }
    }

    fn backward(&self, cx: &Cx<'_, T>, at: Ctx<'_, T>, dy: &[T], dx: &mut [Option<Adj<'_, T>>]) {
        if let Some(d) = &mut dx[0] {
            kernel::backward(self.at(cx), at.x[0], at.y, at.saved, dy, d.buf, d.add);
        }
    }

    fn forward_tangent(
        &self,
        cx: &Cx<'_, T>,
        at: Ctx<'_, T>,
        tx: Tans<'_, T>,
        ty: &mut [T],
        tsaved: &mut [T],
    ) {
        match tx[0] {
            Some(t) => kernel::forward_tangent(self.at(cx), at.x[0], t, at.saved, ty, tsaved),
            None => {
                ty.fill(T::ZERO);
                tsaved.fill(T::ZERO);
            }
        }
    }

    fn backward_tangent(
        &self,
        cx: &Cx<'_, T>,
        at: Ctx<'_, T>,
        t: TanCtx<'_, T>,
        tdx: &mut [Option<Adj<'_, T>>],
    ) {
        let Some(d) = &mut tdx[0] else { return };
        let Some(tqkv) = t.tx[0] else {
            kernel::backward(self.at(cx), at.x[0], at.y, at.saved, t.tdy, d.buf, d.add);
            return;
        };
        let around = Around {
            qkv: at.x[0],
            tqkv,
            out: at.y,
            tout: t.ty,
            lse: at.saved,
            tlse: t.tsaved,
            dout: t.dy,
            tdout: t.tdy,
        };
        kernel::backward_tangent(self.at(cx), around, d.buf, d.add);
    }
}

/// Rotary position embedding on its own (attention applies it by itself).
///
/// # Shapes
/// Input and output `[rows, heads head_dim]`.
#[derive(Clone, Debug)]
pub struct Rope<T> {
    /// Rows.
    pub rows: usize,
    /// Heads in a row.
    pub heads: usize,
    /// Columns of one head.
    pub head_dim: usize,
    /// The angles.
    pub table: Arc<RopeTable<T>>,
}

impl<T: Real> Rope<T> {
    fn turn(&self, cx: &Cx<'_, T>, src: &[T], dst: &mut [T], dir: T, add: bool) {
        kernel::rope_rows(self.table.angles(), cx.data.positions, self.head_dim, src, dst, dir, add);
    }
}

impl<T: Real> Op<T> for Rope<T> {
    fn name(&self) -> &'static str {
        "rope"
    }
    fn out_len(&self) -> usize {
        self.rows * self.heads * self.head_dim
    }
    fn needs(&self) -> Needs {
        Needs::NONE
    }
    fn forward(&self, cx: &Cx<'_, T>, x: Ins<'_, T>, y: &mut [T], _: &mut [T]) {
        self.turn(cx, x[0], y, T::ONE, false);
    }
    fn backward(&self, cx: &Cx<'_, T>, _: Ctx<'_, T>, dy: &[T], dx: &mut [Option<Adj<'_, T>>]) {
        if let Some(d) = &mut dx[0] {
            self.turn(cx, dy, d.buf, -T::ONE, d.add);
        }
    }
    fn forward_tangent(&self, cx: &Cx<'_, T>, _: Ctx<'_, T>, tx: Tans<'_, T>, ty: &mut [T], _: &mut [T]) {
        match tx[0] {
            Some(t) => self.turn(cx, t, ty, T::ONE, false),
            None => ty.fill(T::ZERO),
        }
    }
    fn backward_tangent(
        &self,
        cx: &Cx<'_, T>,
        at: Ctx<'_, T>,
        t: TanCtx<'_, T>,
        tdx: &mut [Option<Adj<'_, T>>],
    ) {
        self.backward(cx, at, t.tdy, tdx);
    }
}
