//! What the official package accepts and gets wrong: refused in strict mode, reproduced otherwise.

use rhumb_core::{Layout, Role};
use rhumb_optim::adam_mini::{NameOptions, Pitfall};
use rhumb_optim::{Partition, Preset};

use super::models::{gpt2, llama};
use crate::one;

fn strict() -> NameOptions {
    NameOptions { strict: true, ..NameOptions::default() }
}

/// Strict mode refuses with the pitfall and all of the words; the lenient mode gives that many blocks, or fails as the
/// official package does.
#[track_caller]
fn pitfall(
    l: &Layout,
    preset: Preset,
    options: &NameOptions,
    want: Pitfall,
    words: &[&str],
    blocks: Option<usize>,
) {
    let found = Partition::audit(preset, options, l).unwrap();
    assert!(found.iter().any(|f| f.pitfall == want), "{found:?}");
    let e =
        Partition::with(preset, &NameOptions { strict: true, ..options.clone() }, l).unwrap_err().to_string();
    for w in words {
        assert!(e.contains(w), "{w}: {e}");
    }
    assert_eq!(Partition::with(preset, options, l).ok().map(|p| p.blocks()), blocks);
    assert_eq!(found.iter().any(|f| f.fatal), blocks.is_none());
}

fn sizes(dim: usize, heads: usize) -> NameOptions {
    NameOptions { dim: Some(dim), heads: Some(heads), ..NameOptions::default() }
}

#[test]
fn a_norm_among_the_rows_is_refused() {
    for name in ["embeddings.LayerNorm.weight", "output.LayerNorm.weight", "mlp.norm.weight"] {
        let want = Pitfall::VectorAmongMatrices;
        let l = one(name, &[6], Role::Norm);
        pitfall(&l, Preset::V1_1_1, &NameOptions::default(), want, &[name, "vector", "rhumb"], None);
    }
    // 1.1.0 puts biases in the class of their layer.
    let l = one("mlp.c_fc.bias", &[6], Role::Bias);
    pitfall(&l, Preset::V1_1_0, &NameOptions::default(), Pitfall::VectorAmongMatrices, &["c_fc.bias"], None);
    assert_eq!(Partition::with(Preset::V1_1_1, &strict(), &l).unwrap().blocks(), 6);
}

#[test]
fn a_kernel_or_a_table_of_three_axes_among_the_rows_is_refused() {
    for (name, shape) in [("patch_embed.proj.weight", &[8, 3, 4, 4][..]), ("pos_embed", &[1, 5, 8])] {
        let l = one(name, shape, Role::Other);
        pitfall(&l, Preset::V1_1_1, &NameOptions::default(), Pitfall::TooManyAxes, &[name, "axes"], None);
    }
    let l = one("patch_embed.proj.weight", &[8, 3, 4, 4], Role::Conv);
    assert_eq!(Partition::with(Preset::Rhumb, &strict(), &l).unwrap().blocks(), 8);
}

#[test]
fn a_word_inside_another_word_is_refused() {
    for (name, word) in [("network.0.weight", "wo"), ("two.weight", "wo"), ("bilinear.weight", "linear")] {
        let l = one(name, &[4, 6], Role::Other);
        pitfall(&l, Preset::V1_1_1, &NameOptions::default(), Pitfall::WordInWord, &[name, word], Some(4));
    }
    let l = one("keypoint.weight", &[6, 6], Role::Other);
    pitfall(&l, Preset::V1_1_1, &sizes(6, 2), Pitfall::WordInWord, &["keypoint", "key"], Some(2));
    // The key of RWKV's feed-forward is no key of attention.
    let l = one("blocks.0.ffn.key.weight", &[6, 6], Role::Other);
    pitfall(&l, Preset::V1_1_1, &sizes(6, 2), Pitfall::WordInWord, &["ffn.key", "elsewhere"], Some(2));
    let l = one("blocks.0.key.weight", &[6, 6], Role::Mlp);
    pitfall(&l, Preset::V1_1_1, &sizes(6, 2), Pitfall::WordInWord, &["elsewhere"], Some(2));
}

#[test]
fn letters_that_cost_a_matrix_its_decay_are_refused() {
    let l = one("xlnet.mlp.weight", &[4, 6], Role::Mlp);
    pitfall(
        &l,
        Preset::V1_1_1,
        &NameOptions::default(),
        Pitfall::LostDecay,
        &["ln", "weight decay"],
        Some(4),
    );
    let p = Partition::preset(Preset::V1_1_1, &l).unwrap();
    assert!(!p.tensors()[0].decay);
}

