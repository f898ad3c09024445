//! State goes out and comes back, or is refused with a reason.

use std::path::Path;

use rhumb_core::{CheckpointError, Layout, Optimizer, Role, StateReader, StateWriter};
use rhumb_linalg::rng::Rng;
use rhumb_optim::{AdamMini, Kind, OptimizerConfig, Partition, Preset};

use crate::{adamw, mini, params};

fn layout() -> Layout {
    let mut layout = Layout::new();
    layout.push("q_proj", &[4, 4], Role::Query { head_dim: 2 });
    layout.push("mlp.w", &[3, 4], Role::Mlp);
    layout.push("norm", &[4], Role::Norm);
    layout
}

fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut r = Rng::new(seed);
    (0..n).map(|_| r.normal() as f32).collect()
}

fn save(o: &dyn Optimizer<f32>) -> StateReader {
    let mut bytes = Vec::new();
    let mut w = StateWriter::new(&mut bytes, Path::new("memory")).unwrap();
    o.save(&mut w).unwrap();
    w.finish().unwrap();
    StateReader::from_bytes(bytes, Path::new("memory")).unwrap()
}

fn config(kind: Kind) -> OptimizerConfig {
    let momentum = if kind == Kind::Sgd { 0.9 } else { 0.0 };
    OptimizerConfig { kind, momentum, weight_decay: 0.1, ..OptimizerConfig::default() }
}

#[test]
fn a_restored_optimizer_continues_with_the_same_bits() {
    let layout = layout();
    for kind in [Kind::AdamMini, Kind::AdamW, Kind::Sgd] {
        let mut a = config(kind).build::<f32>(&layout).unwrap();
        let mut pa = random(layout.len(), 1);
        for t in 0..3 {
            a.step(0.01, &mut pa, &random(layout.len(), 10 + t));
        }
        let mut b = config(kind).build::<f32>(&layout).unwrap();
        b.load(&mut save(&*a)).unwrap();
        let mut pb = pa.clone();
        for t in 3..10 {
            let g = random(layout.len(), 10 + t);
            a.step(0.01, &mut pa, &g);
            b.step(0.01, &mut pb, &g);
        }
        let bits = |p: &[f32]| p.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&pa), bits(&pb), "{kind:?}");
    }
}

#[test]
fn state_of_another_kind_partition_or_model_is_refused_with_the_difference() {
    let layout = layout();
    let saved = || save(&mini::<f32>(&layout, Preset::Rhumb, params()));
    let message = |r: Result<(), CheckpointError>| r.unwrap_err().to_string();

    let e = message(adamw::<f32>(&layout, params()).load(&mut saved()));
    assert!(e.contains("optimizer adam-mini") && e.contains("adamw"), "{e}");

    let e = message(mini::<f32>(&layout, Preset::V1_1_1, params()).load(&mut saved()));
    assert!(e.contains("partition rhumb") && e.contains("1.1.1"), "{e}");

    let e = message(mini::<f64>(&layout, Preset::Rhumb, params()).load(&mut saved()));
    assert!(e.contains("f32") && e.contains("f64"), "{e}");

    let mut wider = Layout::new();
    wider.push("q_proj", &[4, 4], Role::Query { head_dim: 4 });
    wider.push("mlp.w", &[3, 4], Role::Mlp);
    wider.push("norm", &[4], Role::Norm);
    let e = message(mini::<f32>(&wider, Preset::Rhumb, params()).load(&mut saved()));
    assert!(e.contains("q_proj") && e.contains("other blocks"), "{e}");

    let mut more = layout.clone();
    more.push("extra", &[4], Role::Norm);
    let e = message(mini::<f32>(&more, Preset::Rhumb, params()).load(&mut saved()));
    assert!(e.contains("3 tensors") && e.contains('4'), "{e}");
}

#[test]
fn collapsing_adamw_and_expanding_again_conserves_block_sums() {
    let layout = layout();
    let n = layout.len();
    let mut a = adamw::<f64>(&layout, params());
    let mut p: Vec<f64> = random(n, 3).iter().map(|x| f64::from(*x)).collect();
    for t in 0..4 {
        let g: Vec<f64> = random(n, 20 + t).iter().map(|x| f64::from(*x)).collect();
        a.step(0.01, &mut p, &g);
    }
    let partition = Partition::preset(Preset::Rhumb, &layout).unwrap();
    let collapsed = AdamMini::from_adamw(&a, partition).unwrap();
    let expanded = collapsed.to_adamw();
    for r in [0..8, 8..16, 16..20, 20..24, 24..28, 28..32] {
        let (x, y): (f64, f64) =
            (a.second_moments()[r.clone()].iter().sum(), expanded.second_moments()[r].iter().sum());
        assert!((x - y).abs() < 1e-12);
    }
    assert_eq!(
        AdamMini::from_adamw(&expanded, collapsed.partition().clone()).unwrap().state_bytes(),
        8 * (32 + 6)
    );
    let other = Partition::preset(Preset::Rhumb, &crate::one("w", &[2, 2], Role::Mlp)).unwrap();
    assert!(AdamMini::from_adamw(&a, other).unwrap_err().to_string().contains("4 parameters"));
}
