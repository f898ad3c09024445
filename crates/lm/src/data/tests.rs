#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use rhumb_linalg::rng::Rng;
use rhumb_nn::op::IGNORE;

use super::*;

/// One token per character; `<..>` is one special token, numbered by its length from 1000 on.
struct Chars;

impl Encoder for Chars {
    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        let mut ids = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let n = if c == '<' { rest.find('>').ok_or("an unclosed <")? + 1 } else { c.len_utf8() };
            ids.push(if c == '<' { 1000 + n as u32 } else { c as u32 });
            rest = &rest[n..];
        }
        Ok(ids)
    }
}

/// As [`Chars`], with line breaks in a row merged into one token.
struct Merging;

impl Encoder for Merging {
    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        Chars.encode(&text.replace("\n\n", "\u{2028}"))
    }
}

/// ChatML in short: `<s>role\n content <e>\n`.
struct Chat;

impl ChatFormat for Chat {
    fn render(&self, messages: &[Message], prompt: bool) -> Result<String, String> {
        let turn = |m: &Message| format!("<s>{}\n{}<end>\n", &m.role[..1], m.text());
        let text: String = messages.iter().map(turn).collect();
        Ok(if prompt { text + "<s>a\n" } else { text })
    }
}

/// Prints the last assistant turn only, as templates that strip old reasoning do.
struct Forgets;

impl ChatFormat for Forgets {
    fn render(&self, messages: &[Message], prompt: bool) -> Result<String, String> {
        let last = messages.iter().rposition(|m| m.role == "assistant");
        let kept = messages.iter().enumerate().filter(|(i, m)| m.role != "assistant" || Some(*i) == last);
        Chat.render(&kept.map(|(_, m)| m.clone()).collect::<Vec<_>>(), prompt)
    }
}

struct Refuses;

impl Encoder for Refuses {
    fn encode(&self, _: &str) -> Result<Vec<u32>, String> {
        Err("no such byte".into())
    }
}

struct Strict;

impl ChatFormat for Strict {
    fn render(&self, _: &[Message], _: bool) -> Result<String, String> {
        Err("roles must alternate".into())
    }
}

/// Prints what users say, and nothing else.
struct Mute;

impl ChatFormat for Mute {
    fn render(&self, messages: &[Message], _: bool) -> Result<String, String> {
        Ok(messages.iter().filter(|m| m.role == "user").map(Message::text).collect())
    }
}

/// As [`Chat`], with the calls of tools.
struct Calls;

impl ChatFormat for Calls {
    fn render(&self, messages: &[Message], prompt: bool) -> Result<String, String> {
        let with_calls = |m: &Message| match m.extra.get("tool_calls") {
            None => m.clone(),
            Some(calls) => Message::new(m.role.clone(), calls.to_string()),
        };
        Chat.render(&messages.iter().map(with_calls).collect::<Vec<_>>(), prompt)
    }
}

fn tokenizing<'a>(encoder: &'a dyn Encoder, format: Option<&'a dyn ChatFormat>) -> Tokenizing<'a> {
    Tokenizing { encoder, format, eos: Some(0), max_len: 1000 }
}

fn chat(turns: &[(&str, &str)]) -> Row {
    let messages = turns.iter().map(|(r, c)| Message::new(*r, *c)).collect();
    Row { line: 7, conversation: Conversation::Messages(messages) }
}

fn show(e: &Example) -> String {
    let decode = |ids: &[u32]| {
        Ok(ids.iter().map(|&i| char::from_u32(i).filter(|_| i < 1000).unwrap_or('#')).collect())
    };
    let pieces = preview(e, decode).unwrap();
    pieces.iter().map(|p| if p.trained { format!("[{}]", p.text) } else { p.text.clone() }).collect()
}

#[test]
fn the_content_and_the_end_of_an_assistant_turn_are_trained_and_its_header_is_not() {
    let row = chat(&[("system", "S"), ("user", "Q"), ("assistant", "A1"), ("user", "R"), ("assistant", "B")]);
    let example = tokenizing(&Chars, Some(&Chat)).example(&row, "f").unwrap();
    assert_eq!(show(&example), "#s\nS#\n#u\nQ#\n#a\n[A1#\n]#u\nR#\n#a\n[B#\n]");
    assert_eq!(example.targets(), 7);
}

#[test]
fn a_prompt_is_a_user_turn_with_a_template_and_plain_text_without() {
    let pair = Conversation::Pair { prompt: "Q".into(), completion: "A".into() };
    let row = Row { line: 1, conversation: pair };
    let with = tokenizing(&Chars, Some(&Chat)).example(&row, "f").unwrap();
    assert_eq!(show(&with), "#u\nQ#\n#a\n[A#\n]");
    let without = tokenizing(&Chars, None).example(&row, "f").unwrap();
    assert_eq!(show(&without), "Q[A\0]");
    let bare = Tokenizing { eos: None, ..tokenizing(&Chars, None) }.example(&row, "f").unwrap();
    assert_eq!(show(&bare), "Q[A]");
}

