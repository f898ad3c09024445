//! Ten steps on several ranks against ten steps on one.

use rhumb_core::{Layout, Role};
use rhumb_linalg::Real;
use rhumb_linalg::rng::Rng;
use rhumb_optim::shard::{
    Reduce, ShardError, ShardKind, ShardPlan, ShardedAdamMini, clip_global_norm, global_norm,
};
use rhumb_optim::{AdamParams, Partition, Preset};

use super::{LR, fresh, layout, on_ranks, plans, random, single, steps};
use crate::{close, one, params};

fn f64s<T: Real>(v: &[T]) -> Vec<f64> {
    v.iter().map(|x| x.f64()).collect()
}

/// Largest difference, relative above 1.
fn difference<T: Real>(a: &[T], b: &[T]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a.f64() - b.f64()).abs() / b.f64().abs().max(1.0)).fold(0.0, f64::max)
}

#[test]
fn rows_columns_and_flat_pieces_on_two_and_four_ranks_equal_one_rank() {
    let layout = layout();
    for preset in [Preset::Rhumb, Preset::V1_0_4] {
        let (want64, one64) = single::<f64>(&layout, preset, 10);
        let (want32, _) = single::<f32>(&layout, preset, 10);
        for ranks in [1, 2, 4] {
            for plan in plans(&layout, ranks) {
                let (p, os) = steps(&plan, &fresh(&plan, preset), &random::<f64>(layout.len(), 1), 0, 10);
                let what = format!("{preset:?} {:?} {ranks}", plan.kind());
                assert!(difference(&p, &want64) <= 1e-12, "{what}: {}", difference(&p, &want64));
                let whole = ShardedAdamMini::assemble(&os).unwrap();
                assert!(difference(&whole.m, &one64.first_moments()) <= 1e-12, "{what}");
                assert!(difference(&whole.v, one64.second_moments()) <= 1e-12, "{what}");
                assert_eq!(whole.t, 10);
                let (p, _) = steps(&plan, &fresh(&plan, preset), &random::<f32>(layout.len(), 1), 0, 10);
                assert!(difference(&p, &want32) <= 2e-6, "{what}: {}", difference(&p, &want32));
            }
        }
    }
}

#[test]
fn flat_cuts_inside_a_row_a_head_and_twice_in_one_head_equal_one_rank() {
    let layout = layout();
    let (want, _) = single::<f64>(&layout, Preset::Rhumb, 10);
    // The query begins at 132 and has heads of 36: 140 and 150 lie in its first head, 5 in the first embedding row.
    for cuts in [vec![5], vec![150], vec![5, 140, 150], vec![0, 140, layout.len()], vec![131, 133, 700]] {
        let plan = ShardPlan::flat_at(&layout, &cuts).unwrap();
        let (p, _) = steps(&plan, &fresh(&plan, Preset::Rhumb), &random::<f64>(layout.len(), 1), 0, 10);
        assert!(difference(&p, &want) <= 1e-12, "{cuts:?}: {}", difference(&p, &want));
    }
}

#[test]
fn random_flat_cuts_equal_one_rank() {
    let layout = layout();
    let mut r = Rng::new(7);
    for (preset, count) in [(Preset::Rhumb, 12), (Preset::V1_0_4, 6)] {
        let (want, _) = single::<f64>(&layout, preset, 4);
        for _ in 0..count {
            let mut cuts: Vec<usize> = (0..=r.below(6)).map(|_| r.below(layout.len() + 1)).collect();
            cuts.sort_unstable();
            let plan = ShardPlan::flat_at(&layout, &cuts).unwrap();
            let (p, ranks) = steps(&plan, &fresh(&plan, preset), &random::<f64>(layout.len(), 1), 0, 4);
            assert!(difference(&p, &want) <= 1e-12, "{preset:?} {cuts:?}");
            assert!(ranks[0].shared_blocks() <= cuts.len(), "{cuts:?}");
        }
    }
}

