//! AdamW becomes Adam-mini and Adam-mini AdamW.

use rhumb_core::{Layout, Optimizer, Role};
use rhumb_linalg::Real;
use rhumb_linalg::rng::Rng;
use rhumb_optim::adam_mini::{Cut, TensorPlan, collapse, expand};
use rhumb_optim::{AdamMini, AdamW, Partition, Preset};

use crate::{adamw, close, one, params};

/// Heads, rows, grouped fused attention, experts, a whole norm, single elements.
fn layout() -> Layout {
    let mut l = Layout::new();
    l.push("q_proj.weight", &[8, 8], Role::Query { head_dim: 4 });
    l.push("mlp.weight", &[5, 8], Role::Mlp);
    l.push("qkv", &[12, 8], Role::QkvGrouped { head_dim: 2, groups: 2, queries: 1 });
    l.push("experts", &[2, 3, 8], Role::Experts);
    l.push("norm", &[8], Role::Norm);
    l.push("bias", &[8], Role::Bias);
    l
}

fn random<T: Real>(n: usize, seed: u64) -> Vec<T> {
    let mut r = Rng::new(seed);
    (0..n).map(|_| T::of(r.normal())).collect()
}

fn trained(layout: &Layout) -> (AdamW<f64>, Vec<f64>) {
    let mut o = adamw(layout, params());
    let mut p = random(layout.len(), 1);
    (0..4).for_each(|t| o.step(0.01, &mut p, &random(layout.len(), 10 + t)));
    (o, p)
}

fn v(o: &AdamW<f64>) -> Vec<f64> {
    o.second_moments().to_vec()
}

#[test]
fn every_block_keeps_the_sum_of_its_second_moments_and_every_element_its_first() {
    let layout = layout();
    let (o, _) = trained(&layout);
    for preset in [Preset::Rhumb, Preset::V1_0_4] {
        let partition = Partition::preset(preset, &layout).unwrap();
        let mini = AdamMini::from_adamw(&o, partition.clone()).unwrap();
        let back = mini.to_adamw();
        let (before, after) = (v(&o), v(&back));
        let mut at = 0;
        for cut in partition.tensors().iter().flat_map(|t| &t.cuts) {
            for start in (at..at + cut.elements).step_by(cut.block) {
                let sum = |v: &[f64]| v[start..start + cut.block].iter().sum::<f64>();
                assert!((sum(&before) - sum(&after)).abs() <= 1e-12, "{preset:?} {start}");
            }
            at += cut.elements;
        }
        assert_eq!(at, layout.len());
        // Collapsing what was expanded changes nothing more.
        let again = AdamMini::from_adamw(&back, partition).unwrap();
        close(again.second_moments(), mini.second_moments(), 1e-15);
        assert_eq!(again.snapshot().m, mini.snapshot().m);
        assert_eq!(again.snapshot().t, 4);
    }
}

#[test]
fn blocks_of_one_element_convert_without_loss_and_continue_with_the_same_bits() {
    let layout = layout();
    let (mut a, mut pa) = trained(&layout);
    let single = |l: &Layout| {
        let plan = |b: &rhumb_core::Block| TensorPlan {
            cuts: vec![Cut { elements: b.range.len(), block: 1 }],
            decay: !matches!(b.role, Role::Norm | Role::Bias),
        };
        Partition::custom("single", l, l.blocks().iter().map(plan).collect()).unwrap()
    };
    let mut b = AdamMini::from_adamw(&a, single(&layout)).unwrap();
    let mut pb = pa.clone();
    for t in 4..8 {
        let g = random(layout.len(), 10 + t);
        a.step(0.01, &mut pa, &g);
        b.step(0.01, &mut pb, &g);
    }
    let bits = |p: &[f64]| p.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&pa), bits(&pb));
}

#[test]
fn an_expanded_state_takes_the_same_step_where_gradients_have_one_magnitude() {
    let layout = one("mlp.w", &[2, 4], Role::Mlp);
    let (o, p) = trained(&layout);
    let mut mini = AdamMini::from_adamw(&o, Partition::preset(Preset::Rhumb, &layout).unwrap()).unwrap();
    let mut wide = mini.to_adamw();
    let (mut a, mut b) = (p.clone(), p);
    let g: Vec<f64> = random::<f64>(8, 30).iter().map(|x| x.signum()).collect();
    mini.step(0.01, &mut a, &g);
    wide.step(0.01, &mut b, &g);
    close(&a, &b, 1e-14);
}

#[test]
fn a_partition_of_another_layout_is_refused() {
    let layout = layout();
    let (o, _) = trained(&layout);
    let refuse = |l: &Layout| {
        AdamMini::from_adamw(&o, Partition::preset(Preset::Rhumb, l).unwrap()).unwrap_err().to_string()
    };
    let e = refuse(&one("w", &[2, 2], Role::Mlp));
    assert!(e.contains("4 parameters") && e.contains("1 tensors"), "{e}");
    // As many parameters in as many tensors, but other ones.
    let mut moved = Layout::new();
    for (i, b) in layout.blocks().iter().enumerate() {
        let shape: &[usize] = match i {
            0 => &[5, 8],
            1 => &[8, 8],
            _ => &b.shape,
        };
        moved.push(b.name.clone(), shape, if i < 2 { Role::Mlp } else { b.role });
    }
    let e = refuse(&moved);
    assert!(e.contains("q_proj.weight") && e.contains("40 of its elements"), "{e}");
    // State of another length.
    let partition = Partition::preset(Preset::Rhumb, &layout).unwrap();
    let mut state = AdamMini::from_adamw(&o, partition.clone()).unwrap().snapshot();
    state.m.pop();
    let e = AdamMini::restore(&layout, partition.clone(), params(), &state).unwrap_err().to_string();
    assert!(e.contains("blocks of 264 parameters"), "{e}");
    assert!(collapse(&[1.0; 3], &partition).unwrap_err().to_string().contains("state of 3"));
    assert!(expand(&[1.0; 3], &partition).unwrap_err().to_string().contains("state of 3"));
}
