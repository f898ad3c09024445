//! Endless generated prose, so that a language model can be trained without a file.
//!
//! Words are invented, their frequencies follow Zipf's law, and what follows what is not free: a noun has its verbs, a
//! verb its objects, subject and verb agree in number, a paragraph keeps to its two people and its topic, and sums are
//! right. A model lowers its loss by learning spelling first, then grammar, then which words belong together.

use rhumb_linalg::rng::Rng;

const ONSETS: [&str; 16] =
    ["b", "br", "d", "dr", "f", "g", "gl", "k", "l", "m", "n", "p", "s", "st", "t", "v"];
const VOWELS: [&str; 7] = ["a", "e", "i", "o", "u", "ai", "ou"];
const CODAS: [&str; 8] = ["", "", "n", "r", "l", "sh", "nd", "rk"];

/// Words that each noun and each verb prefers.
const FRIENDS: usize = 4;
/// How often a word is followed by one that it prefers.
const FAITH: f64 = 0.8;

struct Language {
    nouns: Vec<String>,
    verbs: Vec<String>,
    adjectives: Vec<String>,
    names: Vec<String>,
    places: Vec<String>,
    verbs_of_noun: Vec<[usize; FRIENDS]>,
    nouns_of_verb: Vec<[usize; FRIENDS]>,
}

fn word(rng: &mut Rng, syllables: usize) -> String {
    let part = |rng: &mut Rng, from: &[&str]| from[rng.below(from.len())].to_owned();
    let mut out = String::new();
    for _ in 0..syllables {
        out += &part(rng, &ONSETS);
        out += &part(rng, &VOWELS);
    }
    out + &part(rng, &CODAS)
}

fn words(rng: &mut Rng, n: usize, taken: &mut std::collections::HashSet<String>) -> Vec<String> {
    let mut out = Vec::with_capacity(n);
    while out.len() < n {
        let syllables = 1 + rng.below(2);
        let w = word(rng, syllables);
        if taken.insert(w.clone()) {
            out.push(w);
        }
    }
    out
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |c| c.to_uppercase().chain(letters).collect())
}

/// Index below `n` with a chance proportional to `1 / (i + 2)`.
fn zipf(rng: &mut Rng, n: usize) -> usize {
    let ends = (n as f64 + 2.0).ln() - 2f64.ln();
    let at = (2.0 * (rng.uniform() * ends).exp()) as usize;
    at.saturating_sub(2).min(n - 1)
}

impl Language {
    fn new(rng: &mut Rng) -> Self {
        let taken = &mut std::collections::HashSet::new();
        let (nouns, verbs) = (words(rng, 240, taken), words(rng, 120, taken));
        let friends = |rng: &mut Rng, n: usize| std::array::from_fn(|_| zipf(rng, n));
        Language {
            verbs_of_noun: nouns.iter().map(|_| friends(rng, verbs.len())).collect(),
            nouns_of_verb: verbs.iter().map(|_| friends(rng, nouns.len())).collect(),
            nouns,
            verbs,
            adjectives: words(rng, 80, taken),
            names: words(rng, 60, taken).iter().map(|w| capital(w)).collect(),
            places: words(rng, 40, taken),
        }
    }

    fn verb(&self, rng: &mut Rng, subject: usize) -> usize {
        if rng.uniform() < FAITH {
            self.verbs_of_noun[subject][rng.below(FRIENDS)]
        } else {
            zipf(rng, self.verbs.len())
        }
    }

    fn object(&self, rng: &mut Rng, verb: usize) -> &str {
        let noun = if rng.uniform() < FAITH {
            self.nouns_of_verb[verb][rng.below(FRIENDS)]
        } else {
            zipf(rng, self.nouns.len())
        };
        &self.nouns[noun]
    }

