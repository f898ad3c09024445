//! Supervised fine-tuning, from files to a model folder.

mod finished;
mod origin;
pub(crate) mod setup;

use std::path::{Path, PathBuf};
use std::time::Instant;

use rhumb_core::{
    Budget, CheckpointPlan, Manifest, Observer, Outcome, RunControl, RunFolder, StopReason, Streams,
    checkpoint,
};
use rhumb_lm::sft::{Scores, Sft, SftConfig, SftError, Trained};
use rhumb_nn::io::template::ChatTemplate;
use rhumb_nn::model::Decoder;
use serde_json::json;

use self::finished::Finished;
use self::setup::{config, memory, named, prepare, read};
use super::memory::Estimate;
use super::{Loss, Sft as Args, SftSettings};
use crate::cmd::report::folder::{SUMMARY, Summary, of_folder, only_fresh};
use crate::exit::{Code, Failure};
use crate::lm::{self, LanguageModel};
use crate::output::{Global, Output, command_line, warn};
use crate::progress::Progress;
use crate::table::{bytes, counted};
use crate::{interrupt, machine, session};

/// Seconds between two checkpoints.
const CHECKPOINT_S: f64 = 120.0;

impl From<SftError> for Failure {
    fn from(e: SftError) -> Self {
        Failure::new(Code::Usage, e)
    }
}

/// Runs `rhumb train sft`.
pub(super) fn run(args: &Args, global: Global) -> Result<Output, Failure> {
    let s = &args.settings;
    setup::check(s)?;
    says_something(s)?;
    let stop = interrupt::install()?;
    let out = args.out.clone().unwrap_or_else(|| session::fresh_folder("sft"));
    let earlier = start_of(args, &out)?;
    if let Some(done) = earlier.as_ref().and_then(|_| finished_before(&out)) {
        return Ok(done);
    }
    let (path, _) = named(s)?;
    if let Some(plain) = lm::definition(path)? {
        too_large(s, &setup::trained(s, &plain)?)?;
    }
    let mut model = LanguageModel::open(path)?;
    let time = origin::template_time(earlier.as_ref());
    let tells_time = model.template.as_ref().is_some_and(ChatTemplate::tells_time);
    model.template = model.template.take().map(|t| t.at(time));
    let data = read(s, &model)?;
    data.warnings.iter().for_each(|w| warn(w));
    data.notes.iter().for_each(|n| global.note(n));
    let config = config(s, &data.train)?;
    // A GGUF file tells its shape only when it is read.
    let estimate = too_large(s, &setup::trained(s, &model.decoder)?)?;
    let (decoder, params, frozen) = prepare(s, &mut model)?;
    let seconds = time.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let manifest = origin::manifest(s, tells_time.then_some(seconds))?;
    if let Some(earlier) = &earlier {
        origin::same_run(&out, earlier, &manifest)?;
    }
    let folder = RunFolder::create(&out, args.resume)?;
    let mut sft = Sft::new(config.clone(), decoder, params, frozen, data.train, &data.held_out)?;
    global.note(&format!(
        "{} of {} tokens; {}; estimated memory {}",
        counted(sft.rows() as u64, "packed row"),
        config.tokens,
        counted(config.steps, "step"),
        bytes(estimate.peak())
    ));
    let before = evaluate(&sft)?;
    let outcome = drive(&mut sft, &config, args, &folder, &manifest, stop, global)?;
    if outcome.reason == StopReason::Interrupted {
        return Err(Failure::new(
            Code::Interrupted,
            anyhow::anyhow!(
                "interrupted after step {}; the checkpoint is written, go on with: {}",
                outcome.steps,
                resume_line(args, &out)
            ),
        ));
    }
    let after = evaluate(&sft)?;
    let state = sft.state_bytes();
    let vocab = model.decoder.config().vocab;
    let saved = save(sft.finish(), &model, &out)?;
    let peak = machine::peak_resident();
    let result = Finished {
        s,
        out: &out,
        config: &config,
        outcome: &outcome,
        before,
        after,
        saved,
        state,
        estimate,
        peak,
        vocab,
    };
    result.summary().save(&folder)?;
    folder.write("report.html", of_folder(&out)?.html().as_bytes())?;
    // Nothing goes back to it any more, and it is as large as the last one.
    let _ = std::fs::remove_file(checkpoint::previous(&folder.checkpoint_path()));
    Ok(Output::new(result.text(), result.json()))
}

