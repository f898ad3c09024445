use std::io::BufRead;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{DataError, Message};

/// What one line holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conversation {
    /// Turns.
    Messages(Vec<Message>),
    /// A prompt and its continuation.
    Pair {
        /// Given.
        prompt: String,
        /// Trained.
        completion: String,
    },
}

/// A conversation and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Line of the file, counted from one.
    pub line: usize,
    /// Content.
    pub conversation: Conversation,
    /// What the chat template is given beside the messages: the row's `tools` and what its `chat_template_kwargs`
    /// hold.
    pub variables: Map<String, Value>,
}

#[derive(Deserialize)]
struct Raw {
    messages: Option<Vec<Message>>,
    prompt: Option<String>,
    completion: Option<String>,
    tools: Option<Value>,
    chat_template_kwargs: Option<Value>,
}

/// Streams conversations from JSON lines; keys of an object that are not listed in [`Row`] and [`Conversation`] are
/// ignored, as are blank lines.
///
/// Ends after the first error, which names file and line.
#[derive(Debug)]
pub struct Rows<R> {
    reader: R,
    file: String,
    line: usize,
    buffer: Vec<u8>,
    done: bool,
}

impl<R: BufRead> Rows<R> {
    /// Rows of `reader`; `file` is its name in messages.
    pub fn new(reader: R, file: impl Into<String>) -> Self {
        Rows { reader, file: file.into(), line: 0, buffer: Vec::new(), done: false }
    }

    /// The name used in messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    fn parse(&self) -> Result<Option<Row>, String> {
        let bytes = match self.line {
            1 => self.buffer.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.buffer),
            _ => &self.buffer,
        };
        let text =
            std::str::from_utf8(bytes).map_err(|e| format!("not UTF-8 from byte {}", e.valid_up_to() + 1))?;
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let raw: Raw = serde_json::from_str(text).map_err(|e| {
            // The parser counts lines of its own text, which here is always one.
            let whole = e.to_string();
            let reason = whole.split(" at line ").next().unwrap_or(&whole);
            format!("{reason} (column {})", e.column())
        })?;
        let variables = variables(raw.tools, raw.chat_template_kwargs)?;
        let row = |conversation| Row { line: self.line, conversation, variables };
        let messages = match (raw.messages, raw.prompt, raw.completion) {
            (Some(messages), None, None) => messages,
            (None, Some(prompt), Some(completion)) => {
                if completion.is_empty() {
                    return Err("the completion is empty".into());
                }
                return Ok(Some(row(Conversation::Pair { prompt, completion })));
            }
            (Some(_), ..) => return Err("both messages and prompt/completion".into()),
            (None, Some(_), None) => return Err("a prompt without a completion".into()),
            (None, None, Some(_)) => return Err("a completion without a prompt".into()),
            (None, None, None) => return Err("neither messages nor prompt and completion".into()),
        };
        if messages.is_empty() {
            return Err("the list of messages is empty".into());
        }
        if let Some((i, what)) = messages.iter().enumerate().find_map(|(i, m)| Some((i + 1, wrong(m)?))) {
            return Err(format!("message {i} has {what}"));
        }
        match unknown_role(&messages) {
            Some((i, role)) => Err(format!(
                "message {i} has the role {role:?}, which templates would print and no model has learnt: {} are known",
                ROLES.join(", ")
            )),
            None => Ok(Some(row(Conversation::Messages(messages)))),
        }
    }
}

/// Variables that a row cannot set, since the trainer does.
const OURS: [&str; 3] = ["messages", "add_generation_prompt", "tools"];

/// What the chat template is given beside the messages. Data sets whose columns have one type each keep the tools
/// as JSON within a string.
fn variables(tools: Option<Value>, more: Option<Value>) -> Result<Map<String, Value>, String> {
    let mut out = match more {
        None => Map::new(),
        Some(Value::Object(map)) => map,
        Some(_) => return Err("chat_template_kwargs is no object".into()),
    };
    if let Some(key) = OURS.into_iter().find(|k| out.contains_key(*k)) {
        return Err(format!("chat_template_kwargs sets {key}, which is not for a row to set there"));
    }
    let tools = match tools {
        Some(Value::String(text)) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|e| format!("tools is a string that does not hold JSON: {e}"))?,
        other => other,
    };
    match tools {
        None | Some(Value::Null) => {}
        Some(Value::Array(list)) if list.iter().all(Value::is_object) => {
            out.insert("tools".into(), Value::Array(list));
        }
        Some(_) => return Err("tools is no list of objects".into()),
    }
    Ok(out)
}

/// Roles that chat templates know.
const ROLES: [&str; 6] = ["system", "user", "assistant", "tool", "developer", "function"];

