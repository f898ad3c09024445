//! Words of a text, in three conventions.

use super::sentences;

/// The tokens of BLEU's convention `13a`, that of sacrebleu and WMT.
///
/// # Reference
/// Post, "A Call for Clarity in Reporting BLEU Scores", WMT 2018; the script `mteval-v13a`.
pub fn tokenize_13a(text: &str) -> Vec<String> {
    let text = text.trim_end().replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    let text = text.replace("&quot;", "\"").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
    let mut s: Vec<char> = Vec::with_capacity(text.len() + 2);
    s.push(' ');
    for c in text.chars() {
        if is_symbol(c) { s.extend([' ', c, ' ']) } else { s.push(c) }
    }
    s.push(' ');
    let digit = |c: char| c.is_ascii_digit();
    let stop = |c: char| matches!(c, '.' | ',');
    let s = pairs(&s, |a, b| !digit(a) && stop(b), |a, b| [a, ' ', b, ' ']);
    let s = pairs(&s, |a, b| stop(a) && !digit(b), |a, b| [' ', a, ' ', b]);
    let s = pairs(&s, |a, b| digit(a) && b == '-', |a, b| [a, ' ', b, ' ']);
    String::from_iter(s).split_whitespace().map(str::to_owned).collect()
}

/// ASCII punctuation but for `'`, `,`, `-`, `.`, and the space.
fn is_symbol(c: char) -> bool {
    matches!(c, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/')
}

/// Replaces pairs of neighbours from left to right, without overlap.
fn pairs(s: &[char], hit: impl Fn(char, char) -> bool, with: impl Fn(char, char) -> [char; 4]) -> Vec<char> {
    let mut out = Vec::with_capacity(s.len() + s.len() / 4);
    let mut i = 0;
    while i < s.len() {
        if i + 1 < s.len() && hit(s[i], s[i + 1]) {
            out.extend(with(s[i], s[i + 1]));
            i += 2;
        } else {
            out.push(s[i]);
            i += 1;
        }
    }
    out
}

/// Number of runs of letters, digits and underscores: the words that IFEval counts.
pub fn word_runs(text: &str) -> usize {
    text.split(|c| !is_word(c)).filter(|w| !w.is_empty()).count()
}

/// Whether a regular expression's `\w` matches.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Words and punctuation marks of English text in the manner of the Penn Treebank, sentence by sentence.
///
/// White space separates; so do brackets, quotes, `;@#$%&?!*`, runs of periods, double hyphens, colons and commas that
/// no digit follows, the period at the end of a sentence, and the endings `'s 'm 'd 'll 're 've n't`. Double quotes
/// become `` `` `` where they open and `''` elsewhere. Hyphenated words stay whole; `cannot` is two.
///
/// This follows NLTK's `word_tokenize`, which published diversity scores use, and departs from it in rare cases
/// (`gonna`, single quotes and backticks around phrases, ends of sentences).
pub fn words(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for sentence in sentences(text) {
        let mut chunks = sentence.split_whitespace().peekable();
        while let Some(chunk) = chunks.next() {
            split_chunk(chunk, chunks.peek().is_none(), &mut out);
        }
    }
    out
}

fn split_chunk(chunk: &str, last: bool, out: &mut Vec<String>) {
    let s: Vec<char> = chunk.chars().collect();
    let stop = last.then(|| final_period(&s)).flatten();
    let mut word = String::new();
    let mut i = 0;
    while i < s.len() {
        let run = |c: char| s[i..].iter().take_while(|x| **x == c).count();
        let token = match s[i] {
            '"' if word.is_empty() && (i == 0 || matches!(s[i - 1], '(' | '[' | '{' | '<')) => {
                Some(("``".into(), 1))
            }
            '"' => Some(("''".into(), 1)),
            '\'' if run('\'') == 2 => Some(("''".into(), 2)),
            '`' => Some(("`".repeat(run('`')), run('`'))),
            '-' if run('-') >= 2 => Some(("--".into(), 2)),
            '.' if run('.') >= 2 => Some((".".repeat(run('.')), run('.'))),
            '.' if Some(i) == stop => Some((".".into(), 1)),
            c @ (':' | ',') if s.get(i + 1).is_none_or(|d| !d.is_ascii_digit()) => Some((c.into(), 1)),
            c if is_mark(c) => Some((c.into(), 1)),
            _ => None,
        };
        match token {
            Some((token, n)) => {
                finish(&mut word, out);
                out.push(token);
                i += n;
            }
            None => {
                word.push(s[i]);
                i += 1;
            }
        }
    }
    finish(&mut word, out);
}

/// The single period behind which only quotes and brackets follow.
fn final_period(s: &[char]) -> Option<usize> {
    let closing =
        |c: &&char| matches!(c, '"' | '\'' | ')' | ']' | '}' | '>' | '\u{bb}' | '\u{201d}' | '\u{2019}');
    let at = s.len() - s.iter().rev().take_while(closing).count();
    let at = at.checked_sub(1)?;
    (s[at] == '.' && at > 0 && s[at - 1] != '.').then_some(at)
}

fn is_mark(c: char) -> bool {
    matches!(
        c,
        '(' | ')' | '[' | ']' | '{' | '}' | '<' | '>' | ';' | '@' | '#' | '$' | '%' | '&' | '?' | '!' | '*'
    ) || matches!(c, '\u{ab}' | '\u{bb}' | '\u{201c}' | '\u{201d}' | '\u{2018}' | '\u{2019}' | '\u{201e}')
}

/// Moves `word` to `out`, a contracted ending as a word of its own.
fn finish(word: &mut String, out: &mut Vec<String>) {
    const ENDINGS: [&str; 7] = ["'s", "'m", "'d", "'ll", "'re", "'ve", "n't"];
    if word.is_empty() {
        return;
    }
    let word = std::mem::take(word);
    let low = word.to_ascii_lowercase();
    if low == "cannot" {
        return out.extend([word[..3].to_owned(), word[3..].to_owned()]);
    }
    let ending = ENDINGS.iter().find(|e| low.ends_with(**e)).map(|e| e.len());
    let ending = ending.or_else(|| (word.len() > 1 && word.ends_with('\'')).then_some(1));
    match ending.map(|n| word.split_at(word.len() - n)) {
        Some((head, tail)) if !head.is_empty() => out.extend([head.to_owned(), tail.to_owned()]),
        _ => out.push(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_letters_digits_and_underscores_are_counted() {
        assert_eq!(word_runs("It's 3.5 km, snake_case - \u{e9}t\u{e9}!"), 7);
        assert_eq!(word_runs(" ... "), 0);
    }

    #[test]
    fn treebank_words_separate_punctuation_and_contractions() {
        let table: [(&str, &[&str]); 6] = [
            ("They don't know John's age.", &["They", "do", "n't", "know", "John", "'s", "age", "."]),
            (
                "(a well-known \"fact\"), 1,000 or 10:30:",
                &["(", "a", "well-known", "``", "fact", "''", ")", ",", "1,000", "or", "10:30", ":"],
            ),
            ("$5 -- yes... No! Mr. X's.", &["$", "5", "--", "yes", "...", "No", "!", "Mr.", "X", "'s", "."]),
            ("One. Two", &["One", ".", "Two"]),
            ("the dogs' bowl cannot", &["the", "dogs", "'", "bowl", "can", "not"]),
            ("", &[]),
        ];
        for (text, want) in table {
            assert_eq!(words(text), want, "{text}");
        }
    }
}
