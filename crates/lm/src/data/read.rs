use std::io::BufRead;

use rhumb_io::IoError;
use serde_json::{Map, Value};

use super::format::{Object, conversation};
use super::{DataError, Message, RowFormat};

/// What one row holds.
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
    /// A text, all of it trained.
    Text(String),
}

/// A conversation and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Line or row of the file, counted from one.
    pub line: usize,
    /// Content.
    pub conversation: Conversation,
    /// What the chat template is given beside the messages: the row's `tools` and what its `chat_template_kwargs`
    /// hold.
    pub variables: Map<String, Value>,
}

/// Streams conversations from JSON lines, one line in memory at a time; blank lines and keys that no [`RowFormat`]
/// knows are ignored.
///
/// An error names file and line. Reading goes on behind a line that is no conversation, so that a caller can tell all
/// of them; it ends when the file cannot be read.
#[derive(Debug)]
pub struct Rows<R> {
    reader: R,
    file: String,
    format: Option<RowFormat>,
    line: usize,
    buffer: Vec<u8>,
    done: bool,
}

impl<R: BufRead> Rows<R> {
    /// Rows of `reader`; `file` is its name in messages. The keys of each row tell its format.
    pub fn new(reader: R, file: impl Into<String>) -> Self {
        Rows { reader, file: file.into(), format: None, line: 0, buffer: Vec::new(), done: false }
    }

    /// The same rows, all read in this format, if one is given.
    #[must_use]
    pub fn with_format(mut self, format: Option<RowFormat>) -> Self {
        self.format = format;
        self
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
        let object: Object = serde_json::from_str(text).map_err(|e| {
            // The parser counts lines of its own text, which here is always one.
            let whole = e.to_string();
            let reason = whole.split(" at line ").next().unwrap_or(&whole);
            format!("{reason} (column {})", e.column())
        })?;
        let (conversation, variables) = conversation(object, self.format)?;
        Ok(Some(Row { line: self.line, conversation, variables }))
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

/// Conversations from the rows of a table, which another reader decodes.
#[derive(Debug)]
pub struct Records<I> {
    rows: I,
    file: String,
    format: Option<RowFormat>,
    row: usize,
}

impl<I: Iterator<Item = Result<Object, IoError>>> Records<I> {
    /// Conversations of `rows`; `file` is its name in messages. Without a format the keys of each row tell it.
    pub fn new(rows: I, file: impl Into<String>, format: Option<RowFormat>) -> Self {
        Records { rows, file: file.into(), format, row: 0 }
    }
}

impl<I: Iterator<Item = Result<Object, IoError>>> Iterator for Records<I> {
    type Item = Result<Row, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let object = self.rows.next()?;
        self.row += 1;
        let line = self.row;
        let row = object.map_err(DataError::from).and_then(|object| {
            let (conversation, variables) = conversation(object, self.format)
                .map_err(|reason| DataError::Line { file: self.file.clone(), line, reason })?;
            Ok(Row { line, conversation, variables })
        });
        Some(row)
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
    fn reading_goes_on_behind_a_broken_line() {
        let mut rows = Rows::new(&b"x\n{\"prompt\":\"a\",\"completion\":\"b\"}\n"[..], "f");
        assert!(rows.next().unwrap().is_err());
        assert_eq!(rows.next().unwrap().unwrap().line, 2);
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
            (b"{}", "its keys (none) fit no format"),
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
            (b"{\"messages\":[],\"prompt\":\"\",\"completion\":\"\"}", "messages and prompt-completion: choose"),
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
