//! Optimizer state over several ranks: as one rank computes it, however the model is cut.

mod checkpoint;
mod equality;
mod plan;

use std::time::Duration;

use rhumb_core::{Layout, Optimizer, Role};
use rhumb_linalg::Real;
use rhumb_linalg::rng::Rng;
use rhumb_optim::shard::{InProcess, Reduce, ShardKind, ShardPlan, ShardedAdamMini};
use rhumb_optim::{AdamMini, Partition, Preset};

use crate::params;

const LR: f64 = 0.01;

/// Every class of block: rows, heads, grouped keys, fused heads and rows, whole tensors, single elements.
fn layout() -> Layout {
    let mut l = Layout::new();
    l.push("model.embed_tokens.weight", &[11, 12], Role::Embed);
    l.push("layers.0.self_attn.q_proj.weight", &[12, 12], Role::Query { head_dim: 3 });
    l.push("layers.0.self_attn.k_proj.weight", &[6, 12], Role::Key { head_dim: 3 });
    l.push("layers.0.self_attn.v_proj.weight", &[6, 12], Role::Value { head_dim: 3 });
    l.push("layers.0.self_attn.o_proj.weight", &[12, 12], Role::AttnOut);
    l.push("layers.0.self_attn.o_proj.bias", &[12], Role::Bias);
    l.push("layers.0.mlp.up_proj.weight", &[10, 12], Role::Mlp);
    l.push("layers.0.mlp.experts", &[3, 4, 12], Role::Experts);
    l.push("layers.0.input_layernorm.weight", &[12], Role::Norm);
    l.push("layers.1.attn.qkv", &[12, 12], Role::Qkv { head_dim: 3, heads: 2, kv_heads: 1 });
    l.push("conv", &[4, 3, 2, 2], Role::Conv);
    l.push("lm_head.weight", &[11, 12], Role::Head);
    l
}

fn random<T: Real>(n: usize, seed: u64) -> Vec<T> {
    let mut r = Rng::new(seed);
    (0..n).map(|_| T::of(r.normal())).collect()
}

fn gradient<T: Real>(layout: &Layout, t: u64) -> Vec<T> {
    random(layout.len(), 100 + t)
}

/// Parameters after steps on one rank.
fn single<T: Real>(layout: &Layout, preset: Preset, steps: u64) -> (Vec<T>, AdamMini<T>) {
    let mut o = AdamMini::new(layout, Partition::preset(preset, layout).unwrap(), params());
    let mut p = random(layout.len(), 1);
    for t in 0..steps {
        o.step(LR, &mut p, &gradient(layout, t));
    }
    (p, o)
}

/// Runs every rank on a thread of its own.
fn on_ranks<R: Send>(ranks: usize, f: impl Fn(InProcess) -> R + Sync) -> Vec<R> {
    let f = &f;
    std::thread::scope(|s| {
        let handles: Vec<_> = InProcess::group(ranks, Duration::from_secs(60))
            .into_iter()
            .map(|r| s.spawn(move || f(r)))
            .collect();
        handles.into_iter().map(|h| h.join().unwrap()).collect()
    })
}

/// Takes steps `from..to` on every rank, from given optimizers and parameters.
fn steps<T: Real>(
    plan: &ShardPlan,
    ranks: &[ShardedAdamMini<T>],
    p: &[T],
    from: u64,
    to: u64,
) -> (Vec<T>, Vec<ShardedAdamMini<T>>) {
    let (parts, optimizers): (Vec<Vec<T>>, Vec<_>) = on_ranks(plan.ranks(), |mut reduce| {
        let rank = reduce.rank();
        let mut o = ranks[rank].clone();
        let mut part = plan.scatter(rank, p).unwrap();
        for t in from..to {
            let g = plan.scatter(rank, &gradient(plan.layout(), t)).unwrap();
            o.step(LR, &mut part, &g, &mut reduce).unwrap();
        }
        assert_eq!(reduce.payload_bytes(), (to - from) * o.payload_bytes());
        (part, o)
    })
    .into_iter()
    .unzip();
    (plan.gather(&parts).unwrap(), optimizers)
}

fn fresh<T: Real>(plan: &ShardPlan, preset: Preset) -> Vec<ShardedAdamMini<T>> {
    let partition = Partition::preset(preset, plan.layout()).unwrap();
    (0..plan.ranks()).map(|r| ShardedAdamMini::new(plan, partition.clone(), params(), r).unwrap()).collect()
}

/// Every way of cutting the layout for that many ranks.
fn plans(layout: &Layout, ranks: usize) -> Vec<ShardPlan> {
    [ShardKind::Replicated, ShardKind::Row, ShardKind::Column, ShardKind::Flat]
        .map(|kind| ShardPlan::new(layout, kind, ranks).unwrap())
        .to_vec()
}
