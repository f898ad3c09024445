//! Prompts with instructions from a seed, for where no file is at hand.

use rhumb_linalg::rng::Rng;
use serde_json::Value;

use super::{Instruction, Prompt, Relation};

const TOPICS: [&str; 24] = [
    "a river",
    "baking bread",
    "a lighthouse",
    "learning to swim",
    "an old clock",
    "a walk in the rain",
    "bees",
    "a train journey",
    "the moon",
    "a market",
    "mending a bicycle",
    "snow",
    "a library",
    "growing tomatoes",
    "a lost key",
    "the sea",
    "a village school",
    "cooking soup",
    "a mountain path",
    "a violin",
    "moving house",
    "the first day of spring",
    "a dog and a cat",
    "a letter from a friend",
];
const WORDS: [&str; 16] = [
    "morning", "river", "quiet", "friend", "window", "garden", "bright", "stone", "journey", "winter",
    "music", "simple", "table", "yellow", "distant", "story",
];
const PHRASES: [&str; 4] = ["That is all.", "And so it goes.", "I hope this helps.", "Now it is your turn."];

/// Draws an instruction and says it in words.
type Group = fn(&mut Rng) -> (Instruction, String);

/// Groups whose instructions can all be followed together; a prompt takes at most one of each.
const GROUPS: [Group; 6] = [content, length, form, case, ending, commas];

/// Prompts with one to three instructions of 16 kinds, in words of our own; no two instructions of a prompt
/// contradict each other. A question of its own sort: numbers on it are no numbers on IFEval's file.
pub fn generate(seed: u64, prompts: usize) -> Vec<Prompt> {
    let mut rng = Rng::named(seed, "instructions");
    (0..prompts)
        .map(|key| {
            let mut groups: Vec<usize> = (0..GROUPS.len()).collect();
            rng.shuffle(&mut groups);
            groups.truncate(1 + rng.below(3));
            groups.sort_unstable();
            let (instructions, words): (Vec<_>, Vec<_>) =
                groups.into_iter().map(|g| GROUPS[g](&mut rng)).unzip();
            let topic = TOPICS[rng.below(TOPICS.len())];
            let prompt = format!("Write a short text about {topic}. {}", words.join(" "));
            Prompt { key: Value::from(key), prompt, instructions, unchecked: Vec::new() }
        })
        .collect()
}

/// Two different words.
fn two(rng: &mut Rng) -> [String; 2] {
    let i = rng.below(WORDS.len());
    let j = (i + 1 + rng.below(WORDS.len() - 1)) % WORDS.len();
    [i, j].map(|i| WORDS[i].to_owned())
}

fn bound(rng: &mut Rng, least: usize, most: usize) -> (Relation, &'static str, usize) {
    if rng.below(2) == 0 {
        (Relation::AtLeast, "at least", least)
    } else {
        (Relation::LessThan, "fewer than", most)
    }
}

fn content(rng: &mut Rng) -> (Instruction, String) {
    let [a, b] = two(rng);
    match rng.below(3) {
        0 => {
            let text = format!("Use both of the words {a} and {b}.");
            (Instruction::Keywords { keywords: vec![a, b] }, text)
        }
        1 => {
            let text = format!("Use neither of the words {a} and {b}.");
            (Instruction::Forbidden { forbidden_words: vec![a, b] }, text)
        }
        _ => {
            let (n, text) = (2 + rng.below(2), format!("Use the word {a}"));
            let text = format!("{text} at least {n} times.");
            (Instruction::Frequency { keyword: a, frequency: n, relation: Relation::AtLeast }, text)
        }
    }
}

fn length(rng: &mut Rng) -> (Instruction, String) {
    if rng.below(2) == 0 {
        let (relation, words, n) = bound(rng, 60, 80);
        return (Instruction::Words { num_words: n, relation }, format!("Write {words} {n} words."));
    }
    let (relation, words, n) = bound(rng, 5, 8);
    (Instruction::Sentences { num_sentences: n, relation }, format!("Write {words} {n} sentences."))
}

fn form(rng: &mut Rng) -> (Instruction, String) {
    let n = 2 + rng.below(3);
    match rng.below(4) {
        0 => {
            let text = format!(
                "Have exactly {n} lines that are points of a list and begin with an asterisk and a space."
            );
            (Instruction::Bullets { num_bullets: n }, text)
        }
        1 => {
            let text = format!("Highlight at least {n} parts by asterisks, as in *this one*.");
            (Instruction::Highlights { num_highlights: n }, text)
        }
        2 => {
            let text = format!("Have at least {n} placeholders in square brackets, as in [name].");
            (Instruction::Placeholders { num_placeholders: n }, text)
        }
        _ => {
            (Instruction::Title {}, "Give it a title in double angle brackets, as in <<a title>>.".to_owned())
        }
    }
}

