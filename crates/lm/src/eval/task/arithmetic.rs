//! Questions about numbers.

use std::collections::HashSet;

use rhumb_linalg::rng::Rng;

use super::{LARGEST, Problem, one_number, parts, permutations};

/// Two numbers and their sum.
#[derive(Clone, Debug)]
pub(super) struct Add(i64, i64);

impl Add {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        Add(rng.below(50) as i64, rng.below(50) as i64)
    }
}

impl Problem for Add {
    fn prompt(&self) -> String {
        format!("add {} {} :", self.0, self.1)
    }

    fn prose(&self) -> String {
        format!("What is {} + {}? Answer with the number only.", self.0, self.1)
    }

    fn verify(&self, answer: &str) -> bool {
        one_number(answer) == Some(self.0 + self.1)
    }

    fn answers(&self) -> Vec<String> {
        vec![(self.0 + self.1).to_string()]
    }
}

/// A number, what it is divided by, and the remainder.
#[derive(Clone, Debug)]
pub(super) struct Mod(i64, i64);

impl Mod {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        Mod(rng.below(100) as i64, 2 + rng.below(11) as i64)
    }
}

impl Problem for Mod {
    fn prompt(&self) -> String {
        format!("mod {} by {} :", self.0, self.1)
    }

    fn prose(&self) -> String {
        format!(
            "What is the remainder when {} is divided by {}? Answer with the number only.",
            self.0, self.1
        )
    }

    fn verify(&self, answer: &str) -> bool {
        one_number(answer) == Some(self.0 % self.1)
    }

    fn answers(&self) -> Vec<String> {
        vec![(self.0 % self.1).to_string()]
    }
}

/// A number and how many positive ones add up to it.
#[derive(Clone, Debug)]
pub(super) struct Split {
    sum: i64,
    parts: usize,
}

impl Split {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        Split { sum: 4 + rng.below(27) as i64, parts: 2 + rng.below(2) }
    }

    /// Every way to write `sum` in `parts` parts.
    fn ways(sum: i64, parts: usize) -> Vec<Vec<i64>> {
        if parts == 1 {
            return vec![vec![sum]];
        }
        let rest = parts as i64 - 1;
        let firsts = 1..=sum - rest;
        firsts
            .flat_map(|a| {
                Self::ways(sum - a, parts - 1).into_iter().map(move |w| std::iter::once(a).chain(w).collect())
            })
            .collect()
    }
}

impl Problem for Split {
    fn prompt(&self) -> String {
        format!("split {} in {} :", self.sum, self.parts)
    }

    fn prose(&self) -> String {
        format!(
            "Write {} as a sum of {} positive whole numbers, such as a + b. Answer with the sum only.",
            self.sum, self.parts
        )
    }

    fn verify(&self, answer: &str) -> bool {
        let tokens = parts(answer);
        let plus = tokens.iter().skip(1).step_by(2).all(|t| t == "+");
        let numbers: Option<Vec<i64>> = tokens.iter().step_by(2).map(|t| t.parse().ok()).collect();
        let Some(numbers) = numbers.filter(|_| plus && tokens.len() + 1 == 2 * self.parts) else {
            return false;
        };
        let sum = numbers.iter().try_fold(0i64, |s, n| s.checked_add(*n));
        numbers.iter().all(|n| *n > 0) && sum == Some(self.sum)
    }

    fn answers(&self) -> Vec<String> {
        let text = |w: Vec<i64>| w.iter().map(i64::to_string).collect::<Vec<_>>().join(" + ");
        Self::ways(self.sum, self.parts).into_iter().map(text).collect()
    }
}

/// Three different numbers and a value that they make with `+`, `-` and `*`.
#[derive(Clone, Debug)]
pub(super) struct Make {
    given: Vec<i64>,
    value: i64,
}

const OPERATORS: [&str; 3] = ["+", "-", "*"];

impl Make {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        loop {
            let mut digits: Vec<i64> = (1..=9).collect();
            rng.shuffle(&mut digits);
            let mut given = digits[..3].to_vec();
            let ops = [OPERATORS[rng.below(3)], OPERATORS[rng.below(3)]];
            let value = evaluate(&expression(&given, &ops));
            given.sort_unstable();
            let Some(value) = value.filter(|v| (1..=LARGEST).contains(v)) else { continue };
            let drawn = Make { given, value };
            if drawn.answers().len() > 1 {
                return drawn;
            }
        }
    }
}

