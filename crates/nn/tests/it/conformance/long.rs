//! Attention over rows longer than a block of queries, against the formula written out.

use std::sync::Arc;

use rhumb_linalg::rng::Rng;
use rhumb_nn::op::Data;
use rhumb_nn::ops::{Attention, RopeTable};
use rhumb_nn::tape::{Graph, Span, Src, Tape};

use super::bench::long_rows;
use super::cases::{LONG, LONG_N};

const HEAD: usize = 4;

/// Softmax attention, one query at a time.
fn written_out(
    x: &[f64],
    heads: usize,
    kv_heads: usize,
    theta: Option<f64>,
    positions: &[u32],
    spans: &[(u32, u32)],
) -> Vec<f64> {
    let width = (heads + 2 * kv_heads) * HEAD;
    let vector = |token: usize, head: usize, turned: bool| -> Vec<f64> {
        let v = &x[token * width + head * HEAD..][..HEAD];
        let Some(theta) = theta.filter(|_| turned) else { return v.to_vec() };
        let half = HEAD / 2;
        (0..HEAD)
            .map(|i| {
                let angle = f64::from(positions[token]) * theta.powf(-((i % half) as f64) / half as f64);
                let other = if i < half { -v[i + half] } else { v[i - half] };
                v[i] * angle.cos() + other * angle.sin()
            })
            .collect()
    };
    let mut out = Vec::new();
    for (token, &(lo, hi)) in spans.iter().enumerate() {
        let row = token / LONG * LONG;
        for h in 0..heads {
            let (q, kv) = (vector(token, h, true), h * kv_heads / heads);
            let keys = row + lo as usize..row + hi as usize;
            let score = |key: usize| -> f64 {
                let k = vector(key, heads + kv, true);
                q.iter().zip(&k).map(|(q, k)| q * k).sum::<f64>() / (HEAD as f64).sqrt()
            };
            let weights: Vec<f64> = keys.clone().map(|key| score(key).exp()).collect();
            let total: f64 = weights.iter().sum();
            let mut y = vec![0.0; HEAD];
            for (key, w) in keys.zip(&weights) {
                let v = vector(key, heads + kv_heads + kv, false);
                y.iter_mut().zip(v).for_each(|(y, v)| *y += w / total * v);
            }
            out.extend(y);
        }
    }
    out
}

#[test]
fn attention_over_several_blocks_has_the_values_of_the_formula() {
    let (positions, spans) = long_rows();
    for (heads, kv_heads, theta) in [(2, 2, None), (2, 1, Some(10_000.0)), (4, 2, Some(100.0))] {
        let n = LONG_N * (heads + 2 * kv_heads) * HEAD;
        let mut rng = Rng::new(8);
        let x: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
        let rope = theta.map(|t| Arc::new(RopeTable::new(&RopeTable::<f64>::inv_freq(t, HEAD), LONG)));
        let mut graph = Graph::new();
        let op = Attention { batch: 3, len: LONG, heads, kv_heads, head_dim: HEAD, rope, layer: 0 };
        let y = graph.push(op, &[Src::Param(Span { range: 0..n, trainable: true })]);
        let mut out = vec![f64::NAN; LONG_N * heads * HEAD];
        let data = Data { positions: &positions, spans: &spans, ..Data::default() };
        Tape::new(graph).unwrap().value(&x, &[], data, None, y, &mut out).unwrap();
        let want = written_out(&x, heads, kv_heads, theta, &positions, &spans);
        for (i, (a, b)) in out.iter().zip(&want).enumerate() {
            assert!((a - b).abs() < 1e-12, "{heads} heads, token {}: {a} and {b}", i / (heads * HEAD));
        }
    }
}