#[test]
fn an_answer_without_a_prompt_does_not_train_its_first_token() {
    let pair = Conversation::Pair { prompt: String::new(), completion: "AB".into() };
    let example = tokenizing(&Chars, None).example(&Row { line: 1, conversation: pair }, "f").unwrap();
    assert_eq!(show(&example), "A[B\0]");
}

#[test]
fn a_template_that_rewrites_earlier_turns_is_refused_by_line_and_message() {
    let row = chat(&[("user", "Q"), ("assistant", "A"), ("user", "R"), ("assistant", "B")]);
    let error = tokenizing(&Chars, Some(&Forgets)).example(&row, "f.jsonl").unwrap_err().to_string();
    assert!(error.starts_with("f.jsonl, line 7, message 2: the tokens before it"), "{error}");
}

#[test]
fn a_token_across_the_border_of_a_turn_is_refused_by_line_and_message() {
    let row = chat(&[("user", "Q"), ("assistant", "\nA")]);
    let error = tokenizing(&Merging, Some(&Chat)).example(&row, "f.jsonl").unwrap_err().to_string();
    assert!(error.starts_with("f.jsonl, line 7, message 2: the tokens before it"), "{error}");
}

#[test]
fn a_template_that_masks_everything_is_an_error() {
    let rows = [chat(&[("user", "Q"), ("assistant", "A")]), chat(&[("user", "R"), ("assistant", "B")])];
    let error = tokenizing(&Chars, Some(&Mute)).run(rows.into_iter().map(Ok), "f.jsonl").unwrap_err();
    assert!(matches!(error, DataError::NothingTrained { rows: 2, .. }));
    assert!(error.to_string().contains("none of the 2 conversations has a token to train on"), "{error}");
}

#[test]
fn messages_without_a_template_an_unusable_text_and_an_empty_file_are_errors() {
    let row = chat(&[("user", "Q"), ("assistant", "A")]);
    let error = tokenizing(&Chars, None).example(&row, "f").unwrap_err().to_string();
    assert!(error.contains("line 7: messages need a chat template"), "{error}");
    let error =
        tokenizing(&Chars, Some(&Chat)).example(&chat(&[("assistant", "A")]), "f").unwrap_err().to_string();
    assert!(error.contains("the first message is the assistant's"), "{error}");
    let error = tokenizing(&Refuses, Some(&Chat)).example(&row, "f").unwrap_err().to_string();
    assert_eq!(error, "f, line 7: the tokenizer refused the text: no such byte");
    let error = tokenizing(&Chars, Some(&Strict)).example(&row, "f").unwrap_err().to_string();
    assert_eq!(error, "f, line 7: the chat template refused the first 2 messages: roles must alternate");
    let error = tokenizing(&Chars, None).run(Rows::new(&b"\n\n"[..], "f"), "f").unwrap_err();
    assert!(matches!(error, DataError::Empty { .. }));
}

#[test]
fn cut_and_dropped_documents_are_reported_by_line() {
    let text = b"{\"prompt\":\"ab\",\"completion\":\"cd\"}\n\
                 {\"prompt\":\"ab\",\"completion\":\"cdefgh\"}\n\
                 {\"prompt\":\"abcdefgh\",\"completion\":\"i\"}\n";
    let stage = Tokenizing { max_len: 6, ..tokenizing(&Chars, None) };
    let out = stage.run(Rows::new(&text[..], "f"), "f").unwrap();
    assert_eq!(
        (out.rows, out.truncated, out.dropped),
        (3, vec![2], vec![Dropped { line: 3, why: Drop::CutAway }])
    );
    assert_eq!(out.examples.iter().map(|e| e.ids.len()).collect::<Vec<_>>(), [5, 6]);
    let one = Rows::new(&b"{\"prompt\":\"abcdefgh\",\"completion\":\"i\"}"[..], "f");
    let error = stage.run(one, "f").unwrap_err().to_string();
    assert!(error.contains("1 were cut at 6 tokens"), "{error}");
}

/// Documents of random lengths whose tokens are all different.
fn random(seed: u64, n: usize, len: usize) -> Vec<Example> {
    let mut rng = Rng::named(seed, "documents");
    let mut next = 1;
    let document = |line| {
        let tokens = 1 + rng.below(len);
        let ids = (next..next + tokens as u32).collect();
        next += tokens as u32;
        Example { ids, live: (0..tokens).map(|_| rng.below(3) > 0).collect(), line }
    };
    (1..=n).map(document).collect()
}