impl Problem for Make {
    fn prompt(&self) -> String {
        let [a, b, c] = [0, 1, 2].map(|i| self.given[i]);
        format!("make {} from {a} {b} {c} :", self.value)
    }

    fn prose(&self) -> String {
        let [a, b, c] = [0, 1, 2].map(|i| self.given[i]);
        format!(
            "Make {} from the numbers {a}, {b} and {c}, each used exactly once, with +, - and * and without brackets. \
             Answer with the expression only.",
            self.value
        )
    }

    fn verify(&self, answer: &str) -> bool {
        let tokens = parts(answer);
        let mut used: Vec<i64> = tokens.iter().step_by(2).filter_map(|t| t.parse().ok()).collect();
        used.sort_unstable();
        tokens.len() == 5 && used == self.given && evaluate(&tokens) == Some(self.value)
    }

    fn answers(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        let orders = permutations(self.given.len());
        let ops = OPERATORS.iter().flat_map(|a| OPERATORS.iter().map(move |b| [*a, *b]));
        ops.flat_map(|o| orders.iter().map(move |p| (o, p)))
            .map(|(o, p)| expression(&p.iter().map(|i| self.given[*i]).collect::<Vec<_>>(), &o))
            .filter(|e| evaluate(e) == Some(self.value))
            .map(|e| e.join(" "))
            .filter(|e| seen.insert(e.clone()))
            .collect()
    }
}

fn expression(numbers: &[i64], ops: &[&str]) -> Vec<String> {
    let mut out = vec![numbers[0].to_string()];
    for (op, n) in ops.iter().zip(&numbers[1..]) {
        out.extend([(*op).to_owned(), n.to_string()]);
    }
    out
}

/// The value of numbers with `+`, `-`, `*` between them, products first.
fn evaluate(tokens: &[String]) -> Option<i64> {
    let (mut sum, mut term) = (0i64, tokens.first()?.parse::<i64>().ok()?);
    for pair in tokens[1..].chunks(2) {
        let [op, n] = pair else { return None };
        let n: i64 = n.parse().ok()?;
        match op.as_str() {
            "*" => term = term.checked_mul(n)?,
            "+" => (sum, term) = (sum.checked_add(term)?, n),
            "-" => (sum, term) = (sum.checked_add(term)?, -n),
            _ => return None,
        }
    }
    sum.checked_add(term)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_compositions() {
        let s = Split { sum: 4, parts: 2 };
        assert_eq!(s.answers(), ["1 + 3", "2 + 2", "3 + 1"]);
        assert_eq!(Split { sum: 12, parts: 3 }.answers().len(), 55);
        assert!(s.verify("3+1") && s.verify(" 2 +2\n"));
        for wrong in ["4", "0 + 4", "1 + 1 + 2", "1 + 2", "1 - 3", "1 + 3 =", "1 + -3", "", "a + b"] {
            assert!(!s.verify(wrong), "{wrong}");
        }
        assert!(!s.verify("9223372036854775807 + 9223372036854775807"));
    }

    #[test]
    fn expressions_bind_products_first() {
        let m = Make { given: vec![2, 3, 5], value: 13 };
        assert_eq!(
            m.answers(),
            ["3 + 2 * 5", "3 + 5 * 2", "2 * 5 + 3", "5 * 2 + 3", "3 * 5 - 2", "5 * 3 - 2"]
        );
        assert!(m.verify("2*5+3"));
        for wrong in
            ["2 * 3 + 5", "10 + 3", "2 * 5 + 3 + 0", "5 + 5 + 3", "2 * 5 3", "(2 * 5) + 3", "2 * 5 + 3 ="]
        {
            assert!(!m.verify(wrong), "{wrong}");
        }
        let value = |t: &str| evaluate(&parts(t));
        assert_eq!(
            [value("9 - 2 * 4"), value("9 - 2 - 4"), value("2 * 3 * 4")],
            [Some(1), Some(3), Some(24)]
        );
        assert_eq!([value("9 -"), value(""), value("9 / 3")], [None; 3]);
    }

    #[test]
    fn single_numbers_are_taken_as_they_are() {
        assert!(Add(17, 25).verify(" 42 ") && !Add(17, 25).verify("42.") && !Add(17, 25).verify("+42"));
        assert!(Mod(17, 5).verify("2") && !Mod(17, 5).verify("-3") && !Mod(17, 5).verify("7"));
    }
}