fn case(rng: &mut Rng) -> (Instruction, String) {
    match rng.below(3) {
        0 => (Instruction::Uppercase {}, "Write in capital letters only.".to_owned()),
        1 => (Instruction::Lowercase {}, "Write in small letters only, with no capital anywhere.".to_owned()),
        _ => {
            let n = 2 + rng.below(3);
            let kind =
                Instruction::CapitalWords { capital_frequency: n, capital_relation: Relation::AtLeast };
            (kind, format!("Write at least {n} words in capital letters throughout."))
        }
    }
}

fn ending(rng: &mut Rng) -> (Instruction, String) {
    match rng.below(3) {
        0 => {
            let phrase = PHRASES[rng.below(PHRASES.len())];
            let text = format!("End with these very words and nothing after them: {phrase}");
            (Instruction::End { end_phrase: phrase.to_owned() }, text)
        }
        1 => {
            let kind = Instruction::Postscript { postscript_marker: "P.S.".to_owned() };
            (kind, "Add a postscript at the end that begins with P.S.".to_owned())
        }
        _ => (Instruction::Quotation {}, "Put the whole answer into double quotation marks.".to_owned()),
    }
}

fn commas(_: &mut Rng) -> (Instruction, String) {
    (Instruction::NoComma {}, "Use no comma.".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeSet;

    use super::super::strict;
    use super::*;

    /// A response that follows all instructions of a prompt.
    fn follow(prompt: &Prompt) -> String {
        let all = |f: fn(&Instruction) -> bool| prompt.instructions.iter().any(f);
        let short = all(|i| {
            matches!(
                i,
                Instruction::Words { relation: Relation::LessThan, .. }
                    | Instruction::Sentences { relation: Relation::LessThan, .. }
            )
        });
        let long = if short { "" } else { "So it was then and so it went on there. " };
        let mut lines = vec![format!("Intro. {}", long.repeat(8))];
        let mut end = String::new();
        let mut quoted = false;
        for i in &prompt.instructions {
            match i {
                Instruction::Keywords { keywords } => lines.push(keywords.join(" ")),
                Instruction::Frequency { keyword, frequency, .. } => {
                    lines.push(format!("{keyword} ").repeat(*frequency));
                }
                Instruction::Bullets { num_bullets } => {
                    lines.extend(vec!["* point".to_owned(); *num_bullets]);
                }
                Instruction::Highlights { num_highlights } => {
                    lines.push("so *this* ".repeat(*num_highlights));
                }
                Instruction::Placeholders { num_placeholders } => {
                    lines.push("[name] ".repeat(*num_placeholders));
                }
                Instruction::Title {} => lines.push("<<a title>>".to_owned()),
                Instruction::CapitalWords { capital_frequency, .. } => {
                    lines.push("LOUD ".repeat(*capital_frequency));
                }
                Instruction::End { end_phrase } => end.clone_from(end_phrase),
                Instruction::Postscript { .. } => "P.S. more".clone_into(&mut end),
                Instruction::Quotation {} => quoted = true,
                _ => {}
            }
        }
        lines.push(end);
        let mut text = lines.join("\n").trim().to_owned();
        if quoted {
            text = format!("\"{text}\"");
        }
        if all(|i| matches!(i, Instruction::Uppercase {})) {
            text = text.to_uppercase();
        } else if all(|i| matches!(i, Instruction::Lowercase {})) {
            text = text.to_lowercase();
        }
        text
    }

    #[test]
    fn every_prompt_can_be_followed_and_a_blank_response_follows_none() {
        let prompts = generate(3, 400);
        let mut kinds = BTreeSet::new();
        for p in &prompts {
            let response = follow(p);
            assert!(strict(p, &response).iter().all(|f| *f), "{}\n{response}", p.prompt);
            assert!(strict(p, "").iter().all(|f| !*f));
            kinds.extend(p.instructions.iter().map(Instruction::name));
        }
        assert_eq!(kinds.len(), 16, "{kinds:?}");
        assert!((1..=3).all(|n| prompts.iter().any(|p| p.instructions.len() == n)));
    }

    #[test]
    fn prompts_follow_from_the_seed_and_more_of_them_begin_alike() {
        assert_eq!(generate(1, 5), generate(1, 9)[..5]);
        assert_ne!(generate(1, 5), generate(2, 5));
    }

    #[test]
    fn what_is_generated_can_be_written_as_a_line_of_the_file_and_read_again() {
        for p in generate(5, 40) {
            let parts: Vec<Value> = p.instructions.iter().map(|i| serde_json::to_value(i).unwrap()).collect();
            let column = |key: &str| parts.iter().map(|i| i[key].clone()).collect::<Vec<_>>();
            let line = serde_json::json!({
                "key": p.key, "prompt": p.prompt, "instruction_id_list": column("instruction_id"), "kwargs": column("kwargs"),
            });
            assert_eq!(Prompt::from_json(&line.to_string()).unwrap(), p);
        }
    }
}
