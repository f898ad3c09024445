//! Two evaluations of the same questions, paired question by question.

use std::path::Path;

use rhumb_core::{Interval, Manifest, Record, RunFolder, stats};
use serde_json::Value;

use crate::exit::Failure;

/// Settings that choose the questions where no data file does.
const CHOICE: [&str; 4] = ["task", "questions", "seed", "format"];

/// Sums over the tokens of a question, which are told per token.
const PER_TOKEN: &str = "sum_";
const TOKENS: &str = "scored_tokens";

/// A finished evaluation.
pub(super) struct Evaluation {
    manifest: Manifest,
    records: Vec<Record>,
}

/// What both measured of each question.
pub(super) struct Measure {
    pub(super) name: String,
    pub(super) first: Vec<f64>,
    pub(super) second: Vec<f64>,
    /// Of the mean difference, second less first.
    pub(super) difference: Option<Interval>,
}

impl Evaluation {
    /// The evaluation in a folder; `None` where another command wrote it.
    pub(super) fn load(dir: &Path) -> Result<Option<Self>, Failure> {
        let folder = RunFolder::open(dir);
        if !folder.file("manifest.json").exists() {
            return Ok(None);
        }
        let manifest = folder.manifest()?;
        if !manifest.name.starts_with("eval/") {
            return Ok(None);
        }
        Ok(Some(Evaluation { manifest, records: folder.records()? }))
    }

    /// Questions that were answered.
    pub(super) fn questions(&self) -> usize {
        self.records.len()
    }

    /// What was measured, as `rhumb eval` calls it.
    pub(super) fn name(&self) -> &str {
        &self.manifest.name
    }

    fn config(&self, key: &str) -> Option<&Value> {
        self.manifest.config.get(key)
    }

    /// Answers to each question; one where nothing is drawn.
    fn answers(&self) -> f64 {
        self.config("draws").and_then(|d| d["n"].as_f64()).unwrap_or(1.0)
    }

    fn values(&self, key: &str, n: usize) -> Option<Vec<f64>> {
        self.records[..n].iter().map(|r| r.get(key)).collect()
    }
}

/// Why two evaluations cannot be paired.
fn refusal(a: &Evaluation, b: &Evaluation) -> Option<String> {
    if a.name() != b.name() {
        return Some(format!(
            "{} and {} measure different things: compare two of one kind",
            a.name(),
            b.name()
        ));
    }
    let data = |e: &Evaluation| e.manifest.versions.iter().find(|v| v.0 == "data").map(|v| v.1.clone());
    let (da, db) = (data(a), data(b));
    if da != db {
        return Some("the evaluations read different data, so their questions are not the same".to_owned());
    }
    let other = CHOICE.iter().find(|k| da.is_none() && a.config(k) != b.config(k));
    other.map(|k| format!("the evaluations have another `{k}`, so their questions are not the same"))
}

/// What both evaluations measured, question by question; of different numbers of questions the first ones.
///
/// # Errors
/// When the questions are not the same.
pub(super) fn pair(a: &Evaluation, b: &Evaluation) -> Result<Vec<Measure>, Failure> {
    if let Some(why) = refusal(a, b) {
        return Err(Failure::usage(why));
    }
    let n = a.questions().min(b.questions());
    let Some(first) = a.records.first().filter(|_| n > 0) else {
        return Err(Failure::usage("one of the evaluations has no answered question yet".to_owned()));
    };
    let tokens = (a.values(TOKENS, n), b.values(TOKENS, n));
    if tokens.0 != tokens.1 {
        return Err(Failure::usage(
            "the models cut the same texts into different tokens, so that nothing per token can be paired"
                .to_owned(),
        ));
    }
    let measure = |key: &str| {
        let (mut x, mut y) = (a.values(key, n)?, b.values(key, n)?);
        if let (Some(name), Some(tokens)) = (key.strip_prefix(PER_TOKEN), &tokens.0) {
            let d: Vec<f64> = x.iter().zip(&y).map(|(x, y)| y - x).collect();
            let difference = stats::ratio_interval(&d, tokens, 0);
            // Weights that make the mean over questions the mean over tokens.
            let per = n as f64 / tokens.iter().sum::<f64>();
            x.iter_mut().chain(&mut y).for_each(|v| *v *= per);
            return Some(Measure { name: name.to_owned(), first: x, second: y, difference });
        }
        if key == "right" {
            x.iter_mut().for_each(|v| *v /= a.answers());
            y.iter_mut().for_each(|v| *v /= b.answers());
        }
        let difference = crate::session::paired(&y, &x);
        Some(Measure { name: key.to_owned(), first: x, second: y, difference })
    };
    Ok(first.values().iter().map(|v| &*v.0).filter(|k| *k != TOKENS).filter_map(measure).collect())
}
