//! A recipe's claim and the verdict on it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::stats::Interval;

/// A relation between a measured number and a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Op {
    /// Less than.
    #[serde(rename = "<")]
    Less,
    /// At most.
    #[serde(rename = "<=")]
    AtMost,
    /// Equal, within the tolerance.
    #[serde(rename = "==")]
    Equal,
    /// At least.
    #[serde(rename = ">=")]
    AtLeast,
    /// More than.
    #[serde(rename = ">")]
    More,
}

impl Op {
    /// As written in a recipe.
    pub fn symbol(self) -> &'static str {
        match self {
            Op::Less => "<",
            Op::AtMost => "<=",
            Op::Equal => "==",
            Op::AtLeast => ">=",
            Op::More => ">",
        }
    }

    /// Whether `a op b`, with the tolerance in favour of the claim.
    pub fn holds(self, a: f64, b: f64, tolerance: f64) -> bool {
        match self {
            Op::Less => a < b + tolerance,
            Op::AtMost => a <= b + tolerance,
            Op::Equal => (a - b).abs() <= tolerance,
            Op::AtLeast => a >= b - tolerance,
            Op::More => a > b - tolerance,
        }
    }
}

/// What a claim is found to be, or is recorded as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The measurement agrees with the claim.
    Holds,
    /// The measurement contradicts the claim.
    Refuted,
    /// The measurement cannot decide.
    Open,
}

impl Verdict {
    /// The word used in recipes and reports.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Holds => "holds",
            Verdict::Refuted => "refuted",
            Verdict::Open => "open",
        }
    }
}

/// The control of a claim: another metric of the same run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Versus {
    /// The control's metric.
    pub metric: String,
    /// The bound is `factor * control + offset`.
    #[serde(default = "one")]
    pub factor: f64,
    /// See `factor`.
    #[serde(default)]
    pub offset: f64,
}

fn one() -> f64 {
    1.0
}

/// The `[claim]` of a recipe: `metric op bound`, where the bound is a number or follows a control.
///
/// `expect` is the verdict that belongs to the committed result. A refuted claim is a result too: a check
/// fails only when the verdict differs from the recorded one.
///
/// ```
/// use rhumb_core::{Claim, Verdict};
/// let c: Claim = serde_json::from_str(
///     r#"{"metric": "mini/loss", "op": "<=", "versus": {"metric": "adamw/loss"}, "tolerance": 0.01,
///         "expect": "holds"}"#,
/// ).unwrap();
/// let j = c.judge(&|name| Some(if name == "mini/loss" { 1.005 } else { 1.0 }));
/// assert_eq!(j.verdict, Verdict::Holds);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The sentence of the paper, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    /// The measured metric.
    pub metric: String,
    /// The relation.
    pub op: Op,
    /// A bound that is a number; exactly one of `value` and `versus` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// A bound that follows a control of the same run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versus: Option<Versus>,
    /// Absolute slack in favour of the claim.
    #[serde(default)]
    pub tolerance: f64,
    /// The recorded verdict.
    pub expect: Verdict,
}

/// A verdict with the numbers it rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// The recorded verdict.
    pub expect: Verdict,
    /// The measured number, if there is one.
    pub measured: Option<f64>,
    /// The bound, if there is one.
    pub bound: Option<f64>,
    /// One sentence with the numbers.
    pub sentence: String,
}

impl Judgement {
    /// Whether the verdict is the recorded one; a check fails when it is not.
    pub fn as_expected(&self) -> bool {
        self.verdict == self.expect
    }
}

