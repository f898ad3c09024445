//! Words inside names.

/// Whether a word occurs by itself in a name: between signs, with digits after it, or, from four letters on, as the
/// beginning of a longer word (`embed` in `embeddings`). Norms carry their kind in front (`layernorm`).
pub(super) fn stands_alone(name: &str, word: &str) -> bool {
    name.match_indices(word).any(|(at, _)| {
        let before = name[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric());
        let after = name[at + word.len()..].chars().next();
        let ends = after.is_none_or(|c| !c.is_alphabetic());
        (before || word == "norm") && (ends || word.len() >= 4)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_alone_between_signs_before_digits_or_as_long_beginnings() {
        for (name, word) in [
            ("layers.0.attention.wo.weight", "wo"),
            ("ffn.linear1.weight", "linear"),
            ("bert.embeddings.word_embeddings.weight", "embed"),
            ("input_layernorm.weight", "norm"),
            ("h.0.ln_1.weight", "ln"),
            ("attn.proj.weight", "attn.proj"),
        ] {
            assert!(stands_alone(name, word), "{word} in {name}");
        }
        for (name, word) in [
            ("network.0.weight", "wo"),
            ("two.weight", "wo"),
            ("word_embeddings.weight", "wo"),
            ("keypoint_head.weight", "key"),
            ("xlnet.layer.weight", "ln"),
            ("attn.qkv_proj.weight", "v_proj"),
            ("bilinear.weight", "linear"),
        ] {
            assert!(!stands_alone(name, word), "{word} in {name}");
        }
    }
}
