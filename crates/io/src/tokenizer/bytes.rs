use serde_json::{Map, Value, json};

/// Ends a document in the tokenizer of [`json_of_bytes`].
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// A `tokenizer.json` that needs no training: one token per byte, ids 0 to 255, and [`END_OF_TEXT`] with id 256.
///
/// Bytes are written with the printable stand-ins of GPT-2's byte-level BPE (Radford et al. 2019, section 2.2), so
/// that other programs read the file too.
pub fn json_of_bytes() -> Value {
    let vocab: Map<String, Value> =
        stand_ins().iter().enumerate().map(|(byte, c)| (c.to_string(), byte.into())).collect();
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [{
            "id": 256, "content": END_OF_TEXT, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        }],
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": [],
        },
    })
}

/// The `tokenizer_config.json` beside it.
pub fn config_of_bytes() -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": false,
        "eos_token": END_OF_TEXT,
    })
}

/// A printable character for every byte: the byte itself where Latin-1 prints it, the characters from U+0100 on for
/// the others, in order.
fn stand_ins() -> Vec<char> {
    let mut next = 0x100;
    (0..=255_u8)
        .map(|b| {
            if matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) {
                char::from(b)
            } else {
                next += 1;
                char::from_u32(next - 1).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::tokenizer::Tokenizer;

    #[test]
    fn every_byte_is_its_own_number_and_comes_back() {
        let t = Tokenizer::from_json(&json_of_bytes()).unwrap();
        assert_eq!(t.vocab_size(), 257);
        let text: String =
            (0..=0x17f).filter_map(char::from_u32).chain("\u{20ac} \u{1f600}".chars()).collect();
        let ids = t.encode(&text).unwrap();
        assert_eq!(ids, text.bytes().map(u32::from).collect::<Vec<_>>());
        assert_eq!(t.decode(&ids, false).unwrap(), text);
    }

    #[test]
    fn the_end_of_text_is_one_token() {
        let t = Tokenizer::from_json(&json_of_bytes()).unwrap();
        assert_eq!(t.encode("a<|endoftext|>b").unwrap(), [97, 256, 98]);
        assert_eq!(t.id(END_OF_TEXT), Some(256));
    }
}
