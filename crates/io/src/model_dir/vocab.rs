//! The tokenizer and chat template between GGUF metadata and the JSON files.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::{ModelFiles, TOKENIZER};
use crate::IoError;
use crate::gguf::{Array, Metadata, Value};
use crate::tokenizer;

const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

const MODEL: &str = "tokenizer.ggml.model";
const TEMPLATE: &str = "tokenizer.chat_template";

/// Special tokens: their names in the JSON files and their keys in GGUF.
const SPECIAL: [(&str, &str); 4] = [
    ("bos", "tokenizer.ggml.bos_token_id"),
    ("eos", "tokenizer.ggml.eos_token_id"),
    ("unk", "tokenizer.ggml.unknown_token_id"),
    ("pad", "tokenizer.ggml.padding_token_id"),
];

/// The ids of the special tokens that the metadata names.
pub(super) fn special_ids(meta: &Metadata) -> Vec<(&'static str, u32)> {
    SPECIAL.iter().filter_map(|(name, key)| Some((*name, meta.get_u32(key)?))).collect()
}

/// `tokenizer.json` and `tokenizer_config.json`; neither for a file without a vocabulary.
pub(super) fn from_gguf(
    meta: &Metadata,
    context: Option<&Json>,
) -> Result<(Option<Json>, Option<Json>), IoError> {
    if matches!(meta.get_str(MODEL), None | Some("none" | "no_vocab")) {
        return Ok((None, None));
    }
    let json = tokenizer::json_from_gguf(meta)?;
    let mut config = tokenizer::config_from_gguf(meta)?;
    if let (Some(map), Some(context)) = (config.as_object_mut(), context) {
        map.insert("model_max_length".into(), context.clone());
    }
    Ok((Some(json), Some(config)))
}

/// Writes the tokenizer's metadata, with `rows` tokens: as many as the embedding has rows.
pub(super) fn to_gguf(
    files: &ModelFiles,
    path: &Path,
    rows: usize,
    meta: &mut Metadata,
) -> Result<(), IoError> {
    let Some(tokenizer) = &files.tokenizer else {
        meta.insert(MODEL, "none");
        return Ok(());
    };
    let refuse = |what: String| IoError::key(path, TOKENIZER, what);
    let (tokens, types) = tokens(tokenizer, rows).map_err(refuse)?;
    meta.insert(MODEL, "gpt2");
    meta.insert("tokenizer.ggml.pre", pre(tokenizer).map_err(refuse)?);
    let prefix = find_type(tokenizer.get("pre_tokenizer"), "ByteLevel")
        .and_then(|b| b.get("add_prefix_space"))
        .and_then(Json::as_bool);
    meta.insert("tokenizer.ggml.add_space_prefix", prefix == Some(true));

    let config = files.tokenizer_config.as_ref();
    let sources = [files.generation_config.as_ref(), Some(&files.config)];
    for (name, key) in SPECIAL {
        let named = config.and_then(|c| text(c.get(format!("{name}_token"))?));
        let id = named
            .and_then(|t| tokens.iter().position(|x| x == t))
            .map(|i| i as u64)
            .or_else(|| sources.iter().flatten().find_map(|c| first_id(c.get(format!("{name}_token_id"))?)));
        if let Some(id) = id.and_then(|id| u32::try_from(id).ok()).filter(|id| (*id as usize) < rows) {
            meta.insert(key, id);
        }
    }
    let flag = config.and_then(|c| c.get("add_bos_token")).and_then(Json::as_bool);
    meta.insert("tokenizer.ggml.add_bos_token", flag.unwrap_or_else(|| begins_with_special(tokenizer)));
    if let Some(template) = config.and_then(|c| template(c.get("chat_template")?)) {
        meta.insert(TEMPLATE, template);
    }
    meta.insert("tokenizer.ggml.tokens", Array::String(tokens));
    meta.insert("tokenizer.ggml.token_type", Array::I32(types));
    meta.insert("tokenizer.ggml.merges", Value::Array(Array::String(merges(tokenizer).map_err(refuse)?)));
    Ok(())
}