#[test]
fn fused_attention_is_refused() {
    // Per-head interleaved, as NeoX and Falcon store it: three blocks for each head.
    let l = one(
        "attention.query_key_value.weight",
        &[24, 8],
        Role::QkvGrouped { head_dim: 2, groups: 4, queries: 1 },
    );
    pitfall(&l, Preset::V1_1_1, &sizes(8, 4), Pitfall::Fused, &["values", "rows"], Some(12));
    assert_eq!(Partition::with(Preset::Rhumb, &strict(), &l).unwrap().blocks(), 4 * (2 + 2));
    for name in ["attn.c_attn.weight", "self_attn.in_proj_weight", "attn.qkv.weight"] {
        let l = one(name, &[24, 8], Role::Other);
        pitfall(&l, Preset::V1_1_1, &NameOptions::default(), Pitfall::Fused, &["one number"], Some(1));
    }
    // v_proj is a part of qkv_proj.
    let l = one("self_attn.qkv_proj.weight", &[24, 8], Role::Other);
    pitfall(&l, Preset::V1_1_1, &NameOptions::default(), Pitfall::Fused, &["v_proj"], Some(24));
}

#[test]
fn heads_of_another_size_than_dim_over_heads_are_refused() {
    let l = one("q_proj.weight", &[32, 16], Role::Query { head_dim: 8 });
    pitfall(
        &l,
        Preset::V1_1_1,
        &NameOptions::default(),
        Pitfall::HeadSize,
        &["128", "64", "cross heads"],
        Some(8),
    );
    // 32 x 20 elements are no multiple of 20 * 20 / 4.
    let l = one("q_proj.weight", &[32, 20], Role::Query { head_dim: 8 });
    pitfall(&l, Preset::V1_1_1, &NameOptions::default(), Pitfall::HeadSize, &["160", "100"], None);
    let l = one("q_proj.weight", &[6, 6], Role::Other);
    pitfall(&l, Preset::V1_1_1, &NameOptions::default(), Pitfall::HeadSize, &["dim and heads"], None);
    // The first version divides grouped queries by query heads where it should by groups.
    let l = one("attn.qkv.weight", &[16, 8], Role::QkvGrouped { head_dim: 2, groups: 2, queries: 2 });
    pitfall(&l, Preset::V0, &NameOptions::default(), Pitfall::HeadSize, &["16 blocks", "8 heads"], Some(16));
}

#[test]
fn a_flat_shard_of_a_matrix_is_refused() {
    let l = one("layers.0.mlp.up_proj.weight", &[200_704], Role::Other);
    pitfall(&l, Preset::V1_1_1, &NameOptions::default(), Pitfall::FlatShard, &["flat", "shard"], None);
    // Qwen2-0.5B over four ranks: 200704 elements are no multiple of 896 * 896 / 14.
    let l = one("self_attn.q_proj.weight", &[200_704], Role::Other);
    pitfall(&l, Preset::V1_1_1, &sizes(896, 14), Pitfall::FlatShard, &["flat"], None);
    // Where the piece happens to divide, the official package goes on.
    let l = one("self_attn.q_proj.weight", &[72], Role::Other);
    pitfall(&l, Preset::V1_1_1, &sizes(12, 2), Pitfall::FlatShard, &["flat"], Some(1));
}

#[test]
fn a_position_table_with_one_number_is_refused() {
    for preset in [Preset::V1_0_4, Preset::V1_1_0, Preset::V1_1_1] {
        let l = one("transformer.wpe.weight", &[5, 8], Role::Other);
        pitfall(&l, preset, &NameOptions::default(), Pitfall::Unmatched, &["position table"], Some(1));
    }
    let l = one("router.weight", &[5, 8], Role::Other);
    pitfall(
        &l,
        Preset::V1_1_1,
        &NameOptions::default(),
        Pitfall::Unmatched,
        &["router", "whole matrix"],
        Some(1),
    );
    let e = Partition::with(Preset::Rhumb, &strict(), &l).unwrap_err().to_string();
    assert!(e.contains("give it its role"), "{e}");
}

#[test]
fn a_low_rank_factor_among_the_heads_is_refused() {
    let a = one("self_attn.q_proj.lora_A.weight", &[4, 16], Role::LoraA);
    pitfall(&a, Preset::V1_1_1, &sizes(16, 4), Pitfall::LowRank, &["low-rank"], Some(1));
    let a = one("self_attn.q_proj.lora_A.weight", &[3, 16], Role::Other);
    pitfall(&a, Preset::V1_1_1, &sizes(16, 4), Pitfall::LowRank, &["low-rank"], None);
}

#[test]
fn a_llama_passes_strict_mode_and_gpt2_fails_by_its_positions_alone() {
    for preset in Preset::ALL {
        assert!(Partition::with(preset, &strict(), &llama(2, 64, 100, 4, 2, 96)).is_ok(), "{preset:?}");
    }
    let found = Partition::audit(Preset::V1_1_1, &strict(), &gpt2(2, 64, 100, 32, 4)).unwrap();
    assert_eq!(found.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["wpe.weight"]);
    assert!(Partition::with(Preset::Rhumb, &strict(), &gpt2(2, 64, 100, 32, 4)).is_ok());
}

#[test]
fn findings_appear_in_the_table_beside_their_tensor() {
    let rows = rhumb_optim::param_table(&gpt2(1, 64, 100, 32, 4), Preset::V1_1_1).unwrap();
    let warned: Vec<_> = rows.iter().filter(|r| !r.warnings.is_empty()).map(|r| r.name.as_str()).collect();
    assert_eq!(warned, ["wpe.weight"]);
}
