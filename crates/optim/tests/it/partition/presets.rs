//! Every preset, tensor by tensor.

use rhumb_core::{Layout, Role};
use rhumb_optim::adam_mini::{Keywords, NameOptions, WordSet, param_table_with};
use rhumb_optim::{OptimError, Partition, Preset, param_table};

use super::models::{gpt2, llama};
use crate::one;

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
        ("attn.key.weight", &[6, 6], "per 2 rows"),
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

fn blocks(preset: Preset, l: &Layout) -> Vec<usize> {
    param_table(l, preset).unwrap().iter().map(|r| r.blocks).collect()
}

/// One tensor of every class, with 16 columns, 4 heads of 4 rows, 2 of them for keys.
fn every_class() -> Layout {
    let mut l = Layout::new();
    let h = 4;
    for (name, shape, role) in [
        ("model.embed_tokens.weight", &[10, 16][..], Role::Embed),
        ("model.layers.0.self_attn.q_proj.weight", &[16, 16], Role::Query { head_dim: h }),
        ("model.layers.0.self_attn.k_proj.weight", &[8, 16], Role::Key { head_dim: h }),
        ("model.layers.0.self_attn.v_proj.weight", &[8, 16], Role::Value { head_dim: h }),
        ("model.layers.0.self_attn.o_proj.weight", &[16, 16], Role::AttnOut),
        ("model.layers.0.mlp.up_proj.weight", &[12, 16], Role::Mlp),
        ("model.layers.0.input_layernorm.weight", &[16], Role::Norm),
        ("model.layers.0.self_attn.q_proj.bias", &[16], Role::Bias),
        (
            "model.layers.0.attn.qkv.weight",
            &[32, 16],
            Role::QkvGrouped { head_dim: h, groups: 2, queries: 2 },
        ),
        ("lm_head.weight", &[10, 16], Role::Head),
    ] {
        l.push(name, shape, role);
    }
    l
}

#[test]
fn every_version_cuts_every_class_as_it_was_published() {
    let l = every_class();
    //                                        embed   q  k  v   o   mlp norm bias fused head
    assert_eq!(blocks(Preset::V0, &l), [160, 4, 2, 1, 1, 1, 1, 1, 16, 160]);
    assert_eq!(blocks(Preset::V1_0_4, &l), [160, 4, 2, 1, 1, 1, 1, 1, 1, 160]);
    assert_eq!(blocks(Preset::V1_1_0, &l), [10, 4, 2, 8, 16, 12, 1, 1, 1, 10]);
    assert_eq!(blocks(Preset::V1_1_1, &l), [10, 4, 2, 8, 16, 12, 1, 16, 1, 10]);
    assert_eq!(blocks(Preset::Rhumb, &l), [10, 4, 2, 8, 16, 12, 1, 16, 14, 10]);
}

#[test]
fn every_version_spares_the_decay_as_it_was_published() {
    let decay =
        |preset: Preset, name: &str| param_table(&one(name, &[4, 6], Role::Other), preset).unwrap()[0].decay;
    for (name, v0, old, v110, new) in [
        ("model.norm.weight", false, false, false, false),
        ("ln_f.weight", false, false, false, false),
        ("h.0.ln_1.weight", true, true, true, false),
        ("c_fc.bias", true, true, true, false),
        ("LayerNorm.weight", true, true, true, false),
        ("wte.weight", true, true, true, true),
    ] {
        let got = [Preset::V0, Preset::V1_0_4, Preset::V1_1_0, Preset::V1_1_1].map(|p| decay(p, name));
        assert_eq!(got, [v0, old, v110, new], "{name}");
    }
}

#[test]
fn only_1_1_1_lowers_the_case_of_names() {
    let l = one("model.Embed.weight", &[4, 6], Role::Other);
    assert_eq!(blocks(Preset::V1_0_4, &l), [1]);
    assert_eq!(blocks(Preset::V1_1_0, &l), [1]);
    assert_eq!(blocks(Preset::V1_1_1, &l), [4]);
}

