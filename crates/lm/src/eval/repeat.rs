//! Answers that end in a loop.
//!
//! A fine-tuned model that lost its end-of-turn token, or whose likelihood collapsed, repeats itself until the limit
//! of tokens: endless newlines after `<think>`, one sentence again and again. Such an answer is counted apart, since
//! it is neither long nor diverse.

/// What makes a loop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoopLimits {
    /// Least number of times that the period fits into the repeated end.
    pub repeats: usize,
    /// Least share of the text that the repeated end covers.
    pub share: f64,
    /// Least length of the repeated end, in characters or tokens: what keeps `!!!!` and `1, 1, 1, 1` out.
    pub length: usize,
}

impl LoopLimits {
    /// For characters: four times, a quarter of the text, 32 characters.
    pub const CHARS: Self = LoopLimits { repeats: 4, share: 0.25, length: 32 };
    /// For tokens: four times, a quarter of the text, 16 tokens.
    pub const TOKENS: Self = LoopLimits { repeats: 4, share: 0.25, length: 16 };
}

/// The loop at the end of a sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TailLoop {
    /// Length of what is repeated.
    pub period: usize,
    /// How often it fits into the repeated end; the last time need not be complete.
    pub repeats: usize,
    /// Where the repeated end starts.
    pub start: usize,
    /// Its share of the sequence.
    pub share: f64,
}

/// The loop with which `tokens` end: the shortest period that keeps the limits.
///
/// # Equation
/// For the period `p`, the repeated end is the longest suffix with `x_i = x_{i-p}`, with the first period in front of
/// it. Every `p` costs one look, by the lengths at which the reversed sequence matches its own shifts.
///
/// An exact loop only: `1. 2. 3.` with equal texts behind the numbers is none. A text that ends in a refrain sung
/// often enough is one; raise the limits where that is wanted.
///
/// # Reference
/// Holtzman et al., "The Curious Case of Neural Text Degeneration", ICLR 2020 (the phenomenon); Gusfield 1997, chapter
/// 1 (the matches).
///
/// # Cost
/// Linear in the number of tokens.
pub fn tail_loop<T: PartialEq>(tokens: &[T], limits: &LoopLimits) -> Option<TailLoop> {
    let n = tokens.len();
    let matches = self_matches(tokens);
    (1..=n / limits.repeats.max(1)).find_map(|period| {
        let length = (period + matches.get(period).copied().unwrap_or(0)).min(n);
        let share = length as f64 / n as f64;
        let repeats = length / period;
        let found = repeats >= limits.repeats.max(2) && share >= limits.share && length >= limits.length;
        found.then(|| TailLoop { period, repeats, start: n - length, share })
    })
}

/// [`tail_loop`] over the characters of a text.
pub fn tail_loop_of_text(text: &str, limits: &LoopLimits) -> Option<TailLoop> {
    tail_loop(&text.chars().collect::<Vec<_>>(), limits)
}

/// For each shift, how many elements at the end equal those that many places before (the Z function of the reverse).
fn self_matches<T: PartialEq>(tokens: &[T]) -> Vec<usize> {
    let n = tokens.len();
    let at = |i: usize| &tokens[n - 1 - i];
    let mut z = vec![0; n];
    let (mut from, mut to) = (0, 0);
    for i in 1..n {
        if i < to {
            z[i] = z[i - from].min(to - i);
        }
        while i + z[i] < n && at(z[i]) == at(i + z[i]) {
            z[i] += 1;
        }
        if i + z[i] > to {
            (from, to) = (i, i + z[i]);
        }
    }
    z
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const CHARS: LoopLimits = LoopLimits::CHARS;
    const REFRAIN: &str = "The river took the road in May,\nand low the water ran,\n\
        and we shall all go down, go down,\nand we shall all go down.\n\n\
        The miller lost his wheel that day,\nand so did every man,\n\
        and we shall all go down, go down,\nand we shall all go down.\n\n\
        The baker shut his door for good,\nthe smith put out his fire,\n\
        and we shall all go down, go down,\nand we shall all go down.";

    #[test]
    fn endless_newlines_after_a_tag_are_a_loop_of_period_one() {
        let text = format!("<think>{}", "\n".repeat(93));
        let l = tail_loop_of_text(&text, &CHARS).unwrap();
        assert_eq!(l, TailLoop { period: 1, repeats: 93, start: 7, share: 0.93 });
    }

    #[test]
    fn a_repeated_sentence_is_found_behind_good_text_and_may_be_cut_off() {
        let text = format!("{}{}I am", REFRAIN, " I am sorry, I cannot.".repeat(8));
        let l = tail_loop_of_text(&text, &CHARS);
        assert_eq!(l, None, "the end is no part of the period");
        let text = format!("{}{} I am", REFRAIN, " I am sorry, I cannot.".repeat(8));
        let l = tail_loop_of_text(&text, &CHARS).unwrap();
        assert_eq!((l.period, l.repeats), (22, 8));
        // The period of the refrain's last sign is part of the loop: it stands before the first repetition too.
        assert_eq!(l.start, REFRAIN.len() - 1);
    }

    #[test]
    fn natural_texts_with_refrains_lists_and_marks_are_none() {
        assert_eq!(tail_loop_of_text(REFRAIN, &CHARS), None);
        assert_eq!(tail_loop_of_text("That is great news!!!!!", &CHARS), None);
        assert_eq!(tail_loop_of_text(&format!("{REFRAIN}\n\n{}", "-".repeat(60)), &CHARS), None);
        assert_eq!(tail_loop_of_text("", &CHARS), None);
        let list: String = (1..40).map(|i| format!("{i}. item\n")).collect();
        assert_eq!(tail_loop_of_text(&list, &CHARS), None);
    }

    #[test]
    fn tokens_have_limits_of_their_own() {
        let mut tokens: Vec<u32> = (0..30).collect();
        tokens.extend([7, 8, 9].repeat(10));
        let l = tail_loop(&tokens, &LoopLimits::TOKENS).unwrap();
        assert_eq!(l, TailLoop { period: 3, repeats: 10, start: 30, share: 0.5 });
        assert_eq!(tail_loop(&tokens[..42], &LoopLimits::TOKENS), None, "12 tokens are too short");
        let strict = LoopLimits { share: 0.6, ..LoopLimits::TOKENS };
        assert_eq!(tail_loop(&tokens, &strict), None);
        assert_eq!(tail_loop(&tokens, &LoopLimits { repeats: 11, ..LoopLimits::TOKENS }), None);
    }

    #[test]
    fn matches_are_those_of_a_plain_search() {
        let mut rng = rhumb_linalg::rng::Rng::new(5);
        for n in 0..40 {
            let tokens: Vec<usize> = (0..n).map(|_| rng.below(2)).collect();
            let z = self_matches(&tokens);
            for p in 1..n {
                let want = (0..n - p).take_while(|i| tokens[n - 1 - i] == tokens[n - 1 - i - p]).count();
                assert_eq!(z[p], want);
            }
        }
    }
}
