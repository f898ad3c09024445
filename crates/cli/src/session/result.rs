//! What a run found: the file `result.json` of its folder.

use std::path::Path;

use rhumb_core::stats::{self, Interval};
use rhumb_core::{Claim, Judgement, RunFolder, Verdict};
use serde::{Deserialize, Serialize};

use crate::exit::{Code, Failure, read_text};
use crate::experiment::Metrics;
use crate::recipe::Recipe;
use crate::report::Section;

/// What one seed found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SeedResult {
    /// The seed.
    pub(crate) seed: u64,
    /// The measured numbers.
    pub(crate) metrics: Metrics,
    /// Seconds.
    pub(crate) wall_s: f64,
    /// Parts of the report.
    pub(crate) sections: Vec<Section>,
}

/// What a run found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunResult {
    /// Name of the recipe.
    pub(crate) recipe: String,
    /// `quick` or `full`.
    pub(crate) size: String,
    /// What is tested.
    pub(crate) title: String,
    /// The paper's sentence.
    pub(crate) statement: Option<String>,
    /// Our recorded verdict in words.
    pub(crate) recorded: Option<String>,
    /// The verdict that is recorded.
    pub(crate) expect: Verdict,
    /// Settings that were changed for this run; what is recorded does not speak about them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) changed: Vec<String>,
    /// One entry per finished seed.
    pub(crate) seeds: Vec<SeedResult>,
    /// The verdict on the claim, when all seeds are done.
    pub(crate) judgement: Option<Judgement>,
    /// The verdicts on the controls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) controls: Vec<Judgement>,
}

impl RunResult {
    /// The file in a run folder.
    pub(crate) const FILE: &'static str = "result.json";

    /// Nothing found yet.
    pub(crate) fn new(name: &str, size: &str, recipe: &Recipe, changed: &[String]) -> Self {
        RunResult {
            recipe: name.to_owned(),
            size: size.to_owned(),
            title: recipe.title.clone(),
            statement: recipe.claim.statement.clone(),
            recorded: recipe.verdict.clone(),
            expect: recipe.claim.expect,
            changed: changed.to_vec(),
            seeds: Vec::new(),
            judgement: None,
            controls: Vec::new(),
        }
    }

    /// The values of a metric, seed by seed; `None` unless every seed has it.
    pub(crate) fn values(&self, metric: &str) -> Option<Vec<f64>> {
        let values: Vec<f64> = self.seeds.iter().filter_map(|s| s.metrics.get(metric)).collect();
        (!values.is_empty() && values.len() == self.seeds.len()).then_some(values)
    }

    /// The mean over seeds.
    pub(crate) fn mean(&self, metric: &str) -> Option<f64> {
        self.values(metric).and_then(|v| stats::mean_sd(&v)).map(|(m, _)| m)
    }

    /// Judges the claim and its controls.
    ///
    /// # Errors
    /// A metric that no seed recorded is a slip of the recipe, not an open question.
    pub(crate) fn judge(&mut self, claim: &Claim, controls: &[Claim]) -> Result<(), Failure> {
        self.controls = controls.iter().map(|c| self.judged(c)).collect::<Result<_, _>>()?;
        self.judgement = Some(self.judged(claim)?);
        Ok(())
    }

    /// By the number with one seed, by a 95 % interval over paired seeds with several.
    fn judged(&self, claim: &Claim) -> Result<Judgement, Failure> {
        for name in std::iter::once(&claim.metric).chain(claim.versus.as_ref().map(|v| &v.metric)) {
            if !self.seeds.iter().any(|s| s.metrics.get(name).is_some()) {
                let known: Vec<&str> = self
                    .seeds
                    .first()
                    .map(|s| s.metrics.iter().map(|(k, _)| k).collect())
                    .unwrap_or_default();
                return Err(Failure::usage(format!(
                    "{}: the claim speaks of {name}, which the run did not measure; it measured {}",
                    self.recipe,
                    known.join(", ")
                )));
            }
        }
        let mean = |name: &str| self.mean(name);
        Ok(match self.interval(claim) {
            Some(interval) => claim.judge_interval(interval, &mean),
            None => claim.judge(&mean),
        })
    }

    /// With a control, the seeds are paired: the interval is that of the difference, put at the mean bound.
    fn interval(&self, claim: &Claim) -> Option<Interval> {
        let measured = self.values(&claim.metric)?;
        if measured.len() < 2 {
            return None;
        }
        let Some(v) = &claim.versus else { return stats::mean_interval(&measured, 0) };
        let bound: Vec<f64> = self.values(&v.metric)?.iter().map(|c| v.factor * c + v.offset).collect();
        let difference = paired(&measured, &bound)?;
        let (shift, _) = stats::mean_sd(&bound)?;
        Some(Interval {
            mean: difference.mean + shift,
            low: difference.low + shift,
            high: difference.high + shift,
        })
    }

