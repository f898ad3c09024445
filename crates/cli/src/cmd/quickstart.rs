//! `rhumb quickstart`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rhumb_core::{Budget, Manifest, Observer, RunControl, RunFolder, StopReason, Streams};
use rhumb_lm::quickstart::corpus::{Corpus, Sizes};
use rhumb_lm::quickstart::study::{
    BETA, Measures, at_temperature, decoder, fine_tuning, measure, pretraining,
};
use rhumb_lm::sft::{Sft, SftConfig};
use rhumb_nn::loss::LossKind;
use rhumb_nn::model::{Decoder, init};
use rhumb_optim::Kind;
use serde::Serialize;
use serde_json::json;

use super::report::folder::{SUMMARY, Summary, of_folder, only_fresh};
use crate::exit::{Code, Failure};
use crate::output::{Global, Output, command_line};
use crate::progress::Progress;
use crate::report::{BarPlot, LinePlot, Section, Series};
use crate::table::{Table, number, seconds};
use crate::{interrupt, machine, session};

/// Arguments of `quickstart`.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct Args {
    /// Which family to try; language models without it.
    #[arg(default_value = "lm", value_parser = ["lm"])]
    pub(crate) family: String,
    /// Folder of the report; `runs/quickstart-TIME` otherwise.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The seed of data, weights and order.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) seed: u64,
}

/// One fine-tuning of the shared base.
struct Arm {
    name: String,
    optimizer: Kind,
    loss: LossKind,
    state_bytes: usize,
    step_ms: f64,
    train_loss: f64,
    curve: Vec<(f64, f64)>,
    measures: Measures,
}

/// What every arm needs.
struct Study<'a> {
    corpus: &'a Corpus,
    model: &'a Decoder,
    folder: &'a RunFolder,
    manifest: &'a Manifest,
    stop: &'a AtomicBool,
    global: Global,
    /// Whether the user chose the folder.
    named: bool,
}

const NAME: &str = "quickstart/lm";

/// The fine-tunings.
const ARMS: [(&str, Kind, LossKind); 4] = [
    ("AdamW, cross-entropy", Kind::AdamW, LossKind::Ce),
    ("Adam-mini, cross-entropy", Kind::AdamMini, LossKind::Ce),
    ("AdamW, GEM", Kind::AdamW, LossKind::GemLinear { beta: BETA }),
    ("Adam-mini, GEM", Kind::AdamMini, LossKind::GemLinear { beta: BETA }),
];

/// The folder of an arm.
fn slug(name: &str) -> String {
    name.to_lowercase().replace(", ", "-")
}

/// Makes way for a quick start where one was cut off; every other folder has to be empty.
fn make_way(out: &Path) -> Result<(), Failure> {
    let folder = RunFolder::open(out);
    let own = folder.file("manifest.json").exists() && folder.manifest()?.name == NAME;
    if !own {
        return only_fresh(out, false);
    }
    if folder.file(SUMMARY).exists() {
        return Err(Failure::usage(format!(
            "{} holds a finished quick start: open {}, or choose another --out",
            out.display(),
            folder.file("report.html").display()
        )));
    }
    for arm in std::iter::once("pretrain".to_owned()).chain(ARMS.iter().map(|a| slug(a.0))) {
        let arm = out.join(arm);
        if arm.exists() {
            std::fs::remove_dir_all(&arm).map_err(|e| {
                Failure::usage(format!("cannot remove {}: {e}; choose another --out", arm.display()))
            })?;
        }
    }
    std::fs::remove_file(folder.file("manifest.json"))
        .map_err(|e| Failure::usage(format!("cannot clear {}: {e}; choose another --out", out.display())))
}

struct Trained {
    params: Vec<f32>,
    state_bytes: usize,
    step_ms: f64,
    curve: Vec<(f64, f64)>,
}

impl Study<'_> {
    /// Trains one arm in its own folder.
    fn train(
        &self,
        name: &str,
        config: SftConfig,
        start: Vec<f32>,
        pretrain: bool,
    ) -> Result<Trained, Failure> {
        let data = if pretrain { &self.corpus.pretrain } else { &self.corpus.fine_tune };
        let steps = config.steps;
        let seed = config.seed;
        let mut sft = Sft::new(config, self.model.clone(), start, Arc::new(Vec::new()), data.clone(), &[])?;
        let folder = RunFolder::create(self.folder.path().join(name), false)?;
        let mut progress = Progress::new(name, Some(steps), self.global);
        let mut writer = folder.observer();
        let mut observers: Vec<&mut dyn Observer> = vec![&mut progress, &mut writer];
        let began = Instant::now();
        let clock = || began.elapsed().as_secs_f64();
        let control = RunControl {
            manifest: self.manifest,
            clock: &clock,
            stop: self.stop,
            checkpoint: None,
            resume: false,
        };
        let outcome = rhumb_core::run(
            &mut sft,
            &Budget::steps(steps),
            &mut Streams::new(seed),
            &mut observers,
            &control,
        )
        .map_err(|e| Failure::from(e).context(name.to_owned()))?;
        if outcome.reason == StopReason::Interrupted {
            let dir = self.folder.path().to_string_lossy();
            return Err(Failure::new(
                Code::Interrupted,
                anyhow::anyhow!(
                    "interrupted in {name}; a quick start has no checkpoints, so the same command begins anew: {}",
                    command_line(&if self.named { vec![] } else { vec!["--out", &dir] })
                ),
            ));
        }
        let curve =
            folder.records()?.iter().filter_map(|r| r.get("ce").map(|ce| (r.step as f64, ce))).collect();
        Ok(Trained {
            params: sft.params().to_vec(),
            state_bytes: sft.state_bytes(),
            step_ms: outcome.wall_s * 1e3 / steps as f64,
            curve,
        })
    }

    fn measure(&self, params: &[f32]) -> Result<Measures, Failure> {
        measure(self.model, params, self.corpus).map_err(|e| Failure::new(Code::Numerical, e))
    }
}

