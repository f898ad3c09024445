//! `rhumb quickstart`.

mod done;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rhumb_core::{Budget, Manifest, Observer, RunControl, RunFolder, StopReason, Streams};
use rhumb_lm::quickstart::corpus::{Corpus, Sizes};
use rhumb_lm::quickstart::study::{
    BETA, Measures, Shape, at_temperature, decoder, fine_tuning, measure, pretraining,
};
use rhumb_lm::sft::{Sft, SftConfig};
use rhumb_nn::loss::LossKind;
use rhumb_nn::model::{Decoder, init};
use rhumb_optim::Kind;
use serde::Serialize;
use serde_json::json;

use self::done::Done;
use super::report::folder::{SUMMARY, of_folder, only_fresh};
use crate::exit::{Code, Failure};
use crate::lm::from_eval;
use crate::output::{Global, Output, command_line};
use crate::progress::Progress;
use crate::{interrupt, machine, session};

/// Arguments of `quickstart`.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct Args {
    /// Which family to try: language models, or the spectra of blocks of a convolutional net and a decoder.
    #[arg(default_value = "lm", value_parser = ["lm", "spectrum"])]
    pub(crate) family: String,
    /// Folder of the report; `runs/quickstart-TIME` otherwise.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The seed of data, weights and order.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) seed: u64,
}

/// One fine-tuning of the shared base.
struct Arm {
    name: String,
    optimizer: Kind,
    loss: LossKind,
    state_bytes: usize,
    step_ms: f64,
    train_loss: f64,
    curve: Vec<(f64, f64)>,
    measures: Measures,
}

/// What every arm needs.
struct Study<'a> {
    corpus: &'a Corpus,
    model: &'a Decoder,
    folder: &'a RunFolder,
    manifest: &'a Manifest,
    stop: &'a AtomicBool,
    global: Global,
    /// Whether the user chose the folder.
    named: bool,
}

const NAME: &str = "quickstart/lm";

/// The fine-tunings.
const ARMS: [(&str, Kind, LossKind); 4] = [
    ("AdamW, cross-entropy", Kind::AdamW, LossKind::Ce),
    ("Adam-mini, cross-entropy", Kind::AdamMini, LossKind::Ce),
    ("AdamW, GEM", Kind::AdamW, LossKind::GemLinear { beta: BETA }),
    ("Adam-mini, GEM", Kind::AdamMini, LossKind::GemLinear { beta: BETA }),
];

/// The folder of an arm.
fn slug(name: &str) -> String {
    name.to_lowercase().replace(", ", "-")
}

/// Makes way for a quick start where one was cut off; every other folder has to be empty.
fn make_way(out: &Path) -> Result<(), Failure> {
    let folder = RunFolder::open(out);
    let own = folder.file("manifest.json").exists() && folder.manifest()?.name == NAME;
    if !own {
        return only_fresh(out, false);
    }
    if folder.file(SUMMARY).exists() {
        return Err(Failure::usage(format!(
            "{} holds a finished quick start: open {}, or choose another --out",
            out.display(),
            folder.file("report.html").display()
        )));
    }
    for arm in std::iter::once("pretrain".to_owned()).chain(ARMS.iter().map(|a| slug(a.0))) {
        let arm = out.join(arm);
        if arm.exists() {
            std::fs::remove_dir_all(&arm).map_err(|e| {
                Failure::usage(format!("cannot remove {}: {e}; choose another --out", arm.display()))
            })?;
        }
    }
    std::fs::remove_file(folder.file("manifest.json"))
        .map_err(|e| Failure::usage(format!("cannot clear {}: {e}; choose another --out", out.display())))
}

struct Trained {
    params: Vec<f32>,
    state_bytes: usize,
    step_ms: f64,
    curve: Vec<(f64, f64)>,
}

