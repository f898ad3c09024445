//! The folder of a run of `rhumb spectrum`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rhumb_core::runfolder::FolderObserver;
use rhumb_core::{Counts, MemoryReport, Observer, Outcome, Record, RunFolder, StopReason, checkpoint};
use rhumb_linalg::Real;
use rhumb_spectrum::{SlqRun, Step};

use super::measure::{Found, from_spectrum};
use super::{Args, told};
use crate::cmd::report::folder::{of_folder, only_fresh};
use crate::cmd::train::origin;
use crate::exit::{Code, Failure};
use crate::interrupt;
use crate::output::{Global, Output, resume_line};
use crate::progress::Progress;

/// The result.
const RESULT: &str = "spectrum.json";

/// A run under way.
pub(super) struct Folder {
    run: RunFolder,
    writer: FolderObserver,
    progress: Progress,
    stop: &'static AtomicBool,
    began: Instant,
    saved: Instant,
    save_every: Duration,
    /// Records so far.
    steps: u64,
    before_s: f64,
    /// A state of an earlier part that the next model goes on from.
    resumed: bool,
    /// The state on disk holds all steps of the model under way.
    rested: bool,
    resume_line: String,
}

impl Folder {
    /// Begins or goes on.
    pub(super) fn begin(args: &Args, global: Global) -> Result<Self, Failure> {
        let out = args.out.clone().unwrap_or_else(|| crate::session::fresh_folder("spectrum"));
        let earlier = if args.resume { origin::earlier(&out)? } else { None };
        match &earlier {
            None if args.resume => {
                return Err(Failure::missing(format!(
                    "{} holds no run to resume: leave out --resume to begin one",
                    out.display()
                )));
            }
            None => only_fresh(&out, true)?,
            Some(m) if m.name != "spectrum" => {
                return Err(Failure::usage(format!(
                    "{} holds a run of {}, no spectrum",
                    out.display(),
                    m.name
                )));
            }
            Some(_) => {}
        }
        let (first, rest) = args.models.split_first().ok_or_else(|| Failure::usage("give a model"))?;
        let mut others = Vec::new();
        for m in rest {
            others.extend(origin::model_files(m)?);
        }
        let data: [(&str, Vec<PathBuf>); 2] = [("data", vec![args.data.clone()]), ("models", others)];
        for m in &args.models {
            if !m.exists() {
                // Said before hours of work on the others.
                crate::lm::open_files(m)?;
            }
        }
        let manifest = origin::manifest("spectrum", args, args.seed, first, &data, None)?;
        if let Some(earlier) = &earlier {
            origin::same_run(&out, earlier, &manifest)?;
        }
        let stop = interrupt::install()?;
        let folder = RunFolder::create(&out, args.resume)?;
        let records = if earlier.is_some() { folder.records()? } else { Vec::new() };
        let total = args.models.len() as u64 * u64::from(args.probes) * u64::from(args.steps);
        let mut f = Folder {
            resume_line: resume_line(&out, args.out.is_some(), args.resume),
            writer: folder.observer(),
            progress: Progress::new("spectrum", Some(total), global),
            stop,
            began: Instant::now(),
            saved: Instant::now(),
            save_every: Duration::from_secs_f64(60.0 * args.save_every),
            steps: 0,
            before_s: 0.0,
            resumed: earlier.is_some(),
            rested: false,
            run: folder,
        };
        if earlier.is_some() {
            // What was recorded after the state that is gone on from is recorded again.
            f.steps = f.state()?.map_or(0, |(steps, _)| steps);
            let last = records.iter().rev().find(|r| r.step < f.steps);
            f.before_s = last.and_then(|r| r.get("wall_s")).unwrap_or(0.0);
            f.writer.resume(&manifest, f.steps)?;
            f.progress.resume(&manifest, f.steps)?;
        } else {
            f.writer.start(&manifest)?;
            f.progress.start(&manifest)?;
        }
        Ok(f)
    }

    /// Records before the saved state, and the models that were finished then.
    fn state(&self) -> Result<Option<(u64, Vec<Found>)>, Failure> {
        let path = self.run.checkpoint_path();
        if !checkpoint::exists(&path) {
            return Ok(None);
        }
        let (mut state, _) = checkpoint::open_latest(&path)?;
        Ok(Some((state.json("steps")?, state.json("finished")?)))
    }

    /// The models that an earlier part has finished.
    pub(super) fn finished(&self) -> Result<Vec<Found>, Failure> {
        if !self.resumed {
            return Ok(Vec::new());
        }
        Ok(self.state()?.map_or(Vec::new(), |s| s.1))
    }

    /// Goes on from the saved state of the model that was under way.
    pub(super) fn load<T: Real>(&mut self, run: &mut SlqRun<T>) -> Result<(), Failure> {
        let path = self.run.checkpoint_path();
        if !std::mem::take(&mut self.resumed) || !checkpoint::exists(&path) {
            return Ok(());
        }
        let (mut state, _) = checkpoint::open_latest(&path)?;
        if state.has("slq") { run.load(&mut state).map_err(from_spectrum) } else { Ok(()) }
    }

