#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use rhumb_linalg::rng::Rng;
use rhumb_nn::op::IGNORE;

use super::*;

/// One token per character; `<..>` is one special token, numbered by its length from 1000 on.
struct Chars;

impl Encoder for Chars {
    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        Ok(self.encode_with_offsets(text)?.0)
    }

    fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<Range<usize>>), String> {
        let (mut ids, mut offsets) = (Vec::new(), Vec::new());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let n = if c == '<' { rest.find('>').ok_or("an unclosed <")? + 1 } else { c.len_utf8() };
            ids.push(if c == '<' { 1000 + n as u32 } else { c as u32 });
            let at = text.len() - rest.len();
            offsets.push(at..at + n);
            rest = &rest[n..];
        }
        Ok((ids, offsets))
    }
}

/// As [`Chars`], with token 1 before a prompt.
struct Begins;

impl Encoder for Begins {
    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        Chars.encode(text)
    }

    fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<Range<usize>>), String> {
        Chars.encode_with_offsets(text)
    }

    fn prefix(&self) -> Result<Vec<u32>, String> {
        Ok(vec![1])
    }
}

/// As [`Chars`], with line breaks in a row merged into one token.
struct Merging;

impl Encoder for Merging {
    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        Ok(self.encode_with_offsets(text)?.0)
    }

    fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<Range<usize>>), String> {
        let (ids, offsets) = Chars.encode_with_offsets(&text.replace("\n\n", "\u{2028}"))?;
        // U+2028 takes three bytes where the line breaks took two.
        let mut shift = 0;
        let mut back = |(id, o): (&u32, Range<usize>)| {
            let start = o.start - shift;
            shift += usize::from(*id == 0x2028);
            start..o.end - shift
        };
        let offsets = ids.iter().zip(offsets).map(&mut back).collect();
        Ok((ids, offsets))
    }
}

/// ChatML in short: `<s>role\n content <e>\n`.
struct Chat;

impl ChatFormat for Chat {
    fn render(&self, messages: &[Message], prompt: bool, _: &Map<String, Value>) -> Result<String, String> {
        let turn = |m: &Message| format!("<s>{}\n{}<end>\n", &m.role[..1], m.text());
        let text: String = messages.iter().map(turn).collect();
        Ok(if prompt { text + "<s>a\n" } else { text })
    }
}

/// Prints the last assistant turn only, as templates that strip old reasoning do.
struct Forgets;

impl ChatFormat for Forgets {
    fn render(&self, messages: &[Message], prompt: bool, v: &Map<String, Value>) -> Result<String, String> {
        let last = messages.iter().rposition(|m| m.role == "assistant");
        let kept = messages.iter().enumerate().filter(|(i, m)| m.role != "assistant" || Some(*i) == last);
        Chat.render(&kept.map(|(_, m)| m.clone()).collect::<Vec<_>>(), prompt, v)
    }
}

/// Prints reasoning (what stands before a `|`) for the last assistant turn only, and an end of all behind it.
struct Thinks;

impl ChatFormat for Thinks {
    fn render(&self, messages: &[Message], prompt: bool, v: &Map<String, Value>) -> Result<String, String> {
        let mut short = messages.to_vec();
        let n = short.len();
        for (i, m) in short.iter_mut().enumerate().filter(|(_, m)| m.role == "assistant") {
            let text = m.text().to_owned();
            let (thought, said) = text.split_once('|').unwrap_or(("", &text));
            m.content = Some(if i + 1 == n { format!("<t>{thought}<u>{said}") } else { said.to_owned() });
            if let Some(name) = m.extra.get("tool_calls").and_then(|c| c[0]["function"]["name"].as_str()) {
                m.content = m.content.take().map(|c| c + "call " + name);
            }
        }
        let text = Chat.render(&short, prompt, v)?;
        Ok(if prompt { text } else { text + "<the end>" })
    }
}

/// As [`Chat`], printing every assistant turn twice except the last.
struct Echoes;

impl ChatFormat for Echoes {
    fn render(&self, messages: &[Message], prompt: bool, v: &Map<String, Value>) -> Result<String, String> {
        let last = messages.len().saturating_sub(1);
        let twice = |(i, m): (usize, &Message)| match m.role.as_str() {
            "assistant" if i < last => Message::new("assistant", m.text().repeat(2)),
            _ => m.clone(),
        };
        Chat.render(&messages.iter().enumerate().map(twice).collect::<Vec<_>>(), prompt, v)
    }
}

