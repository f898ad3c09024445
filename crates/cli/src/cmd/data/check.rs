//! `rhumb data check`: a dry run of `train sft`.

use std::time::Instant;

use rhumb_lm::data::{DataError, Example, Examples, Intake, Lengths, PackedBatch, PackedRow};
use rhumb_nn::loss::LossKind;
use rhumb_nn::model::{DecoderObjective, TokenBatch};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cmd::train::SftSettings;
use crate::cmd::train::loss::Given;
use crate::cmd::train::memory::Estimate;
use crate::cmd::train::sft::{intake, says_something, setup};
use crate::exit::{Code, Failure};
use crate::lm::{LanguageModel, from_eval};
use crate::machine;
use crate::output::{Global, Output};
use crate::rows;
use crate::table::{bytes, counted, seconds};

/// Arguments of `data check`: those of `train sft`.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct Check {
    /// Before the settings, which take their values out of what was given.
    #[command(flatten)]
    #[serde(skip)]
    given: Given,
    #[command(flatten)]
    settings: SftSettings,
    /// Estimate no time: nothing is computed with the model.
    #[arg(long)]
    no_timing: bool,
}

/// Rows with a reason that are shown; the JSON has all of them.
const SHOWN: usize = 10;
/// A row that takes less than this many seconds is computed twice, since the first time prepares buffers.
const QUICK_S: f64 = 2.0;

/// What was found out.
#[derive(Default)]
struct Found {
    text: String,
    json: serde_json::Map<String, Value>,
    /// Why `train sft` would refuse.
    problems: Vec<String>,
}

/// Reads everything, and says what a training would do with it.
pub(super) fn run(args: &Check, global: Global) -> Result<Output, Failure> {
    let s = &args.settings;
    setup::check(s)?;
    says_something(s, &args.given)?;
    let (path, data) = setup::named(s)?;
    let mut model = LanguageModel::open_with(path, s.template.as_deref())?;
    let mut found = Found::default();
    let train = {
        let spill = std::env::temp_dir().join(format!("rhumb-check-{}", std::process::id()));
        let mut writer = intake::writer(Some(&spill));
        found.file("data", s, data, &model, |e| writer.push(&e))?;
        writer.finish().map_err(|e| Failure::new(Code::Usage, e))?
    };
    let mut held_out = 0;
    if let Some(path) = &s.eval_data {
        found.file("eval_data", s, path, &model, |_| {
            held_out += 1;
            Ok(())
        })?;
    }
    let parts = match s.eval_data {
        // Told already, and there is nothing to split.
        _ if train.is_empty() => return Ok(found.output()),
        Some(_) => Ok((train, held_out)),
        None => train.split(s.held_out, s.seed).map(|p| (p.train, p.held_out.len())),
    };
    match parts {
        Ok((train, held_out)) => {
            let row = found.rows(s, &train, held_out)?;
            let fits = found.memory(s, &model)?;
            if let Some((row, pace)) = row.filter(|_| fits && !args.no_timing) {
                global.note("computing one packed row, forward and backward");
                found.time(s, &mut model, &row, &pace)?;
            }
        }
        Err(e) => found.problem(e.to_string()),
    }
    Ok(found.output())
}

impl Found {
    fn problem(&mut self, what: impl Into<String>) {
        self.problems.push(what.into());
    }

    /// Reads a file to its end, past rows that a training would stop at.
    fn file(
        &mut self,
        key: &str,
        s: &SftSettings,
        path: &std::path::Path,
        model: &LanguageModel,
        take: impl FnMut(Example) -> Result<(), DataError>,
    ) -> Result<(), Failure> {
        let name = path.display().to_string();
        let tokenizing = intake::tokenizing(s, model);
        let mut broken = Vec::new();
        let conversations = rows::open(path, s.format)?.filter_map(|row| match row {
            Err(DataError::Line { line, reason, .. }) => {
                broken.push((line, reason));
                None
            }
            other => Some(other),
        });
        let intake = tokenizing.each(conversations, &name, take).map_err(|e| Failure::new(Code::Usage, e))?;
        self.text += &told(&name, s.tokens, &intake, broken.len());
        let reasons = intake.dropped.iter().map(|d| (d.line, intake::word(&d.why), intake::reason(&d.why)));
        let broken_too = broken.iter().map(|(line, reason)| (*line, "broken", reason.clone()));
        let mut reasons: Vec<_> = reasons.chain(broken_too).collect();
        reasons.sort_by_key(|(line, ..)| *line);
        let unit = rows::unit(&name);
        for (line, _, reason) in reasons.iter().take(SHOWN) {
            self.text += &format!("  {unit} {line}: {reason}\n");
        }
        if reasons.len() > SHOWN {
            self.text += &format!("  and {} more; --json lists all of them\n", reasons.len() - SHOWN);
        }
        if let Some((line, reason)) = broken.first() {
            let n = counted(broken.len() as u64, "row");
            self.problem(format!("{name}: {n} cannot be read, the first in {unit} {line}: {reason}"));
        } else if let Err(e) = intake.judge(&name, tokenizing.max_len) {
            self.problem(e.to_string());
        }
        let listed: Vec<Value> = reasons
            .into_iter()
            .map(|(line, why, reason)| json!({ "line": line, "why": why, "reason": reason }))
            .collect();
        let about = json!({
            "file": name, "rows": intake.rows + broken.len(), "kept": intake.kept,
            "truncated": intake.truncated, "dropped": listed,
        });
        self.json.insert(key.into(), about);
        Ok(())
    }

