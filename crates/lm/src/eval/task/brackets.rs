//! Questions about brackets.

use rhumb_linalg::rng::Rng;

use super::{Problem, parts};

const KINDS: [(char, char); 2] = [('(', ')'), ('[', ']')];

/// Brackets that are open or closed, and the length that balances them.
#[derive(Clone, Debug)]
pub(super) struct Close {
    given: Vec<char>,
    length: usize,
}

impl Close {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        loop {
            let (mut given, mut open) = (Vec::new(), Vec::new());
            for _ in 0..=rng.below(5) {
                let (o, c) = KINDS[rng.below(2)];
                match open.pop_if(|_| rng.below(3) == 0) {
                    Some(close) => given.push(close),
                    None => {
                        given.push(o);
                        open.push(c);
                    }
                }
            }
            let free = 2 * (1 + rng.below(2));
            let drawn = Close { length: given.len() + open.len() + free, given };
            if drawn.length <= 10 && !open.is_empty() {
                return drawn;
            }
        }
    }

    fn extend(&self, text: &mut Vec<char>, open: &mut Vec<char>, out: &mut Vec<String>) {
        let left = self.length - text.len();
        if left == 0 {
            out.push(text[self.given.len()..].iter().map(char::to_string).collect::<Vec<_>>().join(" "));
            return;
        }
        if let Some(c) = open.pop() {
            text.push(c);
            self.extend(text, open, out);
            text.pop();
            open.push(c);
        }
        if left >= open.len() + 2 {
            for (o, c) in KINDS {
                text.push(o);
                open.push(c);
                self.extend(text, open, out);
                text.pop();
                open.pop();
            }
        }
    }
}

/// What is still open, as the brackets that close it; `None` where one closes nothing.
fn still_open(text: &[char]) -> Option<Vec<char>> {
    let mut open = Vec::new();
    for c in text {
        match KINDS.iter().find(|k| k.0 == *c) {
            Some(k) => open.push(k.1),
            None if open.pop() == Some(*c) => {}
            None => return None,
        }
    }
    Some(open)
}

impl Problem for Close {
    fn prompt(&self) -> String {
        let given: Vec<String> = self.given.iter().map(char::to_string).collect();
        format!("close {} to {} :", given.join(" "), self.length)
    }

    fn prose(&self) -> String {
        let given: String = self.given.iter().collect();
        format!(
            "Continue the brackets {given} with ( ) [ ] so that all are balanced and there are {} in total. Answer with \
             the continuation only.",
            self.length
        )
    }

    fn verify(&self, answer: &str) -> bool {
        let added: Vec<char> = parts(answer).iter().flat_map(|p| p.chars().collect::<Vec<_>>()).collect();
        let text = [&self.given[..], &added].concat();
        text.len() == self.length && still_open(&text).is_some_and(|o| o.is_empty())
    }

    /// Those that close first come first.
    fn answers(&self) -> Vec<String> {
        let mut out = Vec::new();
        let mut open = still_open(&self.given).unwrap_or_default();
        self.extend(&mut self.given.clone(), &mut open, &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_balance_and_have_the_length() {
        let c = Close { given: vec!['(', '['], length: 6 };
        assert_eq!(c.answers(), ["] ) ( )", "] ) [ ]", "] ( ) )", "] [ ] )", "( ) ] )", "[ ] ] )"]);
        assert!(c.verify("])()") && c.verify("( ) ] )"));
        for wrong in ["] )", ") ]", "] ) ( ]", "] ) ) (", "", "] ) x )", "1 ) ( )"] {
            assert!(!c.verify(wrong), "{wrong}");
        }
    }
}
