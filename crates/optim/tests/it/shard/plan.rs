//! Memory and traffic, worked out by hand.

use rhumb_core::{Layout, Role};
use rhumb_optim::shard::{MemoryPlan, ShardKind, Stage, plan};
use rhumb_optim::{Kind, OptimizerConfig, Preset, StateFormat};

use super::{fresh, layout, plans};

/// A matrix of 4 x 6, a query of two heads of two rows, a norm of 6, a bias of 4: 58 scalars.
fn small() -> Layout {
    let mut l = Layout::new();
    l.push("mlp.w", &[4, 6], Role::Mlp);
    l.push("q_proj", &[4, 6], Role::Query { head_dim: 2 });
    l.push("norm", &[6], Role::Norm);
    l.push("bias", &[4], Role::Bias);
    l
}

fn mini() -> OptimizerConfig {
    OptimizerConfig::default()
}

fn of(kind: ShardKind, ranks: usize, stage: Stage, o: &OptimizerConfig) -> MemoryPlan {
    plan(&small(), ranks, kind, stage, o, 4).unwrap()
}

fn state(p: &MemoryPlan) -> Vec<u64> {
    p.per_rank.iter().map(|r| r.state).collect()
}

#[test]
fn rows_columns_and_flat_pieces_of_a_small_model_are_as_counted_by_hand() {
    // Blocks: 4 rows, 2 heads, 1 norm, 4 bias elements.
    let p = of(ShardKind::Replicated, 3, Stage::Parameters, &mini());
    assert_eq!((p.parameters, p.state), (58, 4 * (58 + 11)));
    assert_eq!(state(&p), [4 * 69; 3]);
    assert_eq!((p.wire.payload, p.wire.ring), (0, 0));

    // Two rows, a head, three of the norm and two of the bias each; the norm is shared.
    let p = of(ShardKind::Row, 2, Stage::Parameters, &mini());
    assert_eq!(state(&p), [4 * (29 + 2 + 1 + 1 + 2); 2]);
    assert_eq!((p.wire.shared_blocks, p.wire.payload, p.wire.ring), (1, 16, 16));
    let r = p.per_rank[0];
    assert_eq!((r.parameters, r.gradients, r.offload.down, r.offload.up), (116, 116, 116, 116));
    assert_eq!(r.total(), 116 + 116 + 4 * 35);

    // Three of six columns: all rows and heads on both, norm and bias whole on both.
    let p = of(ShardKind::Column, 2, Stage::Parameters, &mini());
    assert_eq!(state(&p), [4 * (12 + 12 + 6 + 4 + 11); 2]);
    assert_eq!((p.wire.shared_blocks, p.wire.payload), (6, 8 * (6 + 2)));

    // 20 + 20 + 18 scalars: the first cut lies in the fourth row, the second in the second head.
    let p = of(ShardKind::Flat, 3, Stage::Parameters, &mini());
    assert_eq!(state(&p), [4 * (20 + 4), 4 * (20 + 1 + 2), 4 * (18 + 1 + 1 + 4)]);
    assert_eq!((p.wire.shared_blocks, p.wire.payload), (2, 8 * (2 + 2)));
    // 2 * 32 * 2 / 3, rounded up.
    assert_eq!(p.wire.ring, 43);
}

#[test]
fn stages_say_what_is_spread_besides_state() {
    let bytes = |stage| {
        let r = of(ShardKind::Flat, 2, stage, &mini()).per_rank[0];
        (r.parameters, r.gradients)
    };
    assert_eq!(bytes(Stage::State), (232, 232));
    assert_eq!(bytes(Stage::Gradients), (232, 116));
    assert_eq!(bytes(Stage::Parameters), (116, 116));
}

