#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn parse(text: &str) -> Result<Claim, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

fn claim(op: &str, tolerance: f64) -> Claim {
    parse(&format!(
        r#"{{"metric": "loss", "op": "{op}", "value": 1.0, "tolerance": {tolerance}, "expect": "holds"}}"#
    ))
    .unwrap()
}

fn verdict(c: &Claim, loss: f64) -> Verdict {
    c.judge(&|name| (name == "loss").then_some(loss)).verdict
}

#[test]
fn every_relation_holds_on_its_side_of_the_bound_only() {
    use Verdict::{Holds as H, Refuted as R};
    for (op, below, at, above) in
        [("<", H, R, R), ("<=", H, H, R), ("==", R, H, R), (">=", R, H, H), (">", R, R, H)]
    {
        let c = claim(op, 0.0);
        assert_eq!([0.5, 1.0, 1.5].map(|x| verdict(&c, x)), [below, at, above], "{op}");
    }
}

#[test]
fn the_tolerance_helps_the_claim() {
    for (op, helped) in [("<=", 1.05), ("<", 1.05), (">=", 0.95), (">", 0.95), ("==", 1.05)] {
        assert_eq!(verdict(&claim(op, 0.0), helped), Verdict::Refuted, "{op}");
        assert_eq!(verdict(&claim(op, 0.1), helped), Verdict::Holds, "{op}");
    }
}

#[test]
fn a_control_of_the_same_run_sets_the_bound() {
    let c = parse(
        r#"{"metric": "speed", "op": ">=", "versus": {"metric": "peer", "factor": 1.25, "offset": 1.0},
            "expect": "refuted"}"#,
    )
    .unwrap();
    let judge = |speed| c.judge(&move |name| Some(if name == "peer" { 4.0 } else { speed }));
    assert_eq!(judge(6.0).verdict, Verdict::Holds);
    let j = judge(5.9);
    assert_eq!((j.verdict, j.bound, j.as_expected()), (Verdict::Refuted, Some(6.0), true));
    assert_eq!(j.sentence, "speed = 5.9 >= 6 (from peer): refuted");
    assert!(!judge(6.0).as_expected());
}

#[test]
fn numbers_that_are_missing_or_not_finite_leave_the_claim_open() {
    let c = claim("<=", 0.0);
    assert_eq!(verdict(&c, f64::NAN), Verdict::Open);
    let j = c.judge(&|_| None);
    assert!(j.verdict == Verdict::Open && j.sentence.contains("loss was not recorded"));
    let c = parse(r#"{"metric": "a", "op": "<", "versus": {"metric": "b"}, "expect": "open"}"#).unwrap();
    let j = c.judge(&|name| (name == "a").then_some(1.0));
    assert!(j.as_expected() && j.sentence.contains("b was not recorded"), "{}", j.sentence);
}

#[test]
fn an_interval_over_the_bound_decides_nothing() {
    let at = |op: &str, low, high| {
        let i = Interval { mean: f64::midpoint(low, high), low, high };
        claim(op, 0.0).judge_interval(i, &|_| None).verdict
    };
    assert_eq!(at("<=", 0.8, 0.9), Verdict::Holds);
    assert_eq!(at("<=", 0.9, 1.1), Verdict::Open);
    assert_eq!(at("<=", 1.1, 1.2), Verdict::Refuted);
    assert_eq!(at(">", 1.1, 1.2), Verdict::Holds);
    assert_eq!(at("==", 0.9, 1.1), Verdict::Open);
    assert_eq!(at("==", 1.1, 1.2), Verdict::Refuted);
}

#[test]
fn unknown_keys_words_and_relations_are_refused() {
    for (text, says) in [
        (r#"{"metric": "a", "op": "<", "value": 1, "expect": "holds", "seed": 1}"#, "seed"),
        (r#"{"metric": "a", "op": "=<", "value": 1, "expect": "holds"}"#, "=<"),
        (r#"{"metric": "a", "op": "<", "value": 1, "expect": "maybe"}"#, "maybe"),
        (r#"{"metric": "a", "op": "<", "value": 1}"#, "expect"),
    ] {
        let e = parse(text).unwrap_err();
        assert!(e.contains(says), "{e}");
    }
}

#[test]
fn a_claim_needs_exactly_one_finite_bound() {
    let base = claim("<", 0.0);
    base.validate().unwrap();
    let none = Claim { value: None, ..base.clone() };
    assert!(none.validate().unwrap_err().contains("no bound"));
    let versus = Versus { metric: "b".to_owned(), factor: 1.0, offset: 0.0 };
    let both = Claim { versus: Some(versus), ..base.clone() };
    assert!(both.validate().unwrap_err().contains("keep one"));
    let endless = Claim { value: Some(f64::INFINITY), ..base.clone() };
    assert!(endless.validate().unwrap_err().contains("not finite"));
    let negative = Claim { tolerance: -1.0, ..base };
    assert!(negative.validate().unwrap_err().contains("tolerance"));
}