/// The first message whose role is a slip of the keyboard.
fn unknown_role(messages: &[Message]) -> Option<(usize, &str)> {
    let known = |m: &&Message| ROLES.contains(&m.role.as_str());
    let at = messages.iter().position(|m| !known(&m))?;
    Some((at + 1, &messages[at].role))
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

impl<R: BufRead> Iterator for Rows<R> {
    type Item = Result<Row, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            self.buffer.clear();
            self.line += 1;
            match self.reader.read_until(b'\n', &mut self.buffer) {
                Ok(0) => self.done = true,
                Ok(_) => match self.parse() {
                    Ok(None) => {}
                    Ok(Some(row)) => return Some(Ok(row)),
                    Err(reason) => {
                        self.done = true;
                        return Some(Err(DataError::Line {
                            file: self.file.clone(),
                            line: self.line,
                            reason,
                        }));
                    }
                },
                Err(source) => {
                    self.done = true;
                    return Some(Err(DataError::Read { file: self.file.clone(), line: self.line, source }));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read(text: &[u8]) -> Result<Vec<Row>, String> {
        Rows::new(text, "chat.jsonl").collect::<Result<_, _>>().map_err(|e| e.to_string())
    }

    #[test]
    fn both_shapes_are_read_with_their_lines() {
        let text = "\u{feff}{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"id\":3}\r\n\n\
                    {\"prompt\":\"1+1=\",\"completion\":\"2\"}";
        let rows = read(text.as_bytes()).unwrap();
        let row = |line, conversation| Row { line, conversation, variables: Map::new() };
        assert_eq!(rows[0], row(1, Conversation::Messages(vec![Message::new("user", "Hi")])));
        let pair = Conversation::Pair { prompt: "1+1=".into(), completion: "2".into() };
        assert_eq!(rows[1], row(3, pair));
    }

    #[test]
    fn fields_beside_the_content_are_kept() {
        let text = r#"{"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"c"}]},
            {"role":"tool","content":"","tool_call_id":"c"}]}"#;
        let rows = read(text.replace('\n', " ").as_bytes()).unwrap();
        let Conversation::Messages(m) = &rows[0].conversation else { panic!("{rows:?}") };
        assert_eq!((m[0].content.as_deref(), &m[0].extra["tool_calls"][0]["id"]), (None, &"c".into()));
        assert_eq!((m[1].text(), &m[1].extra["tool_call_id"]), ("", &"c".into()));
    }

    #[test]
    fn tools_and_variables_of_the_template_are_kept() {
        let turn = r#""messages":[{"role":"user","content":"a"}]"#;
        let text = format!(
            "{{{turn},\"tools\":[{{\"b\":1,\"a\":2}}],\"chat_template_kwargs\":{{\"enable_thinking\":false}}}}\n\
             {{{turn},\"tools\":\"[{{\\\"b\\\":1,\\\"a\\\":2}}]\"}}\n{{{turn},\"tools\":null,\"id\":1}}"
        );
        let rows = read(text.as_bytes()).unwrap();
        let shown: Vec<String> = rows.iter().map(|r| serde_json::to_string(&r.variables).unwrap()).collect();
        assert_eq!(
            shown,
            [r#"{"enable_thinking":false,"tools":[{"b":1,"a":2}]}"#, r#"{"tools":[{"b":1,"a":2}]}"#, "{}"]
        );
    }

    #[test]
    fn a_broken_line_7_is_named() {
        let good = "{\"prompt\":\"a\",\"completion\":\"b\"}\n".repeat(6);
        let error = read(format!("{good}{{\"prompt\":\"a\",\n{good}").as_bytes()).unwrap_err();
        assert!(error.starts_with("chat.jsonl, line 7: "), "{error}");
        assert!(error.contains("column") && !error.contains("line 1"), "{error}");
    }

    #[test]
    fn reading_ends_after_the_first_error() {
        let mut rows = Rows::new(&b"x\n{\"prompt\":\"a\",\"completion\":\"b\"}\n"[..], "f");
        assert!(rows.next().unwrap().is_err());
        assert!(rows.next().is_none());
    }

    #[test]
    fn each_malformed_row_says_what_is_wrong() {
        let cases: [(&[u8], &str); 22] = [
            (b"{\"messages\":[],\"tools\":{}}", "tools is no list of objects"),
            (b"{\"messages\":[],\"tools\":[1]}", "tools is no list of objects"),
            (b"{\"messages\":[],\"tools\":\"[\"}", "tools is a string that does not hold JSON"),
            (b"{\"messages\":[],\"chat_template_kwargs\":[]}", "chat_template_kwargs is no object"),
            (b"{\"messages\":[],\"chat_template_kwargs\":{\"tools\":[]}}", "kwargs sets tools"),
            (
                b"{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\",\"weight\":0.5}]}",
                "message 1 has a weight that is neither 0",
            ),
            (
                b"{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\",\"weight\":\"1\"}]}",
                "message 1 has a weight that is neither 0",
            ),
            (b"{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"weight\":1}]}", "message 1 has the weight 1"),
            (
                b"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"usr\",\"content\":\"b\"}]}",
                "message 2 has the role \"usr\"",
            ),
            (b"[]", "line 1: "),
            (b"{}", "neither messages nor prompt"),
            (b"{\"messages\":[]}", "list of messages is empty"),
            (b"{\"messages\":[{\"role\":\"user\"}]}", "message 1 has neither content nor tool_calls"),
            (b"{\"messages\":[{\"role\":\"user\",\"content\":null}]}", "message 1 has neither content"),
            (
                b"{\"messages\":[{\"role\":\"a\",\"content\":null,\"tool_calls\":[]}]}",
                "neither content nor tool_calls",
            ),
            (b"{\"messages\":[{\"role\":\"assistant\",\"content\":\"\"}]}", "message 1 has an empty answer"),
            (b"{\"messages\":[{\"role\":\"assistant\",\"content\":\"\",\"name\":\"x\"}]}", "an empty answer"),
            (b"{\"messages\":[{\"role\":\"\",\"content\":\"\"}]}", "message 1 has an empty role"),
            (b"{\"messages\":[],\"prompt\":\"\"}", "both messages and prompt"),
            (b"{\"prompt\":\"a\"}", "a prompt without a completion"),
            (b"{\"prompt\":\"a\",\"completion\":\"\"}", "the completion is empty"),
            (b"{\"prompt\":\"\xff\"}", "not UTF-8 from byte 12"),
        ];
        for (text, want) in cases {
            let error = read(text).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
