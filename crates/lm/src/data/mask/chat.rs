use std::ops::Range;

use rhumb_io::template::Marked;
use serde_json::{Map, Value};

use super::difference::{Difference, Rendered};
use crate::data::{ChatFormat, DataError, Encoder, Example, Message};

/// One conversation on its way to tokens.
pub(super) struct Chat<'a> {
    pub(super) encoder: &'a dyn Encoder,
    pub(super) format: &'a dyn ChatFormat,
    pub(super) messages: &'a [Message],
    pub(super) variables: &'a Map<String, Value>,
    pub(super) file: &'a str,
    pub(super) line: usize,
}

/// True for what the assistant says, unless the row gives it the weight 0.
fn is_trained(m: &Message) -> bool {
    m.role == "assistant" && !is_spared(m)
}

fn is_spared(m: &Message) -> bool {
    m.role == "assistant" && m.extra.get("weight").and_then(Value::as_f64) == Some(0.0)
}

impl Chat<'_> {
    /// The tokens and the mask.
    pub(super) fn example(&self) -> Result<Example, DataError> {
        self.check_tools()?;
        let trained = || (0..self.messages.len()).filter(|&i| is_trained(&self.messages[i]));
        if let Some(marked) = self.marked(self.messages)? {
            trained().try_for_each(|i| self.check_silent(i))?;
            return self.by_marks(&marked);
        }
        let ids = self.tokens(self.messages, false)?;
        let mut live = vec![false; ids.len()];
        let mut whole = None;
        for i in trained() {
            if i == 0 {
                return Err(self.bad(
                    "the first message is the assistant's: a conversation starts with another role".into(),
                ));
            }
            self.check_silent(i)?;
            let turn = self.turn(i, &ids, &mut whole)?;
            live[turn].fill(true);
        }
        Ok(Example { ids, live, line: self.line })
    }

    /// The tokens of an assistant turn: between two renderings that are prefixes of the conversation, and where one
    /// of them is none, by what changes with the turn's text.
    fn turn(&self, i: usize, ids: &[u32], whole: &mut Option<Rendered>) -> Result<Range<usize>, DataError> {
        let before = self.tokens(&self.messages[..i], true).and_then(|p| self.prefix(&p, ids, i, "before"));
        let upto = if i + 1 == self.messages.len() {
            Ok(ids.len())
        } else {
            self.tokens(&self.messages[..=i], false).and_then(|p| self.prefix(&p, ids, i, "up to the end of"))
        };
        let (from, first) = match (before, upto) {
            (Ok(from), Ok(to)) => return Ok(from..to.max(from)),
            (Ok(from), Err(e)) => (Some(from), e),
            (Err(e), _) => (None, e),
        };
        let found = self.whole(whole).and_then(|whole| {
            if whole.ids != ids {
                return Err("the tokenizer gives other tokens with offsets than without".into());
            }
            Difference { encoder: self.encoder, messages: self.messages, turn: i, whole }
                .find(from, |messages| self.format.render(messages, false, self.variables))
        });
        found.map_err(|reason| match first {
            DataError::Prefix { file, line, message, place, token, .. } => {
                DataError::Prefix { file, line, message, place, token, why: reason }
            }
            other => other,
        })
    }

    fn whole<'w>(&self, whole: &'w mut Option<Rendered>) -> Result<&'w Rendered, String> {
        match whole {
            Some(w) => Ok(w),
            None => {
                let text = self.format.render(self.messages, false, self.variables)?;
                Ok(whole.insert(Rendered::new(text, self.encoder)?))
            }
        }
    }

    /// The mask that the template's own marks give: every token that has a part of a marked text.
    fn by_marks(&self, marked: &Marked) -> Result<Example, DataError> {
        let (ids, offsets) =
            self.encoder.encode_with_offsets(&marked.text).map_err(|reason| self.refused(reason))?;
        let spared = self.spared_spans(marked.spans.len())?;
        let mut live = vec![false; ids.len()];
        for span in marked.spans.iter().enumerate().filter(|(i, _)| !spared.contains(i)).map(|(_, s)| s) {
            let from = offsets.partition_point(|o| o.end <= span.start && o.start < span.start);
            let to = offsets.partition_point(|o| o.start < span.end);
            live[from..to.max(from)].fill(true);
        }
        Ok(Example { ids, live, line: self.line })
    }

    /// Which marked parts belong to turns of weight 0: those by which the marks of the conversation up to the turn
    /// outnumber those before it.
    fn spared_spans(&self, all: usize) -> Result<Vec<usize>, DataError> {
        let count = |n: usize| match n {
            0 => Ok(0),
            n => self.marked(&self.messages[..n]).map(|m| m.map_or(0, |m| m.spans.len())),
        };
        let mut out = Vec::new();
        for i in (0..self.messages.len()).filter(|&i| is_spared(&self.messages[i])) {
            let (from, to) = (count(i)?, count(i + 1)?);
            if from > to || to > all {
                return Err(self.bad(format!(
                    "message {} has the weight 0, and which of the template's generation blocks is its own cannot \
                     be told",
                    i + 1
                )));
            }
            out.extend(from..to);
        }
        Ok(out)
    }

    fn marked(&self, messages: &[Message]) -> Result<Option<Marked>, DataError> {
        let refused = |reason| self.template(messages.len(), reason);
        self.format.render_marked(messages, self.variables).map_err(refused)
    }

    fn tokens(&self, messages: &[Message], prompt: bool) -> Result<Vec<u32>, DataError> {
        let text = self
            .format
            .render(messages, prompt, self.variables)
            .map_err(|reason| self.template(messages.len(), reason))?;
        self.encoder.encode(&text).map_err(|reason| self.refused(reason))
    }

    fn prefix(
        &self,
        part: &[u32],
        ids: &[u32],
        message: usize,
        place: &'static str,
    ) -> Result<usize, DataError> {
        let same = part.iter().zip(ids).take_while(|(a, b)| a == b).count();
        if same == part.len() {
            return Ok(same);
        }
        let (file, line) = (self.file.into(), self.line);
        Err(DataError::Prefix { file, line, message: message + 1, place, token: same, why: String::new() })
    }

    /// Refuses a turn without text whose other fields the template leaves out: only its end would be trained.
    fn check_silent(&self, i: usize) -> Result<(), DataError> {
        if !self.messages[i].text().trim().is_empty() {
            return Ok(());
        }
        let upto = &self.messages[..=i];
        let mut bare = upto.to_vec();
        let Some(last) = bare.last_mut() else { return Ok(()) };
        let extra = std::mem::take(&mut last.extra);
        let text = |m: &[Message]| self.format.render(m, false, self.variables);
        if extra.is_empty() || text(upto) != text(&bare) {
            return Ok(());
        }
        let fields: Vec<&str> = extra.keys().map(String::as_str).collect();
        Err(self.bad(format!(
            "message {} has no text, and the chat template leaves out its {}: take a model whose template knows it",
            upto.len(),
            fields.join(", ")
        )))
    }

    /// Refuses tools that the template leaves out: the model would learn to call what it was never told of.
    fn check_tools(&self) -> Result<(), DataError> {
        if self.variables.get("tools").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            return Ok(());
        }
        let mut bare = self.variables.clone();
        bare.remove("tools");
        let text = |v| self.format.render(self.messages, false, v);
        if text(self.variables) != text(&bare) {
            return Ok(());
        }
        Err(self.bad(
            "the chat template leaves out the row's tools: take a model whose template knows them, or remove the key"
                .into(),
        ))
    }

    fn bad(&self, reason: String) -> DataError {
        DataError::Text { file: self.file.into(), line: self.line, reason }
    }

    fn refused(&self, reason: String) -> DataError {
        DataError::Encode { file: self.file.into(), line: self.line, reason }
    }

    fn template(&self, messages: usize, reason: String) -> DataError {
        DataError::Template { file: self.file.into(), line: self.line, messages, reason }
    }
}
