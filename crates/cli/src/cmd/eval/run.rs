//! The folder of an evaluation: begun, gone on with, finished.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rhumb_core::runfolder::FolderObserver;
use rhumb_core::{Counts, Manifest, MemoryReport, Observer, Outcome, Record, RunFolder, StopReason};
use rhumb_io::template::ChatTemplate;
use serde::Serialize;
use serde_json::{Value, json};

use super::ask::{Prompt, kept};
use super::options::{Draws, Place};
use super::told::Told;
use crate::cmd::report::folder::{of_folder, only_fresh};
use crate::cmd::train::origin;
use crate::exit::{Code, Failure};
use crate::interrupt;
use crate::lm::LanguageModel;
use crate::output::{Global, Output, resume_line};
use crate::progress::Progress;

/// A place for an evaluation, looked at before anything is read.
pub(super) struct Start<'a> {
    label: &'static str,
    place: &'a Place,
    /// The folder.
    pub(super) out: PathBuf,
    earlier: Option<Manifest>,
    template_unix_s: Option<u64>,
    global: Global,
}

impl<'a> Start<'a> {
    /// The run to go on with, or a place for a new one.
    pub(super) fn new(label: &'static str, place: &'a Place, global: Global) -> Result<Self, Failure> {
        let out = place.out.clone().unwrap_or_else(|| crate::session::fresh_folder(&format!("eval-{label}")));
        let earlier = if place.resume { earlier(label, &out)? } else { None };
        if earlier.is_none() {
            only_fresh(&out, true)?;
        }
        Ok(Start { label, place, out, earlier, template_unix_s: None, global })
    }

    /// Opens the model; its chat template is told the time of the first part of the run.
    pub(super) fn open(&mut self, model: &Path) -> Result<LanguageModel, Failure> {
        let mut lm = self.place.open(model)?;
        let time = origin::template_time(self.earlier.as_ref());
        lm.template = lm.template.take().map(|t| t.at(time));
        if lm.template.as_ref().is_some_and(ChatTemplate::tells_time) {
            self.template_unix_s = time.duration_since(std::time::UNIX_EPOCH).ok().map(|d| d.as_secs());
        }
        Ok(lm)
    }

    /// Records that an earlier part has written whole.
    pub(super) fn records(&self) -> usize {
        let text = |_| std::fs::read_to_string(self.out.join("records.jsonl")).unwrap_or_default();
        self.earlier.as_ref().map(text).map_or(0, |t| t.matches('\n').count())
    }

    /// Begins to ask, or goes on behind the last question with answers and a record. `args` are the settings of the
    /// measure, whose draws are told with every default filled in.
    pub(super) fn ask(
        self,
        args: &impl Serialize,
        draws: &Draws,
        model: &Path,
        files: &[(&str, Option<&Path>)],
        prompts: &[Prompt],
    ) -> Result<Run, Failure> {
        let mut settings = serde_json::to_value(args).map_err(|e| Failure::new(Code::Usage, e))?;
        settings["draws"] = json!(draws);
        let done = self.records().min(kept(&self.out)).min(prompts.len());
        self.begin(&settings, draws.sampler.seed, model, files, done, prompts.len())
    }

