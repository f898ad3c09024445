#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;

fn problem() -> Problem {
    Problem {
        task_id: "t/0".into(),
        prompt: "import math\n\ndef area(r):\n    \"\"\"Area of a disc.\"\"\"\n".into(),
        entry_point: "area".into(),
        canonical_solution: "    return math.pi * r * r\n".into(),
        test: "def check(candidate):\n    assert abs(candidate(1) - 3.14159) < 1e-4\n".into(),
    }
}

fn line(edit: impl Fn(&mut serde_json::Map<String, serde_json::Value>)) -> String {
    let mut value = serde_json::to_value(problem()).unwrap();
    edit(value.as_object_mut().unwrap());
    value.to_string()
}

#[test]
fn a_program_is_joined_as_in_the_published_evaluation() {
    let p = problem();
    let want = "import math\n\ndef area(r):\n    \"\"\"Area of a disc.\"\"\"\n    return math.pi * r * r\n\n\
                def check(candidate):\n    assert abs(candidate(1) - 3.14159) < 1e-4\n\ncheck(area)";
    assert_eq!(p.program(&p.canonical_solution), want);
}

#[test]
fn a_request_holds_the_prompt_in_a_block() {
    let r = problem().request();
    assert!(
        r.ends_with("```python\nimport math\n\ndef area(r):\n    \"\"\"Area of a disc.\"\"\"\n```"),
        "{r}"
    );
}

#[test]
fn problems_are_read_line_by_line() {
    let second = line(|p| {
        p.insert("task_id".into(), "t/1".into());
        p.insert("more".into(), 1.into());
    });
    let text = format!("{}\n\n  \n{second}\n", line(|_| ()));
    let all = problems(&text, "x.jsonl").unwrap();
    assert_eq!(all[0], problem());
    assert_eq!((all.len(), all[1].task_id.as_str()), (2, "t/1"));
}

#[test]
fn what_is_wrong_with_a_line_is_told_with_its_number_and_field() {
    let good = line(|_| ());
    let table = [
        (format!("{good}\n{good}"), "x.jsonl, line 2: task_id \"t/0\" occurs a second time"),
        (format!("\n{}", line(|p| drop(p.remove("test")))), "x.jsonl, line 2: missing field `test`"),
        (line(|p| drop(p.insert("prompt".into(), 3.into()))), "x.jsonl, line 1: invalid type: integer `3`"),
        (line(|p| drop(p.insert("prompt".into(), " \n".into()))), "x.jsonl, line 1: prompt is blank"),
        (line(|p| drop(p.insert("entry_point".into(), "f(".into()))), "entry_point \"f(\" is no name"),
        (line(|p| drop(p.insert("entry_point".into(), "".into()))), "entry_point \"\" is no name"),
        ("{\"task_id\": ".into(), "x.jsonl, line 1: no JSON: EOF while parsing a value (column 12)"),
        ("\n\n".into(), "x.jsonl is empty"),
    ];
    for (text, want) in table {
        let e = problems(&text, "x.jsonl").unwrap_err().to_string();
        assert!(e.contains(want), "{e}\n{want}");
    }
}

#[test]
fn samples_find_their_problems() {
    let problems = [Problem { task_id: "t/9".into(), ..problem() }, problem()];
    let text = "{\"task_id\": \"t/0\", \"completion\": \"    return 1\"}\n";
    let all = samples(text, "s.jsonl", &problems).unwrap();
    assert_eq!(all, [(1, Sample { task_id: "t/0".into(), completion: "    return 1".into() })]);
    let table = [
        ("\n{\"task_id\": \"t/1\", \"completion\": \"\"}", "s.jsonl, line 2: task_id \"t/1\" is none of the"),
        ("{\"task_id\": \"t/0\"}", "s.jsonl, line 1: missing field `completion`"),
        ("", "s.jsonl is empty"),
    ];
    for (text, want) in table {
        let e = samples(text, "s.jsonl", &problems).unwrap_err().to_string();
        assert!(e.contains(want), "{e}");
    }
}

#[test]
fn a_continuation_ends_at_the_first_stop() {
    assert_eq!(continuation("    return 1\n\nprint(2)\ndef g():\n"), "    return 1\n");
    for stop in STOPS {
        assert_eq!(continuation(&format!("    return 1{stop} x")), "    return 1");
    }
    // Indented ones are part of the function.
    let body = "    if r:\n        print(r)\n    # x\n    return 1\n";
    assert_eq!(continuation(body), body);
}

#[test]
fn the_block_that_defines_the_function_is_taken() {
    let code = "def area(r):\n    return 3.14159 * r * r\n";
    let whole = format!("\n\n{code}");
    let table = [
        format!("Here it is:\n```python\n{code}```\nIt works."),
        format!("```Python title=x\n{code}"),
        format!("~~~\n{code}~~~"),
        format!("````md\n{code}````"),
        format!("```\nx = 1\n```\nand\n```py\n{code}```"),
        format!("- item\n  ```python\n  {}\n  ```", code.trim_end().replace('\n', "\n  ")),
        format!("Sure!\n\n{code}\nThis works since it does.\n").replace("\n\nThis", "\nThis"),
    ];
    for text in table {
        assert_eq!(answer(&problem(), &text), whole, "{text}");
    }
    // Names that begin alike are others; spaces are allowed.
    assert!(
        answer(&problem(), "```\ndef area2(r):\n    return 1\n```\n```\ndef  area (r): pass\n```")
            .contains("area (")
    );
}

#[test]
fn code_without_the_function_is_its_body() {
    let body = "    return 2\n";
    assert_eq!(answer(&problem(), "```python\n    return 2\n```"), body);
    assert_eq!(answer(&problem(), "```python\nreturn 2\n```"), body);
    assert_eq!(
        answer(&problem(), "```sh\nls\n```\n```python\nx = 2\n\nreturn x\n```"),
        "    x = 2\n\n    return x\n"
    );
    assert_eq!(answer(&problem(), "    return 2\n\n# Test"), "    return 2\n");
    assert_eq!(answer(&problem(), ""), "");
    assert_eq!(answer(&problem(), "```python\n```"), "");
}

#[test]
fn code_without_a_fence_ends_where_prose_begins() {
    let text = "Sure, here:\nimport re\nPI = 3.14\n@cache\ndef area(\n    r,\n):\n    return PI\n\nThis is it = good.\nx = 1";
    let want = "\n\nimport re\nPI = 3.14\n@cache\ndef area(\n    r,\n):\n    return PI\n\n";
    assert_eq!(answer(&problem(), text), want);
}

#[test]
fn names_of_verdicts_are_those_in_json() {
    for v in Verdict::ALL {
        assert_eq!(serde_json::to_value(v).unwrap(), v.name());
    }
}