#[test]
fn a_sharded_norm_has_the_mean_of_the_whole_tensor() {
    let layout = one("norm.weight", &[4], Role::Norm);
    let plan = ShardPlan::new(&layout, ShardKind::Row, 2).unwrap();
    let no_decay = AdamParams::new(0.9, 0.99, 1e-8, 0.0).unwrap();
    let got = on_ranks(2, |mut reduce| {
        let rank = reduce.rank();
        let partition = Partition::preset(Preset::V1_1_1, &layout).unwrap();
        let mut o = ShardedAdamMini::<f64>::new(&plan, partition, no_decay, rank).unwrap();
        let (mut p, g) = ([1.0; 2], [[1.0, 1.0], [3.0, 3.0]][rank]);
        for want in [0.05, 0.0995, 0.148_505] {
            o.step(0.1, &mut p, &g, &mut reduce).unwrap();
            close(o.second_moments(), &[want], 1e-12);
        }
        p
    });
    close(&got[0], &[0.865_835_921_95; 2], 1e-11);
    close(&got[1], &[0.597_507_765_85; 2], 1e-11);
}

#[test]
fn what_travels_is_the_blocks_across_boundaries_and_nothing_else() {
    let layout = layout();
    let payload = |kind, ranks| {
        let plan = ShardPlan::new(&layout, kind, ranks).unwrap();
        let o = &fresh::<f32>(&plan, Preset::Rhumb)[0];
        (o.shared_blocks(), o.payload_bytes())
    };
    assert_eq!(payload(ShardKind::Replicated, 4), (0, 0));
    assert_eq!(payload(ShardKind::Row, 1), (0, 0));
    // Two ranks: every head lies on one rank, the key's too; only the norm is shared. The fused tensor breaks at its
    // sixth row, a boundary of heads.
    assert_eq!(payload(ShardKind::Row, 2), (1, 8 * 2));
    // Four ranks have two rows of the key's six, so that both heads are shared.
    assert_eq!(payload(ShardKind::Row, 4), (3, 8 * (3 + 2)));
    // Columns: every row and head of the matrices; the kernel's rows, too; no bias and no norm.
    let blocks = 11 + 4 + 2 + 6 + 12 + 10 + 12 + (3 + 3) + 4 + 11;
    assert_eq!(payload(ShardKind::Column, 2), (blocks, 8 * (blocks as u64 + 10)));
    // One boundary, inside a row of the output projection.
    assert!(payload(ShardKind::Flat, 2).0 <= 1 && payload(ShardKind::Flat, 4).0 <= 3);
}

#[test]
fn a_rank_without_a_gradient_holds_nobody_up_and_leaves_its_part_alone() {
    let layout = one("norm.weight", &[4], Role::Norm);
    let plan = ShardPlan::new(&layout, ShardKind::Row, 2).unwrap();
    let run = |missing: fn(usize, u64) -> bool| {
        on_ranks(2, |mut reduce| {
            let rank = reduce.rank();
            let mut o = fresh::<f64>(&plan, Preset::Rhumb).remove(rank);
            let mut p = [1.0; 2];
            for t in 0..4 {
                // What a missing gradient holds must not matter.
                let g = if missing(rank, t) { [f64::NAN; 2] } else { [1.0 + rank as f64; 2] };
                o.step_where(LR, &mut p, &g, |_| !missing(rank, t), &mut reduce).unwrap();
            }
            (p, o.second_moments().to_vec(), o.first_moments().to_vec())
        })
    };
    let got = run(|rank, _| rank == 1);
    assert_eq!(got[1].0.map(f64::to_bits), [1.0_f64; 2].map(f64::to_bits));
    assert!(got[0].0[0] < 1.0 && got[0].0[0].is_finite());
    // The shared second moment stays equal on both ranks: half the mean square of the rank that has gradients.
    assert_eq!(got[0].1[0].to_bits(), got[1].1[0].to_bits());
    close(&got[0].1, &[0.5 * (1.0 - 0.95_f64.powi(4))], 1e-12);

    // Nobody has one: nothing moves, as on one rank that skips the tensor; zeros would move the second moment.
    let got = run(|_, t| t > 0);
    close(&got[0].1, &[0.05 * 2.5], 1e-12);
    close(&got[1].2, &[0.2; 2], 1e-12);
}

