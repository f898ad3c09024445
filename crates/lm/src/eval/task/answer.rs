//! Answers within what a model says.

use std::collections::BTreeSet;

use super::{Problem, list};

/// The part of a response that is judged: what follows the last "answer is" up to the end of that line, or else the
/// whole response, in both cases without white space, quotes, asterisks, backticks and a period around it.
///
/// A model that explains itself in other words is wrong by this rule; the questions ask for the answer only.
pub fn cut(response: &str) -> &str {
    const MARK: &str = "answer is";
    let marked = response.to_ascii_lowercase().rfind(MARK).map(|at| {
        let rest = response[at + MARK.len()..].trim_start_matches([':', ' ']);
        rest.split('\n').next().unwrap_or_default()
    });
    let around = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '*' | '`');
    marked.unwrap_or(response).trim_matches(around).trim_end_matches('.').trim_matches(around)
}

/// Number of different right answers; spaces, capitals, and commas or hyphens between letters make no difference.
pub fn distinct_right(problem: &dyn Problem, answers: &[&str]) -> usize {
    let right = answers.iter().filter(|a| problem.verify(a));
    right.map(|a| bare(a)).collect::<BTreeSet<_>>().len()
}

fn bare(answer: &str) -> Vec<String> {
    let mut parts = list(&answer.to_lowercase());
    if !answer.contains(|c: char| c.is_ascii_digit()) {
        parts.retain(|p| p != "-");
    }
    parts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use rhumb_linalg::rng::Rng;

    use super::super::Task;
    use super::*;

    #[test]
    fn an_answer_is_cut_out_of_what_stands_around_it() {
        for (response, want) in [
            ("42", "42"),
            (" **42**.\n", "42"),
            ("The answer is: 1 + 2\nbecause 3.", "1 + 2"),
            ("The answer is 5? No, the ANSWER IS `6`.", "6"),
            ("\"star\".", "star"),
            ("I think 42", "I think 42"),
            ("", ""),
        ] {
            assert_eq!(cut(response), want, "{response:?}");
        }
    }

    #[test]
    fn right_answers_that_differ_in_spaces_are_one() {
        let mut rng = Rng::new(4);
        for task in Task::ALL {
            let p = task.problem(&mut rng);
            let all = p.answers();
            let mut said: Vec<String> = all.clone();
            said.extend(all.iter().map(|a| format!("  {a} ")));
            let between = match task {
                Task::Split | Task::Make | Task::Close => "",
                Task::Path => " - ",
                _ => " ",
            };
            said.extend(all.iter().map(|a| a.replace(' ', between)));
            said.push("nonsense".into());
            let said: Vec<&str> = said.iter().map(String::as_str).collect();
            assert_eq!(distinct_right(p.as_ref(), &said), all.len(), "{}", p.prompt());
        }
        assert_eq!(distinct_right(Task::Add.problem(&mut rng).as_ref(), &[]), 0);
    }
}
