//! Generated questions with verifiers.
//!
//! Several of them have many right answers, while their demonstrations may prefer one: what a fine-tuning does to the
//! others is then measured without a judge, by sampling and [`Problem::verify`], or exactly, since every right answer
//! can be listed.
//!
//! | Name | Short form | A right answer | Right answers |
//! |---|---|---|---|
//! | `add` | `add 17 25 :` | `42` | one |
//! | `mod` | `mod 17 by 5 :` | `2` | one |
//! | `sort` | `sort 9 2 5 :` | `2 5 9` | one |
//! | `count` | `count a in b a c a :` | `2` | one |
//! | `split` | `split 12 in 3 :` | `1 + 1 + 10` | many |
//! | `make` | `make 13 from 2 3 5 :` | `2 * 5 + 3` | many |
//! | `word` | `word with a t :` | `star` | many |
//! | `path` | `path a to d by a b , a c , b d , c d :` | `a b d` | many |
//! | `order` | `order a b c d with a < c , d < b :` | `a c d b` | many |
//! | `close` | `close ( [ to 6 :` | `] ) ( )` | many |
//!
//! Short forms are words of one closed [`vocabulary`], separated by single spaces and ended by ` :`, for decoders over
//! words or characters; [`Problem::prose`] asks the same of a model that reads English.

mod answer;
mod arithmetic;
mod brackets;
mod lists;
mod relations;
#[cfg(test)]
mod tests;

pub use answer::{cut, distinct_right};

use std::collections::HashSet;
use std::fmt::Debug;

use rhumb_linalg::rng::Rng;

use super::MeasureError;

/// A kind of question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// Sum of two numbers.
    Add,
    /// Remainder of a division.
    Mod,
    /// Numbers in increasing order.
    Sort,
    /// How often a letter occurs.
    Count,
    /// A number as a sum of positive ones.
    Split,
    /// A number as an expression of three given ones (countdown).
    Make,
    /// A word of a fixed list with given letters.
    Word,
    /// A path between two nodes of a graph, no node twice.
    Path,
    /// An order of letters that keeps constraints.
    Order,
    /// Brackets that balance given ones.
    Close,
}

/// Which of several right answers demonstrations show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Style {
    /// The first one, always.
    First,
    /// All, equally often.
    Uniform,
    /// The first one with this share, else one of the others, equally often.
    Preferred(f64),
}

/// A question with its right answers.
pub trait Problem: Debug + Send + Sync {
    /// The question in words of [`vocabulary`], ended by ` :`.
    fn prompt(&self) -> String;

    /// The question in English.
    fn prose(&self) -> String;

    /// Whether `answer`, and nothing besides, is right. Spaces between its parts are optional, or commas in lists.
    fn verify(&self, answer: &str) -> bool;

    /// Every right answer, in its written form, the preferred one first. Never empty; more than one where
    /// [`Task::many`] says so.
    fn answers(&self) -> Vec<String>;

    /// A right answer for training.
    fn demonstrate(&self, style: Style, rng: &mut Rng) -> String {
        let mut all = self.answers();
        let others = all.len().saturating_sub(1);
        let i = match style {
            Style::Uniform => rng.below(all.len().max(1)),
            Style::Preferred(share) if others > 0 && rng.uniform() >= share => 1 + rng.below(others),
            Style::First | Style::Preferred(_) => 0,
        };
        if i < all.len() { all.swap_remove(i) } else { String::new() }
    }
}

/// Questions of which none is in both sets, and none twice in one.
#[derive(Debug)]
pub struct Questions {
    /// To learn from.
    pub train: Vec<Box<dyn Problem>>,
    /// To be judged by.
    pub held_out: Vec<Box<dyn Problem>>,
}

impl Task {
    /// Every task.
    pub const ALL: [Task; 10] = [
        Task::Add,
        Task::Mod,
        Task::Sort,
        Task::Count,
        Task::Split,
        Task::Make,
        Task::Word,
        Task::Path,
        Task::Order,
        Task::Close,
    ];

    /// The task of a name.
    ///
    /// # Errors
    /// [`MeasureError::Task`] with the names there are.
    pub fn parse(name: &str) -> Result<Self, MeasureError> {
        let known = || Task::ALL.map(Task::name).join(", ");
        let task = Task::ALL.into_iter().find(|t| t.name() == name);
        task.ok_or_else(|| MeasureError::Task { name: name.to_owned(), known: known() })
    }

