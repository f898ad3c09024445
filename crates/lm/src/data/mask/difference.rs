use std::ops::Range;

use serde_json::Value;

use crate::data::{Encoder, Message};

/// A conversation as text and as tokens.
pub(super) struct Rendered {
    pub(super) text: String,
    pub(super) ids: Vec<u32>,
    offsets: Vec<Range<usize>>,
}

impl Rendered {
    pub(super) fn new(text: String, encoder: &dyn Encoder) -> Result<Self, String> {
        let (ids, offsets) = encoder.encode_with_offsets(&text)?;
        Ok(Rendered { text, ids, offsets })
    }

    /// The first token that begins at or behind a byte.
    fn token_at(&self, byte: usize) -> usize {
        self.offsets.partition_point(|o| o.start < byte)
    }
}

/// Finds a turn in a conversation whose template rewrites earlier turns.
///
/// # Method
/// The conversation is rendered once more with a character in place of the turn's text that occurs nowhere in it.
/// What the two renderings share before and behind that character is not the turn's; between them stands its text,
/// with what the template makes of it. The end of the turn is what follows the text both in the whole conversation
/// and in the one that ends with the turn.
pub(super) struct Difference<'a> {
    pub(super) encoder: &'a dyn Encoder,
    pub(super) messages: &'a [Message],
    pub(super) turn: usize,
    pub(super) whole: &'a Rendered,
}

/// What the probe replaces.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The text.
    Text,
    /// The name of the first function called, in a turn without text.
    Call,
}

impl Difference<'_> {
    /// The tokens of the turn; `from` is its first one where that is known.
    ///
    /// # Errors
    /// Why they cannot be told.
    pub(super) fn find(
        &self,
        from: Option<usize>,
        render: impl Fn(&[Message]) -> Result<String, String>,
    ) -> Result<Range<usize>, String> {
        let whole = self.whole;
        let probe = ('\u{fdd0}'..='\u{fdef}')
            .find(|c| !whole.text.contains(*c))
            .ok_or("the conversation contains every noncharacter that could stand for the text")?;
        let (probed, part, was) = self.probed(probe)?;
        let text = locate(&whole.text, &render(&probed)?, probe)?;
        let fields = self.messages[self.turn].extra.values().filter_map(Value::as_str).map(str::len).sum();
        verify(&whole.text[text.clone()], &was, part, fields)?;
        let from = match (from, part) {
            (Some(from), _) => from,
            (None, Part::Call) => return Err("where a turn without text begins cannot be told".into()),
            (None, Part::Text) => self.first_token(text.start)?,
        };
        let tail = whole.token_at(text.end);
        if from > tail {
            return Err("its text stands before its beginning".into());
        }
        if self.turn + 1 == self.messages.len() {
            return Ok(from..whole.ids.len());
        }
        let upto = render(&self.messages[..=self.turn])?;
        let end = locate(&upto, &render(&probed[..=self.turn])?, probe)?.end;
        let short = Rendered::new(upto, self.encoder)?;
        let ends = short.ids[short.token_at(end)..].iter().zip(&whole.ids[tail..]);
        Ok(from..tail + ends.take_while(|(a, b)| a == b).count())
    }

    /// The conversation with the probe in it, and what it replaced.
    fn probed(&self, probe: char) -> Result<(Vec<Message>, Part, String), String> {
        let mut probed = self.messages.to_vec();
        let turn = &mut probed[self.turn];
        if !turn.text().trim().is_empty() {
            let was = turn.content.replace(probe.to_string()).unwrap_or_default();
            return Ok((probed, Part::Text, was));
        }
        let call = turn.extra.get_mut("tool_calls").and_then(|c| c.get_mut(0));
        let name = call.and_then(|call| match call.get("function") {
            Some(_) => call.get_mut("function")?.get_mut("name"),
            None => call.get_mut("name"),
        });
        match name {
            Some(Value::String(name)) => {
                let was = std::mem::replace(name, probe.to_string());
                Ok((probed, Part::Call, was))
            }
            _ => Err("it has no text and calls no function by name".into()),
        }
    }

    /// The token that begins at this byte; none may lie across it.
    fn first_token(&self, byte: usize) -> Result<usize, String> {
        let at = self.whole.token_at(byte);
        let whole = at == 0 || self.whole.offsets[at - 1].end <= byte;
        let begins = self.whole.offsets.get(at).is_some_and(|o| o.start == byte);
        if whole && begins { Ok(at) } else { Err("a token spans the beginning of its text".into()) }
    }
}

/// The bytes of `text` that stand where `probed` has the probe, and all that changes with it before.
fn locate(text: &str, probed: &str, probe: char) -> Result<Range<usize>, String> {
    let (before, after) =
        probed.split_once(probe).ok_or("the template leaves its text out, or puts another in its place")?;
    if after.contains(probe) {
        return Err("the template prints its text more than once".into());
    }
    let same = text.char_indices().zip(before.chars()).find(|((_, a), b)| a != b);
    let start = same.map_or(before.len().min(text.len()), |((at, _), _)| at);
    let end = text
        .strip_suffix(after)
        .map(str::len)
        .filter(|end| *end >= start)
        .ok_or("what follows its text changes with it")?;
    Ok(start..end)
}

/// Room for tags around the reasoning, in bytes: less than the header of any other turn.
const TAGS: usize = 24;

/// Checks that what was found is the text that was looked for, up to white space, parts that the template drops, and
/// other fields of the message, of `fields` bytes in all, that it prints before the text.
fn verify(found: &str, was: &str, part: Part, fields: usize) -> Result<(), String> {
    let bare = |s: &str| s.split_whitespace().collect::<String>();
    let (found, was) = (bare(found), bare(was));
    let more = || found.contains(&was) && found.len() - was.len() <= fields + TAGS;
    let same = match part {
        Part::Text => !found.is_empty() && (was.contains(&found) || more()),
        Part::Call => found == was,
    };
    if same { Ok(()) } else { Err("what the template prints in its place is not its text".into()) }
}
