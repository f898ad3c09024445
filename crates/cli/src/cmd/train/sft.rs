//! Supervised fine-tuning, from files to a model folder.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rhumb_core::stats::Interval;
use rhumb_core::{
    Budget, CheckpointPlan, Manifest, MemoryReport, Observer, Outcome, RunControl, RunFolder, StopReason,
    Streams,
};
use rhumb_lm::data::{DataError, Drop, Example, Lengths, Prepared, Rows, Tokenizing, split};
use rhumb_lm::gem::{RowStats, Summary, paired_change};
use rhumb_lm::sft::{Scores, Sft, SftConfig, SftError, Trained};
use rhumb_nn::loss::LossKind;
use rhumb_nn::model::{Decoder, LoraConfig, init};
use rhumb_optim::{Kind, OptimizerConfig, ScheduleConfig, ScheduleKind};
use serde_json::json;

use super::{Loss, OptimizerName, ScheduleName, Sft as Args, SftSettings};
use crate::exit::{Code, Failure};
use crate::lm::{LanguageModel, activation_bytes};
use crate::output::{Global, Output};
use crate::progress::Progress;
use crate::report::{LinePlot, Report, Section, Series, Tone};
use crate::table::{Table, bytes, number, seconds};
use crate::{interrupt, machine, session};

/// Seconds between two checkpoints.
const CHECKPOINT_S: f64 = 120.0;

impl From<SftError> for Failure {
    fn from(e: SftError) -> Self {
        Failure::new(Code::Usage, e)
    }
}

/// A definition to train, its trained parameters and its frozen ones.
type Start = (Decoder, Vec<f32>, Arc<Vec<f32>>);

/// What the data became.
struct Data {
    train: Vec<Example>,
    held_out: Vec<Example>,
    notes: Vec<String>,
}

