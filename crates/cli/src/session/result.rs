//! What a run found: the file `result.json` of its folder.

use std::path::Path;

use rhumb_core::stats::{self, Interval};
use rhumb_core::{Claim, Judgement, RunFolder, Verdict};
use serde::{Deserialize, Serialize};

use crate::exit::{Code, Failure, read_text};
use crate::experiment::Metrics;
use crate::recipe::Recipe;
use crate::report::Section;

/// Draws of a bootstrap, and the confidence that intervals are given with.
const RESAMPLES: usize = 10_000;
const LEVEL: f64 = 0.95;

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
    /// One entry per finished seed.
    pub(crate) seeds: Vec<SeedResult>,
    /// The verdict on the claim, when all seeds are done.
    pub(crate) judgement: Option<Judgement>,
}

impl RunResult {
    /// The file in a run folder.
    pub(crate) const FILE: &'static str = "result.json";

    /// Nothing found yet.
    pub(crate) fn new(name: &str, size: &str, recipe: &Recipe) -> Self {
        RunResult {
            recipe: name.to_owned(),
            size: size.to_owned(),
            title: recipe.title.clone(),
            statement: recipe.claim.statement.clone(),
            recorded: recipe.verdict.clone(),
            expect: recipe.claim.expect,
            seeds: Vec::new(),
            judgement: None,
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

    /// Judges the claim: by the number with one seed, by a 95 % interval over paired seeds with several.
    pub(crate) fn judge(&mut self, claim: &Claim) {
        let mean = |name: &str| self.mean(name);
        self.judgement = Some(match self.interval(claim) {
            Some(interval) => claim.judge_interval(interval, &mean),
            None => claim.judge(&mean),
        });
    }

    /// With a control, the seeds are paired: the interval is that of the difference, put at the mean bound.
    fn interval(&self, claim: &Claim) -> Option<Interval> {
        let measured = self.values(&claim.metric)?;
        if measured.len() < 2 {
            return None;
        }
        let Some(v) = &claim.versus else { return stats::bootstrap_mean(&measured, RESAMPLES, LEVEL, 0) };
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
    stats::paired_bootstrap(a, b, RESAMPLES, LEVEL, 0)
}