    fn save<T: Real>(&mut self, run: &SlqRun<T>) -> Result<(), Failure> {
        let (steps, finished) = (self.steps, self.kept()?);
        self.writer.sync()?;
        let mut failed = None;
        checkpoint::write(&self.run.checkpoint_path(), |w| {
            w.put_json("steps", &steps)?;
            w.put_json("finished", &finished)?;
            match run.save(w) {
                Ok(()) => Ok(()),
                Err(rhumb_spectrum::SpectrumError::Checkpoint(e)) => Err(e),
                Err(e) => {
                    failed = Some(e);
                    Ok(())
                }
            }
        })?;
        self.saved = Instant::now();
        failed.map_or(Ok(()), |e| Err(from_spectrum(e)))
    }

    /// Models that are finished, from the result so far.
    fn kept(&self) -> Result<Vec<Found>, Failure> {
        let path = self.run.file(RESULT);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let text = crate::exit::read_text(&path)?;
        serde_json::from_str(&text)
            .map_err(|e| Failure::usage(format!("{}: {e}; begin again in another --out", path.display())))
    }

    /// Keeps what was found of model `i`.
    pub(super) fn keep(&mut self, i: usize, found: &Found) -> Result<(), Failure> {
        let mut all = self.kept()?;
        all.truncate(i);
        let mut all: Vec<serde_json::Value> =
            all.iter().map(serde_json::to_value).collect::<Result<_, _>>().map_err(unreadable)?;
        all.push(serde_json::to_value(found).map_err(unreadable)?);
        let text = serde_json::to_vec_pretty(&all).map_err(unreadable)?;
        self.run.write(RESULT, &text)?;
        let steps = self.steps;
        checkpoint::write(&self.run.checkpoint_path(), |w| {
            w.put_json("steps", &steps)?;
            w.put_json("finished", &all)
        })?;
        Ok(())
    }

    /// Records a step; saves when it is time, and ends the run when the user asked for it.
    pub(super) fn stepped<T: Real>(&mut self, run: &SlqRun<T>, place: Step) -> Result<(), Failure> {
        let mut r = Record::new(self.steps);
        r.put("start", place.start as f64);
        r.put("lanczos_step", place.step as f64);
        r.machine("wall_s", self.before_s + self.began.elapsed().as_secs_f64());
        self.steps += 1;
        self.writer.record(&r)?;
        self.progress.record(&r)?;
        let stop = self.stop.load(Ordering::Relaxed) && !place.done;
        if stop || self.saved.elapsed() >= self.save_every {
            self.save(run)?;
        }
        self.rested = false;
        if stop { Err(self.interrupted()) } else { Ok(()) }
    }

    /// Between the parts that follow the Lanczos steps: saves when it is time, and ends the run when the user asked for it.
    pub(super) fn pause<T: Real>(&mut self, run: &SlqRun<T>) -> Result<(), Failure> {
        let stop = self.stop.load(Ordering::Relaxed);
        if stop || !self.rested {
            self.save(run)?;
            self.rested = true;
        }
        if stop { Err(self.interrupted()) } else { Ok(()) }
    }

    fn interrupted(&self) -> Failure {
        let text = format!("interrupted after {} steps; go on with: {}", self.steps, self.resume_line);
        Failure::new(Code::Interrupted, anyhow::Error::msg(text))
    }

    fn end(&mut self, reason: StopReason, error: Option<String>) -> Result<f64, Failure> {
        let wall_s = self.before_s + self.began.elapsed().as_secs_f64();
        let outcome = Outcome {
            reason,
            steps: self.steps,
            wall_s,
            evals: Counts::default(),
            peak_bytes: MemoryReport::default(),
            notes: Vec::new(),
            error,
        };
        self.progress.finish(&outcome)?;
        self.writer.finish(&outcome)?;
        Ok(wall_s)
    }

    /// Says in the folder why the run ended early.
    pub(super) fn failed(&mut self, e: &Failure) -> Result<(), Failure> {
        let reason = if e.code == Code::Interrupted { StopReason::Interrupted } else { StopReason::Failed };
        self.end(reason, Some(e.to_string())).map(|_| ())
    }

    /// Writes the tables and the report.
    pub(super) fn finish(mut self, args: &Args, found: &[Found]) -> Result<Output, Failure> {
        let wall_s = self.end(StopReason::Steps, None)?;
        let out = self.run.path().to_owned();
        let told = told::Told::of(args, found)?;
        self.run.write("blocks.csv", told.csv().as_bytes())?;
        told.summary(&out).save(&self.run)?;
        self.run.write("report.html", of_folder(&out)?.html().as_bytes())?;
        Ok(told.output(&out, wall_s))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
fn unreadable(e: serde_json::Error) -> Failure {
    Failure::usage(format!("the result has no JSON form: {e}"))
}
