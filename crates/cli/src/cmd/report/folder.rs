//! The report of a run folder that no recipe wrote: a fine-tuning, a quick start, or a run that was cut off.

use std::path::{Path, PathBuf};

use rhumb_core::{Manifest, Outcome, Record, RunFolder};
use serde::{Deserialize, Serialize};

use crate::exit::{Code, Failure, read_text};
use crate::report::{LinePlot, Report, Section, Series, Tone};
use crate::table::{Table, bytes, seconds};

/// The file with what a command says about its finished run.
pub(crate) const SUMMARY: &str = "summary.json";

/// Tokens that outgrew memory while a run read its data: all that is left of one that was killed there.
pub(crate) const SPILL: &str = "tokens.tmp";

/// What a command says about its finished run, beside the files that every run has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Heading of the report.
    pub(crate) title: String,
    /// What a reader sees first.
    pub(crate) verdicts: Vec<String>,
    /// Tables, plots and remarks.
    pub(crate) sections: Vec<Section>,
    /// The command as it was typed.
    pub(crate) command: String,
    /// The result for programs.
    pub(crate) result: serde_json::Value,
}

impl Summary {
    /// Writes it into a run folder.
    pub(crate) fn save(&self, folder: &RunFolder) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|e| Failure::usage(format!("the summary has no JSON form: {e}")))?;
        Ok(folder.write(SUMMARY, &text)?)
    }

    /// Reads that of a run folder, where one is.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>, Failure> {
        let path = dir.join(SUMMARY);
        if !path.exists() {
            return Ok(None);
        }
        serde_json::from_str(&read_text(&path)?).map(Some).map_err(|e| {
            Failure::new(Code::Usage, anyhow::anyhow!("{}, line {}: {e}", path.display(), e.line()))
        })
    }
}

/// Refuses a folder that holds anything, before work is done for it.
pub(crate) fn only_fresh(out: &Path, resumable: bool) -> Result<(), Failure> {
    let kept = |e: &std::fs::DirEntry| e.file_name() != SPILL;
    let empty = std::fs::read_dir(out).map_or(true, |d| !d.flatten().any(|e| kept(&e)));
    if empty {
        return Ok(());
    }
    let run = out.join("manifest.json").exists() || out.join("records.jsonl").exists();
    Err(Failure::usage(match (run, resumable) {
        (true, true) => format!(
            "{} holds a run already: go on with it by --resume, or choose another --out",
            out.display()
        ),
        (true, false) => format!("{} holds a run already: choose another --out", out.display()),
        (false, _) => format!("{} is not empty and holds no run: choose another --out", out.display()),
    }))
}

/// Whether a folder is one that [`of_folder`] can tell of.
pub(crate) fn is_run(dir: &Path) -> bool {
    dir.join("manifest.json").is_file()
}

/// Fills a report from the files of a run.
pub(crate) fn of_folder(dir: &Path) -> Result<Report, Failure> {
    let folder = RunFolder::open(dir);
    let manifest = folder.manifest()?;
    let outcome = if folder.file("outcome.json").exists() { Some(folder.outcome()?) } else { None };
    let told = Summary::load(dir)?;
    let mut report = Report::new(told.as_ref().map_or(manifest.name.as_str(), |t| t.title.as_str()));
    match &told {
        None => {
            report.verdict(Tone::Bad, "The run did not finish, so nothing is said about its result.");
        }
        Some(t) => {
            for v in &t.verdicts {
                report.verdict(Tone::Plain, v.clone());
            }
            t.sections.iter().for_each(|s| {
                report.push(s.clone());
            });
        }
    }
    // What a command has plotted itself is not plotted again.
    let plotted = told.iter().flat_map(|t| &t.sections).any(|s| matches!(s, Section::Lines(_)));
    if !plotted {
        curves(&mut report, dir)?;
    }
    facts(&mut report, &manifest, outcome.as_ref(), told.as_ref());
    Ok(report)
}

