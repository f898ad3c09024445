//! One execution of a recipe: seeds, arms, folders, the claim.

mod result;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rhumb_core::{
    Budget, CheckpointPlan, Counts, Manifest, MemoryReport, Observer, Outcome, Record, RunControl, RunFolder,
    StopReason, Streams,
};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::result::{RunResult, SeedResult, paired};
use crate::exit::{Code, Failure, read_text};
use crate::experiment::Metrics;
use crate::output::{Global, say};
use crate::progress::Progress;
use crate::recipe::{Recipe, Size};
use crate::report::{self, Section};
use crate::table::seconds;
use crate::{interrupt, machine};

/// Seconds between two checkpoints of a running arm.
const CHECKPOINT_S: f64 = 60.0;
/// What was measured of an arm, in its folder.
const MEASURED: &str = "measured.json";

/// What is to be executed.
pub(crate) struct Plan<'a> {
    /// Name of the recipe.
    pub(crate) name: &'a str,
    /// Its resolved settings.
    pub(crate) recipe: &'a Recipe,
    /// The size they were resolved at.
    pub(crate) size: Size,
    /// Settings changed on the command line, as `key=value`.
    pub(crate) set: &'a [String],
    /// Where the run goes; without it nothing is written.
    pub(crate) out: Option<PathBuf>,
    /// Go on with what stands there.
    pub(crate) resume: bool,
}

/// A measurement that took this long is told when it is done.
const TOLD: Duration = Duration::from_secs(2);

/// What a seed of an experiment may use.
pub(crate) struct Context<'a> {
    /// The seed.
    pub(crate) seed: u64,
    /// Limits of every arm.
    pub(crate) budget: Budget,
    first: Option<Metrics>,
    folder: Option<PathBuf>,
    resume: bool,
    manifest: &'a Manifest,
    global: Global,
    stop: &'a AtomicBool,
    total: Outcome,
    sections: Vec<Section>,
}

impl Context<'_> {
    /// What the first seed of the run measured; `None` for that seed itself.
    pub(crate) fn first_of(&self, metric: &str) -> Option<f64> {
        self.first.as_ref().and_then(|m| m.get(metric))
    }

    /// Runs an arm to its end, or goes on where its last checkpoint stands. Its folder is `seed-N/ARM`.
    ///
    /// # Errors
    /// A [`Failure`]: not finite, a file that cannot be written, or an interruption.
    pub(crate) fn drive(
        &mut self,
        arm: &str,
        algorithm: &mut dyn rhumb_core::Algorithm,
    ) -> Result<Outcome, Failure> {
        let folder = match &self.folder {
            Some(dir) => Some(RunFolder::create(dir.join(arm), self.resume)?),
            None => None,
        };
        let mut manifest = self.manifest.clone();
        manifest.name = format!("{}/{arm}", manifest.name);
        manifest.seeds = vec![self.seed];
        let plan = folder.as_ref().map(|f| CheckpointPlan {
            path: f.checkpoint_path(),
            every_steps: None,
            every_s: Some(CHECKPOINT_S),
        });
        let began = Instant::now();
        let clock = || began.elapsed().as_secs_f64();
        let control = RunControl {
            manifest: &manifest,
            clock: &clock,
            stop: self.stop,
            checkpoint: plan.as_ref(),
            resume: self.resume,
        };
        let mut progress = Progress::new(arm, self.budget.steps, self.global);
        let mut writer = folder.as_ref().map(RunFolder::observer);
        let mut observers: Vec<&mut dyn Observer> = vec![&mut progress];
        if let Some(w) = writer.as_mut() {
            observers.push(w);
        }
        let mut streams = Streams::new(self.seed);
        let outcome = rhumb_core::run(algorithm, &self.budget, &mut streams, &mut observers, &control)
            .map_err(|e| Failure::from(e).context(format!("{arm}, seed {}", self.seed)))?;
        add(&mut self.total, &outcome);
        if outcome.reason == StopReason::Interrupted {
            return Err(Failure::new(Code::Interrupted, anyhow::anyhow!("interrupted in {arm}")));
        }
        Ok(outcome)
    }

    /// What `make` measures of an arm. It is kept in the folder of the arm, so that a resumed run takes it from there.
    ///
    /// # Errors
    /// What `make` says; a file that cannot be written, or is not what was written.
    pub(crate) fn once<T: Serialize + DeserializeOwned>(
        &mut self,
        arm: &str,
        make: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Some(dir) = self.folder.as_ref().map(|dir| dir.join(arm)) else { return make(self) };
        let path = dir.join(MEASURED);
        if self.resume && path.exists() {
            return serde_json::from_str(&read_text(&path)?).map_err(|e| {
                let path = path.display();
                Failure::usage(format!("{path}: {e}; remove the file, and what it held is measured again"))
            });
        }
        if self.stop.load(Ordering::Relaxed) {
            return Err(Failure::new(Code::Interrupted, anyhow::anyhow!("interrupted before {arm}")));
        }
        let began = Instant::now();
        let made = make(self)?;
        if began.elapsed() > TOLD && (self.global.shows_progress() || self.global.logs_progress()) {
            say(&format!("{arm}, seed {}: {}", self.seed, seconds(began.elapsed().as_secs_f64())));
        }
        let text = serde_json::to_vec_pretty(&made)
            .map_err(|e| Failure::usage(format!("{}: no JSON form: {e}", path.display())))?;
        RunFolder::create(dir, true)?.write(MEASURED, &text)?;
        Ok(made)
    }

    /// Puts a file into the folder of an arm, where there is one.
    pub(crate) fn keep(&self, arm: &str, name: &str, text: &str) -> Result<(), Failure> {
        match &self.folder {
            Some(dir) => Ok(RunFolder::create(dir.join(arm), true)?.write(name, text.as_bytes())?),
            None => Ok(()),
        }
    }

    /// Adds a table, a plot or a paragraph to the report.
    pub(crate) fn show(&mut self, section: Section) {
        self.sections.push(section);
    }
}

