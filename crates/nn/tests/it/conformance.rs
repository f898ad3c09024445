//! One table of all operations; every row runs the whole battery.
//!
//! Each operation is wrapped as `loss = sum(c * y)`-like through a squared error against a fixed target, so
//! that the loss has curvature of its own and the operation's second derivatives matter.

use std::sync::Arc;

use rhumb_linalg::Real;
use rhumb_linalg::rng::Rng;
use rhumb_nn::loss::{LmHead, LogitLoss, LossKind, Mse};
use rhumb_nn::op::{Data, IGNORE};
use rhumb_nn::ops::*;
use rhumb_nn::tape::{Graph, Request, Span, Src, Tape, Var};

const N: usize = 6;
const LEN: usize = 3;

/// A graph under test: parameters are everything that is differentiated.
struct Case<T: Real> {
    name: &'static str,
    params: usize,
    build: fn(&mut Graph<T>, &mut Shapes),
}

/// Hands out parameter spans one after another.
#[derive(Default)]
struct Shapes {
    used: usize,
}

impl Shapes {
    fn take(&mut self, n: usize) -> Src {
        let range = self.used..self.used + n;
        self.used += n;
        Src::Param(Span { range, trainable: true })
    }
}

/// Turns a parameter span into a variable, so that operations on variables are differentiated as well.
fn var<T: Real>(g: &mut Graph<T>, s: &mut Shapes, n: usize) -> Var {
    let p = s.take(n);
    g.push(Activation { len: n, act: Act::Tanh }, &[p])
}

fn end<T: Real>(g: &mut Graph<T>, y: Var, n: usize) {
    let target = g.input(n, false);
    g.finish(Mse { len: n }, &[y.into(), target.into()]);
}

fn table() -> Arc<RopeTable<f64>> {
    Arc::new(RopeTable::new(&RopeTable::<f64>::inv_freq(10_000.0, 4), 16))
}

