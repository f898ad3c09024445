//! A tokenizer from the metadata of a GGUF file.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::TokenizerError;
use crate::gguf::Metadata;

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";

const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

/// How the text is cut before the merges. Published with the models: Qwen2 and Llama 3 `tokenizer.json`.
#[derive(Clone, Copy, PartialEq)]
enum Pre {
    /// The GPT-2 pattern.
    Gpt2,
    /// Every digit alone, then the GPT-2 pattern.
    SmolLm,
    /// Letters with one leading mark, every digit alone; the text is put into Unicode's form C first.
    Qwen2,
    /// Letters with one leading mark, digits in groups of up to three; whole words are looked up before merging.
    Llama3,
}

/// A `tokenizer.json` for a byte-level BPE tokenizer described by GGUF metadata.
///
/// Tokens of type 3 (control) become special tokens, those of type 4 (user defined) become added tokens that are
/// not special.
///
/// # Errors
/// [`TokenizerError::Gguf`] for another kind of tokenizer, another way of cutting the text, or metadata that
/// contradict each other.
pub fn json_from_gguf(meta: &Metadata) -> Result<Value, TokenizerError> {
    let model = meta.get_str(MODEL).ok_or_else(|| absent(MODEL))?;
    if model != "gpt2" {
        return Err(bad(
            MODEL,
            format!(
                "{model:?} is not supported, only \"gpt2\" (byte-level BPE) is; take the model as a folder with \
                 tokenizer.json instead"
            ),
        ));
    }
    let pre = pre_of(meta)?;
    let tokens = meta.str_array(TOKENS).ok_or_else(|| absent(TOKENS))?;
    let merges = meta.str_array(MERGES).ok_or_else(|| absent(MERGES))?;
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(meta, tokens)?,
        "normalizer": if pre == Pre::Qwen2 { json!({"type": "NFC"}) } else { Value::Null },
        "pre_tokenizer": pre_tokenizer(pre, meta.get_bool("tokenizer.ggml.add_space_prefix") == Some(true)),
        "post_processor": post_processor(meta, pre, tokens)?,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": pre == Pre::Llama3,
            "vocab": vocab(tokens)?,
            "merges": pairs(merges, tokens)?,
        },
    }))
}

/// A `tokenizer_config.json` with the special tokens and the chat template of GGUF metadata.
///
/// # Errors
/// [`TokenizerError::Gguf`] when a special token lies outside the vocabulary.
pub fn config_from_gguf(meta: &Metadata) -> Result<Value, TokenizerError> {
    let tokens = meta.str_array(TOKENS).ok_or_else(|| absent(TOKENS))?;
    let mut config = Map::new();
    config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    config.insert("clean_up_tokenization_spaces".into(), false.into());
    for (name, key) in [
        ("bos_token", BOS),
        ("eos_token", "tokenizer.ggml.eos_token_id"),
        ("unk_token", "tokenizer.ggml.unknown_token_id"),
        ("pad_token", "tokenizer.ggml.padding_token_id"),
    ] {
        if let Some(token) = special(meta, key, tokens)? {
            config.insert(name.into(), token.into());
        }
    }
    if let Some(add) = meta.get_bool(ADD_BOS) {
        config.insert("add_bos_token".into(), add.into());
    }
    if let Some(template) = meta.get_str("tokenizer.chat_template") {
        config.insert("chat_template".into(), template.into());
    }
    Ok(config.into())
}

fn pre_of(meta: &Metadata) -> Result<Pre, TokenizerError> {
    match meta.get_str(PRE).unwrap_or("default") {
        "gpt-2" | "default" => Ok(Pre::Gpt2),
        "smollm" => Ok(Pre::SmolLm),
        "qwen2" => Ok(Pre::Qwen2),
        "llama-bpe" => Ok(Pre::Llama3),
        other => Err(bad(
            PRE,
            format!(
                "{other:?} is not supported; supported are \"gpt-2\", \"default\", \"smollm\", \"qwen2\" and \
                 \"llama-bpe\"; take the model as a folder with tokenizer.json instead"
            ),
        )),
    }
}

