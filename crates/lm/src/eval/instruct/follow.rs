//! Prompts with instructions, and how many of them responses follow.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Instruction;
use crate::eval::MeasureError;

/// Kinds of IFEval for which there is no check here.
const UNCHECKED: [&str; 1] = ["language:response_language"];

/// A prompt and what a response to it has to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Name, as in the file: a number or a text; null without one.
    pub key: Value,
    /// What the model is asked.
    pub prompt: String,
    /// Instructions with a check.
    pub instructions: Vec<Instruction>,
    /// Names of instructions without one.
    pub unchecked: Vec<String>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    key: Value,
    prompt: String,
    instruction_id_list: Vec<String>,
    kwargs: Vec<Map<String, Value>>,
}

impl Prompt {
    /// Reads one line of IFEval's file. Fields that are null count as absent, and fields of other kinds are passed
    /// over: some copies of the file give every field to every instruction.
    ///
    /// # Errors
    /// [`MeasureError::Instruction`] for what is no such line, a kind that is not known, or a field that is missing or
    /// an empty text or list.
    pub fn from_json(line: &str) -> Result<Self, MeasureError> {
        let bad = |reason: String| MeasureError::Instruction { reason };
        let line: Line = serde_json::from_str(line).map_err(|e| bad(format!("not a prompt: {e}")))?;
        let (ids, kwargs) = (line.instruction_id_list, line.kwargs);
        if ids.len() != kwargs.len() {
            return Err(bad(format!("{} instructions have {} sets of kwargs", ids.len(), kwargs.len())));
        }
        let mut out =
            Prompt { key: line.key, prompt: line.prompt, instructions: Vec::new(), unchecked: Vec::new() };
        for (id, kwargs) in ids.into_iter().zip(kwargs) {
            if UNCHECKED.contains(&id.as_str()) {
                out.unchecked.push(id);
            } else {
                out.instructions.push(instruction(&id, kwargs)?);
            }
        }
        Ok(out)
    }
}

fn instruction(id: &str, kwargs: Map<String, Value>) -> Result<Instruction, MeasureError> {
    let kwargs: Map<String, Value> =
        kwargs.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, whole(v))).collect();
    let empty = |v: &Value| {
        v.as_str().is_some_and(|s| s.trim().is_empty()) || v.as_array().is_some_and(Vec::is_empty)
    };
    if let Some((field, _)) = kwargs.iter().find(|(_, v)| empty(v)) {
        return Err(MeasureError::Instruction { reason: format!("instruction {id:?}: {field} is empty") });
    }
    serde_json::from_value(serde_json::json!({ "instruction_id": id, "kwargs": kwargs }))
        .map_err(|e| MeasureError::Instruction { reason: format!("instruction {id:?}: {e}") })
}

/// `3.0` as `3`: tables turn a column of numbers with gaps into floats.
fn whole(v: Value) -> Value {
    match v.as_f64() {
        Some(x) if v.is_f64() && x.fract() == 0.0 && (0.0..1e9).contains(&x) => Value::from(x as u64),
        _ => v,
    }
}

/// For each instruction, whether the response follows it as it stands. A blank response follows none.
pub fn strict(prompt: &Prompt, response: &str) -> Vec<bool> {
    prompt.instructions.iter().map(|i| !response.trim().is_empty() && i.check(response)).collect()
}

/// For each instruction, whether one of the [`loose_variants`] of the response follows it.
///
/// An upper bound that forgives an introduction, a closing line and Markdown. It also forgives too much: an answer
/// without its last line is shorter.
pub fn loose(prompt: &Prompt, response: &str) -> Vec<bool> {
    let variants = loose_variants(response);
    prompt.instructions.iter().map(|i| variants.iter().any(|v| i.check(v))).collect()
}

/// The response; without its first line, its last line, both; and each of the four without asterisks. Blank ones are
/// left out.
pub fn loose_variants(response: &str) -> Vec<String> {
    let first = response.find('\n').map_or(response.len(), |i| i + 1);
    let last = response.rfind('\n').unwrap_or(0);
    let cuts = [
        response,
        response[first..].trim(),
        response[..last].trim(),
        response.get(first..last).unwrap_or_default().trim(),
    ];
    let bare = cuts.map(|c| c.replace('*', ""));
    cuts.map(str::to_owned).into_iter().chain(bare).filter(|v| !v.trim().is_empty()).collect()
}

/// Followed ones of a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Followed.
    pub followed: usize,
    /// All.
    pub all: usize,
}

impl Share {
    /// Followed over all; `None` of nothing.
    pub fn rate(self) -> Option<f64> {
        (self.all > 0).then(|| self.followed as f64 / self.all as f64)
    }

    fn add(&mut self, followed: bool) {
        self.followed += usize::from(followed);
        self.all += 1;
    }
}

/// How many instructions were followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accuracy {
    /// Prompts all of whose instructions were followed. Prompts with an unchecked one are left out.
    pub prompts: Share,
    /// Instructions. Those beside an unchecked one count.
    pub instructions: Share,
    /// Instructions by the name of their kind.
    pub kinds: BTreeMap<String, Share>,
    /// Instructions without a check.
    pub unchecked: usize,
}

impl Accuracy {
    /// Adds what [`strict`] or [`loose`] said of a response.
    pub fn add(&mut self, prompt: &Prompt, followed: &[bool]) {
        for (i, f) in prompt.instructions.iter().zip(followed) {
            self.instructions.add(*f);
            self.kinds.entry(i.name()).or_default().add(*f);
        }
        self.unchecked += prompt.unchecked.len();
        if prompt.unchecked.is_empty() {
            self.prompts.add(followed.iter().all(|f| *f));
        }
    }
}

impl Instruction {
    /// The name of the kind, such as `keywords:existence`.
    pub fn name(&self) -> String {
        let value = serde_json::to_value(self).unwrap_or_default();
        value["instruction_id"].as_str().unwrap_or_default().to_owned()
    }
}