fn facts(report: &mut Report, manifest: &Manifest, outcome: Option<&Outcome>, told: Option<&Summary>) {
    report.heading("How it was run");
    let mut t = Table::new(["", "value"]);
    if let Some(told) = told {
        t.row(["command", told.command.as_str()]);
    }
    t.row(["seeds", &manifest.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")]);
    let date = manifest.started_unix_s.filter(|s| (0.0..4e9).contains(s)).map(|s| {
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs_f64(s);
        humantime::format_rfc3339_seconds(at).to_string()
    });
    t.row(["began", date.as_deref().unwrap_or("not recorded")]);
    if let Some(o) = outcome {
        t.row(["stopped", o.reason.advice()]);
        t.row(["time", &seconds(o.wall_s)]);
        t.row(["steps", &o.steps.to_string()]);
        if o.peak_bytes.total() > 0 {
            t.row(["peak memory of the training", &bytes(o.peak_bytes.total())]);
        }
    }
    let m = &manifest.machine;
    t.row(["processor", m.cpu.as_deref().unwrap_or(&m.arch)]);
    t.row(["threads", &m.threads.to_string()]);
    t.row(["memory", &m.memory_bytes.map_or_else(|| "not known".to_owned(), bytes)]);
    for (name, version) in &manifest.versions {
        t.row([name, version]);
    }
    report.table("", t);
    for note in outcome.into_iter().flat_map(|o| o.notes.iter().chain(&o.error)) {
        report.text(note.clone());
    }
    report.details("Settings", format!("{:#}", manifest.config));
}

/// Name and folder of every record file: the folder's own, without a name, and those of its arms.
pub(crate) fn sources(dir: &Path) -> Vec<(String, PathBuf)> {
    let mut out = Vec::new();
    if dir.join("records.jsonl").is_file() {
        out.push((String::new(), dir.to_owned()));
    }
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut arms: Vec<PathBuf> =
        entries.map(|e| e.path()).filter(|p| p.join("records.jsonl").is_file()).collect();
    arms.sort();
    let named = |p: PathBuf| (p.file_name().unwrap_or_default().to_string_lossy().into_owned(), p);
    out.extend(arms.into_iter().map(named));
    out
}

/// Quantities of a training that belong in one plot.
const PLOTS: [(&str, &[&str]); 6] = [
    ("Loss", &["loss", "ce", "eval_ce", "eval_surrogate"]),
    ("Entropy of the prediction", &["entropy", "eval_entropy"]),
    ("Accuracy", &["accuracy"]),
    ("Gradient norm", &["grad_norm"]),
    ("Learning rate", &["lr"]),
    ("Trained tokens", &["tokens"]),
];

fn curves(report: &mut Report, dir: &Path) -> Result<(), Failure> {
    let all: Vec<(String, Vec<Record>)> = sources(dir)
        .into_iter()
        .map(|(name, dir)| Ok((name, RunFolder::open(dir).records()?)))
        .collect::<Result<_, Failure>>()?;
    let several = all.len() > 1;
    let points = |records: &[Record], key: &str| -> Vec<(f64, f64)> {
        records.iter().filter_map(|r| Some((r.step as f64, r.get(key)?))).collect()
    };
    // With several arms a plot per quantity, otherwise a plot per family of quantities.
    let plots: Vec<(&str, Vec<&str>)> = if several {
        PLOTS.iter().flat_map(|(_, keys)| keys.iter().map(|k| (*k, vec![*k]))).collect()
    } else {
        PLOTS.iter().map(|(title, keys)| (*title, keys.to_vec())).collect()
    };
    for (title, keys) in plots {
        let mut series = Vec::new();
        for (arm, records) in &all {
            for key in &keys {
                let data = points(records, key);
                if !data.is_empty() {
                    series.push(Series::new(if several { arm.clone() } else { (*key).to_owned() }, data));
                }
            }
        }
        if !series.is_empty() {
            report.push(Section::Lines(LinePlot {
                title: title.to_owned(),
                x: "step".to_owned(),
                y: title.to_owned(),
                series,
                ..LinePlot::default()
            }));
        }
    }
    Ok(())
}
