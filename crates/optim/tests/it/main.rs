//! Integration tests of the optimizers.
#![allow(clippy::unwrap_used, reason = "tests")]

mod battery;
mod checkpoint;
mod config;
mod convert;
mod exact;
mod formats;
mod groups;
mod invariants;
mod muon;
mod parity;
mod partition;
mod replay;
mod shard;
mod slim_adam;

use rhumb_core::{Layout, Optimizer, Role};
use rhumb_linalg::Real;
use rhumb_optim::{AdamMini, AdamParams, AdamW, Partition, Preset};

/// A layout of one tensor.
fn one(name: &str, shape: &[usize], role: Role) -> Layout {
    let mut layout = Layout::new();
    layout.push(name, shape, role);
    layout
}

fn params() -> AdamParams {
    AdamParams::new(0.9, 0.95, 1e-8, 0.1).unwrap()
}

fn mini<T: Real>(layout: &Layout, preset: Preset, p: AdamParams) -> AdamMini<T> {
    AdamMini::new(layout, Partition::preset(preset, layout).unwrap(), p)
}

fn adamw<T: Real>(layout: &Layout, p: AdamParams) -> AdamW<T> {
    AdamW::new(layout, &Partition::per_element(layout, Preset::Rhumb), p)
}

fn steps<T: Real>(o: &mut dyn Optimizer<T>, lr: f64, p: &mut [T], grads: &[Vec<T>]) {
    for g in grads {
        o.step(lr, p, g);
    }
}

#[track_caller]
fn close(got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        assert!((a - b).abs() <= tolerance, "entry {i}: {a} instead of {b}");
    }
}
