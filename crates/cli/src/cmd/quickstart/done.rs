//! What a finished quick start says.

use std::path::Path;

use rhumb_lm::quickstart::study::{BETA, Measures};
use rhumb_nn::loss::LossKind;
use rhumb_optim::Kind;
use serde_json::json;

use super::super::report::folder::Summary;
use super::Arm;
use crate::output::command_line;
use crate::report::{BarPlot, LinePlot, Section, Series};
use crate::table::{Table, number, seconds};

/// All results.
pub(super) struct Done {
    pub(super) arms: Vec<Arm>,
    pub(super) control: Measures,
    pub(super) start: Measures,
    pub(super) parameters: usize,
    pub(super) wall_s: f64,
}

fn row(name: &str, m: &Measures) -> Vec<String> {
    let mut cells = vec![name.to_owned(), format!("{:.3}", m.ce), format!("{:.3}", m.entropy)];
    cells.push(format!("{:.3}", m.right));
    cells.extend(m.pass.iter().map(|p| format!("{p:.3}")));
    cells.push(format!("{:.3}", m.coverage));
    cells
}

impl Done {
    fn find(&self, optimizer: Kind, gem: bool) -> Option<&Arm> {
        self.arms.iter().find(|a| a.optimizer == optimizer && (a.loss != LossKind::Ce) == gem)
    }

    fn cost(&self) -> Table {
        let mut t =
            Table::new(["fine-tuning", "state bytes", "per parameter", "step ms", "train CE", "held-out CE"]);
        for a in &self.arms {
            t.row([
                a.name.clone(),
                a.state_bytes.to_string(),
                format!("{:.3}", a.state_bytes as f64 / self.parameters as f64),
                format!("{:.1}", a.step_ms),
                format!("{:.3}", a.train_loss),
                format!("{:.3}", a.measures.ce),
            ]);
        }
        t
    }

    fn diversity(&self) -> Table {
        let mut t = Table::new([
            "answers", "CE", "entropy", "right", "pass@1", "pass@4", "pass@16", "pass@64", "coverage",
        ]);
        t.row(row("before fine-tuning", &self.start));
        for a in &self.arms {
            t.row(row(&a.name, &a.measures));
        }
        t.row(row(
            &format!("control: Adam-mini, cross-entropy, sampled at T = {:.2}", 1.0 / BETA),
            &self.control,
        ));
        t
    }

    fn verdicts(&self) -> Vec<String> {
        let mut out = Vec::new();
        if let (Some(w), Some(m)) = (self.find(Kind::AdamW, false), self.find(Kind::AdamMini, false)) {
            out.push(format!(
                "Adam-mini keeps {} bytes of state, AdamW {} ({:.1} % less); held-out cross-entropy {:.3} against {:.3}.",
                m.state_bytes,
                w.state_bytes,
                100.0 * (1.0 - m.state_bytes as f64 / w.state_bytes as f64),
                m.measures.ce,
                w.measures.ce
            ));
        }
        if let (Some(ce), Some(gem)) = (self.find(Kind::AdamMini, false), self.find(Kind::AdamMini, true)) {
            let (c, g, t) = (&ce.measures, &gem.measures, &self.control);
            out.push(format!(
                "GEM {} entropy ({:.3} against {:.3}) and {} pass@16 ({:.3} against {:.3}); it {} pass@1 ({:.3} against {:.3}).",
                if g.entropy > c.entropy { "keeps more" } else { "keeps no more" },
                g.entropy,
                c.entropy,
                if g.pass[2] > c.pass[2] { "raises" } else { "does not raise" },
                g.pass[2],
                c.pass[2],
                if g.pass[0] < c.pass[0] { "pays with a lower" } else { "does not lower" },
                g.pass[0],
                c.pass[0]
            ));
            let gap = g.pass[2] - t.pass[2];
            out.push(format!(
                "The control, plain cross-entropy sampled at T = {:.2}, reaches pass@16 {:.3}: {}. One seed, so small \
                 differences mean nothing.",
                1.0 / BETA,
                t.pass[2],
                if gap > 0.01 {
                    "GEM is ahead of it here"
                } else if gap < -0.01 {
                    "the control is ahead of GEM here"
                } else {
                    "the same, so a temperature does here what GEM does"
                }
            ));
        }
        out
    }

