//! A small language whose questions have several right answers.
//!
//! | Question | Right answers, in canonical order |
//! |---|---|
//! | `split 7 :` | `1 + 6`, `2 + 5`, .. `6 + 1` |
//! | `between 3 9 :` | `4` .. `8` |
//! | `name a bird :`, `name a bird or fish :` | the 8 birds; the birds, then the 8 fishes |
//! | `pick 8 3 5 :` | `8`, `3`, `5` |
//!
//! Pre-training text gives every right answer the same share. Fine-tuning data prefers the first one: with
//! the share [`STYLE`] it is the answer, else one of the others. Held-out questions never occur in
//! fine-tuning, and the answer wanted of each is drawn like the fine-tuning answers, so that a model is
//! rewarded for the style and for the variety that it keeps. All answers can be listed, so that chances of
//! success can be computed instead of sampled.

use rhumb_linalg::rng::Rng;

use crate::data::{Encoder, Example};

/// Share of the first right answer in fine-tuning data.
pub const STYLE: f64 = 0.7;
/// Token number of padding.
pub const PAD: u32 = 0;
/// Token number of the end of a document.
pub const EOS: u32 = 1;

const LARGEST: usize = 20;
const LARGEST_SUM: usize = 12;
const KEYWORDS: [&str; 8] = ["split", "between", "name", "pick", "a", "or", "+", ":"];
const KINDS: [(&str, [&str; 8]); 6] = [
    ("bird", ["robin", "heron", "crow", "owl", "swan", "wren", "gull", "hawk"]),
    ("fish", ["carp", "cod", "eel", "perch", "pike", "salmon", "trout", "tuna"]),
    ("tree", ["ash", "beech", "birch", "elm", "fir", "oak", "pine", "yew"]),
    ("fruit", ["apple", "cherry", "fig", "grape", "lemon", "melon", "pear", "plum"]),
    ("tool", ["axe", "chisel", "drill", "file", "hammer", "plane", "rasp", "saw"]),
    ("color", ["black", "blue", "brown", "gray", "green", "red", "white", "yellow"]),
];

/// One word, one token.
#[derive(Clone, Debug)]
pub struct Words {
    words: Vec<String>,
}

impl Default for Words {
    fn default() -> Self {
        let fixed = ["<pad>", "<eos>"].into_iter().chain(KEYWORDS).map(String::from);
        let kinds = KINDS.iter().flat_map(|(kind, members)| std::iter::once(kind).chain(members));
        let numbers = (0..=LARGEST).map(|n| n.to_string());
        Words { words: fixed.chain(numbers).chain(kinds.map(|w| (*w).to_owned())).collect() }
    }
}

impl Words {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The words of `ids` up to the end of the document, with single spaces; `?` for numbers out of range.
    pub fn decode(&self, ids: &[u32]) -> String {
        let words = ids.iter().take_while(|i| **i != EOS).filter(|i| **i != PAD);
        words.map(|&i| self.words.get(i as usize).map_or("?", String::as_str)).collect::<Vec<_>>().join(" ")
    }

    /// Prompt, answer and end of document; with `prompt_live`, all of it is trained, else the answer.
    fn document(&self, prompt: &str, answer: &str, prompt_live: bool, line: usize) -> Example {
        let ids_of = |text: &str| text.split(' ').filter_map(|w| self.id(w)).collect::<Vec<_>>();
        let mut ids = ids_of(prompt);
        let start = ids.len();
        ids.extend(ids_of(answer));
        ids.push(EOS);
        let live = (0..ids.len()).map(|i| prompt_live || i >= start).collect();
        Example { ids, live, line }
    }

    fn id(&self, word: &str) -> Option<u32> {
        self.words.iter().position(|w| w == word).map(|i| i as u32)
    }
}

impl Encoder for Words {
    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        text.split_whitespace()
            .map(|w| self.id(w).ok_or_else(|| format!("{w:?} is no word of the built-in language")))
            .collect()
    }
}

/// A question and all of its right answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Text, ending in ` :`.
    pub prompt: String,
    /// Right answers in canonical order.
    pub answers: Vec<String>,
}

impl Question {
    /// Whether `answer` is right.
    pub fn accepts(&self, answer: &str) -> bool {
        self.answers.iter().any(|a| a == answer)
    }

    /// Every right answer as a document whose answer and end are live, to score how likely each is.
    pub fn documents(&self, words: &Words) -> Vec<Example> {
        self.answers.iter().enumerate().map(|(i, a)| words.document(&self.prompt, a, false, i + 1)).collect()
    }

