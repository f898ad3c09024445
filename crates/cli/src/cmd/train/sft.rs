//! Supervised fine-tuning, from files to a model folder.

mod finished;
pub(crate) mod setup;

use std::path::{Path, PathBuf};
use std::time::Instant;

use rhumb_core::{
    Budget, CheckpointPlan, Manifest, Observer, Outcome, RunControl, RunFolder, StopReason, Streams,
};
use rhumb_lm::sft::{Scores, Sft, SftConfig, SftError, Trained};

use self::finished::Finished;
use self::setup::{config, estimate, named, prepare, read, refuse_if_too_large};
use super::{Sft as Args, SftSettings};
use crate::exit::{Code, Failure};
use crate::lm::LanguageModel;
use crate::output::{Global, Output};
use crate::progress::Progress;
use crate::table::bytes;
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
    let stop = interrupt::install()?;
    let (path, _) = named(s)?;
    let mut model = LanguageModel::open(path)?;
    let data = read(s, &model)?;
    for note in &data.notes {
        global.note(note);
    }
    let (decoder, params, frozen) = prepare(s, &mut model)?;
    let config = config(s, &data.train)?;
    let estimate = estimate(&decoder, &config, s.lora.is_some());
    refuse_if_too_large(s, &estimate)?;
    let out = args.out.clone().unwrap_or_else(|| session::fresh_folder("sft"));
    let folder = RunFolder::create(&out, args.resume)?;
    let manifest = manifest(s)?;
    same_run(&folder, &manifest)?;
    let mut sft = Sft::new(config.clone(), decoder, params, frozen, data.train, &data.held_out)?;
    global.note(&format!(
        "{} packed rows of {} tokens; {} steps; estimated memory {}",
        sft.rows(),
        config.tokens,
        config.steps,
        bytes(estimate.total())
    ));
    let before = evaluate(&sft)?;
    let outcome = drive(&mut sft, &config, args, &folder, &manifest, stop, global)?;
    if outcome.reason == StopReason::Interrupted {
        return Err(Failure::new(
            Code::Interrupted,
            anyhow::anyhow!(
                "interrupted after step {}; the checkpoint is written, go on with the same command plus --out {} --resume",
                outcome.steps,
                out.display()
            ),
        ));
    }
    let after = evaluate(&sft)?;
    let state = sft.state_bytes();
    let saved = save(sft.finish(), &model, &out)?;
    let result = Finished { s, out: &out, config: &config, outcome: &outcome, before, after, saved, state };
    let html = result.report(&folder)?.html();
    folder.write("report.html", html.as_bytes())?;
    Ok(Output::new(result.text(), result.json()))
}

fn manifest(s: &SftSettings) -> Result<Manifest, Failure> {
    let config = serde_json::to_value(s)
        .map_err(|e| Failure::usage(format!("the settings have no JSON form: {e}")))?;
    Ok(Manifest {
        name: "train/sft".into(),
        config,
        seeds: vec![s.seed],
        versions: machine::versions(),
        machine: machine::describe(machine::threads()),
        started_unix_s: std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .ok()
            .map(|d| d.as_secs_f64()),
    })
}

/// A run that goes on has to be the one that stands in the folder: a checkpoint under other settings would end
/// with numbers that no single setting explains.
fn same_run(folder: &RunFolder, manifest: &Manifest) -> Result<(), Failure> {
    if !folder.file("manifest.json").exists() {
        return Ok(());
    }
    let earlier = folder.manifest()?.config;
    // This one decides whether a run starts, not what it computes.
    let differs = |key: &&String| *key != "memory_share" && earlier.get(*key) != manifest.config.get(*key);
    let keys = manifest.config.as_object().map(|o| o.keys().filter(differs).cloned().collect::<Vec<_>>());
    match keys.filter(|k| !k.is_empty()) {
        None => Ok(()),
        Some(keys) => Err(Failure::usage(format!(
            "{} holds a run with another {}: resume with the same settings, or choose another --out",
            folder.path().display(),
            keys.join(", ")
        ))),
    }
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