/// Trains, fine-tunes four ways and reports.
pub(crate) fn run(args: &Args, global: Global) -> Result<Output, Failure> {
    let began = Instant::now();
    let stop = interrupt::install()?;
    let out = args.out.clone().unwrap_or_else(|| session::fresh_folder("quickstart"));
    make_way(&out)?;
    let folder = RunFolder::create(&out, false)?;
    let corpus = Corpus::new(args.seed, Sizes::default());
    let model = decoder(&corpus.words).map_err(|e| Failure::new(Code::Usage, e))?;
    let manifest = Manifest {
        name: NAME.into(),
        config: json!({
            "family": args.family, "seed": args.seed, "pretraining": pretraining(args.seed),
            "fine_tuning": fine_tuning(Kind::AdamMini, LossKind::GemLinear { beta: BETA }, args.seed),
        }),
        seeds: vec![args.seed],
        versions: machine::versions(),
        machine: machine::describe(machine::threads()),
        started_unix_s: std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .ok()
            .map(|d| d.as_secs_f64()),
    };
    let text = serde_json::to_vec_pretty(&manifest)
        .map_err(|e| Failure::usage(format!("the settings have no JSON form: {e}")))?;
    folder.write("manifest.json", &text)?;
    global.note(&format!(
        "A decoder of {} parameters learns a small language whose questions have several right answers,\n\
         then is fine-tuned four ways on answers of which one style dominates.",
        model.layout().len()
    ));
    let study = Study {
        corpus: &corpus,
        model: &model,
        folder: &folder,
        manifest: &manifest,
        stop,
        global,
        named: args.out.is_some(),
    };
    let fresh = init(model.layout(), model.config().layers, 0.02, args.seed);
    let base = study.train("pretrain", pretraining(args.seed), fresh, true)?;
    let start = study.measure(&base.params)?;
    let mut arms = Vec::new();
    let mut control = None;
    for (name, optimizer, loss) in ARMS {
        let t =
            study.train(&slug(name), fine_tuning(optimizer, loss, args.seed), base.params.clone(), false)?;
        let tail = &t.curve[t.curve.len().saturating_sub(16)..];
        let train_loss = tail.iter().map(|p| p.1).sum::<f64>() / tail.len().max(1) as f64;
        if (optimizer, loss) == (Kind::AdamMini, LossKind::Ce) {
            control = Some(study.measure(&at_temperature(&model, &t.params, 1.0 / BETA))?);
        }
        arms.push(Arm {
            name: name.to_owned(),
            optimizer,
            loss,
            state_bytes: t.state_bytes,
            step_ms: t.step_ms,
            train_loss,
            curve: t.curve,
            measures: study.measure(&t.params)?,
        });
    }
    let Some(control) = control else {
        return Err(Failure::usage("the control arm is missing".to_owned()));
    };
    let done = Done {
        arms,
        control,
        start,
        parameters: model.layout().len(),
        wall_s: began.elapsed().as_secs_f64(),
    };
    done.summary(&base.curve, &out).save(&folder)?;
    folder.write("report.html", of_folder(&out)?.html().as_bytes())?;
    Ok(Output::new(done.text(&out), done.json(&out)))
}

/// All results.
struct Done {
    arms: Vec<Arm>,
    control: Measures,
    start: Measures,
    parameters: usize,
    wall_s: f64,
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
        let mut t =
            Table::new(["answers", "CE", "entropy", "right", "pass@1", "pass@4", "pass@16", "coverage"]);
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

    fn text(&self, out: &Path) -> String {
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

    fn json(&self, out: &Path) -> serde_json::Value {
        let measures = |m: &Measures| {
            json!({ "ce": m.ce, "entropy": m.entropy, "right": m.right, "pass@1": m.pass[0], "pass@4": m.pass[1],
                    "pass@16": m.pass[2], "coverage": m.coverage })
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
    fn summary(&self, pretrain: &[(f64, f64)], out: &Path) -> Summary {
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