/// Tokens by id with their types. Rows of the embedding without a token are named and marked as unused.
fn tokens(tokenizer: &Json, rows: usize) -> Result<(Vec<String>, Vec<i32>), String> {
    let model = tokenizer.get("model");
    let kind = model.and_then(|m| m.get("type")).and_then(Json::as_str).unwrap_or("without a type");
    if kind != "BPE" || find_type(tokenizer.get("pre_tokenizer"), "ByteLevel").is_none() {
        return Err(format!(
            "is {kind}: only byte-level BPE can be exported to GGUF; export as a folder instead"
        ));
    }
    let vocab = model.and_then(|m| m.get("vocab")).and_then(Json::as_object);
    let vocab = vocab.ok_or("has no vocabulary; restore the file from its source")?;
    let mut slots: Vec<Option<(String, i32)>> = vec![None; rows];
    let mut place = |id: Option<u64>, token: &str, ty: i32| {
        let slot = id.and_then(|id| slots.get_mut(usize::try_from(id).ok()?)).ok_or_else(|| {
            format!("gives {token:?} the id {id:?}, but the embedding has {rows} rows; take the model's own tokenizer")
        })?;
        match slot {
            Some((other, _)) if other != token => Err(format!("gives one id to {other:?} and {token:?}")),
            _ => {
                *slot = Some((token.to_owned(), ty));
                Ok(())
            }
        }
    };
    for (token, id) in vocab {
        place(id.as_u64(), token, NORMAL)?;
    }
    for added in tokenizer.get("added_tokens").and_then(Json::as_array).into_iter().flatten() {
        let token = added.get("content").and_then(Json::as_str).unwrap_or("");
        let special = added.get("special").and_then(Json::as_bool) == Some(true);
        let ty = if special { CONTROL } else { USER_DEFINED };
        place(added.get("id").and_then(Json::as_u64), token, ty)?;
    }
    Ok(slots
        .into_iter()
        .enumerate()
        .map(|(i, slot)| slot.unwrap_or_else(|| (format!("[PAD{i}]"), UNUSED)))
        .unzip())
}

/// Merges as `a b`. `tokenizer.json` has them so, or as pairs.
fn merges(tokenizer: &Json) -> Result<Vec<String>, String> {
    let list = tokenizer.get("model").and_then(|m| m.get("merges")).and_then(Json::as_array);
    let one = |(i, m): (usize, &Json)| {
        let joined = match m {
            Json::String(s) => Some(s.clone()),
            Json::Array(pair) => match &pair[..] {
                [Json::String(a), Json::String(b)] => Some(format!("{a} {b}")),
                _ => None,
            },
            _ => None,
        };
        joined.filter(|s| s.matches(' ').count() == 1).ok_or_else(|| {
            format!("has merge {i} = {m}, not two tokens without spaces; restore the file from its source")
        })
    };
    list.ok_or("has no merges; restore the file from its source")?.iter().enumerate().map(one).collect()
}

/// llama.cpp's name for the way the text is cut, told by the shape of the pre-tokenizer.
fn pre(tokenizer: &Json) -> Result<&'static str, String> {
    let pre = tokenizer.get("pre_tokenizer");
    if find_type(pre, "Digits").and_then(|d| d.get("individual_digits")) == Some(&json!(true)) {
        return Ok("smollm");
    }
    let Some(split) = find_type(pre, "Split") else {
        let plain = find_type(pre, "ByteLevel").is_some_and(|b| b.get("use_regex") != Some(&json!(false)));
        return if plain { Ok("gpt-2") } else { Err(unknown_pre()) };
    };
    let pattern = split.get("pattern").and_then(|p| p.get("Regex")).and_then(Json::as_str).unwrap_or("");
    // The two published patterns differ in nothing but the digits.
    match pattern {
        p if p.contains(r"\p{Lu}") => Err(unknown_pre()),
        p if p.contains(r"|\p{N}{1,3}|") => Ok("llama-bpe"),
        p if p.contains(r"|\p{N}|") => Ok("qwen2"),
        _ => Err(unknown_pre()),
    }
}