fn add(total: &mut Outcome, part: &Outcome) {
    total.steps += part.steps;
    total.wall_s += part.wall_s;
    total.evals = Counts {
        values: total.evals.values + part.evals.values,
        gradients: total.evals.gradients + part.evals.gradients,
        products: total.evals.products + part.evals.products,
        samples: total.evals.samples + part.evals.samples,
    };
    total.peak_bytes = total.peak_bytes.max(part.peak_bytes);
    total.notes.extend(part.notes.iter().cloned());
}

/// Runs every seed of a plan, judges the claim and writes the folder.
pub(crate) fn execute(plan: &Plan<'_>, global: Global) -> Result<RunResult, Failure> {
    let stop = interrupt::install()?;
    let manifest = Manifest {
        name: plan.name.to_owned(),
        config: config(plan)?,
        seeds: plan.recipe.budget.seeds.clone(),
        versions: machine::versions(),
        machine: machine::describe(machine::threads()),
        started_unix_s: std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .ok()
            .map(|d| d.as_secs_f64()),
    };
    let folder = match &plan.out {
        Some(dir) => Some(RunFolder::create(dir, plan.resume)?),
        None => None,
    };
    let mut result = earlier(plan, folder.as_ref(), &manifest)?
        .unwrap_or_else(|| RunResult::new(plan.name, plan.size.key(), plan.recipe, plan.set));
    if result.judgement.is_some() {
        global.note(&format!("{} is finished: nothing to do", plan.name));
        return Ok(result);
    }
    let mut writer = folder.as_ref().map(RunFolder::observer);
    if let Some(w) = writer.as_mut() {
        match result.seeds.len() as u64 {
            0 => w.start(&manifest)?,
            n => w.resume(&manifest, n)?,
        }
    }
    // What earlier sittings cost stays in the account.
    let mut total = match &folder {
        Some(f) if plan.resume && f.file("outcome.json").exists() => {
            Outcome { reason: StopReason::Converged, error: None, ..f.outcome()? }
        }
        _ => empty_outcome(),
    };
    let seeds =
        all_seeds(plan, &manifest, folder.as_ref(), &mut writer, global, stop, &mut result, &mut total);
    let seeds = seeds.and_then(|()| result.judge(&plan.recipe.claim, &plan.recipe.controls));
    if let Err(e) = &seeds {
        let interrupted = e.code == Code::Interrupted;
        total.reason = if interrupted { StopReason::Interrupted } else { StopReason::Failed };
        total.error = Some(e.to_string());
    }
    if let Some(w) = writer.as_mut() {
        w.finish(&total)?;
    }
    if let Some(f) = &folder {
        result.save(f)?;
        if seeds.is_ok() {
            let html = report::of_run(f, &result)?.html();
            f.write("report.html", html.as_bytes())?;
        }
    }
    seeds.map(|()| result).map_err(|e| with_resume_hint(e, plan))
}

