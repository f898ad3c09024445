#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::Cell;
use std::path::Path;

use super::*;
use crate::StateWriter;

/// A random walk: everything it does follows from the streams and from `x`.
#[derive(Default)]
struct Walk {
    x: f64,
    done_at: Option<u64>,
    fail_at: Option<u64>,
    name: &'static str,
}

impl Walk {
    fn new() -> Self {
        Walk { name: "walk", ..Walk::default() }
    }
}

impl Algorithm for Walk {
    fn name(&self) -> &'static str {
        self.name
    }
    fn step(&mut self, s: &mut Step<'_>) -> Result<Status, EvalError> {
        if self.fail_at == Some(s.k) {
            return Err(EvalError::NonFinite { what: "the loss", block: Some("head".to_owned()) });
        }
        self.x += s.streams.get("noise").normal();
        s.evals.gradients += 1;
        if s.k.is_multiple_of(2) {
            s.record.put("x", self.x);
        }
        Ok(if self.done_at == Some(s.k) { Status::Done } else { Status::Continue })
    }
    fn save(&self, out: &mut StateWriter<'_>) -> Result<(), CheckpointError> {
        out.put_reals("x", &[self.x])
    }
    fn load(&mut self, src: &mut StateReader) -> Result<(), CheckpointError> {
        let mut x = [0.0];
        src.reals("x", &mut x)?;
        self.x = x[0];
        Ok(())
    }
    fn memory(&self) -> MemoryReport {
        MemoryReport { parameters: 8, ..MemoryReport::default() }
    }
}

/// Keeps what it is told; may refuse a step, or ask for a stop at one.
#[derive(Default)]
struct Diary<'a> {
    seen: Vec<(u64, f64)>,
    events: Vec<String>,
    refuse: Option<u64>,
    stop: Option<(u64, &'a AtomicBool)>,
}

impl Observer for Diary<'_> {
    fn start(&mut self, _: &Manifest) -> Result<(), ObserveError> {
        self.events.push("start".to_owned());
        Ok(())
    }
    fn resume(&mut self, _: &Manifest, next_step: u64) -> Result<(), ObserveError> {
        self.events.push(format!("resume {next_step}"));
        self.seen.retain(|e| e.0 < next_step);
        Ok(())
    }
    fn record(&mut self, r: &Record) -> Result<(), ObserveError> {
        if self.refuse == Some(r.step) {
            return Err(ObserveError::Other("refused".to_owned()));
        }
        if let Some((k, stop)) = self.stop
            && r.step == k
        {
            stop.store(true, Ordering::Relaxed);
        }
        self.seen.push((r.step, r.get("x").unwrap()));
        Ok(())
    }
    fn finish(&mut self, o: &Outcome) -> Result<(), ObserveError> {
        self.events.push(format!("finish {:?} {}", o.reason, o.steps));
        Ok(())
    }
}

struct Setting {
    manifest: Manifest,
    stop: AtomicBool,
    plan: Option<CheckpointPlan>,
    resume: bool,
    now: Cell<f64>,
}

impl Setting {
    fn new(folder: Option<&Path>) -> Self {
        Setting {
            manifest: Manifest::default(),
            stop: AtomicBool::new(false),
            plan: folder.map(|f| CheckpointPlan {
                path: f.join("state.bin"),
                every_steps: Some(3),
                every_s: None,
            }),
            resume: folder.is_some(),
            now: Cell::new(0.0),
        }
    }
    fn run(&self, walk: &mut Walk, budget: &Budget, diary: &mut Diary<'_>) -> Result<Outcome, RunError> {
        let clock = || {
            self.now.set(self.now.get() + 0.25);
            self.now.get()
        };
        let control = RunControl {
            manifest: &self.manifest,
            clock: &clock,
            stop: &self.stop,
            checkpoint: self.plan.as_ref(),
            resume: self.resume,
        };
        run(walk, budget, &mut Streams::new(7), &mut [diary], &control)
    }
}

fn undisturbed(steps: u64) -> (f64, Vec<(u64, f64)>) {
    let (mut walk, mut diary) = (Walk::new(), Diary::default());
    let o = Setting::new(None).run(&mut walk, &Budget::steps(steps), &mut diary).unwrap();
    assert_eq!((o.reason, o.steps, o.evals.gradients), (StopReason::Steps, steps, steps));
    assert_eq!(o.peak_bytes.total(), 8);
    (walk.x, diary.seen)
}

#[test]
fn only_steps_that_report_something_are_shown() {
    let (_, seen) = undisturbed(6);
    assert_eq!(seen.iter().map(|e| e.0).collect::<Vec<_>>(), [0, 2, 4]);
}

#[test]
fn a_run_in_parts_ends_with_the_bits_and_records_of_one_run() {
    let (x, seen) = undisturbed(20);
    let dir = tempfile::tempdir().unwrap();
    let mut diary = Diary::default();
    let mut last = None;
    for steps in [5, 5, 11, 20] {
        let mut walk = Walk::new();
        last =
            Some((Setting::new(Some(dir.path())).run(&mut walk, &Budget::steps(steps), &mut diary), walk.x));
    }
    let (outcome, got) = last.unwrap();
    assert_eq!(got.to_bits(), x.to_bits());
    assert_eq!(diary.seen, seen);
    assert_eq!(outcome.unwrap().evals.gradients, 20);
    let events = ["start", "finish Steps 5", "resume 5", "finish Steps 5", "resume 5", "finish Steps 11"];
    assert_eq!(diary.events[..6], events);
}

