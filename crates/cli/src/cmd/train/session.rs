//! One training from the first evaluation to the saved model: what all kinds of `rhumb train` do alike.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rhumb_core::{
    Budget, CheckpointPlan, Manifest, Observer, Outcome, RunControl, RunFolder, StopReason, Streams,
    checkpoint,
};
use rhumb_io::adapter::AdapterFiles;
use rhumb_lm::gem::{Tempered, control_temperature};
use rhumb_lm::sft::{Scores, Sft, SftConfig, SftError, Trained};
use rhumb_nn::model::Decoder;
use serde_json::json;

use super::finished::Finished;
use super::memory::Estimate;
use super::sft::setup::memory;
use super::{PartitionBy, Place, SftSettings, blocks, measured, origin};
use crate::cmd::report::folder::{SUMMARY, Summary, of_folder, only_fresh};
use crate::exit::{Code, Failure};
use crate::lm::{LanguageModel, from_io};
use crate::machine;
use crate::output::{Global, Output, resume_line};
use crate::progress::Progress;
use crate::table::counted;

/// Seconds between two checkpoints.
const CHECKPOINT_S: f64 = 120.0;

impl From<SftError> for Failure {
    fn from(e: SftError) -> Self {
        Failure::new(Code::Usage, e)
    }
}

/// The words of a kind of training.
#[derive(Debug)]
pub(super) struct Kind {
    /// In manifests, e.g. `train/sft`.
    pub(super) name: &'static str,
    /// In folders and progress bars.
    pub(super) label: &'static str,
    /// Of the report.
    pub(super) title: &'static str,
    /// A run of this kind, e.g. "fine-tuning".
    pub(super) what: &'static str,
    /// What is held out, one of them.
    pub(super) unit: &'static str,
    /// Arguments of `rhumb generate` that suit the model.
    pub(super) try_it: &'static str,
}