fn pre_tokenizer(pre: Pre, add_prefix_space: bool) -> Value {
    let bytes = |use_regex| {
        json!({
            "type": "ByteLevel",
            "add_prefix_space": add_prefix_space,
            "trim_offsets": true,
            "use_regex": use_regex,
        })
    };
    let split = |digits: &str| {
        let pattern = format!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        );
        json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
    };
    let first = match pre {
        Pre::Gpt2 => return bytes(true),
        Pre::SmolLm => json!({"type": "Digits", "individual_digits": true}),
        Pre::Qwen2 => split(r"\p{N}"),
        Pre::Llama3 => split(r"\p{N}{1,3}"),
    };
    json!({"type": "Sequence", "pretokenizers": [first, bytes(pre == Pre::SmolLm)]})
}

fn post_processor(meta: &Metadata, pre: Pre, tokens: &[String]) -> Result<Value, TokenizerError> {
    // Llama 3 files of the first converters lack the flag; the model was trained with the token.
    let add_bos = meta.get_bool(ADD_BOS).unwrap_or(pre == Pre::Llama3);
    let Some(bos) = special(meta, BOS, tokens)?.filter(|_| add_bos) else {
        return Ok(json!({
            "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true
        }));
    };
    let text = |id: &str, type_id: u32| json!({"Sequence": {"id": id, "type_id": type_id}});
    let start = |type_id: u32| json!({"SpecialToken": {"id": bos, "type_id": type_id}});
    let mut specials = Map::new();
    specials.insert(bos.to_owned(), json!({"id": bos, "ids": [meta.get_u32(BOS)], "tokens": [bos]}));
    Ok(json!({
        "type": "TemplateProcessing",
        "single": [start(0), text("A", 0)],
        "pair": [start(0), text("A", 0), start(1), text("B", 1)],
        "special_tokens": specials,
    }))
}

fn added_tokens(meta: &Metadata, tokens: &[String]) -> Result<Vec<Value>, TokenizerError> {
    let types = match (meta.get(TYPES), meta.i32_array(TYPES)) {
        (None, _) => &[][..],
        (_, Some(types)) if types.len() == tokens.len() => types,
        (_, Some(types)) => {
            return Err(bad(
                TYPES,
                format!("{} types for {} tokens; convert the model again", types.len(), tokens.len()),
            ));
        }
        _ => return Err(bad(TYPES, "not an array of 32-bit integers; convert the model again".into())),
    };
    let added =
        types.iter().zip(tokens).enumerate().filter(|(_, (ty, _))| [CONTROL, USER_DEFINED].contains(ty));
    Ok(added
        .map(|(id, (ty, token))| {
            json!({
                "id": id,
                "content": token,
                "single_word": false,
                "lstrip": false,
                "rstrip": false,
                "normalized": false,
                "special": *ty == CONTROL,
            })
        })
        .collect())
}

fn vocab(tokens: &[String]) -> Result<Map<String, Value>, TokenizerError> {
    let mut vocab = Map::new();
    for (id, token) in tokens.iter().enumerate() {
        if let Some(first) = vocab.insert(token.clone(), id.into()) {
            return Err(bad(
                TOKENS,
                format!("ids {first} and {id} are both {token:?}; convert the model again"),
            ));
        }
    }
    Ok(vocab)
}

fn pairs(merges: &[String], tokens: &[String]) -> Result<Vec<[String; 2]>, TokenizerError> {
    let known: HashSet<&str> = tokens.iter().map(String::as_str).collect();
    let wrong = |i: usize, why: &str| {
        bad(MERGES, format!("merge {i}, {:?}, {why}; convert the model again", merges[i]))
    };
    let pair = |(i, merge): (usize, &String)| {
        let (a, b) =
            merge.split_once(' ').ok_or_else(|| wrong(i, "is not two tokens with a space between"))?;
        let joined = [a, b].concat();
        if [a, b, &joined].iter().all(|t| known.contains(t)) {
            Ok([a.to_owned(), b.to_owned()])
        } else {
            Err(wrong(i, "uses or makes a token that is not in the vocabulary"))
        }
    };
    merges.iter().enumerate().map(pair).collect()
}

fn special<'a>(
    meta: &Metadata,
    key: &'static str,
    tokens: &'a [String],
) -> Result<Option<&'a str>, TokenizerError> {
    let Some(id) = meta.get_u32(key) else { return Ok(None) };
    let outside =
        || bad(key, format!("id {id} lies outside the {} tokens; convert the model again", tokens.len()));
    tokens.get(id as usize).map(|t| Some(t.as_str())).ok_or_else(outside)
}

fn absent(key: &'static str) -> TokenizerError {
    bad(key, "missing or of another type; the file holds no tokenizer that can be read here".into())
}

fn bad(key: &'static str, what: String) -> TokenizerError {
    TokenizerError::Gguf { key, what }
}
