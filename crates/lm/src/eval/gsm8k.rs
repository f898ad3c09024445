//! Word problems whose answer is a number, as in GSM8K.
//!
//! # Reference
//! Cobbe et al., "Training Verifiers to Solve Math Word Problems", arXiv 2110.14168.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::number::{Found, Number, extract, gold};

/// A problem with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The problem in words.
    pub question: String,
    /// Its answer.
    pub gold: Number,
}

/// What an answer was read as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The number, as it is printed; `None` without one.
    pub number: Option<String>,
    /// Where it was found.
    pub found: Option<Found>,
    /// It is the answer, exactly.
    pub right: bool,
    /// It is the answer by the rule of the published scores of GEM: the number after "the answer is" and no other,
    /// rounded to an integer.
    pub strict: bool,
}

impl Problem {
    /// From a row `{"question": .., "answer": "... #### 18"}`.
    ///
    /// # Errors
    /// What is wrong with it: a field that is missing or no text, a solution without `####` and a number.
    pub fn from_row(row: &Value) -> Result<Self, String> {
        let text = |key: &str| match row.get(key) {
            Some(Value::String(s)) if !s.trim().is_empty() => Ok(s.clone()),
            Some(Value::String(_)) => Err(format!("the field {key} is empty")),
            Some(_) => Err(format!("the field {key} is no text")),
            None => Err(format!("the field {key} is missing; a row has question and answer")),
        };
        let (question, answer) = (text("question")?, text("answer")?);
        let gold = gold(&answer).ok_or("the answer has no number after ####, as GSM8K's solutions do")?;
        Ok(Problem { question, gold })
    }

    /// The problem with the request to reason and then to answer in the form that [`extract`] looks for first.
    pub fn prompt(&self) -> String {
        format!(
            "{}\n\nThink step by step. Then write the final answer on a line of its own, as: The answer is: <number>",
            self.question.trim()
        )
    }

    /// Reads an answer.
    pub fn judge(&self, answer: &str) -> Judgement {
        let read = extract(answer);
        let strict =
            |(n, found): (Number, Found)| found == Found::Marked && n.rounded() == self.gold.rounded();
        Judgement {
            number: read.map(|(n, _)| n.to_string()),
            found: read.map(|(_, found)| found),
            right: read.is_some_and(|(n, _)| n == self.gold),
            strict: read.is_some_and(strict),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_is_a_question_and_the_number_behind_its_solution() {
        let row = json!({ "question": " How many? ", "answer": "He has 3 + 4 = <<3+4=7>>7.\n#### 1,007" });
        let p = Problem::from_row(&row).unwrap();
        assert_eq!(p.gold, Number::ratio(1007, 1).unwrap());
        assert!(p.prompt().starts_with("How many?\n\nThink"), "{}", p.prompt());
        for (row, want) in [
            (json!({ "question": "a" }), "the field answer is missing"),
            (json!({ "question": "", "answer": "#### 1" }), "the field question is empty"),
            (json!({ "question": 1, "answer": "#### 1" }), "the field question is no text"),
            (json!({ "question": "a", "answer": "18" }), "no number after ####"),
        ] {
            let e = Problem::from_row(&row).unwrap_err();
            assert!(e.contains(want), "{e}");
        }
    }

    #[test]
    fn answers_are_right_exactly_or_by_the_published_rule() {
        let p = Problem { question: "q".into(), gold: Number::ratio(7, 1).unwrap() };
        let judged = |text: &str| {
            let j = p.judge(text);
            (j.number.unwrap_or_default(), j.right, j.strict)
        };
        assert_eq!(judged("3 + 4. The answer is: 7."), ("7".into(), true, true));
        assert_eq!(judged("so it is 7"), ("7".into(), true, false));
        assert_eq!(judged("The answer is 6.9, not 7"), ("69/10".into(), false, true));
        assert_eq!(judged("The answer is 8"), ("8".into(), false, false));
        assert_eq!(judged("no idea"), (String::new(), false, false));
        // Its own prompt, given back, is no answer.
        assert!(!p.judge(&p.prompt()).right);
    }
}
