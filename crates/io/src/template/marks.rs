//! `{% generation %}`: the parts of a conversation that the assistant writes.

use std::ops::Range;

use minijinja::State;

/// The filter that stands for the tag, and the variables with the characters that it puts around its text.
pub(super) const FILTER: &str = "generation_fence";
pub(super) const OPEN: &str = "generation_fence_open";
pub(super) const CLOSE: &str = "generation_fence_close";

/// Writes the tags as a block filter and tells whether there are any: unlike plain removal, this keeps the line
/// numbers and what the tags do to the white space around them.
pub(super) fn as_filter(source: &str) -> (String, bool) {
    let mut out = String::with_capacity(source.len());
    let (mut rest, mut found) = (source, false);
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let inner = &tag[2..end];
        let name = inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        out.push_str("{%");
        match name {
            "generation" => {
                found = true;
                out.push_str(&inner.replacen(name, &format!("filter {FILTER}"), 1));
            }
            "endgeneration" => out.push_str(&inner.replacen(name, "endfilter", 1)),
            _ => out.push_str(inner),
        }
        out.push_str("%}");
        rest = &tag[end + 2..];
    }
    out.push_str(rest);
    (out, found)
}

/// The filter: the text itself, between the two characters where they are given.
pub(super) fn mark(state: &State<'_, '_>, text: String) -> String {
    match (state.lookup(OPEN), state.lookup(CLOSE)) {
        (Some(open), Some(close)) => format!("{open}{text}{close}"),
        _ => text,
    }
}

/// Two noncharacters that the text does not contain; a rendering shows all that it may hold elsewhere.
pub(super) fn fences(text: &str) -> Option<(char, char)> {
    let mut free = ('\u{fdd0}'..='\u{fdef}').filter(|c| !text.contains(*c));
    Some((free.next()?, free.next()?))
}

/// The marked bytes of `text`, from its rendering with marks.
pub(super) fn spans(
    marked: &str,
    (open, close): (char, char),
    text: &str,
) -> Result<Vec<Range<usize>>, &'static str> {
    let mut out = Vec::new();
    let (mut at, mut start) = (0, None);
    let mut plain = text.chars();
    for c in marked.chars() {
        match (c, start) {
            (c, None) if c == open => start = Some(at),
            (c, Some(from)) if c == close => {
                start = None;
                if at > from {
                    out.push(from..at);
                }
            }
            (c, _) if c == open || c == close => return Err("its generation blocks lie within one another"),
            (c, _) if plain.next() == Some(c) => at += c.len_utf8(),
            _ => return Err("it changes the text of a generation block afterwards"),
        }
    }
    match (start, plain.next()) {
        (None, None) => Ok(out),
        _ => Err("it changes the text of a generation block afterwards"),
    }
}
