mod chat;
mod difference;

use chat::Chat;

use super::{ChatFormat, Conversation, DataError, Encoder, Example, Message, Row};

/// Turns conversations into tokens and marks those that are trained.
///
/// # Method
/// Where the template marks what the assistant writes (`{% generation %}`), every token with a part of a marked
/// text is live.
///
/// Without marks, an assistant turn is what the conversation gains between two renderings: the messages before it
/// with the header of the next assistant turn, and the messages up to and with it. Live are the content, the
/// end-of-turn token and whatever the template prints after it; the header is not. Both renderings must be
/// prefixes of the whole conversation token by token, which is checked, never assumed.
///
/// Templates that rewrite earlier turns (dropping their reasoning, say) have no such prefixes. There the turn is what
/// changes in the whole conversation when its text is replaced by a character that occurs nowhere else, with the
/// end that the conversation cut behind the turn has too. A turn that the template leaves out, prints twice or
/// changes beyond recognition makes the row unusable.
///
/// An assistant message with `"weight": 0` is not live. Without a chat template, prompt and completion are
/// tokenized apart, the tokenizer's begin-of-text token first and the end-of-text token last, each once. A plain text
/// has the same ends and is live as a whole, with a chat template or without one.
///
/// # Reference
/// The masking rule of Li et al., "Preserving Diversity in Supervised Fine-Tuning of Large Language Models",
/// arXiv 2408.16673.
///
/// # Cost
/// With marks two renderings and one tokenization, else two of each per assistant turn, and up to five per turn that
/// is no prefix.
#[derive(Clone, Copy)]
pub struct Tokenizing<'a> {
    /// The tokenizer.
    pub encoder: &'a dyn Encoder,
    /// The chat template. Without one, conversations are refused and a prompt with its completion is plain
    /// text; with one, they are a user turn and an assistant turn.
    pub format: Option<&'a dyn ChatFormat>,
    /// Ends a completion in plain text, and is trained; templates print their own.
    pub eos: Option<u32>,
    /// Longest document in tokens; the rest is cut on the right.
    pub max_len: usize,
}

/// Why a row is not trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drop {
    /// No token of it is live.
    NothingLive,
    /// Every live token lies past the longest length.
    CutAway,
    /// The template or the tokenizer refuses it, or which tokens are the assistant's cannot be told: the message.
    Unusable(String),
}

/// A row that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Line of the file, counted from one.
    pub line: usize,
    /// Reason.
    pub why: Drop,
}

/// Tokenized conversations, and what happened to the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Documents with at least one token to train on, in the order of the file.
    pub examples: Vec<Example>,
    /// Rows read.
    pub rows: usize,
    /// Lines of documents that were cut and kept.
    pub truncated: Vec<usize>,
    /// Rows left out.
    pub dropped: Vec<Dropped>,
}

/// What happened to the rows of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intake {
    /// Rows read.
    pub rows: usize,
    /// Documents with at least one token to train on.
    pub kept: usize,
    /// Lines of documents that were cut and kept.
    pub truncated: Vec<usize>,
    /// Rows left out.
    pub dropped: Vec<Dropped>,
}

impl Intake {
    /// Refuses a file that is no training data for the model; `file` is its name in messages, `max_len` where documents
    /// were cut.
    ///
    /// # Errors
    /// No row at all; more than half of them unusable; no token to train on in any of them.
    pub fn judge(&self, file: &str, max_len: usize) -> Result<(), DataError> {
        let reasons = self.dropped.iter().filter_map(|d| match &d.why {
            Drop::Unusable(reason) => Some(reason),
            Drop::NothingLive | Drop::CutAway => None,
        });
        let unusable = reasons.clone().count();
        if let Some(first) = reasons.clone().next().filter(|_| 2 * unusable > self.rows) {
            let (file, rows, first) = (file.into(), self.rows, first.clone());
            return Err(DataError::Unusable { file, rows, unusable, first });
        }
        match (self.rows, self.kept) {
            (0, _) => Err(DataError::Empty { file: file.into() }),
            (rows, 0) => {
                let cut = self.dropped.iter().filter(|d| d.why == Drop::CutAway).count();
                let hint = match cut {
                    0 => String::new(),
                    n => format!(": {n} were cut at {max_len} tokens before the first, so allow longer ones"),
                };
                Err(DataError::NothingTrained { file: file.into(), rows, hint })
            }
            _ => Ok(()),
        }
    }
}

