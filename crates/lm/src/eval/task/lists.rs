//! Questions about lists, letters and words.

use rhumb_linalg::rng::Rng;

use super::{Problem, list, one_number};

/// Words to choose from: common, short, of few letters.
pub(super) const WORDS: [&str; 64] = [
    "star", "rain", "tree", "stone", "house", "bread", "water", "light", "train", "green", "smile", "table",
    "chair", "river", "cloud", "dream", "heart", "paper", "plant", "spoon", "sugar", "tiger", "toast",
    "towel", "wheat", "world", "beach", "brush", "candle", "carrot", "castle", "circle", "corner", "desert",
    "dinner", "engine", "flower", "forest", "garden", "hammer", "island", "kitten", "ladder", "letter",
    "market", "mirror", "needle", "orange", "pencil", "pepper", "pocket", "rabbit", "saddle", "school",
    "silver", "spider", "spring", "street", "summer", "tunnel", "violin", "window", "winter", "yellow",
];

/// Different numbers and their increasing order.
#[derive(Clone, Debug)]
pub(super) struct Sort(Vec<usize>);

impl Sort {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let mut all: Vec<usize> = (0..=20).collect();
        rng.shuffle(&mut all);
        all.truncate(3 + rng.below(3));
        Sort(all)
    }

    fn sorted(&self) -> Vec<String> {
        let mut s = self.0.clone();
        s.sort_unstable();
        s.iter().map(usize::to_string).collect()
    }
}

impl Problem for Sort {
    fn prompt(&self) -> String {
        let given: Vec<String> = self.0.iter().map(usize::to_string).collect();
        format!("sort {} :", given.join(" "))
    }

    fn prose(&self) -> String {
        let given: Vec<String> = self.0.iter().map(usize::to_string).collect();
        format!("Sort these numbers in increasing order: {}. Answer with the numbers only.", given.join(", "))
    }

    fn verify(&self, answer: &str) -> bool {
        list(answer) == self.sorted()
    }

    fn answers(&self) -> Vec<String> {
        vec![self.sorted().join(" ")]
    }
}

/// Letters and one that is counted.
#[derive(Clone, Debug)]
pub(super) struct Count {
    letters: Vec<char>,
    counted: char,
}

impl Count {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let mut letter = || [b'a', b'b', b'c', b'd'][rng.below(4)] as char;
        let counted = letter();
        let eight: Vec<char> = (0..8).map(|_| letter()).collect();
        let n = 4 + rng.below(5);
        Count { letters: eight[..n].to_vec(), counted }
    }

    fn count(&self) -> usize {
        self.letters.iter().filter(|l| **l == self.counted).count()
    }
}

impl Problem for Count {
    fn prompt(&self) -> String {
        let letters: Vec<String> = self.letters.iter().map(char::to_string).collect();
        format!("count {} in {} :", self.counted, letters.join(" "))
    }

    fn prose(&self) -> String {
        let letters: String = self.letters.iter().collect();
        format!(
            "How often does the letter {} occur in \"{letters}\"? Answer with the number only.",
            self.counted
        )
    }

    fn verify(&self, answer: &str) -> bool {
        one_number(answer) == Some(self.count() as i64)
    }

    fn answers(&self) -> Vec<String> {
        vec![self.count().to_string()]
    }
}

/// Two letters that a word has.
#[derive(Clone, Debug)]
pub(super) struct Word(char, char);

impl Word {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        loop {
            let word: Vec<char> = WORDS[rng.below(WORDS.len())].chars().collect();
            let (a, b) = (word[rng.below(word.len())], word[rng.below(word.len())]);
            let drawn = Word(a.min(b), a.max(b));
            if a != b && drawn.answers().len() > 1 {
                return drawn;
            }
        }
    }

    fn fits(&self, word: &str) -> bool {
        word.contains(self.0) && word.contains(self.1)
    }
}

impl Problem for Word {
    fn prompt(&self) -> String {
        format!("word with {} {} :", self.0, self.1)
    }

    fn prose(&self) -> String {
        format!(
            "Choose a word that has both of the letters {} and {} from this list: {}. Answer with the word only.",
            self.0,
            self.1,
            WORDS.join(", ")
        )
    }

    fn verify(&self, answer: &str) -> bool {
        let word = answer.trim().to_lowercase();
        self.fits(&word) && WORDS.contains(&word.as_str())
    }

    fn answers(&self) -> Vec<String> {
        WORDS.iter().filter(|w| self.fits(w)).map(|w| (*w).to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_lists_may_have_commas() {
        let s = Sort(vec![9, 2, 15]);
        assert_eq!(s.answers(), ["2 9 15"]);
        assert!(s.verify("2, 9, 15") && s.verify("2 9 15\n"));
        assert!(!s.verify("2 15 9") && !s.verify("2 9") && !s.verify("2 9 15 15") && !s.verify("2 9 1 5"));
    }

    #[test]
    fn letters_are_counted() {
        let c = Count { letters: "bacabb".chars().collect(), counted: 'b' };
        assert_eq!((c.prompt().as_str(), c.answers()), ("count b in b a c a b b :", vec!["3".to_owned()]));
        assert!(c.verify("3") && !c.verify("2"));
    }

    #[test]
    fn words_have_both_letters_and_are_listed() {
        let w = Word('a', 't');
        assert!(w.verify("star") && w.verify(" Castle ") && !w.verify("tree") && !w.verify("cat"));
        assert!(w.answers().contains(&"rabbit".to_owned()) && !w.answers().contains(&"rain".to_owned()));
    }
}
