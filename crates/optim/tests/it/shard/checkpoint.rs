//! Sharded state goes out and comes back, under the same and another number of ranks.

use std::path::Path;

use rhumb_core::{Optimizer, StateReader, StateWriter};
use rhumb_optim::shard::{ShardKind, ShardPlan, ShardedAdamMini};
use rhumb_optim::{AdamMini, Partition, Preset};

use super::{LR, fresh, gradient, layout, plans, random, single, steps};
use crate::params;

fn save(o: &ShardedAdamMini<f64>) -> StateReader {
    let mut bytes = Vec::new();
    let mut w = StateWriter::new(&mut bytes, Path::new("memory")).unwrap();
    o.save(&mut w).unwrap();
    w.finish().unwrap();
    StateReader::from_bytes(bytes, Path::new("memory")).unwrap()
}

#[track_caller]
fn near(a: &[f64], b: &[f64]) {
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= 1e-12, "{a} {b}");
    }
}

#[test]
fn every_rank_continues_with_the_same_bits() {
    let layout = layout();
    for plan in plans(&layout, 2) {
        let (p3, ranks) = steps(&plan, &fresh(&plan, Preset::Rhumb), &random(layout.len(), 1), 0, 3);
        let mut back = fresh::<f64>(&plan, Preset::Rhumb);
        back.iter_mut().zip(&ranks).for_each(|(b, r)| b.load(&mut save(r)).unwrap());
        let bits = |from: &[ShardedAdamMini<f64>]| {
            steps(&plan, from, &p3, 3, 10).0.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        assert_eq!(bits(&ranks), bits(&back), "{:?}", plan.kind());
    }
}

#[test]
fn state_of_two_ranks_continues_on_four_and_on_one() {
    let layout = layout();
    let (want, _) = single::<f64>(&layout, Preset::Rhumb, 10);
    let partition = Partition::preset(Preset::Rhumb, &layout).unwrap();
    for plan in plans(&layout, 2) {
        let (p3, ranks) = steps(&plan, &fresh(&plan, Preset::Rhumb), &random(layout.len(), 1), 0, 3);
        // Files may come in any order.
        let mut files: Vec<_> = ranks.iter().rev().map(save).collect();
        let whole = ShardedAdamMini::<f64>::gather(&partition, &mut files).unwrap();
        for next in plans(&layout, 4) {
            let from: Vec<_> = (0..4)
                .map(|r| ShardedAdamMini::scatter(&next, partition.clone(), params(), r, &whole).unwrap())
                .collect();
            near(&steps(&next, &from, &p3, 3, 10).0, &want);
        }
        let mut o = AdamMini::restore(&layout, partition.clone(), params(), &whole).unwrap();
        let mut p = p3.clone();
        (3..10).for_each(|t| o.step(LR, &mut p, &gradient(&layout, t)));
        near(&p, &want);
    }
}

#[test]
fn state_of_one_rank_continues_on_three() {
    let layout = layout();
    let (want, _) = single::<f64>(&layout, Preset::Rhumb, 10);
    let (p3, o) = single::<f64>(&layout, Preset::Rhumb, 3);
    let whole = o.snapshot();
    for plan in plans(&layout, 3) {
        let from: Vec<_> = (0..3)
            .map(|r| ShardedAdamMini::scatter(&plan, o.partition().clone(), params(), r, &whole).unwrap())
            .collect();
        near(&steps(&plan, &from, &p3, 3, 10).0, &want);
        let back = ShardedAdamMini::assemble(&from).unwrap();
        assert_eq!(back, whole, "{:?}", plan.kind());
    }
}

#[test]
fn state_of_another_rank_world_partition_or_model_is_refused() {
    let layout = layout();
    let plan = ShardPlan::new(&layout, ShardKind::Row, 2).unwrap();
    let ranks = fresh::<f64>(&plan, Preset::Rhumb);
    let refuse = |mut o: ShardedAdamMini<f64>| o.load(&mut save(&ranks[0])).unwrap_err().to_string();

    let e = refuse(fresh(&plan, Preset::Rhumb).remove(1));
    assert!(e.contains("rank 0") && e.contains("has 1"), "{e}");
    let four = ShardPlan::new(&layout, ShardKind::Row, 4).unwrap();
    let e = refuse(fresh(&four, Preset::Rhumb).remove(0));
    assert!(e.contains("ranks: 2") && e.contains("has 4") && e.contains("gather"), "{e}");
    let e = refuse(fresh(&plan, Preset::V1_0_4).remove(0));
    assert!(e.contains("partition rhumb") && e.contains("1.0.4"), "{e}");
    let columns = ShardPlan::new(&layout, ShardKind::Column, 2).unwrap();
    let e = refuse(fresh(&columns, Preset::Rhumb).remove(0));
    assert!(e.contains("another model"), "{e}");

    let partition = Partition::preset(Preset::Rhumb, &layout).unwrap();
    let e = ShardedAdamMini::<f64>::gather(&partition, &mut [save(&ranks[1])]).unwrap_err().to_string();
    assert!(e.contains("rank 0 of 2 is missing"), "{e}");
    let other = Partition::preset(Preset::V1_0_4, &layout).unwrap();
    let e = ShardedAdamMini::<f64>::gather(&other, &mut [save(&ranks[0]), save(&ranks[1])]).unwrap_err();
    assert!(e.to_string().contains("partition rhumb"), "{e}");
    let e = ShardedAdamMini::assemble(&ranks[..1]).unwrap_err().to_string();
    assert!(e.contains("parts for 2 ranks") || e.contains("every rank"), "{e}");
    let mut short = single::<f64>(&layout, Preset::Rhumb, 1).1.snapshot();
    short.v.pop();
    let e = ShardedAdamMini::scatter(&plan, partition, params(), 0, &short).unwrap_err().to_string();
    assert!(e.contains("blocks for a partition"), "{e}");
}