impl Study<'_> {
    /// Trains one arm in its own folder.
    fn train(
        &self,
        name: &str,
        config: SftConfig,
        start: Vec<f32>,
        pretrain: bool,
    ) -> Result<Trained, Failure> {
        let data = if pretrain { &self.corpus.pretrain } else { &self.corpus.fine_tune };
        let steps = config.steps;
        let seed = config.seed;
        let mut sft = Sft::new(config, self.model.clone(), start, Arc::new(Vec::new()), data.clone(), &[])?;
        let folder = RunFolder::create(self.folder.path().join(name), false)?;
        let mut progress = Progress::new(name, Some(steps), self.global);
        let mut writer = folder.observer();
        let mut observers: Vec<&mut dyn Observer> = vec![&mut progress, &mut writer];
        let began = Instant::now();
        let clock = || began.elapsed().as_secs_f64();
        let control = RunControl {
            manifest: self.manifest,
            clock: &clock,
            stop: self.stop,
            checkpoint: None,
            resume: false,
        };
        let outcome = rhumb_core::run(
            &mut sft,
            &Budget::steps(steps),
            &mut Streams::new(seed),
            &mut observers,
            &control,
        )
        .map_err(|e| Failure::from(e).context(name.to_owned()))?;
        if outcome.reason == StopReason::Interrupted {
            let dir = self.folder.path().to_string_lossy();
            return Err(Failure::new(
                Code::Interrupted,
                anyhow::anyhow!(
                    "interrupted in {name}; a quick start has no checkpoints, so the same command begins anew: {}",
                    command_line(&if self.named { vec![] } else { vec!["--out", &dir] })
                ),
            ));
        }
        let curve =
            folder.records()?.iter().filter_map(|r| r.get("ce").map(|ce| (r.step as f64, ce))).collect();
        Ok(Trained {
            params: sft.params().to_vec(),
            state_bytes: sft.state_bytes(),
            step_ms: outcome.wall_s * 1e3 / steps as f64,
            curve,
        })
    }

    fn measure(&self, params: &[f32]) -> Result<Measures, Failure> {
        measure(self.model, params, self.corpus).map_err(|e| Failure::new(Code::Numerical, e))
    }
}

/// Trains, fine-tunes four ways and reports.
pub(crate) fn run(args: &Args, global: Global) -> Result<Output, Failure> {
    if args.family == "spectrum" {
        return super::run::quick("hessian/block-heterogeneity", args.seed, args.out.clone(), global);
    }
    let began = Instant::now();
    let stop = interrupt::install()?;
    let out = args.out.clone().unwrap_or_else(|| session::fresh_folder("quickstart"));
    make_way(&out)?;
    let folder = RunFolder::create(&out, false)?;
    let corpus = Corpus::new(args.seed, Sizes::default());
    let model = decoder(&corpus.words, Shape::default()).map_err(|e| Failure::new(Code::Usage, e))?;
    let manifest = Manifest {
        name: NAME.into(),
        config: json!({
            "family": args.family, "seed": args.seed, "pretraining": pretraining(args.seed),
            "fine_tuning": fine_tuning(Kind::AdamMini, LossKind::GemLinear { beta: BETA }, args.seed),
        }),
        seeds: vec![args.seed],
        versions: machine::versions(),
        machine: machine::describe(machine::threads()),
        started_unix_s: std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .ok()
            .map(|d| d.as_secs_f64()),
    };
    let text = serde_json::to_vec_pretty(&manifest)
        .map_err(|e| Failure::usage(format!("the settings have no JSON form: {e}")))?;
    folder.write("manifest.json", &text)?;
    global.note(&format!(
        "A decoder of {} parameters learns a small language whose questions have several right answers,\n\
         then is fine-tuned four ways on answers of which one style dominates.",
        model.layout().len()
    ));
    let study = Study {
        corpus: &corpus,
        model: &model,
        folder: &folder,
        manifest: &manifest,
        stop,
        global,
        named: args.out.is_some(),
    };
    let fresh = init(model.layout(), model.config().layers, 0.02, args.seed);
    let base = study.train("pretrain", pretraining(args.seed), fresh, true)?;
    let start = study.measure(&base.params)?;
    let mut arms = Vec::new();
    let mut control = None;
    for (name, optimizer, loss) in ARMS {
        let t =
            study.train(&slug(name), fine_tuning(optimizer, loss, args.seed), base.params.clone(), false)?;
        let tail = &t.curve[t.curve.len().saturating_sub(16)..];
        let train_loss = tail.iter().map(|p| p.1).sum::<f64>() / tail.len().max(1) as f64;
        if (optimizer, loss) == (Kind::AdamMini, LossKind::Ce) {
            let warm = at_temperature(&model, &t.params, 1.0 / BETA).map_err(from_eval)?;
            control = Some(study.measure(&warm)?);
        }
        arms.push(Arm {
            name: name.to_owned(),
            optimizer,
            loss,
            state_bytes: t.state_bytes,
            step_ms: t.step_ms,
            train_loss,
            curve: t.curve,
            measures: study.measure(&t.params)?,
        });
    }
    let Some(control) = control else {
        return Err(Failure::usage("the control arm is missing".to_owned()));
    };
    let done = Done {
        arms,
        control,
        start,
        parameters: model.layout().len(),
        wall_s: began.elapsed().as_secs_f64(),
    };
    done.summary(&base.curve, &out).save(&folder)?;
    folder.write("report.html", of_folder(&out)?.html().as_bytes())?;
    Ok(Output::new(done.text(&out), done.json(&out)))
}