/// Runs `rhumb train sft`.
pub(super) fn run(args: &Args, global: Global) -> Result<Output, Failure> {
    let s = &args.settings;
    let stop = interrupt::install()?;
    let mut model = LanguageModel::open(&s.model)?;
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

fn read(s: &SftSettings, model: &LanguageModel) -> Result<Data, Failure> {
    let tokenizing = Tokenizing {
        encoder: &model.tokenizer,
        format: model.template.as_ref().map(|t| t as _),
        eos: model.eos.first().copied(),
        max_len: s.tokens as usize,
    };
    let mut notes = Vec::new();
    let prepared = read_file(&s.data, &tokenizing, &mut notes)?;
    let data_error = |e: DataError| Failure::new(Code::Usage, e);
    let (train, held_out) = match &s.eval_data {
        Some(path) => (prepared.examples, read_file(path, &tokenizing, &mut notes)?.examples),
        None => split(prepared.examples, s.held_out, s.seed).map_err(data_error)?,
    };
    let l = Lengths::of(&train);
    notes.push(format!(
        "{} conversations to train on, {} held out; tokens median {}, 95 % {}, longest {}; {} of {} tokens trained",
        l.documents,
        held_out.len(),
        l.median,
        l.p95,
        l.max,
        l.live,
        l.tokens
    ));
    Ok(Data { train, held_out, notes })
}

fn read_file(path: &Path, tokenizing: &Tokenizing<'_>, notes: &mut Vec<String>) -> Result<Prepared, Failure> {
    let file = File::open(path).map_err(|e| {
        let code = if e.kind() == std::io::ErrorKind::NotFound { Code::Missing } else { Code::Usage };
        Failure::new(code, anyhow::anyhow!("cannot read {}: {e}; check the path", path.display()))
    })?;
    let name = path.display().to_string();
    let rows = Rows::new(BufReader::new(file), name.clone());
    let prepared = tokenizing.run(rows, &name).map_err(|e| Failure::new(Code::Usage, e))?;
    let lines = |l: &[usize]| {
        let shown: Vec<String> = l.iter().take(10).map(usize::to_string).collect();
        format!("{}{}", shown.join(", "), if l.len() > 10 { ", ..." } else { "" })
    };
    if !prepared.truncated.is_empty() {
        notes.push(format!(
            "{name}: {} conversations cut at {} tokens (lines {})",
            prepared.truncated.len(),
            tokenizing.max_len,
            lines(&prepared.truncated)
        ));
    }
    for (why, text) in [(Drop::NothingLive, "without an answer"), (Drop::CutAway, "cut before the answer")] {
        let dropped: Vec<usize> = prepared.dropped.iter().filter(|d| d.why == why).map(|d| d.line).collect();
        if !dropped.is_empty() {
            notes.push(format!(
                "{name}: {} conversations {text} dropped (lines {})",
                dropped.len(),
                lines(&dropped)
            ));
        }
    }
    Ok(prepared)
}

/// The definition that is trained, its trained parameters and its frozen ones. The weights move out of
/// `model`: a second copy would be most of the memory.
fn prepare(s: &SftSettings, model: &mut LanguageModel) -> Result<Start, Failure> {
    let weights = std::mem::take(&mut model.params);
    let Some(rank) = s.lora else {
        return Ok((model.decoder.clone(), weights, Arc::new(Vec::new())));
    };
    let lora = LoraConfig {
        rank: rank as usize,
        alpha: s.lora_alpha.unwrap_or(2.0 * f64::from(rank)),
        ..LoraConfig::default()
    };
    let config = model.decoder.config().clone();
    let layers = config.layers;
    let decoder = Decoder::with_lora(config, &lora).map_err(|e| Failure::new(Code::Usage, e))?;
    let params = init(decoder.layout(), layers, 0.0, s.seed);
    Ok((decoder, params, Arc::new(weights)))
}

fn config(s: &SftSettings, train: &[Example]) -> Result<SftConfig, Failure> {
    if s.dropout != 0.0 {
        return Err(Failure::usage(
            "--dropout: these model families are fine-tuned without dropout, as their authors do; leave it out".to_owned(),
        ));
    }
    let per_step = (s.batch * s.accumulate) as usize;
    let rows =
        rhumb_lm::data::pack(train, s.tokens as usize).map_err(|e| Failure::new(Code::Usage, e))?.len();
    let steps = s.steps.unwrap_or_else(|| ((rows as f64 * s.epochs / per_step as f64).ceil() as u64).max(1));
    let loss = match s.loss {
        Loss::Ce => LossKind::Ce,
        Loss::GemLinear => LossKind::GemLinear { beta: s.beta },
        Loss::GemLogSigmoid => LossKind::GemLogsigmoid { beta: s.beta },
    };
    let config = SftConfig {
        steps,
        batch: s.batch as usize,
        accumulate: s.accumulate as usize,
        tokens: s.tokens as usize,
        optimizer: OptimizerConfig {
            kind: match s.optimizer {
                OptimizerName::AdamW => Kind::AdamW,
                OptimizerName::AdamMini => Kind::AdamMini,
                OptimizerName::Sgd => Kind::Sgd,
            },
            lr: s.lr,
            beta2: 0.95,
            weight_decay: s.weight_decay,
            ..OptimizerConfig::default()
        },
        schedule: ScheduleConfig {
            kind: match s.schedule {
                ScheduleName::Cosine => ScheduleKind::Cosine,
                ScheduleName::Linear => ScheduleKind::Linear,
                ScheduleName::Constant => ScheduleKind::Constant,
            },
            warmup_steps: (s.warmup * steps as f64).round() as u64,
            ..ScheduleConfig::default()
        },
        loss,
        clip_norm: (s.clip > 0.0).then_some(s.clip),
        recompute: s.recompute,
        update_in_backward: s.update_in_backward,
        eval_every: s.eval_every,
        seed: s.seed,
    };
    config.check()?;
    Ok(config)
}

/// Memory of a run before it starts, by category. Scratch is one chunk of scores and its hidden states.
fn estimate(decoder: &Decoder, config: &SftConfig, adapted: bool) -> MemoryReport {
    let (trained, base) = (decoder.layout().len() as u64, decoder.base_layout().len() as u64);
    // The best weights stand beside the current ones.
    let copies = if adapted { base + 2 * trained } else { 2 * trained };
    MemoryReport {
        parameters: 4 * copies,
        gradients: if config.update_in_backward { 0 } else { 4 * trained },
        optimizer: config.optimizer.state_bytes(decoder.layout(), 4).map_or(0, |b| b as u64),
        activations: activation_bytes(decoder, config.batch * config.tokens, config.recompute),
        scratch: 128 << 20,
    }
}

fn refuse_if_too_large(s: &SftSettings, estimate: &MemoryReport) -> Result<(), Failure> {
    let Some(memory) = machine::available_memory() else { return Ok(()) };
    let limit = (memory as f64 * s.memory_share) as u64;
    if estimate.total() <= limit {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "this run needs about {} (parameters {}, gradients {}, optimizer {}, activations {}) and may use {} of the {} \
         that are free: try a smaller --batch or --tokens, --recompute, --update-in-backward with --clip 0, or --lora 8",
        bytes(estimate.total()),
        bytes(estimate.parameters),
        bytes(estimate.gradients),
        bytes(estimate.optimizer),
        bytes(estimate.activations),
        bytes(limit),
        bytes(memory)
    )))
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

/// Everything that is told about a finished run.
struct Finished<'a> {
    s: &'a SftSettings,
    out: &'a Path,
    config: &'a SftConfig,
    outcome: &'a Outcome,
    before: Option<Scores>,
    after: Option<Scores>,
    saved: Vec<PathBuf>,
    state: usize,
}