    /// Packs, and counts steps. Returns the first packed row, and how many are computed per step and in how many steps.
    fn rows(
        &mut self,
        s: &SftSettings,
        train: &Examples,
        held_out: usize,
    ) -> Result<Option<(TokenBatch, Pace)>, Failure> {
        let usage = |e: DataError| Failure::new(Code::Usage, e);
        let len = s.tokens as usize;
        let lengths = train.lengths();
        let packed = train.pack(len).map_err(usage)?;
        let used: usize = packed.iter().map(|r| r.used).sum();
        let fill = used as f64 / (packed.len() * len) as f64;
        self.text += &format!(
            "{} to train on, {held_out} held out; tokens {}\n{} of {len} tokens, {:.1} % full\n",
            counted(lengths.documents as u64, "conversation"),
            intake::lengths(&lengths),
            counted(packed.len() as u64, "packed row"),
            100.0 * fill
        );
        self.json.insert("tokens".into(), of_lengths(&lengths));
        self.json.insert("held_out".into(), held_out.into());
        self.json.insert("packed_rows".into(), packed.len().into());
        self.json.insert("packed_fill".into(), fill.into());
        let config = match setup::config_for(s, packed.len()) {
            Ok(config) => config,
            Err(e) => {
                self.problem(e.to_string());
                return Ok(None);
            }
        };
        let per_step = config.batch * config.accumulate;
        let per_pass = packed.len().div_ceil(per_step) as u64;
        self.text += &format!(
            "{} a pass of {per_step} rows each, {} in all\n",
            counted(per_pass, "step"),
            counted(config.steps, "step")
        );
        self.json.insert("steps_per_epoch".into(), per_pass.into());
        self.json.insert("steps".into(), config.steps.into());
        let Some(first) = packed.first() else { return Ok(None) };
        let documents =
            first.examples.iter().map(|&i| train.get(i)).collect::<Result<Vec<_>, _>>().map_err(usage)?;
        let row = PackedRow { examples: (0..documents.len()).collect(), used: first.used };
        let mut batch: TokenBatch = PackedBatch::new(&documents, &[row], len).into();
        batch.weight = 1.0 / batch.live().max(1) as f64;
        Ok(Some((batch, Pace { per_step: per_step as u64, steps: config.steps, loss: config.loss })))
    }

    /// Whether the memory suffices.
    fn memory(&mut self, s: &SftSettings, model: &LanguageModel) -> Result<bool, Failure> {
        let decoder = match setup::trained(s, &model.decoder) {
            Ok(decoder) => decoder,
            Err(e) => {
                self.problem(e.to_string());
                return Ok(false);
            }
        };
        let estimate: Estimate = setup::memory(s, &decoder)?;
        let has = machine::memory_for_process();
        self.text += &format!(
            "memory about {} (estimated){}\n",
            bytes(estimate.peak()),
            has.map_or(String::new(), |m| format!(" of {}", bytes(m)))
        );
        self.json.insert("memory_bytes".into(), estimate.peak().into());
        self.json.insert("memory_for_process_bytes".into(), has.into());
        let refused = estimate.refuse_if_too_large(s.memory_share);
        if let Err(e) = &refused {
            self.problem(e.to_string());
        }
        Ok(refused.is_ok())
    }

    /// Computes one packed row, and tells how long a step and all of them would take.
    fn time(
        &mut self,
        s: &SftSettings,
        model: &mut LanguageModel,
        row: &TokenBatch,
        pace: &Pace,
    ) -> Result<(), Failure> {
        let (decoder, params, frozen) = setup::prepare(s, model)?;
        let mut grad = vec![0.0; params.len()];
        let mut objective = DecoderObjective::new(decoder, pace.loss, s.recompute, frozen)
            .map_err(|e| Failure::new(Code::Usage, e))?;
        let mut once = || {
            let began = Instant::now();
            objective.gradient(&params, row, &mut grad, false).map_err(from_eval)?;
            Ok::<f64, Failure>(began.elapsed().as_secs_f64())
        };
        let mut spent = once()?;
        if spent < QUICK_S {
            spent = spent.min(once()?);
        }
        let step = spent * pace.per_step as f64;
        let all = step * pace.steps as f64;
        self.text += &format!(
            "time about {} a step, {} in all: one packed row took {} forward and backward (measured); optimizer and \
             evaluations come on top\n",
            seconds(step),
            seconds(all),
            seconds(spent)
        );
        self.json.insert("row_s".into(), spent.into());
        self.json.insert("step_s".into(), step.into());
        self.json.insert("all_s".into(), all.into());
        Ok(())
    }

    fn output(mut self) -> Output {
        let ok = self.problems.is_empty();
        self.text += if ok { "rhumb train sft can begin\n" } else { "rhumb train sft would refuse this:\n" };
        for problem in &self.problems {
            self.text += &format!("  {problem}\n");
        }
        self.json.insert("ok".into(), ok.into());
        self.json.insert("problems".into(), self.problems.into());
        let code = (!ok).then_some(Code::Usage);
        Output { text: self.text, json: Value::Object(self.json), code }
    }
}

/// What a training computes.
struct Pace {
    per_step: u64,
    steps: u64,
    loss: LossKind,
}

fn told(name: &str, tokens: u32, intake: &Intake, broken: usize) -> String {
    let mut parts = vec![
        format!("{} read", counted((intake.rows + broken) as u64, "row")),
        format!("{} usable", intake.kept),
        format!("{} dropped", intake.dropped.len()),
        format!("{} cut at {tokens} tokens", intake.truncated.len()),
    ];
    if broken > 0 {
        parts.push(format!("{broken} broken"));
    }
    format!("{name}: {}\n", parts.join(", "))
}

fn of_lengths(l: &Lengths) -> Value {
    let mut json = json!(l);
    json["trained_share"] = l.trained_share().into();
    json
}
