//! Layouts of published decoders.

use rhumb_core::{Layout, Role};

/// A decoder of the paper, with what the official package 1.1.1 and 1.0.4 make of it.
pub(crate) struct Model {
    pub(crate) name: &'static str,
    pub(crate) parameters: usize,
    /// Second moments in 1.1.1.
    pub(crate) blocks: usize,
    /// Per cent of AdamW's state that 1.1.1 saves.
    pub(crate) saving: f64,
    /// Per cent of AdamW's state that 1.0.4 saves.
    pub(crate) saving_1_0_4: f64,
    build: fn() -> Layout,
}

impl Model {
    pub(crate) fn layout(&self) -> Layout {
        (self.build)()
    }
}

macro_rules! model {
    ($name:literal, $parameters:literal, $blocks:literal, $saving:literal, $old:literal, $build:expr) => {
        Model {
            name: $name,
            parameters: $parameters,
            blocks: $blocks,
            saving: $saving,
            saving_1_0_4: $old,
            build: || $build,
        }
    };
}

/// Smallest state first within a family.
pub(crate) const MODELS: [Model; 13] = [
    model!("nano", 828_672, 3_691, 49.777, 49.49, gpt2(4, 128, 65, 256, 4)),
    model!("GPT-2 125M", 124_373_760, 115_130, 49.954, 34.47, gpt2(12, 768, 50_304, 1_024, 12)),
    model!("GPT-2 350M", 354_599_936, 223_154, 49.969, 42.74, gpt2(24, 1_024, 50_304, 1_024, 16)),
    model!("GPT-2 1.5B", 1_556_840_000, 590_402, 49.981, 47.41, gpt2(48, 1_600, 50_304, 1_024, 25)),
    model!("Llama2-39M", 38_738_304, 89_713, 49.884, 18.28, llama2(8, 384, 6, 1_024)),
    model!("Llama2-67M", 66_857_472, 110_261, 49.918, 25.49, llama2(10, 512, 8, 1_536)),
    model!("Llama2-102M", 101_924_480, 130_313, 49.936, 29.91, llama2(12, 640, 10, 1_792)),
    model!("Llama2-162M", 162_423_552, 166_817, 49.949, 34.87, llama2(16, 768, 12, 2_048)),
    model!("Llama2-271M", 271_090_688, 203_809, 49.962, 37.91, llama2(16, 1_024, 16, 2_816)),
    model!("Llama2-1B", 1_055_991_808, 377_957, 49.982, 43.79, llama2(18, 2_048, 16, 5_632)),
    model!("Llama2-7B", 6_738_415_616, 1_163_841, 49.991, 48.05, llama2(32, 4_096, 32, 11_008)),
    model!("Llama3-8B", 8_030_261_248, 1_470_273, 49.991, 43.46, llama(32, 4_096, 128_256, 32, 8, 14_336)),
    model!("Llama2-13B", 13_015_864_320, 1_787_601, 49.993, 48.74, llama2(40, 5_120, 40, 13_824)),
];

/// Separate projections, tied head, learned positions, no biases.
pub(crate) fn gpt2(layers: usize, d: usize, vocab: usize, positions: usize, heads: usize) -> Layout {
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

fn llama2(layers: usize, d: usize, heads: usize, ff: usize) -> Layout {
    llama(layers, d, 32_000, heads, heads, ff)
}

/// Grouped queries, gated feed-forward, separate head.
pub(crate) fn llama(
    layers: usize,
    d: usize,
    vocab: usize,
    heads: usize,
    kv_heads: usize,
    ff: usize,
) -> Layout {
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
