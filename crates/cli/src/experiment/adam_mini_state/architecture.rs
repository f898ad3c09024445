//! Shapes and names of known decoders, without weights.

use rhumb_core::{Layout, Role};

/// The two families that the paper measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    /// Learned positions, plain feed-forward, tied head, no biases.
    Gpt2 {
        /// Rows of the position table.
        positions: usize,
    },
    /// Gated feed-forward.
    Llama {
        /// Whether the head shares the embedding.
        tied: bool,
    },
}

/// A decoder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Architecture {
    /// Its name in recipes.
    pub(super) name: &'static str,
    family: Family,
    vocab: usize,
    dim: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    ffn: usize,
}

const fn gpt2(
    name: &'static str,
    vocab: usize,
    positions: usize,
    [dim, layers, heads]: [usize; 3],
) -> Architecture {
    let family = Family::Gpt2 { positions };
    Architecture { name, family, vocab, dim, layers, heads, kv_heads: heads, ffn: 4 * dim }
}

const fn llama(
    name: &'static str,
    vocab: usize,
    tied: bool,
    [dim, layers, heads, kv_heads, ffn]: [usize; 5],
) -> Architecture {
    Architecture { name, family: Family::Llama { tied }, vocab, dim, layers, heads, kv_heads, ffn }
}

/// All of them, by family and size.
pub(super) const KNOWN: [Architecture; 10] = [
    gpt2("nano", 65, 256, [128, 4, 4]),
    gpt2("gpt2-125m", 50_304, 1024, [768, 12, 12]),
    gpt2("gpt2-350m", 50_304, 1024, [1024, 24, 16]),
    gpt2("gpt2-1.5b", 50_304, 1024, [1600, 48, 25]),
    llama("llama2-39m", 32_000, false, [384, 8, 6, 6, 1024]),
    llama("smollm2-135m", 49_152, true, [576, 30, 9, 3, 1536]),
    llama("llama2-1b", 32_000, false, [2048, 18, 16, 16, 5632]),
    llama("llama2-7b", 32_000, false, [4096, 32, 32, 32, 11_008]),
    llama("llama3-8b", 128_256, false, [4096, 32, 32, 8, 14_336]),
    llama("llama2-13b", 32_000, false, [5120, 40, 40, 40, 13_824]),
];

impl Architecture {
    /// The tensors, named as in the authors' training code.
    pub(super) fn layout(&self) -> Layout {
        let mut l = Layout::new();
        let d = self.dim;
        match self.family {
            Family::Gpt2 { positions } => {
                l.push("wte.weight", &[self.vocab, d], Role::Embed);
                l.push("wpe.weight", &[positions, d], Role::Position);
            }
            Family::Llama { .. } => {
                l.push("tok_embeddings.weight", &[self.vocab, d], Role::Embed);
            }
        }
        for i in 0..self.layers {
            self.layer(&mut l, i);
        }
        l.push("norm.weight", &[d], Role::Norm);
        if self.family == (Family::Llama { tied: false }) {
            l.push("output.weight", &[self.vocab, d], Role::Head);
        }
        l
    }

    fn layer(&self, l: &mut Layout, i: usize) {
        let d = self.dim;
        let head_dim = d / self.heads;
        let kv = self.kv_heads * head_dim;
        let mut push = |name: &str, rows: usize, columns: usize, role: Role| {
            l.push(format!("layers.{i}.{name}.weight"), &[rows, columns], role);
        };
        push("attention.wq", d, d, Role::Query { head_dim });
        push("attention.wk", kv, d, Role::Key { head_dim });
        push("attention.wv", kv, d, Role::Value { head_dim });
        push("attention.wo", d, d, Role::AttnOut);
        match self.family {
            Family::Gpt2 { .. } => {
                push("mlp.c_fc", self.ffn, d, Role::Mlp);
                push("mlp.c_proj", d, self.ffn, Role::Mlp);
            }
            Family::Llama { .. } => {
                push("feed_forward.w1", self.ffn, d, Role::Mlp);
                push("feed_forward.w3", self.ffn, d, Role::Mlp);
                push("feed_forward.w2", d, self.ffn, Role::Mlp);
            }
        }
        for name in ["attention_norm", "ffn_norm"] {
            l.push(format!("layers.{i}.{name}.weight"), &[d], Role::Norm);
        }
    }
}
