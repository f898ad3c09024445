use std::collections::BTreeMap;

use serde_json::Value;

use super::Tokenizer;

/// The text of a special token, which files write as a string or as an object with `content`.
fn content(v: &Value) -> Option<&str> {
    v.as_str().or_else(|| v.get("content")?.as_str())
}

/// The special tokens that a `tokenizer_config.json` names: `bos_token`, `eos_token`, `pad_token` ... with their
/// texts, as chat templates see them.
pub fn special_tokens(tokenizer_config: &Value) -> BTreeMap<String, String> {
    let entries = tokenizer_config.as_object().into_iter().flatten();
    entries
        .filter(|(key, _)| key.ends_with("_token"))
        .filter_map(|(key, v)| Some((key.clone(), content(v)?.to_owned())))
        .collect()
}

/// The ids that end a text, without repetition: `eos_token_id` of `generation_config.json` and `config.json` (a
/// number or a list), then `eos_token` of `tokenizer_config.json`.
///
/// All of them count, because models disagree with themselves: a chat model's `config.json` may still name the
/// end-of-text token of its base model, while its turns end with the tokenizer's `eos_token`.
pub fn eos_ids(
    tokenizer: &Tokenizer,
    tokenizer_config: Option<&Value>,
    generation_config: Option<&Value>,
    config: Option<&Value>,
) -> Vec<u32> {
    let numbers = [generation_config, config].into_iter().flatten().filter_map(|c| c.get("eos_token_id"));
    let listed = numbers.flat_map(|v| v.as_array().map_or(std::slice::from_ref(v), Vec::as_slice));
    let named = tokenizer_config.and_then(|c| c.get("eos_token")).and_then(content);
    let mut ids = Vec::new();
    for id in listed
        .filter_map(|v| v.as_u64().and_then(|v| v.try_into().ok()))
        .chain(named.and_then(|token| tokenizer.id(token)))
    {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids
}