#[test]
fn an_interrupted_run_writes_a_checkpoint_and_goes_on_from_it() {
    let (x, seen) = undisturbed(12);
    let dir = tempfile::tempdir().unwrap();
    let setting = Setting::new(Some(dir.path()));
    let mut diary = Diary { stop: Some((4, &setting.stop)), ..Diary::default() };
    let o = setting.run(&mut Walk::new(), &Budget::steps(12), &mut diary).unwrap();
    assert_eq!((o.reason, o.steps), (StopReason::Interrupted, 5));
    let again = Setting::new(Some(dir.path()));
    let mut walk = Walk::new();
    let mut rest = Diary { seen: diary.seen, ..Diary::default() };
    again.run(&mut walk, &Budget::steps(12), &mut rest).unwrap();
    assert_eq!(walk.x.to_bits(), x.to_bits());
    assert_eq!(rest.seen, seen);
}

#[test]
fn a_failing_step_is_named_and_leaves_the_checkpoint_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut walk = Walk { fail_at: Some(7), ..Walk::new() };
    let mut diary = Diary::default();
    let e = Setting::new(Some(dir.path())).run(&mut walk, &Budget::steps(12), &mut diary).unwrap_err();
    assert!(e.is_non_finite() && e.step() == 7);
    assert!(e.to_string().starts_with("step 7: the loss is not finite (block head)"), "{e}");
    assert_eq!(diary.events.last().unwrap(), "finish Failed 7");
    let mut walk = Walk::new();
    Setting::new(Some(dir.path())).run(&mut walk, &Budget::steps(12), &mut diary).unwrap();
    assert!(diary.events.contains(&"resume 6".to_owned()));
    assert_eq!(walk.x.to_bits(), undisturbed(12).0.to_bits());
    assert_eq!(diary.seen, undisturbed(12).1);
}

#[test]
fn an_observer_that_fails_stops_the_run_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut diary = Diary { refuse: Some(8), ..Diary::default() };
    let e = Setting::new(Some(dir.path())).run(&mut Walk::new(), &Budget::steps(12), &mut diary).unwrap_err();
    assert_eq!(e.to_string(), "step 8: refused");
    diary.refuse = None;
    let mut walk = Walk::new();
    Setting::new(Some(dir.path())).run(&mut walk, &Budget::steps(12), &mut diary).unwrap();
    assert_eq!((walk.x.to_bits(), diary.seen), (undisturbed(12).0.to_bits(), undisturbed(12).1));
}

#[test]
fn an_algorithm_that_is_done_stays_done_after_a_resume() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let mut walk = Walk { done_at: Some(4), ..Walk::new() };
        let o =
            Setting::new(Some(dir.path())).run(&mut walk, &Budget::steps(12), &mut Diary::default()).unwrap();
        assert_eq!((o.reason, o.steps), (StopReason::Converged, 5));
    }
}

#[test]
fn the_time_budget_counts_all_parts_of_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let budget = Budget { steps: None, wall_s: Some(3.0) };
    let first = Setting::new(Some(dir.path())).run(&mut Walk::new(), &budget, &mut Diary::default()).unwrap();
    assert_eq!(first.reason, StopReason::Time);
    assert!(first.steps > 2);
    let second =
        Setting::new(Some(dir.path())).run(&mut Walk::new(), &budget, &mut Diary::default()).unwrap();
    assert_eq!((second.reason, second.steps), (StopReason::Time, first.steps));
}

#[test]
fn a_checkpoint_of_another_algorithm_or_seed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let setting = Setting::new(Some(dir.path()));
    setting.run(&mut Walk::new(), &Budget::steps(3), &mut Diary::default()).unwrap();
    let mut other = Walk { name: "hike", ..Walk::new() };
    let e = setting.run(&mut other, &Budget::steps(6), &mut Diary::default()).unwrap_err().to_string();
    assert!(e.contains("algorithm walk") && e.contains("hike"), "{e}");
    let clock = || 0.0;
    let control = RunControl {
        manifest: &setting.manifest,
        clock: &clock,
        stop: &setting.stop,
        checkpoint: setting.plan.as_ref(),
        resume: true,
    };
    let e = run(&mut Walk::new(), &Budget::steps(6), &mut Streams::new(8), &mut [], &control).unwrap_err();
    assert!(e.to_string().contains("seed 7"), "{e}");
}

#[test]
fn a_damaged_checkpoint_falls_back_to_the_one_before_and_the_outcome_tells() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.bin");
    let mut diary = Diary::default();
    Setting::new(Some(dir.path())).run(&mut Walk::new(), &Budget::steps(8), &mut diary).unwrap();
    std::fs::write(&path, b"RHUMBCKP").unwrap();
    let mut walk = Walk::new();
    let o = Setting::new(Some(dir.path())).run(&mut walk, &Budget::steps(12), &mut diary).unwrap();
    assert!(o.notes[0].contains("cut off"), "{:?}", o.notes);
    assert_eq!((walk.x.to_bits(), diary.seen), (undisturbed(12).0.to_bits(), undisturbed(12).1));
}

#[test]
fn every_stop_reason_says_what_to_try() {
    for r in [
        StopReason::Converged,
        StopReason::Steps,
        StopReason::Time,
        StopReason::Interrupted,
        StopReason::Failed,
    ] {
        assert!(r.advice().len() > 30);
    }
}