fn unknown_pre() -> String {
    "cuts the text in a way that has no name in GGUF (known: GPT-2, SmolLM, Qwen2, Llama 3); export as a folder \
     instead"
        .to_owned()
}

/// The first element of this type in a pre-tokenizer or a sequence of them.
fn find_type<'a>(pre: Option<&'a Json>, kind: &str) -> Option<&'a Json> {
    let pre = pre?;
    let is = |v: &Json| v.get("type").and_then(Json::as_str) == Some(kind);
    if is(pre) {
        return Some(pre);
    }
    pre.get("pretokenizers")?.as_array()?.iter().find(|v| is(v))
}

fn begins_with_special(tokenizer: &Json) -> bool {
    let first = tokenizer.get("post_processor").and_then(|p| p.get("single")).and_then(|s| s.get(0));
    first.is_some_and(|f| f.get("SpecialToken").is_some())
}

fn text(v: &Json) -> Option<&str> {
    v.as_str().or_else(|| v.get("content")?.as_str())
}

fn first_id(v: &Json) -> Option<u64> {
    v.as_u64().or_else(|| v.get(0)?.as_u64())
}

/// One template, or the one called "default" of several.
fn template(v: &Json) -> Option<&str> {
    let named = |v: &&Json| v.get("name").and_then(Json::as_str) == Some("default");
    v.as_str().or_else(|| v.as_array()?.iter().find(named)?.get("template")?.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Json {
        json!({
            "added_tokens": [
                {"id": 3, "content": "<|end|>", "special": true},
                {"id": 4, "content": "<tool>", "special": false}],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "<|end|>": 3}, "merges": [["a", "b"]]}
        })
    }

    #[test]
    fn rows_without_a_token_are_named_and_unused() {
        let (tokens, types) = tokens(&sample(), 6).unwrap();
        assert_eq!(tokens, ["a", "b", "ab", "<|end|>", "<tool>", "[PAD5]"]);
        assert_eq!(types, [NORMAL, NORMAL, NORMAL, CONTROL, USER_DEFINED, UNUSED]);
    }

    #[test]
    fn an_id_outside_the_embedding_is_refused() {
        let e = tokens(&sample(), 4).unwrap_err();
        assert!(e.contains("<tool>") && e.contains("4 rows"), "{e}");
    }

    #[test]
    fn one_id_for_two_tokens_is_refused() {
        let mut t = sample();
        t["added_tokens"][0]["id"] = json!(1);
        assert!(tokens(&t, 6).unwrap_err().contains("\"b\""));
    }

    #[test]
    fn merges_are_written_with_one_space() {
        assert_eq!(merges(&sample()).unwrap(), ["a b"]);
        let mut t = sample();
        t["model"]["merges"] = json!(["a b", "a b c"]);
        assert!(merges(&t).unwrap_err().contains("merge 1"));
    }

    #[test]
    fn the_cut_is_told_by_its_shape() {
        let t = |pre: Json| json!({ "pre_tokenizer": pre });
        let bytes = |r: bool| json!({"type": "ByteLevel", "use_regex": r});
        let seq = |first: Json, r: bool| t(json!({"type": "Sequence", "pretokenizers": [first, bytes(r)]}));
        let split = |p: &str| json!({"type": "Split", "pattern": {"Regex": p}});
        assert_eq!(pre(&t(bytes(true))), Ok("gpt-2"));
        assert_eq!(pre(&seq(json!({"type": "Digits", "individual_digits": true}), true)), Ok("smollm"));
        assert_eq!(pre(&seq(split(r"\p{L}+|\p{N}|x"), false)), Ok("qwen2"));
        assert_eq!(pre(&seq(split(r"\p{L}+|\p{N}{1,3}|x"), false)), Ok("llama-bpe"));
        assert!(pre(&t(bytes(false))).unwrap_err().contains("no name in GGUF"));
        assert!(pre(&seq(split(r"[\p{Lu}]+|\p{N}{1,3}|x"), false)).is_err());
    }
}