    /// Writes the file.
    pub(crate) fn save(&self, folder: &RunFolder) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|e| Failure::usage(format!("the result has no JSON form: {e}")))?;
        Ok(folder.write(Self::FILE, &text)?)
    }

    /// Reads the file of a run folder.
    pub(crate) fn load(dir: &Path) -> Result<RunResult, Failure> {
        if !dir.is_dir() {
            return Err(Failure::missing(format!(
                "{} is no folder: give the folder of a run",
                dir.display()
            )));
        }
        let path = dir.join(Self::FILE);
        if !path.exists() {
            return Err(Failure::missing(format!(
                "{} has no {}: the run did not get that far, or this is no run folder",
                dir.display(),
                Self::FILE
            )));
        }
        serde_json::from_str(&read_text(&path)?).map_err(|e| {
            let what = anyhow::anyhow!("{}, line {}: {e}; run the recipe again", path.display(), e.line());
            Failure::new(Code::Usage, what)
        })
    }
}

/// 95 % interval of the mean of `a - b`, pair by pair.
pub(crate) fn paired(a: &[f64], b: &[f64]) -> Option<Interval> {
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    if a.len() == b.len() { stats::mean_interval(&differences, 0) } else { None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn result(pairs: &[(f64, f64)]) -> RunResult {
        let seeds = pairs.iter().enumerate().map(|(i, (a, b))| {
            let mut metrics = Metrics::default();
            metrics.put("ours", *a).put("control", *b);
            SeedResult { seed: i as u64, metrics, wall_s: 0.0, sections: Vec::new() }
        });
        RunResult {
            recipe: "paper/name".into(),
            size: "full".into(),
            title: String::new(),
            statement: None,
            recorded: None,
            expect: Verdict::Holds,
            changed: Vec::new(),
            seeds: seeds.collect(),
            judgement: None,
            controls: Vec::new(),
        }
    }

    fn claim(metric: &str, control: &str) -> Claim {
        let text = format!(
            r#"{{"metric": "{metric}", "op": "<=", "versus": {{"metric": "{control}", "offset": 0.0}}, "expect": "holds"}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn verdict(pairs: &[(f64, f64)]) -> Verdict {
        let mut r = result(pairs);
        r.judge(&claim("ours", "control"), &[claim("control", "ours")]).unwrap();
        assert_eq!(r.controls.len(), 1);
        r.judgement.unwrap().verdict
    }

    #[test]
    fn seeds_are_paired_so_that_what_they_share_does_not_blur_the_difference() {
        // Seeds differ by tens, the two arms by one: only the pairs tell them apart.
        let shared: Vec<(f64, f64)> =
            (0..5).map(|i| (10.0 * f64::from(i), 10.0 * f64::from(i) + 1.0)).collect();
        assert_eq!(verdict(&shared), Verdict::Holds);
        let reversed: Vec<(f64, f64)> = shared.iter().map(|(a, b)| (*b, *a)).collect();
        assert_eq!(verdict(&reversed), Verdict::Refuted);
        let mixed: Vec<(f64, f64)> = (0..5)
            .map(|i| (10.0 * f64::from(i), 10.0 * f64::from(i) + if i < 3 { 1.0 } else { -1.0 }))
            .collect();
        assert_eq!(verdict(&mixed), Verdict::Open);
    }

    #[test]
    fn two_seeds_decide_only_what_is_plain() {
        // The range of the two differences, which a bootstrap would give, lies below zero.
        assert_eq!(verdict(&[(0.0, 1.0), (0.0, 2.0)]), Verdict::Open);
        assert_eq!(verdict(&[(0.0, 1.0), (0.0, 1.01)]), Verdict::Holds);
        assert_eq!(verdict(&[(0.0, 1.0)]), Verdict::Holds);
    }

    #[test]
    fn a_metric_that_no_seed_measured_is_an_error_and_one_that_is_not_finite_leaves_the_claim_open() {
        let mut r = result(&[(0.0, 1.0)]);
        for c in [claim("our", "control"), claim("ours", "contol")] {
            let error = r.judge(&c, &[]).unwrap_err().to_string();
            assert!(error.contains("it measured control, ours"), "{error}");
        }
        assert_eq!(verdict(&[(f64::NAN, 1.0)]), Verdict::Open);
    }
}
