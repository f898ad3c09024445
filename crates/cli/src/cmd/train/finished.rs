//! What is told about a finished fine-tuning.

use std::path::{Path, PathBuf};

use rhumb_core::Outcome;
use rhumb_core::stats::Interval;
use rhumb_lm::gem::{LossEntry, RowStats, Summary, Tempered, paired_change};
use rhumb_lm::sft::{Scores, SftConfig};
use serde_json::json;

use super::SftSettings;
use super::memory::Estimate;
use super::session::Kind;
use crate::cmd::report::folder::Summary as Told;
use crate::output::{command_line, shell_word};
use crate::report::Section;
use crate::table::{Table, bytes, number, seconds};

/// Everything that is told about a finished run.
pub(super) struct Finished<'a> {
    pub(super) kind: &'static Kind,
    pub(super) s: &'a SftSettings,
    pub(super) out: &'a Path,
    pub(super) config: &'a SftConfig,
    pub(super) outcome: &'a Outcome,
    pub(super) before: Option<Scores>,
    pub(super) after: Option<Scores>,
    /// Under GEM, the model before training at temperature 1 / beta, and the trained one at temperature beta.
    pub(super) tempered: Option<(Tempered, Tempered)>,
    pub(super) saved: Vec<PathBuf>,
    pub(super) state: usize,
    pub(super) estimate: Estimate,
    /// Largest resident size of the process.
    pub(super) peak: Option<u64>,
    pub(super) vocab: usize,
}

/// What the interval in the table is of.
fn caption(unit: &str) -> String {
    format!(
        "Means over all held-out tokens, and the change with its 95 % interval over {unit}s: the same {unit}s before and \
         after."
    )
}

