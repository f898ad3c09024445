//! Which tensor is cut how, and what it costs.

use rhumb_core::{Layout, Optimizer, Role};
use rhumb_optim::{AdamMini, Kind, OptimError, OptimizerConfig, Partition, Preset, param_table};

use crate::{one, params};

/// GPT-2 style with untied projections, tied output and learned positions; no biases.
fn gpt2(layers: usize, d: usize, vocab: usize, positions: usize, heads: usize) -> Layout {
    let head_dim = d / heads;
    let mut l = Layout::new();
    l.push("wte.weight", &[vocab, d], Role::Embed);
    l.push("wpe.weight", &[positions, d], Role::Position);
    for i in 0..layers {
        l.push(format!("h.{i}.ln_1.weight"), &[d], Role::Norm);
        l.push(format!("h.{i}.attn.wq.weight"), &[d, d], Role::Query { head_dim });
        l.push(format!("h.{i}.attn.wk.weight"), &[d, d], Role::Key { head_dim });
        l.push(format!("h.{i}.attn.wv.weight"), &[d, d], Role::Value { head_dim });
        l.push(format!("h.{i}.attn.wo.weight"), &[d, d], Role::AttnOut);
        l.push(format!("h.{i}.ln_2.weight"), &[d], Role::Norm);
        l.push(format!("h.{i}.mlp.c_fc.weight"), &[4 * d, d], Role::Mlp);
        l.push(format!("h.{i}.mlp.c_proj.weight"), &[d, 4 * d], Role::Mlp);
    }
    l.push("ln_f.weight", &[d], Role::Norm);
    l
}

fn llama(layers: usize, d: usize, vocab: usize, heads: usize, kv_heads: usize, ff: usize) -> Layout {
    let head_dim = d / heads;
    let mut l = Layout::new();
    l.push("model.embed_tokens.weight", &[vocab, d], Role::Embed);
    for i in 0..layers {
        let p = format!("model.layers.{i}");
        l.push(format!("{p}.self_attn.q_proj.weight"), &[d, d], Role::Query { head_dim });
        l.push(format!("{p}.self_attn.k_proj.weight"), &[kv_heads * head_dim, d], Role::Key { head_dim });
        l.push(format!("{p}.self_attn.v_proj.weight"), &[kv_heads * head_dim, d], Role::Value { head_dim });
        l.push(format!("{p}.self_attn.o_proj.weight"), &[d, d], Role::AttnOut);
        l.push(format!("{p}.mlp.gate_proj.weight"), &[ff, d], Role::Mlp);
        l.push(format!("{p}.mlp.up_proj.weight"), &[ff, d], Role::Mlp);
        l.push(format!("{p}.mlp.down_proj.weight"), &[d, ff], Role::Mlp);
        l.push(format!("{p}.input_layernorm.weight"), &[d], Role::Norm);
        l.push(format!("{p}.post_attention_layernorm.weight"), &[d], Role::Norm);
    }
    l.push("model.norm.weight", &[d], Role::Norm);
    l.push("lm_head.weight", &[vocab, d], Role::Head);
    l
}

#[test]
fn published_models_have_the_counted_parameters_and_blocks() {
    for (layout, parameters, blocks) in [
        (gpt2(4, 128, 65, 256, 4), 828_672, 3_691),
        (gpt2(12, 768, 50_304, 1_024, 12), 124_373_760, 115_130),
        (llama(8, 384, 32_000, 6, 6, 1_024), 38_738_304, 89_713),
        (llama(32, 4_096, 32_000, 32, 32, 11_008), 6_738_415_616, 1_163_841),
        (llama(32, 4_096, 128_256, 32, 8, 14_336), 8_030_261_248, 1_470_273),
    ] {
        let partition = Partition::preset(Preset::V1_1_1, &layout).unwrap();
        assert_eq!((layout.len(), partition.blocks()), (parameters, blocks));
        let config = OptimizerConfig { preset: Preset::V1_1_1, ..OptimizerConfig::default() };
        assert_eq!(config.state_bytes(&layout, 4).unwrap(), 4 * (parameters + blocks));
        let adamw = OptimizerConfig { kind: Kind::AdamW, ..config };
        assert_eq!(adamw.state_bytes(&layout, 4).unwrap(), 8 * parameters);
    }
}

#[test]
fn the_state_held_is_what_was_estimated_and_what_the_table_adds_up_to() {
    let layout = gpt2(4, 128, 65, 256, 4);
    for preset in [Preset::V1_1_1, Preset::Rhumb] {
        let partition = Partition::preset(preset, &layout).unwrap();
        let want = 4 * (layout.len() + partition.blocks());
        assert_eq!(AdamMini::<f32>::new(&layout, partition, params()).state_bytes(), want);
        let rows = param_table(&layout, preset).unwrap();
        assert_eq!(rows.iter().map(|r| r.bytes).sum::<usize>(), want);
        assert_eq!(rows.len(), layout.blocks().len());
    }
}