    /// The name, which is also the first word of its short form.
    pub fn name(self) -> &'static str {
        match self {
            Task::Add => "add",
            Task::Mod => "mod",
            Task::Sort => "sort",
            Task::Count => "count",
            Task::Split => "split",
            Task::Make => "make",
            Task::Word => "word",
            Task::Path => "path",
            Task::Order => "order",
            Task::Close => "close",
        }
    }

    /// Whether every question has several right answers.
    pub fn many(self) -> bool {
        !matches!(self, Task::Add | Task::Mod | Task::Sort | Task::Count)
    }

    /// A question.
    pub fn problem(self, rng: &mut Rng) -> Box<dyn Problem> {
        match self {
            Task::Add => Box::new(arithmetic::Add::draw(rng)),
            Task::Mod => Box::new(arithmetic::Mod::draw(rng)),
            Task::Sort => Box::new(lists::Sort::draw(rng)),
            Task::Count => Box::new(lists::Count::draw(rng)),
            Task::Split => Box::new(arithmetic::Split::draw(rng)),
            Task::Make => Box::new(arithmetic::Make::draw(rng)),
            Task::Word => Box::new(lists::Word::draw(rng)),
            Task::Path => Box::new(relations::Path::draw(rng)),
            Task::Order => Box::new(relations::Order::draw(rng)),
            Task::Close => Box::new(brackets::Close::draw(rng)),
        }
    }

    /// Different questions of a seed, those held out drawn first, so that their set does not depend on `train`.
    ///
    /// Different means different in the short form: `add 1 2 :` and `add 2 1 :` may be on both sides. Where the order
    /// of parts says nothing (edges, constraints, given numbers), they are sorted.
    ///
    /// # Errors
    /// [`MeasureError::Questions`] where the task has too few.
    pub fn questions(self, seed: u64, train: usize, held_out: usize) -> Result<Questions, MeasureError> {
        let mut rng = Rng::named(seed, &format!("task/{}", self.name()));
        let wanted = train + held_out;
        let draws = 1000 + 50 * wanted;
        let mut seen = HashSet::new();
        let mut all: Vec<Box<dyn Problem>> = Vec::new();
        for _ in 0..draws {
            if all.len() == wanted {
                break;
            }
            let p = self.problem(&mut rng);
            if seen.insert(p.prompt()) {
                all.push(p);
            }
        }
        if all.len() < wanted {
            return Err(MeasureError::Questions { task: self.name(), found: all.len(), wanted, draws });
        }
        let train = all.split_off(held_out);
        Ok(Questions { train, held_out: all })
    }
}

/// Every word of short forms and answers.
pub fn vocabulary() -> Vec<String> {
    let fixed = ["in", "by", "from", "with", "to", ":", ",", "<", "+", "-", "*", "(", ")", "[", "]"];
    let names = Task::ALL.iter().map(|t| t.name());
    let letters = ('a'..='z').map(String::from);
    let texts = fixed.into_iter().chain(names).chain(lists::WORDS).map(str::to_owned);
    texts.chain(letters).chain((0..=LARGEST).map(|n| n.to_string())).collect()
}

/// Largest number that is written anywhere.
const LARGEST: i64 = 99;

/// Parts of an answer: runs of digits, and every other sign that is no white space by itself.
fn parts(answer: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut in_number = false;
    for c in answer.chars() {
        match out.last_mut() {
            Some(last) if in_number && c.is_ascii_digit() => last.push(c),
            _ if c.is_whitespace() => {}
            _ => out.push(c.into()),
        }
        in_number = c.is_ascii_digit();
    }
    out
}

/// The whole answer as one number.
fn one_number(answer: &str) -> Option<i64> {
    let digits = answer.trim();
    digits.parse().ok().filter(|_| digits.starts_with(|c: char| c.is_ascii_digit() || c == '-'))
}

/// Numbers or letters between spaces, commas or nothing.
fn list(answer: &str) -> Vec<String> {
    parts(answer).into_iter().filter(|p| p != ",").collect()
}

/// Every order of the numbers `0..n`, in lexicographic order.
fn permutations(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let mut out = Vec::new();
    for first in 0..n {
        for rest in permutations(n - 1) {
            let rest = rest.into_iter().map(|i| i + usize::from(i >= first));
            out.push(std::iter::once(first).chain(rest).collect());
        }
    }
    out
}
