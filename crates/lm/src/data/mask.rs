use super::{ChatFormat, Conversation, DataError, Encoder, Example, Message, Row};

/// Turns conversations into tokens and marks those that are trained.
///
/// # Method
/// An assistant turn is what the conversation gains between two renderings: the messages before it with the
/// header of the next assistant turn, and the messages up to and with it. Live are the content, the
/// end-of-turn token and whatever the template prints after it; the header is not. Both renderings must be
/// prefixes of the whole conversation token by token, which is checked, never assumed.
///
/// # Reference
/// The masking rule of Li et al., "Preserving Diversity in Supervised Fine-Tuning of Large Language Models",
/// arXiv 2408.16673.
///
/// # Cost
/// Two renderings and two tokenizations per assistant turn.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// No token of it is live.
    NothingLive,
    /// Every live token lies past the longest length.
    CutAway,
}

/// A row that was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl Tokenizing<'_> {
    /// Tokenizes every row; `file` is its name in messages.
    ///
    /// # Errors
    /// The first bad row; no row at all; no token to train on in any of them.
    pub fn run(
        &self,
        rows: impl Iterator<Item = Result<Row, DataError>>,
        file: &str,
    ) -> Result<Prepared, DataError> {
        let mut out = Prepared::default();
        for row in rows {
            let mut example = self.example(&row?, file)?;
            out.rows += 1;
            let line = example.line;
            if example.targets() == 0 {
                out.dropped.push(Dropped { line, why: Drop::NothingLive });
                continue;
            }
            if example.ids.len() > self.max_len {
                example.ids.truncate(self.max_len);
                example.live.truncate(self.max_len);
                if example.targets() == 0 {
                    out.dropped.push(Dropped { line, why: Drop::CutAway });
                    continue;
                }
                out.truncated.push(line);
            }
            out.examples.push(example);
        }
        match (out.rows, out.examples.len()) {
            (0, _) => Err(DataError::Empty { file: file.into() }),
            (rows, 0) => {
                let cut = out.dropped.iter().filter(|d| d.why == Drop::CutAway).count();
                let hint = match cut {
                    0 => String::new(),
                    n => format!(
                        ": {n} were cut at {} tokens before the first, so allow longer ones",
                        self.max_len
                    ),
                };
                Err(DataError::NothingTrained { file: file.into(), rows, hint })
            }
            _ => Ok(out),
        }
    }

    /// The tokens and the mask of one conversation, neither cut nor dropped.
    ///
    /// # Errors
    /// The template or the tokenizer refuses it, or its turns cannot be told apart.
    pub fn example(&self, row: &Row, file: &str) -> Result<Example, DataError> {
        let at = At { file, line: row.line };
        match (&row.conversation, self.format) {
            (Conversation::Messages(messages), Some(format)) => self.chat(format, messages, at),
            (Conversation::Messages(_), None) => {
                Err(at.line("messages need a chat template, and this model has none".into()))
            }
            (Conversation::Pair { prompt, completion }, Some(format)) => {
                self.chat(format, &[Message::new("user", prompt), Message::new("assistant", completion)], at)
            }
            (Conversation::Pair { prompt, completion }, None) => {
                // Tokenized apart, as in generation, where the prompt is tokenized before any answer exists.
                let mut ids = self.encode(prompt, at)?;
                let prompt = ids.len();
                ids.extend(self.encode(completion, at)?);
                ids.extend(self.eos);
                let live = (0..ids.len()).map(|i| i >= prompt).collect();
                Ok(Example { ids, live, line: row.line })
            }
        }
    }

    fn encode(&self, text: &str, at: At<'_>) -> Result<Vec<u32>, DataError> {
        self.encoder.encode(text).map_err(|reason| DataError::Encode {
            file: at.file.into(),
            line: at.line,
            reason,
        })
    }

    fn chat(&self, format: &dyn ChatFormat, messages: &[Message], at: At<'_>) -> Result<Example, DataError> {
        let tokens = |n: usize, prompt: bool| {
            let text = format.render(&messages[..n], prompt).map_err(|reason| DataError::Template {
                file: at.file.into(),
                line: at.line,
                messages: n,
                reason,
            })?;
            self.encode(&text, at)
        };
        let ids = tokens(messages.len(), false)?;
        let prefix = |part: &[u32], message: usize, place: &'static str| {
            let same = part.iter().zip(&ids).take_while(|(a, b)| a == b).count();
            if same == part.len() {
                Ok(same)
            } else {
                let (file, line) = (at.file.into(), at.line);
                Err(DataError::Prefix { file, line, message: message + 1, place, token: same })
            }
        };
        let mut live = vec![false; ids.len()];
        for (i, _) in messages.iter().enumerate().filter(|(_, m)| m.role == "assistant") {
            if i == 0 {
                return Err(at.line(
                    "the first message is the assistant's: a conversation starts with another role".into(),
                ));
            }
            if messages[i].text().trim().is_empty() {
                check_silent(format, &messages[..=i], at)?;
            }
            let from = prefix(&tokens(i, true)?, i, "before")?;
            let to = if i + 1 == messages.len() {
                ids.len()
            } else {
                prefix(&tokens(i + 1, false)?, i, "up to the end of")?
            };
            live[from..to.max(from)].fill(true);
        }
        Ok(Example { ids, live, line: at.line })
    }
}

/// Refuses a turn without text whose other fields the template leaves out: only its end would be trained.
fn check_silent(format: &dyn ChatFormat, upto: &[Message], at: At<'_>) -> Result<(), DataError> {
    let mut bare = upto.to_vec();
    let Some(last) = bare.last_mut() else { return Ok(()) };
    let extra = std::mem::take(&mut last.extra);
    let text = |m: &[Message]| format.render(m, false);
    if extra.is_empty() || text(upto) != text(&bare) {
        return Ok(());
    }
    let fields: Vec<&str> = extra.keys().map(String::as_str).collect();
    Err(at.line(format!(
        "message {} has no text, and the chat template leaves out its {}: take a model whose template knows it",
        upto.len(),
        fields.join(", ")
    )))
}

#[derive(Clone, Copy)]
struct At<'a> {
    file: &'a str,
    line: usize,
}

impl At<'_> {
    fn line(self, reason: String) -> DataError {
        DataError::Line { file: self.file.into(), line: self.line, reason }
    }
}
