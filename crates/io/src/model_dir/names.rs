use crate::TensorData;
use rhumb_nn::model::elements;

/// An architecture that is converted between GGUF and the Hugging Face layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arch {
    Llama,
    Qwen2,
    Qwen3,
    Gpt2,
}

type Pairs = &'static [(&'static str, &'static str)];

/// Tensors outside the layers: GGUF name, Hugging Face name.
const LLAMA_TOP: Pairs = &[
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];
/// Modules of a layer: after `blk.N.` in GGUF, after `model.layers.N.` in Hugging Face.
const LLAMA_LAYER: Pairs = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];
const GPT2_TOP: Pairs = &[
    ("token_embd.weight", "transformer.wte.weight"),
    ("position_embd.weight", "transformer.wpe.weight"),
    ("output_norm.weight", "transformer.ln_f.weight"),
    ("output_norm.bias", "transformer.ln_f.bias"),
    ("output.weight", "lm_head.weight"),
];
const GPT2_LAYER: Pairs = &[
    ("attn_norm", "ln_1"),
    ("attn_qkv", "attn.c_attn"),
    ("attn_output", "attn.c_proj"),
    ("ffn_norm", "ln_2"),
    ("ffn_up", "mlp.c_fc"),
    ("ffn_down", "mlp.c_proj"),
];

impl Arch {
    /// By `general.architecture`.
    pub(super) fn from_gguf(name: &str) -> Option<Self> {
        Some(match name {
            "llama" => Arch::Llama,
            "qwen2" => Arch::Qwen2,
            "qwen3" => Arch::Qwen3,
            "gpt2" => Arch::Gpt2,
            _ => return None,
        })
    }

    /// By `model_type` of `config.json`. Mistral's layers are Llama's, and GGUF files call them so.
    pub(super) fn from_model_type(name: &str) -> Option<Self> {
        if name == "mistral" { Some(Arch::Llama) } else { Self::from_gguf(name) }
    }

    /// The name that both sides use.
    pub(super) fn name(self) -> &'static str {
        match self {
            Arch::Llama => "llama",
            Arch::Qwen2 => "qwen2",
            Arch::Qwen3 => "qwen3",
            Arch::Gpt2 => "gpt2",
        }
    }

    /// The class that Transformers loads.
    pub(super) fn class(self) -> &'static str {
        match self {
            Arch::Llama => "LlamaForCausalLM",
            Arch::Qwen2 => "Qwen2ForCausalLM",
            Arch::Qwen3 => "Qwen3ForCausalLM",
            Arch::Gpt2 => "GPT2LMHeadModel",
        }
    }

    fn tables(self) -> (Pairs, Pairs, &'static str) {
        match self {
            Arch::Gpt2 => (GPT2_TOP, GPT2_LAYER, "transformer.h."),
            _ => (LLAMA_TOP, LLAMA_LAYER, "model.layers."),
        }
    }

    /// The Hugging Face name of a GGUF tensor.
    pub(super) fn to_hf(self, name: &str) -> Option<String> {
        let (top, layer, prefix) = self.tables();
        if let Some((_, hf)) = top.iter().find(|(gguf, _)| *gguf == name) {
            return Some((*hf).to_owned());
        }
        let (number, module, kind) = split(name.strip_prefix("blk.")?)?;
        let (_, hf) = layer.iter().find(|(gguf, _)| *gguf == module)?;
        Some(format!("{prefix}{number}.{hf}.{kind}"))
    }

    /// The GGUF name of a Hugging Face tensor. GPT-2 checkpoints come with and without `transformer.`.
    pub(super) fn to_gguf(self, name: &str) -> Option<String> {
        let (top, layer, prefix) = self.tables();
        let full = match self {
            Arch::Gpt2 if !name.starts_with("transformer.") && name != "lm_head.weight" => {
                format!("transformer.{name}")
            }
            _ => name.to_owned(),
        };
        if let Some((gguf, _)) = top.iter().find(|(_, hf)| *hf == full) {
            return Some((*gguf).to_owned());
        }
        let (number, module, kind) = split(full.strip_prefix(prefix)?)?;
        let (gguf, _) = layer.iter().find(|(_, hf)| *hf == module)?;
        Some(format!("blk.{number}.{gguf}.{kind}"))
    }

    /// True for what Transformers saved as a buffer and no loader needs: GPT-2's causal masks.
    pub(super) fn is_buffer(self, hf: &str) -> bool {
        self == Arch::Gpt2 && (hf.ends_with(".attn.bias") || hf.ends_with(".attn.masked_bias"))
    }

    /// True for the matrices that GPT-2 checkpoints hold as `[in, out]` and GGUF as `[out, in]`.
    pub(super) fn is_transposed(self, gguf: &str) -> bool {
        self == Arch::Gpt2
            && ["attn_qkv.weight", "attn_output.weight", "ffn_up.weight", "ffn_down.weight"]
                .iter()
                .any(|w| gguf.ends_with(w))
    }

    /// How many heads' rows GGUF holds in the order of interleaved rotary pairs, if it does.
    pub(super) fn interleaved_heads(self, gguf: &str, heads: usize, kv_heads: usize) -> Option<usize> {
        if self != Arch::Llama {
            return None;
        }
        let (_, module, _) = split(gguf.strip_prefix("blk.")?)?;
        match module {
            "attn_q" => Some(heads),
            "attn_k" => Some(kv_heads),
            _ => None,
        }
    }
}