#[test]
fn first_moments_in_bf16_halve_and_second_moments_stay() {
    for kind in [ShardKind::Row, ShardKind::Column] {
        let full = of(kind, 2, Stage::Parameters, &mini());
        let half = OptimizerConfig { state: StateFormat::Bf16, ..OptimizerConfig::default() };
        let half = of(kind, 2, Stage::Parameters, &half);
        for (a, b) in full.per_rank.iter().zip(&half.per_rank) {
            assert_eq!(a.state - b.state, 2 * a.scalars, "{kind:?}");
        }
    }
}

#[test]
fn optimizers_that_go_by_elements_send_nothing() {
    for (kind, momentum, per_scalar) in
        [(Kind::AdamW, 0.0, 8), (Kind::Lion, 0.0, 4), (Kind::Sgd, 0.0, 0), (Kind::Sgd, 0.9, 4)]
    {
        let o = OptimizerConfig { kind, momentum, ..OptimizerConfig::default() };
        let p = of(ShardKind::Flat, 3, Stage::Parameters, &o);
        assert_eq!(state(&p), [20 * per_scalar, 20 * per_scalar, 18 * per_scalar], "{kind:?}");
        assert_eq!(p.wire.payload, 0);
    }
}

#[test]
fn optimizers_that_need_whole_matrices_are_refused_unless_replicated() {
    for kind in [Kind::Muon, Kind::Adafactor, Kind::SlimAdam] {
        let o = OptimizerConfig { kind, ..OptimizerConfig::default() };
        let e = plan(&small(), 2, ShardKind::Row, Stage::State, &o, 4).unwrap_err().to_string();
        assert!(e.contains(kind.name()) && e.contains("replicate"), "{e}");
        let p = of(ShardKind::Replicated, 2, Stage::State, &o);
        assert_eq!(state(&p), [p.state; 2]);
    }
    let e = plan(&small(), 0, ShardKind::Row, Stage::State, &mini(), 4).unwrap_err().to_string();
    assert!(e.contains("0 ranks"), "{e}");
    let bad = OptimizerConfig { beta1: 2.0, ..OptimizerConfig::default() };
    let e = plan(&small(), 2, ShardKind::Row, Stage::State, &bad, 4).unwrap_err().to_string();
    assert!(e.contains("beta1"), "{e}");
}

#[test]
fn the_plan_predicts_what_the_ranks_hold_and_send() {
    let layout = layout();
    for preset in [Preset::Rhumb, Preset::V1_0_4] {
        let o = OptimizerConfig { preset, ..OptimizerConfig::default() };
        for ranks in [1, 2, 4] {
            for shards in plans(&layout, ranks) {
                let p = plan(&layout, ranks, shards.kind(), Stage::Parameters, &o, 4).unwrap();
                let held = fresh::<f32>(&shards, preset);
                for (r, o) in p.per_rank.iter().zip(&held) {
                    assert_eq!(r.state, o.state_bytes() as u64, "{preset:?} {:?} {ranks}", shards.kind());
                    assert_eq!(p.wire.payload, o.payload_bytes());
                }
            }
        }
    }
}

#[test]
fn llama2_7b_on_eight_ranks_sends_less_than_a_thousandth_of_its_parameters() {
    let layout = crate::partition::models::MODELS[10].layout();
    let row = plan(&layout, 8, ShardKind::Row, Stage::Parameters, &mini(), 4).unwrap();
    // Heads lie whole on their ranks: the 65 norms remain.
    assert_eq!((row.wire.shared_blocks, row.wire.payload), (65, 8 * 130));
    let flat = plan(&layout, 8, ShardKind::Flat, Stage::Parameters, &mini(), 4).unwrap();
    assert!(flat.wire.shared_blocks <= 7);
    let column = plan(&layout, 8, ShardKind::Column, Stage::Parameters, &mini(), 4).unwrap();
    assert_eq!(column.wire.shared_blocks, 1_163_841 - 65);
    assert!((column.wire.payload as f64) < 1e-3 * 4.0 * 6_738_415_616.0);
    let json = serde_json::to_value(&row).unwrap();
    assert_eq!(json["shard"], "row");
}