/// A quantity by name, of one token where it is a mean over them, and of a summary.
type Pick = (&'static str, Option<fn(&RowStats) -> f64>, fn(&Summary) -> f64);

const CE: &str = "cross-entropy";
const ENTROPY: &str = "entropy";
const PERPLEXITY: &str = "perplexity";

/// A held-out quantity: name, value before and after, and the paired change.
struct Change {
    name: &'static str,
    before: f64,
    after: f64,
    paired: Option<Interval>,
}

impl Change {
    /// Whether it fell (true) or rose (false); `None` when the interval contains zero, or when the mean over tokens
    /// went the other way.
    fn direction(&self) -> Option<bool> {
        let i = self.paired?;
        let fell = i.high < 0.0 && self.after < self.before;
        let rose = i.low > 0.0 && self.after > self.before;
        (fell || rose).then_some(fell)
    }
}

impl Finished<'_> {
    fn changes(&self) -> Vec<Change> {
        let (Some(b), Some(a)) = (&self.before, &self.after) else { return Vec::new() };
        let (Some(mb), Some(ma)) = (b.summary(), a.summary()) else { return Vec::new() };
        let mut quantities: Vec<Pick> = vec![
            (CE, Some(|r| r.ce), |s| s.ce),
            (PERPLEXITY, None, |s| s.perplexity),
            (ENTROPY, Some(|r| r.entropy), |s| s.entropy),
        ];
        let loss = self.config.loss.entry();
        if !loss.lowers_ce() {
            quantities.insert(0, (loss.lowers, Some(|r| r.surrogate), |s| s.surrogate));
        }
        quantities
            .into_iter()
            .map(|(name, row, mean)| Change {
                name,
                before: mean(&mb),
                after: mean(&ma),
                paired: row.and_then(|row| paired_change(&b.documents, &a.documents, row, 0)),
            })
            .collect()
    }

    fn table(&self) -> Table {
        let mut t = Table::new([
            "held out".to_owned(),
            "before".to_owned(),
            "after".to_owned(),
            "change (95 %)".to_owned(),
        ]);
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
        if let Some(peak) = self.peak {
            t.row(["largest size of the process".to_owned(), bytes(peak)]);
        }
        t.row(["estimated before".to_owned(), bytes(self.estimate.peak())]);
        t.row(["optimizer state".to_owned(), format!("{} ({} bytes)", bytes(self.state as u64), self.state)]);
        for (name, b) in [
            ("parameters and their best copy", m.parameters),
            ("gradients", m.gradients),
            ("activations", m.activations),
            ("scratch", m.scratch),
        ] {
            t.row([name.to_owned(), bytes(b)]);
        }
        t
    }

    /// What a temperature does to the model before training and to the trained one, beside both as they are.
    fn temperatures(&self) -> Option<Table> {
        let (alone, fitted) = self.tempered?;
        let (before, after) = (self.before.as_ref()?.summary()?, self.after.as_ref()?.summary()?);
        let plain = |s: Summary| Tempered { temperature: 1.0, ce: s.ce, entropy: s.entropy };
        let mut t = Table::new(["at other temperatures", "T", CE, ENTROPY]);
        for (name, m) in [
            ("before training", plain(before)),
            ("before training, by temperature alone", alone),
            ("after training", plain(after)),
            ("after training, as it was fitted", fitted),
        ] {
            t.row([name.to_owned(), number(m.temperature), number(m.ce), number(m.entropy)]);
        }
        Some(t)
    }

    /// What a run of GEM cannot say without its controls.
    fn controls(&self) -> String {
        format!(
            "GEM at beta {beta} trains the model that cross-entropy gives when it is sampled at temperature {t:.3}. This run \
             has no arm trained by cross-entropy, so nothing here credits GEM with diversity. Missing: cross-entropy on the \
             same data; the same sampled at temperature {t:.3}; cross-entropy with weight decay; cross-entropy with an \
             entropy bonus; other seeds. A recipe of kind sft holds them all (rhumb show gem/split-tasks). S is \
             eval_surrogate in the records; the best weights are chosen by cross-entropy.",
            beta = self.s.beta,
            t = 1.0 / self.s.beta
        )
    }

    fn verdict(&self) -> String {
        verdict(&self.changes(), self.vocab, self.kind.unit, self.config.loss.entry())
    }

    pub(super) fn text(&self) -> String {
        let table = self.table();
        let table = if table.rows.is_empty() {
            String::new()
        } else {
            format!("{}{}\n\n", table.render(), caption(self.kind.unit))
        };
        let temperatures = self
            .temperatures()
            .map_or_else(String::new, |t| format!("{}{}\n\n", t.render(), self.controls()));
        let saved = match self.saved.as_slice() {
            [last, best] => format!(
                "The last weights are in {}, those with the lowest held-out cross-entropy in {}",
                last.display(),
                best.display()
            ),
            [last] if self.after.is_some() => {
                format!("The last weights, which no earlier evaluation beats, are in {}", last.display())
            }
            _ => format!("The last weights are in {}", self.out.join("model").display()),
        };
        format!(
            "{}\n{table}{temperatures}{}\n{saved}; report in {}\nstate.bin in {} is the last checkpoint: delete it when you do not need \
             it\nTry it: rhumb generate {} {}\n",
            self.verdict(),
            self.facts().render(),
            self.out.join("report.html").display(),
            self.out.display(),
            shell_word(&self.saved.last().unwrap_or(&self.out.to_owned()).to_string_lossy()),
            self.kind.try_it
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
            "verdict": self.verdict(), "held_out": changes,
            "temperatures": self.tempered.map(|(alone, fitted)| json!({ "before": alone, "after": fitted })), "steps": self.outcome.steps,
            "wall_s": self.outcome.wall_s, "optimizer_state_bytes": self.state,
            "peak_bytes": self.outcome.peak_bytes, "estimate": self.estimate,
            "estimate_bytes": self.estimate.peak(), "peak_resident_bytes": self.peak,
            "saved": self.saved, "folder": self.out,
        })
    }

    /// What `report.html` is made of, besides the files that every run has.
    pub(super) fn summary(&self) -> Told {
        let mut sections = Vec::new();
        let table = self.table();
        if !table.rows.is_empty() {
            sections.push(Section::Table(format!("Held-out {}s", self.kind.unit), table));
            sections.push(Section::Text(caption(self.kind.unit)));
        }
        sections.push(Section::Table("Cost".into(), self.facts()));
        if let Some(table) = self.temperatures() {
            sections.push(Section::Table("Held out, at other temperatures".into(), table));
        }
        if self.config.loss.is_gem() {
            sections.push(Section::Text(self.controls()));
        }
        Told {
            title: self.kind.title.into(),
            verdicts: vec![self.verdict()],
            sections,
            command: command_line(&[]),
            result: self.json(),
        }
    }
}