/// `3.attn_q.weight` as `(3, attn_q, weight)`.
fn split(rest: &str) -> Option<(usize, &str, &str)> {
    let (number, rest) = rest.split_once('.')?;
    let (module, kind) = rest.rsplit_once('.')?;
    let canonical = number.parse::<usize>().ok().filter(|n| n.to_string() == number)?;
    matches!(kind, "weight" | "bias").then_some((canonical, module, kind))
}

/// Reorders the rows of every head between the two layouts of rotary pairs.
///
/// # Equation
/// llama.cpp rotates rows (2i, 2i + 1) of a head, Transformers rows (i, i + hd/2): GGUF row `i * 2 + s` of a head
/// is Hugging Face row `s * hd/2 + i`, for s in {0, 1}. `None` when the rows do not divide so.
pub(super) fn reorder_heads(t: &TensorData, heads: usize, to_hf: bool) -> Option<TensorData> {
    let rows = *t.shape.first()?;
    if heads == 0 || !rows.is_multiple_of(2 * heads) || elements(&t.shape)? != t.data.len() {
        return None;
    }
    let (half, cols) = (rows / heads / 2, t.data.len().checked_div(rows)?);
    let mut data = Vec::with_capacity(t.data.len());
    for row in 0..rows {
        let (head, r) = (row / (2 * half), row % (2 * half));
        let from = if to_hf { r % half * 2 + r / half } else { r % 2 * half + r / 2 };
        let from = (head * 2 * half + from) * cols;
        data.extend_from_slice(&t.data[from..from + cols]);
    }
    Some(TensorData { shape: t.shape.clone(), data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (arch, gguf, hf) in [
            (Arch::Llama, "blk.11.attn_q.weight", "model.layers.11.self_attn.q_proj.weight"),
            (Arch::Qwen2, "blk.0.attn_k.bias", "model.layers.0.self_attn.k_proj.bias"),
            (Arch::Qwen3, "blk.2.attn_q_norm.weight", "model.layers.2.self_attn.q_norm.weight"),
            (Arch::Llama, "token_embd.weight", "model.embed_tokens.weight"),
            (Arch::Gpt2, "blk.7.attn_qkv.bias", "transformer.h.7.attn.c_attn.bias"),
            (Arch::Gpt2, "position_embd.weight", "transformer.wpe.weight"),
        ] {
            assert_eq!(arch.to_hf(gguf).as_deref(), Some(hf));
            assert_eq!(arch.to_gguf(hf).as_deref(), Some(gguf));
        }
        assert_eq!(Arch::Gpt2.to_gguf("h.0.ln_1.bias").as_deref(), Some("blk.0.attn_norm.bias"));
        for name in
            ["blk.x.attn_q.weight", "blk.01.attn_q.weight", "blk.0.attn_q.scale", "blk.0.extra.weight"]
        {
            assert_eq!(Arch::Llama.to_hf(name), None, "{name}");
        }
    }

    #[test]
    fn even_and_odd_rows_of_a_head_become_its_halves() {
        let t = TensorData { shape: vec![8, 1], data: vec![0., 1., 2., 3., 10., 11., 12., 13.] };
        let hf = reorder_heads(&t, 2, true).unwrap();
        assert_eq!(hf.data, [0., 2., 1., 3., 10., 12., 11., 13.]);
        assert_eq!(reorder_heads(&hf, 2, false).unwrap(), t);
        assert_eq!(reorder_heads(&t, 3, true), None);
    }

    #[test]
    fn a_head_of_six_rows_is_not_its_own_inverse() {
        let t = TensorData { shape: vec![6], data: vec![0., 1., 2., 3., 4., 5.] };
        let hf = reorder_heads(&t, 1, true).unwrap();
        assert_eq!(hf.data, [0., 2., 4., 1., 3., 5.]);
        assert_eq!(reorder_heads(&hf, 1, false).unwrap(), t);
    }
}