fn linear(g: &mut Graph<f64>, s: &mut Shapes, bias: bool, residual: bool) {
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

fn activation(g: &mut Graph<f64>, s: &mut Shapes, act: Act) {
    let x = s.take(N * 5);
    let y = g.push(Activation { len: N * 5, act }, &[x]);
    end(g, y, N * 5);
}

fn attention(g: &mut Graph<f64>, s: &mut Shapes, heads: usize, kv_heads: usize, rope: bool) {
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

fn head(g: &mut Graph<f64>, s: &mut Shapes, kind: LossKind, chunk: usize) {
    let h = var(g, s, N * 5);
    let w = s.take(7 * 5);
    g.finish(LmHead::with_chunk(N, 5, 7, kind, chunk), &[h.into(), w]);
}

#[expect(clippy::too_many_lines, reason = "one table, one row per operation")]
fn cases() -> Vec<Case<f64>> {
    fn case(name: &'static str, params: usize, build: fn(&mut Graph<f64>, &mut Shapes)) -> Case<f64> {
        Case { name, params, build }
    }
    vec![
        case("embedding", 9 * 4, |g, s| {
            let w = s.take(9 * 4);
            let y = g.push(Embed { rows: N, width: 4, positions: false }, &[w]);
            end(g, y, N * 4);
        }),
        case("embedding with positions", 9 * 4 + 5 * 4, |g, s| {
            let (w, p) = (s.take(9 * 4), s.take(5 * 4));
            let y = g.push(Embed { rows: N, width: 4, positions: true }, &[w, p]);
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
        case("lm-head ce", N * 5 + 35, |g, s| head(g, s, LossKind::Ce, 64)),
        case("lm-head ce in chunks of two", N * 5 + 35, |g, s| head(g, s, LossKind::Ce, 2)),
        case("logit loss", N * 7, |g, s| {
            let x = var(g, s, N * 7);
            g.finish(LogitLoss::new(N, 7, LossKind::Ce), &[x.into()]);
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
    ]
}

/// Everything around one evaluation.
struct Bench {
    tape: Tape<f64>,
    params: Vec<f64>,
    target: Vec<f64>,
    ids: Vec<u32>,
    positions: Vec<u32>,
    spans: Vec<(u32, u32)>,
    targets: Vec<u32>,
}

impl Bench {
    fn new(case: &Case<f64>) -> Self {
        let mut g = Graph::new();
        let mut shapes = Shapes::default();
        (case.build)(&mut g, &mut shapes);
        assert_eq!(shapes.used, case.params, "{}: parameters of the table row", case.name);
        let mut rng = Rng::named(5, case.name);
        let params = (0..case.params).map(|_| rng.normal()).collect();
        let target = (0..N * 64).map(|_| rng.normal()).collect();
        Bench {
            tape: Tape::new(g).unwrap(),
            params,
            target,
            ids: vec![3, 1, 3, 8, 0, 3],
            positions: vec![0, 1, 0, 0, 1, 2],
            // Row 0 holds two documents, row 1 sees forward as well (bidirectional).
            spans: vec![(0, 1), (0, 2), (2, 3), (0, 3), (0, 3), (0, 3)],
            targets: vec![2, IGNORE, 6, 0, 2, 5],
        }
    }

    fn with<R>(&mut self, f: impl FnOnce(&mut Tape<f64>, &[f64], Request<'_, f64>) -> R) -> R {
        let len = self.tape.input_lens().first().copied().unwrap_or(0);
        let inputs = [&self.target[..len]];
        let data = Data {
            ids: &self.ids,
            positions: &self.positions,
            spans: &self.spans,
            targets: &self.targets,
            inputs: if len == 0 { &[] } else { &inputs },
        };
        let req = Request { frozen: &[], data, weight: 0.3, dropout: Some(11) };
        f(&mut self.tape, &self.params, req)
    }

    fn gradient(&mut self) -> (f64, Vec<f64>) {
        let mut g = vec![f64::NAN; self.params.len()];
        let r = self.with(|t, p, req| t.gradient(p, req, &mut g, false, &mut []).unwrap());
        (r.loss, g)
    }

    fn hvp(&mut self, v: &[f64]) -> Vec<f64> {
        let mut out = vec![f64::NAN; v.len()];
        self.with(|t, p, req| t.hvp(p, req, v, &mut out).unwrap());
        out
    }

    fn direction(&self, seed: u64) -> Vec<f64> {
        let mut rng = Rng::new(seed);
        (0..self.params.len()).map(|_| rng.normal()).collect()
    }

    fn moved(&mut self, v: &[f64], by: f64) -> (f64, Vec<f64>) {
        let keep = self.params.clone();
        self.params.iter_mut().zip(v).for_each(|(p, v)| *p += by * v);
        let out = self.gradient();
        self.params = keep;
        out
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

#[test]
fn the_vjp_of_every_operation_equals_central_differences() {
    for case in &cases() {
        let mut b = Bench::new(case);
        let (_, g) = b.gradient();
        for seed in 0..4 {
            let v = b.direction(seed);
            let h = 1e-5;
            let slope = (b.moved(&v, h).0 - b.moved(&v, -h).0) / (2.0 * h);
            let err = (slope - dot(&g, &v)).abs() / slope.abs().max(1e-3);
            assert!(
                err < 1e-7,
                "{}: slope {slope}, gradient {} (relative {err:.1e})",
                case.name,
                dot(&g, &v)
            );
        }
    }
}

#[test]
fn the_hessian_product_of_every_operation_equals_differences_of_gradients() {
    for case in &cases() {
        let mut b = Bench::new(case);
        for seed in 0..3 {
            let v = b.direction(seed);
            let h = 1e-5;
            let (hi, lo) = (b.moved(&v, h).1, b.moved(&v, -h).1);
            let want: Vec<f64> = hi.iter().zip(&lo).map(|(a, b)| (a - b) / (2.0 * h)).collect();
            let got = b.hvp(&v);
            let diff: Vec<f64> = got.iter().zip(&want).map(|(a, b)| a - b).collect();
            let err = norm(&diff) / norm(&want).max(1e-3);
            assert!(err < 1e-6, "{}: relative error {err:.1e}", case.name);
        }
    }
}

#[test]
fn the_hessian_of_every_operation_is_symmetric() {
    for case in &cases() {
        let mut b = Bench::new(case);
        let (u, v) = (b.direction(1), b.direction(2));
        let (hu, hv) = (b.hvp(&u), b.hvp(&v));
        let (a, c) = (dot(&u, &hv), dot(&v, &hu));
        let scale = norm(&u) * norm(&hv);
        assert!((a - c).abs() <= 1e-12 * scale.max(1e-9), "{}: {a} and {c}", case.name);
    }
}

#[test]
fn gradients_accumulate_and_stream_to_the_same_bits() {
    for case in &cases() {
        let mut b = Bench::new(case);
        let (_, g) = b.gradient();
        let mut twice = g.clone();
        b.with(|t, p, req| t.gradient(p, req, &mut twice, true, &mut []).unwrap());
        for (a, t) in g.iter().zip(&twice) {
            assert!((2.0 * a - t).abs() <= 1e-12 * a.abs().max(1.0), "{}", case.name);
        }
        let mut params = b.params.clone();
        let mut streamed = vec![0.0; g.len()];
        b.with(|t, _, req| {
            t.gradient_streaming(&mut params, req, &mut |r, p, g| {
                streamed[r].copy_from_slice(g);
                p.fill(f64::NAN);
            })
            .unwrap()
        });
        assert_eq!(streamed, g, "{}: no rule may read a span after it was handed over", case.name);
    }
}

#[test]
fn repeated_sweeps_and_other_thread_counts_give_the_same_bits() {
    for case in &cases() {
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let two = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let mut b = Bench::new(case);
        let v = b.direction(1);
        let first = one.install(|| (b.gradient(), b.hvp(&v)));
        let second = two.install(|| (b.gradient(), b.hvp(&v)));
        assert_eq!(first, second, "{}", case.name);
    }
}
