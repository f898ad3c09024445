use serde_json::{Map, Value};

use super::Conversation;
use super::shape::{alpaca, messages, pair, share_gpt};

/// The shapes of a row, by the names under which other trainers know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowFormat {
    /// `messages`: turns with `role` and `content`, as the APIs of language models take them.
    Messages,
    /// `conversations`: turns with `from` and `value`; optional `system`.
    ShareGpt,
    /// `instruction`, `output`; optional `input`, `system` and `history`, a list of earlier questions and answers.
    Alpaca,
    /// `prompt` and `completion`, two texts or two lists of messages.
    PromptCompletion,
    /// `text`, every token of which is trained.
    Text,
}

/// Keys that some format reads; the rest of a row is ignored.
pub const KEYS: [&str; 12] = [
    "messages",
    "conversations",
    "instruction",
    "input",
    "output",
    "history",
    "prompt",
    "completion",
    "text",
    "system",
    "tools",
    "chat_template_kwargs",
];

/// A row as JSON has it.
pub(super) type Object = Map<String, Value>;

impl RowFormat {
    /// All of them, in the order in which a row is tried.
    pub const ALL: [RowFormat; 5] = [
        RowFormat::Messages,
        RowFormat::ShareGpt,
        RowFormat::Alpaca,
        RowFormat::PromptCompletion,
        RowFormat::Text,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            RowFormat::Messages => "messages",
            RowFormat::ShareGpt => "sharegpt",
            RowFormat::Alpaca => "alpaca",
            RowFormat::PromptCompletion => "prompt-completion",
            RowFormat::Text => "text",
        }
    }

    /// The keys that a row of this format must have.
    pub fn needs(self) -> &'static [&'static str] {
        match self {
            RowFormat::Messages => &["messages"],
            RowFormat::ShareGpt => &["conversations"],
            RowFormat::Alpaca => &["instruction", "output"],
            RowFormat::PromptCompletion => &["prompt", "completion"],
            RowFormat::Text => &["text"],
        }
    }

    /// The format of a row with these keys. `text` beside another format is that format's text once more, and yields.
    ///
    /// # Errors
    /// The keys fit no format, or more than one.
    pub fn of_keys(keys: &[&str]) -> Result<Self, String> {
        let fits = |f: &RowFormat| f.needs().iter().all(|k| keys.contains(k));
        let found: Vec<RowFormat> = RowFormat::ALL.into_iter().filter(fits).collect();
        match found[..] {
            [one] | [one, RowFormat::Text] => Ok(one),
            [] => Err(format!("{} fit no format{}", listed(keys), almost(keys))),
            [a, b, ..] => Err(format!(
                "{} fit the formats {} and {}: choose one with --format",
                listed(keys),
                a.name(),
                b.name()
            )),
        }
    }
}

/// What one row says; `forced` overrules its keys. Keys whose value is null count as absent, since columns have a
/// value in every row.
pub(super) fn conversation(
    mut row: Object,
    forced: Option<RowFormat>,
) -> Result<(Conversation, Object), String> {
    row.retain(|_, v| !v.is_null());
    let variables = variables(row.remove("tools"), row.remove("chat_template_kwargs"))?;
    let keys: Vec<&str> = row.keys().map(String::as_str).collect();
    let format = match forced {
        None => RowFormat::of_keys(&keys)?,
        Some(f) => match f.needs().iter().find(|k| !keys.contains(k)) {
            None => f,
            Some(_) => {
                let (name, needs) = (f.name(), f.needs().join(" and "));
                return Err(format!("the format {name} needs {needs}; {}", listed(&keys)));
            }
        },
    };
    let conversation = match format {
        RowFormat::Messages => messages(&mut row)?,
        RowFormat::ShareGpt => share_gpt(&mut row)?,
        RowFormat::Alpaca => alpaca(&mut row)?,
        RowFormat::PromptCompletion => pair(&mut row)?,
        RowFormat::Text => match row.remove("text") {
            Some(Value::String(text)) if text.is_empty() => return Err("the text is empty".into()),
            Some(Value::String(text)) => Conversation::Text(text),
            _ => return Err("text is no string".into()),
        },
    };
    Ok((conversation, variables))
}

fn listed(keys: &[&str]) -> String {
    match keys {
        [] => "its keys (none)".into(),
        keys => format!("its keys ({})", keys.join(", ")),
    }
}

/// What a row lacks that has one key of a pair, or is data of another kind of training.
fn almost(keys: &[&str]) -> &'static str {
    let has = |k| keys.contains(&k);
    match () {
        () if has("prompt") => ": a prompt without a completion",
        () if has("completion") => ": a completion without a prompt",
        () if has("instruction") => ": an instruction without an output",
        () if has("chosen") || has("rejected") => {
            ": chosen and rejected are preferences, and only one answer can be trained here: rename it"
        }
        () => "",
    }
}

/// Variables that a row cannot set, since the trainer does.
const OURS: [&str; 3] = ["messages", "add_generation_prompt", "tools"];

/// What the chat template is given beside the messages. Data sets whose columns have one type each keep the tools
/// as JSON within a string.
fn variables(tools: Option<Value>, more: Option<Value>) -> Result<Object, String> {
    let mut out = match more {
        None => Map::new(),
        Some(Value::Object(map)) => map,
        Some(_) => return Err("chat_template_kwargs is no object".into()),
    };
    if let Some(key) = OURS.into_iter().find(|k| out.contains_key(*k)) {
        return Err(format!("chat_template_kwargs sets {key}, which is not for a row to set there"));
    }
    let tools = match tools {
        Some(Value::String(text)) if text.trim().is_empty() => None,
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

#[cfg(test)]
mod tests;