#[test]
fn fused_attention_of_the_first_version_has_one_block_per_head_and_slot() {
    // view(4, 4 / 4 + 2, -1): twelve blocks of four rows.
    let l = one("attn.qkv.weight", &[48, 16], Role::QkvGrouped { head_dim: 4, groups: 4, queries: 1 });
    let p = Partition::preset(Preset::V0, &l).unwrap();
    assert_eq!(p.tensors()[0].cuts, [rhumb_optim::adam_mini::Cut { elements: 768, block: 64 }]);
    // The same by numbers given by hand, without a role.
    let options = NameOptions { heads: Some(4), dim: Some(16), ..NameOptions::default() };
    let l = one("attn.attn.weight", &[48, 16], Role::Other);
    assert_eq!(Partition::with(Preset::V0, &options, &l).unwrap().blocks(), 12);
    let e = Partition::preset(Preset::V0, &l).unwrap_err().to_string();
    assert!(e.contains("kv_heads"), "{e}");
}

#[test]
fn words_can_be_replaced_added_and_emptied() {
    let l = llama(1, 16, 10, 4, 2, 12);
    let with = |keywords| NameOptions { keywords, ..NameOptions::default() };
    // The authors' advice for short runs.
    let no_values = Keywords { value: Some(vec![]), ..Keywords::default() };
    let rows = param_table_with(&l, Preset::V1_1_1, &with(no_values.clone())).unwrap();
    assert_eq!((rows[3].name.as_str(), rows[3].blocks), ("model.layers.0.self_attn.v_proj.weight", 1));
    let tagged = Partition::with(Preset::V1_1_1, &with(no_values), &l).unwrap();
    assert_eq!(tagged.tag(), "1.1.1 with own words");

    let mut mlp = Keywords::default();
    mlp.add(Preset::V1_0_4, WordSet::Mlp, "mlp");
    let rows = param_table_with(&l, Preset::V1_0_4, &with(mlp)).unwrap();
    assert_eq!((rows[5].class.as_str(), rows[5].blocks), ("per row", 12));

    let mut fused = Keywords::default();
    fused.add(Preset::V1_1_1, WordSet::Mlp, "c_attn");
    let c = one("h.0.attn.c_attn.weight", &[48, 16], Role::Other);
    assert_eq!(param_table_with(&c, Preset::V1_1_1, &with(fused)).unwrap()[0].blocks, 48);
    assert_eq!(Preset::V1_1_1.words(WordSet::Value), ["v_proj", "wv", "value"]);
    assert!(Preset::Rhumb.words(WordSet::Value).is_empty());
}