/// As [`Chat`], marking what the assistant says, `*` between two turns, and naming the tools.
struct Marks;

impl ChatFormat for Marks {
    fn render(&self, messages: &[Message], prompt: bool, v: &Map<String, Value>) -> Result<String, String> {
        let tools = v.get("tools").map(|t| format!("tools {t};")).unwrap_or_default();
        Ok(tools + &Chat.render(messages, prompt, v)?.replace("\n<s>", "\n*<s>"))
    }

    fn render_marked(&self, messages: &[Message], v: &Map<String, Value>) -> Result<Option<Marked>, String> {
        let text = self.render(messages, false, v)?;
        let mut spans = Vec::new();
        let mut from = 0;
        while let Some(at) = text[from..].find("<s>a\n") {
            let start = from + at + 5;
            let end = text[start..].find("<end>").map_or(text.len(), |n| start + n + 5);
            spans.push(start..end);
            from = end;
        }
        Ok(Some(Marked { text, spans }))
    }
}

struct Refuses;

impl Encoder for Refuses {
    fn encode(&self, _: &str) -> Result<Vec<u32>, String> {
        Err("no such byte".into())
    }

    fn encode_with_offsets(&self, _: &str) -> Result<(Vec<u32>, Vec<Range<usize>>), String> {
        Err("no such byte".into())
    }
}

struct Strict;

impl ChatFormat for Strict {
    fn render(&self, _: &[Message], _: bool, _: &Map<String, Value>) -> Result<String, String> {
        Err("roles must alternate".into())
    }
}

/// Prints what users say, and nothing else.
struct Mute;

impl ChatFormat for Mute {
    fn render(&self, messages: &[Message], _: bool, _: &Map<String, Value>) -> Result<String, String> {
        Ok(messages.iter().filter(|m| m.role == "user").map(Message::text).collect())
    }
}

/// As [`Chat`], with the calls of tools.
struct Calls;

impl ChatFormat for Calls {
    fn render(&self, messages: &[Message], prompt: bool, v: &Map<String, Value>) -> Result<String, String> {
        let with_calls = |m: &Message| match m.extra.get("tool_calls") {
            None => m.clone(),
            Some(calls) => Message::new(m.role.clone(), calls.to_string()),
        };
        Chat.render(&messages.iter().map(with_calls).collect::<Vec<_>>(), prompt, v)
    }
}

fn tokenizing<'a>(encoder: &'a dyn Encoder, format: Option<&'a dyn ChatFormat>) -> Tokenizing<'a> {
    Tokenizing { encoder, format, eos: Some(0), max_len: 1000 }
}

fn chat(turns: &[(&str, &str)]) -> Row {
    let messages = turns.iter().map(|(r, c)| Message::new(*r, *c)).collect();
    Row { line: 7, conversation: Conversation::Messages(messages), variables: Map::new() }
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
    let row = Row { line: 1, conversation: pair, variables: Map::new() };
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
    let example = tokenizing(&Chars, None)
        .example(&Row { line: 1, conversation: pair, variables: Map::new() }, "f")
        .unwrap();
    assert_eq!(show(&example), "A[B\0]");
}

#[test]
fn a_plain_text_is_trained_whole_whether_there_is_a_template_or_not() {
    let text = |variables| Row { line: 1, conversation: Conversation::Text("AB".into()), variables };
    for format in [None, Some(&Chat as &dyn ChatFormat)] {
        let stage = Tokenizing { format, ..tokenizing(&Chars, None) };
        let example = stage.example(&text(Map::new()), "f").unwrap();
        // The first token follows nothing, and the end is trained.
        assert_eq!(show(&example), "A[B\0]");
        let stage = Tokenizing { encoder: &Begins, ..stage };
        let example = stage.example(&text(Map::new()), "f").unwrap();
        assert_eq!((&example.ids[..], example.targets()), (&[1, 65, 66, 0][..], 3));
        let tools = serde_json::json!({ "tools": [{}] }).as_object().unwrap().clone();
        let error = stage.example(&text(tools), "f").unwrap_err().to_string();
        assert!(error.contains("say nothing about a plain text"), "{error}");
    }
}

