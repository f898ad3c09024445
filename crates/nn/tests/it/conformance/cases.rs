//! The table of operations under test.

use std::sync::Arc;

use rhumb_linalg::Real;
use rhumb_nn::loss::{LOSSES, LmHead, LogitLoss, LossKind, Mse};
use rhumb_nn::ops::*;
use rhumb_nn::tape::{Graph, Span, Src, Var};

/// Tokens of a short case, and of one of its rows.
pub(super) const N: usize = 6;
pub(super) const LEN: usize = 3;
/// The same of a long case: its rows are cut in three blocks of queries.
pub(super) const LONG_N: usize = 3 * LONG;
pub(super) const LONG: usize = 150;

/// What the reported loss is to the computed gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// Its potential.
    Gradient,
    /// Not its potential, but some function is: the Hessian exists.
    Symmetric,
    /// No function has this gradient, and a Hessian product is refused.
    Free,
}

/// A graph under test: parameters are everything that is differentiated.
pub(super) struct Case<T: Real> {
    pub(super) name: String,
    pub(super) params: usize,
    pub(super) field: Field,
    pub(super) tokens: usize,
    pub(super) build: Build<T>,
}

/// Puts the operation under test into a graph.
pub(super) type Build<T> = Box<dyn Fn(&mut Graph<T>, &mut Shapes)>;

/// Hands out parameter spans one after another.
#[derive(Default)]
pub(super) struct Shapes {
    pub(super) used: usize,
}

impl Shapes {
    pub(super) fn take(&mut self, n: usize) -> Src {
        let range = self.used..self.used + n;
        self.used += n;
        Src::Param(Span { range, trainable: true })
    }
}

/// Turns a parameter span into a variable, so that operations on variables are differentiated as well.
pub(super) fn var<T: Real>(g: &mut Graph<T>, s: &mut Shapes, n: usize) -> Var {
    let p = s.take(n);
    g.push(Activation { len: n, act: Act::Tanh }, &[p])
}

pub(super) fn end<T: Real>(g: &mut Graph<T>, y: Var, n: usize) {
    let target = g.input(n, false);
    g.finish(Mse { len: n }, &[y.into(), target.into()]);
}

fn table<T: Real>() -> Arc<RopeTable<T>> {
    Arc::new(RopeTable::new(&RopeTable::<T>::inv_freq(10_000.0, 4), LONG))
}

fn linear<T: Real>(g: &mut Graph<T>, s: &mut Shapes, bias: bool, residual: bool) {
    let x = var(g, s, N * 5);
    let mut inputs = vec![x.into(), s.take(4 * 5)];
    if bias {
        inputs.push(s.take(4));
    }
    if residual {
        inputs.push(var(g, s, N * 4).into());
    }
    let y = g.push(Linear { rows: N, inp: 5, out: 4, bias, residual }, &inputs);
    end(g, y, N * 4);
}

fn activation<T: Real>(g: &mut Graph<T>, s: &mut Shapes, act: Act) {
    let x = s.take(N * 5);
    let y = g.push(Activation { len: N * 5, act }, &[x]);
    end(g, y, N * 5);
}

fn attention<T: Real>(g: &mut Graph<T>, s: &mut Shapes, heads: usize, kv_heads: usize, rope: bool) {
    let w = (heads + 2 * kv_heads) * 4;
    let x = var(g, s, N * w);
    let op = Attention {
        batch: N / LEN,
        len: LEN,
        heads,
        kv_heads,
        head_dim: 4,
        rope: rope.then(table),
        layer: 0,
    };
    let y = g.push(op, &[x.into()]);
    end(g, y, N * heads * 4);
}

fn head<T: Real>(g: &mut Graph<T>, s: &mut Shapes, kind: LossKind, chunk: usize) {
    let h = var(g, s, N * 5);
    let w = s.take(7 * 5);
    g.finish(LmHead::with_chunk(N, 5, 7, kind, chunk), &[h.into(), w]);
}

fn long_attention<T: Real>(g: &mut Graph<T>, s: &mut Shapes, kv_heads: usize, rope: bool) {
    let w = (2 + 2 * kv_heads) * 4;
    let x = var(g, s, LONG_N * w);
    let rope = rope.then(table);
    let op = Attention { batch: 3, len: LONG, heads: 2, kv_heads, head_dim: 4, rope, layer: 0 };
    let y = g.push(op, &[x.into()]);
    end(g, y, LONG_N * 8);
}

