#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use super::*;

const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
{{ '<|im_start|>system\nBe helpful<|im_end|>\n' }}{% endif %}\
{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

fn template(source: &str) -> Result<ChatTemplate, TemplateError> {
    let special = [("bos_token", "<s>"), ("eos_token", "</s>")];
    let special = special.map(|(k, v)| (k.to_owned(), v.to_owned()));
    // 2001-09-09 01:46:40 UTC.
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    ChatTemplate::with_special(source, special.into(), now)
}

fn render(source: &str) -> Result<String, TemplateError> {
    template(source)?.render(&[Message::new("user", "Hi"), Message::new("assistant", "Yes?")], false)
}

#[test]
fn chatml_adds_its_default_system_turn_and_the_generation_prompt() {
    let t = ChatTemplate::new(CHATML, None, None).unwrap();
    let user = Message::new("user", "Hi");
    assert_eq!(
        t.render(std::slice::from_ref(&user), true).unwrap(),
        "<|im_start|>system\nBe helpful<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
    let system = Message::new("system", "S");
    assert_eq!(
        t.render(&[system, user], false).unwrap(),
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    );
}

#[test]
fn the_special_tokens_are_variables() {
    assert_eq!(render("{{ bos_token }}{{ messages[1].content }}{{ eos_token }}").unwrap(), "<s>Yes?</s>");
    let t = ChatTemplate::new("{{ bos_token }}|{{ eos_token }}", Some("B"), None).unwrap();
    assert_eq!(t.render(&[], false).unwrap(), "B|");
}

#[test]
fn blocks_are_trimmed_as_transformers_does() {
    let source =
        "{% for m in messages %}\n    {% if m.role == 'user' %}\nU\n    {% endif %}\n{% endfor %}\nend\n";
    assert_eq!(render(source).unwrap(), "U\nend");
}

#[test]
fn python_methods_and_absent_tools_work() {
    let source = "{% if tools is not none %}T{% endif %}{{ ' a b '.strip().split(' ')[1].upper() }}\
{{ messages[0].get('name', '-') }}{% for m in messages[::-1] %}{{ m['content'].startswith('H') }}{% endfor %}";
    assert_eq!(render(source).unwrap().to_lowercase(), "b-falsetrue");
}

#[test]
fn what_is_iterable_is_what_python_iterates_over() {
    let source = "{% for v in [none, 1, 'a', [1], {}] %}{{ 1 if v is iterable else 0 }}{% endfor %}\
{% if tools is iterable and tools | length > 0 %}T{% endif %}";
    assert_eq!(render(source).unwrap(), "00111");
}

#[test]
fn loop_controls_and_namespaces_work() {
    let source = "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% break %}\
{% endfor %}{{ ns.n }}";
    assert_eq!(render(source).unwrap(), "1");
}

#[test]
fn tojson_writes_as_python_does() {
    let source = "{{ {'a': [1, 2], 'b': '<é>'} | tojson }}";
    assert_eq!(render(source).unwrap(), "{\"a\": [1, 2], \"b\": \"<é>\"}");
    let source = "{{ {'a': [1], 'b': []} | tojson(indent=4) }}";
    assert_eq!(render(source).unwrap(), "{\n    \"a\": [\n        1\n    ],\n    \"b\": []\n}");
    let source = "{{ {'a': 'é😀'} | tojson(ensure_ascii=true) }}{{ 'é' | tojson(ensure_ascii=false) }}";
    assert_eq!(render(source).unwrap(), "{\"a\": \"\\u00e9\\ud83d\\ude00\"}\"é\"");
    assert_eq!(render("{{ messages[0] | tojson }}").unwrap(), "{\"role\": \"user\", \"content\": \"Hi\"}");
}

#[test]
fn the_time_is_the_given_one_and_a_wrong_format_is_an_error() {
    assert_eq!(render("{{ strftime_now('%d %b %Y') }}").unwrap(), "09 Sep 2001");
    let e = render("\n{{ strftime_now('%Q') }}").unwrap_err();
    assert!(matches!(&e, TemplateError::Render { line: 2, .. }), "{e}");
}

#[test]
fn the_time_is_an_input() {
    let at = |secs: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
    let t = template("{{ strftime_now('%Y-%m-%d') }}").unwrap();
    assert!(t.tells_time());
    assert_eq!(t.now(), at(1_000_000_000));
    let later = t.at(at(1_500_000_000));
    assert_eq!((later.now(), later.render(&[], false).unwrap().as_str()), (at(1_500_000_000), "2017-07-14"));
    let config = serde_json::json!({"chat_template": "{{ strftime_now('%Y') }}"});
    let fixed = ChatTemplate::from_tokenizer_config(&config).unwrap().at(at(0));
    assert_eq!(fixed.render(&[], false).unwrap(), "1970");
    assert!(!ChatTemplate::new(CHATML, None, None).unwrap().tells_time());
}

#[test]
fn other_fields_of_a_message_reach_the_template_in_their_order() {
    let messages: Vec<Message> = serde_json::from_str(
        r#"[{"role": "user", "content": "Hi", "name": "Ada"},
            {"role": "assistant", "content": null, "tool_calls":
                [{"type": "function", "function": {"name": "f", "arguments": {"b": 1, "a": [true, null]}}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "2"}]"#,
    )
    .unwrap();
    let source = "{% for m in messages %}{% if m.tool_calls %}{% for c in m.tool_calls %}\
{{ c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}{% if m.content is none %}-{% endif %}\
{% else %}{{ m.get('name', '?') }}:{{ m['content'] }};{% endif %}{% endfor %}{{ messages[2].tool_call_id }}";
    let text = ChatTemplate::new(source, None, None).unwrap().render(&messages, false).unwrap();
    assert_eq!(text, "Ada:Hi;f({\"b\": 1, \"a\": [true, null]})-?:2;c1");
    let again: Vec<Message> = serde_json::from_str(&serde_json::to_string(&messages).unwrap()).unwrap();
    assert_eq!(again, messages);
    assert_eq!((messages[0].text(), messages[1].text()), ("Hi", ""));
}

#[test]
fn generation_tags_change_nothing_but_their_own_white_space() {
    let plain = "a{% generation %}b{% endgeneration %}c";
    assert_eq!(render(plain).unwrap(), "abc");
    let trimmed = "a \n{%- generation -%}\n b \n{%- endgeneration -%}\n c";
    assert_eq!(render(trimmed).unwrap(), "abc");
    let lines = "x\n  {% generation %}\nb\n  {% endgeneration %}\nc";
    assert_eq!(render(lines).unwrap(), "x\nb\nc");
    let other = "{{ generation }}{% set generation = 1 %}";
    assert_eq!(marks::as_filter(other), (other.to_owned(), false));
    assert_eq!(marks::as_filter("a {% b"), ("a {% b".to_owned(), false));
}

fn marked(source: &str, messages: &[Message]) -> Result<Option<Marked>, TemplateError> {
    template(source)?.render_marked(messages, &Map::new())
}

#[test]
fn generation_blocks_are_found_byte_by_byte() {
    let source = "{% for m in messages %}{% if m.role == 'assistant' %}A:{% generation %}{{ m.content }}|\
{% endgeneration %}{% else %}é:{{ m.content }};{% endif %}{% endfor %}";
    let messages = [
        Message::new("user", "Hi"),
        Message::new("assistant", "Jä"),
        Message::new("user", "Jä|"),
        Message::new("assistant", ""),
    ];
    let got = marked(source, &messages).unwrap().unwrap();
    assert_eq!(got.text, template(source).unwrap().render(&messages, false).unwrap());
    let parts: Vec<&str> = got.spans.iter().map(|s| &got.text[s.clone()]).collect();
    assert_eq!((got.text.as_str(), parts), ("é:Hi;A:Jä|é:Jä|;A:|", vec!["Jä|", "|"]));
    assert_eq!(marked("{{ messages[0].content }}", &messages).unwrap(), None);
    assert!(template(source).unwrap().marks_generation() && !template(CHATML).unwrap().marks_generation());
}

#[test]
fn marks_do_not_clash_with_noncharacters_of_the_conversation() {
    let source = "{{ messages[0].content }}{% generation %}b{% endgeneration %}";
    let all: String = ('\u{fdd0}'..='\u{fdef}').collect();
    let part: String = all.chars().take(9).collect();
    let got = marked(source, &[Message::new("user", part.as_str())]).unwrap().unwrap();
    assert_eq!((&got.text[got.spans[0].clone()], got.spans.len()), ("b", 1));
    let e = marked(source, &[Message::new("user", all)]).unwrap_err();
    assert!(e.to_string().contains("noncharacter"), "{e}");
}

#[test]
fn marked_text_that_is_changed_afterwards_is_refused() {
    let trimmed = "{% set a %}{% generation %} b {% endgeneration %}{% endset %}{{ a | trim }}";
    let e = marked(trimmed, &[]).unwrap_err();
    assert!(matches!(&e, TemplateError::Marks { .. }) && e.to_string().contains("afterwards"), "{e}");
    let nested = "{% generation %}a{% generation %}b{% endgeneration %}{% endgeneration %}";
    assert!(marked(nested, &[]).unwrap_err().to_string().contains("within one another"));
    // Empty blocks mark nothing, and a part cut off behind the mark is seen.
    assert!(marked("{% generation %}{% endgeneration %}c", &[]).unwrap().unwrap().spans.is_empty());
    let cut = "{% set a %}{% generation %}bc{% endgeneration %}{% endset %}{{ a[:2] }}";
    assert!(marked(cut, &[]).is_err());
}

#[test]
fn more_variables_reach_the_template_and_none_replaces_the_messages() {
    let source = "{{ messages | length }}{{ enable_thinking is defined }}{{ tools | tojson }}{{ eos_token }}";
    let variables: Map<String, Json> = serde_json::from_str(
        r#"{"tools": [{"b": 1, "a": 2}], "enable_thinking": false, "eos_token": "E", "messages": []}"#,
    )
    .unwrap();
    let text = template(source).unwrap().render_with(&[Message::new("user", "")], false, &variables).unwrap();
    assert_eq!(text.to_lowercase(), "1true[{\"b\": 1, \"a\": 2}]e");
}

#[test]
fn a_refusal_by_the_template_carries_its_words_and_line() {
    let e = render("a\nb\n{{ raise_exception('roles must alternate') }}").unwrap_err();
    assert_eq!(e, TemplateError::Render { line: 3, what: "roles must alternate".into() });
}

#[test]
fn syntax_errors_carry_the_line_behind_generation_tags_too() {
    let e = render("{% generation %}\n{% endgeneration %}\n{% if x %}\n{{ ").unwrap_err();
    assert!(matches!(&e, TemplateError::Syntax { line: 4, .. }), "{e}");
    let e = render("\n{% wrong %}").unwrap_err();
    assert!(matches!(&e, TemplateError::Syntax { line: 2, .. }), "{e}");
}

#[test]
fn the_configuration_of_a_tokenizer_holds_one_template_or_several() {
    let of = |config: &str| ChatTemplate::from_tokenizer_config(&serde_json::from_str(config).unwrap());
    let one = of(r#"{"chat_template": "{{ eos_token }}", "eos_token": {"content": "E"}}"#).unwrap();
    assert_eq!(one.render(&[], false).unwrap(), "E");
    let several =
        r#"{"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]}"#;
    assert_eq!(of(several).unwrap().render(&[], false).unwrap(), "d");
    assert_eq!(of("{}").unwrap_err(), TemplateError::Missing);
    assert_eq!(of(r#"{"chat_template": []}"#).unwrap_err(), TemplateError::Missing);
}
