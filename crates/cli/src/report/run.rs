//! The report of a run folder.

use std::path::{Path, PathBuf};

use rhumb_core::{Record, RunFolder, StopReason, Verdict};

use super::{LinePlot, Report, Section, Series, Tone};
use crate::exit::Failure;
use crate::session::RunResult;
use crate::table::{Table, bytes, number, seconds};

/// Curves that no reader asks for.
const SKIPPED: [&str; 1] = ["wall_s"];

/// Fills a report from a finished run.
pub(crate) fn of_run(folder: &RunFolder, result: &RunResult) -> Result<Report, Failure> {
    let manifest = folder.manifest()?;
    let outcome = folder.outcome()?;
    let mut report = Report::new(format!("{}: {}", result.recipe, result.title));
    verdicts(&mut report, result);
    // One seed's plots stand for all; the table of metrics has every seed.
    for section in result.seeds.first().into_iter().flat_map(|s| &s.sections) {
        report.push(section.clone());
    }
    curves(&mut report, folder)?;
    if let Some(metrics) = metric_table(result) {
        report.heading("Every metric");
        report.table("", metrics);
    }
    report.heading("How it was run");
    let mut facts = Table::new(["", "value"]);
    facts.row(["budget", result.size.as_str()]);
    facts.row(["seeds", &manifest.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")]);
    let ended = match outcome.reason {
        StopReason::Converged => "every seed ran to its end",
        other => other.advice(),
    };
    facts.row(["stopped", ended]);
    facts.row(["time", &seconds(outcome.wall_s)]);
    facts.row(["steps", &outcome.steps.to_string()]);
    if outcome.peak_bytes.total() > 0 {
        facts.row(["peak memory", &bytes(outcome.peak_bytes.total())]);
    }
    facts.row(["processor", manifest.machine.cpu.as_deref().unwrap_or(&manifest.machine.arch)]);
    facts.row(["threads", &manifest.machine.threads.to_string()]);
    report.table("", facts);
    for note in &outcome.notes {
        report.text(note.clone());
    }
    report.details("Configuration", pretty(&manifest.config));
    let manifest = serde_json::to_value(&manifest).unwrap_or_default();
    report.details("Manifest", pretty(&manifest));
    Ok(report)
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}")
}

fn verdicts(report: &mut Report, result: &RunResult) {
    if let Some(statement) = &result.statement {
        report.verdict(Tone::Plain, format!("The paper: {statement}"));
    }
    let Some(j) = &result.judgement else {
        report.verdict(Tone::Bad, "The run did not finish, so nothing is decided.");
        return;
    };
    let found = match j.verdict {
        Verdict::Holds => "The claim holds here",
        Verdict::Refuted => "The claim is refuted here",
        Verdict::Open => "The claim stays open here",
    };
    let (tone, record) = if !result.changed.is_empty() {
        (Tone::Plain, format!("with settings that are not the recorded ones ({})", result.changed.join(" ")))
    } else if j.as_expected() {
        (Tone::Good, "as recorded".to_owned())
    } else {
        (Tone::Bad, format!("while the record says: {}", j.expect.word()))
    };
    report.verdict(tone, format!("{found}, {record}. {}.", j.sentence));
    for c in &result.controls {
        let known = c.as_expected() || !result.changed.is_empty();
        let record = if known { String::new() } else { format!(" The record says: {}.", c.expect.word()) };
        let tone = if known { Tone::Plain } else { Tone::Bad };
        report.verdict(tone, format!("Control: {}.{record}", c.sentence));
    }
    if let Some(words) = result.recorded.as_ref().filter(|_| result.changed.is_empty()) {
        report.verdict(Tone::Plain, format!("Our verdict on record: {words}"));
    }
}

/// With more seeds than this, their range says more than a wide table.
const SEED_COLUMNS: usize = 4;

/// Every metric with its mean and its spread over the seeds.
pub(crate) fn metric_table(result: &RunResult) -> Option<Table> {
    let first = result.seeds.first()?;
    let n = result.seeds.len();
    let mut header = vec!["metric".to_owned(), if n > 1 { "mean" } else { "value" }.to_owned()];
    match n {
        1 => {}
        2..=SEED_COLUMNS => header.extend(result.seeds.iter().map(|s| format!("seed {}", s.seed))),
        _ => header.extend(["smallest".to_owned(), "largest".to_owned()]),
    }
    let mut table = Table::new(header);
    for (name, value) in first.metrics.iter() {
        let mut row = vec![name.to_owned(), number(result.mean(name).unwrap_or(value))];
        let values: Vec<f64> = result.seeds.iter().filter_map(|s| s.metrics.get(name)).collect();
        match n {
            1 => {}
            2..=SEED_COLUMNS => {
                let cell = |v: Option<f64>| v.map_or_else(|| "–".to_owned(), number);
                row.extend(result.seeds.iter().map(|s| cell(s.metrics.get(name))));
            }
            _ => row.extend([
                number(values.iter().copied().fold(f64::INFINITY, f64::min)),
                number(values.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
            ]),
        }
        table.row(row);
    }
    (!table.rows.is_empty()).then_some(table)
}

/// A reader cannot tell more curves apart.
const CURVES: usize = 6;

/// One plot per recorded quantity, one curve per arm of the first seed.
fn curves(report: &mut Report, folder: &RunFolder) -> Result<(), Failure> {
    let mut plots: Vec<LinePlot> = Vec::new();
    let first = first_seed(folder.path());
    for (name, dir) in arms_of(&first) {
        let records = RunFolder::open(dir).records()?;
        for key in keys(&records) {
            let data: Vec<(f64, f64)> =
                records.iter().filter_map(|r| Some((r.step as f64, r.get(&key)?))).collect();
            let at = plots.iter().position(|p| p.title == key).unwrap_or_else(|| {
                plots.push(LinePlot {
                    title: key.clone(),
                    x: "step".to_owned(),
                    y: String::new(),
                    ..LinePlot::default()
                });
                plots.len() - 1
            });
            plots[at].series.push(Series::new(name.clone(), data));
        }
    }
    if !plots.is_empty() {
        report.heading("Curves");
    }
    for plot in plots {
        let log_y = spans_decades(&plot);
        let parts = plot.series.len().div_ceil(CURVES);
        for (i, series) in plot.series.chunks(CURVES).enumerate() {
            let part = if parts > 1 { format!(" ({} of {parts})", i + 1) } else { String::new() };
            report.push(Section::Lines(LinePlot {
                title: format!("{}{part}", plot.title),
                x: plot.x.clone(),
                log_y,
                series: series.to_vec(),
                ..LinePlot::default()
            }));
        }
    }
    Ok(())
}

/// A logarithmic axis pays when all values are positive and differ by more than a factor of 100.
fn spans_decades(plot: &LinePlot) -> bool {
    let values = || plot.series.iter().flat_map(|s| s.data.iter().map(|p| p.1)).filter(|v| v.is_finite());
    let low = values().fold(f64::INFINITY, f64::min);
    let high = values().fold(f64::NEG_INFINITY, f64::max);
    low > 0.0 && high > 100.0 * low
}

fn keys(records: &[Record]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for (key, _) in records.iter().flat_map(Record::values) {
        if !out.iter().any(|k| k == key.as_ref()) && !SKIPPED.contains(&key.as_ref()) {
            out.push(key.to_string());
        }
    }
    out
}

fn seeds(root: &Path) -> Vec<PathBuf> {
    folders(root).into_iter().filter(|d| name(d).starts_with("seed-")).collect()
}

fn first_seed(root: &Path) -> Vec<PathBuf> {
    seeds(root).into_iter().take(1).collect()
}

/// Name and folder of every arm: `seed-N/ARM`; the seed is named when there are several.
pub(crate) fn arms(root: &Path) -> Vec<(String, PathBuf)> {
    arms_of(&seeds(root))
}

fn arms_of(seeds: &[PathBuf]) -> Vec<(String, PathBuf)> {
    let mut out = Vec::new();
    for seed in seeds {
        for arm in folders(seed).into_iter().filter(|d| d.join("records.jsonl").is_file()) {
            let label = name(&arm);
            let label =
                if seeds.len() > 1 { format!("{label}, {}", name(seed).replace('-', " ")) } else { label };
            out.push((label, arm));
        }
    }
    out
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut out: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
    out.sort();
    out
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