    pub(super) fn text(&self, out: &Path) -> String {
        format!(
            "{}\n{}\n{}\n\nright: chance that one sample is a right answer; pass@k: that the wanted answer is among k; \
             coverage: share of the right\nanswers that 16 samples contain. All computed from probabilities, nothing \
             sampled.\n\n{}; report: {}\n",
            self.cost().render(),
            self.diversity().render(),
            self.verdicts().join("\n"),
            seconds(self.wall_s),
            out.join("report.html").display()
        )
    }

    pub(super) fn json(&self, out: &Path) -> serde_json::Value {
        let measures = |m: &Measures| {
            json!({ "ce": m.ce, "entropy": m.entropy, "right": m.right, "pass@1": m.pass[0], "pass@4": m.pass[1],
                    "pass@16": m.pass[2], "pass@64": m.pass[3], "coverage": m.coverage })
        };
        let arms: Vec<_> = self
            .arms
            .iter()
            .map(|a| {
                json!({ "name": a.name, "state_bytes": a.state_bytes, "step_ms": a.step_ms, "train_ce": a.train_loss,
                        "held_out": measures(&a.measures) })
            })
            .collect();
        json!({
            "parameters": self.parameters, "before": measures(&self.start), "arms": arms,
            "control": measures(&self.control), "verdict": self.verdicts(), "wall_s": self.wall_s,
            "report": out.join("report.html"),
        })
    }

    /// What the report is made of, besides the files of the arms.
    pub(super) fn summary(&self, pretrain: &[(f64, f64)], out: &Path) -> Summary {
        let mut sections = vec![
            Section::Table("What it costs".into(), self.cost()),
            Section::Table("What it answers (held-out questions)".into(), self.diversity()),
        ];
        let names: Vec<String> = self.arms.iter().map(|a| a.name.clone()).collect();
        let mut groups = names;
        groups.push("control".into());
        let all: Vec<&Measures> =
            self.arms.iter().map(|a| &a.measures).chain(std::iter::once(&self.control)).collect();
        let bars = |pick: fn(&Measures) -> f64| all.iter().map(|m| pick(m)).collect::<Vec<f64>>();
        sections.push(Section::Bars(BarPlot {
            title: "Chance that the wanted answer is among k samples".into(),
            y: "pass@k".into(),
            groups,
            series: vec![
                Series::new("k = 1", bars(|m| m.pass[0])),
                Series::new("k = 4", bars(|m| m.pass[1])),
                Series::new("k = 16", bars(|m| m.pass[2])),
            ],
        }));
        sections.push(Section::Lines(LinePlot {
            title: "Fine-tuning".into(),
            x: "step".into(),
            y: "cross-entropy per trained token".into(),
            series: self.arms.iter().map(|a| Series::new(a.name.clone(), a.curve.clone())).collect(),
            ..LinePlot::default()
        }));
        sections.push(Section::Lines(LinePlot {
            title: "Pre-training".into(),
            x: "step".into(),
            y: "cross-entropy per token".into(),
            series: vec![Series::new("AdamW", pretrain.to_vec())],
            ..LinePlot::default()
        }));
        sections.push(Section::Text(format!(
            "GEM at beta {} fits the distribution that cross-entropy fits, to scores divided by beta; cross-entropy sampled \
             at T = 1/beta is therefore the control that belongs beside it. Step times include data and clipping; compare \
             them with each other only.",
            number(BETA)
        )));
        Summary {
            title: "Quick start: one small decoder, fine-tuned four ways".into(),
            verdicts: self.verdicts(),
            sections,
            command: command_line(&[]),
            result: self.json(out),
        }
    }
}
