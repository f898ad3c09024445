//! A step allocates nothing, and state is allocated byte for byte as the formula says.
//!
//! The allocator counts every call in every thread, so there is one test and nothing beside it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::alloc::System;

use rhumb_core::{Layout, Role};
use rhumb_optim::{Kind, OptimizerConfig, StateFormat};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Every path of a step: rows, heads, a fused tensor, a block above the cached size, single elements.
fn layout(scale: usize) -> Layout {
    let mut l = Layout::new();
    l.push("embed", &[100 * scale, 333], Role::Embed);
    l.push("q", &[256 * scale, 300], Role::Query { head_dim: 64 });
    l.push("qkv", &[36 * scale, 1000], Role::Qkv { head_dim: 3, heads: 6 * scale, kv_heads: 3 * scale });
    l.push("conv", &[200 * scale, 500], Role::Other);
    l.push("wide", &[scale, 80_001], Role::Mlp);
    l.push("bias", &[70_000 * scale], Role::Bias);
    l.push("norm", &[300], Role::Norm);
    l
}

/// Bytes that live after building.
fn held(config: &OptimizerConfig, layout: &Layout) -> usize {
    let region = Region::new(ALLOCATOR);
    let o = config.build::<f32>(layout).unwrap();
    let s = region.change();
    drop(o);
    s.bytes_allocated - s.bytes_deallocated
}

#[test]
fn a_step_allocates_nothing_and_state_is_the_formula() {
    let (small, large) = (layout(1), layout(3));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| {
        for kind in [Kind::AdamMini, Kind::AdamW] {
            for state in [StateFormat::Full, StateFormat::Bf16, StateFormat::EightBit] {
                let config = OptimizerConfig { kind, state, weight_decay: 0.1, ..OptimizerConfig::default() };
                // What both hold besides, names and tables, cancels.
                let formula = config.state_bytes(&large, 4).unwrap() - config.state_bytes(&small, 4).unwrap();
                assert_eq!(held(&config, &large) - held(&config, &small), formula, "{kind:?} {state:?}");

                let mut o = config.build::<f32>(&large).unwrap();
                let (mut p, g) = (vec![0.1_f32; large.len()], vec![0.01_f32; large.len()]);
                let region = Region::new(ALLOCATOR);
                for _ in 0..3 {
                    o.step(1e-3, &mut p, &g);
                }
                let s = region.change();
                assert_eq!((s.allocations, s.reallocations), (0, 0), "{kind:?} {state:?}");
            }
        }
    });
}
