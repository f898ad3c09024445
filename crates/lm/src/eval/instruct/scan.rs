//! Marks within a response, found from left to right without overlap.

use crate::eval::text::is_word;

/// Whether `word` occurs between borders of words. Both are given in small letters.
pub(super) fn has_word(text: &str, word: &str) -> bool {
    let border = |at: usize| {
        let before = text[..at].chars().next_back().is_some_and(is_word);
        before != text[at..].chars().next().is_some_and(is_word)
    };
    // Occurrences may overlap ("a-a" in "a-a-a"), and the first need not be the one with borders.
    text.char_indices().any(|(i, _)| text[i..].starts_with(word) && border(i) && border(i + word.len()))
}

/// Number of `[..]` within a line.
pub(super) fn brackets(text: &str) -> usize {
    text.split('\n')
        .map(|line| {
            let mut rest = line;
            let mut n = 0;
            while let Some((_, tail)) = rest.split_once('[').and_then(|(_, t)| t.split_once(']')) {
                rest = tail;
                n += 1;
            }
            n
        })
        .sum()
}

/// A mark of a postscript; white space may stand between the letters of the two usual ones.
pub(super) fn postscript(text: &str, mark: &str) -> bool {
    let low = text.to_lowercase();
    match mark.trim() {
        "P.P.S" => spaced(&low, &["p.", "p.", "s"]),
        "P.S." => spaced(&low, &["p.", "s."]),
        other => low.contains(&other.to_lowercase()),
    }
}

/// Whether the parts follow each other, with at most one white space between two.
fn spaced(text: &str, parts: &[&str]) -> bool {
    let at = |from: usize| {
        let mut rest = &text[from..];
        parts.iter().enumerate().all(|(i, part)| {
            let blank = rest.chars().next().filter(|c| i > 0 && c.is_whitespace());
            rest = &rest[blank.map_or(0, char::len_utf8)..];
            rest.strip_prefix(part).map(|r| rest = r).is_some()
        })
    };
    text.match_indices(parts[0]).any(|(i, _)| at(i))
}

/// Lines whose first sign is `-`, or one `*` with something other than `*` behind it.
///
/// A line of a lone `*` counts where another line follows, and takes it along: the published pattern reads the line
/// break as the other sign.
pub(super) fn bullets(text: &str) -> usize {
    let lines: Vec<&str> = text.split('\n').collect();
    let dashes = lines.iter().filter(|l| l.trim_start().starts_with('-')).count();
    let (mut stars, mut i) = (0, 0);
    while i < lines.len() {
        if let Some(rest) = lines[i].trim_start().strip_prefix('*') {
            match rest.chars().next() {
                None if i + 1 < lines.len() => {
                    stars += 1;
                    i += 1;
                }
                Some(c) if c != '*' => stars += 1,
                _ => {}
            }
        }
        i += 1;
    }
    dashes + stars
}

/// Parts of lines between asterisks, and between double ones, that are not blank.
pub(super) fn highlights(text: &str) -> usize {
    text.split('\n').map(|line| between(line, "*") + between(line, "**")).sum()
}

fn between(line: &str, mark: &str) -> usize {
    let (mut n, mut at) = (0, 0);
    while let Some(found) = line[at..].find(mark) {
        let start = at + found + mark.len();
        let end = start + line[start..].find('*').unwrap_or(line.len() - start);
        if line[end..].starts_with(mark) {
            n += usize::from(!line[start..end].trim().is_empty());
            at = end + mark.len();
        } else {
            at = start + 1 - mark.len();
        }
    }
    n
}

/// Number of times that `name` and a number follow each other, with at most one white space between.
pub(super) fn sections(text: &str, name: &str) -> usize {
    let (mut n, mut at) = (0, 0);
    if name.is_empty() {
        return 0;
    }
    while let Some(found) = text[at..].find(name) {
        let end = at + found + name.len();
        let rest = &text[end..];
        let blank = rest.chars().next().filter(|c| c.is_whitespace()).map_or(0, char::len_utf8);
        let number = rest[blank..].starts_with(|c: char| c.is_ascii_digit());
        n += usize::from(number);
        // A name that is not followed by a number may overlap with one that is.
        at = if number { end } else { at + found + name.chars().next().map_or(1, char::len_utf8) };
    }
    n
}

/// Whether a line has something between `<<` and `>>`.
pub(super) fn title(line: &str) -> bool {
    let (Some(from), Some(to)) = (line.find("<<"), line.rfind(">>")) else { return false };
    to > from + 2 && !line[from..to + 2].trim_start_matches('<').trim_end_matches('>').trim().is_empty()
}