/// Settings that would be ignored, and one that does the opposite of what GEM is for.
fn says_something(s: &SftSettings) -> Result<(), Failure> {
    if s.loss == Loss::Ce && (s.beta - SftSettings::default().beta).abs() > 0.0 {
        return Err(Failure::usage(format!(
            "--beta {} says nothing about --loss ce: choose gem-linear or gem-logsigmoid, or leave it out",
            s.beta
        )));
    }
    if s.loss != Loss::Ce && s.beta > 1.0 {
        warn(&format!(
            "--beta {} is above 1: the model that comes out is sharper than the data, not more diverse",
            s.beta
        ));
    }
    Ok(())
}

/// Looks at the folder before anything is read: the run to go on with, or a place for a new one.
fn start_of(args: &Args, out: &Path) -> Result<Option<Manifest>, Failure> {
    if !args.resume {
        only_fresh(out, true)?;
        return Ok(None);
    }
    match origin::earlier(out)? {
        Some(m) if m.name == "train/sft" => Ok(Some(m)),
        Some(m) => {
            Err(Failure::usage(format!("{} holds a run of {}, no fine-tuning", out.display(), m.name)))
        }
        None => Err(Failure::missing(format!(
            "{} holds no run to resume: leave out --resume to begin one",
            out.display()
        ))),
    }
}

/// What is told about a run that reached its end, report included, before.
fn finished_before(out: &Path) -> Option<Output> {
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

/// The command that goes on with this run.
fn resume_line(args: &Args, out: &Path) -> String {
    let dir = out.to_string_lossy();
    let mut more = Vec::new();
    if args.out.is_none() {
        more.extend(["--out", &*dir]);
    }
    if !args.resume {
        more.push("--resume");
    }
    command_line(&more)
}

fn too_large(s: &SftSettings, decoder: &Decoder) -> Result<Estimate, Failure> {
    let estimate = memory(s, decoder)?;
    estimate.refuse_if_too_large(s.memory_share)?;
    Ok(estimate)
}

fn evaluate(sft: &Sft) -> Result<Option<Scores>, Failure> {
    sft.evaluate().map_err(|e| Failure::new(Code::Numerical, e).context("held-out conversations"))
}

fn drive(
    sft: &mut Sft,
    config: &SftConfig,
    args: &Args,
    folder: &RunFolder,
    manifest: &Manifest,
    stop: &std::sync::atomic::AtomicBool,
    global: Global,
) -> Result<Outcome, Failure> {
    let plan = CheckpointPlan {
        path: folder.checkpoint_path(),
        every_steps: args.checkpoint_every,
        every_s: args.checkpoint_every.is_none().then_some(CHECKPOINT_S),
    };
    let began = Instant::now();
    let clock = || began.elapsed().as_secs_f64();
    let control = RunControl { manifest, clock: &clock, stop, checkpoint: Some(&plan), resume: args.resume };
    let mut progress = Progress::new("sft", Some(config.steps), global);
    let mut writer = folder.observer();
    let mut observers: Vec<&mut dyn Observer> = vec![&mut progress, &mut writer];
    let budget = Budget::steps(config.steps);
    Ok(rhumb_core::run(sft, &budget, &mut Streams::new(config.seed), &mut observers, &control)?)
}

/// Writes the last weights, and the best ones where they are not the last.
fn save(trained: Trained, model: &LanguageModel, out: &Path) -> Result<Vec<PathBuf>, Failure> {
    let whole = |params: Vec<f32>| {
        if trained.model.is_adapted() { trained.model.merge(&trained.frozen, &params) } else { params }
    };
    let best = trained.best.filter(|b| b.params != trained.params);
    let last = out.join("model");
    model.save(&whole(trained.params), &last)?;
    let mut saved = vec![last];
    if let Some(best) = best {
        let dir = out.join("best");
        model.save(&whole(best.params), &dir)?;
        saved.push(dir);
    }
    Ok(saved)
}
