//! A training that is killed at random moments ends with the bits of an undisturbed one.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rhumb_core::runfolder::strip_machine;
use rhumb_core::{
    Algorithm, Budget, CheckpointError, CheckpointPlan, EvalError, Manifest, RunControl, RunFolder,
    StateReader, StateWriter, Status, Step, Streams, run,
};
use rhumb_linalg::rng::Rng;

const FOLDER: &str = "RHUMB_KILL_TEST_FOLDER";
const PAUSE: &str = "RHUMB_KILL_TEST_PAUSE_US";
const STEPS: u64 = 1500;
/// Large enough that many kills fall into the writing of a checkpoint.
const DIM: usize = 100_000;

/// Noisy gradient descent with momentum on a quadratic.
struct Descent {
    x: Vec<f64>,
    momentum: Vec<f64>,
    pause: Duration,
}

impl Descent {
    fn new(pause: Duration) -> Self {
        Descent { x: vec![1.0; DIM], momentum: vec![0.0; DIM], pause }
    }
}

impl Algorithm for Descent {
    fn name(&self) -> &'static str {
        "descent"
    }
    fn step(&mut self, s: &mut Step<'_>) -> Result<Status, EvalError> {
        std::thread::sleep(self.pause);
        // A window moves over the vector, so that a step costs little and still touches everything.
        let at = (s.k as usize * 997) % (DIM - 1000);
        let noise = s.streams.get("noise");
        let mut loss = 0.0;
        for i in at..at + 1000 {
            self.momentum[i] = 0.9 * self.momentum[i] + self.x[i] + 0.1 * noise.normal();
            self.x[i] -= 0.05 * self.momentum[i];
            loss += self.x[i] * self.x[i];
        }
        s.record.put("loss", loss);
        s.evals.gradients += 1;
        Ok(Status::Continue)
    }
    fn save(&self, out: &mut StateWriter<'_>) -> Result<(), CheckpointError> {
        out.put_reals("x", &self.x)?;
        out.put_reals("momentum", &self.momentum)
    }
    fn load(&mut self, src: &mut StateReader) -> Result<(), CheckpointError> {
        src.reals("x", &mut self.x)?;
        src.reals("momentum", &mut self.momentum)
    }
}

fn train(path: &Path, pause: Duration) {
    let folder = RunFolder::create(path, true).unwrap();
    let plan = CheckpointPlan { path: folder.checkpoint_path(), every_steps: Some(7), every_s: None };
    let manifest = Manifest { name: "kill".to_owned(), ..Manifest::default() };
    let (began, stop) = (Instant::now(), AtomicBool::new(false));
    let clock = || began.elapsed().as_secs_f64();
    let control =
        RunControl { manifest: &manifest, clock: &clock, stop: &stop, checkpoint: Some(&plan), resume: true };
    let mut observer = folder.observer();
    let budget = Budget::steps(STEPS);
    run(&mut Descent::new(pause), &budget, &mut Streams::new(11), &mut [&mut observer], &control).unwrap();
}

/// Not a test of its own: the process that gets killed.
#[test]
fn child() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let pause = std::env::var(PAUSE).unwrap().parse().unwrap();
        train(Path::new(&folder), Duration::from_micros(pause));
    }
}

fn spawn(folder: &Path, pause_us: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::child"])
        .env(FOLDER, folder)
        .env(PAUSE, pause_us.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Final weights and records without what depends on the machine.
fn result(path: &Path) -> (Vec<u64>, Vec<String>) {
    let folder = RunFolder::open(path);
    let mut src = rhumb_core::checkpoint::open(&folder.checkpoint_path()).unwrap();
    let mut x = vec![0.0; DIM];
    src.scope("algorithm", |r| r.reals("x", &mut x)).unwrap();
    let records = std::fs::read_to_string(folder.file("records.jsonl")).unwrap();
    (
        x.iter().map(|v: &f64| v.to_bits()).collect(),
        records.lines().map(|l| strip_machine(l).into_owned()).collect(),
    )
}

#[test]
fn twenty_kills_at_random_moments_change_no_bit_of_the_result() {
    let dir = tempfile::tempdir().unwrap();
    let (calm, stormy) = (dir.path().join("calm"), dir.path().join("stormy"));
    train(&calm, Duration::ZERO);
    let mut rng = Rng::new(std::process::id().into());
    let mut kills = 0;
    while kills < 20 {
        let mut child = spawn(&stormy, 2_000);
        std::thread::sleep(Duration::from_micros(5_000 + rng.below(90_000) as u64));
        assert!(child.try_wait().unwrap().is_none(), "the child ended before kill {kills}");
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    let before = rhumb_core::checkpoint::open_latest(&stormy.join("state.bin"));
    assert!(before.is_ok(), "no checkpoint survived: the kills came too early to prove anything");
    assert!(spawn(&stormy, 0).wait().unwrap().success());
    let (a, b) = (result(&calm), result(&stormy));
    assert_eq!(a.1.len() as u64, STEPS);
    assert!(a.0 == b.0, "the weights differ");
    assert!(a.1 == b.1, "the records differ");
}
