//! One training.

use std::sync::Arc;

use rhumb_core::{
    Algorithm, CheckpointError, EvalError, MemoryReport, StateReader, StateWriter, Status, Step,
};
use rhumb_lm::sft::{HeldOut, Sft, SftConfig};
use rhumb_nn::loss::LossKind;
use rhumb_optim::{ScheduleConfig, ScheduleKind};

use super::arm::Candidate;
use super::material::Material;
use super::{PretrainSettings, STEPS};
use crate::exit::{Code, Failure};
use crate::session::Context;

/// Evaluations during a training.
const POINTS: u64 = 10;

/// What a training came to; infinite losses when it diverged.
pub(super) struct Trial {
    pub(super) candidate: Candidate,
    pub(super) validation: f64,
    pub(super) test: f64,
    /// Validation loss after some of the steps.
    pub(super) curve: Vec<(f64, f64)>,
    pub(super) state_bytes: usize,
}

/// A training that keeps its evaluations.
struct Traced {
    sft: Sft,
    curve: Vec<(f64, f64)>,
}

impl Algorithm for Traced {
    fn name(&self) -> &'static str {
        "pretrain"
    }

    fn step(&mut self, s: &mut Step<'_>) -> Result<Status, EvalError> {
        let status = self.sft.step(s)?;
        if let Some(ce) = s.record.get("eval_ce") {
            self.curve.push(((s.k + 1) as f64, ce));
        }
        Ok(status)
    }

    fn save(&self, out: &mut StateWriter<'_>) -> Result<(), CheckpointError> {
        out.put_json("curve", &self.curve)?;
        self.sft.save(out)
    }

    fn load(&mut self, src: &mut StateReader) -> Result<(), CheckpointError> {
        self.curve = src.json("curve")?;
        self.sft.load(src)
    }

    fn memory(&self) -> MemoryReport {
        self.sft.memory()
    }
}

pub(super) fn run(
    s: &PretrainSettings,
    candidate: Candidate,
    folder: &str,
    material: &Material,
    ctx: &mut Context<'_>,
) -> Result<Trial, Failure> {
    let steps = ctx.budget.steps.unwrap_or(STEPS);
    let config = SftConfig {
        steps,
        batch: s.batch,
        accumulate: 1,
        tokens: s.tokens,
        optimizer: candidate.optimizer.clone(),
        schedule: ScheduleConfig {
            kind: ScheduleKind::Cosine,
            warmup_steps: (s.warmup * steps as f64).round() as u64,
            ..ScheduleConfig::default()
        },
        loss: LossKind::Ce,
        clip_norm: Some(s.clip),
        recompute: false,
        update_in_backward: false,
        eval_every: (steps / POINTS).max(1),
        seed: ctx.seed,
    };
    let windows = Material::windows(s, material.tokens.clone(), ctx.seed)?;
    let [choose, judge] = &material.held_out;
    let (model, start) = (material.decoder.clone(), material.start.clone());
    let sft = Sft::from_source(config, model, start, Arc::default(), Box::new(windows), choose)?;
    let state_bytes = sft.state_bytes();
    let mut traced = Traced { sft, curve: Vec::new() };
    let budget = ctx.budget;
    ctx.budget.steps = Some(steps);
    let outcome = ctx.drive(folder, &mut traced);
    ctx.budget = budget;
    let diverged = match outcome {
        // A rate that is too large is an answer, not a failure of the comparison.
        Err(e) if e.code == Code::Numerical => true,
        Err(e) => return Err(e),
        Ok(_) => false,
    };
    let test = if diverged { f64::INFINITY } else { loss(judge, s, material, &traced.sft)? };
    let validation = match traced.curve.last() {
        Some((_, ce)) if !diverged => *ce,
        _ => f64::INFINITY,
    };
    Ok(Trial { candidate, validation, test, curve: traced.curve, state_bytes })
}

fn loss(
    windows: &[rhumb_lm::data::Example],
    s: &PretrainSettings,
    m: &Material,
    sft: &Sft,
) -> Result<f64, Failure> {
    let held_out = HeldOut::new(windows, s.tokens, LossKind::Ce).map_err(|e| Failure::new(Code::Usage, e))?;
    let scores =
        held_out.score(&m.decoder, sft.params(), &[]).map_err(|e| Failure::new(Code::Numerical, e))?;
    Ok(scores.summary().map_or(f64::NAN, |m| m.ce))
}