    /// One sentence about a topic and two people.
    fn sentence(&self, rng: &mut Rng, topic: usize, people: [&str; 2]) -> String {
        let pick = |rng: &mut Rng, from: &[String]| from[zipf(rng, from.len())].clone();
        let subject = if rng.uniform() < 0.6 { topic } else { zipf(rng, self.nouns.len()) };
        let noun = &self.nouns[subject];
        let v = self.verb(rng, subject);
        let (verb, object) = (&self.verbs[v], self.object(rng, v).to_owned());
        let who = rng.below(2);
        let (a, b) = (people[who], people[1 - who]);
        match rng.below(6) {
            0 => format!("The {} {noun} {verb}s the {object}.", pick(rng, &self.adjectives)),
            1 => format!("The {noun}s {verb} the {} {object}.", pick(rng, &self.adjectives)),
            2 => {
                let place = pick(rng, &self.places);
                format!("\"Where is the {noun}?\" asks {a}. \"In the {place},\" says {b}.")
            }
            3 => {
                let had = 2 + rng.below(18);
                let gives = 1 + rng.below(had - 1);
                format!("{a} has {had} {noun}s, gives {gives} to {b} and keeps {}.", had - gives)
            }
            4 => format!("When the {noun} {verb}s, {a} {verb}s too; {b} is {}.", pick(rng, &self.adjectives)),
            _ => format!("{a} and {b} {verb} the {object} in the {}!", pick(rng, &self.places)),
        }
    }
}

/// At least `bytes` bytes of prose, ending with a whole paragraph; the same seed gives the same text everywhere.
pub fn tale(seed: u64, bytes: usize) -> String {
    let language = Language::new(&mut Rng::named(seed, "tale/language"));
    let rng = &mut Rng::named(seed, "tale/text");
    let mut out = String::with_capacity(bytes + 1024);
    while out.len() < bytes {
        let topic = zipf(rng, language.nouns.len());
        let first = zipf(rng, language.names.len());
        let second = (first + 1 + zipf(rng, language.names.len() - 1)) % language.names.len();
        let people = [language.names[first].as_str(), language.names[second].as_str()];
        for i in 0..3 + rng.below(5) {
            if i > 0 {
                out.push(' ');
            }
            out += &language.sentence(rng, topic, people);
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_seed_gives_one_text_that_only_grows_with_the_length() {
        let (short, long) = (tale(0, 1000), tale(0, 5000));
        assert!(short.len() >= 1000 && long.len() >= 5000 && long.starts_with(&short));
        assert_ne!(tale(1, 1000), short);
        assert!(long.ends_with('\n') && long.is_ascii());
    }

    #[test]
    fn sums_are_right_and_nobody_gives_what_he_has_not() {
        let text = tale(3, 200_000);
        let mut seen = 0;
        for line in text.split(['.', '!']).filter(|s| s.contains(" and keeps ")) {
            let n: Vec<i64> = line.split([' ', ',']).filter_map(|w| w.parse().ok()).collect();
            assert_eq!(n[0] - n[1], n[2], "{line}");
            assert!(n[1] > 0 && n[2] > 0, "{line}");
            seen += 1;
        }
        assert!(seen > 200, "{seen}");
    }

    #[test]
    fn frequencies_follow_zipf_and_words_have_preferences() {
        let rng = &mut Rng::new(5);
        let mut count = vec![0; 50];
        (0..100_000).for_each(|_| count[zipf(rng, 50)] += 1);
        // ln(3/2) and ln(12/11) of ln(52/2).
        let share = |i: usize| f64::from(count[i]) / 100_000.0;
        assert!((share(0) - (1.5f64).ln() / 26f64.ln()).abs() < 0.01, "{count:?}");
        assert!((share(9) - (12.0f64 / 11.0).ln() / 26f64.ln()).abs() < 0.005, "{count:?}");

        let text = tale(0, 400_000);
        let mut pairs: HashMap<(&str, &str), usize> = HashMap::new();
        let mut verbs: HashMap<&str, usize> = HashMap::new();
        for s in text.split(". ").filter(|s| s.starts_with("The ") && s.split(' ').count() == 6) {
            let w: Vec<&str> = s.split(' ').collect();
            if !w[3].is_empty() && w[3].ends_with('s') {
                *pairs.entry((w[2], w[3])).or_default() += 1;
                *verbs.entry(w[2]).or_default() += 1;
            }
        }
        let (noun, n) = verbs.iter().max_by_key(|(_, n)| **n).unwrap();
        let mut own: Vec<usize> = pairs.iter().filter(|(k, _)| k.0 == *noun).map(|(_, n)| *n).collect();
        own.sort_unstable();
        let friends: usize = own.iter().rev().take(FRIENDS).sum();
        assert!(friends as f64 > 0.75 * *n as f64, "{noun}: {own:?}");
    }
}