#[test]
fn the_two_presets_agree_on_a_llama_and_differ_on_learned_positions() {
    let l = llama(2, 64, 100, 4, 2, 96);
    let (a, b) =
        (Partition::preset(Preset::Rhumb, &l).unwrap(), Partition::preset(Preset::V1_1_1, &l).unwrap());
    assert_eq!(a.tensors(), b.tensors());
    let g = gpt2(1, 64, 100, 32, 4);
    let class = |preset| param_table(&g, preset).unwrap()[1].class.clone();
    assert_eq!(class(Preset::V1_1_1), "whole tensor");
    assert_eq!(class(Preset::Rhumb), "per row");
}

#[test]
fn the_table_says_in_words_what_a_block_is() {
    let mut l = Layout::new();
    l.push("q", &[8, 6], Role::Query { head_dim: 4 });
    l.push("qkv", &[16, 6], Role::Qkv { head_dim: 4, heads: 2, kv_heads: 1 });
    l.push("b", &[6], Role::Bias);
    l.push("n", &[6], Role::Norm);
    l.push("lora_a", &[2, 6], Role::LoraA);
    let rows = param_table(&l, Preset::Rhumb).unwrap();
    let seen: Vec<_> = rows.iter().map(|r| (r.class.as_str(), r.blocks, r.bytes, r.decay)).collect();
    assert_eq!(
        seen,
        [
            ("per 4 rows", 2, 4 * 50, true),
            ("per 4 rows, then per row", 7, 4 * 103, true),
            ("per element", 6, 4 * 12, false),
            ("whole tensor", 1, 4 * 7, false),
            ("per row", 2, 4 * 14, true),
        ]
    );
}

#[test]
fn the_first_matching_word_decides_and_case_does_not_matter() {
    for (name, shape, class) in [
        ("H.0.MLP.BIAS", &[6][..], "per element"),
        ("attn.Query.bias", &[6], "per element"),
        ("x.attn.proj.weight", &[4, 6], "per row"),
        ("output.weight", &[4, 6], "per row"),
        ("c_attn.weight", &[4, 6], "whole tensor"),
        ("ffn.key.weight", &[4, 6], "per 2 rows"),
    ] {
        let l = one(name, shape, Role::Query { head_dim: 2 });
        assert_eq!(param_table(&l, Preset::V1_1_1).unwrap()[0].class, class, "{name}");
    }
}

#[test]
fn decay_spares_norms_and_biases_but_not_embeddings() {
    let decays = |name: &str, role, preset| param_table(&one(name, &[4, 6], role), preset).unwrap()[0].decay;
    assert!(decays("wte", Role::Embed, Preset::V1_1_1) && decays("wte", Role::Embed, Preset::Rhumb));
    assert!(!decays("final_norm", Role::Norm, Preset::V1_1_1) && !decays("w", Role::Norm, Preset::Rhumb));
    // The names of 1.1.1 catch "ln" inside other words; roles do not.
    assert!(!decays("xlnet.mlp", Role::Mlp, Preset::V1_1_1) && decays("xlnet.mlp", Role::Mlp, Preset::Rhumb));
}

#[test]
fn tensors_that_do_not_fit_their_class_are_refused_by_name() {
    let refused = |l: &Layout, preset| {
        let e = Partition::preset(preset, l).unwrap_err();
        assert!(matches!(e, OptimError::Partition { .. }));
        e.to_string()
    };
    let e = refused(&one("mlp.norm.weight", &[6], Role::Norm), Preset::V1_1_1);
    assert!(e.contains("mlp.norm.weight") && e.contains("preset rhumb"), "{e}");
    let e = refused(&one("embed.patch", &[2, 3, 4, 4], Role::Embed), Preset::V1_1_1);
    assert!(e.contains("embed.patch"), "{e}");
    let e = refused(&one("key.weight", &[4, 6], Role::Mlp), Preset::V1_1_1);
    assert!(e.contains("heads"), "{e}");
    let e = refused(&one("q", &[6, 6], Role::Query { head_dim: 4 }), Preset::Rhumb);
    assert!(e.contains("6 rows") && e.contains("heads of 4"), "{e}");
    let e = refused(&one("q", &[6, 6], Role::Query { head_dim: 0 }), Preset::Rhumb);
    assert!(e.contains("heads of 0"), "{e}");
    let e = refused(&one("qkv", &[9, 2], Role::Qkv { head_dim: 2, heads: 2, kv_heads: 1 }), Preset::Rhumb);
    assert!(e.contains("need 8 rows"), "{e}");
    let e = Partition::custom("mine", &one("w", &[2, 3], Role::Mlp), vec![]).unwrap_err().to_string();
    assert!(e.contains("no plan"), "{e}");
}
