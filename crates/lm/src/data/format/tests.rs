#![allow(clippy::unwrap_used, reason = "tests")]
use serde_json::json;

use super::*;
use crate::data::{Records, Rows};

fn of(row: &Value, forced: Option<RowFormat>) -> Result<(Conversation, Object), String> {
    conversation(row.as_object().unwrap().clone(), forced)
}

/// Roles and texts of a row.
fn turns(row: &Value) -> Vec<(String, String)> {
    match of(row, None).unwrap().0 {
        Conversation::Messages(m) => m.iter().map(|m| (m.role.clone(), m.text().to_owned())).collect(),
        other => panic!("{other:?}"),
    }
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(r, t)| ((*r).to_owned(), (*t).to_owned())).collect()
}

fn refused(row: &Value) -> String {
    of(row, None).unwrap_err()
}

#[test]
fn every_format_of_one_conversation_gives_the_same_turns() {
    let want = pairs(&[("system", "S"), ("user", "Q"), ("assistant", "A")]);
    for row in [
        json!({ "messages": [
            { "role": "system", "content": "S" }, { "role": "user", "content": "Q" },
            { "role": "assistant", "content": "A" }] }),
        json!({ "system": "S", "conversations": [{ "from": "human", "value": "Q" }, { "from": "gpt", "value": "A" }] }),
        json!({ "conversations": [
            { "from": "system", "value": "S" }, { "from": "user", "value": "Q" },
            { "from": "chatgpt", "value": "A" }] }),
        json!({ "conversations": [
            { "role": "system", "content": "S" }, { "role": "user", "content": "Q" },
            { "role": "assistant", "content": "A" }] }),
        json!({ "instruction": "Q", "input": "", "output": "A", "system": "S" }),
        json!({ "instruction": "Q", "output": "A", "system": "S", "text": "S Q A" }),
        json!({ "prompt": [{ "role": "system", "content": "S" }, { "role": "user", "content": "Q" }],
                "completion": [{ "role": "assistant", "content": "A" }] }),
        // As tables store lists of structures, and lists of one type.
        json!({ "messages": { "role": ["system", "user", "assistant"], "content": ["S", "Q", "A"] } }),
        json!({ "messages":
            r#"[{"role":"system","content":"S"},{"role":"user","content":"Q"},{"role":"assistant","content":"A"}]"# }),
        json!({ "messages": [
            { "role": "system", "content": [{ "type": "text", "text": "S" }] }, { "role": "user", "content": ["Q"] },
            { "role": "assistant", "content": [{ "type": "text", "text": "A" }, { "type": "text", "text": "" }] }] }),
    ] {
        assert_eq!(turns(&row), want, "{row}");
    }
}

#[test]
fn keys_tell_the_format_and_text_yields_to_every_other() {
    let found = |keys: &[&str]| RowFormat::of_keys(keys).unwrap();
    for f in RowFormat::ALL {
        assert_eq!(found(f.needs()), f, "{}", f.name());
    }
    assert_eq!(found(&["text", "messages"]), RowFormat::Messages);
    assert_eq!(found(&["messages", "prompt", "prompt_id"]), RowFormat::Messages);
    assert_eq!(found(&["text", "prompt", "completion"]), RowFormat::PromptCompletion);
    let e = RowFormat::of_keys(&["messages", "prompt", "completion"]).unwrap_err();
    assert!(
        e.contains("(messages, prompt, completion) fit the formats messages and prompt-completion"),
        "{e}"
    );
    let e = RowFormat::of_keys(&["question", "answer"]).unwrap_err();
    assert_eq!(e, "its keys (question, answer) fit no format");
    let e = RowFormat::of_keys(&["prompt", "chosen", "rejected"]).unwrap_err();
    assert!(e.ends_with("a prompt without a completion"), "{e}");
    assert!(RowFormat::of_keys(&["chosen", "rejected"]).unwrap_err().contains("preferences"));
}

#[test]
fn a_forced_format_overrules_the_keys_and_names_what_is_missing() {
    let row = json!({ "text": "T", "prompt": "P", "completion": "C" });
    let pair = Conversation::Pair { prompt: "P".into(), completion: "C".into() };
    assert_eq!(of(&row, None).unwrap().0, pair);
    assert_eq!(of(&row, Some(RowFormat::Text)).unwrap().0, Conversation::Text("T".into()));
    let e = of(&row, Some(RowFormat::Alpaca)).unwrap_err();
    assert_eq!(e, "the format alpaca needs instruction and output; its keys (text, prompt, completion)");
}

#[test]
fn a_null_counts_as_an_absent_key() {
    let row = json!({ "messages": null, "prompt": "P", "completion": "C", "tools": null, "system": null });
    assert!(matches!(of(&row, None).unwrap().0, Conversation::Pair { .. }));
    assert!(refused(&json!({ "text": null })).contains("its keys (none) fit no format"));
}

#[test]
fn earlier_answers_of_alpaca_are_trained_and_those_of_a_prompt_are_not() {
    let row = json!({ "instruction": "Q", "input": "I", "output": "A", "history": [["q", "a"]] });
    assert_eq!(
        turns(&row),
        pairs(&[("user", "q"), ("assistant", "a"), ("user", "Q\nI"), ("assistant", "A")])
    );
    let turn = |role: &str| json!({ "role": role, "content": role });
    let row = json!({ "prompt": [turn("user"), turn("assistant"), turn("user")], "completion": [turn("assistant")] });
    let Conversation::Messages(m) = of(&row, None).unwrap().0 else { panic!() };
    let weights: Vec<Option<&Value>> = m.iter().map(|m| m.extra.get("weight")).collect();
    assert_eq!(weights, [None, Some(&json!(0)), None, None]);
}

#[test]
fn calls_of_functions_become_tool_calls() {
    let row = json!({
        "tools": "[{\"name\": \"f\"}]",
        "conversations": [
            { "from": "human", "value": "Q" },
            { "from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"b\": 1, \"a\": 2}}" },
            { "from": "observation", "value": "3" },
            { "from": "gpt", "value": "A", "weight": 0 },
        ],
    });
    let (Conversation::Messages(m), variables) = of(&row, None).unwrap() else { panic!() };
    assert_eq!(variables["tools"], json!([{ "name": "f" }]));
    let call = json!([{ "type": "function", "function": { "name": "f", "arguments": { "b": 1, "a": 2 } } }]);
    assert_eq!((m[1].role.as_str(), m[1].text(), &m[1].extra["tool_calls"]), ("assistant", "", &call));
    assert_eq!((m[2].role.as_str(), m[2].text()), ("tool", "3"));
    assert_eq!(m[3].extra["weight"], 0);
    // Arguments that are JSON within a string, and several calls.
    let value = r#"[{"name": "f", "arguments": "{\"x\": 1}"}, {"name": "g", "arguments": "now"}]"#;
    let row = json!({ "conversations": [{ "from": "human", "value": "Q" }, { "from": "function_call", "value": value }] });
    let (Conversation::Messages(m), _) = of(&row, None).unwrap() else { panic!() };
    let arguments = |i: usize| &m[1].extra["tool_calls"][i]["function"]["arguments"];
    assert_eq!((arguments(0), arguments(1)), (&json!({ "x": 1 }), &json!("now")));
}

#[test]
fn what_is_no_conversation_is_told() {
    let human = json!({ "from": "human", "value": "Q" });
    for (row, want) in [
        (
            json!({ "conversations": [human, { "from": "robot", "value": "A" }] }),
            "message 2: it is from \"robot\": human",
        ),
        (json!({ "conversations": [human, { "from": "gpt" }] }), "message 2: missing field `value`"),
        (json!({ "conversations": [{ "value": "A" }] }), "message 1: missing field `from`"),
        (json!({ "conversations": [{ "from": "gpt", "value": 3 }] }), "message 1: its value is no string"),
        (
            json!({ "conversations": [{ "from": "function_call", "value": "f(1)" }] }),
            "message 1: a function call that is no",
        ),
        (json!({ "conversations": [] }), "the list of conversations is empty"),
        (json!({ "conversations": "x" }), "conversations is no list"),
        (
            json!({ "conversations": [human, { "from": "gpt", "value": "" }] }),
            "message 2 has an empty answer",
        ),
        (json!({ "messages": "x" }), "messages is a string that does not hold JSON"),
        (json!({ "messages": { "role": ["user"], "content": [] } }), "messages is no list"),
        (json!({ "messages": ["x"] }), "message 1: not an object"),
        (
            json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url" }] }] }),
            "a part of the content is of type image_url",
        ),
        (json!({ "messages": [{ "content": "x" }] }), "message 1: missing field `role`"),
        (json!({ "instruction": "", "output": "A" }), "instruction and input are empty"),
        (json!({ "instruction": "Q", "output": "" }), "message 2 has an empty answer"),
        (json!({ "instruction": 1, "output": "A" }), "instruction is no string"),
        (json!({ "instruction": "Q", "output": "A", "history": [["q"]] }), "entry 1 of history is no pair"),
        (json!({ "prompt": "P", "completion": [] }), "neither two texts nor two lists"),
        (
            json!({ "prompt": [], "completion": [{ "role": "user", "content": "x" }] }),
            "no message of the completion",
        ),
        (json!({ "text": "" }), "the text is empty"),
        (json!({ "text": 1 }), "text is no string"),
    ] {
        let e = refused(&row);
        assert!(e.contains(want), "{row}: {e}");
    }
}

#[test]
fn rows_of_a_table_are_counted_as_rows() {
    let table = [json!({ "text": "a" }), json!({ "messages": [] })];
    let objects = table.map(|v| Ok(v.as_object().unwrap().clone()));
    let mut rows = Records::new(objects.into_iter(), "a.parquet", None);
    assert_eq!(rows.next().unwrap().unwrap().conversation, Conversation::Text("a".into()));
    let e = rows.next().unwrap().unwrap_err().to_string();
    assert!(e.starts_with("a.parquet, row 2: the list of messages is empty. Each row is one JSON"), "{e}");
    assert!(rows.next().is_none());
    let forced =
        Rows::new(&br#"{"text":"a","messages":[]}"#[..], "a.jsonl").with_format(Some(RowFormat::Text));
    assert!(forced.map(Result::unwrap).all(|r| matches!(r.conversation, Conversation::Text(_))));
}
