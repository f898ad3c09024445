//! The check of each instruction.

use super::{Instruction, scan};
use crate::eval::text::{sentences, word_runs, words};

const CONSTRAINED: [&str; 3] = ["My answer is yes.", "My answer is no.", "My answer is maybe."];

impl Instruction {
    /// Whether `response` follows the instruction.
    ///
    /// The text is judged as it stands; see [`strict`](super::strict) and [`loose`](super::loose) for the two
    /// published ways to score a response.
    pub fn check(&self, response: &str) -> bool {
        match self {
            Instruction::Keywords { keywords } => {
                let low = response.to_lowercase();
                keywords.iter().all(|k| low.contains(&k.to_lowercase()))
            }
            Instruction::Frequency { keyword, frequency, relation } => {
                let n = response.to_lowercase().matches(&keyword.trim().to_lowercase()).count();
                relation.holds(n, *frequency)
            }
            Instruction::Forbidden { forbidden_words } => {
                let low = response.to_lowercase();
                !forbidden_words.iter().any(|w| scan::has_word(&low, &w.to_lowercase()))
            }
            Instruction::Letter { letter, let_frequency, let_relation } => {
                let letter: String = letter.to_lowercase().collect();
                let_relation.holds(response.to_lowercase().matches(&letter).count(), *let_frequency)
            }
            Instruction::Sentences { num_sentences, relation } => {
                relation.holds(sentences(response).len(), *num_sentences)
            }
            Instruction::Paragraphs { num_paragraphs } => divided(response, "***") == Some(*num_paragraphs),
            Instruction::Words { num_words, relation } => relation.holds(word_runs(response), *num_words),
            Instruction::FirstWord { num_paragraphs, nth_paragraph, first_word: word } => {
                first_word(response, *num_paragraphs, *nth_paragraph)
                    .is_some_and(|w| w == word.to_lowercase())
            }
            Instruction::Placeholders { num_placeholders } => scan::brackets(response) >= *num_placeholders,
            Instruction::Postscript { postscript_marker } => scan::postscript(response, postscript_marker),
            Instruction::Bullets { num_bullets } => scan::bullets(response) == *num_bullets,
            Instruction::Constrained {} => CONSTRAINED.iter().any(|c| response.contains(c)),
            Instruction::Highlights { num_highlights } => scan::highlights(response) >= *num_highlights,
            Instruction::Sections { section_spliter, num_sections } => {
                scan::sections(response, section_spliter.trim()) >= *num_sections
            }
            Instruction::Json {} => json(response),
            Instruction::Title {} => response.split('\n').any(scan::title),
            Instruction::TwoResponses {} => two_responses(response),
            Instruction::RepeatPrompt { prompt_to_repeat } => {
                response.trim().to_lowercase().starts_with(&prompt_to_repeat.trim().to_lowercase())
            }
            Instruction::End { end_phrase } => {
                response.trim().trim_matches('"').to_lowercase().ends_with(&end_phrase.trim().to_lowercase())
            }
            Instruction::Quotation {} => {
                let r = response.trim();
                r.len() > 1 && r.starts_with('"') && r.ends_with('"')
            }
            Instruction::CapitalWords { capital_frequency, capital_relation } => {
                let n = words(response).iter().filter(|w| is_upper(w)).count();
                capital_relation.holds(n, *capital_frequency)
            }
            Instruction::Uppercase {} => is_upper(response),
            Instruction::Lowercase {} => {
                response.chars().any(char::is_lowercase) && !response.chars().any(is_capital)
            }
            Instruction::NoComma {} => !response.contains(','),
        }
    }
}

fn is_upper(text: &str) -> bool {
    text.chars().any(char::is_uppercase) && !text.chars().any(|c| c.is_lowercase() || is_title(c))
}

fn is_capital(c: char) -> bool {
    c.is_uppercase() || is_title(c)
}

/// A digraph with a capital first part, which is neither upper nor lower case.
fn is_title(c: char) -> bool {
    matches!(c, '\u{1c5}' | '\u{1c8}' | '\u{1cb}' | '\u{1f2}')
}

/// Number of parts that a divider leaves, blank ones at the ends left out; `None` with a blank one between.
fn divided(text: &str, divider: &str) -> Option<usize> {
    let parts: Vec<&str> = text.split(divider).collect();
    let blank = |p: &&str| p.trim().is_empty();
    let inner = parts.len().checked_sub(1).and_then(|n| parts.get(1..n)).unwrap_or_default();
    if inner.iter().any(blank) {
        return None;
    }
    Some(parts.iter().filter(|p| !blank(p)).count())
}

fn two_responses(text: &str) -> bool {
    let parts: Vec<&str> = text.split("******").map(str::trim).filter(|p| !p.is_empty()).collect();
    divided(text, "******") == Some(2) && parts[0] != parts[1]
}

/// The first word of the `nth` paragraph, in small letters, where the text has `count` paragraphs.
///
/// Blank paragraphs do not count, yet are passed when the n-th is looked up, as in the published checker.
fn first_word(text: &str, count: usize, nth: usize) -> Option<String> {
    let all: Vec<&str> = text.split("\n\n").collect();
    let filled = all.iter().filter(|p| !p.trim().is_empty()).count();
    if filled != count || nth > filled {
        return None;
    }
    let word = all.get(nth.checked_sub(1)?)?.split_whitespace().next()?;
    let word = word.trim_start_matches('\'').trim_start_matches('"');
    let end = word.find(['.', ',', '?', '!', '\'', '"']).unwrap_or(word.len());
    Some(word[..end].to_lowercase())
}

fn json(text: &str) -> bool {
    let mut t = text.trim();
    for fence in ["```json", "```Json", "```JSON", "```"] {
        t = t.strip_prefix(fence).unwrap_or(t);
    }
    let t = t.strip_suffix("```").unwrap_or(t).trim();
    serde_json::from_str::<serde::de::IgnoredAny>(t).is_ok()
}