#[test]
fn every_live_token_is_a_target_exactly_once_and_no_target_crosses_documents() {
    for (seed, len) in (0..20).flat_map(|s| [(s, 16), (s, 33)]) {
        let examples = random(seed, 50, 16);
        for rows in [pack(&examples, len).unwrap(), unpacked(&examples, len).unwrap()] {
            let b = PackedBatch::new(&examples, &rows, len);
            let mut seen: HashMap<u32, usize> = HashMap::new();
            for i in 0..b.rows * len {
                let (lo, hi) = b.spans[i];
                assert_eq!(hi as usize, i % len + 1);
                assert_eq!(b.positions[i], hi - 1 - lo);
                if b.targets[i] != IGNORE {
                    assert_eq!(b.targets[i], b.ids[i + 1]);
                    assert_eq!(b.spans[i + 1].0, lo, "target in another document");
                    *seen.entry(b.targets[i]).or_default() += 1;
                }
            }
            for e in &examples {
                for j in 0..e.ids.len() {
                    assert_eq!(seen.remove(&e.ids[j]).unwrap_or(0), usize::from(j > 0 && e.live[j]));
                }
            }
            assert!(seen.is_empty());
            assert_eq!(b.live(), examples.iter().map(Example::targets).sum::<usize>());
        }
    }
}

#[test]
fn packing_is_first_fit_decreasing() {
    let lengths = [3, 5, 2, 4, 4, 1];
    let examples: Vec<Example> =
        lengths.iter().map(|&n| Example { ids: vec![9; n], live: vec![true; n], line: 1 }).collect();
    let rows: Vec<_> = pack(&examples, 7).unwrap().into_iter().map(|r| (r.examples, r.used)).collect();
    assert_eq!(rows, [(vec![1, 2], 7), (vec![3, 0], 7), (vec![4, 5], 5)]);
    let error = pack(&examples, 4).unwrap_err().to_string();
    assert!(error.contains("line 1 has 5 tokens and a row 4"), "{error}");
}

#[test]
fn padding_is_documents_of_one_token() {
    let examples = [Example { ids: vec![5, 6], live: vec![false, true], line: 1 }];
    let b = PackedBatch::new(&examples, &unpacked(&examples, 4).unwrap(), 4);
    assert_eq!(b.ids, [5, 6, 0, 0]);
    assert_eq!(b.targets, [6, IGNORE, IGNORE, IGNORE]);
    assert_eq!(b.positions, [0, 1, 0, 0]);
    assert_eq!(b.spans, [(0, 1), (0, 2), (2, 3), (3, 4)]);
}

#[test]
fn a_split_is_a_partition_that_depends_on_the_seed() {
    let examples = random(3, 40, 5);
    let Split { train, held_out: test, twins } = split(examples.clone(), 8, 1).unwrap();
    assert_eq!(twins, 0);
    assert_eq!((train.len(), test.len()), (32, 8));
    let mut lines: Vec<_> = train.iter().chain(&test).map(|e| e.line).collect();
    assert!(train.is_sorted_by_key(|e| e.line));
    lines.sort_unstable();
    assert_eq!(lines, (1..=40).collect::<Vec<_>>());
    assert_eq!(split(examples.clone(), 8, 1).unwrap().held_out, test);
    assert_ne!(split(examples.clone(), 8, 2).unwrap().held_out, test);
    assert!(matches!(split(examples, 40, 1), Err(DataError::Split { .. })));
}

#[test]
fn lengths_are_counted() {
    let examples: Vec<Example> =
        (1..=20).map(|n| Example { ids: vec![1; n], live: vec![true; n], line: n }).collect();
    let l = Lengths::of(&examples);
    assert_eq!((l.documents, l.tokens, l.live, l.min, l.median, l.p95, l.max), (20, 210, 190, 1, 10, 19, 20));
    assert!((l.mean - 10.5).abs() < 1e-12);
    assert_eq!(Lengths::of(&[]), Lengths::default());
}

#[test]
fn twins_of_a_held_out_document_are_not_trained() {
    let examples: Vec<Example> = (0..60)
        .map(|i| Example { ids: vec![i % 10, 1], live: vec![true; 2], line: i as usize + 1 })
        .collect();
    let s = split(examples.clone(), 3, 5).unwrap();
    assert_eq!((s.train.len(), s.held_out.len(), s.twins), (42, 3, 15));
    assert_eq!(repeated(&s.train, &s.held_out), 0);
    assert_eq!(repeated(&examples, &s.held_out), 3);
    let error = split(examples, 10, 5).unwrap_err().to_string();
    assert!(error.contains("10 of 10 different conversations (60 lines)"), "{error}");
}

#[test]
fn calls_of_tools_are_trained_or_refused_but_never_dropped() {
    let text = "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},\
                {\"role\":\"assistant\",\"content\":null,\"tool_calls\":[7]}]}";
    let row = Rows::new(text.as_bytes(), "chat.jsonl").next().unwrap().unwrap();
    let example = tokenizing(&Chars, Some(&Calls)).example(&row, "chat.jsonl").unwrap();
    let trained: Vec<u32> =
        example.ids.iter().zip(&example.live).filter(|(_, live)| **live).map(|(id, _)| *id).collect();
    assert_eq!(trained, Chars.encode("[7]<end>\n").unwrap());
    let e = tokenizing(&Chars, Some(&Chat)).example(&row, "chat.jsonl").unwrap_err().to_string();
    assert!(e.contains("line 1") && e.contains("tool_calls") && e.contains("template"), "{e}");
}