    fn styled(&self, rng: &mut Rng) -> usize {
        if self.answers.len() < 2 || rng.uniform() < STYLE {
            0
        } else {
            1 + rng.below(self.answers.len() - 1)
        }
    }
}

/// A question that fine-tuning never sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldOut {
    /// The question.
    pub question: Question,
    /// Index of the right answer that is wanted, drawn like the fine-tuning answers.
    pub wanted: usize,
}

impl HeldOut {
    /// The wanted answer as a document whose answer and end are live.
    pub fn document(&self, words: &Words, line: usize) -> Example {
        words.document(&self.question.prompt, &self.question.answers[self.wanted], false, line)
    }
}

/// How much to generate, in documents or questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Pre-training documents.
    pub pretrain: usize,
    /// Fine-tuning documents.
    pub fine_tune: usize,
    /// Held-out questions.
    pub held_out: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Sizes { pretrain: 96_000, fine_tune: 2_000, held_out: 64 }
    }
}

/// The generated language.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// The tokenizer.
    pub words: Words,
    /// Documents with every token live and right answers drawn uniformly, of all questions.
    pub pretrain: Vec<Example>,
    /// Documents with the answer and the end live, in the preferred style.
    pub fine_tune: Vec<Example>,
    /// Questions kept from fine-tuning.
    pub held_out: Vec<HeldOut>,
}

impl Corpus {
    /// The corpus of a seed; the same seed gives the same documents everywhere.
    pub fn new(seed: u64, sizes: Sizes) -> Self {
        let words = Words::default();
        let mut rng = Rng::named(seed, "corpus/questions");
        let mut families = families();
        let mut kept = Vec::new();
        let count = families.len();
        for (i, family) in families.iter_mut().enumerate() {
            rng.shuffle(family);
            let share = (sizes.held_out - kept.len()) / (count - i);
            kept.extend(family.drain(..share.min(family.len() / 4)));
        }
        let mut wanted = Rng::named(seed, "corpus/held-out");
        let held_out: Vec<HeldOut> =
            kept.into_iter().map(|q| HeldOut { wanted: q.styled(&mut wanted), question: q }).collect();

        let mut rng = Rng::named(seed, "corpus/fine-tune");
        let fine_tune = (1..=sizes.fine_tune)
            .map(|line| {
                let q = draw(&families, &mut rng);
                words.document(&q.prompt, &q.answers[q.styled(&mut rng)], false, line)
            })
            .collect();

        for h in &held_out {
            families[family_of(&h.question)].push(h.question.clone());
        }
        let mut rng = Rng::named(seed, "corpus/pretrain");
        let pretrain = (1..=sizes.pretrain)
            .map(|line| {
                let q = draw(&families, &mut rng);
                words.document(&q.prompt, &q.answers[rng.below(q.answers.len())], true, line)
            })
            .collect();
        Corpus { words, pretrain, fine_tune, held_out }
    }
}

fn draw<'a>(families: &'a [Vec<Question>], rng: &mut Rng) -> &'a Question {
    let family = &families[rng.below(families.len())];
    &family[rng.below(family.len())]
}

fn family_of(q: &Question) -> usize {
    match q.prompt.split(' ').next() {
        Some("split") => 0,
        Some("name") => 1,
        Some("between") => 2,
        _ => 3,
    }
}

