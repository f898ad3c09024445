//! From the shapes of other trainers to turns.

use serde_json::{Value, json};

use super::format::Object;
use super::{Conversation, Message};

/// Roles that chat templates know.
const ROLES: [&str; 6] = ["system", "user", "assistant", "tool", "developer", "function"];

/// Speakers of ShareGPT, and the roles that they are.
const SPEAKERS: [(&str, &str); 14] = [
    ("human", "user"),
    ("user", "user"),
    ("gpt", "assistant"),
    ("assistant", "assistant"),
    ("chatgpt", "assistant"),
    ("bing", "assistant"),
    ("bard", "assistant"),
    ("model", "assistant"),
    ("system", "system"),
    ("tool", "tool"),
    ("observation", "tool"),
    ("function_response", "tool"),
    ("function", "function"),
    (CALL, "assistant"),
];

/// The speaker whose text is a call.
const CALL: &str = "function_call";

pub(super) fn messages(row: &mut Object) -> Result<Conversation, String> {
    let turns = turns("messages", row.remove("messages"))?;
    checked(turns, "the list of messages is empty")
}

/// A list of turns, each an object. A column of structures may be stored as a structure of columns, and a list as JSON
/// within a string.
fn turns(key: &str, value: Option<Value>) -> Result<Vec<Message>, String> {
    let value = match value {
        Some(Value::String(text)) => serde_json::from_str(&text)
            .map_err(|e| format!("{key} is a string that does not hold JSON: {e}"))?,
        other => other.unwrap_or_default(),
    };
    let list = match value {
        Value::Array(list) => list,
        Value::Object(columns) => rows(columns).ok_or_else(|| format!("{key} is no list"))?,
        _ => return Err(format!("{key} is no list")),
    };
    list.into_iter()
        .enumerate()
        .map(|(i, turn)| message(turn).map_err(|e| format!("message {}: {e}", i + 1)))
        .collect()
}

/// Lists of one length each as one list of objects.
fn rows(columns: Object) -> Option<Vec<Value>> {
    let n = columns.values().next()?.as_array()?.len();
    let mut out = vec![Object::new(); n];
    for (key, column) in columns {
        let Value::Array(values) = column else { return None };
        if values.len() != n {
            return None;
        }
        for (row, value) in out.iter_mut().zip(values) {
            row.insert(key.clone(), value);
        }
    }
    Some(out.into_iter().map(Value::Object).collect())
}

fn message(value: Value) -> Result<Message, String> {
    let Value::Object(mut turn) = value else { return Err("not an object".into()) };
    if let Some(Value::Array(parts)) = turn.get("content") {
        let text = joined(parts)?;
        turn.insert("content".into(), text.into());
    }
    serde_json::from_value(Value::Object(turn)).map_err(|e| e.to_string())
}

/// The text of a content that comes in parts.
fn joined(parts: &[Value]) -> Result<String, String> {
    parts
        .iter()
        .map(|p| match (p, p.get("type").and_then(Value::as_str), p.get("text").and_then(Value::as_str)) {
            (Value::String(text), ..) => Ok(text.as_str()),
            (_, None | Some("text"), Some(text)) => Ok(text),
            (_, Some(kind), _) => {
                Err(format!("a part of the content is of type {kind}, and only text is read"))
            }
            _ => Err("a part of the content is no text".into()),
        })
        .collect()
}

pub(super) fn share_gpt(row: &mut Object) -> Result<Conversation, String> {
    let list = match row.remove("conversations") {
        Some(Value::Object(columns)) => rows(columns).map(Value::Array),
        Some(Value::String(text)) => serde_json::from_str(&text).ok(),
        other => other,
    };
    let Some(Value::Array(list)) = list else { return Err("conversations is no list".into()) };
    let mut out = system(row)?;
    for (i, turn) in list.into_iter().enumerate() {
        out.push(spoken(turn).map_err(|e| format!("message {}: {e}", i + 1))?);
    }
    checked(out, "the list of conversations is empty")
}

/// The turn of a speaker. The names of the other format are understood too, since many files mix them.
fn spoken(value: Value) -> Result<Message, String> {
    let Value::Object(mut turn) = value else { return Err("not an object".into()) };
    let who = turn.remove("from").or_else(|| turn.remove("role"));
    let who = who.as_ref().and_then(Value::as_str).ok_or("missing field `from`")?.to_owned();
    let text = turn.remove("value").or_else(|| turn.remove("content"));
    let role = SPEAKERS.iter().find(|(name, _)| *name == who).map(|(_, role)| *role).ok_or_else(|| {
        let known: Vec<&str> = SPEAKERS.iter().map(|(name, _)| *name).collect();
        format!("it is from {who:?}: {} are known", known.join(", "))
    })?;
    turn.insert("role".into(), role.into());
    match text {
        Some(Value::String(call)) if who == CALL => {
            turn.insert("content".into(), "".into());
            turn.insert("tool_calls".into(), calls(&call)?);
        }
        Some(text @ (Value::String(_) | Value::Array(_))) => {
            turn.insert("content".into(), text);
        }
        Some(_) => return Err("its value is no string".into()),
        None if turn.contains_key("tool_calls") => {}
        None => return Err("missing field `value`".into()),
    }
    message(Value::Object(turn))
}