#[test]
fn a_conversation_without_an_assistant_is_dropped_with_its_line_and_the_rest_is_kept() {
    let rows = [chat(&[("system", "S"), ("user", "Q")]), chat(&[("user", "Q"), ("assistant", "A")])];
    let mut kept = 0;
    let intake = tokenizing(&Chars, Some(&Chat))
        .each(rows.into_iter().map(Ok), "f", |_| {
            kept += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!((intake.rows, intake.kept, kept), (2, 1, 1));
    assert_eq!(intake.dropped, [Dropped { line: 7, why: Drop::NothingLive }]);
    assert!(intake.judge("f", 9).is_ok());
    let none = Intake { kept: 0, ..intake };
    assert!(matches!(none.judge("f", 9), Err(DataError::NothingTrained { rows: 2, .. })));
}

#[test]
fn a_template_that_rewrites_earlier_turns_is_refused_by_line_and_message() {
    let row = chat(&[("user", "Q"), ("assistant", "A"), ("user", "R"), ("assistant", "B")]);
    let error = tokenizing(&Chars, Some(&Forgets)).example(&row, "f.jsonl").unwrap_err().to_string();
    assert!(error.starts_with("f.jsonl, line 7, message 2: the tokens before it"), "{error}");
    assert!(error.contains("leaves its text out"), "{error}");
}

#[test]
fn turns_that_lose_their_reasoning_later_are_found_with_their_end() {
    let row = chat(&[
        ("user", "Q"),
        ("assistant", "why|A"),
        ("user", "R"),
        ("assistant", "A"),
        ("user", "A"),
        ("assistant", "so|B"),
    ]);
    let example = tokenizing(&Chars, Some(&Thinks)).example(&row, "f").unwrap();
    assert_eq!(show(&example), "#u\nQ#\n#a\n[A#\n]#u\nR#\n#a\n[A#\n]#u\nA#\n#a\n[#so#B#\n#]");
}

#[test]
fn calls_of_tools_in_rewritten_turns_are_found_by_the_name_of_the_function() {
    let text = "{\"messages\":[{\"role\":\"user\",\"content\":\"Q\"},{\"role\":\"assistant\",\"content\":\"\",\
                \"tool_calls\":[{\"function\":{\"name\":\"f\"}}]},{\"role\":\"tool\",\"content\":\"4\"},\
                {\"role\":\"assistant\",\"content\":\"B\"}]}";
    let row = Rows::new(text.as_bytes(), "f").next().unwrap().unwrap();
    let example = tokenizing(&Chars, Some(&Thinks)).example(&row, "f").unwrap();
    assert_eq!(show(&example), "#u\nQ#\n#a\n[call f#\n]#t\n4#\n#a\n[##B#\n#]");
}

#[test]
fn a_rewritten_turn_that_is_printed_twice_is_refused() {
    let row = chat(&[("user", "Q"), ("assistant", "A"), ("user", "R"), ("assistant", "B")]);
    let error = tokenizing(&Chars, Some(&Echoes)).example(&row, "f").unwrap_err().to_string();
    assert!(error.contains("message 2") && error.contains("more than once"), "{error}");
}

#[test]
fn marks_of_the_template_decide_over_prefixes() {
    let row = chat(&[("user", "Q"), ("assistant", "A"), ("user", "R"), ("assistant", "B")]);
    let example = tokenizing(&Chars, Some(&Marks)).example(&row, "f").unwrap();
    assert_eq!(show(&example), "#u\nQ#\n*#a\n[A#]\n*#u\nR#\n*#a\n[B#]\n");
    // A token that lies across the border of a mark is trained.
    let row = chat(&[("user", "Q"), ("assistant", "\nA")]);
    let example = tokenizing(&Merging, Some(&Marks)).example(&row, "f").unwrap();
    assert_eq!(show(&example), "#u\nQ#\n*#a[#A#]\n");
}

#[test]
fn an_assistant_message_of_weight_0_is_not_trained() {
    let weighted = |weights: [&str; 2]| {
        let [a, b] = weights;
        let text = format!(
            "{{\"messages\":[{{\"role\":\"user\",\"content\":\"Q\"}},\
             {{\"role\":\"assistant\",\"content\":\"A\",\"weight\":{a}}},{{\"role\":\"user\",\"content\":\"R\"}},\
             {{\"role\":\"assistant\",\"content\":\"B\",\"weight\":{b}}}]}}"
        );
        Rows::new(text.as_bytes(), "f").next().unwrap().unwrap()
    };
    let of = |format: &dyn ChatFormat, w| {
        show(&tokenizing(&Chars, Some(format)).example(&weighted(w), "f").unwrap())
    };
    assert_eq!(of(&Chat, ["0", "1"]), "#u\nQ#\n#a\nA#\n#u\nR#\n#a\n[B#\n]");
    assert_eq!(of(&Chat, ["1", "0"]), "#u\nQ#\n#a\n[A#\n]#u\nR#\n#a\nB#\n");
    assert_eq!(of(&Marks, ["0", "1"]), "#u\nQ#\n*#a\nA#\n*#u\nR#\n*#a\n[B#]\n");
    assert_eq!(of(&Marks, ["1", "0"]), "#u\nQ#\n*#a\n[A#]\n*#u\nR#\n*#a\nB#\n");
    assert!(!of(&Chat, ["0", "0"]).contains('['));
}

#[test]
fn tools_reach_the_template_and_one_that_leaves_them_out_refuses_the_row() {
    let mut row = chat(&[("user", "Q"), ("assistant", "A")]);
    row.variables = serde_json::from_str("{\"tools\":[{\"n\":1}]}").unwrap();
    let example = tokenizing(&Chars, Some(&Marks)).example(&row, "f").unwrap();
    assert!(show(&example).starts_with("tools [{\"n\":1}];#u"), "{}", show(&example));
    let e = tokenizing(&Chars, Some(&Chat)).example(&row, "f").unwrap_err().to_string();
    assert!(e.starts_with("f, line 7: the chat template leaves out the row's tools"), "{e}");
    row.conversation = Conversation::Pair { prompt: "Q".into(), completion: "A".into() };
    let e = tokenizing(&Chars, None).example(&row, "f").unwrap_err().to_string();
    assert!(e.contains("line 7: tools and chat_template_kwargs need a chat template"), "{e}");
}

#[test]
fn plain_text_begins_as_a_prompt_begins_and_ends_once() {
    let of = |prompt: &str, completion: &str| {
        let conversation = Conversation::Pair { prompt: prompt.into(), completion: completion.into() };
        let row = Row { line: 1, conversation, variables: Map::new() };
        show(&tokenizing(&Begins, None).example(&row, "f").unwrap())
    };
    assert_eq!(of("Q", "A"), "\u{1}Q[A\0]");
    assert_eq!(of("", "A"), "\u{1}[A\0]");
    assert_eq!(of("\u{1}Q", "A\0"), "\u{1}Q[A\0]");
}

#[test]
fn unusable_rows_are_dropped_with_their_reason_until_they_are_more_than_half() {
    let good = || chat(&[("user", "Q"), ("assistant", "A")]);
    let bad =
        |line| Row { line, ..chat(&[("user", "Q"), ("assistant", "A"), ("user", "R"), ("assistant", "B")]) };
    let stage = tokenizing(&Chars, Some(&Forgets));
    let out = stage.run([bad(3), good()].into_iter().map(Ok), "f").unwrap();
    assert_eq!((out.rows, out.examples.len(), out.dropped.len()), (2, 1, 1));
    let Dropped { line: 3, why: Drop::Unusable(reason) } = &out.dropped[0] else { panic!("{out:?}") };
    assert!(reason.starts_with("f, line 3, message 2: "), "{reason}");
    let error = stage.run([good(), bad(3), bad(4)].into_iter().map(Ok), "f").unwrap_err();
    assert!(matches!(error, DataError::Unusable { rows: 3, unusable: 2, .. }), "{error}");
    assert!(
        error.to_string().contains("2 of 3") && error.to_string().contains("line 3, message 2"),
        "{error}"
    );
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
    assert!(error.contains("line 7: a conversation needs a chat template"), "{error}");
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

#[test]
fn a_drawn_part_keeps_the_order_and_depends_on_the_seed_alone() {
    let all: Vec<Example> = (0..50)
        .map(|i| Example { ids: vec![i, i + 1], live: vec![false, true], line: i as usize + 1 })
        .collect();
    let lines = |n: usize, seed: u64| -> Vec<usize> {
        let drawn = Examples::from(all.clone()).draw(n, seed).to_vec().unwrap();
        assert!(drawn.iter().all(|e| all[e.line - 1] == *e));
        drawn.iter().map(|e| e.line).collect()
    };
    let (a, b) = (lines(20, 1), lines(20, 2));
    assert_eq!(a.len(), 20);
    assert!(a.windows(2).all(|w| w[0] < w[1]) && a != b && a == lines(20, 1));
    assert_ne!(a, (1..=20).collect::<Vec<_>>());
    assert_eq!(lines(60, 1), (1..=50).collect::<Vec<_>>());
}
