//! Answers as text: sampling until the model, a stop string or a limit ends them.

use rhumb_core::EvalError;
use serde::{Deserialize, Serialize};

use crate::tokenizer::{Stream, Tokenizer};
use rhumb_nn::model::Session;
use rhumb_nn::sample::{SampleError, Sampler};

#[cfg(test)]
mod tests;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// The model ended it.
    Eos,
    /// A stop string was reached; the text ends before it.
    StopString,
    /// As many tokens as were asked for.
    MaxNew,
    /// The context is full.
    Context,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// Its tokens, the one that ended it included.
    pub ids: Vec<u32>,
    /// Its text without special tokens, up to the stop string.
    pub text: String,
    /// Why it ended.
    pub stop: Stop,
}

/// Why no answer could be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CompleteError {
    /// The sampler.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// The model.
    #[error(transparent)]
    Eval(#[from] EvalError),
}

/// When answers end.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'a> {
    /// Tokens at which the model ends an answer.
    pub eos: &'a [u32],
    /// Texts at which an answer ends; empty ones are ignored.
    pub stop: &'a [String],
    /// New tokens at most; at least one is drawn.
    pub max_new: usize,
}

/// The text of an answer while it grows.
struct Writer<'a> {
    stream: Stream<'a>,
    stop: &'a [String],
    text: String,
    /// Bytes of the text that were handed out.
    told: usize,
}

impl<'a> Writer<'a> {
    fn new(tokenizer: &'a Tokenizer, stop: &'a [String]) -> Self {
        Writer { stream: tokenizer.stream(true), stop, text: String::new(), told: 0 }
    }

    /// True when a stop string is complete; the text then ends before it.
    fn push(&mut self, id: u32) -> bool {
        match self.stream.push(id) {
            Some(piece) => self.add(&piece),
            None => false,
        }
    }

    fn add(&mut self, piece: &str) -> bool {
        let longest = self.stop.iter().map(String::len).max().unwrap_or(0);
        let mut from = self.text.len().saturating_sub(longest);
        while !self.text.is_char_boundary(from) {
            from -= 1;
        }
        self.text.push_str(piece);
        let places = self.stop.iter().filter(|s| !s.is_empty());
        match places.filter_map(|s| self.text[from..].find(s.as_str())).min() {
            Some(at) => {
                self.text.truncate(from + at);
                true
            }
            None => false,
        }
    }

    /// What can be shown: all but an end that may become a stop string.
    fn piece(&mut self, done: bool) -> &str {
        let mut end = self.text.len();
        if !done {
            let held = self.stop.iter().filter_map(|s| {
                let longest = s.len().saturating_sub(1).min(self.text.len() - self.told);
                (1..=longest).rev().find(|n| self.text.as_bytes().ends_with(&s.as_bytes()[..*n]))
            });
            end -= held.max().unwrap_or(0);
            while !self.text.is_char_boundary(end) {
                end -= 1;
            }
        }
        let from = std::mem::replace(&mut self.told, end);
        &self.text[from..end]
    }

    /// Takes the characters that were still waiting for bytes.
    fn finish(&mut self) {
        let tokenizer_rest = self.stream.clone().finish();
        if let Some(rest) = tokenizer_rest {
            self.add(&rest);
        }
    }
}

/// One answer after a sequence whose next logits are `first`; `show` gets the text as it becomes certain. The sequence
/// has grown by the answer afterwards: [`Session::truncate`] takes it back.
///
/// # Errors
/// Logits that are not finite, and what `show` says.
pub fn complete<E: From<CompleteError>>(
    tokenizer: &Tokenizer,
    session: &mut Session<'_, f32>,
    first: &[f32],
    sampler: &mut Sampler,
    limits: Limits<'_>,
    show: &mut dyn FnMut(&str) -> Result<(), E>,
) -> Result<Completion, E> {
    let mut writer = Writer::new(tokenizer, limits.stop);
    let mut ids = Vec::new();
    let mut logits = first.to_vec();
    let stop = loop {
        let id = sampler.next(&logits).map_err(CompleteError::from)?;
        ids.push(id);
        if let Some(stop) = ended(&mut writer, &ids, limits, session.len() == session.capacity()) {
            break stop;
        }
        show(writer.piece(false))?;
        logits = session.push(&[id]).map_err(CompleteError::from)?;
    };
    show(writer.piece(true))?;
    Ok(Completion { ids, text: writer.text, stop })
}

/// Why the answer ends with its last token, if it does.
fn ended(writer: &mut Writer<'_>, ids: &[u32], limits: Limits<'_>, full: bool) -> Option<Stop> {
    let id = *ids.last()?;
    let stop = if limits.eos.contains(&id) {
        Stop::Eos
    } else if writer.push(id) {
        return Some(Stop::StopString);
    } else if ids.len() >= limits.max_new {
        Stop::MaxNew
    } else if full {
        Stop::Context
    } else {
        return None;
    };
    writer.finish();
    Some(stop)
}

/// One answer per sampler, all after the same sequence, grown side by side. Each equals the one that [`complete`] gives
/// with its sampler, up to the rounding of the logits. The sequence is left as it was.
///
/// # Errors
/// Logits that are not finite.
///
/// # Cost
/// The model's weights are read once per token of all answers, not once per token of each; the sequence's keys and
/// values are held once.
pub fn complete_all(
    tokenizer: &Tokenizer,
    session: &mut Session<'_, f32>,
    first: &[f32],
    samplers: &mut [Sampler],
    limits: Limits<'_>,
) -> Result<Vec<Completion>, CompleteError> {
    struct Live<'a> {
        place: usize,
        writer: Writer<'a>,
        ids: Vec<u32>,
    }
    let capacity = session.capacity();
    let mut branches = session.branch(samplers.len(), limits.max_new);
    let mut live: Vec<Live<'_>> = (0..samplers.len())
        .map(|place| Live { place, writer: Writer::new(tokenizer, limits.stop), ids: Vec::new() })
        .collect();
    let mut done: Vec<Option<Completion>> = vec![None; samplers.len()];
    let mut logits = first.repeat(samplers.len());
    while !live.is_empty() {
        let full = branches.len() == capacity;
        let vocab = logits.len() / live.len();
        let mut left = Vec::with_capacity(live.len());
        let mut kept = Vec::with_capacity(live.len());
        for (row, mut l) in live.into_iter().enumerate() {
            l.ids.push(samplers[l.place].next(&logits[row * vocab..][..vocab])?);
            match ended(&mut l.writer, &l.ids, limits, full) {
                Some(stop) => done[l.place] = Some(Completion { ids: l.ids, text: l.writer.text, stop }),
                None => {
                    kept.push(row);
                    left.push(l);
                }
            }
        }
        live = left;
        if live.is_empty() {
            break;
        }
        if kept.len() < branches.rows() {
            branches.keep(&kept);
        }
        let next: Vec<u32> = live.iter().filter_map(|l| l.ids.last().copied()).collect();
        logits.clear();
        logits.extend_from_slice(branches.push(&next)?);
    }
    Ok(done.into_iter().flatten().collect())
}
