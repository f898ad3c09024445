//! Numbers in answers, as in GSM8K: read, compared exactly.
//!
//! # Reference
//! Cobbe et al., "Training Verifiers to Solve Math Word Problems", arXiv 2110.14168.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An exact rational number, in lowest terms with a positive denominator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Number {
    numerator: i128,
    denominator: i128,
}

impl Number {
    /// `numerator / denominator`; `None` for a denominator of zero or one that cannot be made positive.
    pub fn ratio(numerator: i128, denominator: i128) -> Option<Self> {
        let g = gcd(numerator.unsigned_abs(), denominator.unsigned_abs());
        let g = i128::try_from(g).ok().filter(|g| *g > 0 && denominator != 0)?;
        let sign = denominator.signum();
        Some(Number {
            numerator: (numerator / g).checked_mul(sign)?,
            denominator: (denominator / g).checked_mul(sign)?,
        })
    }

    /// The nearest float.
    pub fn value(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }

    /// The nearest integer, halves to the even one: published GSM8K scores of GEM compare numbers after this.
    pub fn rounded(self) -> Self {
        let (n, d) = (self.numerator, self.denominator);
        let (floor, rest) = (n.div_euclid(d), n.rem_euclid(d));
        let up = rest > d - rest || (rest == d - rest && floor % 2 != 0);
        Number { numerator: floor + i128::from(up), denominator: 1 }
    }

    fn plus(self, other: Self) -> Option<Self> {
        let left = self.numerator.checked_mul(other.denominator)?;
        let right = other.numerator.checked_mul(self.denominator)?;
        Number::ratio(left.checked_add(right)?, self.denominator.checked_mul(other.denominator)?)
    }

    fn over(self, other: Self) -> Option<Self> {
        Number::ratio(
            self.numerator.checked_mul(other.denominator)?,
            self.denominator.checked_mul(other.numerator)?,
        )
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.denominator == 1 {
            write!(f, "{}", self.numerator)
        } else {
            write!(f, "{}/{}", self.numerator, self.denominator)
        }
    }
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Where a number was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Found {
    /// The number after the last "answer is".
    Marked,
    /// The first number after the last `####`.
    Hashes,
    /// The last number of the text.
    Last,
}

/// Also the end of "the final answer is".
const MARK: &str = "answer is";

/// The number an answer gives, and where it was.
///
/// 1. The first number after the last "answer is", in any case; behind an `=` on that line, the first after the last one:
///    `the answer is 6 * 3 = 18 dollars` is 18.
/// 2. Without one: the first number after the last `####`, the form of GSM8K's own solutions.
/// 3. Without one: the last number of the text. A model that reasons and never answers gets a chance here; take
///    [`Found::Marked`] only, to be as strict as the published scores of GEM.
///
/// A number has an optional sign and currency, digits with commas between them, decimals, and a fraction `a/b`,
/// `\frac{a}{b}` or `2 1/2`. A percent sign is dropped: 25 % is 25, as in GSM8K's solutions. Exponents, words and
/// expressions are not evaluated: `3 + 4` is 3. `None` without a number.
pub fn extract(text: &str) -> Option<(Number, Found)> {
    let lower = text.to_ascii_lowercase();
    let after = |mark: &str| lower.rfind(mark).and_then(|at| numbers(&text[at + mark.len()..]).next());
    let marked = || {
        let rest = &text[lower.rfind(MARK)? + MARK.len()..];
        let result = rest.lines().next().and_then(|line| numbers(&line[line.rfind('=')? + 1..]).next());
        result.or_else(|| numbers(rest).next())
    };
    marked()
        .map(|n| (n, Found::Marked))
        .or_else(|| after("####").map(|n| (n, Found::Hashes)))
        .or_else(|| numbers(text).last().map(|n| (n, Found::Last)))
}

/// The number after the last `####` of a GSM8K solution.
pub fn gold(solution: &str) -> Option<Number> {
    let at = solution.rfind("####")?;
    numbers(&solution[at + 4..]).next()
}

/// Every number of a text, in order, by the rules of [`extract`].
pub fn numbers(text: &str) -> impl Iterator<Item = Number> {
    let chars: Vec<char> = text.chars().collect();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < chars.len() {
            if let Some((n, end)) = number(&chars, at) {
                at = end;
                return Some(n);
            }
            // A number that cannot be read (division by zero, too many digits) is passed over as a whole.
            let part = |c: &&char| c.is_ascii_digit() || matches!(c, '.' | ',' | '/');
            at += chars[at..].iter().take_while(part).count().max(1);
        }
        None
    })
}

