#![allow(clippy::unwrap_used, reason = "tests")]
use std::collections::HashSet;

use super::*;

/// Changes one part of an answer: dropped, doubled, exchanged with its neighbour, or another word.
fn perturbed(answer: &str, words: &[String], rng: &mut Rng) -> String {
    let mut parts: Vec<String> = answer.split(' ').map(str::to_owned).collect();
    let i = rng.below(parts.len());
    match rng.below(4) {
        0 => drop(parts.remove(i)),
        1 => parts.insert(i, parts[i].clone()),
        2 if i > 0 => parts.swap(i, i - 1),
        _ => parts[i].clone_from(&words[rng.below(words.len())]),
    }
    parts.join(" ")
}

#[test]
fn names_lead_back_to_tasks() {
    for task in Task::ALL {
        assert_eq!(Task::parse(task.name()), Ok(task));
    }
    let e = Task::parse("spilt").unwrap_err().to_string();
    assert!(e.contains("\"spilt\"") && e.contains("sort, count, split"), "{e}");
    assert!(Task::ALL.iter().filter(|t| t.many()).count() >= 4);
}

#[test]
fn short_forms_and_answers_are_words_of_the_vocabulary() {
    let all = vocabulary();
    let words: HashSet<&String> = all.iter().collect();
    assert_eq!(words.len(), all.len());
    assert!(all.len() < 256, "{}", all.len());
    let mut rng = Rng::new(1);
    for task in Task::ALL {
        for _ in 0..200 {
            let p = task.problem(&mut rng);
            let prompt = p.prompt();
            assert!(prompt.starts_with(task.name()) && prompt.ends_with(" :"), "{prompt}");
            assert!(prompt.split(' ').count() <= 40, "{prompt}");
            for text in std::iter::once(prompt).chain(p.answers()) {
                assert!(text.split(' ').all(|w| words.contains(&w.to_owned())), "{text}");
            }
            assert!(p.prose().len() > 20);
        }
    }
}

#[test]
fn every_listed_answer_is_right_and_none_is_listed_twice() {
    let mut rng = Rng::new(2);
    for task in Task::ALL {
        for _ in 0..100 {
            let p = task.problem(&mut rng);
            let answers = p.answers();
            assert_eq!(answers.len() > 1, task.many(), "{}", p.prompt());
            assert_eq!(answers.iter().collect::<HashSet<_>>().len(), answers.len(), "{}", p.prompt());
            assert!(answers.iter().all(|a| p.verify(a)), "{}", p.prompt());
            assert!(answers.iter().all(|a| p.verify(&format!(" {a}\n"))));
        }
    }
}

#[test]
fn a_changed_answer_is_right_exactly_if_it_is_listed() {
    let mut rng = Rng::new(3);
    for task in Task::ALL {
        // What may stand between the parts of an answer changes none.
        let free = |w: &String| w == "," || (w == "-" && task == Task::Path);
        let words: Vec<String> = vocabulary().into_iter().filter(|w| !free(w)).collect();
        let mut wrong = 0;
        for _ in 0..600 {
            let p = task.problem(&mut rng);
            let answers: HashSet<String> = p.answers().into_iter().collect();
            let answer = p.demonstrate(Style::Uniform, &mut rng);
            let changed = perturbed(&answer, &words, &mut rng);
            assert_eq!(p.verify(&changed), answers.contains(&changed), "{} {changed}", p.prompt());
            wrong += usize::from(!answers.contains(&changed));
        }
        assert!(wrong > 300, "{task:?}: {wrong}");
    }
}

#[test]
fn demonstrations_keep_their_style() {
    let mut rng = Rng::new(4);
    for task in Task::ALL {
        let p = task.problem(&mut rng);
        let answers = p.answers();
        let mut share = |style| {
            let n = 800;
            let shown: Vec<String> = (0..n).map(|_| p.demonstrate(style, &mut rng)).collect();
            assert!(shown.iter().all(|a| p.verify(a)));
            shown.iter().filter(|a| **a == answers[0]).count() as f64 / f64::from(n)
        };
        let one = answers.len() == 1;
        assert!((share(Style::First) - 1.0).abs() < 1e-12);
        assert!((share(Style::Preferred(0.7)) - if one { 1.0 } else { 0.7 }).abs() < 0.06);
        assert!((share(Style::Uniform) - 1.0 / answers.len() as f64).abs() < 0.06);
    }
}

#[test]
fn held_out_questions_are_never_trained_on_and_follow_the_seed_alone() {
    for task in Task::ALL {
        let prompts = |set: &[Box<dyn Problem>]| set.iter().map(|p| p.prompt()).collect::<Vec<_>>();
        let q = task.questions(7, 25, 10).unwrap();
        let (train, held) = (prompts(&q.train), prompts(&q.held_out));
        assert_eq!((train.len(), held.len()), (25, 10));
        let all: HashSet<&String> = train.iter().chain(&held).collect();
        assert_eq!(all.len(), 35, "{task:?}");
        assert_eq!(prompts(&task.questions(7, 5, 10).unwrap().held_out), held);
        assert_ne!(prompts(&task.questions(8, 5, 10).unwrap().held_out), held);
    }
}

#[test]
fn a_task_that_has_too_few_questions_says_how_many_it_has() {
    let e = Task::Split.questions(1, 100, 10).unwrap_err();
    assert_eq!(e, MeasureError::Questions { task: "split", found: 54, wanted: 110, draws: 6500 });
}

#[test]
fn permutations_are_all_and_in_order() {
    assert_eq!(permutations(3), [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]);
    assert_eq!(permutations(5).len(), 120);
}