/// A call, or a list of them, as templates expect it.
fn calls(text: &str) -> Result<Value, String> {
    let bad = || "a function call that is no JSON object with a name".to_owned();
    let calls = match serde_json::from_str(text).map_err(|_| bad())? {
        Value::Array(list) => list,
        one => vec![one],
    };
    let calls = calls.into_iter().map(|call| {
        let name = call["name"].as_str().ok_or_else(bad)?;
        // Templates print the arguments as JSON, and would quote a string once more.
        let arguments = match &call["arguments"] {
            Value::String(text) => serde_json::from_str(text).unwrap_or_else(|_| text.clone().into()),
            other => other.clone(),
        };
        Ok(json!({ "type": "function", "function": { "name": name, "arguments": arguments } }))
    });
    Ok(Value::Array(calls.collect::<Result<_, String>>()?))
}

/// The system turn of a row that has one beside its turns.
fn system(row: &mut Object) -> Result<Vec<Message>, String> {
    Ok(match text(row, "system")? {
        s if s.is_empty() => Vec::new(),
        s => vec![Message::new("system", s)],
    })
}

fn text(row: &mut Object, key: &str) -> Result<String, String> {
    match row.remove(key) {
        None => Ok(String::new()),
        Some(Value::String(s)) => Ok(s),
        Some(_) => Err(format!("{key} is no string")),
    }
}

pub(super) fn alpaca(row: &mut Object) -> Result<Conversation, String> {
    let mut out = system(row)?;
    let earlier = match row.remove("history") {
        None => Vec::new(),
        Some(Value::Array(list)) => list,
        Some(_) => return Err("history is no list".into()),
    };
    for (i, pair) in earlier.iter().enumerate() {
        let both = pair.as_array().map(Vec::as_slice);
        let Some([Value::String(q), Value::String(a)]) = both else {
            return Err(format!("entry {} of history is no pair of texts", i + 1));
        };
        out.push(Message::new("user", q));
        out.push(Message::new("assistant", a));
    }
    let (instruction, input) = (text(row, "instruction")?, text(row, "input")?);
    let question = match (instruction.is_empty(), input.is_empty()) {
        (true, true) => return Err("instruction and input are empty".into()),
        (false, false) => format!("{instruction}\n{input}"),
        _ => instruction + &input,
    };
    out.push(Message::new("user", question));
    out.push(Message::new("assistant", text(row, "output")?));
    checked(out, "")
}

pub(super) fn pair(row: &mut Object) -> Result<Conversation, String> {
    match (row.remove("prompt"), row.remove("completion")) {
        (Some(Value::String(_)), Some(Value::String(completion))) if completion.is_empty() => {
            Err("the completion is empty".into())
        }
        (Some(Value::String(prompt)), Some(Value::String(completion))) => {
            Ok(Conversation::Pair { prompt, completion })
        }
        (prompt @ Some(Value::Array(_) | Value::Object(_)), completion) => {
            let mut out = turns("prompt", prompt)?;
            for m in out.iter_mut().filter(|m| m.role == "assistant") {
                m.extra.insert("weight".into(), 0.into());
            }
            let answer = turns("completion", completion)?;
            if !answer.iter().any(|m| m.role == "assistant") {
                return Err("no message of the completion is the assistant's".into());
            }
            out.extend(answer);
            checked(out, "")
        }
        _ => Err("prompt and completion are neither two texts nor two lists of messages".into()),
    }
}

/// Turns that a template can be given.
fn checked(messages: Vec<Message>, empty: &str) -> Result<Conversation, String> {
    if messages.is_empty() {
        return Err(empty.into());
    }
    if let Some((i, what)) = messages.iter().enumerate().find_map(|(i, m)| Some((i + 1, wrong(m)?))) {
        return Err(format!("message {i} has {what}"));
    }
    match messages.iter().position(|m| !ROLES.contains(&m.role.as_str())) {
        Some(i) => Err(format!(
            "message {} has the role {:?}, which templates would print and no model has learnt: {} are known",
            i + 1,
            messages[i].role,
            ROLES.join(", ")
        )),
        None => Ok(Conversation::Messages(messages)),
    }
}

/// What a message must not have.
fn wrong(m: &Message) -> Option<&'static str> {
    let empty = |v: &Value| match v {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    // A name says who speaks, not what.
    let other = m.extra.iter().any(|(key, v)| key != "name" && key != "weight" && !empty(v));
    let weight = m.extra.get("weight").filter(|w| !w.is_null()).map(Value::as_f64);
    if weight.is_some_and(|w| w != Some(0.0) && w != Some(1.0)) {
        Some("a weight that is neither 0 (not trained) nor 1 (trained)")
    } else if weight == Some(Some(1.0)) && m.role != "assistant" {
        Some("the weight 1, though only what the assistant says is trained")
    } else if m.role.trim().is_empty() {
        Some("an empty role")
    } else if m.content.is_none() && m.extra.get("tool_calls").is_none_or(empty) {
        Some("neither content nor tool_calls")
    } else if m.role == "assistant" && m.text().is_empty() && !other {
        Some("an empty answer: only its end would be trained")
    } else {
        None
    }
}