#[test]
fn words_and_sizes_that_a_preset_does_not_have_are_refused() {
    let l = llama(1, 16, 10, 4, 2, 12);
    let value = Keywords { value: Some(vec![]), ..Keywords::default() };
    let empty = Keywords { mlp: Some(vec![String::new()]), ..Keywords::default() };
    for (preset, options, want) in [
        (Preset::V1_0_4, NameOptions { keywords: value.clone(), ..NameOptions::default() }, "keywords.value"),
        (Preset::Rhumb, NameOptions { keywords: value, ..NameOptions::default() }, "keywords.value"),
        (Preset::V1_1_1, NameOptions { keywords: empty, ..NameOptions::default() }, "keywords.mlp"),
        (Preset::Rhumb, NameOptions { dim: Some(16), ..NameOptions::default() }, "dim = 16"),
        (Preset::V1_1_1, NameOptions { heads: Some(0), ..NameOptions::default() }, "heads = 0"),
        (Preset::V1_1_1, NameOptions { kv_heads: Some(3), ..NameOptions::default() }, "kv_heads = 3"),
    ] {
        let e = Partition::with(preset, &options, &l).unwrap_err().to_string();
        assert!(e.contains(want), "{want}: {e}");
    }
    let e = serde_json::from_str::<NameOptions>(r#"{"keywords": {"wv_names": []}}"#).unwrap_err().to_string();
    assert!(e.contains("wv_names") && e.contains("value"), "{e}");
    let o: NameOptions = serde_json::from_str(r#"{"strict": true, "keywords": {"value": []}}"#).unwrap();
    assert!(o.strict && o.keywords.value == Some(vec![]));
}

#[test]
fn version_defaults_are_the_published_ones() {
    let d = |p: Preset| (p.defaults().lr, p.defaults().weight_decay);
    assert_eq!(d(Preset::V0).0.to_bits(), 1.0_f64.to_bits());
    assert_eq!(d(Preset::V0).1.to_bits(), 0.1_f64.to_bits());
    for p in [Preset::V1_0_4, Preset::V1_1_0, Preset::V1_1_1, Preset::Rhumb] {
        assert_eq!((d(p).0.to_bits(), d(p).1.to_bits()), (1e-3_f64.to_bits(), 0.0_f64.to_bits()));
    }
}

#[test]
fn roles_cut_experts_convolutions_adapters_and_fused_attention() {
    let mut l = Layout::new();
    l.push("experts.up", &[4, 6, 8], Role::Experts);
    l.push("conv", &[5, 3, 2, 2], Role::Conv);
    l.push("q_proj.lora_A", &[2, 16], Role::LoraA);
    l.push("q_proj.lora_B", &[16, 2], Role::LoraB);
    l.push("qkv", &[16, 6], Role::Qkv { head_dim: 2, heads: 4, kv_heads: 2 });
    l.push("query_key_value", &[16, 6], Role::QkvGrouped { head_dim: 2, groups: 2, queries: 2 });
    let rows = param_table(&l, Preset::Rhumb).unwrap();
    let seen: Vec<_> = rows.iter().map(|r| (r.class.as_str(), r.blocks)).collect();
    assert_eq!(
        seen,
        [
            ("per row of an expert", 24),
            ("per output channel", 5),
            ("per row", 2),
            ("per row", 16),
            ("per 2 rows, then per row", 10),
            ("per 2 rows, then per row, 2 times", 10),
        ]
    );
    let e = Partition::preset(
        Preset::Rhumb,
        &one("qkv", &[15, 6], Role::QkvGrouped { head_dim: 2, groups: 2, queries: 2 }),
    );
    assert!(e.unwrap_err().to_string().contains("need 16 rows"));
}

#[test]
fn a_head_of_its_own_size_is_cut_by_the_model_and_not_by_dim_over_heads() {
    // Qwen3 and Gemma: four heads of 8 rows on a width of 16.
    let l = one("self_attn.q_proj.weight", &[32, 16], Role::Query { head_dim: 8 });
    assert_eq!(blocks(Preset::Rhumb, &l), [4]);
    // dim * dim / heads = 64 elements, half a head.
    assert_eq!(blocks(Preset::V1_1_1, &l), [8]);
}

#[test]
fn tensors_are_counted_by_the_word_set_that_decides_over_them() {
    let l = llama(2, 16, 10, 4, 2, 12);
    let count = |preset| Partition::class_counts(preset, &NameOptions::default(), &l).unwrap();
    assert_eq!(
        count(Preset::V1_1_1),
        [
            (WordSet::Adam, 0),
            (WordSet::QueryKey, 4),
            (WordSet::Embed, 1),
            (WordSet::Output, 1),
            (WordSet::Value, 2),
            (WordSet::Mlp, 6),
            (WordSet::AttnOut, 2),
        ]
    );
    assert_eq!(
        count(Preset::V1_0_4),
        [(WordSet::Embed, 1), (WordSet::Output, 1), (WordSet::QueryKey, 4), (WordSet::Mlp, 0)]
    );
    assert!(count(Preset::Rhumb).is_empty());
}