/// The number that starts at `at`, and where it ends.
fn number(s: &[char], at: usize) -> Option<(Number, usize)> {
    let mut i = at;
    let glued = at > 0 && (s[at - 1].is_alphanumeric() || s[at - 1] == ')');
    let mut negative = false;
    // A minus after a letter, a digit or a bracket is a hyphen or a subtraction.
    while let Some(&c) = s.get(i) {
        match c {
            '-' | '\u{2212}' if !glued && !negative => negative = true,
            '+' if i == at => {}
            '$' | '\u{20ac}' | '\u{a3}' | '\u{a5}' => {}
            '\\' if s.get(i + 1) == Some(&'$') => {}
            _ => break,
        }
        i += 1;
    }
    let (n, end) = latex(s, i).or_else(|| plain(s, i))?;
    let n = if negative { Number { numerator: -n.numerator, ..n } } else { n };
    Some((n, end))
}

/// `\frac{a}{b}`, also `\dfrac` and `\tfrac`.
fn latex(s: &[char], at: usize) -> Option<(Number, usize)> {
    let name = ["\\frac{", "\\dfrac{", "\\tfrac{"].into_iter().find(|n| starts(s, at, n))?;
    let (a, i) = decimal(s, at + name.len())?;
    let i = starts(s, i, "}{").then_some(i + 2)?;
    let (b, i) = decimal(s, i)?;
    (s.get(i) == Some(&'}')).then_some(())?;
    Some((a.over(b)?, i + 1))
}

/// A decimal, a fraction of two, or an integer and a proper fraction.
fn plain(s: &[char], at: usize) -> Option<(Number, usize)> {
    let (a, i) = decimal(s, at)?;
    let fraction = |from: usize| {
        let (n, j) = decimal(s, from)?;
        let (d, end) = decimal(s, (s.get(j) == Some(&'/')).then_some(j + 1)?)?;
        Some((n, d, end))
    };
    if let Some((_, d, end)) = fraction(at) {
        return Some((a.over(d)?, end));
    }
    if let Some((n, d, end)) = (s.get(i) == Some(&' ')).then(|| fraction(i + 1)).flatten()
        && let (1, 1, 1) = (a.denominator, n.denominator, d.denominator)
        && n.numerator < d.numerator
    {
        return Some((a.plus(n.over(d)?)?, end));
    }
    Some((a, i))
}

/// Digits with commas between them, and decimals.
fn decimal(s: &[char], at: usize) -> Option<(Number, usize)> {
    let digit = |i: usize| s.get(i).and_then(|c| c.to_digit(10));
    let (mut n, mut scale, mut i, mut point) = (0i128, 1i128, at, false);
    loop {
        if let Some(d) = digit(i) {
            n = n.checked_mul(10)?.checked_add(i128::from(d))?;
            scale = if point { scale.checked_mul(10)? } else { scale };
        } else if s.get(i) == Some(&'.') && !point && digit(i + 1).is_some() {
            point = true;
        } else if !(s.get(i) == Some(&',') && !point && i > at && digit(i + 1).is_some()) {
            break;
        }
        i += 1;
    }
    (i > at).then_some(())?;
    Some((Number::ratio(n, scale)?, i))
}