/// What the changes come to.
fn verdict(changes: &[Change], vocab: usize, unit: &str, loss: &LossEntry) -> String {
    let Some(first) = changes.first() else {
        return format!("No held-out {unit}s, so nothing is said about what was learnt.");
    };
    // Twice the same rule: what was trained, and the measure of fit where these are not one.
    let fit = changes.iter().find(|c| c.name == CE).unwrap_or(first);
    let uniform = (vocab as f64).ln();
    let (before, entropy) =
        changes.iter().find(|c| c.name == ENTROPY).map_or((0.0, 0.0), |c| (c.before, c.after));
    // Fresh weights begin there.
    if entropy > 0.98 * uniform && before <= 0.98 * uniform {
        return format!(
            "The prediction on held-out {unit}s is nearly uniform now (entropy {} of {} at most): the weights \
                 are destroyed. Use a smaller --lr, and clip.",
            number(entropy),
            number(uniform)
        );
    }
    match (first.direction(), fit.direction()) {
        (Some(true), Some(true)) => format!("{} fell on held-out {unit}s.", first.name),
        (Some(true), Some(false)) => format!(
            "{} fell on held-out {unit}s, and their cross-entropy rose: the model fits them worse. Fewer steps, a \
                 smaller --lr{}.",
            first.name,
            loss.parameter
                .map_or_else(String::new, |p| format!(", or a --{} nearer to {}", p.name, p.neutral))
        ),
        (Some(true), None) => {
            format!("{} fell on held-out {unit}s; their cross-entropy did not change clearly.", first.name)
        }
        (Some(false), _) => {
            format!("{} rose on held-out {unit}s: fewer steps or a smaller --lr.", first.name)
        }
        (None, _) => format!("{} did not change clearly on held-out {unit}s.", first.name),
    }
}

#[cfg(test)]
mod tests {
    use rhumb_lm::gem::LossKind;

    use super::*;

    const GEM: &LossEntry = LossKind::GemLinear { beta: 0.7 }.entry();

    fn change(name: &'static str, before: f64, after: f64, low: f64, high: f64) -> Change {
        let mean = f64::midpoint(low, high);
        Change { name, before, after, paired: Some(Interval { mean, low, high }) }
    }

    #[test]
    fn a_verdict_looks_at_the_fit_beside_the_trained_scalar() {
        let s = || change("S", 3.0, 2.0, -1.5, -0.5);
        let entropy = || change(ENTROPY, 1.0, 1.0, -0.1, 0.1);
        let told = |ce: Change| verdict(&[s(), ce, entropy()], 49_152, "conversation", GEM);
        assert_eq!(told(change(CE, 3.0, 2.5, -0.9, -0.1)), "S fell on held-out conversations.");
        let worse = told(change(CE, 3.0, 3.5, 0.1, 0.9));
        assert!(
            worse.contains("cross-entropy rose") && worse.contains("smaller --lr, or a --beta nearer to 1."),
            "{worse}"
        );
        assert!(told(change(CE, 3.0, 2.9, -0.3, 0.2)).contains("did not change clearly"));
        // Interval and mean over tokens disagree: nothing is claimed.
        assert!(
            verdict(&[change(CE, 3.0, 3.1, -0.9, -0.1)], 300, "conversation", GEM)
                .contains("did not change clearly")
        );
        assert!(verdict(&[change(CE, 3.0, 3.5, 0.1, 0.9)], 300, "conversation", GEM).contains("rose"));
    }

    #[test]
    fn weights_that_predict_everything_alike_are_no_success() {
        let fell = [change(CE, 15.0, 10.8, -5.0, -3.0), change(ENTROPY, 2.0, 10.8, 8.0, 9.0)];
        let told = verdict(&fell, 49_152, "conversation", GEM);
        assert!(told.contains("nearly uniform") && told.contains("smaller --lr"), "{told}");
        let fresh = [change(CE, 10.8, 10.7, -0.2, -0.1), change(ENTROPY, 10.8, 10.79, -0.1, 0.1)];
        assert_eq!(verdict(&fresh, 49_152, "window", GEM), "cross-entropy fell on held-out windows.");
    }
}
