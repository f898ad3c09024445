//! What is told about a finished fine-tuning.

use std::path::{Path, PathBuf};

use rhumb_core::stats::Interval;
use rhumb_core::{Outcome, RunFolder};
use rhumb_lm::gem::{RowStats, Summary, paired_change};
use rhumb_lm::sft::{Scores, SftConfig};
use rhumb_nn::loss::LossKind;
use serde_json::json;

use super::super::SftSettings;
use crate::exit::Failure;
use crate::report::{LinePlot, Report, Section, Series, Tone};
use crate::table::{Table, bytes, number, seconds};

/// Everything that is told about a finished run.
pub(super) struct Finished<'a> {
    pub(super) s: &'a SftSettings,
    pub(super) out: &'a Path,
    pub(super) config: &'a SftConfig,
    pub(super) outcome: &'a Outcome,
    pub(super) before: Option<Scores>,
    pub(super) after: Option<Scores>,
    pub(super) saved: Vec<PathBuf>,
    pub(super) state: usize,
}

/// A quantity by name, of one token and of a summary.
type Pick = (&'static str, fn(&RowStats) -> f64, fn(&Summary) -> f64);

/// A held-out quantity: name, value before and after, and the paired change.
struct Change {
    name: &'static str,
    before: f64,
    after: f64,
    paired: Option<Interval>,
}

impl Finished<'_> {
    fn changes(&self) -> Vec<Change> {
        let (Some(b), Some(a)) = (&self.before, &self.after) else { return Vec::new() };
        let (Some(mb), Some(ma)) = (b.summary(), a.summary()) else { return Vec::new() };
        let mut quantities: Vec<Pick> =
            vec![("cross-entropy", |r| r.ce, |s| s.ce), ("entropy", |r| r.entropy, |s| s.entropy)];
        if self.config.loss != LossKind::Ce {
            quantities.insert(0, ("S = beta CE(z / beta)", |r| r.surrogate, |s| s.surrogate));
        }
        quantities
            .into_iter()
            .map(|(name, row, mean)| Change {
                name,
                before: mean(&mb),
                after: mean(&ma),
                paired: paired_change(&b.documents, &a.documents, row, 0),
            })
            .collect()
    }

    fn table(&self) -> Table {
        let mut t = Table::new(["held out", "before", "after", "change per conversation (95 %)"]);
        for c in self.changes() {
            let interval = c.paired.map_or_else(String::new, |i| {
                format!("{} [{}, {}]", number(i.mean), number(i.low), number(i.high))
            });
            t.row([c.name.to_owned(), number(c.before), number(c.after), interval]);
        }
        t
    }

    fn facts(&self) -> Table {
        let m = &self.outcome.peak_bytes;
        let mut t = Table::new(["", "value"]);
        t.row(["steps".to_owned(), self.outcome.steps.to_string()]);
        t.row(["time".to_owned(), seconds(self.outcome.wall_s)]);
        t.row(["optimizer state".to_owned(), format!("{} ({} bytes)", bytes(self.state as u64), self.state)]);
        for (name, b) in [
            ("parameters", m.parameters),
            ("gradients", m.gradients),
            ("activations", m.activations),
            ("scratch", m.scratch),
        ] {
            t.row([name.to_owned(), bytes(b)]);
        }
        t
    }

    fn verdict(&self) -> String {
        let Some(c) = self.changes().into_iter().next() else {
            return "No held-out conversations, so nothing is said about what was learnt.".into();
        };
        match c.paired {
            Some(i) if i.high < 0.0 => format!("{} fell on held-out conversations.", c.name),
            Some(i) if i.low > 0.0 => {
                format!("{} rose on held-out conversations: fewer steps or a smaller --lr.", c.name)
            }
            _ => format!("{} did not change clearly on held-out conversations.", c.name),
        }
    }

    pub(super) fn text(&self) -> String {
        let saved: Vec<String> = self.saved.iter().map(|p| p.display().to_string()).collect();
        format!(
            "{}\n{}\n{}\n\nSaved {}; report in {}\nTry it: rhumb generate {} --chat \"Hello\"\n",
            self.verdict(),
            self.table().render(),
            self.facts().render(),
            saved.join(", "),
            self.out.join("report.html").display(),
            saved[0]
        )
    }

    pub(super) fn json(&self) -> serde_json::Value {
        let changes: Vec<_> = self
            .changes()
            .into_iter()
            .map(|c| {
                json!({ "name": c.name, "before": c.before, "after": c.after,
                        "change": c.paired.map(|i| json!({ "mean": i.mean, "low": i.low, "high": i.high })) })
            })
            .collect();
        json!({
            "verdict": self.verdict(), "held_out": changes, "steps": self.outcome.steps,
            "wall_s": self.outcome.wall_s, "optimizer_state_bytes": self.state,
            "peak_bytes": self.outcome.peak_bytes, "saved": self.saved, "folder": self.out,
        })
    }

    pub(super) fn report(&self, folder: &RunFolder) -> Result<Report, Failure> {
        let mut report = Report::new("Supervised fine-tuning");
        report.verdict(Tone::Plain, self.verdict());
        report.table("Held-out conversations, means over tokens", self.table());
        report.table("Cost", self.facts());
        let records = folder.records()?;
        for (title, keys) in [
            ("Loss", &["loss", "ce", "eval_ce"][..]),
            ("Entropy of the prediction", &["entropy", "eval_entropy"]),
            ("Gradient norm", &["grad_norm"]),
            ("Learning rate", &["lr"]),
        ] {
            let curve = |k: &&str| {
                let points: Vec<(f64, f64)> =
                    records.iter().filter_map(|r| r.get(k).map(|v| (r.step as f64, v))).collect();
                (!points.is_empty()).then(|| Series::new(*k, points))
            };
            let series: Vec<_> = keys.iter().filter_map(curve).collect();
            if !series.is_empty() {
                let (x, y) = ("step".to_owned(), title.to_owned());
                report.push(Section::Lines(LinePlot {
                    title: title.into(),
                    x,
                    y,
                    series,
                    ..LinePlot::default()
                }));
            }
        }
        if self.config.loss != LossKind::Ce {
            report.text(format!(
                "GEM at beta {} trains the model whose temperature-{:.3} sampling plain cross-entropy would give; before \
                 you credit GEM with diversity, compare with cross-entropy sampled at that temperature.",
                self.s.beta,
                1.0 / self.s.beta
            ));
        }
        let settings = serde_json::to_value(self.s).unwrap_or_default();
        report.details("Settings", format!("{settings:#}"));
        Ok(report)
    }
}