fn starts(s: &[char], at: usize, with: &str) -> bool {
    with.chars().enumerate().all(|(k, c)| s.get(at + k) == Some(&c))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read(text: &str) -> Option<String> {
        numbers(text).next().map(|n| n.to_string())
    }

    #[test]
    fn numbers_are_read_in_the_forms_that_answers_have() {
        let table = [
            ("18", "18"),
            ("18.", "18"),
            ("$1,234,567.50.", "2469135/2"),
            ("-5", "-5"),
            ("\u{2212}5", "-5"),
            ("-$5", "-5"),
            ("$-5", "-5"),
            ("\\$5", "5"),
            ("\u{20ac}7 each", "7"),
            ("25%", "25"),
            ("3/4 of it", "3/4"),
            ("-6/8", "-3/4"),
            ("2 1/2 cups", "5/2"),
            ("2 5/2", "2"),
            ("\\frac{3}{4}", "3/4"),
            ("\\boxed{\\dfrac{10}{5}}", "2"),
            ("0.50", "1/2"),
            (".5", "1/2"),
            ("**42**", "42"),
            ("10-5", "10"),
            ("x-5", "5"),
            ("3, 4", "3"),
            ("3 + 4", "3"),
            ("1.5/0.5", "3"),
        ];
        for (text, want) in table {
            assert_eq!(read(text).as_deref(), Some(want), "{text}");
        }
        assert_eq!(read("no number, - or $ or /"), None);
        assert_eq!(read("1/0"), None);
        assert_eq!(read(&"9".repeat(60)), None);
        assert_eq!(numbers("1/0, then 7").map(|n| n.to_string()).collect::<Vec<_>>(), ["7"]);
    }

    #[test]
    fn the_last_marker_wins_then_hashes_then_the_last_number() {
        let get = |t| extract(t).map(|(n, f)| (n.to_string(), f));
        let some = |n: &str, f| Some((n.to_owned(), f));
        assert_eq!(get("The answer is 3. No: THE ANSWER IS: $4, not 5."), some("4", Found::Marked));
        let late = "So, the answer is: 6 * 3 = 18 dollars.\n\nThe final answer is: 20";
        assert_eq!(get(late), some("20", Found::Marked));
        assert_eq!(get("The answer is: 6 * 3 = 18 dollars, of 50."), some("18", Found::Marked));
        assert_eq!(get("The answer is\n7, since 3 + 4 = 7 and 8 = 8"), some("7", Found::Marked));
        assert_eq!(get("2 + 2 = 4\n#### 1,000 apples"), some("1000", Found::Hashes));
        assert_eq!(get("#### 8\nThe answer is unknown."), some("8", Found::Hashes));
        assert_eq!(get("first 3, then 4 apples"), some("4", Found::Last));
        assert_eq!(get("It rained."), None);
        // Lower-casing must not move the positions of what follows a letter of another length.
        assert_eq!(get("\u{130}\u{130} the answer is 6"), some("6", Found::Marked));
    }

    #[test]
    fn gold_answers_follow_the_hashes() {
        assert_eq!(gold("48/2 = <<48/2=24>>24\n#### 72").unwrap().to_string(), "72");
        assert_eq!(gold("#### -1,250").unwrap().to_string(), "-1250");
        assert_eq!(gold("72"), None);
    }

    #[test]
    fn equal_numbers_are_equal_however_they_are_written() {
        let one = |t: &str| numbers(t).next().unwrap();
        assert_eq!(one("18.00"), one("18"));
        assert_eq!(one("0.75"), one("3/4"));
        assert_ne!(one("0.333"), one("1/3"));
        assert!((one("-7/2").value() + 3.5).abs() < 1e-15);
        let rounded = |t| one(t).rounded().to_string();
        assert_eq!(["2.5", "3.5", "-2.5", "2.51", "-0.4"].map(rounded), ["2", "4", "-2", "3", "0"]);
        assert_eq!(Number::ratio(1, 0), None);
        assert_eq!(Number::ratio(2, -4), Number::ratio(-1, 2));
    }
}
