//! What Muon does to a matrix, and which tensors it leaves to AdamW.

use rhumb_core::{Layout, Optimizer, Role};
use rhumb_linalg::rng::Rng;
use rhumb_optim::{AdjustLr, Muon, MuonConfig, Partition, PerHead, Preset};

use crate::{one, params};

fn random(n: usize, seed: u64) -> Vec<f64> {
    let mut r = Rng::new(seed);
    (0..n).map(|_| r.normal()).collect()
}

fn muon(l: &Layout, config: MuonConfig) -> Muon<f64> {
    Muon::new(l, &Partition::per_element(l, Preset::Rhumb), config, params()).unwrap()
}

/// The update of one step from zero parameters with learning rate 1 and no shape factor.
fn update(shape: [usize; 2], g: &[f64], config: MuonConfig) -> Vec<f64> {
    let l = one("w", &shape, Role::Mlp);
    let mut p = vec![0.0; g.len()];
    muon(&l, config).step(1.0, &mut p, g);
    let ratio = (shape[0] as f64 / shape[1] as f64).max(1.0).sqrt();
    p.iter().map(|x| -x / ratio).collect()
}

#[test]
fn every_singular_value_of_the_update_is_near_one() {
    for shape in [[6, 10], [10, 6], [8, 8]] {
        let u = update(shape, &random(shape[0] * shape[1], 1), MuonConfig::default());
        let [m, n] = shape;
        // Σ σ² and Σ σ⁴ bound the spread: σ between 0.3 and 1.3.
        let k = m.min(n) as f64;
        let frobenius: f64 = u.iter().map(|x| x * x).sum();
        assert!((0.5..1.5).contains(&(frobenius / k)), "{shape:?}: {frobenius}");
        let mut quartic = 0.0;
        for i in 0..m {
            for j in 0..m {
                quartic += (0..n).map(|c| u[i * n + c] * u[j * n + c]).sum::<f64>().powi(2);
            }
        }
        assert!(quartic / k < 2.0 && quartic / k > 0.3, "{shape:?}: {quartic}");
    }
}

#[test]
fn the_direction_commutes_with_transposition_and_ignores_scale() {
    let g = random(40, 2);
    let transposed: Vec<f64> = (0..40).map(|i| g[(i % 5) * 8 + i / 5]).collect();
    let (a, b) =
        (update([5, 8], &g, MuonConfig::default()), update([8, 5], &transposed, MuonConfig::default()));
    let scaled = update([5, 8], &g.iter().map(|x| 1e4 * x).collect::<Vec<_>>(), MuonConfig::default());
    for i in 0..40 {
        assert!((a[i] - b[(i % 8) * 5 + i / 8]).abs() < 1e-12);
        assert!((a[i] - scaled[i]).abs() < 1e-12);
    }
}

#[test]
fn the_convergent_cubic_gives_the_orthogonal_factor() {
    // X ← 1.5 X − 0.5 X Xᵀ X converges to U Vᵀ: here a rotation by 30 degrees times 2 and 5.
    let (c, s) = (0.75_f64.sqrt(), 0.5);
    let cubic = MuonConfig { ns_coefficients: [1.5, -0.5, 0.0], ns_steps: 60, ..MuonConfig::default() };
    crate::close(&update([2, 2], &[2.0 * c, -5.0 * s, 2.0 * s, 5.0 * c], cubic), &[c, -s, s, c], 1e-12);
}

#[test]
fn roles_decide_who_updates_and_what_it_costs() {
    let mut l = Layout::new();
    l.push("embed", &[4, 6], Role::Embed);
    l.push("position", &[4, 6], Role::Position);
    l.push("head", &[4, 6], Role::Head);
    l.push("norm", &[6], Role::Norm);
    l.push("scale", &[6], Role::Other);
    l.push("w", &[4, 6], Role::Other);
    l.push("experts", &[2, 4, 6], Role::Mlp);
    l.push("conv", &[4, 3, 4], Role::Conv);
    let mut o = muon(&l, MuonConfig::default());
    assert_eq!(o.state_bytes(), 8 * (2 * (3 * 24 + 12) + 24 + 48 + 48));
    assert_eq!(o.scratch_bytes(), 0);
    o.step(0.1, &mut random(l.len(), 3), &random(l.len(), 4));
    assert_eq!(o.scratch_bytes(), 8 * (2 * 48 + 2 * 16));
}

#[test]
fn a_tensor_whose_heads_take_turns_is_cut_into_all_of_them() {
    let shape = [16, 4];
    let l = |role| one("w", &shape, role);
    let (p0, g) = (random(64, 7), random(64, 8));
    let run = |l: &Layout, per_head| {
        let mut p = p0.clone();
        muon(l, MuonConfig { per_head, ..MuonConfig::default() }).step(0.1, &mut p, &g);
        p
    };
    let grouped = l(Role::QkvGrouped { head_dim: 2, groups: 2, queries: 2 });
    let heads = l(Role::Query { head_dim: 2 });
    assert_eq!(run(&grouped, PerHead::Qk), run(&heads, PerHead::Qk));
    assert_eq!(run(&grouped, PerHead::Off), run(&heads, PerHead::Off));
}

#[test]
fn heads_of_a_fused_tensor_are_updated_like_separate_ones() {
    let (d, hd) = (6, 3);
    let rows = [2 * hd, hd, hd];
    let fused = one("qkv", &[4 * hd, d], Role::Qkv { head_dim: hd, heads: 2, kv_heads: 1 });
    let g = random(4 * hd * d, 5);
    for per_head in [PerHead::Off, PerHead::Qk, PerHead::Qkv] {
        let config = MuonConfig { per_head, adjust_lr: AdjustLr::MatchRmsAdamw, ..MuonConfig::default() };
        let mut p = random(g.len(), 6);
        let start = p.clone();
        muon(&fused, config).step(0.1, &mut p, &g);
        let mut at = 0;
        for (rows, role) in rows.into_iter().zip([
            Role::Query { head_dim: hd },
            Role::Key { head_dim: hd },
            Role::Value { head_dim: hd },
        ]) {
            let part = at..at + rows * d;
            let mut q = start[part.clone()].to_vec();
            muon(&one("w", &[rows, d], role), config).step(0.1, &mut q, &g[part.clone()]);
            crate::close(&p[part.clone()], &q, 1e-13);
            at = part.end;
        }
    }
}
