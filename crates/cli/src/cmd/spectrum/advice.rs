//! The verdict in words.

use rhumb_spectrum::{Advice, Diagonality, Expectation};

use super::measure::Structure;
use crate::table::{counted, number};

/// Will SGD do?
pub(super) fn sgd(a: &Advice) -> String {
    let verdict = match a.expectation {
        Expectation::Nothing => {
            "should do: the blocks are alike, and one learning rate serves all of them (of our own nets a perceptron of 0.3 \
             decades lost 0.003 nats to it in place of Adam)"
        }
        Expectation::Little => {
            "with momentum and a tuned rate may come close to Adam (of our own nets a convolutional one of 1.9 decades lost \
             0.01 nats, a pre-trained decoder of 1.7 lost 0.09)"
        }
        Expectation::Much => {
            "is likely to stay behind Adam (of our own nets a vision transformer of 2.8 decades lost 0.15 nats, decoders of \
             3.8 and 4.0 lost 0.73 and 0.67; but a masked encoder of 5.9 lost nothing)"
        }
    };
    let (largest, smallest) = (&a.largest, &a.smallest);
    let chance = match a.decades.len() {
        0 | 1 => "one start vector says nothing of chance: --probes 3 does".to_owned(),
        n if a.is_settled() => {
            format!("each of {n} start vectors alone says the same ({})", range(&a.decades))
        }
        n => format!("{} alone do not agree ({})", counted(n as u64, "start vector"), range(&a.decades)),
    };
    format!(
        "{verdict}. The largest magnitudes lie {} decades apart, from {} in {} to {} in {}; {chance}. Other data, other \
         blocks and another moment of training may differ more",
        number((largest.1 / smallest.1).log10()),
        number(largest.1),
        largest.0,
        number(smallest.1),
        smallest.0
    )
}

fn range(decades: &[f64]) -> String {
    let (low, high) = decades.iter().fold((f64::INFINITY, 0.0_f64), |(a, b), d| (a.min(*d), b.max(*d)));
    format!("{} to {}", number(low), number(high))
}

/// Most of the squared norm.
const MOST: f64 = 0.5;
/// As many times an even share as chance does not give.
const CLEARLY: f64 = 2.0;

/// Which blocks for Adam-mini?
pub(super) fn partition(all: &[Structure]) -> String {
    if all.is_empty() {
        return "not asked: --structure 64 measures how much curvature lies inside heads and rows; without it the preset \
                rhumb cuts queries and keys by heads and other matrices by rows"
            .to_owned();
    }
    let (mut by_heads, mut by_rows, mut neither) = (Vec::new(), Vec::new(), Vec::new());
    for s in all {
        match &s.heads {
            Some(h) if h.share - 2.0 * h.error > MOST => by_heads.push((s, h)),
            _ if s.rows.share - 2.0 * s.rows.error > CLEARLY * s.rows.unstructured => {
                by_rows.push((s, &s.rows));
            }
            _ => neither.push(s),
        }
    }
    let mut said = Vec::new();
    if !by_heads.is_empty() {
        said.push(format!("by heads, which hold most of the curvature: {}", told(&by_heads)));
    }
    if !by_rows.is_empty() {
        let coupled = by_rows.iter().filter(|(_, d)| d.share < MOST).count();
        let part = if coupled == 0 { "most" } else { "far more than an even share, though not always most," };
        said.push(format!("by rows, which hold {part} of it: {}", told(&by_rows)));
    }
    if !neither.is_empty() {
        let names: Vec<&str> = neither.iter().map(|s| s.tensor.as_str()).collect();
        said.push(format!(
            "no blocks can be told from chance in {}: one second moment for each element is the safe choice, or more \
             products (--structure)",
            names.join(", ")
        ));
    }
    said.join("; ")
}

fn told(group: &[(&Structure, &Diagonality)]) -> String {
    let one = |(s, d): &(&Structure, &Diagonality)| {
        format!(
            "{} ({} ± {}, {} if even)",
            s.tensor,
            number(d.share),
            number(d.error),
            number(d.unstructured)
        )
    };
    group.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(share: f64, error: f64, unstructured: f64) -> Diagonality {
        Diagonality { share, error, unstructured, products: 64 }
    }

    #[test]
    fn blocks_are_those_that_hold_the_curvature() {
        let s =
            |name: &str, heads: Option<Diagonality>, rows| Structure { tensor: name.to_owned(), heads, rows };
        let all = [
            s("q", Some(share(0.88, 0.01, 0.25)), share(0.2, 0.01, 0.01)),
            // Heads that hold most of it only by chance are none.
            s("v", Some(share(0.55, 0.1, 0.25)), share(0.2, 0.01, 0.01)),
            s("head", None, share(0.8, 0.01, 0.01)),
            s("o", None, share(0.02, 0.01, 0.01)),
        ];
        let said = partition(&all);
        let (heads, rows) = (said.find("by heads").unwrap_or(9999), said.find("by rows").unwrap_or(9999));
        let none = said.find("no blocks").unwrap_or(9999);
        let at = |name: &str| said.find(&format!("{name} (")).unwrap_or(9999);
        assert!(heads < at("q") && at("q") < rows && rows < at("v") && at("v") < none, "{said}");
        assert!(rows < at("head") && at("head") < none && said[none..].contains(" o:"), "{said}");
        assert!(partition(&[]).contains("--structure"));
    }

    #[test]
    fn the_verdict_names_the_blocks_and_whether_chance_could_change_it() {
        let mut a = Advice {
            expectation: Expectation::Much,
            single: vec![Expectation::Much],
            decades: vec![3.0],
            largest: ("down".to_owned(), 10.0),
            smallest: ("k".to_owned(), 0.01),
        };
        assert!(
            sgd(&a).contains("from 10 in down to 0.01 in k") && sgd(&a).contains("--probes"),
            "{}",
            sgd(&a)
        );
        (a.single, a.decades) = (vec![Expectation::Much; 2], vec![2.9, 3.1]);
        assert!(sgd(&a).contains("says the same (2.9 to 3.1)"), "{}", sgd(&a));
        (a.single, a.decades) = (vec![Expectation::Much, Expectation::Little], vec![2.9, 2.1]);
        assert!(sgd(&a).contains("do not agree (2.1 to 2.9)"), "{}", sgd(&a));
    }
}