/// The head and the loss on given scores, with every loss of the table.
fn losses<T: Real>() -> Vec<Case<T>> {
    let mut out = Vec::new();
    for loss in LOSSES {
        let kind = loss.kind(None).unwrap();
        let field = match (kind, loss.no_hessian) {
            (_, Some(_)) => Field::Free,
            (LossKind::GemLinear { .. } | LossKind::Dft, None) => Field::Symmetric,
            _ => Field::Gradient,
        };
        let mut push = |name: String, params: usize, build: Build<T>| {
            out.push(Case { name, params, field, tokens: N, build });
        };
        for chunk in [64, 2] {
            let name = format!("lm-head {} in chunks of {chunk}", loss.name);
            push(name, N * 5 + 35, Box::new(move |g, s| head(g, s, kind, chunk)));
        }
        let logits = move |g: &mut Graph<T>, s: &mut Shapes| {
            let x = var(g, s, N * 7);
            g.finish(LogitLoss::new(N, 7, kind), &[x.into()]);
        };
        push(format!("logit loss {}", loss.name), N * 7, Box::new(logits));
    }
    out
}

#[expect(clippy::too_many_lines, reason = "one table, one row per operation")]
pub(super) fn cases<T: Real>() -> Vec<Case<T>> {
    fn case<T: Real>(name: &'static str, params: usize, build: fn(&mut Graph<T>, &mut Shapes)) -> Case<T> {
        Case { name: name.to_owned(), params, field: Field::Gradient, tokens: N, build: Box::new(build) }
    }
    fn long<T: Real>(name: &'static str, width: usize, build: fn(&mut Graph<T>, &mut Shapes)) -> Case<T> {
        Case { tokens: LONG_N, ..case(name, LONG_N * width, build) }
    }
    let mut all = vec![
        case("embedding", 9 * 4, |g, s| {
            let w = s.take(9 * 4);
            let y = g.push(Embed { rows: N, width: 4, positions: false, noise: 0.0 }, &[w]);
            end(g, y, N * 4);
        }),
        case("embedding with positions", 9 * 4 + 5 * 4, |g, s| {
            let (w, p) = (s.take(9 * 4), s.take(5 * 4));
            let y = g.push(Embed { rows: N, width: 4, positions: true, noise: 0.0 }, &[w, p]);
            end(g, y, N * 4);
        }),
        case("embedding with noise", 9 * 4, |g, s| {
            let w = s.take(9 * 4);
            let y = g.push(Embed { rows: N, width: 4, positions: false, noise: 5.0 }, &[w]);
            end(g, y, N * 4);
        }),
        case("linear", N * 5 + 20, |g, s| linear(g, s, false, false)),
        case("linear with bias", N * 5 + 24, |g, s| linear(g, s, true, false)),
        case("linear with residual", N * 9 + 20, |g, s| linear(g, s, false, true)),
        case("linear with bias and residual", N * 9 + 24, |g, s| linear(g, s, true, true)),
        case("low-rank", N * 5 + N * 4 + 2 * 2, |g, s| {
            let (x, u) = (var(g, s, N * 5), var(g, s, N * 4));
            let b = s.take(2 * 2);
            let op = LowRank { rows: N, width: 5, cols: 2..4, total: 4, from: 1, rank: 2, scale: 0.7 };
            let y = g.push(op, &[x.into(), u.into(), b]);
            end(g, y, N * 5);
        }),
        case("rms-norm", N * 5 + 5, |g, s| {
            let x = var(g, s, N * 5);
            let w = s.take(5);
            let y = g.push(RmsNorm { rows: N, width: 5, eps: 1e-3 }, &[x.into(), w]);
            end(g, y, N * 5);
        }),
        case("layer-norm", N * 5 + 10, |g, s| {
            let x = var(g, s, N * 5);
            let (w, b) = (s.take(5), s.take(5));
            let y = g.push(LayerNorm { rows: N, width: 5, eps: 1e-3 }, &[x.into(), w, b]);
            end(g, y, N * 5);
        }),
        case("qk-norm", N * 16 + 8, |g, s| {
            let x = var(g, s, N * 16);
            let (q, k) = (s.take(4), s.take(4));
            let op = QkNorm { rows: N, heads: 2, kv_heads: 1, head_dim: 4, eps: 1e-3 };
            let y = g.push(op, &[x.into(), q, k]);
            end(g, y, N * 16);
        }),
        case("rope", N * 8, |g, s| {
            let x = var(g, s, N * 8);
            let y = g.push(Rope { rows: N, heads: 2, head_dim: 4, table: table() }, &[x.into()]);
            end(g, y, N * 8);
        }),
        case("attention", N * 24, |g, s| attention(g, s, 2, 2, false)),
        case("attention with rope", N * 24, |g, s| attention(g, s, 2, 2, true)),
        case("attention with grouped queries", N * 32, |g, s| attention(g, s, 4, 2, true)),
        case("attention with one key head", N * 16, |g, s| attention(g, s, 2, 1, true)),
        long("long attention", 24, |g, s| long_attention(g, s, 2, false)),
        long("long attention with rope", 24, |g, s| long_attention(g, s, 2, true)),
        long("long attention with one key head", 16, |g, s| long_attention(g, s, 1, true)),
        case("swiglu", N * 6, |g, s| {
            let x = s.take(N * 6);
            let y = g.push(SwiGlu { rows: N, width: 3 }, &[x]);
            end(g, y, N * 3);
        }),
        case("gelu", N * 5, |g, s| activation(g, s, Act::Gelu)),
        case("gelu-tanh", N * 5, |g, s| activation(g, s, Act::GeluTanh)),
        case("silu", N * 5, |g, s| activation(g, s, Act::Silu)),
        case("relu", N * 5, |g, s| activation(g, s, Act::Relu)),
        case("tanh", N * 5, |g, s| activation(g, s, Act::Tanh)),
        case("residual", N * 10, |g, s| {
            let (a, b) = (var(g, s, N * 5), var(g, s, N * 5));
            let y = g.push(Residual { len: N * 5 }, &[a.into(), b.into()]);
            end(g, y, N * 5);
        }),
        case("dropout", N * 5, |g, s| {
            let x = var(g, s, N * 5);
            let y = g.push(Dropout { len: N * 5, rate: 0.3, layer: 2 }, &[x.into()]);
            end(g, y, N * 5);
        }),
        case("softmax", N * 5, |g, s| {
            let x = var(g, s, N * 5);
            let y = g.push(Softmax { rows: N, width: 5 }, &[x.into()]);
            end(g, y, N * 5);
        }),
        case("log-softmax", N * 5, |g, s| {
            let x = var(g, s, N * 5);
            let y = g.push(LogSoftmax { rows: N, width: 5 }, &[x.into()]);
            end(g, y, N * 5);
        }),
        case("mse", N * 5, |g, s| {
            let x = var(g, s, N * 5);
            end(g, x, N * 5);
        }),
        case("a value read three times", N * 5 + 25, |g, s| {
            let x = var(g, s, N * 5);
            let w = s.take(25);
            let a = g.push(Linear { rows: N, inp: 5, out: 5, bias: false, residual: false }, &[x.into(), w]);
            let b = g.push(Residual { len: N * 5 }, &[x.into(), a.into()]);
            let c = g.push(Activation { len: N * 5, act: Act::Silu }, &[x.into()]);
            let y = g.push(Residual { len: N * 5 }, &[b.into(), c.into()]);
            end(g, y, N * 5);
        }),
        case("one weight in two places", N * 5 + 25, |g, s| {
            let x = var(g, s, N * 5);
            let w = s.take(25);
            let op = Linear { rows: N, inp: 5, out: 5, bias: false, residual: false };
            let a = g.push(op, &[x.into(), w.clone()]);
            let b = g.push(Activation { len: N * 5, act: Act::Tanh }, &[a.into()]);
            let y = g.push(op, &[b.into(), w]);
            end(g, y, N * 5);
        }),
        case("a checkpointed segment", N * 5 + 50 + 5, |g, s| {
            let x = var(g, s, N * 5);
            let (w1, w2, n) = (s.take(25), s.take(25), s.take(5));
            let op = Linear { rows: N, inp: 5, out: 5, bias: false, residual: false };
            g.checkpoint();
            let h = g.push(RmsNorm { rows: N, width: 5, eps: 1e-3 }, &[x.into(), n]);
            let a = g.push(op, &[h.into(), w1]);
            let b = g.push(Activation { len: N * 5, act: Act::Silu }, &[a.into()]);
            let y = g.push(Linear { residual: true, ..op }, &[b.into(), w2, x.into()]);
            g.keep();
            end(g, y, N * 5);
        }),
    ];
    all.extend(losses());
    all.extend(super::vision::cases());
    all
}