/// A quantity by name, of one token and of a summary.
type Pick = (&'static str, fn(&RowStats) -> f64, fn(&Summary) -> f64);

/// A held-out quantity: name, value before and after, and the paired change.
struct Change {
    name: &'static str,
    before: f64,
    after: f64,
    paired: Option<Interval>,
}

impl Finished<'_> {
    fn changes(&self) -> Vec<Change> {
        let (Some(b), Some(a)) = (&self.before, &self.after) else { return Vec::new() };
        let (Some(mb), Some(ma)) = (b.summary(), a.summary()) else { return Vec::new() };
        let mut quantities: Vec<Pick> =
            vec![("cross-entropy", |r| r.ce, |s| s.ce), ("entropy", |r| r.entropy, |s| s.entropy)];
        if self.config.loss != LossKind::Ce {
            quantities.insert(0, ("S = beta CE(z / beta)", |r| r.surrogate, |s| s.surrogate));
        }
        quantities
            .into_iter()
            .map(|(name, row, mean)| Change {
                name,
                before: mean(&mb),
                after: mean(&ma),
                paired: paired_change(&b.documents, &a.documents, row, 0),
            })
            .collect()
    }

    fn table(&self) -> Table {
        let mut t = Table::new(["held out", "before", "after", "change per conversation (95 %)"]);
        for c in self.changes() {
            let interval = c.paired.map_or_else(String::new, |i| {
                format!("{} [{}, {}]", number(i.mean), number(i.low), number(i.high))
            });
            t.row([c.name.to_owned(), number(c.before), number(c.after), interval]);
        }
        t
    }

    fn facts(&self) -> Table {
        let m = &self.outcome.peak_bytes;
        let mut t = Table::new(["", "value"]);
        t.row(["steps".to_owned(), self.outcome.steps.to_string()]);
        t.row(["time".to_owned(), seconds(self.outcome.wall_s)]);
        t.row(["optimizer state".to_owned(), format!("{} ({} bytes)", bytes(self.state as u64), self.state)]);
        for (name, b) in [
            ("parameters", m.parameters),
            ("gradients", m.gradients),
            ("activations", m.activations),
            ("scratch", m.scratch),
        ] {
            t.row([name.to_owned(), bytes(b)]);
        }
        t
    }

    fn verdict(&self) -> String {
        let Some(c) = self.changes().into_iter().next() else {
            return "No held-out conversations, so nothing is said about what was learnt.".into();
        };
        match c.paired {
            Some(i) if i.high < 0.0 => format!("{} fell on held-out conversations.", c.name),
            Some(i) if i.low > 0.0 => {
                format!("{} rose on held-out conversations: fewer steps or a smaller --lr.", c.name)
            }
            _ => format!("{} did not change clearly on held-out conversations.", c.name),
        }
    }

    fn text(&self) -> String {
        let saved: Vec<String> = self.saved.iter().map(|p| p.display().to_string()).collect();
        format!(
            "{}\n{}\n{}\n\nSaved {}; report in {}\nTry it: rhumb generate {} --chat \"Hello\"\n",
            self.verdict(),
            self.table().render(),
            self.facts().render(),
            saved.join(", "),
            self.out.join("report.html").display(),
            saved[0]
        )
    }

    fn json(&self) -> serde_json::Value {
        let changes: Vec<_> = self
            .changes()
            .into_iter()
            .map(|c| {
                json!({ "name": c.name, "before": c.before, "after": c.after,
                        "change": c.paired.map(|i| json!({ "mean": i.mean, "low": i.low, "high": i.high })) })
            })
            .collect();
        json!({
            "verdict": self.verdict(), "held_out": changes, "steps": self.outcome.steps,
            "wall_s": self.outcome.wall_s, "optimizer_state_bytes": self.state,
            "peak_bytes": self.outcome.peak_bytes, "saved": self.saved, "folder": self.out,
        })
    }

    fn report(&self, folder: &RunFolder) -> Result<Report, Failure> {
        let mut report = Report::new("Supervised fine-tuning");
        report.verdict(Tone::Plain, self.verdict());
        report.table("Held-out conversations, means over tokens", self.table());
        report.table("Cost", self.facts());
        let records = folder.records()?;
        for (title, keys) in [
            ("Loss", &["loss", "ce", "eval_ce"][..]),
            ("Entropy of the prediction", &["entropy", "eval_entropy"]),
            ("Gradient norm", &["grad_norm"]),
            ("Learning rate", &["lr"]),
        ] {
            let curve = |k: &&str| {
                let points: Vec<(f64, f64)> =
                    records.iter().filter_map(|r| r.get(k).map(|v| (r.step as f64, v))).collect();
                (!points.is_empty()).then(|| Series::new(*k, points))
            };
            let series: Vec<_> = keys.iter().filter_map(curve).collect();
            if !series.is_empty() {
                let (x, y) = ("step".to_owned(), title.to_owned());
                report.push(Section::Lines(LinePlot {
                    title: title.into(),
                    x,
                    y,
                    series,
                    ..LinePlot::default()
                }));
            }
        }
        if self.config.loss != LossKind::Ce {
            report.text(format!(
                "GEM at beta {} trains the model whose temperature-{:.3} sampling plain cross-entropy would give; before \
                 you credit GEM with diversity, compare with cross-entropy sampled at that temperature.",
                self.s.beta,
                1.0 / self.s.beta
            ));
        }
        let settings = serde_json::to_value(self.s).unwrap_or_default();
        report.details("Settings", format!("{settings:#}"));
        Ok(report)
    }
}