#[test]
fn every_run_gives_the_same_bits() {
    let layout = layout();
    let plan = ShardPlan::new(&layout, ShardKind::Column, 4).unwrap();
    let run = || {
        let (p, _) = steps(&plan, &fresh(&plan, Preset::Rhumb), &random::<f64>(layout.len(), 1), 0, 5);
        p.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn more_ranks_than_rows_leave_some_ranks_with_nothing_to_do() {
    let mut layout = Layout::new();
    layout.push("mlp.w", &[3, 2], Role::Mlp);
    layout.push("norm", &[2], Role::Norm);
    let (want, _) = single::<f64>(&layout, Preset::Rhumb, 10);
    for plan in plans(&layout, 8) {
        let (p, _) = steps(&plan, &fresh(&plan, Preset::Rhumb), &random::<f64>(layout.len(), 1), 0, 10);
        assert!(difference(&p, &want) <= 1e-12, "{:?}", plan.kind());
    }
}

#[test]
fn parts_of_another_length_and_impossible_plans_are_refused() {
    let layout = layout();
    let plan = ShardPlan::new(&layout, ShardKind::Row, 2).unwrap();
    let partition = || Partition::preset(Preset::Rhumb, &layout).unwrap();
    let mut o = ShardedAdamMini::<f64>::new(&plan, partition(), params(), 1).unwrap();
    let e = o.step(LR, &mut [0.0; 3], &[0.0; 3], &mut rhumb_optim::shard::Alone).unwrap_err();
    assert!(matches!(e, ShardError::Length { rank: 1, have: 3, .. }), "{e}");
    let e = ShardedAdamMini::<f64>::new(&plan, partition(), params(), 2).unwrap_err().to_string();
    assert!(e.contains("rank 2 of 2"), "{e}");
    let other = Partition::preset(Preset::Rhumb, &one("w", &[2, 2], Role::Mlp)).unwrap();
    let e = ShardedAdamMini::<f64>::new(&plan, other, params(), 0).unwrap_err().to_string();
    assert!(e.contains("another layout"), "{e}");
    assert!(ShardPlan::new(&layout, ShardKind::Row, 0).unwrap_err().to_string().contains("0 ranks"));
    assert!(ShardPlan::flat_at(&layout, &[5, 3]).unwrap_err().to_string().contains("ascend"));
    assert!(ShardPlan::flat_at(&layout, &[usize::MAX]).unwrap_err().to_string().contains("ascend"));
    assert!(plan.scatter(0, &[0.0_f64; 3]).unwrap_err().to_string().contains("3 numbers"));
    assert!(plan.gather(&[vec![0.0_f64; 3]]).unwrap_err().to_string().contains("1 parts for 2 ranks"));
}

#[test]
fn a_scattered_vector_is_gathered_again() {
    let layout = layout();
    let p = random::<f64>(layout.len(), 3);
    for ranks in [1, 2, 3, 7] {
        for plan in plans(&layout, ranks) {
            let parts: Vec<_> = (0..ranks).map(|r| plan.scatter(r, &p).unwrap()).collect();
            assert_eq!(f64s(&plan.gather(&parts).unwrap()), p);
            if plan.kind() != ShardKind::Replicated && plan.kind() != ShardKind::Column {
                assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), layout.len());
            }
        }
    }
}

#[test]
fn the_norm_of_a_spread_gradient_is_that_of_the_whole_and_clips_alike() {
    let layout = layout();
    let g = random::<f64>(layout.len(), 4);
    let norm = rhumb_optim::global_norm(&g);
    let mut want = g.clone();
    rhumb_optim::clip_global_norm(&mut want, 0.5 * norm);
    for plan in plans(&layout, 3) {
        let parts = on_ranks(3, |mut reduce| {
            let mut part = plan.scatter(reduce.rank(), &g).unwrap();
            let before = clip_global_norm(&plan, &mut part, 0.5 * norm, &mut reduce).unwrap();
            assert!((before / norm - 1.0).abs() < 1e-14, "{:?}: {before} {norm}", plan.kind());
            let after = global_norm(&plan, &part, &mut reduce).unwrap();
            assert!((after / norm - 0.5).abs() < 1e-6);
            part
        });
        assert!(difference(&plan.gather(&parts).unwrap(), &want) <= 1e-14);
    }
    let plan = ShardPlan::new(&layout, ShardKind::Row, 1).unwrap();
    let e = global_norm(&plan, &[1.0_f64], &mut rhumb_optim::shard::Alone).unwrap_err();
    assert!(matches!(e, ShardError::Length { have: 1, .. }), "{e}");
}