/// All questions, in the order of [`family_of`]: smaller families first, so that the largest fills up what
/// they cannot spare.
fn families() -> Vec<Vec<Question>> {
    let split = (4..=LARGEST_SUM).map(|n| Question {
        prompt: format!("split {n} :"),
        answers: (1..n).map(|a| format!("{a} + {}", n - a)).collect(),
    });
    let list = |i: usize| KINDS[i].1.iter().map(|w| (*w).to_owned());
    let one = (0..KINDS.len())
        .map(|i| Question { prompt: format!("name a {} :", KINDS[i].0), answers: list(i).collect() });
    let pairs = (0..KINDS.len()).flat_map(|i| (0..KINDS.len()).filter(move |j| *j != i).map(move |j| (i, j)));
    let two = pairs.map(|(i, j)| Question {
        prompt: format!("name a {} or {} :", KINDS[i].0, KINDS[j].0),
        answers: list(i).chain(list(j)).collect(),
    });
    let between = (0..=LARGEST).flat_map(|a| (a + 4..=(a + 9).min(LARGEST)).map(move |b| (a, b)));
    let between = between.map(|(a, b)| Question {
        prompt: format!("between {a} {b} :"),
        answers: (a + 1..b).map(|n| n.to_string()).collect(),
    });
    let digits = || 0..=9_usize;
    let triples = digits().flat_map(move |a| digits().flat_map(move |b| digits().map(move |c| [a, b, c])));
    let pick = triples.filter(|[a, b, c]| a != b && b != c && a != c).map(|t| Question {
        prompt: format!("pick {} {} {} :", t[0], t[1], t[2]),
        answers: t.iter().map(usize::to_string).collect(),
    });
    vec![split.collect(), one.chain(two).collect(), between.collect(), pick.collect()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::HashSet;

    use super::*;

    fn text(c: &Corpus, e: &Example) -> (String, String) {
        let text = c.words.decode(&e.ids);
        let (prompt, answer) = text.split_once(" : ").unwrap();
        (format!("{prompt} :"), answer.to_owned())
    }

    fn find(prompt: &str) -> Question {
        families().into_iter().flatten().find(|q| q.prompt == prompt).unwrap()
    }

    #[test]
    fn the_vocabulary_is_small_and_has_no_word_twice() {
        let words = Words::default();
        assert!(words.len() <= 96, "{}", words.len());
        assert_eq!(words.words.iter().collect::<HashSet<_>>().len(), words.len());
        assert_eq!((words.id("<pad>"), words.id("<eos>")), (Some(PAD), Some(EOS)));
        assert!(words.encode("split 7 of").unwrap_err().contains("\"of\""));
        let ids = words.encode("split 7 : 3 + 4").unwrap();
        assert_eq!(words.decode(&[&ids[..], &[EOS, 5]].concat()), "split 7 : 3 + 4");
    }

    #[test]
    fn answers_are_right_and_listed_in_order() {
        assert_eq!(find("split 4 :").answers, ["1 + 3", "2 + 2", "3 + 1"]);
        assert_eq!(find("between 3 7 :").answers, ["4", "5", "6"]);
        assert_eq!(find("pick 8 3 5 :").answers, ["8", "3", "5"]);
        assert_eq!(find("name a fish or bird :").answers.len(), 16);
        assert!(find("name a fish or bird :").accepts("wren") && !find("name a fish :").accepts("wren"));
        for q in families().into_iter().flatten() {
            assert!(q.answers.len() >= 3);
            assert_eq!(q.answers.iter().collect::<HashSet<_>>().len(), q.answers.len());
        }
    }

    #[test]
    fn a_seed_gives_the_same_corpus_and_another_one_another() {
        let sizes = Sizes { pretrain: 50, fine_tune: 50, held_out: 32 };
        let (a, b, c) = (Corpus::new(1, sizes), Corpus::new(1, sizes), Corpus::new(2, sizes));
        assert_eq!((&a.pretrain, &a.fine_tune, &a.held_out), (&b.pretrain, &b.fine_tune, &b.held_out));
        assert_ne!(a.pretrain, c.pretrain);
        assert_ne!(a.held_out, c.held_out);
    }

    #[test]
    fn every_document_is_a_right_answer_and_held_out_questions_stay_out_of_fine_tuning() {
        let c = Corpus::new(3, Sizes::default());
        let all: std::collections::HashMap<_, _> =
            families().into_iter().flatten().map(|q| (q.prompt.clone(), q)).collect();
        let held: HashSet<_> = c.held_out.iter().map(|h| h.question.prompt.clone()).collect();
        assert_eq!((c.held_out.len(), held.len()), (64, 64));
        for e in &c.pretrain {
            let (prompt, answer) = text(&c, e);
            assert!(all[&prompt].accepts(&answer), "{prompt} {answer}");
            assert!(e.live.iter().all(|l| *l) && e.ids.len() <= 16);
        }
        let mut first = 0;
        for e in &c.fine_tune {
            let (prompt, answer) = text(&c, e);
            assert!(all[&prompt].accepts(&answer) && !held.contains(&prompt), "{prompt} {answer}");
            assert_eq!(e.live.iter().filter(|l| **l).count(), answer.split(' ').count() + 1);
            first += usize::from(all[&prompt].answers[0] == answer);
        }
        let share = first as f64 / c.fine_tune.len() as f64;
        assert!((share - STYLE).abs() < 0.04, "{share}");
    }

    #[test]
    fn pre_training_gives_every_right_answer_its_share() {
        let c = Corpus::new(4, Sizes { pretrain: 40_000, fine_tune: 1, held_out: 8 });
        let q = find("split 4 :");
        let answers: Vec<_> =
            c.pretrain.iter().map(|e| text(&c, e)).filter(|(p, _)| *p == q.prompt).collect();
        for a in &q.answers {
            let n = answers.iter().filter(|(_, b)| a == b).count() as f64;
            assert!((n / answers.len() as f64 - 1.0 / 3.0).abs() < 0.08, "{a}: {n} of {}", answers.len());
        }
    }
}