/// A training and its folder.
pub(super) struct Session<'a> {
    kind: &'static Kind,
    settings: &'a SftSettings,
    place: &'a Place,
    /// The folder.
    pub(super) out: PathBuf,
    /// Texts that are written into it beside what every run has.
    pub(super) files: Vec<(&'static str, String)>,
    global: Global,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        kind: &'static Kind,
        settings: &'a SftSettings,
        place: &'a Place,
        global: Global,
    ) -> Self {
        let out = place.out.clone().unwrap_or_else(|| crate::session::fresh_folder(kind.label));
        Session { kind, settings, place, out, files: Vec::new(), global }
    }

    /// Looks at the folder before anything is read: the run to go on with, or a place for a new one.
    pub(super) fn earlier(&self) -> Result<Option<Manifest>, Failure> {
        let out = &self.out;
        if !self.place.resume {
            only_fresh(out, true)?;
            return Ok(None);
        }
        match origin::earlier(out)? {
            Some(m) if m.name == self.kind.name => Ok(Some(m)),
            Some(m) => Err(Failure::usage(format!(
                "{} holds a run of {}, no {}",
                out.display(),
                m.name,
                self.kind.what
            ))),
            None => Err(Failure::missing(format!(
                "{} holds no run to resume: leave out --resume to begin one",
                out.display()
            ))),
        }
    }

    /// What is told about a run that reached its end, report included, before; `None` for one that goes on. Refuses a
    /// run of other settings or files than those of `now`.
    pub(super) fn finished_before(
        &self,
        earlier: &Manifest,
        now: &Manifest,
    ) -> Result<Option<Output>, Failure> {
        origin::same_run(&self.out, earlier, now)?;
        Ok(self.end())
    }

    fn end(&self) -> Option<Output> {
        let out = &self.out;
        let folder = RunFolder::open(out);
        let outcome =
            folder.outcome().ok().filter(|o| o.reason != StopReason::Interrupted && o.error.is_none())?;
        let (report, model) = (folder.file("report.html"), out.join("model"));
        if !report.is_file() || !folder.file(SUMMARY).is_file() || !model.is_dir() {
            return None;
        }
        let text = format!(
            "{} is finished after {}, nothing is left to resume; report in {}, model in {}\n",
            out.display(),
            counted(outcome.steps, "step"),
            report.display(),
            model.display()
        );
        let json = Summary::load(out).ok().flatten().map_or_else(|| json!({ "folder": out }), |s| s.result);
        Some(Output::new(text, json))
    }

    /// Evaluates, trains, evaluates again, saves the model and the report.
    pub(super) fn train(
        &self,
        mut sft: Sft,
        config: &SftConfig,
        model: &LanguageModel,
        estimate: Estimate,
        manifest: &Manifest,
        stop: &AtomicBool,
    ) -> Result<Output, Failure> {
        let measured = match self.settings.partition {
            PartitionBy::Preset => None,
            PartitionBy::Measured => {
                Some(measured::units(&mut sft, self.settings, &self.out, stop, self.global)?)
            }
        };
        let mut config = config.clone();
        if let Some(decided) = &measured {
            config.optimizer.units = decided.iter().map(|d| d.rule.clone()).collect();
            sft.change_optimizer(config.optimizer.clone())?;
        }
        let config = &config;
        blocks::tell(&config.optimizer, sft.model().layout(), self.global)?;
        let folder = RunFolder::create(&self.out, self.place.resume)?;
        if let Some(decided) = &measured {
            folder.write(
                measured::FILE,
                &serde_json::to_vec_pretty(decided).map_err(|e| Failure::new(Code::Numerical, e))?,
            )?;
        }
        for (name, text) in &self.files {
            folder.write(name, text.as_bytes())?;
        }
        let before = self.evaluate(&sft)?;
        let alone = self.evaluate_at(&sft, config, control_temperature)?;
        let outcome = self.drive(&mut sft, config, &folder, manifest, stop)?;
        if outcome.reason == StopReason::Interrupted {
            return Err(Failure::new(
                Code::Interrupted,
                anyhow::anyhow!(
                    "interrupted after step {}; the checkpoint is written, go on with: {}",
                    outcome.steps,
                    resume_line(&self.out, self.place.out.is_some(), self.place.resume)
                ),
            ));
        }
        let after = self.evaluate(&sft)?;
        let fitted = self.evaluate_at(&sft, config, |beta| beta)?;
        let state = sft.state_bytes();
        let vocab = model.decoder.config().vocab;
        let saved = save(sft.finish(), model, &self.out)?;
        let result = Finished {
            kind: self.kind,
            s: self.settings,
            out: &self.out,
            config,
            outcome: &outcome,
            before,
            after,
            tempered: alone.zip(fitted),
            saved,
            state,
            estimate,
            peak: machine::peak_resident(),
            vocab,
        };
        result.summary().save(&folder)?;
        folder.write("report.html", of_folder(&self.out)?.html().as_bytes())?;
        // Nothing goes back to it any more, and it is as large as the last one.
        let _ = std::fs::remove_file(checkpoint::previous(&folder.checkpoint_path()));
        Ok(Output::new(result.text(), result.json()))
    }

    fn evaluate(&self, sft: &Sft) -> Result<Option<Scores>, Failure> {
        let what = format!("held-out {}s", self.kind.unit);
        sft.evaluate().map_err(|e| Failure::new(Code::Numerical, e).context(what))
    }

    /// Held-out means at a temperature that belongs to beta, for GEM.
    fn evaluate_at(
        &self,
        sft: &Sft,
        config: &SftConfig,
        temperature: impl Fn(f64) -> f64,
    ) -> Result<Option<Tempered>, Failure> {
        if !config.loss.is_gem() {
            return Ok(None);
        }
        let what = format!("held-out {}s", self.kind.unit);
        sft.evaluate_at(temperature(config.loss.beta()))
            .map_err(|e| Failure::new(Code::Numerical, e).context(what))
    }

    fn drive(
        &self,
        sft: &mut Sft,
        config: &SftConfig,
        folder: &RunFolder,
        manifest: &Manifest,
        stop: &AtomicBool,
    ) -> Result<Outcome, Failure> {
        let every = self.place.checkpoint_every;
        let plan = CheckpointPlan {
            path: folder.checkpoint_path(),
            every_steps: every,
            every_s: every.is_none().then_some(CHECKPOINT_S),
        };
        let began = Instant::now();
        let clock = || began.elapsed().as_secs_f64();
        let resume = self.place.resume;
        let control = RunControl { manifest, clock: &clock, stop, checkpoint: Some(&plan), resume };
        let mut progress = Progress::new(self.kind.label, Some(config.steps), self.global);
        let mut writer = folder.observer();
        let mut observers: Vec<&mut dyn Observer> = vec![&mut progress, &mut writer];
        let budget = Budget::steps(config.steps);
        Ok(rhumb_core::run(sft, &budget, &mut Streams::new(config.seed), &mut observers, &control)?)
    }
}

/// The estimate of memory, or a refusal.
pub(super) fn too_large(s: &SftSettings, decoder: &Decoder) -> Result<Estimate, Failure> {
    let estimate = memory(s, decoder)?;
    estimate.refuse_if_too_large(s.memory_share)?;
    Ok(estimate)
}

/// Writes the last weights, and the best ones where they are not the last; the last adapters on their own as well.
fn save(trained: Trained, model: &LanguageModel, out: &Path) -> Result<Vec<PathBuf>, Failure> {
    let whole = |params: Vec<f32>| {
        if trained.model.is_adapted() { trained.model.merge(&trained.frozen, &params) } else { params }
    };
    let best = trained.best.filter(|b| b.params != trained.params);
    let last = out.join("model");
    if let Some(lora) = trained.model.lora() {
        let base = model.path.display().to_string();
        let dir = out.join("adapter");
        AdapterFiles::of(&trained.model, lora, &base, &trained.params)
            .save(&dir, trained.model.config().family)
            .map_err(from_io)?;
    }
    model.save(&whole(trained.params), &last)?;
    let mut saved = vec![last];
    if let Some(best) = best {
        let dir = out.join("best");
        model.save(&whole(best.params), &dir)?;
        saved.push(dir);
    }
    Ok(saved)
}