    /// Begins, or goes on behind the first `done` of `total` records. `files` are what the numbers depend on beside the
    /// settings and the model.
    pub(super) fn begin(
        self,
        settings: &Value,
        seed: u64,
        model: &Path,
        files: &[(&str, Option<&Path>)],
        done: usize,
        total: usize,
    ) -> Result<Run, Failure> {
        let mut named = Vec::new();
        let own = [("template", self.place.template.as_deref()), ("adapter", self.place.adapter.as_deref())];
        for (name, path) in files.iter().copied().chain(own) {
            if let Some(path) = path {
                named.push((name, origin::model_files(path)?));
            }
        }
        let name = format!("eval/{}", self.label);
        let manifest = origin::manifest(&name, settings, seed, model, &named, self.template_unix_s)?;
        if let Some(earlier) = &self.earlier {
            origin::same_run(&self.out, earlier, &manifest)?;
        }
        let stop = interrupt::install()?;
        let folder = RunFolder::create(&self.out, self.place.resume)?;
        let mut writer = folder.observer();
        let mut progress = Progress::new(self.label, Some(total as u64), self.global);
        if self.earlier.is_some() {
            writer.resume(&manifest, done as u64)?;
            progress.resume(&manifest, done as u64)?;
        } else {
            writer.start(&manifest)?;
            progress.start(&manifest)?;
        }
        let earlier = folder.records()?;
        Ok(Run {
            label: self.label,
            resume_line: resume_line(&self.out, self.place.out.is_some(), self.place.resume),
            folder,
            writer,
            progress,
            stop,
            before_s: earlier.last().and_then(|r| r.get("wall_s")).unwrap_or(0.0),
            earlier,
            began: Instant::now(),
            steps: done as u64,
            total,
        })
    }
}

/// The manifest of the run in the folder, which has to be one of this kind.
fn earlier(label: &str, out: &Path) -> Result<Option<Manifest>, Failure> {
    let shown = out.display();
    match origin::earlier(out)? {
        Some(m) if m.name == format!("eval/{label}") => Ok(Some(m)),
        Some(m) => Err(Failure::usage(format!("{shown} holds a run of {}, no eval/{label}", m.name))),
        None => {
            Err(Failure::missing(format!("{shown} holds no run to resume: leave out --resume to begin one")))
        }
    }
}

/// An evaluation under way.
pub(super) struct Run {
    label: &'static str,
    folder: RunFolder,
    writer: FolderObserver,
    progress: Progress,
    stop: &'static AtomicBool,
    began: Instant,
    before_s: f64,
    /// What an earlier part has recorded.
    pub(super) earlier: Vec<Record>,
    steps: u64,
    total: usize,
    resume_line: String,
}

impl Run {
    /// A file of the folder.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.file(name)
    }

    /// Does the work; a run that fails or is interrupted says so in its folder.
    pub(super) fn work<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let done = work(self);
        if let Err(e) = &done {
            let interrupted = e.code == Code::Interrupted;
            let reason = if interrupted { StopReason::Interrupted } else { StopReason::Failed };
            self.end(reason, Some(e.to_string()))?;
        }
        done
    }

    /// Fails when the user has asked to stop.
    pub(super) fn go_on(&self) -> Result<(), Failure> {
        if !self.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let text =
            format!("interrupted after {} of {}; go on with: {}", self.steps, self.total, self.resume_line);
        Err(Failure::new(Code::Interrupted, anyhow::Error::msg(text)))
    }

    /// Keeps the record of a finished question; the next number is its step.
    pub(super) fn record(&mut self, mut r: Record) -> Result<(), Failure> {
        r.step = self.steps;
        r.machine("wall_s", self.wall_s());
        self.steps += 1;
        self.writer.record(&r)?;
        self.writer.sync()?;
        Ok(self.progress.record(&r)?)
    }

    fn wall_s(&self) -> f64 {
        self.before_s + self.began.elapsed().as_secs_f64()
    }

    fn end(&mut self, reason: StopReason, error: Option<String>) -> Result<(), Failure> {
        let outcome = Outcome {
            reason,
            steps: self.steps,
            wall_s: self.wall_s(),
            evals: Counts::default(),
            peak_bytes: MemoryReport::default(),
            notes: Vec::new(),
            error,
        };
        self.progress.finish(&outcome)?;
        Ok(self.writer.finish(&outcome)?)
    }

    /// Writes the outcome and the report.
    pub(super) fn finish(mut self, told: &Told) -> Result<Output, Failure> {
        self.end(StopReason::Steps, None)?;
        let (out, wall_s) = (self.folder.path().to_owned(), self.wall_s());
        let json = told.json(self.label, &out, wall_s);
        told.summary(json.clone()).save(&self.folder)?;
        self.folder.write("report.html", of_folder(&out)?.html().as_bytes())?;
        Ok(Output::new(told.text(&out, wall_s), json))
    }
}