impl Tokenizing<'_> {
    /// Tokenizes every row; `file` is its name in messages. Rows that cannot be used are left out and told in
    /// [`Prepared::dropped`].
    ///
    /// # Errors
    /// The first row that `rows` refuses; what [`Intake::judge`] refuses.
    pub fn run(
        &self,
        rows: impl Iterator<Item = Result<Row, DataError>>,
        file: &str,
    ) -> Result<Prepared, DataError> {
        let mut examples = Vec::new();
        let intake = self.each(rows, file, |example| {
            examples.push(example);
            Ok(())
        })?;
        intake.judge(file, self.max_len)?;
        let Intake { rows, truncated, dropped, .. } = intake;
        Ok(Prepared { examples, rows, truncated, dropped })
    }

    /// Tokenizes row by row and hands each document to `take`; nothing but the counts and the lines of the rows that
    /// were cut or left out is kept.
    ///
    /// # Errors
    /// The first row that `rows` refuses; what `take` says.
    pub fn each(
        &self,
        rows: impl Iterator<Item = Result<Row, DataError>>,
        file: &str,
        mut take: impl FnMut(Example) -> Result<(), DataError>,
    ) -> Result<Intake, DataError> {
        let mut out = Intake::default();
        for row in rows {
            let row = row?;
            out.rows += 1;
            match self.kept(&row, file) {
                Ok((example, cut)) => {
                    out.kept += 1;
                    if cut {
                        out.truncated.push(row.line);
                    }
                    take(example)?;
                }
                Err(why) => out.dropped.push(Dropped { line: row.line, why }),
            }
        }
        Ok(out)
    }

    /// A document with something to train on and whether it was cut, or why there is none.
    fn kept(&self, row: &Row, file: &str) -> Result<(Example, bool), Drop> {
        let mut example = self.example(row, file).map_err(|e| Drop::Unusable(e.to_string()))?;
        if example.targets() == 0 {
            return Err(Drop::NothingLive);
        }
        if example.ids.len() <= self.max_len {
            return Ok((example, false));
        }
        example.ids.truncate(self.max_len);
        example.live.truncate(self.max_len);
        if example.targets() == 0 { Err(Drop::CutAway) } else { Ok((example, true)) }
    }

    /// The tokens and the mask of one conversation, neither cut nor dropped.
    ///
    /// # Errors
    /// The template or the tokenizer refuses it, or its turns cannot be told apart.
    pub fn example(&self, row: &Row, file: &str) -> Result<Example, DataError> {
        let line = row.line;
        let chat = |format, messages| {
            Chat { encoder: self.encoder, format, messages, variables: &row.variables, file, line }.example()
        };
        let bad = |reason: &str| DataError::Text { file: file.into(), line, reason: reason.into() };
        match (&row.conversation, self.format) {
            (Conversation::Messages(messages), Some(format)) => chat(format, messages),
            (Conversation::Messages(_), None) => Err(bad(
                "a conversation needs a chat template, and this model has none: give one with --template",
            )),
            (Conversation::Pair { prompt, completion }, Some(format)) => {
                chat(format, &[Message::new("user", prompt), Message::new("assistant", completion)])
            }
            (Conversation::Pair { .. }, None) if !row.variables.is_empty() => Err(bad(
                "tools and chat_template_kwargs need a chat template, and this model has none: give one with --template",
            )),
            (Conversation::Pair { prompt, completion }, None) => {
                let (ids, live) = self.plain(prompt, completion).map_err(|reason| DataError::Encode {
                    file: file.into(),
                    line,
                    reason,
                })?;
                Ok(Example { ids, live, line })
            }
            (Conversation::Text(_), _) if !row.variables.is_empty() => {
                Err(bad("tools and chat_template_kwargs say nothing about a plain text"))
            }
            (Conversation::Text(text), _) => {
                // An empty prompt: the begin-of-text token at most, so that all of the text follows something.
                let (ids, _) = self.plain("", text).map_err(|reason| DataError::Encode {
                    file: file.into(),
                    line,
                    reason,
                })?;
                Ok(Example { live: vec![true; ids.len()], ids, line })
            }
        }
    }

    /// Prompt and completion tokenized apart, as in generation, where the prompt is tokenized before any answer
    /// exists, and begins as it begins there.
    fn plain(&self, prompt: &str, completion: &str) -> Result<(Vec<u32>, Vec<bool>), String> {
        let mut ids = self.encoder.encode(prompt)?;
        let begin = self.encoder.prefix()?;
        if !ids.starts_with(&begin) {
            ids.splice(0..0, begin);
        }
        let prompt = ids.len();
        ids.extend(self.encoder.encode(completion)?);
        ids.extend(self.eos.filter(|eos| ids.last() != Some(eos)));
        let live = (0..ids.len()).map(|i| i >= prompt).collect();
        Ok((ids, live))
    }
}
