//! Sentences of English prose.

/// Words with a period that ends no sentence.
const ABBREVIATIONS: &str = "adm al ave bros capt cf co col corp cos dept dr ed eds est etc fig figs gen gov hon inc \
    jan feb mar apr aug sept oct nov dec jr lt ltd maj messrs mr mrs ms mt op ph.d prof rep reps rev sen sens sgt \
    sr st vol vs a.m p.m u.s u.k u.n d.c e.g i.e b.c a.d";
/// Words that rarely follow an abbreviation within a sentence when they are capitalised.
const STARTERS: [&str; 16] = [
    "The", "A", "An", "It", "He", "She", "They", "We", "This", "That", "In", "But", "There", "However",
    "These", "His",
];

/// The sentences of a text, trimmed; what follows the last end is one too.
///
/// A sentence ends at a run of `.`, `?`, `!` with closing quotes and brackets that white space or the end of the text
/// follows. A line break alone ends nothing, so that a heading belongs to the sentence behind it. A single period ends
/// nothing after a common abbreviation or an initial, unless a word like `The` follows, nor after a number before a
/// small letter; three periods end a sentence before a capital only.
///
/// This stands in for NLTK's trained Punkt model, with which it agrees on most but not all texts.
pub fn sentences(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut start = 0;
    for end in ends(text) {
        out.push(text[start..end].trim());
        start = end;
    }
    out.push(text[start..].trim());
    out.retain(|s| !s.is_empty());
    out
}

/// Byte positions behind the end of each sentence.
fn ends(text: &str) -> Vec<usize> {
    let mut out = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if !is_end(c) {
            continue;
        }
        let mut end = at + c.len_utf8();
        while let Some((i, c)) = chars.next_if(|(_, c)| is_end(*c) || is_closing(*c)) {
            end = i + c.len_utf8();
        }
        let next = text[end..].chars().next();
        if next.is_none_or(char::is_whitespace)
            && breaks(&text[..at], &text[at..end], text[end..].trim_start())
        {
            out.push(end);
        }
    }
    out
}

/// Whether the marks between `before` and `after` end a sentence.
fn breaks(before: &str, marks: &str, after: &str) -> bool {
    let ends: String = marks.chars().filter(|c| is_end(*c)).collect();
    let follower = after.split_whitespace().next().unwrap_or_default();
    let word = follower.trim_matches(|c: char| !c.is_alphanumeric() && c != '\'');
    let capital = follower.chars().find(|c| c.is_alphanumeric()).is_none_or(|c| !c.is_lowercase());
    if ends.len() > 1 && ends.chars().all(|c| c == '.') {
        return after.is_empty() || (capital && word.chars().any(char::is_alphabetic));
    }
    if ends != "." {
        return true;
    }
    let last = before.rsplit(char::is_whitespace).next().unwrap_or_default();
    let last = last.trim_start_matches(|c: char| !c.is_alphanumeric());
    let initial = last.chars().count() == 1 && last.chars().all(char::is_alphabetic) && last != "I";
    let low = last.to_lowercase();
    let dotted = last.len() > 4 && last.split('.').all(|p| p.chars().count() == 1);
    if initial || dotted || ABBREVIATIONS.split_whitespace().any(|a| a == low) {
        return after.is_empty() || (STARTERS.contains(&word) && !follower.ends_with('.'));
    }
    let number = !last.is_empty() && last.chars().all(|c| c.is_ascii_digit() || c == '.' || c == ',');
    !number || capital
}

fn is_end(c: char) -> bool {
    matches!(c, '.' | '?' | '!')
}

fn is_closing(c: char) -> bool {
    matches!(c, '"' | '\'' | ')' | ']' | '}' | '\u{201d}' | '\u{2019}' | '\u{bb}' | '*' | '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_before_white_space_end_a_sentence() {
        assert_eq!(sentences("One. Two? Three! Four"), ["One.", "Two?", "Three!", "Four"]);
        assert_eq!(
            sentences("He said \"Stop!\" Then (he left.) all"),
            ["He said \"Stop!\"", "Then (he left.)", "all"]
        );
        assert_eq!(sentences("Really?! Yes. no more.\n\n"), ["Really?!", "Yes.", "no more."]);
        assert_eq!(sentences("A heading\nand its text. Next"), ["A heading\nand its text.", "Next"]);
        assert_eq!(sentences(" \n "), [""; 0]);
    }

    #[test]
    fn abbreviations_initials_and_numbers_end_none() {
        assert_eq!(
            sentences("Dr. A. Smith paid $3.50, e.g. for tea. Mr. X did not."),
            ["Dr. A. Smith paid $3.50, e.g. for tea.", "Mr. X did not."]
        );
        assert_eq!(sentences("at 5 p.m. The train left").len(), 2);
        assert_eq!(sentences("1. Mix. 2. Stir.").len(), 4);
        assert_eq!(sentences("version 2. of it").len(), 1);
        assert_eq!(sentences("Well... maybe. Well... Maybe.").len(), 3);
        assert_eq!(sentences("It was I. He left.").len(), 2);
        assert_eq!(sentences("www.example.org is a site"), ["www.example.org is a site"]);
    }
}
