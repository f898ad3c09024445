//! Questions about graphs and orders of letters.

use rhumb_linalg::rng::Rng;

use super::{Problem, list, permutations};

/// Pairs of letters between commas.
fn pairs(pairs: &[(char, char)], between: &str) -> String {
    pairs.iter().map(|(a, b)| format!("{a}{between}{b}")).collect::<Vec<_>>().join(" , ")
}

/// Every pair `a < b` of the first `n` letters.
fn all_pairs(n: u8) -> Vec<(char, char)> {
    let letters = b'a'..b'a' + n;
    letters.flat_map(|a| (a + 1..b'a' + n).map(move |b| (a as char, b as char))).collect()
}

/// The single letters of an answer; `None` where a part is none.
fn letters(answer: &str) -> Option<Vec<char>> {
    list(answer).iter().map(|p| p.chars().next().filter(char::is_ascii_lowercase)).collect()
}

fn spaced(letters: &[char]) -> String {
    letters.iter().map(char::to_string).collect::<Vec<_>>().join(" ")
}

/// Two nodes of a graph of six.
#[derive(Clone, Debug)]
pub(super) struct Path {
    edges: Vec<(char, char)>,
    from: char,
    to: char,
}

impl Path {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        loop {
            let mut edges = all_pairs(6);
            rng.shuffle(&mut edges);
            edges.truncate(6 + rng.below(3));
            edges.sort_unstable();
            let mut ends: Vec<char> = ('a'..='f').collect();
            rng.shuffle(&mut ends);
            let drawn = Path { edges, from: ends[0], to: ends[1] };
            if drawn.answers().len() > 1 {
                return drawn;
            }
        }
    }

    fn joined(&self, a: char, b: char) -> bool {
        self.edges.contains(&(a.min(b), a.max(b)))
    }

    fn extend(&self, path: &mut Vec<char>, out: &mut Vec<Vec<char>>) {
        if path.last() == Some(&self.to) {
            out.push(path.clone());
            return;
        }
        for next in 'a'..='f' {
            if !path.contains(&next) && path.last().is_some_and(|l| self.joined(*l, next)) {
                path.push(next);
                self.extend(path, out);
                path.pop();
            }
        }
    }
}

impl Problem for Path {
    fn prompt(&self) -> String {
        format!("path {} to {} by {} :", self.from, self.to, pairs(&self.edges, " "))
    }

    fn prose(&self) -> String {
        format!(
            "A graph has the undirected edges {}. Give a path from {} to {} that visits no node twice. Answer with its \
             nodes only, in order.",
            pairs(&self.edges, "-"),
            self.from,
            self.to
        )
    }

    fn verify(&self, answer: &str) -> bool {
        let Some(path) = letters(&answer.replace("->", " ").replace('-', " ")) else { return false };
        let ends = (path.first(), path.last()) == (Some(&self.from), Some(&self.to));
        let once = path.iter().enumerate().all(|(i, n)| !path[..i].contains(n));
        ends && once && path.windows(2).all(|w| self.joined(w[0], w[1]))
    }

    /// Short paths first.
    fn answers(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.extend(&mut vec![self.from], &mut out);
        out.sort_by_key(Vec::len);
        out.iter().map(|p| spaced(p)).collect()
    }
}

/// Letters of which some stand before others.
#[derive(Clone, Debug)]
pub(super) struct Order {
    letters: Vec<char>,
    before: Vec<(char, char)>,
}

impl Order {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        loop {
            let n = 4 + rng.below(2);
            let letters: Vec<char> = ('a'..='e').take(n).collect();
            let mut hidden = letters.clone();
            rng.shuffle(&mut hidden);
            let mut before: Vec<(char, char)> = (0..n)
                .flat_map(|i| (i + 1..n).map(move |j| (i, j)))
                .map(|(i, j)| (hidden[i], hidden[j]))
                .collect();
            rng.shuffle(&mut before);
            before.truncate(2 + rng.below(n - 2));
            before.sort_unstable();
            let drawn = Order { letters, before };
            if drawn.answers().len() > 1 {
                return drawn;
            }
        }
    }

    fn kept(&self, order: &[char]) -> bool {
        let at = |c: char| order.iter().position(|o| *o == c);
        self.before.iter().all(|(a, b)| at(*a).zip(at(*b)).is_some_and(|(i, j)| i < j))
    }
}

impl Problem for Order {
    fn prompt(&self) -> String {
        format!("order {} with {} :", spaced(&self.letters), pairs(&self.before, " < "))
    }

    fn prose(&self) -> String {
        let rules: Vec<String> = self.before.iter().map(|(a, b)| format!("{a} before {b}")).collect();
        format!(
            "Put the letters {} in an order with {}. Answer with the letters only.",
            spaced(&self.letters),
            rules.join(", ")
        )
    }

    fn verify(&self, answer: &str) -> bool {
        let Some(order) = letters(answer) else { return false };
        let mut sorted = order.clone();
        sorted.sort_unstable();
        sorted == self.letters && self.kept(&order)
    }

    fn answers(&self) -> Vec<String> {
        permutations(self.letters.len())
            .into_iter()
            .map(|p| p.iter().map(|i| self.letters[*i]).collect::<Vec<_>>())
            .filter(|o| self.kept(o))
            .map(|o| spaced(&o))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_edges_in_both_directions_and_visit_no_node_twice() {
        let p = Path {
            edges: vec![('a', 'b'), ('a', 'c'), ('b', 'd'), ('c', 'd'), ('b', 'c')],
            from: 'd',
            to: 'a',
        };
        assert_eq!(p.answers(), ["d b a", "d c a", "d b c a", "d c b a"]);
        assert!(p.verify("d-b-a") && p.verify("d -> c -> a") && p.verify("d, b, a") && p.verify("dba"));
        for wrong in ["d a", "a b d", "d b d c a", "d b", "", "d b a x", "d b 1 a"] {
            assert!(!p.verify(wrong), "{wrong}");
        }
    }

    #[test]
    fn orders_keep_every_constraint_and_use_every_letter_once() {
        let o = Order { letters: vec!['a', 'b', 'c'], before: vec![('b', 'a')] };
        assert_eq!(o.answers(), ["b a c", "b c a", "c b a"]);
        assert!(o.verify("b, a, c") && !o.verify("a b c") && !o.verify("b a") && !o.verify("b a c c"));
    }
}