impl Claim {
    /// Checks what serde cannot.
    ///
    /// # Errors
    /// A sentence naming the key and what to write instead.
    pub fn validate(&self) -> Result<(), String> {
        match (&self.value, &self.versus) {
            (None, None) => {
                return Err(format!(
                    "the claim on {} has no bound: give `value`, or `versus` with a control's metric",
                    self.metric
                ));
            }
            (Some(_), Some(_)) => {
                return Err(format!("the claim on {} has `value` and `versus`: keep one", self.metric));
            }
            _ => {}
        }
        let bounds =
            [self.value, self.versus.as_ref().map(|v| v.factor), self.versus.as_ref().map(|v| v.offset)];
        if bounds.iter().flatten().any(|b| !b.is_finite()) {
            return Err(format!("the bound of the claim on {} is not finite", self.metric));
        }
        if !(self.tolerance >= 0.0 && self.tolerance.is_finite()) {
            return Err(format!(
                "tolerance {} of the claim on {}: give a number >= 0",
                self.tolerance, self.metric
            ));
        }
        Ok(())
    }

    /// Judges by single numbers; `metric` looks a name up. Missing or non-finite numbers leave it open.
    pub fn judge(&self, metric: &dyn Fn(&str) -> Option<f64>) -> Judgement {
        let measured = metric(&self.metric);
        let bound = self.bound(metric);
        let (verdict, sentence) = match (finite(measured), finite(bound)) {
            (Some(a), Some(b)) => {
                let holds = self.op.holds(a, b, self.tolerance);
                let verdict = if holds { Verdict::Holds } else { Verdict::Refuted };
                (verdict, self.sentence(&a.to_string(), b, verdict))
            }
            (None, _) => (Verdict::Open, missing(&self.metric, measured)),
            (_, None) => (Verdict::Open, missing(self.versus.as_ref().map_or("value", |v| &v.metric), bound)),
        };
        Judgement { verdict, expect: self.expect, measured, bound, sentence }
    }

    /// Judges by an interval of the measured number, e.g. over seeds: open when the bound lies inside it, so
    /// that luck does not decide.
    pub fn judge_interval(&self, measured: Interval, metric: &dyn Fn(&str) -> Option<f64>) -> Judgement {
        let bound = self.bound(metric);
        let Some(b) = finite(bound) else {
            return self.judge(&|name| if name == self.metric { Some(measured.mean) } else { metric(name) });
        };
        let low = self.op.holds(measured.low, b, self.tolerance);
        let high = self.op.holds(measured.high, b, self.tolerance);
        // For `==` both ends must lie within the tolerance, and ends on both sides of the bound refute nothing.
        let straddles = self.op == Op::Equal && measured.low <= b && b <= measured.high;
        let verdict = match (low, high) {
            (true, true) => Verdict::Holds,
            (false, false) if !straddles => Verdict::Refuted,
            _ => Verdict::Open,
        };
        let text = format!("{} (interval {} to {})", measured.mean, measured.low, measured.high);
        Judgement {
            verdict,
            expect: self.expect,
            measured: Some(measured.mean),
            bound,
            sentence: self.sentence(&text, b, verdict),
        }
    }

    fn bound(&self, metric: &dyn Fn(&str) -> Option<f64>) -> Option<f64> {
        match (&self.value, &self.versus) {
            (Some(v), _) => Some(*v),
            (None, Some(v)) => metric(&v.metric).map(|c| v.factor * c + v.offset),
            (None, None) => None,
        }
    }

    fn sentence(&self, measured: &str, bound: f64, verdict: Verdict) -> String {
        let from = self.versus.as_ref().map(|v| format!(" (from {})", v.metric)).unwrap_or_default();
        let slack = if self.tolerance > 0.0 { format!(" +- {}", self.tolerance) } else { String::new() };
        format!("{} = {measured} {} {bound}{slack}{from}: {}", self.metric, self.op.symbol(), verdict.word())
    }
}

fn finite(v: Option<f64>) -> Option<f64> {
    v.filter(|x| x.is_finite())
}

fn missing(name: &str, v: Option<f64>) -> String {
    match v {
        Some(x) => format!("{name} is {x}: open, because the run did not stay finite"),
        None => format!("{name} was not recorded: open, check the name in the claim"),
    }
}

#[cfg(test)]
mod tests;