fn all_seeds(
    plan: &Plan<'_>,
    manifest: &Manifest,
    folder: Option<&RunFolder>,
    writer: &mut Option<rhumb_core::runfolder::FolderObserver>,
    global: Global,
    stop: &AtomicBool,
    result: &mut RunResult,
    total: &mut Outcome,
) -> Result<(), Failure> {
    let budget = &plan.recipe.budget;
    for (i, &seed) in budget.seeds.iter().enumerate().skip(result.seeds.len()) {
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::new(Code::Interrupted, anyhow::anyhow!("interrupted before seed {seed}")));
        }
        let mut ctx = Context {
            seed,
            budget: Budget { steps: budget.steps, wall_s: budget.wall_s },
            first: result.seeds.first().map(|s| s.metrics.clone()),
            folder: folder.map(|f| f.path().join(format!("seed-{seed}"))),
            resume: plan.resume,
            manifest,
            global,
            stop,
            total: empty_outcome(),
            sections: Vec::new(),
        };
        let began = Instant::now();
        let measured = plan.recipe.algorithm.experiment().run(&mut ctx);
        let wall_s = began.elapsed().as_secs_f64();
        let mut part = ctx.total;
        // Work outside of arms counts too.
        part.wall_s = wall_s;
        add(total, &part);
        let metrics = measured?;
        let mut record = Record::new(i as u64);
        for (name, value) in metrics.iter() {
            record.put(name.to_owned(), value);
        }
        record.machine("wall_s", wall_s);
        if let Some(w) = writer.as_mut() {
            w.record(&record)?;
            w.sync()?;
        }
        result.seeds.push(SeedResult { seed, metrics, wall_s, sections: ctx.sections });
        if let Some(f) = folder {
            result.save(f)?;
        }
    }
    Ok(())
}

fn empty_outcome() -> Outcome {
    Outcome {
        reason: StopReason::Converged,
        steps: 0,
        wall_s: 0.0,
        evals: Counts::default(),
        peak_bytes: MemoryReport::default(),
        notes: Vec::new(),
        error: None,
    }
}

fn config(plan: &Plan<'_>) -> Result<serde_json::Value, Failure> {
    let recipe = serde_json::to_value(plan.recipe)
        .map_err(|e| Failure::usage(format!("{}: the settings have no JSON form: {e}", plan.name)))?;
    Ok(serde_json::json!({ "size": plan.size.key(), "recipe": recipe }))
}

/// What an interrupted run has finished already, after a look that it is the same run.
fn earlier(
    plan: &Plan<'_>,
    folder: Option<&RunFolder>,
    manifest: &Manifest,
) -> Result<Option<RunResult>, Failure> {
    let Some(folder) = folder.filter(|f| plan.resume && f.file("manifest.json").exists()) else {
        return Ok(None);
    };
    if folder.manifest()?.config != manifest.config {
        return Err(Failure::usage(format!(
            "{} holds a run with other settings: resume with the same recipe, size and -s, or choose another folder",
            folder.path().display()
        )));
    }
    if !folder.file(RunResult::FILE).exists() {
        return Ok(None);
    }
    RunResult::load(folder.path()).map(Some)
}

fn with_resume_hint(e: Failure, plan: &Plan<'_>) -> Failure {
    match (&plan.out, e.code) {
        (Some(dir), Code::Interrupted) => {
            let set: String = plan.set.iter().map(|s| format!(" -s {}", quoted(s))).collect();
            let (name, budget) = (quoted(plan.name), plan.size.key());
            let dir = quoted(&dir.display().to_string());
            let text =
                format!("{e}; go on with: rhumb run {name} --budget {budget}{set} --out {dir} --resume");
            Failure::new(Code::Interrupted, anyhow::Error::msg(text))
        }
        _ => e,
    }
}

/// A word as a shell takes it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// `runs/RECIPE-TIME`, not yet taken.
pub(crate) fn fresh_folder(recipe: &str) -> PathBuf {
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    let stamp: String = now.chars().filter(|c| c.is_ascii_digit() || *c == 'T').collect();
    let base = format!("{}-{stamp}", recipe.replace(['/', '\\'], "-"));
    let mut path = Path::new("runs").join(&base);
    for n in 2.. {
        if !path.exists() {
            break;
        }
        path = Path::new("runs").join(format!("{base}-{n}"));
    }
    path
}
